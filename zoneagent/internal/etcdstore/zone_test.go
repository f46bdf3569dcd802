package etcdstore

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Nothing of ours may be left behind. What etcd's own peer connections leave is closed by their timeouts; this package
// itself does not use net/http.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
	)
}

const zoneID = "0192f000-0000-7000-8000-000000000001"

// testZone is a zone of real agents on loopback addresses of its own.
type testZone struct {
	t   testing.TB
	net string
}

func newZone(t testing.TB) *testZone {
	t.Helper()
	return &testZone{t: t, net: fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), rand.IntN(250))}
}

// config is of the n-th agent, with a folder that lives as long as the test.
func (z *testZone) config(n int, others ...int) Config {
	c := Config{
		Zone: zoneID, Agent: fmt.Sprintf("agent-%d", n), Dir: z.t.TempDir(),
		Member: &MemberConfig{
			Peer: z.address(n, 2380), Client: z.address(n, 2379),
			Tick: 10 * time.Millisecond, Election: 100 * time.Millisecond, NoSync: true,
		},
		LeaseTTL: 2 * time.Second, LeaseMargin: 200 * time.Millisecond,
		Heartbeat: 50 * time.Millisecond, AnchorEvery: 20 * time.Millisecond, MemberGrace: 300 * time.Millisecond,
		Logger: testLogger(z.t),
	}
	for _, o := range others {
		c.Endpoints = append(c.Endpoints, "http://"+z.address(o, 2379))
	}
	return c
}

func (z *testZone) address(n, port int) string { return fmt.Sprintf("%s.%d:%d", z.net, n, port) }

func testLogger(t testing.TB) *slog.Logger {
	if os.Getenv("NARU_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// open opens a store and runs it until the test ends or close is called.
func (z *testZone) open(c Config) *running {
	z.t.Helper()
	s, err := Open(z.t.Context(), c)
	if err != nil {
		z.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Store: s, t: z.t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	z.t.Cleanup(r.close)
	return r
}

// idle opens a store without Run.
func (z *testZone) idle(c Config) *running {
	z.t.Helper()
	s, err := Open(z.t.Context(), c)
	if err != nil {
		z.t.Fatal(err)
	}
	done := make(chan error, 1)
	done <- nil
	r := &running{Store: s, t: z.t, cancel: func() {}, done: done}
	z.t.Cleanup(r.close)
	return r
}

type running struct {
	*Store
	t      testing.TB
	cancel context.CancelFunc
	done   chan error
	closed bool
}

func (r *running) close() {
	if r.closed {
		return
	}
	r.closed = true
	r.cancel()
	<-r.done
	if err := r.Close(); err != nil {
		r.t.Errorf("close: %v", err)
	}
}

func (r *running) own(name string) *Ownership {
	r.t.Helper()
	o, err := r.Campaign(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return o
}

func (r *running) commit(t *Tx) int64 {
	r.t.Helper()
	rev, err := t.Commit(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return rev
}

// eventually waits for something that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("did not come about: %s", what)
		}
	}
}

func vm(id string) *apiv1.VM { return &apiv1.VM{Id: id, Name: id, State: apiv1.VM_RUNNING} }

func usage(vmID string) *linkv1.JournalEntry {
	return &linkv1.JournalEntry{Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{VmId: vmID, State: apiv1.VM_RUNNING}}}
}

// must returns v, or ends the test.
func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

// one is a zone of one agent.
func (z *testZone) one() *running { return z.open(z.config(1)) }
