package identity

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// world is the replicated state as the keeper sees it, with the commands that change it carried out at once.
type world struct {
	ring    *commandv1.Keyring
	tokens  map[string]*commandv1.JoinToken
	members map[string]*commandv1.Member
	active  bool
}

func (w *world) Keyring(context.Context) (*commandv1.Keyring, error) { return w.ring, nil }

func (w *world) JoinToken(_ context.Context, id string) (*commandv1.JoinToken, error) {
	return w.tokens[id], nil
}

func (w *world) Member(_ context.Context, _, agent string) (*commandv1.Member, error) {
	return w.members[agent], nil
}

func (w *world) ZoneName(context.Context, string) (string, bool, error) {
	return "business", w.active, nil
}

func (w *world) Propose(_ context.Context, c *commandv1.Command) (*commandv1.Result, error) {
	if c.GetAddAuthority() != nil || c.GetRetireAuthority() != nil || c.GetAddSealingKey() != nil {
		return w.succeed(c)
	}
	ask := c.GetAskToJoin()
	w.tokens[ask.GetTokenId()].UsedBy = ask.GetKey()
	w.members[ask.GetAgent()] = &commandv1.Member{ZoneId: "zone-1", Agent: ask.GetAgent(), Key: ask.GetKey()}
	return &commandv1.Result{}, nil
}

// site is a federation's first server and its state.
type site struct {
	*testing.T
	keeper *Keeper
	world  *world
	now    time.Time
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: t, now: time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)}
	s.keeper = s.open(t.TempDir())
	ring, admin, err := s.keeper.Begin("naru.test", "server-1", "admin")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := pki.Verify(admin.Chain, s.keeper.Root(), s.now, pki.RoleAdmin); err != nil || p.Admin != "admin" {
		t.Fatalf("the administrator's certificate: %v, %v", p, err)
	}
	s.world = &world{ring: ring, tokens: map[string]*commandv1.JoinToken{}, members: map[string]*commandv1.Member{}, active: true}
	s.keeper.Attach(s.world)
	return s
}

func (s *site) open(dir string) *Keeper {
	s.Helper()
	k, err := Open(Options{Dir: dir, Names: []string{"control.localhost"}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return s.now }})
	if err != nil {
		s.Fatal(err)
	}
	return k
}

// token makes a join token and returns what the administrator sees.
func (s *site) token(role, zone string) pki.JoinToken {
	s.Helper()
	record, text, err := s.keeper.NewJoinToken(role, zone, s.now.Add(time.Hour))
	if err != nil {
		s.Fatal(err)
	}
	if bytes.Contains(record.GetSealedSecret(), []byte(text)) {
		s.Fatal("the secret lies open in the state")
	}
	t, err := pki.ParseJoinToken(text)
	if err != nil {
		s.Fatal(err)
	}
	s.world.tokens[t.ID] = record
	return t
}

// agent is somebody with a key who asks to join.
type agent struct {
	holder *pki.Holder
	name   string
}

func (s *site) agent(name string) *agent {
	s.Helper()
	h, err := pki.LoadOrCreate(s.TempDir(), "link")
	if err != nil {
		s.Fatal(err)
	}
	return &agent{h, name}
}

func (a *agent) request(s *site, t pki.JoinToken) *linkv1.JoinRequest {
	s.Helper()
	csr, err := a.holder.CSR()
	if err != nil {
		s.Fatal(err)
	}
	nonce := make([]byte, 32)
	return &linkv1.JoinRequest{
		TokenId: t.ID, Agent: a.name, Csr: csr, Nonce: nonce,
		Mac: pki.MAC(t.Secret, []byte(t.ID), []byte(a.name), csr, nonce),
	}
}

func TestAnAgentIsLetInOnlyOnceAnAdministratorHasAcceptedIt(t *testing.T) {
	s := newSite(t)
	a, token := s.agent("agent-1"), s.token("zone", "zone-1")
	answer, err := s.keeper.Join(t.Context(), s.world, a.request(s, token))
	if err != nil || !answer.GetPending() {
		t.Fatalf("%v, %v", answer, err)
	}
	if answer, err = s.keeper.Join(t.Context(), s.world, a.request(s, token)); err != nil || !answer.GetPending() {
		t.Fatalf("asked again: %v, %v", answer, err)
	}
	s.world.members["agent-1"].Accepted = true
	answer, err = s.keeper.Join(t.Context(), s.world, a.request(s, token))
	if err != nil || answer.GetCertificate().GetZone() != "business" {
		t.Fatalf("%v, %v", answer, err)
	}
	p, err := pki.Verify(answer.GetCertificate().GetChain(), s.keeper.Root(), s.now, pki.RoleAgent)
	if err != nil || p.ZoneID != "zone-1" || p.Agent != "agent-1" {
		t.Fatalf("%v, %v", p, err)
	}
}

func TestAJoinIsRefusedWithTheWayOut(t *testing.T) {
	s := newSite(t)
	a := s.agent("agent-1")
	good := s.token("zone", "zone-1")
	used := s.token("zone", "zone-1")
	if _, err := s.keeper.Join(t.Context(), s.world, s.agent("other").request(s, used)); err != nil {
		t.Fatal(err)
	}
	expired := s.token("zone", "zone-1")
	server := s.token("server", "")
	forged := good
	forged.Secret = bytes.Repeat([]byte{1}, len(good.Secret))
	unknown := good
	unknown.ID = "nobody"
	tampered := a.request(s, good)
	tampered.Agent = "agent-2"

	for name, c := range map[string]struct {
		request *linkv1.JoinRequest
		code    problem.Code
	}{
		"a wrong secret":               {a.request(s, forged), problem.TokenInvalid},
		"a token that is not known":    {a.request(s, unknown), problem.TokenInvalid},
		"a server's token":             {a.request(s, server), problem.TokenInvalid},
		"a request changed on its way": {tampered, problem.TokenInvalid},
		"a token that another used":    {a.request(s, used), problem.TokenUsed},
	} {
		if _, err := s.keeper.Join(t.Context(), s.world, c.request); !problem.Is(err, c.code) || problem.Of(err).GetNext() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.now = s.now.Add(2 * time.Hour)
	if _, err := s.keeper.Join(t.Context(), s.world, a.request(s, expired)); !problem.Is(err, problem.TokenExpired) {
		t.Errorf("an expired token: %v", err)
	}
}

func TestARenewalKeepsTheIdAndNeedsTheKey(t *testing.T) {
	s := newSite(t)
	a, token := s.agent("agent-1"), s.token("zone", "zone-1")
	if _, err := s.keeper.Join(t.Context(), s.world, a.request(s, token)); err != nil {
		t.Fatal(err)
	}
	s.world.members["agent-1"].Accepted = true
	answer, err := s.keeper.Join(t.Context(), s.world, a.request(s, token))
	if err != nil {
		t.Fatal(err)
	}
	leaf := answer.GetCertificate().GetChain()[0]
	csr, _ := a.holder.CSR()
	s.now = s.now.Add(48 * time.Hour) // long expired
	renewed, err := s.keeper.Renew(t.Context(), leaf, &linkv1.RenewRequest{Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := pki.Verify(renewed.GetCertificate().GetChain(), s.keeper.Root(), s.now, pki.RoleAgent); err != nil || p.Agent != "agent-1" {
		t.Fatalf("%v, %v", p, err)
	}
	thief, _ := s.agent("agent-1").holder.CSR()
	if _, err := s.keeper.Renew(t.Context(), leaf, &linkv1.RenewRequest{Csr: thief}); !problem.Is(err, problem.CertificateInvalid) {
		t.Fatalf("another key: %v", err)
	}
	s.world.members["agent-1"].Revoked = true
	if _, err := s.keeper.Renew(t.Context(), leaf, &linkv1.RenewRequest{Csr: csr}); !problem.Is(err, problem.Revoked) {
		t.Fatalf("revoked: %v", err)
	}
	s.world.members["agent-1"].Revoked, s.world.active = false, false
	if _, err := s.keeper.Renew(t.Context(), leaf, &linkv1.RenewRequest{Csr: csr}); !problem.Is(err, problem.Revoked) {
		t.Fatalf("a retired zone: %v", err)
	}
}

func TestAServerJoinsAndCanThenOpenTheKeyring(t *testing.T) {
	s := newSite(t)
	token := s.token("server", "")
	second := s.open(t.TempDir())
	request, take, err := second.AskToJoin(token, "controlplane-2", "server-2", make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.keeper.JoinServer(t.Context(), s.world, request)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(answer); err != nil {
		t.Fatal(err)
	}
	second.Attach(s.world)
	if !second.Ready() || second.Holder().Peer().ServerID != "server-2" {
		t.Fatalf("ready %v, %v", second.Ready(), second.Holder().Peer())
	}
	if err := second.Reissue(t.Context()); err != nil {
		t.Fatalf("it cannot use the authorities: %v", err)
	}
	if _, _, err := second.AskToJoin(token, "controlplane-2", "server-3", make([]byte, 32)); err == nil {
		t.Fatal("a server that has joined may join again")
	}
	request.ServerId = "server-9"
	if _, err := s.keeper.JoinServer(t.Context(), s.world, request); !problem.Is(err, problem.TokenInvalid) {
		t.Fatalf("a changed request: %v", err)
	}
}

func TestTheKeyringDoesNotOpenWithAnotherSealingKey(t *testing.T) {
	s, other := newSite(t), newSite(t)
	other.keeper.Attach(s.world)
	if err := other.keeper.Reissue(t.Context()); err == nil || !strings.Contains(err.Error(), "is not the federation's") {
		t.Fatalf("got %v", err)
	}
}

func TestAKeyFolderIsKeptAndADamagedOneIsRefused(t *testing.T) {
	s := newSite(t)
	dir := s.keeper.Dir
	if again := s.open(dir); !again.Ready() {
		t.Fatal("after a restart the server has forgotten its federation")
	}
	if _, _, err := s.keeper.Begin("other.test", "x", "admin"); err == nil {
		t.Fatal("a second federation began in the same folder")
	}
	if err := os.WriteFile(filepath.Join(dir, sealingFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Fatalf("got %v", err)
	}
}
