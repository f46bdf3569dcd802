package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// federation issues link certificates.
type federation struct {
	*testing.T
	links *pki.Authority
}

func newFederation(t *testing.T) *federation {
	t.Helper()
	root, err := pki.NewAuthority(pki.AuthorityRoot, "naru.test", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	links, err := pki.NewAuthority(pki.AuthorityLinks, "naru.test", root, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &federation{t, links}
}

// agent is one that has joined a zone of the federation.
func (f *federation) agent(zone, name string) *Identity {
	f.Helper()
	i, err := Open(Options{
		Dir: f.TempDir(), Agent: name, EdgeNames: []string{"edge.localhost"}, EdgeIPs: []net.IP{net.IPv4(10, 0, 0, 1)},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	id, err := pki.AgentID("naru.test", zone, name)
	if err != nil {
		f.Fatal(err)
	}
	chain, err := f.links.Issue(i.Link.Key().Public(), id, pki.IssueOptions{Now: time.Now()})
	if err != nil {
		f.Fatal(err)
	}
	if err := i.Link.Set(chain); err != nil {
		f.Fatal(err)
	}
	return i
}

func founded(t *testing.T, f *federation) *Identity {
	t.Helper()
	first := f.agent("zone-1", "agent-1")
	if err := first.Found(); err != nil {
		t.Fatal(err)
	}
	return first
}

func TestTheFirstAgentMakesTheZonesOwnAuthority(t *testing.T) {
	f := newFederation(t)
	first := founded(t, f)
	p, err := pki.Verify(first.Member.Chain(), first.Root(), time.Now(), pki.RoleMember)
	if err != nil || p.ZoneID != "zone-1" || p.Agent != "agent-1" {
		t.Fatalf("%v, %v", p, err)
	}
	again, err := Open(first.Options)
	if err != nil || !again.InZone() || !bytes.Equal(again.GossipKey(), first.GossipKey()) {
		t.Fatalf("after a restart: %v", err)
	}
	leaf, err := x509.ParseCertificate(first.Edge.Chain()[0])
	if err != nil || leaf.VerifyHostname("edge.localhost") != nil || leaf.VerifyHostname("10.0.0.1") != nil {
		t.Fatalf("the edge's certificate is not good for its names: %v", err)
	}
}

func TestAFurtherAgentEntersByPinAndHoldsTheSameSecrets(t *testing.T) {
	f := newFederation(t)
	first, second := founded(t, f), f.agent("zone-1", "agent-2")
	request, take, err := second.AskToEnter(pki.Pin(first.Root()))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := first.LetIn(second.Link.Peer(), request)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(answer); err != nil {
		t.Fatal(err)
	}
	if !second.InZone() || !bytes.Equal(first.GossipKey(), second.GossipKey()) || !first.Root().Equal(second.Root()) {
		t.Fatal("it does not hold what the first holds")
	}
	if err := second.Reissue(); err != nil {
		t.Fatalf("it cannot issue by itself: %v", err)
	}
}

func TestNobodyElseEnters(t *testing.T) {
	f := newFederation(t)
	first := founded(t, f)
	ask := func(i *Identity) *zonev1.EnterRequest {
		r, _, err := i.AskToEnter(pki.Pin(first.Root()))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	stranger := f.agent("zone-2", "agent-9")
	if _, err := first.LetIn(stranger.Link.Peer(), ask(stranger)); !problem.Is(err, problem.Forbidden) {
		t.Errorf("an agent of another zone: %v", err)
	}
	second := f.agent("zone-1", "agent-2")
	claims := ask(second)
	claims.Agent = "agent-3"
	if _, err := first.LetIn(second.Link.Peer(), claims); !problem.Is(err, problem.Forbidden) {
		t.Errorf("an agent under another's name: %v", err)
	}
	twin := f.agent("zone-1", "agent-1")
	if _, err := first.LetIn(twin.Link.Peer(), ask(twin)); !problem.Is(err, problem.NameTaken) {
		t.Errorf("an agent of the same name: %v", err)
	}
}

func TestAnAgentTakesNothingFromAnAuthorityThatIsNotPinned(t *testing.T) {
	f := newFederation(t)
	first, other, second := founded(t, f), founded(t, f), f.agent("zone-1", "agent-2")
	request, take, err := second.AskToEnter(pki.Pin(first.Root()))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := other.LetIn(second.Link.Peer(), request)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(answer); err == nil || second.InZone() {
		t.Fatalf("it took another authority: %v", err)
	}
	if _, _, err := second.AskToEnter("sha256:nonsense"); err == nil {
		t.Fatal("a pin that is none was accepted")
	}
}

func TestAHostsCertificateSuitsLibvirt(t *testing.T) {
	first := founded(t, newFederation(t))
	dir := t.TempDir()
	if err := first.IssueLibvirt("kvm-1", net.IPv4(10, 90, 2, 20), dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "servercert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	want := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	if leaf.KeyUsage != want || leaf.VerifyHostname("10.90.2.20") != nil {
		t.Fatalf("key usage %b, addresses %v", leaf.KeyUsage, leaf.IPAddresses)
	}
	for _, name := range []string{"serverkey.pem", "cacert.pem"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
