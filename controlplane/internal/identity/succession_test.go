package identity

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// succeed is what the state machine does with the succession's commands.
func (w *world) succeed(c *commandv1.Command) (*commandv1.Result, error) {
	ring := &commandv1.Keyring{Authorities: slices.Clone(w.ring.GetAuthorities()), SealingKeys: slices.Clone(w.ring.GetSealingKeys())}
	if add := c.GetAddSealingKey(); add != nil {
		keys := append(ring.SealingKeys, add.GetSealingKey())
		ring.SealingKeys = keys[max(0, len(keys)-2):]
	}
	if add := c.GetAddAuthority(); add != nil {
		last := len(ring.Authorities) - 1
		for ring.Authorities[last].GetRole() != add.GetAuthority().GetRole() {
			last--
		}
		if !bytes.Equal(ring.Authorities[last].GetCertificate(), add.GetAfter()) {
			return &commandv1.Result{Problem: problem.New(problem.Conflict, "another", "").Problem}, nil
		}
		ring.Authorities = slices.Insert(ring.Authorities, last+1, add.GetAuthority())
	}
	if retire := c.GetRetireAuthority(); retire != nil {
		at := slices.IndexFunc(ring.Authorities, func(a *commandv1.Authority) bool { return bytes.Equal(a.GetCertificate(), retire.GetCertificate()) })
		if old := ring.Authorities[at]; old.GetRole() == pki.AuthorityLinks {
			ring.Authorities[at] = &commandv1.Authority{Role: old.GetRole(), Certificate: old.GetCertificate()}
		} else {
			ring.Authorities = slices.Delete(ring.Authorities, at, at+1)
		}
	}
	w.ring = ring
	return &commandv1.Result{}, nil
}

// keys is how many authorities of a role can issue.
func (w *world) keys(role string) (n int) {
	for _, a := range w.ring.GetAuthorities() {
		if a.GetRole() == role && len(a.GetSealedKey()) > 0 {
			n++
		}
	}
	return n
}

// lead does what the leader's loop does.
func (s *site) lead() {
	s.Helper()
	for {
		c, err := s.keeper.Succession(context.Background())
		if err != nil {
			s.Fatal(err)
		}
		if c == nil {
			return
		}
		if r, err := s.world.Propose(context.Background(), c); err != nil || r.GetProblem() != nil {
			s.Fatalf("%v, %v", r, err)
		}
	}
}

// joined is an agent with its chain, kept in memory: ten years of daily writes to a disk are no part of what is tested.
type joined struct {
	*agent
	chain [][]byte
}

func (s *site) member(name string) *joined {
	s.Helper()
	a, token := s.agent(name), s.token("zone", "zone-1")
	if _, err := s.keeper.Join(s.Context(), s.world, a.request(s, token)); err != nil {
		s.Fatal(err)
	}
	s.world.members[name].Accepted = true
	answer, err := s.keeper.Join(s.Context(), s.world, a.request(s, token))
	if err != nil {
		s.Fatal(err)
	}
	return &joined{a, answer.GetCertificate().GetChain()}
}

// renew has an agent renew its certificate with the one it has.
func (s *site) renew(a *joined) {
	s.Helper()
	csr, _ := a.holder.CSR()
	answer, err := s.keeper.Renew(s.Context(), a.chain[0], &linkv1.RenewRequest{Csr: csr})
	if err != nil {
		s.Fatalf("%s: %v", s.now.Format(time.DateOnly), err)
	}
	a.chain = answer.GetCertificate().GetChain()
}

// good holds a chain to the pinned root, now.
func (s *site) good(chain [][]byte, role pki.Role) {
	s.Helper()
	if _, err := pki.Verify(chain, s.keeper.Root(), s.now, role); err != nil {
		s.Fatalf("%s: %v", s.now.Format(time.DateOnly), err)
	}
}

func TestP13TenYearsOfRotationLockNobodyOut(t *testing.T) {
	s := newSite(t)
	root := s.keeper.Root()
	a := s.member("agent-1")
	broker, err := pki.LoadOrCreate(t.TempDir(), "broker", pki.WithClock(func() time.Time { return s.now }))
	if err != nil {
		t.Fatal(err)
	}
	issuers := map[pki.Role]map[string]time.Time{pki.RoleServer: {}, pki.RoleAgent: {}, pki.RoleBroker: {}}
	for end := s.now.Add(10 * year); s.now.Before(end); s.now = s.now.Add(20 * time.Hour) {
		s.lead()
		if s.keeper.Holder().Due() {
			if err := s.keeper.Reissue(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if broker.Due() {
			csr, _ := broker.CSR()
			chain, err := s.keeper.EnrollBroker(t.Context(), "broker-1", csr)
			if err != nil {
				t.Fatal(err)
			}
			if err := broker.Set(chain); err != nil {
				t.Fatal(err)
			}
		}
		s.renew(a)
		for role, chain := range map[pki.Role][][]byte{
			pki.RoleServer: s.keeper.Holder().Chain(), pki.RoleBroker: broker.Chain(), pki.RoleAgent: a.chain,
		} {
			s.good(chain, role)
			if issuer := string(chain[1]); issuers[role][issuer].IsZero() {
				issuers[role][issuer] = s.now
			}
		}
		for _, role := range intermediates {
			if n := s.world.keys(role); n < 1 || n > 2 {
				t.Fatalf("%s: %d authorities for %s have keys", s.now.Format(time.DateOnly), n, role)
			}
		}
	}
	for role, seen := range issuers {
		if len(seen) != 5 {
			t.Errorf("%d authorities for %s in ten years, not one every other year", len(seen), role)
		}
	}
	if !s.keeper.Root().Equal(root) {
		t.Error("the root, which is pinned in many hands, has changed")
	}
}

func TestBothAuthoritiesAreTrustedUntilTheOldOnesLastCertificateHasEnded(t *testing.T) {
	s := newSite(t)
	s.now = s.now.Add(2*year - day)
	if err := s.keeper.Reissue(t.Context()); err != nil { // the last month of the old one
		t.Fatal(err)
	}
	old := s.keeper.Holder().Chain()
	s.lead()
	if s.world.keys(pki.AuthorityServers) != 1 {
		t.Fatal("a successor came before two thirds of the life were over")
	}
	s.now = s.now.Add(2 * day)
	s.lead()
	s.good(old, pki.RoleServer)
	if err := s.keeper.Reissue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.good(s.keeper.Holder().Chain(), pki.RoleServer); bytes.Equal(s.keeper.Holder().Chain()[1], old[1]) {
		t.Fatal("the next certificate is still of the old authority")
	}
	for range 27 {
		s.now = s.now.Add(day)
		if s.lead(); s.world.keys(pki.AuthorityServers) != 2 {
			t.Fatalf("at %s the old authority is gone, and what it issued ends at %s", s.now, s.keeper.Holder().Peer().NotAfter)
		}
		s.good(old, pki.RoleServer)
	}
	s.now = s.now.Add(5 * day)
	if s.lead(); s.world.keys(pki.AuthorityServers) != 1 {
		t.Fatal("the old authority is still there")
	}
}

func TestP13AnAgentThatWasAwayForYearsRenewsWithWhatItHas(t *testing.T) {
	s := newSite(t)
	a := s.member("agent-1")
	for range 5 {
		s.now = s.now.Add(year)
		s.lead()
	}
	if s.world.keys(pki.AuthorityLinks) != 1 {
		t.Fatal("the authority that had issued it can still issue")
	}
	s.renew(a)
	s.good(a.chain, pki.RoleAgent)

	other := newSite(t).member("agent-1")
	csr, _ := other.holder.CSR()
	if _, err := s.keeper.Renew(t.Context(), other.chain[0], &linkv1.RenewRequest{Csr: csr}); !problem.Is(err, problem.CertificateInvalid) {
		t.Fatalf("a certificate of another federation: %v", err)
	}
}

func TestP13AFederationThatWasSwitchedOffForTenYearsStartsAgain(t *testing.T) {
	s := newSite(t)
	a := s.member("agent-1")
	s.now = s.now.Add(10 * year)
	// Before there is a leader: two servers must find each other.
	if err := s.keeper.Reissue(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.good(s.keeper.Holder().Chain(), pki.RoleServer)
	s.lead()
	s.renew(a)
	s.good(a.chain, pki.RoleAgent)
	if err := s.keeper.Reissue(t.Context()); err != nil || s.keeper.Holder().Chain() == nil {
		t.Fatal(err)
	}
	for _, role := range intermediates {
		if s.world.keys(role) != 1 {
			t.Errorf("%d authorities for %s", s.world.keys(role), role)
		}
	}
}

func TestP21AClockThatJumpedAheadAndBackLeavesCertificatesGood(t *testing.T) {
	for _, jump := range []time.Duration{2 * year, 10 * year, -10 * year} {
		s := newSite(t)
		a := s.member("agent-1")
		s.now = s.now.Add(jump)
		s.lead()
		s.now = s.now.Add(-jump + time.Hour)
		s.lead()
		if err := s.keeper.Reissue(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.good(s.keeper.Holder().Chain(), pki.RoleServer)
		s.renew(a)
		s.good(a.chain, pki.RoleAgent)
	}
}
