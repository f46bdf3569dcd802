package api_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// edge is the API as a zone's link brings it: a connection on which nothing but a bearer token says who calls. What passes is
// shown to passes, as a broker sees it.
type edge struct {
	grpc.ClientConnInterface
	f      *federation
	zone   string
	token  string
	passes func(body []byte)
	// lies, where set, changes what the control plane answers; its first argument is the method.
	lies func(method string, answer any)
}

func (e edge) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	body, err := proto.Marshal(args.(proto.Message))
	if err != nil {
		return err
	}
	e.passes(body)
	return e.f.server.Dispatcher().Dispatch(ctx, api.LinkCall{ZoneID: e.zone, Method: method, Body: body, Token: e.token}, func(body []byte) error {
		e.passes(body)
		if err := proto.Unmarshal(body, reply.(proto.Message)); err != nil {
			return err
		}
		if e.lies != nil {
			e.lies(method, reply)
		}
		return nil
	})
}

// at is the API at a zone's edge, with a session or without.
func (f *federation) at(zone string, s *client.Session) *client.Services {
	e := edge{f: f, zone: zone, passes: func([]byte) {}}
	if s != nil {
		e.token = s.Token()
	}
	return client.NewServices(e).Trusting(f.Pin())
}

// enrol begins to give who is logged in an authenticator, and returns what it reads.
func enrol(ctx context.Context, c *client.Services, s *client.Session, password string) (uri string, err error) {
	private, public, err := sealed.NewKey()
	if err != nil {
		return "", err
	}
	secrets, err := c.Seal(ctx, s.For(apiv1.UserService_EnrollAuthenticator_FullMethodName), &apiv1.Secrets{Password: password, ReplyKey: public})
	if err != nil {
		return "", err
	}
	r, err := c.Users.EnrollAuthenticator(ctx, &apiv1.EnrollAuthenticatorRequest{Secrets: secrets})
	if err != nil {
		return "", err
	}
	return sealed.OpenReply(private, apiv1.UserService_EnrollAuthenticator_FullMethodName, r.GetSealedUri())
}

// ownPassword is what every person in these tests chooses.
const ownPassword = "correct horse battery staple"

// reset gives a user a password for one login.
func (f *federation) reset(user string) string {
	f.Helper()
	private, public, err := sealed.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	r, err := f.Admin().Users.ResetPassword(f.Context(), &apiv1.ResetPasswordRequest{User: user, ReplyKey: public})
	if err != nil {
		f.Fatal(err)
	}
	password, err := sealed.OpenReply(private, apiv1.UserService_ResetPassword_FullMethodName, r.GetSealedPassword())
	if err != nil {
		f.Fatal(err)
	}
	return password
}

// person makes a user with a password of their own.
func (f *federation) person(name string) {
	f.Helper()
	if _, err := f.Admin().Users.CreateUser(f.Context(), &apiv1.CreateUserRequest{User: &apiv1.User{Name: name}}); err != nil {
		f.Fatal(err)
	}
	once := f.reset(name)
	s := f.logIn("", name, once)
	if err := f.change(s, once, ownPassword); err != nil {
		f.Fatal(err)
	}
	if _, err := f.at("", s).Sessions.LogOut(f.Context(), &apiv1.LogOutRequest{}); err != nil {
		f.Fatal(err)
	}
}

func (f *federation) change(s *client.Session, old, next string) error {
	f.Helper()
	c := f.at("", s)
	secrets, err := c.Seal(f.Context(), s.For(apiv1.UserService_ChangePassword_FullMethodName), &apiv1.Secrets{Password: old, NewPassword: next})
	if err != nil {
		f.Fatal(err)
	}
	_, err = c.Users.ChangePassword(f.Context(), &apiv1.ChangePasswordRequest{Secrets: secrets})
	return err
}

func (f *federation) logIn(zone, user, password string) *client.Session {
	f.Helper()
	s, _, err := f.at(zone, nil).LogIn(f.Context(), user, &apiv1.Secrets{Password: password}, "test")
	if err != nil {
		f.Fatal(err)
	}
	return s
}

func (f *federation) zoneID(name string) string {
	f.Helper()
	r, err := f.Admin().Zones.GetZone(f.Context(), &apiv1.GetZoneRequest{Zone: name})
	if err != nil {
		f.Fatal(err)
	}
	return r.GetZone().GetId()
}

func whoAmI(t *testing.T, c *client.Services) (*apiv1.WhoAmIResponse, error) {
	t.Helper()
	return c.AccessTokens.WhoAmI(t.Context(), &apiv1.WhoAmIRequest{})
}

func TestAPersonLogsInWithAPasswordForOneLoginAndChoosesTheirOwn(t *testing.T) {
	f := newFederation(t, 1)
	if _, err := f.Admin().Users.CreateUser(t.Context(), &apiv1.CreateUserRequest{User: &apiv1.User{Name: "kim"}}); err != nil {
		t.Fatal(err)
	}
	once := f.reset("kim")
	s := f.logIn("", "kim", once)
	me, err := whoAmI(t, f.at("", s))
	if err != nil || me.GetKind() != "user" || me.GetUser() != "kim" || !me.GetMustChangePassword() || me.GetStrength() != apiv1.Session_PASSWORD {
		t.Fatalf("%v, %v", me, err)
	}
	if _, err := f.at("", s).Sessions.ListSessions(t.Context(), &apiv1.ListSessionsRequest{}); !problem.Is(err, problem.MustChangePassword) {
		t.Errorf("before the password was changed: %v", err)
	}
	if err := f.change(s, once, "kim-12345678"); !problem.Is(err, problem.Invalid) {
		t.Errorf("a password with the name in it: %v", err)
	}
	if err := f.change(s, "wrong wrong wrong", ownPassword); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("with another old password: %v", err)
	}
	if err := f.change(s, once, ownPassword); err != nil {
		t.Fatal(err)
	}
	all, err := f.at("", s).Sessions.ListSessions(t.Context(), &apiv1.ListSessionsRequest{})
	if err != nil || len(all.GetSessions()) != 1 || all.GetSessions()[0].GetId() != s.ID || len(all.GetSessions()[0].GetSecretHash()) != 0 {
		t.Errorf("kim's sessions are %v (%v)", all, err)
	}
	if _, _, err := f.at("", nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: once}, ""); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("the password for one login, again: %v", err)
	}
}

func TestASessionCountsOnlyWhereItWasBegun(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	internet, business := f.zoneID("internet"), f.zoneID("business")
	s := f.logIn(internet, "kim", ownPassword)
	if s.Zone != "internet" {
		t.Errorf("it was begun at %q", s.Zone)
	}
	if _, err := whoAmI(t, f.at(internet, s)); err != nil {
		t.Errorf("where it was begun: %v", err)
	}
	for _, elsewhere := range []string{business, ""} {
		if _, err := whoAmI(t, f.at(elsewhere, s)); !problem.Is(err, problem.Forbidden) {
			t.Errorf("at %q: %v", elsewhere, err)
		}
	}
	forged := *s
	forged.Secret = bytes.Repeat([]byte{7}, 32)
	if _, err := whoAmI(t, f.at(internet, &forged)); !problem.Is(err, problem.TokenInvalid) {
		t.Errorf("with another secret: %v", err)
	}
}

// TestP12WhoIsCutOffIsCutOffWithinTwoSeconds watches with a session while it is ended in every way there is.
func TestP12WhoIsCutOffIsCutOffWithinTwoSeconds(t *testing.T) {
	for name, cut := range map[string]func(f *federation, s *client.Session) error{
		"disabled": func(f *federation, s *client.Session) error {
			_, err := f.Admin().Users.DisableUser(f.Context(), &apiv1.DisableUserRequest{User: "kim", Reason: "left"})
			return err
		},
		"revoked": func(f *federation, s *client.Session) error {
			_, err := f.Admin().Sessions.RevokeSessions(f.Context(), &apiv1.RevokeSessionsRequest{User: "kim"})
			return err
		},
		"password changed elsewhere": func(f *federation, s *client.Session) error {
			return f.change(f.logIn("", "kim", ownPassword), ownPassword, "another horse battery")
		},
		"password reset": func(f *federation, s *client.Session) error { f.reset("kim"); return nil },
		"deleted": func(f *federation, s *client.Session) error {
			_, err := f.Admin().Users.DeleteUser(f.Context(), &apiv1.DeleteUserRequest{User: "kim"})
			return err
		},
		"logged out": func(f *federation, s *client.Session) error {
			_, err := f.at("", s).Sessions.LogOut(f.Context(), &apiv1.LogOutRequest{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFederation(t, 1)
			f.person("kim")
			f.letSee("kim")
			s := f.logIn("", "kim", ownPassword)
			stream, err := f.dial(f.tls(), grpc.WithPerRPCCredentials(bearer(s.Token()))).VMs.WatchVMs(t.Context(), &apiv1.WatchVMsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
			}
			if err := cut(f, s); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if _, err := whoAmI(t, f.at("", s)); !problem.Is(err, problem.TokenInvalid) {
				t.Errorf("the next call: %v", err)
			}
			if _, err := stream.Recv(); err == nil {
				t.Error("the watch goes on")
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

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

func secretOf(t *testing.T, uri string) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "otpauth" || u.Query().Get("secret") == "" {
		t.Fatalf("%q (%v)", uri, err)
	}
	return u.Query().Get("secret")
}

// TestOfAWrongNameAndAWrongPasswordTheAnswerIsTheSame, and a known user is written down, and nobody's name is not.
func TestOfAWrongNameAndAWrongPasswordTheAnswerIsTheSame(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	var said []string
	for _, user := range []string{"kim", "typed-password-here"} {
		_, _, err := f.at("", nil).LogIn(t.Context(), user, &apiv1.Secrets{Password: "wrong wrong wrong"}, "")
		if !problem.Is(err, problem.Unauthenticated) {
			t.Fatalf("%s: %v", user, err)
		}
		said = append(said, problem.Of(err).GetDetail()+problem.Of(err).GetNext())
	}
	if said[0] != said[1] {
		t.Errorf("%q and %q", said[0], said[1])
	}
	var entries []*apiv1.AuditEntry // one for each try, whoever wrote it
	for _, e := range f.audited("") {
		if e.GetOutcome() == apiv1.AuditEntry_REFUSED {
			entries = append(entries, e)
		}
	}
	if len(entries) != 2 || entries[0].GetAction() != "session.log-in" || entries[1].GetAction() != "session.log-in" || entries[0].GetActor() != "user:kim" || entries[0].GetOutcome() != apiv1.AuditEntry_REFUSED || entries[1].GetActor() == "user:typed-password-here" {
		t.Errorf("the record says %v", entries)
	}
	if text := fmt.Sprint(entries); strings.Contains(text, "typed-password") || strings.Contains(text, "wrong wrong") {
		t.Errorf("the record has a secret in it: %s", text)
	}
}

func TestEveryLoginIsInTheRecord(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	s := f.logIn(f.zoneID("internet"), "kim", ownPassword)
	var last *apiv1.AuditEntry
	if all := f.audited("session.log-in"); len(all) > 0 {
		last = all[len(all)-1]
	}
	if last.GetActor() != "user:kim" || last.GetOutcome() != apiv1.AuditEntry_DONE || last.GetSessionId() != s.ID || last.GetStrength() != apiv1.Session_PASSWORD {
		t.Errorf("the record says %v", last)
	}
}

// audited returns the entries of an action; empty: all.
func (f *federation) audited(action string) (entries []*apiv1.AuditEntry) {
	f.Helper()
	err := f.DB.View(f.Context(), func(tx *state.Tx) error {
		leaves, err := tx.AuditLeaves(0, 100_000)
		for _, l := range leaves {
			e := &apiv1.AuditEntry{}
			if err := proto.Unmarshal(l.Leaf, e); err != nil {
				return err
			}
			if action == "" || e.GetAction() == action {
				entries = append(entries, e)
			}
		}
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return entries
}

// TestGuessingInAZoneLocksNobodyOutElsewhere guesses until the zone has to wait; kim logs in from a machine that was good there
// before, and from another zone.
func TestGuessingInAZoneLocksNobodyOutElsewhere(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	internet, business := f.zoneID("internet"), f.zoneID("business")
	device := bytes.Repeat([]byte{1}, 32)
	known := func(zone string, device []byte) error {
		_, _, err := f.at(zone, nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: ownPassword, Device: device}, "")
		return err
	}
	if err := known(internet, device); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 8 {
		_, _, err = f.at(internet, nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: "wrong wrong wrong"}, "")
	}
	if !problem.Is(err, problem.TooMany) {
		t.Fatalf("after many wrong tries: %v", err)
	}
	if err := known(internet, nil); !problem.Is(err, problem.TooMany) {
		t.Errorf("with the right password, from a machine that is not known: %v", err)
	}
	if err := known(internet, device); err != nil {
		t.Errorf("from the machine that was good before: %v", err)
	}
	if err := known(business, nil); err != nil {
		t.Errorf("in another zone: %v", err)
	}
}

func TestAnAuthenticatorsCodeIsAskedForAndCountsOnce(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	s := f.logIn("", "kim", ownPassword)
	c := f.at("", s)
	uri, err := enrol(t.Context(), c, s, ownPassword)
	if err != nil {
		t.Fatal(err)
	}
	// The code of the step before still counts, so that there are two to show.
	code := func(at time.Time) string {
		text, err := totp.GenerateCode(secretOf(t, uri), at)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	show := func(method, password, code string) *apiv1.Sealed {
		secrets, err := c.Seal(t.Context(), s.For(method), &apiv1.Secrets{Password: password, Code: code})
		if err != nil {
			t.Fatal(err)
		}
		return secrets
	}
	now := time.Now()
	first := code(now.Add(-30 * time.Second))
	if _, err := c.Users.ConfirmAuthenticator(t.Context(), &apiv1.ConfirmAuthenticatorRequest{
		Secrets: show(apiv1.UserService_ConfirmAuthenticator_FullMethodName, "wrong wrong wrong", first)}); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("confirmed with a wrong password: %v", err)
	}
	r, err := c.Users.ConfirmAuthenticator(t.Context(), &apiv1.ConfirmAuthenticatorRequest{Secrets: show(apiv1.UserService_ConfirmAuthenticator_FullMethodName, ownPassword, first)})
	if err != nil || r.GetUser().GetSecondFactor() != apiv1.User_TOTP {
		t.Fatalf("%v, %v", r, err)
	}
	logIn := func(code string) (*apiv1.Session, error) {
		_, m, err := f.at("", nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: ownPassword, Code: code}, "")
		return m, err
	}
	if _, err := logIn(""); !problem.Is(err, problem.CodeNeeded) {
		t.Errorf("without a code: %v", err)
	}
	if _, err := logIn(first); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("with a code that has counted: %v", err)
	}
	m, err := logIn(code(now))
	if err != nil || m.GetStrength() != apiv1.Session_TWO_FACTORS {
		t.Fatalf("with the next code: %v, %v", m, err)
	}
	up, err := c.Sessions.StepUp(t.Context(), &apiv1.StepUpRequest{Secrets: show(apiv1.SessionService_StepUp_FullMethodName, ownPassword, code(now.Add(30*time.Second)))})
	if err != nil || up.GetSession().GetStrength() != apiv1.Session_TWO_FACTORS || time.Until(up.GetSession().GetSteppedUpUntil().AsTime()) < 9*time.Minute {
		t.Errorf("stepped up: %v, %v", up, err)
	}
	if _, err := f.Admin().Users.RemoveAuthenticator(t.Context(), &apiv1.RemoveAuthenticatorRequest{User: "kim"}); err != nil {
		t.Fatal(err)
	}
	if m, err := logIn(""); err != nil || m.GetStrength() != apiv1.Session_PASSWORD {
		t.Errorf("after an administrator took it away: %v, %v", m, err)
	}
}

func TestOnlyTheirOwnSessionsAreAPersonsToSeeAndEnd(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	f.person("lee")
	kim, lee := f.logIn("", "kim", ownPassword), f.logIn("", "lee", ownPassword)
	if r, err := f.at("", kim).Sessions.ListSessions(t.Context(), &apiv1.ListSessionsRequest{User: "lee"}); err == nil && len(r.GetSessions()) > 0 {
		t.Errorf("kim sees lee's sessions: %v", r)
	}
	if _, err := f.at("", kim).Sessions.DeleteSession(t.Context(), &apiv1.DeleteSessionRequest{Session: lee.ID}); err == nil {
		t.Error("kim ends a session of lee's")
	}
	if _, err := f.at("", kim).Sessions.RevokeSessions(t.Context(), &apiv1.RevokeSessionsRequest{User: "lee"}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("kim revokes lee's sessions: %v", err)
	}
	if _, err := whoAmI(t, f.at("", lee)); err != nil {
		t.Errorf("lee's session: %v", err)
	}
	other := f.logIn("", "kim", ownPassword)
	if _, err := f.at("", kim).Sessions.DeleteSession(t.Context(), &apiv1.DeleteSessionRequest{Session: other.ID}); err != nil {
		t.Errorf("kim ends another session of kim's: %v", err)
	}
	if _, err := whoAmI(t, f.at("", other)); !problem.Is(err, problem.TokenInvalid) {
		t.Errorf("that session: %v", err)
	}
}

// letSee lets a user see VMs everywhere.
func (f *federation) letSee(user string) {
	f.Helper()
	if _, err := f.Admin().Roles.CreateRole(f.Context(), &apiv1.CreateRoleRequest{Role: &apiv1.Role{Name: "looker", Permissions: []string{"vm.read"}}}); err != nil {
		f.Fatal(err)
	}
	if _, err := f.Admin().RoleBindings.CreateRoleBinding(f.Context(), &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{
		Role: "looker", User: user, Scope: apiv1.RoleBinding_FEDERATION,
	}}); err != nil {
		f.Fatal(err)
	}
}
