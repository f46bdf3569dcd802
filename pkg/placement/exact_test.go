package placement

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// few draws one of a few ids, so that changes meet.
func few(t *rapid.T, kind string, n int) string {
	return fmt.Sprintf("%s-%d", kind, rapid.IntRange(0, n-1).Draw(t, kind))
}

func drawSize(t *rapid.T) *apiv1.Resources {
	return &apiv1.Resources{
		Cores:     rapid.SampledFrom([]uint32{0, 1, 2, 4, 9}).Draw(t, "cores"),
		MemoryMib: rapid.SampledFrom([]uint32{0, 512, 1024, 2048, 9000}).Draw(t, "memory"),
		DiskGib:   rapid.SampledFrom([]uint32{0, 10, 20, 90}).Draw(t, "disk"),
	}
}

func drawVM(t *rapid.T) *apiv1.VM {
	vm := &apiv1.VM{
		Id: few(t, "vm", 24), ProjectId: few(t, "project", 2), ClusterId: few(t, "cluster", 3), ZoneId: "zone",
		Size: drawSize(t),
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "affinities") {
		rule := rapid.SampledFrom([]apiv1.VM_Affinity_Rule{apiv1.VM_Affinity_APART, apiv1.VM_Affinity_TOGETHER}).Draw(t, "rule")
		vm.Affinities = append(vm.Affinities, &apiv1.VM_Affinity{Group: few(t, "group", 3), Rule: rule})
	}
	return vm
}

func drawHost(t *rapid.T) *apiv1.Host {
	h := &apiv1.Host{
		Id: few(t, "host", 12), Name: few(t, "name", 6), ClusterId: few(t, "cluster", 3),
		Total:  &apiv1.Resources{Cores: 8, MemoryMib: 8192, DiskGib: 100},
		Health: apiv1.Host_AVAILABLE,
	}
	if rapid.IntRange(0, 3).Draw(t, "odd") == 0 {
		h.Health = apiv1.Host_Health(rapid.IntRange(0, 7).Draw(t, "health"))
		h.AdminState = apiv1.Host_AdminState(rapid.IntRange(0, 4).Draw(t, "admin"))
		h.Capacity = drawSize(t)
	}
	return h
}

func drawCluster(t *rapid.T) *apiv1.Cluster {
	return &apiv1.Cluster{
		Id: few(t, "cluster", 3), Name: few(t, "name", 3), ZoneId: "zone",
		Strategy:                rapid.SampledFrom([]apiv1.Cluster_Strategy{0, apiv1.Cluster_PACK, apiv1.Cluster_SPREAD}).Draw(t, "strategy"),
		CpuOvercommitPercent:    rapid.SampledFrom([]uint32{0, 50, 200}).Draw(t, "cpu"),
		MemoryOvercommitPercent: rapid.SampledFrom([]uint32{0, 150}).Draw(t, "memory"),
		Cordoned:                rapid.IntRange(0, 5).Draw(t, "cordoned") == 0,
	}
}

// pair changes a picture and its world alike.
type pair struct {
	*Picture
	world *world
}

func (p *pair) change(t *rapid.T) {
	switch rapid.SampledFrom([]string{"host", "host", "assign", "assign", "keep", "place", "place", "place", "release", "hold", "cluster", "remove host", "remove cluster"}).Draw(t, "change") {
	case "host":
		h := drawHost(t)
		p.SetHost(h)
		p.world.hosts[h.Id] = h
	case "remove host":
		id := few(t, "host", 12)
		p.RemoveHost(id)
		delete(p.world.hosts, id)
		p.forgetHeld(id)
	case "hold":
		id, amount := few(t, "host", 12), drawSize(t)
		p.Hold(id, amount)
		p.world.held[id] = vectorOf(amount)
		p.forgetHeld(id)
	case "cluster":
		c := drawCluster(t)
		p.SetCluster(c)
		p.world.clusters[c.Id] = c
	case "remove cluster":
		id := few(t, "cluster", 3)
		p.RemoveCluster(id)
		delete(p.world.clusters, id)
	case "assign":
		p.seat(t, p.Assign, false)
	case "keep":
		p.seat(t, p.Keep, true)
	case "release":
		id := few(t, "vm", 24)
		p.forget(id)
	case "place":
		vm := drawVM(t)
		p.forget(vm.Id)
		want, fits := p.world.choose(vm.ClusterId, vm, nil)
		got, ok := p.Place(vm)
		if got != want || ok != fits {
			t.Fatalf("placed on %q (%v), comparing every host gives %q (%v)", got, ok, want, fits)
		}
		if ok {
			p.world.vms[vm.Id], p.world.on[vm.Id], p.world.kept[vm.Id] = vm, got, false
			h := p.world.hosts[got]
			for d, n := range p.world.used(got) {
				if most := p.world.capacity(h)[d]; vectorOf(vm.Size)[d] > 0 && n > most {
					t.Fatalf("placed over capacity: %d of %d taken on %s", n, most, got)
				}
			}
		}
	}
}

// seat puts a VM, or room for one, on a host whether or not it fits.
func (p *pair) seat(t *rapid.T, put func(*apiv1.VM, string), kept bool) {
	vm, host := drawVM(t), few(t, "host", 12)
	was := p.world.on[vm.Id]
	put(vm, host)
	p.world.vms[vm.Id], p.world.on[vm.Id], p.world.kept[vm.Id] = vm, host, kept
	p.forgetHeld(was)
}

// forgetHeld: a host that is not told and has no VM is forgotten, with what is held of it.
func (p *pair) forgetHeld(host string) {
	if p.world.hosts[host] == nil && !slices.Contains(slices.Collect(maps.Values(p.world.on)), host) {
		delete(p.world.held, host)
	}
}

// forget takes a VM away from both.
func (p *pair) forget(vm string) {
	host := p.world.on[vm]
	p.Release(vm)
	delete(p.world.vms, vm)
	delete(p.world.on, vm)
	p.forgetHeld(host)
}

func (p *pair) check(t *rapid.T) {
	vm := drawVM(t)
	p.forget(vm.Id)
	exclude := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return few(t, "host", 12) }), 0, 3).Draw(t, "exclude")
	want, fits := p.world.choose(vm.ClusterId, vm, exclude)
	got, ok := p.Choose(vm, exclude...)
	if got != want || ok != fits {
		t.Fatalf("chose %q (%v), comparing every host gives %q (%v)", got, ok, want, fits)
	}
	open := p.world.clusters[vm.ClusterId] != nil && !p.world.clusters[vm.ClusterId].Cordoned
	for id, h := range p.world.hosts {
		if got, want := p.Takes(vm, id), open && h.ClusterId == vm.ClusterId && p.world.fits(h, vm, nil); got != want {
			t.Fatalf("%s takes it: %v, want %v", id, got, want)
		}
	}
}

// The answer is exact whatever happened before, and no placement goes over capacity.
func TestAPictureChoosesWhatComparingEveryHostGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pair{New(), newWorld()}
		for _, c := range []string{"cluster-0", "cluster-1", "cluster-2"} {
			noun := &apiv1.Cluster{Id: c, Name: c, ZoneId: "zone"}
			p.SetCluster(noun)
			p.world.clusters[c] = noun
		}
		for range rapid.IntRange(1, 60).Draw(t, "changes") {
			p.change(t)
			p.check(t)
		}
		p.sumsAgree(t)
	})
}

func (p *pair) sumsAgree(t *rapid.T) {
	for id, h := range p.world.hosts {
		if p.world.clusters[h.ClusterId] == nil {
			continue
		}
		total, used := p.Capacity(id)
		if vectorOf(total) != p.world.capacity(h) || vectorOf(used) != p.world.used(id) {
			t.Fatalf("%s: total %v used %v, want %v %v", id, total, used, p.world.capacity(h), p.world.used(id))
		}
		vms := uint32(0)
		for vm, at := range p.world.on {
			if at == id && !p.world.kept[vm] {
				vms++
			}
		}
		if _, counted := p.Used(id); counted != vms {
			t.Fatalf("%s: %d VMs are counted, want %d: room that is kept is none", id, counted, vms)
		}
	}
	for id := range p.world.clusters {
		var capacity, used vector
		for _, h := range p.world.hosts {
			if h.ClusterId != id || !p.world.open(h) {
				continue
			}
			for d := range dimensions {
				capacity[d] += p.world.capacity(h)[d]
				used[d] += p.world.used(h.Id)[d]
			}
		}
		if c := p.clusters[id]; c.capacity != capacity || c.used != used {
			t.Fatalf("%s: sums %v %v, want %v %v", id, c.capacity, c.used, capacity, used)
		}
	}
	if n := len(p.vms); n != len(p.world.on) {
		t.Fatalf("%d VMs, want %d", n, len(p.world.on))
	}
	known := map[string]bool{}
	for id := range p.world.hosts {
		known[id] = true
	}
	for _, host := range p.world.on {
		known[host] = true
	}
	if want := slices.Sorted(maps.Keys(known)); !slices.Equal(slices.Sorted(maps.Keys(p.slots)), want) {
		t.Fatalf("hosts %v, want %v", slices.Sorted(maps.Keys(p.slots)), want)
	}
}

// A batch is the same as one question after another.
func TestEachVMOfABatchSeesTheEarlierOnes(t *testing.T) {
	p := New()
	p.SetCluster(&apiv1.Cluster{Id: "c", Name: "kvm"})
	for i := range 3 {
		p.SetHost(available(fmt.Sprintf("kvm-%d", i), "c", 2, 4096, 100))
	}
	on := map[string]int{}
	for i := range 6 {
		host, ok := p.Place(&apiv1.VM{Id: fmt.Sprint(i), ClusterId: "c", Size: &apiv1.Resources{Cores: 1, MemoryMib: 1024, DiskGib: 1}})
		if !ok {
			t.Fatalf("VM %d found no host", i)
		}
		on[host]++
	}
	if want := map[string]int{"kvm-0": 2, "kvm-1": 2, "kvm-2": 2}; !maps.Equal(on, want) {
		t.Fatalf("placed %v, want %v", on, want)
	}
	if host, ok := p.Place(&apiv1.VM{Id: "7", ClusterId: "c", Size: &apiv1.Resources{Cores: 1}}); ok {
		t.Fatalf("a seventh VM was placed on %s, which is full", host)
	}
}

func TestPackTakesTheTightestFitAndSpreadTheEmptiest(t *testing.T) {
	for _, c := range []struct {
		strategy apiv1.Cluster_Strategy
		want     string
	}{{apiv1.Cluster_PACK, "fuller"}, {apiv1.Cluster_SPREAD, "empty"}} {
		p := New()
		p.SetCluster(&apiv1.Cluster{Id: "c", Strategy: c.strategy})
		for _, name := range []string{"empty", "full", "fuller", "half"} {
			p.SetHost(available(name, "c", 8, 8192, 100))
		}
		p.Assign(&apiv1.VM{Id: "1", ClusterId: "c", Size: &apiv1.Resources{Cores: 8, MemoryMib: 8192, DiskGib: 90}}, "full")
		p.Assign(&apiv1.VM{Id: "2", ClusterId: "c", Size: &apiv1.Resources{Cores: 6, MemoryMib: 6144, DiskGib: 60}}, "fuller")
		p.Assign(&apiv1.VM{Id: "3", ClusterId: "c", Size: &apiv1.Resources{Cores: 4, MemoryMib: 4096, DiskGib: 50}}, "half")
		got, _ := p.Choose(&apiv1.VM{ClusterId: "c", Size: &apiv1.Resources{Cores: 2, MemoryMib: 2048, DiskGib: 20}})
		if got != c.want {
			t.Errorf("%v chose %s, want %s", c.strategy, got, c.want)
		}
	}
}

// The integer score orders hosts as exact fractions do, within its resolution of a millionth.
func TestScoresOrderAsExactFractionsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ask := vector{1, 512, 10}
		host := func(label string) (free vector, capacity vector) {
			for d := range dimensions {
				capacity[d] = rapid.Int64Range(1, 1<<32).Draw(t, label)
				free[d] = rapid.Int64Range(0, capacity[d]).Draw(t, label)
			}
			return free, capacity
		}
		exact := func(free, capacity vector) (least, sum *big.Rat) {
			least, sum = big.NewRat(1, 1), new(big.Rat)
			for d := range dimensions {
				share := big.NewRat(free[d]-ask[d], capacity[d])
				sum.Add(sum, share)
				if share.Cmp(least) < 0 {
					least = share
				}
			}
			return least, sum
		}
		freeA, capacityA := host("a")
		freeB, capacityB := host("b")
		perA, perB := reciprocals(capacityA), reciprocals(capacityB)
		leastA, sumA := exact(freeA, capacityA)
		leastB, sumB := exact(freeB, capacityB)
		spreadA := score(apiv1.Cluster_SPREAD, &freeA, &ask, &perA)
		spreadB := score(apiv1.Cluster_SPREAD, &freeB, &ask, &perB)
		packA := score(apiv1.Cluster_PACK, &freeA, &ask, &perA)
		packB := score(apiv1.Cluster_PACK, &freeB, &ask, &perB)
		if (spreadA == 0) != (leastA.Sign() < 0) || (packA == 0) != (leastA.Sign() < 0) {
			t.Fatalf("fits: spread %d pack %d, least share left %v", spreadA, packA, leastA)
		}
		if spreadA == 0 || spreadB == 0 {
			return
		}
		clear := big.NewRat(8, whole)
		if d := new(big.Rat).Sub(leastA, leastB); d.Cmp(clear) > 0 && spreadA <= spreadB {
			t.Fatalf("SPREAD prefers the fuller host: %v over %v", leastB, leastA)
		}
		if d := new(big.Rat).Sub(sumA, sumB); d.Cmp(clear) > 0 && packA >= packB {
			t.Fatalf("PACK prefers the emptier host: %v over %v", sumA, sumB)
		}
	})
}

func available(name, cluster string, cores, memoryMiB, diskGiB uint32) *apiv1.Host {
	return &apiv1.Host{
		Id: name, Name: name, ClusterId: cluster, Health: apiv1.Host_AVAILABLE,
		Total: &apiv1.Resources{Cores: cores, MemoryMib: memoryMiB, DiskGib: diskGiB},
	}
}
