package api_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"encoding/base32"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestNoBrokerReadsOrReusesASecret logs in, changes the password, and enrols an authenticator through an edge, and looks at every
// byte that passes: no secret is in it, and a copy of what was sent is worth nothing.
func TestNoBrokerReadsOrReusesASecret(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	internet := f.zoneID("internet")
	var seen [][]byte
	through := func(s *client.Session) *client.Services {
		e := edge{f: f, zone: internet, passes: func(b []byte) { seen = append(seen, b) }}
		if s != nil {
			e.token = s.Token()
		}
		return client.NewServices(e).Trusting(f.Pin())
	}
	device := bytes.Repeat([]byte("device!!"), 4)
	s, _, err := through(nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: ownPassword, Device: device}, "test")
	if err != nil {
		t.Fatal(err)
	}
	logIn := seen[len(seen)-2] // the request; the last is the answer

	uri, err := enrol(t.Context(), through(s), s, ownPassword)
	if err != nil {
		t.Fatal(err)
	}
	secret := secretOf(t, uri)
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	confirm, err := through(s).Seal(t.Context(), s.For(apiv1.UserService_ConfirmAuthenticator_FullMethodName), &apiv1.Secrets{Password: ownPassword, Code: code})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := through(s).Users.ConfirmAuthenticator(t.Context(), &apiv1.ConfirmAuthenticatorRequest{Secrets: confirm}); err != nil {
		t.Fatal(err)
	}
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range seen {
		for what, text := range map[string][]byte{"the password": []byte(ownPassword), "the authenticator": []byte(secret), "its bytes": raw, "the session's secret": s.Secret, "the device": device} {
			if bytes.Contains(b, text) {
				t.Errorf("%s passes in the clear", what)
			}
		}
	}

	// The request is sent once more, as it was, and with another session's hash.
	ask := &apiv1.LogInRequest{}
	if err := proto.Unmarshal(logIn, ask); err != nil {
		t.Fatal(err)
	}
	if _, err := f.at(internet, nil).Sessions.LogIn(t.Context(), ask); err == nil {
		t.Error("a copy of a login logs in")
	}
	ask.SecretHash = bytes.Repeat([]byte{9}, 32)
	if _, err := f.at(internet, nil).Sessions.LogIn(t.Context(), ask); !problem.Is(err, problem.Invalid) {
		t.Errorf("a copy with another session's hash: %v", err)
	}
	if _, err := f.at(internet, s).Sessions.StepUp(t.Context(), &apiv1.StepUpRequest{Secrets: confirm}); !problem.Is(err, problem.Invalid) {
		t.Errorf("what was sealed for one method, with another: %v", err)
	}
}

// TestACopyOfALoginIsWorthNothingOnceTheSessionHasEnded sends the same bytes again after the session that they began was ended.
func TestACopyOfALoginIsWorthNothingOnceTheSessionHasEnded(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	var seen [][]byte
	c := client.NewServices(edge{f: f, passes: func(b []byte) { seen = append(seen, b) }}).Trusting(f.Pin())
	s, _, err := c.LogIn(t.Context(), "kim", &apiv1.Secrets{Password: ownPassword}, "test")
	if err != nil {
		t.Fatal(err)
	}
	ask := &apiv1.LogInRequest{}
	if err := proto.Unmarshal(seen[len(seen)-2], ask); err != nil {
		t.Fatal(err)
	}
	if _, err := f.at("", s).Sessions.LogOut(t.Context(), &apiv1.LogOutRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.at("", nil).Sessions.LogIn(t.Context(), ask); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("a copy of a login: %v", err)
	}
}

// TestALyingEdgeLearnsNoPassword has an edge, which ends its users' TLS, give out a key of its own in every way that it can think of.
// Nothing is sealed to it, and no login leaves the client.
func TestALyingEdgeLearnsNoPassword(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	internet := f.zoneID("internet")
	_, own, err := sealed.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	vouch := func(o *apiv1.GetLoginOptionsResponse, by tls.Certificate) {
		o.SealingKey, o.SealingChain = own, by.Certificate
		key := sealed.Key{ID: o.GetSealingKeyId(), Public: own, Until: o.GetSealingKeyUntil().AsTime()}
		o.SealingSignature, err = key.Vouch(by.PrivateKey.(crypto.Signer))
		if err != nil {
			t.Fatal(err)
		}
	}
	now := pki.IssueOptions{Now: time.Now()}
	agentID, err := pki.AgentID("naru.test", internet, "agent-1")
	agent := certificate(t, authority(t, pki.AuthorityLinks, f.Root()), agentID, err, now)
	serverID, err := pki.ServerID("naru.test", "server-1")
	stranger := certificate(t, authority(t, pki.AuthorityServers, authority(t, pki.AuthorityRoot, nil)), serverID, err, now)
	for about, lie := range map[string]func(o *apiv1.GetLoginOptionsResponse){
		"a key of its own": func(o *apiv1.GetLoginOptionsResponse) { o.SealingKey = own },
		"one that nobody vouches for": func(o *apiv1.GetLoginOptionsResponse) {
			o.SealingKey, o.SealingChain, o.SealingSignature = own, nil, nil
		},
		"one that its own certificate vouches for":   func(o *apiv1.GetLoginOptionsResponse) { vouch(o, agent) },
		"one that another federation's server signs": func(o *apiv1.GetLoginOptionsResponse) { vouch(o, stranger) },
		"one of its own, under a server's chain": func(o *apiv1.GetLoginOptionsResponse) {
			chain := o.GetSealingChain()
			vouch(o, agent)
			o.SealingChain = chain
		},
		"an old one, made to last": func(o *apiv1.GetLoginOptionsResponse) {
			o.SealingKeyUntil = timestamppb.New(time.Now().Add(1000 * time.Hour))
		},
		"the right one, under another id": func(o *apiv1.GetLoginOptionsResponse) { o.SealingKeyId = "other" },
	} {
		var sent int
		e := edge{f: f, zone: internet, passes: func([]byte) { sent++ }, lies: func(method string, answer any) {
			if o, ok := answer.(*apiv1.GetLoginOptionsResponse); ok {
				lie(o)
			}
		}}
		_, _, err := client.NewServices(e).Trusting(f.Pin()).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: ownPassword}, "")
		if !errors.Is(err, client.ErrNotVouched) || sent != 2 {
			t.Errorf("%s: %d messages passed, and %v", about, sent, err)
		}
	}
	if _, _, err := f.at(internet, nil).Trusting("").LogIn(t.Context(), "kim", &apiv1.Secrets{Password: ownPassword}, ""); !errors.Is(err, client.ErrNotVouched) || !strings.Contains(err.Error(), "trust_pin") {
		t.Errorf("without the pin of a root: %v", err)
	}
	f.logIn(internet, "kim", ownPassword)
}

// TestALyingEdgeReadsNoAuthenticatorsSecret has an edge, which holds its users' bearers, ask in their place, and answer in the control
// plane's: without the password it has no key of its own put beside it, and it does not know the key that was.
func TestALyingEdgeReadsNoAuthenticatorsSecret(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	internet := f.zoneID("internet")
	s := f.logIn(internet, "kim", ownPassword)
	const method = apiv1.UserService_EnrollAuthenticator_FullMethodName
	private, own, err := sealed.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	theirs := f.at(internet, s) // the edge's hand, with kim's bearer
	ask := func(secrets *apiv1.Sealed) (*apiv1.EnrollAuthenticatorResponse, error) {
		return theirs.Users.EnrollAuthenticator(t.Context(), &apiv1.EnrollAuthenticatorRequest{Secrets: secrets})
	}
	seal := func(what sealed.For, typed *apiv1.Secrets) *apiv1.Sealed {
		t.Helper()
		out, err := theirs.Seal(t.Context(), what, typed)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, err := ask(seal(s.For(method), &apiv1.Secrets{ReplyKey: own})); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("its own key, without the password: %v", err)
	}
	if _, err := ask(seal(s.For(method), &apiv1.Secrets{ReplyKey: own, Password: "a guess at the password"})); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("its own key, with a guess: %v", err)
	}
	if _, err := ask(seal(s.For(apiv1.SessionService_StepUp_FullMethodName), &apiv1.Secrets{ReplyKey: own, Password: ownPassword})); !problem.Is(err, problem.Invalid) {
		t.Errorf("what kim sealed for something else: %v", err)
	}
	if _, err := ask(seal(s.For(method), &apiv1.Secrets{Password: ownPassword})); !problem.Is(err, problem.Invalid) {
		t.Errorf("no key at all: %v", err)
	}

	var passed [][]byte
	var asked *apiv1.EnrollAuthenticatorRequest
	watching := client.NewServices(edge{f: f, zone: internet, token: s.Token(), passes: func(b []byte) {
		m := &apiv1.EnrollAuthenticatorRequest{}
		if passed = append(passed, b); proto.Unmarshal(b, m) == nil && len(m.GetSecrets().GetCiphertext()) > 0 {
			asked = m
		}
	}}).Trusting(f.Pin())
	uri, err := enrol(t.Context(), watching, s, ownPassword)
	if err != nil || asked == nil {
		t.Fatalf("%v, %v", asked, err)
	}
	for _, b := range passed {
		if bytes.Contains(b, []byte(secretOf(t, uri))) || bytes.Contains(b, []byte(ownPassword)) {
			t.Error("a secret passes in the clear")
		}
	}
	if _, err := ask(asked.GetSecrets()); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("what kim sealed, once more: %v", err)
	}
	for about, lie := range map[string]func(method string, answer any){
		"gives out a key of its own to seal to": func(_ string, answer any) {
			if o, ok := answer.(*apiv1.GetLoginOptionsResponse); ok {
				o.SealingKey = own
			}
		},
		"makes up the secret": func(_ string, answer any) {
			if r, ok := answer.(*apiv1.EnrollAuthenticatorResponse); ok {
				r.SealedUri, err = sealed.Reply(own, method, "otpauth://totp/naru.test:kim?secret=JBSWY3DPEHPK3PXP")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := sealed.OpenReply(private, method, r.GetSealedUri()); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		lying := client.NewServices(edge{f: f, zone: internet, token: s.Token(), passes: func([]byte) {}, lies: lie}).Trusting(f.Pin())
		if uri, err := enrol(t.Context(), lying, s, ownPassword); !errors.Is(err, client.ErrNotVouched) && !errors.Is(err, sealed.ErrSealed) {
			t.Errorf("an edge that %s: %q, %v", about, uri, err)
		}
	}
}
