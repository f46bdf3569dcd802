package etcdstore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// agents are the zone's, as a leader sees them.
func (z *testZone) agents(alive ...int) (out []Agent) {
	for _, n := range alive {
		out = append(out, Agent{Name: fmt.Sprintf("agent-%d", n), Peer: z.address(n, 2380), Client: z.address(n, 2379), Alive: true})
	}
	return out
}

// voters are the agents whose members vote.
func (r *running) voters() (out []string) {
	list, err := r.memberList(r.t.Context())
	if err != nil {
		return nil
	}
	for _, m := range list {
		if !m.GetIsLearner() && m.GetName() != "" {
			out = append(out, m.GetName())
		}
	}
	slices.Sort(out)
	return out
}

// ensure moves the membership until it is as wanted.
func (r *running) ensure(want []string, agents []Agent) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("members are %v", want), func() bool {
		if _, err := r.EnsureMembers(r.t.Context(), agents); err != nil {
			r.t.Log(err)
		}
		return slices.Equal(r.voters(), want)
	})
}

func TestOneOrTwoAgentsHaveOneMember(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := z.one()
	z.open(z.config(2, 1))
	for range 5 {
		did, err := a.EnsureMembers(t.Context(), z.agents(1, 2))
		if err != nil || did != "" {
			t.Errorf("did %q, %v", did, err)
		}
	}
	if v := a.voters(); !slices.Equal(v, []string{"agent-1"}) {
		t.Errorf("members are %v", v)
	}
}

// A7: three agents, one killed, and the others carry on; a fourth takes its place.
func TestThreeMembersCarryOnWithoutOneAndReplaceIt(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	one, two, three := z.config(1), z.config(2, 1), z.config(3, 1)
	metrics := prometheus.NewRegistry()
	one.Registerer = metrics
	a, b, c := z.open(one), z.open(two), z.open(three)
	own := b.own("cluster/c1")
	b.write(own, "before")
	a.ensure([]string{"agent-1", "agent-2", "agent-3"}, z.agents(1, 2, 3))
	shown := map[string]float64{}
	for _, f := range must(metrics.Gather()) {
		if f.GetName() == "naru_etcdstore_members" {
			for _, m := range f.GetMetric() {
				shown[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if len(shown) != 2 || shown["voter"] != 3 || shown["learner"] != 0 {
		t.Errorf("the metric shows members %v", shown)
	}
	eventually(t, "all know all endpoints", func() bool {
		return len(a.Endpoints()) == 3 && len(b.Endpoints()) == 3 && len(c.Endpoints()) == 3
	})
	life, _ := b.Incarnation()

	a.close()
	b.write(own, "after the first was killed")
	d := z.open(z.config(4, 2, 3))
	b.ensure([]string{"agent-2", "agent-3", "agent-4"}, z.agents(2, 3, 4))
	d.write(d.own("cluster/c2"), "by the fourth")
	if now, _ := d.Incarnation(); now.GetId() != life.GetId() {
		t.Errorf("another incarnation: %v", now)
	}

	// The first comes back with the data of a member that was removed: it goes on as a client.
	one.Endpoints = []string{"http://" + z.address(2, 2379), "http://" + z.address(3, 2379)}
	one.Registerer = nil
	again := z.open(one)
	eventually(t, "it is a client", func() bool { return again.running() == nil })
	again.write(again.own("cluster/c3"), "by the first")
}

func TestAMemberThatLostItsDiskIsAddedAnew(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	three := z.config(3, 1)
	a, _, c := z.one(), z.open(z.config(2, 1)), z.open(three)
	all := []string{"agent-1", "agent-2", "agent-3"}
	a.ensure(all, z.agents(1, 2, 3))
	before := must(a.roleOf(t.Context()))["agent-3"].GetID()
	c.close()
	if err := os.RemoveAll(filepath.Join(three.Dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	z.open(three)
	eventually(t, "agent-3 is another member", func() bool {
		if _, err := a.EnsureMembers(t.Context(), z.agents(1, 2, 3)); err != nil {
			t.Log(err)
		}
		role := must(a.roleOf(t.Context()))["agent-3"]
		return role != nil && role.GetID() != before && slices.Equal(a.voters(), all)
	})
}

func TestALearnerThatNeverCameIsRemoved(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := z.one()
	z.open(z.config(2, 1))
	if did, err := a.EnsureMembers(t.Context(), z.agents(1, 5, 6)); err != nil || did != "added agent-5" {
		t.Fatalf("did %q, %v", did, err)
	}
	eventually(t, "it is removed", func() bool {
		did, err := a.EnsureMembers(t.Context(), z.agents(1))
		if err != nil {
			t.Log(err)
		}
		return did == "removed agent-5"
	})
	if roles := must(a.roleOf(t.Context())); len(roles) != 0 {
		t.Errorf("roles are %v", roles)
	}
}

func TestADeadMemberIsGivenItsGrace(t *testing.T) {
	now := time.Duration(0)
	s := &Store{cfg: Config{MemberGrace: time.Minute, Elapsed: func() time.Duration { return now }}, gone: map[uint64]time.Duration{}}
	for _, step := range []struct {
		at    time.Duration
		alive bool
		gone  bool
	}{
		{0, false, false}, {59 * time.Second, false, false}, {60 * time.Second, false, true},
		{61 * time.Second, true, false}, {62 * time.Second, false, false}, {121 * time.Second, false, false}, {122 * time.Second, false, true},
	} {
		now = step.at
		if got := s.goneFor(1, step.alive); got != step.gone {
			t.Errorf("at %s: %v", step.at, got)
		}
	}
}

// Two of three members are lost for good. The third goes on alone, in a new incarnation; another agent, its old data put
// away, comes back to it as a client, and three agents have three members again.
func TestALostQuorumIsLeftByForgettingTheOthers(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	one := z.config(1)
	a, b, c := z.open(one), z.open(z.config(2, 1)), z.open(z.config(3, 1))
	a.ensure([]string{"agent-1", "agent-2", "agent-3"}, z.agents(1, 2, 3))
	a.write(a.own("cluster/c1"), "kept")
	first, _ := a.Incarnation()
	if err := ForgetMembers(t.Context(), one); err == nil || !strings.Contains(err.Error(), "stop that one") {
		t.Errorf("while the agent runs: %v", err)
	}
	b.close()
	c.close()
	a.close()
	if err := ForgetMembers(t.Context(), z.config(4)); err == nil || !strings.Contains(err.Error(), "has no member") {
		t.Errorf("at an agent without a member: %v", err)
	}
	if err := ForgetMembers(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	a = z.open(one)
	if _, err := a.Get(t.Context(), Observed, "vm", "kept"); err != nil {
		t.Error(err)
	}
	if life, _ := a.Incarnation(); life.GetId() == first.GetId() || !strings.Contains(life.GetReason(), "forgotten") {
		t.Errorf("incarnation is %v", life)
	}
	if v := a.voters(); !slices.Equal(v, []string{"agent-1"}) {
		t.Errorf("members are %v", v)
	}
	z.open(z.config(2, 1))
	z.open(z.config(3, 1))
	a.ensure([]string{"agent-1", "agent-2", "agent-3"}, z.agents(1, 2, 3))
}
