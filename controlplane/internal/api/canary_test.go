package api_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// believed is who calls: an administrator who says so; tokens are judged for real.
type believed struct{ *auth.Authenticator }

func (b believed) Authenticate(ctx context.Context, c auth.Credentials) (auth.Principal, error) {
	if c.Authorization == "the administrator" {
		return auth.Principal{Kind: auth.Admin, Name: "kim", Actor: "spiffe://naru.test/admin/kim"}, nil
	}
	return b.Authenticator.Authenticate(ctx, c)
}

func (b believed) Recheck(context.Context, auth.Principal) error { return nil }

// lines gathers what is logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// TestNoSecretIsWrittenDown sends secrets in by every way in, well and badly, and looks for them in the audit log, in the process's
// log, and in the replicated state. What belongs in the state (a VM's user data) is in that alone.
func TestNoSecretIsWrittenDown(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	log := &lines{}
	who := believed{auth.New(w.Service, func() *x509.Certificate { return nil }, time.Now)}
	s, err := api.New(api.Config{
		Register: w.Service.Register, Who: who, Current: w.Current, May: w.Service, Audit: w.Service, Gatherer: prometheus.NewRegistry(),
		Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	services := client.NewServices(s.Local())
	as := func(authorization string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", authorization)
	}
	admin := as("the administrator")
	nowhere, stateOnly := map[string]string{}, map[string]string{}

	token, err := services.AccessTokens.CreateAccessToken(admin, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{Name: "ci", Project: "web", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))}})
	if err != nil {
		t.Fatal(err)
	}
	secret := token.GetSecret()
	nowhere["an access token's secret"] = secret[len(secret)-32:]
	if _, err := services.VMs.ListVMs(as("Bearer "+secret), &apiv1.ListVMsRequest{}); err != nil {
		t.Fatal(err)
	}
	wrong := secret[:len(secret)-40] + strings.Repeat("A", 40)
	nowhere["what is no token"], nowhere["a password in the wrong scheme"] = "canary-of-no-token", "Y2FuYXJ5OnBhc3N3b3Jk"
	for _, authorization := range []string{"Bearer " + wrong, "Bearer canary-of-no-token", "Basic Y2FuYXJ5OnBhc3N3b3Jk", "Bearer " + secret + "x"} {
		if _, err := services.VMs.ListVMs(as(authorization), &apiv1.ListVMsRequest{}); err == nil {
			t.Errorf("%s was let in", authorization)
		}
	}
	stateOnly["a VM's user data"] = "canary-in-user-data"
	vm := w.VM("web-9", "web")
	vm.UserData = "#cloud-config\n# canary-in-user-data\n"
	for range 2 { // the second time it is refused
		_, err = services.VMs.CreateVM(admin, &apiv1.CreateVMRequest{Vm: vm})
	}
	if err == nil {
		t.Fatal("the same VM was made twice")
	}
	if _, err := services.VMs.CreateVM(as("Bearer "+wrong), &apiv1.CreateVMRequest{Vm: vm}); err == nil {
		t.Fatal("a wrong token makes VMs")
	}

	listed, err := services.Audit.ListAuditEntries(admin, &apiv1.ListAuditEntriesRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := protojson.Marshal(listed)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, leaves := replicated(t, w)
	if !bytes.Contains(leaves, []byte("access-token.create")) || !bytes.Contains(leaves, []byte("TOKEN_INVALID")) || !bytes.Contains(snapshot, []byte("canary-in-user-data")) {
		t.Fatal("the test does not look where it should")
	}
	for what, canary := range nowhere {
		for where, text := range map[string][]byte{"the list": shown, "the audit log": leaves, "the log": log.bytes(), "the state": snapshot} {
			if bytes.Contains(text, []byte(canary)) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
	for what, canary := range stateOnly {
		for where, text := range map[string][]byte{"the list": shown, "the audit log": leaves, "the log": log.bytes()} {
			if bytes.Contains(text, []byte(canary)) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
}

// carriers are the fields of requests that carry a secret, as the descriptors have them: empty where
// TestNoSecretOfAPersonIsWrittenDown sends it, else why that need not.
var carriers = map[protoreflect.FullName]string{
	"naru.api.v1.Secrets.password":                           "",
	"naru.api.v1.Secrets.code":                               "",
	"naru.api.v1.Secrets.new_password":                       "",
	"naru.api.v1.Secrets.device":                             "",
	"naru.api.v1.Secrets.ticket":                             "",
	"naru.api.v1.Secrets.state":                              "",
	"naru.api.v1.Secrets.authorization_code":                 "",
	"naru.api.v1.LogInLocallyRequest.device":                 "",
	"naru.api.v1.SetIdentityProviderSecretRequest.secret":    "",
	"naru.api.v1.SetNotificationChannelSecretRequest.secret": "",
	"naru.api.v1.Secrets.identity_provider":                  "a name",
	"naru.api.v1.Secrets.reply_key":                          "a public key",
	"naru.api.v1.VM.user_data":                               "TestNoSecretIsWrittenDown sends it: it stands in the state, and there alone",
	"naru.api.v1.Software.user_data":                         "whoever may ask for the offering reads it",
}

// secretName is what fields are called that carry a secret. What is sealed is Secrets, of which every field is one.
var secretName = regexp.MustCompile(`(^|_)(secret|password|passphrase|credential|private_key|device|user_data)$`)

// TestEveryFieldThatCarriesASecretIsKnown: a new one is sent by the canary, or is said not to be one.
func TestEveryFieldThatCarriesASecretIsKnown(t *testing.T) {
	found, seen := map[protoreflect.FullName]bool{}, map[protoreflect.FullName]bool{}
	var look func(m protoreflect.MessageDescriptor)
	look = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] {
			return
		}
		seen[m.FullName()] = true
		sealed := m.FullName() == (&apiv1.Secrets{}).ProtoReflect().Descriptor().FullName()
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			switch kind := f.Kind(); {
			case f.Message() != nil:
				look(f.Message())
			case kind != protoreflect.StringKind && kind != protoreflect.BytesKind:
			case sealed || secretName.MatchString(string(f.Name())):
				found[f.FullName()] = true
			}
		}
	}
	look((&apiv1.Secrets{}).ProtoReflect().Descriptor())
	protoregistry.GlobalFiles.RangeFilesByPackage("naru.api.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for methods, j := f.Services().Get(i).Methods(), 0; j < methods.Len(); j++ {
				look(methods.Get(j).Input())
			}
		}
		return true
	})
	for name := range found {
		if _, known := carriers[name]; !known {
			t.Errorf("%s carries a secret: have TestNoSecretOfAPersonIsWrittenDown send it, or say in carriers why it is none", name)
		}
	}
	for name := range carriers {
		if !found[name] {
			t.Errorf("no request has %s", name)
		}
	}
}

// TestNoSecretOfAPersonIsWrittenDown has a person get a password for one login, log in badly and well, choose their own, enrol an
// authenticator and step up, and an administrator make tokens of every kind, through an edge and beside it; and looks for each secret,
// in every form that it has, in Raft's log, the state (which has operations, events and the record in it), the record, the lists that
// the API gives, and the process's log. Verifiers may stand there: that of a password is a hash, that of an authenticator sealed.
func TestNoSecretOfAPersonIsWrittenDown(t *testing.T) {
	f := newFederation(t, 1)
	f.KeepLog = true
	log := &lines{}
	server, err := api.New(api.Config{
		Register: f.Service.Register, Who: auth.New(f.Service, func() *x509.Certificate { return f.root.Certificate }, time.Now), Current: f.Current, May: f.Service, Audit: f.Service,
		Gatherer: prometheus.NewRegistry(), Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.server = server // so that edges lead to the one whose log is looked at
	ctx, a := t.Context(), f.Admin()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secrets := map[string][]byte{}
	keep := func(what, text string) string { secrets[what] = []byte(text); return text }
	carry := func(field, text string) string { return keep("naru.api.v1."+field, text) }

	must(a.Users.CreateUser(ctx, &apiv1.CreateUserRequest{User: &apiv1.User{Name: "kim"}}))
	must(a.Users.CreateUser(ctx, &apiv1.CreateUserRequest{User: &apiv1.User{Name: "bot", Kind: apiv1.User_SERVICE}}))
	once := keep("the password for one login", f.reset("kim"))
	chosen, wrong := carry("Secrets.new_password", "canary battery horse staple"), carry("Secrets.password", "canary of a wrong one")
	internet := f.zoneID("internet")
	if _, _, err := f.at(internet, nil).LogIn(ctx, "kim", &apiv1.Secrets{Password: wrong}, "test"); err == nil {
		t.Fatal("a wrong password is right")
	}
	if _, _, err := f.at(internet, nil).LogIn(ctx, "canary-typed-for-a-name", &apiv1.Secrets{Password: wrong}, "test"); err == nil {
		t.Fatal("nobody logs in")
	}
	keep("what was typed for a name", "canary-typed-for-a-name")
	must(nil, f.change(f.logIn("", "kim", once), once, chosen))
	device := carry("Secrets.device", strings.Repeat("canary!!", 4))
	s, _, err := f.at(internet, nil).LogIn(ctx, "kim", &apiv1.Secrets{Password: chosen, Device: []byte(device)}, "test")
	must(nil, err)
	keep("a session's secret", string(s.Secret))
	keep("a session's bearer", s.Token())

	uri, err := enrol(ctx, f.at(internet, s), s, chosen)
	must(nil, err)
	secret := keep("an authenticator's secret", secretOf(t, uri))
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	must(nil, err)
	keep("an authenticator's bytes", string(raw))
	code, err := totp.GenerateCode(secret, time.Now())
	must(nil, err)
	typed, err := f.at(internet, s).Seal(ctx, s.For(apiv1.UserService_ConfirmAuthenticator_FullMethodName), &apiv1.Secrets{Password: chosen, Code: code})
	must(nil, err)
	must(f.at(internet, s).Users.ConfirmAuthenticator(ctx, &apiv1.ConfirmAuthenticatorRequest{Secrets: typed}))

	// A code that is wrong, what comes back from a provider, and what is shown at a zone's own desk: refused, each.
	_, _, err = f.at(internet, nil).LogIn(ctx, "kim", &apiv1.Secrets{Password: chosen, Device: []byte(device), Code: carry("Secrets.code", "canary of a code")}, "test")
	if err == nil {
		t.Fatal("a wrong code is right")
	}
	errand := &apiv1.Secrets{
		Ticket: []byte(carry("Secrets.ticket", "canary of a ticket")), State: carry("Secrets.state", "canary of a state"),
		AuthorizationCode: carry("Secrets.authorization_code", "canary of an authorization code"),
	}
	begins := sealed.For{Method: apiv1.SessionService_FinishProviderLogin_FullMethodName, SecretHash: bytes.Repeat([]byte{9}, 32)}
	typed, err = f.at(internet, nil).Seal(ctx, begins, errand)
	must(nil, err)
	if _, err := f.at(internet, nil).Sessions.FinishProviderLogin(ctx, &apiv1.FinishProviderLoginRequest{Secrets: typed, SecretHash: begins.SecretHash}); err == nil {
		t.Fatal("a ticket that nobody gave counts")
	}
	_, err = f.at(internet, nil).Sessions.LogInLocally(ctx, &apiv1.LogInLocallyRequest{
		User: "kim", Challenge: []byte("c"), Signature: make([]byte, 64), SecretHash: make([]byte, 32), Device: []byte(carry("LogInLocallyRequest.device", strings.Repeat("nightjar", 4)))})
	if err == nil {
		t.Fatal("somebody logs in locally where the control plane answers")
	}

	t.Run("a directory's password, right and wrong", func(t *testing.T) {
		ca := providertest.NewCA(t)
		p := providertest.NewSlapd(t, ca).Provider(ca)
		p.CreateUsers = true
		f.let(p, nil)
		if _, err := byDirectory(ctx, f.at(internet, nil), "lee", keep("a directory's password", lees)); err != nil {
			t.Error(err)
		}
		if _, err := byDirectory(ctx, f.at(internet, nil), "lee", keep("a directory's wrong password", "canary of a directory's wrong one")); err == nil {
			t.Error("a directory's wrong password is right")
		}
	})

	// What providers and channels are given.
	must(a.IdentityProviders.CreateIdentityProvider(ctx, &apiv1.CreateIdentityProviderRequest{IdentityProvider: &apiv1.IdentityProvider{
		Name: "other", Oidc: &apiv1.OpenIDConnect{Issuer: "https://login.example.org", ClientId: "naru"}}}))
	must(a.IdentityProviders.SetIdentityProviderSecret(ctx, &apiv1.SetIdentityProviderSecretRequest{
		IdentityProvider: "other", Secret: carry("SetIdentityProviderSecretRequest.secret", "canary of a provider's secret")}))
	must(a.NotificationChannels.CreateNotificationChannel(ctx, &apiv1.CreateNotificationChannelRequest{NotificationChannel: &apiv1.NotificationChannel{
		Name: "desk", Topics: []string{"request.waiting"}, Webhook: &apiv1.Webhook{Url: "https://hooks.example.org/desk"}}}))
	must(a.NotificationChannels.SetNotificationChannelSecret(ctx, &apiv1.SetNotificationChannelSecretRequest{
		NotificationChannel: "desk", Secret: carry("SetNotificationChannelSecretRequest.secret", "canary of a webhook's key")}))

	soon := timestamppb.New(time.Now().Add(time.Hour))
	for what, token := range map[string]*apiv1.AccessToken{"a project's token": {Name: "p", Project: "web", ExpiresAt: soon}, "a service's token": {Name: "s", User: "bot", ExpiresAt: soon}} {
		r, err := a.AccessTokens.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{AccessToken: token})
		must(nil, err)
		whole, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(r.GetSecret(), "naru_"))
		must(nil, err)
		keep(what, r.GetSecret())
		keep(what+"'s bytes", string(whole[16:])) // behind the id
	}
	joins, err := a.Zones.CreateJoinToken(ctx, &apiv1.CreateJoinTokenRequest{Zone: "business"})
	must(nil, err)
	keep("a zone's join token", joins.GetToken()[strings.LastIndexByte(joins.GetToken(), ':')+1:])
	joined, err := a.Servers.CreateServerToken(ctx, &apiv1.CreateServerTokenRequest{})
	must(nil, err)
	keep("a server's token", joined.GetToken()[strings.LastIndexByte(joined.GetToken(), ':')+1:])

	for field, why := range carriers {
		if _, sent := secrets[string(field)]; sent != (why == "") {
			t.Errorf("%s is sent: %v, and is none because %q", field, sent, why)
		}
	}

	entries, err := a.Audit.ListAuditEntries(ctx, &apiv1.ListAuditEntriesRequest{PageSize: 1000})
	must(nil, err)
	operations, err := a.Operations.ListOperations(ctx, &apiv1.ListOperationsRequest{PageSize: 1000})
	must(nil, err)
	events, err := a.Events.ListEvents(ctx, &apiv1.ListEventsRequest{PageSize: 1000})
	must(nil, err)
	users, err := a.Users.ListUsers(ctx, &apiv1.ListUsersRequest{})
	must(nil, err)
	snapshot, leaves := replicated(t, f.World)
	for _, sign := range []string{"user.reset-password", "user.change-password", "user.confirm-authenticator", "session.log-in"} {
		if !bytes.Contains(leaves, []byte(sign)) {
			t.Fatalf("the test does not do what it says: %s is not in the record", sign)
		}
	}
	if !bytes.Contains(f.RaftLog(), []byte("$argon2id$")) || !bytes.Contains(snapshot, []byte("$argon2id$")) || !bytes.Contains(log.bytes(), []byte("LogIn")) {
		t.Fatal("the test does not look where it should")
	}
	places := map[string][]byte{"Raft's log": f.RaftLog(), "the state": snapshot, "the record": leaves, "the process's log": log.bytes()}
	for what, m := range map[string]proto.Message{"the list of the record": entries, "operations": operations, "events": events, "users": users} {
		if places[what], err = protojson.Marshal(m); err != nil {
			t.Fatal(err)
		}
	}
	for what, secret := range secrets {
		forms := [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(base64.StdEncoding.EncodeToString(secret)), []byte(base64.RawURLEncoding.EncodeToString(secret))}
		for where, text := range places {
			for _, form := range forms {
				if bytes.Contains(text, form) {
					t.Errorf("%s is in %s", what, where)
				}
			}
		}
	}
}

// replicated returns the state as a snapshot has it, and the audit log's leaves, which are what an export carries.
func replicated(t *testing.T, w *servicetest.World) (snapshot, leaves []byte) {
	t.Helper()
	s, err := w.DB.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	err = w.DB.View(t.Context(), func(tx *state.Tx) error {
		all, err := tx.AuditLeaves(0, 100_000)
		for _, l := range all {
			leaves = append(leaves, l.Leaf...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), leaves
}
