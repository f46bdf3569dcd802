package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/pkg/problem"
)

func TestP1AReplyThatIsLostDoesNotCarryACommandOutTwice(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		for range 10 {
			leader, follower := s.leader(), s.follower()
			cmd := put("k", "v")
			// The request gets through, the reply does not; another leader is asked then.
			leader.ledger.mu.Lock()
			leader.ledger.after = func([]Entry) {
				e.silence(leader.address, follower.address)
			}
			leader.ledger.mu.Unlock()
			done := make(chan error, 1)
			go func() {
				_, err := follower.Propose(t.Context(), cmd)
				done <- err
			}()
			pause(t.Context(), 100*time.Millisecond)
			leader.ledger.mu.Lock()
			leader.ledger.after = nil
			leader.ledger.mu.Unlock()
			e.separate(addresses(leader), addresses(s.except(leader)...))
			pause(t.Context(), time.Second)
			e.heal()
			check(t, <-done)
			s.alike()
			if n := follower.ledger.times(cmd.GetId()); n != 1 {
				t.Fatalf("carried out %d times", n)
			}
		}
	})
}

func TestTheSameCommandProposedTwiceHasOneResult(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		first := put("k", "v")
		one := s.must(s.leader(), first)
		again := put("k", "v")
		again.Id = first.GetId()
		two := s.must(s.follower(), again)
		if one.GetIndex() != two.GetIndex() || s.leader().ledger.times(first.GetId()) != 1 {
			t.Errorf("%v, then %v", one, two)
		}
	})
}

func TestConcurrentCommandsShareTransactions(t *testing.T) {
	s := newSite(t, 1, newEther().weave, nil)
	defer s.close()
	n := s.nodes[0]
	before := n.ledger.batches
	var clients sync.WaitGroup
	for i := range 64 {
		clients.Go(func() {
			for j := range 20 {
				s.must(n, put(fmt.Sprint(i), fmt.Sprint(j)))
			}
		})
	}
	clients.Wait()
	if batches := n.ledger.batches - before; batches > 64*20/2 {
		t.Errorf("%d commands took %d transactions", 64*20, batches)
	}
}

func TestACommandThatIsTooLargeOrHasAStrangeIdIsRefused(t *testing.T) {
	inMemory(t, 3, func(c *Config) { c.Tuning.CommandBytes = 1000 }, func(t *testing.T, s *site, _ *ether) {
		for _, n := range []*node{s.leader(), s.follower()} {
			if _, err := n.Propose(t.Context(), put("k", string(make([]byte, 1001)))); !problem.Is(err, problem.TooLarge) {
				t.Errorf("through %s: %v", n.id, err)
			}
			odd := put("k", "v")
			odd.Id = []byte("short")
			if _, err := n.Propose(t.Context(), odd); !problem.Is(err, problem.Invalid) {
				t.Errorf("through %s: %v", n.id, err)
			}
		}
	})
}

func TestACallerThatGoesAwayIsNotWaitedFor(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		old := s.leader()
		e.separate(addresses(old), addresses(s.except(old)...))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := old.Propose(ctx, put("k", "v"))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !problem.Is(err, problem.Cancelled) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		e.heal()
	})
}

func TestWhatWaitsEndsWhenTheServerStops(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		old := s.leader()
		e.separate(addresses(old), addresses(s.except(old)...))
		errs := make(chan error, 2)
		go func() { _, err := old.Propose(t.Context(), put("k", "v")); errs <- err }()
		go func() { errs <- old.ReadIndex(t.Context()) }()
		synctest.Wait()
		old.crash()
		for range 2 {
			if err := <-errs; !errors.Is(err, errStopping) {
				t.Errorf("got %v", err)
			}
		}
		e.heal()
	})
}
