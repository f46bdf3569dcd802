package peer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// zone is one with a first agent that serves the others, on loopback and with its real certificates.
type zone struct {
	*testing.T
	links   *pki.Authority
	first   *identity.Identity
	address string
	stop    func()

	reaches map[string]error // what the first agent says of a host
	calls   chan context.Context
	answer  func(context.Context, *zonev1.CallRequest, func(*zonev1.CallResponse) error) error
}

func newZone(t *testing.T) *zone {
	t.Helper()
	root := must(pki.NewAuthority(pki.AuthorityRoot, "naru.test", nil, time.Now()))
	z := &zone{
		T: t, links: must(pki.NewAuthority(pki.AuthorityLinks, "naru.test", root, time.Now())),
		reaches: map[string]error{}, calls: make(chan context.Context, 1),
	}
	z.first = z.agent("zone-1", "agent-1")
	if err := z.first.Found(); err != nil {
		t.Fatal(err)
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	z.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		s := &Server{
			Identity: z.first, Endpoints: func() []string { return []string{"https://etcd.test:2379"} },
			Reacher: z, Caller: z, Log: slog.New(slog.DiscardHandler),
		}
		ended <- s.Run(ctx, l)
	}()
	z.stop = func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the server ended with %v", err)
		}
		z.stop = func() {}
	}
	t.Cleanup(func() { z.stop() })
	return z
}

// Reach and Call are the first agent's.
func (z *zone) Reach(_ context.Context, hostID string) error { return z.reaches[hostID] }

func (z *zone) Call(ctx context.Context, r *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error {
	z.calls <- ctx
	return z.answer(ctx, r, send)
}

// agent is one that has joined a zone of the federation.
func (z *zone) agent(zoneID, name string) *identity.Identity {
	z.Helper()
	i := must(identity.Open(identity.Options{Dir: z.TempDir(), Agent: name, EdgeNames: []string{"edge.test"}, Log: slog.New(slog.DiscardHandler)}))
	id := must(pki.AgentID("naru.test", zoneID, name))
	if err := i.Link.Set(must(z.links.Issue(i.Link.Key().Public(), id, pki.IssueOptions{Now: time.Now()}))); err != nil {
		z.Fatal(err)
	}
	return i
}

func (z *zone) pin() string { return pki.Pin(z.first.Root()) }

// second is an agent that has entered, and its way to the others.
func (z *zone) second() (*identity.Identity, *Peers) {
	z.Helper()
	i := z.agent("zone-1", "agent-2")
	if _, err := Enter(z.Context(), i, []string{z.address}, z.pin()); err != nil {
		z.Fatal(err)
	}
	p := NewPeers(i)
	z.Cleanup(p.Close)
	return i, p
}

// closed is an address at which nobody listens.
func closed() string {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	return l.Addr().String()
}

func TestAnAgentEntersAtWhicheverOtherAnswers(t *testing.T) {
	z := newZone(t)
	i := z.agent("zone-1", "agent-2")
	endpoints, err := Enter(t.Context(), i, []string{closed(), z.address}, z.pin())
	if err != nil || len(endpoints) != 1 || endpoints[0] != "https://etcd.test:2379" {
		t.Fatalf("%v, %v", endpoints, err)
	}
	if !i.InZone() || !i.Root().Equal(z.first.Root()) || string(i.GossipKey()) != string(z.first.GossipKey()) {
		t.Error("it does not hold what the zone keeps to itself")
	}
}

func TestWhoMayNotEnterIsToldWhyAndByWhom(t *testing.T) {
	z := newZone(t)
	nobody := closed()
	unjoined := must(identity.Open(identity.Options{Dir: t.TempDir(), Agent: "agent-3", EdgeNames: []string{"edge.test"}, Log: slog.New(slog.DiscardHandler)}))
	other := newZone(t)
	for about, c := range map[string]struct {
		who     *identity.Identity
		address string
		pin     string
		says    []string
	}{
		"an agent of another zone":       {z.agent("zone-2", "agent-3"), z.address, z.pin(), []string{z.address, "not agent agent-3 of this zone"}},
		"one with the server's own name": {z.agent("zone-1", "agent-1"), z.address, z.pin(), []string{"agent-1 is this one"}},
		"one of another federation":      {other.agent("zone-1", "agent-3"), z.address, z.pin(), []string{z.address}},
		"one that has not joined":        {unjoined, z.address, z.pin(), []string{z.address}},
		"one with another zone's pin":    {z.agent("zone-1", "agent-3"), z.address, other.pin(), []string{z.address, "pin"}},
		"one whose pin is none":          {z.agent("zone-1", "agent-3"), z.address, "sha256:12", []string{"zone_pin"}},
		"one that finds nobody":          {z.agent("zone-1", "agent-3"), nobody, z.pin(), []string{nobody}},
	} {
		_, err := Enter(t.Context(), c.who, []string{c.address}, c.pin)
		if err == nil || c.who.InZone() {
			t.Errorf("%s: %v, in the zone: %v", about, err, c.who.InZone())
			continue
		}
		for _, word := range c.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is not said in %v", about, word, err)
			}
		}
	}
}

func TestWhetherAnotherAgentReachesAHostIsToldWithTheReason(t *testing.T) {
	z := newZone(t)
	z.reaches["host-2"] = errors.New("connection refused")
	_, peers := z.second()
	if reachable, reason, err := peers.Reach(t.Context(), z.address, "host-1"); err != nil || !reachable || reason != "" {
		t.Errorf("of one that it reaches: %v, %q, %v", reachable, reason, err)
	}
	if reachable, reason, err := peers.Reach(t.Context(), z.address, "host-2"); err != nil || reachable || reason != "connection refused" {
		t.Errorf("of one that it does not: %v, %q, %v", reachable, reason, err)
	}
	if reachable, _, err := peers.Reach(t.Context(), closed(), "host-1"); err == nil || reachable {
		t.Errorf("an agent that is not there: %v, %v", reachable, err)
	}
}

func TestACallIsCarriedMessageByMessageToItsEnd(t *testing.T) {
	z := newZone(t)
	_, peers := z.second()
	parts := []string{"one", "two", "three"}
	refused := problem.New(problem.NotFound, "there is no such vm", "Look for it: naru vm list")
	for about, end := range map[string]error{"well": nil, "with a problem": refused} {
		z.answer = func(_ context.Context, r *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error {
			for _, p := range parts {
				if err := send(&zonev1.CallResponse{Body: []byte(r.GetMethod() + " " + p)}); err != nil {
					return err
				}
			}
			return end
		}
		var got []string
		err := peers.Call(t.Context(), z.address, &zonev1.CallRequest{Method: "/vm"}, func(r *zonev1.CallResponse) error {
			got = append(got, string(r.GetBody()))
			return nil
		})
		<-z.calls
		if strings.Join(got, ",") != "/vm one,/vm two,/vm three" {
			t.Errorf("%s: got %q", about, got)
		}
		if (err == nil) != (end == nil) || end != nil && !problem.Is(problem.FromStatus(err), problem.NotFound) {
			t.Errorf("it ended %s: %v", about, err)
		}
	}
}

func TestACallWhoseAskerGoesAwayEndsWhereItIsCarried(t *testing.T) {
	z := newZone(t)
	_, peers := z.second()
	z.answer = func(ctx context.Context, _ *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error {
		if err := send(&zonev1.CallResponse{}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	gone := errors.New("the asker is gone")
	ctx, cancel := context.WithCancel(t.Context())
	err := peers.Call(ctx, z.address, &zonev1.CallRequest{}, func(*zonev1.CallResponse) error { return gone })
	if !errors.Is(err, gone) {
		t.Errorf("it ended with %v", err)
	}
	cancel()
	<-(<-z.calls).Done()
}

func TestAnAgentLearnsTheZonesNextAuthority(t *testing.T) {
	z := newZone(t)
	second, peers := z.second()
	if err := z.first.Replace(time.Hour, time.Hour); err != nil {
		t.Fatal(err)
	}
	if len(second.Roots()) != 1 {
		t.Fatalf("it believes %d authorities before it asks", len(second.Roots()))
	}
	if err := peers.Learn(t.Context(), z.address); err != nil {
		t.Fatal(err)
	}
	if len(second.Roots()) != 2 || second.Roots()[1].Equal(second.Root()) {
		t.Errorf("it believes %d authorities", len(second.Roots()))
	}
}

// P15: with a link certificate an agent may enter and nothing else; who has not even that gets no connection.
func TestOnlyMembersOfTheZoneAreAnsweredBeyondEntering(t *testing.T) {
	z := newZone(t)
	joined := z.agent("zone-1", "agent-2")
	guard := &pki.Guard{Pin: z.pin(), Want: []pki.Role{pki.RoleMember}}
	conn := must(dial(z.address, credentials.NewTLS(guard.Client(joined.Link.TLSCertificate))))
	defer conn.Close()
	client := zonev1.NewAgentServiceClient(conn)
	_, reach := client.Reach(t.Context(), &zonev1.ReachRequest{HostId: "host-1"})
	_, authorities := client.Authorities(t.Context(), &zonev1.AuthoritiesRequest{})
	stream := must(client.Call(t.Context(), &zonev1.CallRequest{}))
	_, call := stream.Recv()
	for name, err := range map[string]error{"reach": reach, "authorities": authorities, "call": call} {
		if status.Code(err) != codes.Unauthenticated || !problem.Is(problem.FromStatus(err), problem.CertificateInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	select {
	case <-z.calls:
		t.Error("the call was carried")
	default:
	}
}

func TestConnectionsEndWithThePeersAndNewOnesAreMadeAfterwards(t *testing.T) {
	z := newZone(t)
	_, peers := z.second()
	for range 2 {
		if _, _, err := peers.Reach(t.Context(), z.address, "host-1"); err != nil {
			t.Fatal(err)
		}
		peers.Close()
	}
}

func TestAServerThatEndsCutsItsCalls(t *testing.T) {
	z := newZone(t)
	_, peers := z.second()
	z.answer = func(ctx context.Context, _ *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error {
		<-ctx.Done()
		return ctx.Err()
	}
	ended := make(chan error, 1)
	go func() {
		ended <- peers.Call(t.Context(), z.address, &zonev1.CallRequest{}, func(*zonev1.CallResponse) error { return nil })
	}()
	<-z.calls
	z.stop()
	if err := <-ended; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the call ended with %v", err)
	}
}
