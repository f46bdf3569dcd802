package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func admitRequest(id, address string) *commandv1.AdmitRequest {
	return &commandv1.AdmitRequest{Server: serverMessage(id, address)}
}

func TestOnlyTheLeaderRunsWhatOnlyOneMayAndItEndsWithTheTerm(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		ctx, cancel := context.WithCancel(t.Context())
		var running, runs atomic.Int32
		var loops sync.WaitGroup
		for _, n := range s.nodes {
			loops.Go(func() {
				check(t, n.WhileLeader(ctx, func(ctx context.Context) error {
					runs.Add(1)
					if running.Add(1) > 1 && n.Leader().Self {
						l := s.leader()
						if l != n {
							t.Errorf("%s and %s both run it", n.id, l.id)
						}
					}
					<-ctx.Done()
					running.Add(-1)
					return ctx.Err()
				}))
			})
		}
		for range 4 {
			old := s.leader()
			pause(t.Context(), time.Second)
			if running.Load() != 1 {
				t.Fatalf("%d run it", running.Load())
			}
			e.separate(addresses(old), addresses(s.except(old)...))
			pause(t.Context(), 2*time.Second)
			e.heal()
			pause(t.Context(), time.Second)
		}
		if runs.Load() < 4 {
			t.Errorf("%d terms, %d runs", 4, runs.Load())
		}
		cancel()
		loops.Wait()
	})
}

func TestWhileLeaderReturnsTheErrorOfWhatItRuns(t *testing.T) {
	inMemory(t, 1, nil, func(t *testing.T, s *site, _ *ether) {
		broken := errors.New("broken")
		if err := s.nodes[0].WhileLeader(t.Context(), func(context.Context) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		runs := 0
		check(t, s.nodes[0].WhileLeader(ctx, func(context.Context) error { runs++; return nil }))
		if runs != 1 {
			t.Errorf("ran %d times in one term", runs)
		}
	})
}

func TestALeaderServesOnlyWhenItHasAppliedWhatWasCommittedBefore(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		for i := range 20 {
			s.must(s.leader(), put("k", fmt.Sprint(i)))
		}
		old := s.leader()
		// Whoever is elected next needs a while for its first entries.
		release := make(chan struct{})
		for _, n := range s.except(old) {
			n.ledger.mu.Lock()
			n.ledger.before = func([]Entry) error { <-release; return nil }
			n.ledger.mu.Unlock()
		}
		s.must(old, put("k", "last"))
		old.crash()
		pause(t.Context(), 1500*time.Millisecond)
		for _, n := range s.running() {
			if n.Leader().Self {
				t.Errorf("%s serves and has not applied the last entry", n.id)
			}
		}
		close(release)
		check(t, s.leader().ReadIndex(t.Context()))
		if got := s.leader().ledger.get("k"); got != "last" {
			t.Errorf("the new leader reads %q", got)
		}
	})
}

func TestALeaderThatStopsHandsOverFirst(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		old := s.leader()
		rest := s.except(old)
		began := time.Now()
		check(t, old.stop())
		s.must(rest[0], put("k", "v"))
		if d := time.Since(began); d > quick.HeartbeatTimeout {
			t.Errorf("the next write took %v: longer than the least that an election needs to begin", d)
		}
	})
}
