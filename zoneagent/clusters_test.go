package zoneagent

import (
	"strings"
	"testing"
)

func TestAnAgentStandsForEveryClusterOfItsZoneAndForNoneThatIsGone(t *testing.T) {
	z := newZone(t)
	a := z.first()
	z.run(a.store.Run)
	z.run(a.runClusters)
	z.want(a, cluster("kvm"))
	z.eventually("it owns the cluster", func() bool { return z.ownerOf(a, "kvm") == "agent-1" })
	z.want(a, cluster("test"))
	z.eventually("it owns one that comes later", func() bool { return z.ownerOf(a, "test") == "agent-1" })
	z.want(a, gone("cluster", "kvm"))
	z.eventually("nobody owns one that is gone", func() bool { return z.ownerOf(a, "kvm") == "" })
	if owner := z.ownerOf(a, "test"); owner != "agent-1" {
		t.Errorf("the other one is owned by %q", owner)
	}
}

// P3, P4: of two agents one owns a cluster; when it gives it up, the other one takes it over at once.
func TestAClusterGoesToAnotherAgentWhenItsOwnerStops(t *testing.T) {
	z := newZone(t)
	one := z.first()
	z.run(one.store.Run)
	z.run(one.servePeers)
	two := z.further(2, one)
	z.run(two.store.Run)
	z.want(one, cluster("kvm"))
	stop := z.run(one.runClusters)
	z.eventually("the first owns it", func() bool { return z.ownerOf(one, "kvm") == "agent-1" })
	z.run(two.runClusters)
	stop()
	z.eventually("the second owns it", func() bool { return z.ownerOf(two, "kvm") == "agent-2" })
}

func TestWhetherAHostIsReachedIsAskedOfItsDriver(t *testing.T) {
	z := newZone(t)
	a := z.first()
	z.run(a.store.Run)
	z.want(a, cluster("kvm"), host("kvm-1", "kvm", "sim://kvm-1"), host("kvm-2", "kvm", "nowhere://kvm-2"), host("stray", "none", "sim://stray"))
	if err := a.Reach(t.Context(), "id-kvm-1"); err != nil {
		t.Errorf("a host that is there: %v", err)
	}
	for id, says := range map[string]string{"id-kvm-2": "nowhere", "id-kvm-9": "host id-kvm-9", "id-stray": "cluster id-none"} {
		if err := a.Reach(t.Context(), id); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", id, err)
		}
	}
}
