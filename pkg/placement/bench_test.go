package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var flavors = []*apiv1.Resources{
	{Cores: 1, MemoryMib: 1024, DiskGib: 10}, {Cores: 1, MemoryMib: 4096, DiskGib: 10}, {Cores: 2, MemoryMib: 4096, DiskGib: 20},
	{Cores: 4, MemoryMib: 8192, DiskGib: 40}, {Cores: 8, MemoryMib: 8192, DiskGib: 40}, {Cores: 2, MemoryMib: 16384, DiskGib: 80},
	{Cores: 8, MemoryMib: 32768, DiskGib: 100}, {Cores: 16, MemoryMib: 32768, DiskGib: 200},
}

// fleet is a cluster of unequal hosts, two thirds full, a tenth of them closed, with groups of three, half of them
// kept apart.
func fleet(n int, strategy apiv1.Cluster_Strategy) *Picture {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	p := New()
	p.SetCluster(&apiv1.Cluster{Id: "c", Name: "c", Strategy: strategy, CpuOvercommitPercent: 200})
	for i := range n {
		large := uint32(1 + random.IntN(2))
		h := available(fmt.Sprintf("host-%06d", i), "c", 16*large, 65536*large, 2000*large)
		if random.IntN(10) == 0 {
			h.AdminState = apiv1.Host_CORDONED
		}
		p.SetHost(h)
		for j := range random.IntN(14) {
			p.Assign(&apiv1.VM{Id: fmt.Sprintf("vm-%d-%d", i, j), ClusterId: "c", Size: flavors[random.IntN(len(flavors)-1)]}, h.Id)
		}
	}
	for i := range n / 2 {
		group := []*apiv1.VM_Affinity{{Group: fmt.Sprint(i / 3), Rule: apiv1.VM_Affinity_Rule(1 + i/3%2)}}
		p.Place(&apiv1.VM{Id: fmt.Sprintf("grouped-%d", i), ProjectId: "p", ClusterId: "c", Size: flavors[i%3], Affinities: group})
	}
	return p
}

// asks are questions as they come: any flavor, a third of them bound to a group, some with hosts excluded.
func asks(n int) (vms []*apiv1.VM, exclude [][]string) {
	random := rand.New(rand.NewPCG(2, 2))
	for i := range 1024 {
		vm := &apiv1.VM{Id: fmt.Sprintf("new-%d", i), ProjectId: "p", ClusterId: "c", Size: flavors[i%len(flavors)]}
		if i%3 == 0 {
			vm.Affinities = []*apiv1.VM_Affinity{{Group: fmt.Sprint(random.IntN(n / 6)), Rule: apiv1.VM_Affinity_APART}}
		}
		vms = append(vms, vm)
		var out []string
		if i%5 == 0 {
			out = []string{fmt.Sprintf("host-%06d", random.IntN(n)), fmt.Sprintf("host-%06d", random.IntN(n))}
		}
		exclude = append(exclude, out)
	}
	return vms, exclude
}

var strategies = []apiv1.Cluster_Strategy{apiv1.Cluster_PACK, apiv1.Cluster_SPREAD}

// S1: one question, with constraints, affinity and spread. Reports the nodes looked at.
func BenchmarkChoose(b *testing.B) {
	for _, strategy := range strategies {
		for _, n := range []int{1_000, 10_000, 100_000} {
			p := fleet(n, strategy)
			vms, exclude := asks(n)
			b.Run(fmt.Sprintf("%v/hosts=%d", strategy, n), func(b *testing.B) {
				b.ReportAllocs()
				for _, size := range flavors {
					p.Choose(&apiv1.VM{ClusterId: "c", Size: size})
				}
				before := p.Visits()
				for i := 0; b.Loop(); i++ {
					p.Choose(vms[i%len(vms)], exclude[i%len(vms)]...)
				}
				b.ReportMetric(float64(p.Visits()-before)/float64(b.N), "nodes/op")
			})
		}
	}
}

// S1 with its effect: choose, assign, and release again, with eight sizes in use.
func BenchmarkPlace(b *testing.B) {
	for _, strategy := range strategies {
		for _, n := range []int{1_000, 10_000, 100_000} {
			p := fleet(n, strategy)
			vms, exclude := asks(n)
			b.Run(fmt.Sprintf("%v/hosts=%d", strategy, n), func(b *testing.B) {
				b.ReportAllocs()
				before := p.Visits()
				for i := 0; b.Loop(); i++ {
					vm := vms[i%len(vms)]
					p.Place(vm, exclude[i%len(vms)]...)
					p.Release(vm.Id)
				}
				b.ReportMetric(float64(p.Visits()-before)/float64(b.N), "nodes/op")
			})
		}
	}
}

// The dearest question: a size that was not asked for lately costs a pass over the hosts.
func BenchmarkChooseASizeNeverSeen(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		p := fleet(n, apiv1.Cluster_SPREAD)
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			vm := &apiv1.VM{ClusterId: "c", Size: &apiv1.Resources{}}
			for i := 0; b.Loop(); i++ {
				vm.Size.MemoryMib = uint32(1024 + i%4096)
				p.Choose(vm)
			}
		})
	}
}

// BenchmarkScan is the reference of the same run: the same question answered by comparing every host, flat arrays too.
func BenchmarkScan(b *testing.B) {
	p := fleet(10_000, apiv1.Cluster_SPREAD)
	c := p.clusters["c"]
	vms, _ := asks(10_000)
	for i := 0; b.Loop(); i++ {
		ask := vectorOf(vms[i%len(vms)].Size)
		best := uint64(0)
		for _, slot := range c.slots {
			best = max(best, p.score(slot, c, &ask))
		}
	}
}

// The law of growth, by nodes looked at: logarithmic in hosts, for a placement with all that follows from it. The
// worst of it is a full cluster in which hosts lack different things, where a tree over free resources would be lost.
func TestWorkGrowsWithTheLogarithmOfHosts(t *testing.T) {
	work := func(n int, strategy apiv1.Cluster_Strategy) float64 {
		p := fleet(n, strategy)
		for i, slot := range p.clusters["c"].slots {
			free := p.hosts.free[slot]
			filler := &apiv1.Resources{Cores: uint32(free[cores])}
			if i%2 == 0 {
				filler = &apiv1.Resources{MemoryMib: uint32(free[memory])}
			}
			if i%97 != 0 {
				p.Assign(&apiv1.VM{Id: fmt.Sprintf("filler-%d", i), ClusterId: "c", Size: filler}, p.hosts.id[slot])
			}
		}
		vms, exclude := asks(n)
		for _, size := range flavors {
			p.Choose(&apiv1.VM{ClusterId: "c", Size: size})
		}
		before := p.Visits()
		for i, vm := range vms {
			p.Place(vm, exclude[i]...)
			p.Release(vm.Id)
		}
		return float64(p.Visits()-before) / float64(len(vms))
	}
	for _, strategy := range strategies {
		small, large := work(1_000, strategy), work(32_000, strategy)
		growth, law := large/small, math.Log2(32_000)/math.Log2(1_000)
		t.Logf("%v: %.1f nodes at 1,000 hosts, %.1f at 32,000: ×%.2f; the logarithm grows ×%.2f", strategy, small, large, growth, law)
		if growth > 1.3*law {
			t.Errorf("%v: work grows ×%.2f, the logarithm ×%.2f", strategy, growth, law)
		}
	}
}

// How many groups there are costs nothing; how many hosts one group holds costs a walk of O(log hosts) each at most.
func TestOtherGroupsCostNothing(t *testing.T) {
	work := func(groups int) uint64 {
		p := fleet(1_000, apiv1.Cluster_SPREAD)
		for i := range groups {
			a := []*apiv1.VM_Affinity{{Group: fmt.Sprintf("other-%d", i), Rule: apiv1.VM_Affinity_APART}}
			p.Assign(&apiv1.VM{Id: fmt.Sprintf("other-%d", i), ProjectId: "p", ClusterId: "c", Affinities: a}, "host-000001")
		}
		vms, exclude := asks(1_000)
		before := p.Visits()
		for i, vm := range vms {
			p.Choose(vm, exclude[i]...)
		}
		return p.Visits() - before
	}
	if few, many := work(10), work(10_000); few != many {
		t.Errorf("%d nodes with 10 other groups, %d with 10,000", few, many)
	}
}

func TestChoosingDoesNotAllocate(t *testing.T) {
	p := fleet(1_000, apiv1.Cluster_PACK)
	vms, exclude := asks(1_000)
	i := 0
	if n := testing.AllocsPerRun(2_000, func() {
		p.Choose(vms[i%len(vms)], exclude[i%len(vms)]...)
		i++
	}); n != 0 {
		t.Errorf("%v allocations a question", n)
	}
}
