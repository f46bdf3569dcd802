package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/pki"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

const day = 24 * time.Hour

// clocked is a zone with two agents, under one clock.
type clocked struct {
	*testing.T
	now           time.Time
	first, second *Identity
}

func newClocked(t *testing.T) *clocked {
	t.Helper()
	z := &clocked{T: t, now: time.Now()}
	f := newFederation(t)
	tell := func() time.Time { return z.now }
	z.first, z.second = f.agent("zone-1", "agent-1"), f.agent("zone-1", "agent-2")
	z.first.Now, z.second.Now = tell, tell
	if err := z.first.Found(); err != nil {
		t.Fatal(err)
	}
	request, take, err := z.second.AskToEnter(pki.Pin(z.first.Root()))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := z.first.LetIn(z.second.Link.Peer(), request)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(answer); err != nil {
		t.Fatal(err)
	}
	return z
}

// restarted is an agent after a restart, with etcd in it.
func (z *clocked) restarted(i *Identity) *Identity {
	z.Helper()
	again, err := Open(i.Options)
	if err != nil {
		z.Fatal(err)
	}
	return again
}

// pass lets days go by, on each of which agents tend and hear of one another.
func (z *clocked) pass(days int) {
	z.Helper()
	for range days {
		z.now = z.now.Add(day)
		for asking, asked := range map[*Identity]*Identity{z.first: z.second, z.second: z.first} {
			request, take, err := asking.AskAuthorities()
			if err != nil {
				z.Fatal(err)
			}
			answer, err := asked.TellAuthorities(request)
			if err != nil {
				z.Fatal(err)
			}
			if err := take(answer); err != nil {
				z.Fatal(err)
			}
			for _, h := range []*pki.Holder{asking.Member, asking.Edge} {
				if !z.now.Before(h.Peer().NotAfter.Add(-10 * day)) {
					if err := asking.Reissue(); err != nil {
						z.Fatal(err)
					}
				}
			}
		}
	}
}

// meet has each agent judge the other's certificate as it would over TLS.
func (z *clocked) meet() {
	z.Helper()
	for one, other := range map[*Identity]*Identity{z.first: z.second, z.second: z.first} {
		if err := handshake(one, other); err != nil {
			z.Errorf("%s: %s does not know %s: %v", z.now.Format(time.DateOnly), one.Agent, other.Agent, err)
		}
	}
}

func handshake(one, other *Identity) error {
	guard := func(i *Identity) *pki.Guard {
		return &pki.Guard{Roots: i.Roots, Want: []pki.Role{pki.RoleMember}, Now: i.Now}
	}
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() {
		err := tls.Server(there, guard(other).Server(other.Member.TLSCertificate)).Handshake()
		there.Close()
		served <- err
	}()
	return errors.Join(speak(tls.Client(here, guard(one).Client(one.Member.TLSCertificate))), <-served)
}

// speak shakes hands and then hears the other end's verdict, which on a pipe waits to be heard.
func speak(client *tls.Conn) error {
	defer client.Close()
	if err := client.Handshake(); err != nil {
		return err
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func TestP13AZoneReplacesItsAuthorityOverTwoYearsAndNobodyIsShutOut(t *testing.T) {
	z := newClocked(t)
	old := z.first.Root()
	z.pass(100)
	z.meet()
	if err := z.first.Replace(7*day, HostCertificateLife+day); err != nil {
		t.Fatal(err)
	}
	if err := z.first.Replace(7*day, HostCertificateLife+day); err == nil {
		t.Error("replaced again before the next one issues")
	}
	z.pass(1)
	if len(z.second.Roots()) != 2 || !z.second.Root().Equal(old) {
		t.Fatalf("the other agent believes %d authorities", len(z.second.Roots()))
	}
	z.meet()
	z.first = z.restarted(z.first) // one of the two only, as the operator goes from agent to agent
	z.pass(3)
	z.meet()
	z.second = z.restarted(z.second)
	z.pass(4)
	next := z.first.Root()
	if next.Equal(old) || !z.first.Member.Root().Equal(next) || !z.second.Member.Root().Equal(next) || !z.second.Edge.Root().Equal(next) {
		t.Fatal("on the eighth day not every certificate is of the next authority")
	}
	for range 13 {
		z.meet()
		z.pass(30)
	}
	if roots := z.first.Roots(); len(roots) != 1 || !roots[0].Equal(next) {
		t.Fatalf("after a year and a month %d authorities are believed", len(roots))
	}
	text, err := os.ReadFile(z.second.AuthorityFile())
	if err != nil || bytes.Contains(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Raw})) {
		t.Errorf("the old one is still among what etcd believes: %v", err)
	}
	z.pass(250)
	z.meet()
	if again := z.restarted(z.first); !again.Root().Equal(next) || !bytes.Equal(again.GossipKey(), z.second.GossipKey()) {
		t.Error("after a restart it holds something else")
	}
}

func TestAnAgentThatWasNotRestartedDoesNotShutItselfOutOfItsOwnEtcd(t *testing.T) {
	z := newClocked(t)
	old := z.first.Root()
	if err := z.first.Replace(7*day, 365*day); err != nil {
		t.Fatal(err)
	}
	z.pass(10)
	if !z.first.Member.Root().Equal(old) {
		t.Error("its certificate is of an authority that the etcd in it does not believe")
	}
	if z.first.Edge.Root().Equal(old) {
		t.Error("what has nothing to do with etcd is still of the former authority")
	}
	z.meet()
	if z.first = z.restarted(z.first); z.first.tend() != nil || z.first.Member.Root().Equal(old) {
		t.Error("after a restart it still is")
	}
	z.meet()
}

func TestAnotherProcessReplacesTheAuthorityUnderARunningAgent(t *testing.T) {
	z := newClocked(t)
	if err := z.restarted(z.first).Replace(0, day); err != nil { // naru-zoneagent ca replace
		t.Fatal(err)
	}
	if err := z.first.tend(); err != nil || len(z.first.Roots()) != 2 {
		t.Fatalf("%d authorities, %v", len(z.first.Roots()), err)
	}
}

func TestAHostIsShownACertificateOfTheAuthorityThatItKnows(t *testing.T) {
	z := newClocked(t)
	dir := t.TempDir()
	issue := func(name string) (server tls.Certificate, knows *x509.CertPool) {
		at := filepath.Join(dir, name)
		if err := z.first.IssueLibvirt(name, net.IPv4(127, 0, 0, 1), at); err != nil {
			t.Fatal(err)
		}
		server, err := tls.LoadX509KeyPair(filepath.Join(at, "servercert.pem"), filepath.Join(at, "serverkey.pem"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(at, "cacert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		knows = x509.NewCertPool()
		knows.AppendCertsFromPEM(text)
		return server, knows
	}
	visit := func(server tls.Certificate, knows *x509.CertPool) error {
		shown, err := z.first.HostCertificates()
		if err != nil {
			t.Fatal(err)
		}
		believes := x509.NewCertPool()
		for _, root := range z.first.Roots() {
			believes.AddCert(root)
		}
		here, there := net.Pipe()
		answered := make(chan error, 1)
		go func() {
			answered <- tls.Server(there, &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: knows, ClientAuth: tls.RequireAndVerifyClientCert, Time: z.first.Now}).Handshake()
			there.Close()
		}()
		err = speak(tls.Client(here, &tls.Config{Certificates: shown, RootCAs: believes, ServerName: "127.0.0.1", Time: z.first.Now}))
		return errors.Join(err, <-answered)
	}
	early, knowsOld := issue("early")
	if err := z.first.Replace(0, HostCertificateLife); err != nil {
		t.Fatal(err)
	}
	z.pass(1)
	z.first, z.second = z.restarted(z.first), z.restarted(z.second)
	z.pass(1)
	late, knowsBoth := issue("late")
	if err := visit(early, knowsOld); err != nil {
		t.Errorf("a host from before: %v", err)
	}
	if err := visit(late, knowsBoth); err != nil {
		t.Errorf("a host from after: %v", err)
	}
	z.pass(360)
	if err := visit(early, knowsOld); err != nil {
		t.Errorf("a host from before, nearly a year later: %v", err)
	}
	z.pass(10)
	if err := visit(early, knowsOld); err == nil {
		t.Error("a host is reached by an authority that nobody believes any more")
	}
}

func TestAFolderFromBeforeThereCouldBeTwoAuthoritiesIsRead(t *testing.T) {
	first := founded(t, newFederation(t))
	z := first.zone.Load()
	key, err := z.authorities[0].MarshalKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(first.Dir, secretsFile), mustMarshal(t, key, z.gossip), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(Options{Dir: first.Dir, Agent: first.Agent, Log: slog.New(slog.DiscardHandler)})
	if err != nil || !again.Root().Equal(first.Root()) || again.Reissue() != nil {
		t.Fatalf("%v", err)
	}
}

func TestWhatAgentsKnowComesToTheSameInWhateverOrder(t *testing.T) {
	z := newClocked(t)
	if err := z.first.Replace(7*day, 100*day); err != nil {
		t.Fatal(err)
	}
	if err := z.second.Replace(9*day, 50*day); err != nil { // at the same time, by somebody else
		t.Fatal(err)
	}
	a, b := z.first.zone.Load(), z.second.zone.Load()
	if one, other := a.merge(b, z.now), b.merge(a, z.now); !one.equal(other) || len(one.authorities) != 3 {
		t.Errorf("%d and %d authorities", len(one.authorities), len(other.authorities))
	}
	z.pass(60)
	if got := len(z.first.Roots()); got != 2 || !z.first.Root().Equal(z.second.Root()) {
		t.Errorf("%d authorities are believed after the earlier of the two ends", got)
	}
}

// mustMarshal is secrets as they were written when a zone had one authority.
func mustMarshal(t *testing.T, key, gossip []byte) []byte {
	t.Helper()
	b, err := proto.Marshal(&zonev1.Secrets{CaKey: key, GossipKey: gossip})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
