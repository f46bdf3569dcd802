package replica

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/pkg/problem"
)

// inMemory runs a test on n servers in memory, in virtual time.
func inMemory(t *testing.T, n int, tune func(*Config), test func(t *testing.T, s *site, e *ether)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		s := newSite(t, n, e.weave, tune)
		defer s.outlive()
		defer s.close()
		test(t, s, e)
	})
}

func TestACommandIsAppliedWhereItWasProposedBeforeProposeReturns(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		for i, n := range s.nodes {
			key := string(rune('a' + i))
			result := s.must(n, put(key, "value"))
			if result.GetIndex() == 0 || n.ledger.get(key) != "value" {
				t.Errorf("through %s: result %v, value %q", n.id, result, n.ledger.get(key))
			}
		}
		s.alike()
	})
}

func TestARefusalIsTheStateMachinesProblem(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		for _, n := range []*node{s.leader(), s.follower()} {
			result, err := n.Propose(t.Context(), put("a", refused))
			if !problem.Is(err, problem.Conflict) || result.GetProblem() == nil {
				t.Errorf("through %s: %v, %v", n.id, result, err)
			}
		}
	})
}

func TestAReadSeesWhatWasAcknowledgedElsewhere(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		for i := range 20 {
			writer, reader := s.nodes[i%3], s.nodes[(i+1)%3]
			value := time.Duration(i).String()
			s.must(writer, put("k", value))
			check(t, reader.ReadIndex(t.Context()))
			if got := reader.ledger.get("k"); got != value {
				t.Fatalf("%s acknowledged %s, then %s read %s", writer.id, value, reader.id, got)
			}
		}
	})
}

func TestP22AMinorityRefusesAndComesBack(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		old := s.leader()
		rest := s.except(old)
		e.separate(addresses(old), addresses(rest...))
		began := time.Now()

		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		lost := put("k", "minority")
		if _, err := old.Propose(ctx, lost); !problem.Is(err, problem.Timeout) && !problem.Is(err, problem.Unavailable) {
			t.Errorf("a minority of one answered %v", err)
		}
		if err := old.ReadIndex(ctx); !problem.Is(err, problem.Unavailable) {
			t.Errorf("a minority of one read: %v", err)
		}
		if l := old.Leader(); l.ID != "" || time.Since(l.Since) < time.Second {
			t.Errorf("two seconds in a minority, and the server knows of %+v", l)
		}
		s.must(rest[0], put("k", "majority"))
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("the majority took %v to go on", d)
		}

		e.heal()
		s.must(old, put("k2", "healed"))
		if got := old.ledger.get("k"); got != "majority" && old.ledger.times(lost.GetId()) == 0 {
			t.Errorf("the server that came back reads %q", got)
		}
		s.alike()
	})
}

func TestP22AMinoritySaysWithinItsCallersDeadlineThatNobodyLeads(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		old := s.leader()
		e.separate(addresses(old), addresses(s.except(old)...))
		lost, changed := old.WatchLeader()
		for lost.ID != "" {
			<-changed
			lost, changed = old.WatchLeader()
		}
		for what, call := range map[string]func(context.Context) error{
			"read":  old.ReadIndex,
			"write": func(ctx context.Context) error { _, err := old.Propose(ctx, put("k", "minority")); return err },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := call(ctx)
			if !problem.Is(err, problem.Unavailable) || !strings.Contains(err.Error(), "no server has led since") {
				t.Errorf("a %s: %v", what, err)
			}
			if ctx.Err() != nil {
				t.Errorf("a %s was answered when nobody waited any more", what)
			}
			cancel()
		}
	})
}
