package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// The steps of a creation as the client tells of them; before the first, the request itself is under way.
var creation = []string{"", "accepted", "placed", "image", "disk", "seed", "define", "start"}

// moment is a random one in the course of a creation: so long after a step.
func moment(chance *rand.Rand) (step string, delay time.Duration) {
	return creation[chance.IntN(len(creation))], time.Duration(chance.Int64N(int64(150 * time.Millisecond)))
}

// killedInTheMiddle kills what carries a creation in the management zone, at random moments of it, and starts it again.
func killedInTheMiddle(t *testing.T, s *standing, rounds, seed int64) {
	const zone = "management"
	cluster := s.slowCluster(t, zone, "slow")
	for i, victim := range []string{"leader", "agent-management", "broker-management", "agent-internet", "broker-internet"} {
		chance := rand.New(rand.NewPCG(uint64(seed), uint64(i)))
		for round := range rounds {
			step, delay := moment(chance)
			t.Run(fmt.Sprintf("%s-%d", victim, round), func(t *testing.T) {
				t.Logf("%s is killed %v after step %q", victim, delay, step)
				var asked []*asking
				for i := range 3 {
					asked = append(asked, s.ask(t, fmt.Sprintf("%s-%d-%d", victim, round, i), zone, cluster))
				}
				process := victim
				if victim == "leader" {
					process = s.leader(t)
				}
				asked[0].reaches(step, delay)
				s.dev(t, "kill", process)
				for _, a := range asked {
					if a.ended() {
						t.Logf("too late for %s, which was there already", a.name)
					}
				}
				if victim == "leader" {
					if next := s.leader(t); next == process {
						t.Errorf("%s leads after it was killed", next)
					}
				}
				s.dev(t, "start", process)
				began := time.Now()
				for _, a := range asked {
					a.succeeds(t)
					s.exactlyOne(t, zone, a.name)
					s.toldOnce(t, a.name)
				}
				t.Logf("all is done %v after %s was started", time.Since(began), process)
				s.noOrphans(t, zone)
			})
		}
	}
}

// toldOnce demands that a VM was created by one operation, which succeeded, and that the zone told once of its being usable.
func (s *standing) toldOnce(t *testing.T, name string) {
	t.Helper()
	op := s.ended(t, "kind=vm.create AND target="+name)
	if op.GetError() != nil {
		t.Errorf("the operation that creates %s failed: %v", name, op.GetError())
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := s.admin.Operations.ListOperations(ctx, &apiv1.ListOperationsRequest{Filter: "target=" + name})
	if err != nil || len(r.GetOperations()) != 1 {
		t.Errorf("operations on %s: %v %v", name, r.GetOperations(), err)
	}
	s.event(t, "type=vm.usable AND target="+name)
	if told := s.happened(t, "type=vm.usable AND target="+name); len(told) != 1 {
		t.Errorf("%s became usable %d times: %v", name, len(told), told)
	}
}
