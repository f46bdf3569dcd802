package replica

import (
	"fmt"
	"testing"
	"time"
)

// A follower that has sent a command on hears at once that it is committed, though the leader has nothing else to say.
func TestAFollowerIsToldAtOnceWhatItWaitsFor(t *testing.T) {
	inMemory(t, 3, func(c *Config) { c.Tuning.CommitTimeout = time.Second }, func(t *testing.T, s *site, _ *ether) {
		s.must(s.leader(), put("k", "before"))
		pause(t.Context(), 5*time.Second)
		for i := range 5 {
			began := time.Now()
			s.must(s.follower(), put("k", fmt.Sprint(i)))
			check(t, s.follower().ReadIndex(t.Context()))
			if d := time.Since(began); d > 20*time.Millisecond {
				t.Errorf("a command and a read through a follower took %v", d)
			}
			pause(t.Context(), 3*time.Second)
		}
	})
}

// What a courier says is no more than Raft would: a follower that lacks the entry does not take it for committed.
func TestACourierThatComesToAFollowerBehindIsTurnedAway(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		leader, behind := s.leader(), s.follower()
		s.must(leader, put("k", "first"))
		e.separate(addresses(behind), addresses(s.except(behind)...))
		s.must(leader, put("k", "second"))
		before, _ := behind.ledger.position()
		e.heal()
		_, term, _ := leader.leadership.watch()
		for _, m := range leader.members() {
			if string(m.ID) == behind.id {
				leader.couriers.ride(t.Context(), term, m)
			}
		}
		if after, _ := behind.ledger.position(); after > before && behind.ledger.get("k") != "second" {
			t.Errorf("the follower went from entry %d to %d and reads %q", before, after, behind.ledger.get("k"))
		}
		s.alike()
	})
}
