package api_test

import (
	"bytes"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// errand is a login at dex, begun by a client and not yet finished.
func (f *federation) errand(c *client.Services, d *providertest.Dex, mail string) (e *client.Errand, state, code string) {
	f.Helper()
	e, err := c.BeginProviderLogin(f.Context(), "corp", "http://127.0.0.1:7777/callback")
	if err != nil {
		f.Fatal(err)
	}
	away := d.Visit(e.GetUrl(), mail, providertest.Password)
	return e, away.Query().Get("state"), away.Query().Get("code")
}

func TestSomebodyLogsInAtAProvider(t *testing.T) {
	f := newFederation(t, 1)
	d := providertest.NewDex(t, providertest.NewCA(t), 600)
	p := d.Provider()
	p.CreateUsers = true
	f.let(p, map[string]string{"ops": "operators", "admins": "administrators"})
	internet := f.zoneID("internet")
	var seen [][]byte
	edge := client.NewServices(edge{f: f, zone: internet, passes: func(b []byte) { seen = append(seen, b) }}).Trusting(f.Pin())
	e, state, code := f.errand(edge, d, "kim@corp.example")
	s, _, err := edge.FinishProviderLogin(t.Context(), e, state, code, nil, "test")
	if err != nil {
		t.Fatal(err)
	}
	if s.User != "kim" || s.Zone != "internet" || s.Provider != "corp" {
		t.Errorf("the session is %+v", s)
	}
	me, err := whoAmI(t, f.at(internet, s))
	if err != nil || me.GetUser() != "kim" || me.GetStrength() != apiv1.Session_PASSWORD {
		t.Errorf("it is %v (%v)", me, err)
	}
	if got := f.in("operators"); !slices.Equal(got, []string{"kim by corp"}) {
		t.Errorf("operators are %v", got)
	}
	for _, b := range seen {
		if bytes.Contains(b, []byte(code)) || bytes.Contains(b, s.Secret) {
			t.Error("a secret passes in the clear")
		}
	}
	// The same name is another's; a name that is none is told.
	e, state, code = f.errand(f.at("", nil), d, "other@corp.example")
	if _, _, err := f.at("", nil).FinishProviderLogin(t.Context(), e, state, code, nil, ""); !problem.Is(err, problem.NameTaken) {
		t.Errorf("another kim: %v", err)
	}
	e, state, code = f.errand(f.at("", nil), d, "odd@corp.example")
	if _, _, err := f.at("", nil).FinishProviderLogin(t.Context(), e, state, code, nil, ""); !problem.Is(err, problem.Forbidden) || !strings.Contains(err.Error(), "Odd Name!") {
		t.Errorf("an odd name: %v", err)
	}
	// On another machine.
	away, err := f.at("", nil).BeginProviderLogin(t.Context(), "corp", "")
	if err != nil {
		t.Fatal(err)
	}
	if s, wait, err := f.at("", nil).FinishProviderLogin(t.Context(), away, "", "", nil, ""); s != nil || wait == 0 || err != nil {
		t.Errorf("before they were there: %v, %s, %v", s, wait, err)
	}
	d.Type(away.GetUrl(), "kim@corp.example")
	for s = nil; s == nil && err == nil; {
		s, _, err = f.at("", nil).FinishProviderLogin(t.Context(), away, "", "", nil, "")
	}
	if err != nil || s.User != "kim" {
		t.Errorf("with a code that was typed elsewhere: %v, %v", s, err)
	}
}

// TestASessionIsSteppedUpByALoginThatIsMadeAnew at the provider through which it was begun, and by nothing older.
func TestASessionIsSteppedUpByALoginThatIsMadeAnew(t *testing.T) {
	f := newFederation(t, 1)
	i := providertest.NewIssuer(t, providertest.NewCA(t))
	p := i.Provider()
	p.CreateUsers = true
	f.let(p, nil)
	internet := f.zoneID("internet")
	const back = "http://127.0.0.1:7777/callback"
	e, err := f.at(internet, nil).BeginProviderLogin(t.Context(), "corp", back)
	f.check(e, err)
	away := i.Visit(e.GetUrl()).Query()
	s, _, err := f.at(internet, nil).FinishProviderLogin(t.Context(), e, away.Get("state"), away.Get("code"), nil, "")
	f.check(s, err)
	c := f.at(internet, s)
	secrets := func(e *client.Errand, state, code string) *apiv1.Sealed {
		t.Helper()
		out, err := c.Seal(t.Context(), s.For(apiv1.SessionService_StepUp_FullMethodName), e.Secrets(state, code, nil))
		f.check(out, err)
		return out
	}
	stepUp := func() (*apiv1.Session, error) {
		t.Helper()
		e, err := c.BeginProviderStepUp(t.Context(), s, back)
		f.check(e, err)
		away := i.Visit(e.GetUrl()).Query()
		r, err := c.Sessions.StepUp(t.Context(), &apiv1.StepUpRequest{Secrets: secrets(e, away.Get("state"), away.Get("code"))})
		return r.GetSession(), err
	}
	i.TakesNoNotice(true)
	if m, err := stepUp(); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("by a login of an hour ago: %v, %v", m, err)
	}
	i.TakesNoNotice(false)
	// What came back from an ordinary login is no step-up, however new.
	e, err = f.at(internet, nil).BeginProviderLogin(t.Context(), "corp", back)
	f.check(e, err)
	away = i.Visit(e.GetUrl()).Query()
	if r, err := c.Sessions.StepUp(t.Context(), &apiv1.StepUpRequest{Secrets: secrets(e, away.Get("state"), away.Get("code"))}); err == nil {
		t.Errorf("by a login that was begun for something else: %v", r)
	}
	m, err := stepUp()
	if err != nil || time.Until(m.GetSteppedUpUntil().AsTime()) < 9*time.Minute || m.GetId() != s.ID {
		t.Errorf("by one that was made anew: %v, %v", m, err)
	}
	listed, err := f.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Filter: "action=session.step-up", PageSize: 10})
	if err != nil || !slices.ContainsFunc(listed.GetAuditEntries(), func(e *apiv1.AuditEntry) bool {
		return e.GetOutcome() == apiv1.AuditEntry_REFUSED && strings.Contains(e.GetMessage(), "just shown who they are")
	}) || !slices.ContainsFunc(listed.GetAuditEntries(), func(e *apiv1.AuditEntry) bool { return e.GetOutcome() == apiv1.AuditEntry_DONE }) {
		t.Errorf("the record has %v (%v)", listed.GetAuditEntries(), err)
	}
}

// TestALoginAtAProviderCountsOnceAndForWhoeverBeganIt replays it, mixes it up with another, and has an edge lie about where it is.
func TestALoginAtAProviderCountsOnceAndForWhoeverBeganIt(t *testing.T) {
	f := newFederation(t, 1)
	d := providertest.NewDex(t, providertest.NewCA(t), 600)
	p := d.Provider()
	p.CreateUsers = true
	f.let(p, nil)
	c := f.at("", nil)
	finish := func(e *client.Errand, state, code string) error {
		_, _, err := c.FinishProviderLogin(t.Context(), e, state, code, nil, "")
		return err
	}
	mine, state, code := f.errand(c, d, "kim@corp.example")
	other, otherState, otherCode := f.errand(c, d, "lee@corp.example")
	for about, err := range map[string]error{
		"another's state": finish(mine, otherState, code), "no state": finish(mine, "", code), "no code": finish(mine, state, ""),
	} {
		if !problem.Is(err, problem.Unauthenticated) {
			t.Errorf("%s: %v", about, err)
		}
	}
	// Somebody's code, put into another's login by whoever knows how: PKCE and the nonce tell.
	if err := finish(mine, state, otherCode); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("another's code: %v", err)
	}
	stolen, _, _ := f.errand(c, d, "kim@corp.example")
	stolen.Ticket = other.GetTicket()
	if err := finish(stolen, otherState, otherCode); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("another's ticket: %v", err)
	}
	stolen.Ticket = bytes.Repeat([]byte{1}, 100)
	if err := finish(stolen, "", "x"); !problem.Is(err, problem.Invalid) {
		t.Errorf("a ticket of one's own: %v", err)
	}
	if err := finish(mine, state, code); err != nil {
		t.Fatal(err)
	}
	if err := finish(mine, state, code); err == nil {
		t.Error("a login counts twice")
	}
	for about, uri := range map[string]string{"elsewhere": "https://evil.example/callback", "another path": "http://127.0.0.1:7777/other", "another name of this machine": "http://localhost:7777/callback",
		"a user in it": "http://x@127.0.0.1:7777/callback", "a question in it": "http://127.0.0.1:7777/callback?x=1"} {
		if _, err := c.BeginProviderLogin(t.Context(), "corp", uri); !problem.Is(err, problem.Invalid) {
			t.Errorf("sent back %s: %v", about, err)
		}
	}
	if _, err := c.BeginProviderLogin(t.Context(), "corp", "https://portal.example.org/back"); err != nil {
		t.Errorf("sent back to a portal: %v", err)
	}

	lying := client.NewServices(edge{f: f, zone: f.zoneID("internet"), passes: func([]byte) {}, lies: func(_ string, answer any) {
		if r, ok := answer.(*apiv1.BeginProviderLoginResponse); ok {
			u, _ := url.Parse(r.GetUrl())
			u.Host = "evil.example"
			r.Url = u.String()
		}
	}}).Trusting(f.Pin())
	if _, err := lying.BeginProviderLogin(t.Context(), "corp", "http://127.0.0.1:7777/callback"); !errors.Is(err, client.ErrWayNotVouched) {
		t.Errorf("an edge sends people elsewhere: %v", err)
	}
	// Down in the middle.
	e, state, code := f.errand(c, d, "kim@corp.example")
	d.Stop()
	if err := finish(e, state, code); !problem.Is(err, problem.Unavailable) {
		t.Errorf("down in the middle: %v", err)
	}
}
