package placement

import (
	"testing"

	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func zoneOf(strategy apiv1.Cluster_Strategy) *Picture {
	p := New()
	for _, name := range []string{"a", "b"} {
		p.SetCluster(&apiv1.Cluster{Id: name, Name: name, ZoneId: "z", Strategy: strategy})
		for _, n := range []string{"1", "2"} {
			p.SetHost(available(name+"-"+n, name, 4, 4096, 100))
		}
	}
	p.Assign(&apiv1.VM{Id: "1", ClusterId: "a", Size: &apiv1.Resources{Cores: 3, MemoryMib: 1024, DiskGib: 10}}, "a-1")
	return p
}

func TestAClusterIsChosenByStrategyAmongThoseWithRoom(t *testing.T) {
	vm := &apiv1.VM{ZoneId: "z", Size: &apiv1.Resources{Cores: 1, MemoryMib: 512, DiskGib: 5}}
	p := zoneOf(apiv1.Cluster_PACK)
	if c, h, ok := p.ChooseCluster(vm, apiv1.Cluster_SPREAD); !ok || c != "b" || h != "b-1" {
		t.Errorf("spread chose %s %s %v, want the emptier cluster b and its first host", c, h, ok)
	}
	if c, h, ok := p.ChooseCluster(vm, apiv1.Cluster_PACK); !ok || c != "a" || h != "a-1" {
		t.Errorf("pack chose %s %s %v, want the fuller cluster a and its fuller host", c, h, ok)
	}
	if c, h, ok := p.ChooseCluster(&apiv1.VM{ZoneId: "z", ClusterId: "a", Size: vm.Size}, apiv1.Cluster_SPREAD); !ok || c != "a" || h != "a-1" {
		t.Errorf("a named cluster was passed over for %s %s %v", c, h, ok)
	}
	p.SetCluster(&apiv1.Cluster{Id: "b", Name: "b", ZoneId: "z", Cordoned: true})
	if c, _, _ := p.ChooseCluster(vm, apiv1.Cluster_SPREAD); c != "a" {
		t.Errorf("chose %q, want a: b is cordoned", c)
	}
	if c, _, ok := p.ChooseCluster(&apiv1.VM{ZoneId: "moon", Size: vm.Size}, apiv1.Cluster_SPREAD); ok {
		t.Errorf("chose %q in a zone that has none", c)
	}
}

// A cluster that is chosen has a host for the VM; none is chosen only when no cluster has one.
func TestAChosenClusterHasAHostForTheVM(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pair{New(), newWorld()}
		for range rapid.IntRange(1, 50).Draw(t, "changes") {
			p.change(t)
		}
		vm := drawVM(t)
		p.Release(vm.Id)
		vm.ClusterId = ""
		_, _, got := p.ChooseCluster(vm, apiv1.Cluster_SPREAD)
		want := false
		for id := range p.world.clusters {
			named := &apiv1.VM{ClusterId: id, ProjectId: vm.ProjectId, Size: vm.Size, Affinities: vm.Affinities}
			_, ok := p.Choose(named)
			want = want || ok
		}
		if got != want {
			t.Fatalf("a cluster was chosen: %v; one has a host: %v", got, want)
		}
	})
}
