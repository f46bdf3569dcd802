package provider_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const loopback = "http://127.0.0.1:7777/callback"

// login goes through a login at dex, and returns what came back.
func login(t *testing.T, a *provider.Asker, d *providertest.Dex, p *apiv1.IdentityProvider, mail string) (in provider.Errand, code string) {
	t.Helper()
	in = provider.NewErrand()
	in.RedirectURI = loopback
	page, err := a.Begin(t.Context(), "", p, in)
	if err != nil {
		t.Fatal(err)
	}
	away := d.Visit(page, mail, providertest.Password)
	if away == nil || !strings.HasPrefix(away.String(), loopback+"?") || away.Query().Get("state") != in.State || away.Query().Get("code") == "" {
		t.Fatalf("dex sends the browser to %v", away)
	}
	return in, away.Query().Get("code")
}

func TestAProviderSaysWhoLoggedInThere(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewDex(t, ca, 600)
	a, p := newAsker(), d.Provider()
	p.GroupMappings = []*apiv1.GroupMapping{{ProviderGroup: "ops", GroupId: "g1"}, {ProviderGroup: "admins", GroupId: "g2"}}
	in, code := login(t, a, d, p, "kim@corp.example")
	kim, err := a.Finish(t.Context(), "", p, providertest.Secret, code, in)
	if err != nil {
		t.Fatal(err)
	}
	if kim.Subject == "" || kim.Login != "kim" || kim.Title != "김민수" || kim.Email != "kim@corp.example" || !slices.Equal(provider.Mapped(p, kim), []string{"g1"}) || kim.RefreshToken == "" || kim.TwoFactors {
		t.Errorf("it is %+v", kim)
	}
	in, code = login(t, a, d, p, "lee@corp.example")
	lee, err := a.Finish(t.Context(), "", p, providertest.Secret, code, in)
	if err != nil || lee.Email != "" || lee.Subject == kim.Subject {
		t.Errorf("whose mail is not verified: %+v, %v", lee, err)
	}

	// Asked again it says what it says then, until they are gone; each answer brings with what to ask the next time.
	d.Order("groups kim@corp.example admins")
	again, err := a.Refresh(t.Context(), p, providertest.Secret, kim.Subject, kim.RefreshToken)
	if err != nil || again.Subject != kim.Subject || again.RefreshToken == "" || again.RefreshToken == kim.RefreshToken || !slices.Equal(provider.Mapped(p, again), []string{"g2"}) {
		t.Fatalf("asked again it says %+v, %v", again, err)
	}
	if _, err := a.Refresh(t.Context(), p, providertest.Secret, lee.Subject, again.RefreshToken); !errors.Is(err, provider.ErrGone) {
		t.Errorf("asked about another than it answers for: %v", err)
	}
	d.Order("forget lee@corp.example")
	if _, err := a.Refresh(t.Context(), p, providertest.Secret, lee.Subject, lee.RefreshToken); !errors.Is(err, provider.ErrGone) {
		t.Errorf("asked about somebody who is gone: %v", err)
	}
}

// TestWhatComesBackCountsForOneLoginAlone: a code for another login, for another client, twice, or too late.
func TestWhatComesBackCountsForOneLoginAlone(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewDex(t, ca, 600)
	a, p := newAsker(), d.Provider()
	refusal := (*provider.Refusal)(nil)
	for about, spoil := range map[string]func(in *provider.Errand, code *string){
		"with another nonce":       func(in *provider.Errand, _ *string) { in.Nonce = provider.NewErrand().Nonce },
		"with another verifier":    func(in *provider.Errand, _ *string) { in.Verifier = provider.NewErrand().Verifier },
		"with another address":     func(in *provider.Errand, _ *string) { in.RedirectURI = "http://127.0.0.1:7778/callback" },
		"with a code of one's own": func(_ *provider.Errand, code *string) { *code = "guessed" },
	} {
		in, code := login(t, a, d, p, "kim@corp.example")
		spoil(&in, &code)
		if who, err := a.Finish(t.Context(), "", p, providertest.Secret, code, in); who != nil || err == nil || about != "with another address" && !errors.As(err, &refusal) {
			t.Errorf("%s: %+v, %v", about, who, err)
		}
	}
	in, code := login(t, a, d, p, "kim@corp.example")
	if _, err := a.Finish(t.Context(), "", p, providertest.Secret, code, in); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Finish(t.Context(), "", p, providertest.Secret, code, in); !errors.As(err, &refusal) {
		t.Errorf("a code for the second time: %v", err)
	}
	in, code = login(t, a, d, p, "kim@corp.example")
	failure := (*provider.Failure)(nil)
	if _, err := a.Finish(t.Context(), "", p, "not the secret", code, in); !errors.As(err, &failure) || strings.Contains(err.Error(), "not the secret") {
		t.Errorf("with a wrong secret: %v", err)
	}
	late := provider.New(allowed, func() time.Time { return time.Now().Add(time.Hour) })
	in, code = login(t, late, d, p, "kim@corp.example")
	if _, err := late.Finish(t.Context(), "", p, providertest.Secret, code, in); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "too old") {
		t.Errorf("a token that has expired: %v", err)
	}
	p.Oidc.SecondFactorAmrs, p.Oidc.SecondFactorAcrs = []string{"mfa"}, []string{"high"}
	in, code = login(t, a, d, p, "kim@corp.example")
	if who, err := a.Finish(t.Context(), "", p, providertest.Secret, code, in); err != nil || who.TwoFactors {
		t.Errorf("with a password alone: %+v, %v", who, err)
	}
}

func TestSomebodyWithoutABrowserTypesACodeElsewhere(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewDex(t, ca, 600)
	a, p := newAsker(), d.Provider()
	l, err := a.BeginDevice(t.Context(), "", p, providertest.Secret)
	if err != nil {
		t.Fatal(err)
	}
	in := provider.Errand{Device: l.Device}
	if _, err := a.Finish(t.Context(), "", p, providertest.Secret, "", in); !errors.Is(err, provider.ErrPending) {
		t.Fatalf("before they were there: %v", err)
	}
	d.Type(l.URL, "kim@corp.example")
	who, err := a.Finish(t.Context(), "", p, providertest.Secret, "", in)
	for ; errors.Is(err, provider.ErrPending); who, err = a.Finish(t.Context(), "", p, providertest.Secret, "", in) {
		// dex asks for a pause between two questions
	}
	if err != nil || who.Login != "kim" {
		t.Errorf("it is %+v, %v", who, err)
	}
}

func TestAProviderThatIsNotWhatItSaysIsNotBelieved(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewDex(t, ca, 600)
	failure := (*provider.Failure)(nil)
	for about, spoil := range map[string]func(p *apiv1.IdentityProvider){
		"another issuer": func(p *apiv1.IdentityProvider) { p.Oidc.Issuer += "/" },
		"another CA":     func(p *apiv1.IdentityProvider) { p.Oidc.Ca = providertest.NewCA(t).PEM },
		"nothing there":  func(p *apiv1.IdentityProvider) { p.Oidc.Issuer = "https://127.0.0.1:1/corp" },
	} {
		p := d.Provider()
		spoil(p)
		if _, err := newAsker().Begin(t.Context(), "", p, provider.NewErrand()); !errors.As(err, &failure) {
			t.Errorf("%s: %v", about, err)
		}
	}
	// It goes down between the beginning of a login and its end.
	a, p := newAsker(), d.Provider()
	in, code := login(t, a, d, p, "kim@corp.example")
	d.Stop()
	if _, err := a.Finish(t.Context(), "", p, providertest.Secret, code, in); !errors.As(err, &failure) {
		t.Errorf("in the middle: %v", err)
	}
	bad := d.Provider()
	bad.Oidc.Issuer, bad.Oidc.LoopbackRedirect = "https://kim:secret@corp.example?x", "http://example.org/callback"
	if err := provider.Check(bad); !problem.Is(err, problem.Invalid) || len(problem.Of(err).GetErrors()) != 2 {
		t.Errorf("%v", err)
	}
}

// TestNobodyClosesAProviderByWhatTheySend: a refusal is an answer. One that does not answer is left alone.
func TestNobodyClosesAProviderByWhatTheySend(t *testing.T) {
	o := providertest.NewIssuer(t, providertest.NewCA(t))
	a, p := newAsker(), o.Provider()
	for status, code := range map[int]string{400: "invalid_request", 401: "invalid_client", 403: "forbidden", 404: "", 429: "slow"} {
		o.Refuses(status, code)
		for range 5 {
			if who, err := come(t, a, o, p, false); who != nil || err == nil || strings.Contains(err.Error(), "in a row") {
				t.Fatalf("it answers %d %s: %+v, %v", status, code, who, err)
			}
		}
	}
	o.Refuses(0, "")
	if who, err := come(t, a, o, p, false); err != nil || who.Login != "kim" {
		t.Errorf("once it gives tokens: %+v, %v", who, err)
	}
	o.Refuses(503, "")
	for range 3 {
		_, _ = come(t, a, o, p, false)
	}
	before := o.Asked()
	if _, err := come(t, a, o, p, false); err == nil || !strings.Contains(err.Error(), "in a row") || o.Asked() != before {
		t.Errorf("after it was not there three times it is asked again: %v", err)
	}
}

func TestAMailCountsWhereTheProviderSaysThatItIsVerified(t *testing.T) {
	o := providertest.NewIssuer(t, providertest.NewCA(t))
	a, p := newAsker(), o.Provider()
	for _, x := range []struct {
		says any
		mail string
	}{{nil, ""}, {false, ""}, {"false", ""}, {"", ""}, {1, ""}, {true, "kim@corp.example"}, {"true", "kim@corp.example"}} {
		o.Says(map[string]any{"email_verified": x.says})
		if who, err := come(t, a, o, p, false); err != nil || who.Email != x.mail {
			t.Errorf("email_verified is %v: %+v, %v", x.says, who, err)
		}
	}
}

// TestOnlyAProviderThatSaysSoSaysThatSomebodyIsGone: what does not count for another reason does not, and what it gave to ask with the next
// time is not lost by that.
func TestOnlyAProviderThatSaysSoSaysThatSomebodyIsGone(t *testing.T) {
	o := providertest.NewIssuer(t, providertest.NewCA(t))
	p := o.Provider()
	who, err := come(t, newAsker(), o, p, false)
	if err != nil {
		t.Fatal(err)
	}
	last := who.RefreshToken
	refresh := func(ahead time.Duration) (*provider.Person, error) {
		a := provider.New(allowed, func() time.Time { return time.Now().Add(ahead) })
		before := last
		who, err := a.Refresh(t.Context(), p, providertest.Secret, "kim-1", last)
		if who != nil {
			last = who.RefreshToken
		}
		if who != nil && (last == "" || last == before) {
			t.Errorf("what was given to ask with the next time is lost: %+v", who)
		}
		return who, err
	}
	if who, err := refresh(0); err != nil || who.Login != "kim" {
		t.Fatalf("who is there: %+v, %v", who, err)
	}
	for about, x := range map[string]struct {
		ahead  time.Duration
		claims map[string]any
	}{
		"a clock that is ahead":   {ahead: time.Hour},
		"a token of later":        {claims: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}},
		"a token for another":     {claims: map[string]any{"aud": "another"}},
		"a token of nobody":       {claims: map[string]any{"sub": nil}},
		"a token of another kind": {claims: map[string]any{"azp": "another"}},
	} {
		o.Says(x.claims)
		if who, err := refresh(x.ahead); err == nil || errors.Is(err, provider.ErrGone) || who == nil || !who.GroupsUnknown {
			t.Errorf("%s: %+v, %v", about, who, err)
		}
	}
	o.Says(map[string]any{"sub": "lee-1"})
	if _, err := refresh(0); !errors.Is(err, provider.ErrGone) {
		t.Errorf("somebody else: %v", err)
	}
	o.Refuses(400, "invalid_grant")
	if _, err := refresh(0); !errors.Is(err, provider.ErrGone) {
		t.Errorf("it takes the token no more: %v", err)
	}
	for status, code := range map[int]string{400: "invalid_scope", 401: "invalid_client", 500: ""} {
		o.Refuses(status, code)
		if who, err := refresh(0); err == nil || errors.Is(err, provider.ErrGone) || who != nil {
			t.Errorf("it answers %d %s: %+v, %v", status, code, who, err)
		}
	}
}
