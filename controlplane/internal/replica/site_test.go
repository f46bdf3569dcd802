package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestMain(m *testing.M) {
	if window := os.Getenv(windowVariable); window != "" {
		os.Exit(dieInWindow(window))
	}
	goleak.VerifyTestMain(m)
}

// site is a federation under test, in memory or over TLS.
type site struct {
	t     testing.TB
	weave weave // nil: over TLS
	// tune changes a server's configuration before it starts.
	tune  func(*Config)
	nodes []*node
}

// node is one server, across its starts and stops.
type node struct {
	site    *site
	id      string
	dir     string
	address string
	ledger  *ledger

	*Replica
	stopRun context.CancelFunc
	ended   chan error
}

// quick are timeouts for servers in memory, or in one process.
var quick = Tuning{HeartbeatTimeout: 100 * time.Millisecond, ElectionTimeout: 100 * time.Millisecond, LeaseTimeout: 80 * time.Millisecond,
	CommitTimeout: 5 * time.Millisecond, SegmentBytes: 1 << 20}

// newSite makes n servers of which the first has bootstrapped the federation and let the others in.
func newSite(t testing.TB, n int, weave weave, tune func(*Config)) *site {
	t.Helper()
	s := &site{t: t, weave: weave, tune: tune}
	for i := range n {
		s.add(fmt.Sprintf("server-%d", i+1))
	}
	first := s.nodes[0]
	first.start()
	check(t, first.Bootstrap())
	s.must(first, put("first", "command"))
	for _, n := range s.nodes[1:] {
		n.start()
		s.admit(n)
	}
	return s
}

func (s *site) add(id string) *node {
	s.t.Helper()
	n := &node{site: s, id: id, dir: s.t.TempDir(), ledger: newLedger(), address: id + ":1"}
	s.nodes = append(s.nodes, n)
	return n
}

func (s *site) admit(n *node) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	seeds := []string{}
	for _, o := range s.nodes {
		if o != n && o.Replica != nil {
			seeds = append(seeds, o.address)
		}
	}
	check(s.t, n.AskAdmission(ctx, seeds, &apiv1.Server{Id: n.id, PeerAddress: n.address}))
}

func (n *node) config() Config {
	c := Config{ServerID: n.id, Federation: "test.example", Dir: n.dir, Address: n.address, Machine: n.ledger, Tuning: quick,
		Join: doorman{}, Local: sight{n}, Logger: testLogger(n.id)}
	if n.site.tune != nil {
		n.site.tune(&c)
	}
	return c
}

// start starts the server on what its folder and ledger hold.
func (n *node) start() {
	n.site.t.Helper()
	check(n.site.t, n.tryStart())
}

func (n *node) tryStart() error {
	var err error
	if n.site.weave != nil {
		c := n.config()
		if err = c.check(); err == nil {
			n.Replica, err = start(c, n.site.weave)
		}
	} else {
		n.Replica, err = New(n.config())
	}
	if err != nil {
		n.Replica = nil
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stopRun, n.ended = cancel, make(chan error, 1)
	r, ended := n.Replica, n.ended
	go func() { ended <- r.Run(ctx) }()
	return nil
}

// stop ends the server in good order.
func (n *node) stop() error {
	if n.Replica == nil {
		return nil
	}
	n.stopRun()
	err := <-n.ended
	n.Replica = nil
	return err
}

// crash ends the server without a word to anybody.
func (n *node) crash() {
	if n.Replica == nil {
		return
	}
	n.Replica.Close()
	n.stopRun()
	<-n.ended
	n.Replica = nil
}

// close stops all servers.
func (s *site) close() {
	for _, n := range s.nodes {
		n.crash()
	}
}

// outlive waits for what Raft leaves behind when it stops: a hand-over that nobody answers. In a bubble that takes no time.
func (s *site) outlive() { pause(context.Background(), 3*time.Second) }

func (s *site) running() []*node {
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool { return n.Replica == nil })
}

// leader waits until one of the running servers leads.
func (s *site) leader() *node {
	s.t.Helper()
	for range 1000 {
		for _, n := range s.running() {
			if n.Leader().Self {
				return n
			}
		}
		pause(s.t.Context(), 10*time.Millisecond)
	}
	s.t.Fatal("nobody leads")
	return nil
}

// follower waits until a server follows a leader, and returns it.
func (s *site) follower() *node {
	s.t.Helper()
	leader := s.leader()
	for _, n := range s.running() {
		if n != leader {
			for {
				l, changed := n.WatchLeader()
				if l.ID == leader.id {
					return n
				}
				<-changed
			}
		}
	}
	s.t.Fatal("nobody follows")
	return nil
}

func (s *site) must(n *node, cmd *commandv1.Command) *commandv1.Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	result, err := n.Propose(ctx, cmd)
	check(s.t, err)
	return result
}

// alike waits until all running servers have applied the same entries, the leader's, and compares their ledgers.
func (s *site) alike() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for _, n := range s.running() {
			check(s.t, n.ReadIndex(ctx)) // an abandoned command may still come
		}
		differ := ""
		first := s.running()[0]
		index, _ := first.ledger.position()
		same := true
		for _, n := range s.running()[1:] {
			if other, _ := n.ledger.position(); other != index {
				same = false
			} else if d := first.ledger.differs(n.ledger); d != "" {
				differ = fmt.Sprintf("%s and %s differ at entry %d: %s", first.id, n.id, index, d)
			}
		}
		switch {
		case same && differ != "":
			s.t.Fatal(differ)
		case same:
			return
		}
		pause(ctx, 10*time.Millisecond)
	}
	s.t.Fatal("the servers do not come to the same entry")
}

func addresses(nodes ...*node) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.address
	}
	return out
}

func (s *site) except(n *node) []*node {
	return slices.DeleteFunc(slices.Clone(s.nodes), func(o *node) bool { return o == n })
}

// doorman lets everybody in.
type doorman struct{}

func (doorman) Join(context.Context, *commandv1.JoinServerRequest) (*commandv1.JoinServerResponse, error) {
	return &commandv1.JoinServerResponse{Federation: "test.example"}, nil
}
func (doorman) Admit(context.Context, *apiv1.Server) error { return nil }
func (doorman) IssueAdministrator(_ context.Context, serverID string, _ *commandv1.IssueAdministratorRequest) (*commandv1.IssueAdministratorResponse, error) {
	return &commandv1.IssueAdministratorResponse{Chain: [][]byte{[]byte(serverID)}}, nil
}

// sight is what a server tells of itself.
type sight struct{ n *node }

func (v sight) Server(context.Context) (*apiv1.Server, error) {
	return &apiv1.Server{Name: v.n.id}, nil
}
func (v sight) Samples(context.Context) (*commandv1.SamplesResponse, error) {
	return &commandv1.SamplesResponse{Vms: []*apiv1.VMSample{{}}}, nil
}

func (v sight) Brokers(context.Context) ([]*apiv1.Broker, error) {
	return []*apiv1.Broker{{Id: "b1", Connections: []*apiv1.Broker_Connection{{Server: v.n.id}}}}, nil
}

func testLogger(id string) *slog.Logger {
	to := io.Discard
	if os.Getenv("NARU_TEST_LOG") != "" {
		to = os.Stderr
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", id)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
