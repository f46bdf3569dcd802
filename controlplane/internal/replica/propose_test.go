package replica

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// wink is what one leader says to the next when it hands over. deaf servers never hear it; where held is set, who says it
// waits until that is closed.
type wink struct {
	deaf atomic.Bool
	held chan struct{}
	said atomic.Int32
}

type winkFabric struct {
	fabric
	wink *wink
}

func (f winkFabric) transport() raftTransport { return winkTransport{f.fabric.transport(), f.wink} }

type winkTransport struct {
	raftTransport
	wink *wink
}

func (t winkTransport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if !t.wink.deaf.Load() {
		return t.raftTransport.TimeoutNow(id, to, args, resp)
	}
	t.wink.said.Add(1)
	if t.wink.held != nil {
		<-t.wink.held
	}
	return nil
}

// winking runs a test on three servers whose leader begins a hand-over that does not come about.
func winking(t *testing.T, held bool, test func(t *testing.T, s *site, leader *node, w *wink)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e, w := newEther(), &wink{}
		if held {
			w.held = make(chan struct{})
		}
		s := newSite(t, 3, func(c *Config, x func(string) (string, bool), m *metrics) (fabric, error) {
			f, err := e.weave(c, x, m)
			return winkFabric{f, w}, err
		}, nil)
		defer s.outlive()
		defer s.close()
		leader := s.leader()
		s.must(leader, put("k", "before"))
		w.deaf.Store(true)
		handed := make(chan struct{})
		go func() {
			defer close(handed)
			leader.handOver("to be tried")
		}()
		synctest.Wait()
		if w.said.Load() != 1 {
			t.Fatal("no hand-over is under way")
		}
		test(t, s, leader, w)
		<-handed
		w.deaf.Store(false)
		if now := s.leader(); now != leader {
			t.Errorf("%s leads after a hand-over that failed, not %s", now.id, leader.id)
		}
		s.alike()
	})
}

// P20: Raft refuses entries while it tries to hand over, and says so to nobody who has a deadline.
func TestACommandThatComesDuringAHandOverThatFailsIsCarriedOutOnceAndSoon(t *testing.T) {
	winking(t, false, func(t *testing.T, s *site, leader *node, _ *wink) {
		began := time.Now()
		commands := make([]*commandv1.Command, len(s.nodes))
		var clients sync.WaitGroup
		for i, n := range s.nodes {
			commands[i] = put(n.id, "v")
			clients.Go(func() { s.must(n, commands[i]) })
		}
		clients.Wait()
		if d := time.Since(began); d > attemptTime/2 {
			t.Errorf("they took %v, and the hand-over only %v", d, quick.ElectionTimeout)
		}
		if valueOf(t, leader.metrics.retried) == 0 {
			t.Error("Raft refused nothing")
		}
		for i, n := range s.nodes {
			if times := n.ledger.times(commands[i].GetId()); times != 1 {
				t.Errorf("the command through %s was carried out %d times", n.id, times)
			}
		}
	})
}

// Raft goes on refusing entries for as long as its message to the next leader is on its way, and has said long before that the
// hand-over failed.
func TestACommandThatRaftRefusesWithoutAWordIsProposedAgain(t *testing.T) {
	winking(t, true, func(t *testing.T, s *site, leader *node, w *wink) {
		began := time.Now()
		time.AfterFunc(attemptTime*3/2, func() { close(w.held) })
		cmd := put("k", "v")
		s.must(leader, cmd)
		if d := time.Since(began); d < attemptTime || d > attemptTime*5/2 {
			t.Errorf("it took %v", d)
		}
		if times := leader.ledger.times(cmd.GetId()); times != 1 {
			t.Errorf("it was carried out %d times", times)
		}
	})
}

// What is committed and cannot be applied for the moment is not committed again and again.
func TestACommandThatWaitsToBeAppliedIsNotProposedAgain(t *testing.T) {
	inMemory(t, 1, nil, func(t *testing.T, s *site, _ *ether) {
		n := s.nodes[0]
		release := make(chan struct{})
		n.ledger.mu.Lock()
		n.ledger.before = func([]Entry) error { <-release; return nil }
		n.ledger.mu.Unlock()
		time.AfterFunc(attemptTime*5/2, func() { close(release) })
		before := n.raft.LastIndex()
		s.must(n, put("k", "v"))
		if grown := n.raft.LastIndex() - before; grown > 2 {
			t.Errorf("the log has grown by %d entries", grown)
		}
	})
}
