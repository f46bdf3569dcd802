package api_test

import (
	"bytes"
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/pkg/client"
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
	// client is the address that the zone's agent says.
	client string
	// lies, where set, changes what the control plane answers; its first argument is the method.
	lies func(method string, answer any)
}

func (e edge) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	body, err := proto.Marshal(args.(proto.Message))
	if err != nil {
		return err
	}
	e.passes(body)
	return e.f.server.Dispatcher().Dispatch(ctx, api.LinkCall{ZoneID: e.zone, Method: method, Body: body, Token: e.token, Client: e.client}, func(body []byte) error {
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

// TestP12WhoIsCutOffIsCutOffWithinTwoSeconds calls and watches with a session, in the control network and at a zone's edge, while it is
// ended in every way there is.
func TestP12WhoIsCutOffIsCutOffWithinTwoSeconds(t *testing.T) {
	for name, cut := range map[string]func(f *federation, zone string, s *client.Session) error{
		"disabled": func(f *federation, _ string, _ *client.Session) error {
			_, err := f.Admin().Users.DisableUser(f.Context(), &apiv1.DisableUserRequest{User: "kim", Reason: "left"})
			return err
		},
		"revoked": func(f *federation, _ string, _ *client.Session) error {
			_, err := f.Admin().Sessions.RevokeSessions(f.Context(), &apiv1.RevokeSessionsRequest{User: "kim"})
			return err
		},
		"password changed elsewhere": func(f *federation, _ string, _ *client.Session) error {
			return f.change(f.logIn("", "kim", ownPassword), ownPassword, "another horse battery")
		},
		"password reset": func(f *federation, _ string, _ *client.Session) error { f.reset("kim"); return nil },
		"deleted": func(f *federation, _ string, _ *client.Session) error {
			_, err := f.Admin().Users.DeleteUser(f.Context(), &apiv1.DeleteUserRequest{User: "kim"})
			return err
		},
		"logged out": func(f *federation, zone string, s *client.Session) error {
			_, err := f.at(zone, s).Sessions.LogOut(f.Context(), &apiv1.LogOutRequest{})
			return err
		},
	} {
		for _, place := range []string{"in the control network", "at a zone's edge"} {
			t.Run(name+" "+place, func(t *testing.T) {
				f, zone := newFederation(t, 1), ""
				if place == "at a zone's edge" {
					zone = f.zoneID("internet")
				}
				f.person("kim")
				f.letSee("kim")
				s := f.logIn(zone, "kim", ownPassword)
				read, ended := f.watchVMs(zone, s)
				for range 2 {
					select {
					case <-read:
					case err := <-ended:
						t.Fatal(err)
					}
				}
				if err := cut(f, zone, s); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if _, err := whoAmI(t, f.at(zone, s)); !problem.Is(err, problem.TokenInvalid) {
					t.Errorf("the next call: %v", err)
				}
				select {
				case err := <-ended:
					if !problem.Is(err, problem.TokenInvalid) && !problem.Is(err, problem.Revoked) && !problem.Is(err, problem.Forbidden) {
						t.Errorf("the watch ended with %v", err)
					}
				case <-time.After(2*time.Second - time.Since(began)):
					t.Error("the watch goes on for two seconds")
				}
			})
		}
	}
}

// watchVMs watches with a session, over a connection of its own or a zone's link; read has a value for each message.
func (f *federation) watchVMs(zone string, s *client.Session) (read <-chan struct{}, ended <-chan error) {
	f.Helper()
	messages, end := make(chan struct{}, 100), make(chan error, 1)
	if zone != "" {
		c := api.LinkCall{ZoneID: zone, Method: apiv1.VMService_WatchVMs_FullMethodName, Token: s.Token()}
		go func() {
			end <- f.server.Dispatcher().Dispatch(f.Context(), c, func([]byte) error { messages <- struct{}{}; return nil })
		}()
		return messages, end
	}
	stream, err := f.dial(f.tls(), grpc.WithPerRPCCredentials(bearer(s.Token()))).VMs.WatchVMs(f.Context(), &apiv1.WatchVMsRequest{})
	if err != nil {
		f.Fatal(err)
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				end <- problem.FromStatus(err)
				return
			}
			messages <- struct{}{}
		}
	}()
	return messages, end
}

func secretOf(t *testing.T, uri string) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "otpauth" || u.Query().Get("secret") == "" {
		t.Fatalf("%q (%v)", uri, err)
	}
	return u.Query().Get("secret")
}

// authenticator makes the codes of somebody's authenticator app, each of a later step than the one before. The server takes those of the
// step before and of the next one, so that there are two to show at any time, for half a minute at least.
func authenticator(t *testing.T, uri string) (next func() string) {
	t.Helper()
	const step = 30 * time.Second
	secret, last := secretOf(t, uri), time.Time{}
	return func() string {
		t.Helper()
		if now := time.Now().Truncate(step); last.Before(now) {
			last = now
		} else {
			last = last.Add(step)
		}
		text, err := totp.GenerateCode(secret, last)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// kimEnrols is a federation in which kim has logged in and begun to enrol an authenticator. next is its next code; confirm
// shows a code of it, with a password; show seals for a method kim's own password with a code.
func kimEnrols(t *testing.T) (f *federation, c *client.Services, next func() string, confirm func(password, code string) (*apiv1.User, error), show func(method, code string) *apiv1.Sealed) {
	t.Helper()
	f = newFederation(t, 1)
	f.person("kim")
	s := f.logIn("", "kim", ownPassword)
	c = f.at("", s)
	uri, err := enrol(t.Context(), c, s, ownPassword)
	if err != nil {
		t.Fatal(err)
	}
	seal := func(method, password, code string) *apiv1.Sealed {
		secrets, err := c.Seal(t.Context(), s.For(method), &apiv1.Secrets{Password: password, Code: code})
		if err != nil {
			t.Fatal(err)
		}
		return secrets
	}
	confirm = func(password, code string) (*apiv1.User, error) {
		r, err := c.Users.ConfirmAuthenticator(t.Context(), &apiv1.ConfirmAuthenticatorRequest{
			Secrets: seal(apiv1.UserService_ConfirmAuthenticator_FullMethodName, password, code)})
		return r.GetUser(), err
	}
	return f, c, authenticator(t, uri), confirm, func(method, code string) *apiv1.Sealed { return seal(method, ownPassword, code) }
}

func TestAnAuthenticatorsCodeIsAskedForAndCountsOnce(t *testing.T) {
	f, _, next, confirm, _ := kimEnrols(t)
	first := next()
	if _, err := confirm("wrong wrong wrong", first); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("confirmed with a wrong password: %v", err)
	}
	if u, err := confirm(ownPassword, first); err != nil || u.GetSecondFactor() != apiv1.User_TOTP {
		t.Fatalf("%v, %v", u, err)
	}
	logIn := func(code string) (*apiv1.Session, error) {
		_, m, err := f.at("", nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: ownPassword, Code: code}, "")
		return m, err
	}
	for range 20 { // it is no wrong try
		if _, err := logIn(""); !problem.Is(err, problem.CodeNeeded) {
			t.Fatalf("without a code: %v", err)
		}
	}
	if _, err := logIn(first); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("with a code that has counted: %v", err)
	}
	if m, err := logIn(next()); err != nil || m.GetStrength() != apiv1.Session_TWO_FACTORS {
		t.Fatalf("with the next code: %v, %v", m, err)
	}
	if _, err := f.Admin().Users.RemoveAuthenticator(t.Context(), &apiv1.RemoveAuthenticatorRequest{User: "kim"}); err != nil {
		t.Fatal(err)
	}
	if m, err := logIn(""); err != nil || m.GetStrength() != apiv1.Session_PASSWORD {
		t.Errorf("after an administrator took it away: %v, %v", m, err)
	}
}

func TestASessionIsSteppedUpWithACode(t *testing.T) {
	_, c, next, confirm, show := kimEnrols(t)
	first := next()
	if _, err := confirm(ownPassword, first); err != nil {
		t.Fatal(err)
	}
	stepUp := func(code string) (*apiv1.Session, error) {
		r, err := c.Sessions.StepUp(t.Context(), &apiv1.StepUpRequest{Secrets: show(apiv1.SessionService_StepUp_FullMethodName, code)})
		return r.GetSession(), err
	}
	if _, err := stepUp(first); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("with a code that has counted: %v", err)
	}
	up, err := stepUp(next())
	if err != nil || up.GetStrength() != apiv1.Session_TWO_FACTORS || time.Until(up.GetSteppedUpUntil().AsTime()) < 9*time.Minute {
		t.Errorf("stepped up: %v, %v", up, err)
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
	if _, err := f.Admin().Roles.CreateRole(f.Context(), &apiv1.CreateRoleRequest{Role: &apiv1.Role{Name: "looker", Permissions: []string{"vm.read"}, AtEdges: true}}); err != nil {
		f.Fatal(err)
	}
	if _, err := f.Admin().RoleBindings.CreateRoleBinding(f.Context(), &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{
		Role: "looker", User: user, Scope: apiv1.RoleBinding_FEDERATION,
	}}); err != nil {
		f.Fatal(err)
	}
}

// TestNobodyLogsInLocallyWhereTheControlPlaneAnswers: that is for a zone that is cut off.
func TestNobodyLogsInLocallyWhereTheControlPlaneAnswers(t *testing.T) {
	f := newFederation(t, 1)
	for zone, says := range map[string]string{"": "nowhere else", f.zoneID("internet"): "not cut off"} {
		_, err := f.at(zone, nil).Sessions.BeginLocalLogin(t.Context(), &apiv1.BeginLocalLoginRequest{User: "kim"})
		if !problem.Is(problem.FromStatus(err), problem.WrongState) || !strings.Contains(err.Error(), says) {
			t.Errorf("at %q: %v", zone, err)
		}
		_, err = f.at(zone, nil).Sessions.LogInLocally(t.Context(), &apiv1.LogInLocallyRequest{
			User: "kim", Challenge: []byte("c"), Signature: make([]byte, 64), SecretHash: make([]byte, 32)})
		if !problem.Is(problem.FromStatus(err), problem.WrongState) {
			t.Errorf("at %q: %v", zone, err)
		}
	}
}
