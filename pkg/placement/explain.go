package placement

import (
	"cmp"
	"iter"
	"slices"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Verdict is what is said of one host.
type Verdict struct {
	HostID, Host string
	Reason       Reason
	Group        string           // for Apart and Strayed
	Lacks        Lacking          // for Lacks
	Free         *apiv1.Resources // overcommit applied
}

// Verdicts judges every host of the VM's cluster, in the order of their names. The picture must not change meanwhile.
func (p *Picture) Verdicts(vm *apiv1.VM, exclude ...string) iter.Seq[Verdict] {
	return func(yield func(Verdict) bool) {
		if c := p.clusters[vm.GetClusterId()]; c != nil && c.told {
			p.judge(c, vm, exclude, yield)
		}
	}
}

func (p *Picture) judge(c *cluster, vm *apiv1.VM, exclude []string, yield func(Verdict) bool) {
	p.sort(c)
	out := map[string]bool{}
	for _, id := range exclude {
		out[id] = true
	}
	ask := vectorOf(vm.GetSize())
	for _, slot := range c.slots {
		free := p.hosts.free[slot]
		v := Verdict{HostID: p.hosts.id[slot], Host: p.hosts.name[slot], Reason: p.hosts.closed[slot], Free: free.resources()}
		if v.Reason == Fits {
			v.Reason, v.Group = p.keepsOff(c, vm, slot, out[v.HostID])
		}
		if v.Reason == Fits {
			if v.Lacks = lacking(&free, &ask); v.Lacks != 0 {
				v.Reason = Lacks
			}
		}
		if !yield(v) {
			return
		}
	}
}

// keepsOff returns why an open host is out for this VM, room aside.
func (p *Picture) keepsOff(c *cluster, vm *apiv1.VM, slot int32, excluded bool) (reason Reason, groupName string) {
	if excluded {
		return Excluded, ""
	}
	for _, a := range vm.GetAffinities() {
		if g := p.groups[keyOf(vm, c.id, a)]; g != nil && g.at(slot).bars(apart(a)) {
			return Apart, g.key.name
		}
	}
	if g := p.strayed(c, vm, slot); g != nil {
		return Strayed, g.key.name
	}
	return Fits, ""
}

// Lacks says what the host of a VM lacks for the VM to be of another size: "lacks memory: 512 MiB free for it, 1024 MiB asked";
// "" where it lacks nothing. Whether the host takes further VMs does not matter.
func (p *Picture) Lacks(vmID string, size *apiv1.Resources) string {
	t, ok := p.vms[vmID]
	if !ok {
		return ""
	}
	free, ask := vector{}, vectorOf(size)
	for d := range dimensions {
		free[d] = p.hosts.capacity[t.slot][d] - p.hosts.used[t.slot][d] + t.size[d]
		if ask[d] <= t.size[d] { // what it has is not taken from it
			free[d] = max(free[d], ask[d])
		}
	}
	l := lacking(&free, &ask)
	if l == 0 {
		return ""
	}
	return phrase(1, Lacks) + " " + l.String() + ": " + amounts(free.resources(), l) + " free for it, " + amounts(size, l) + " asked"
}

// Explanation says of a cluster why no host of it would do. Of a VM that does fit it says so too.
type Explanation struct {
	Cluster string // its name; its id where it is not known
	Known   bool
	// Cordoned: the cluster itself takes no VM; what is said of its hosts holds all the same.
	Cordoned bool
	Asked    *apiv1.Resources
	Hosts    int     // looked at
	Fitting  int     // of these
	Counts   []Count // of the others; most frequent first; Fitting and these add up to Hosts
	// Largest is the most that one open host takes when it is empty, number by number; nil if none is open.
	Largest *apiv1.Resources
}

// Count is how many hosts are out for one reason.
type Count struct {
	Reason Reason
	Group  string
	Lacks  Lacking
	Hosts  int
	// Nearest is the host that is out by the least, for Lacks: by the smallest of the greatest lack, as a share of
	// what is asked. For other reasons, the first by name.
	Nearest     string
	NearestFree *apiv1.Resources
}

// Explain looks at every host of the VM's cluster.
func (p *Picture) Explain(vm *apiv1.VM, exclude ...string) Explanation {
	c := p.clusters[vm.GetClusterId()]
	if c == nil || !c.told {
		return Explanation{Cluster: cmp.Or(vm.GetCluster(), vm.GetClusterId()), Asked: vm.GetSize()}
	}
	return p.explain(c, vm, exclude)
}

func (p *Picture) explain(c *cluster, vm *apiv1.VM, exclude []string) Explanation {
	e := Explanation{Cluster: c.name, Known: true, Cordoned: c.cordoned, Asked: vm.GetSize(), Hosts: len(c.slots)}
	ask := vectorOf(vm.GetSize())
	gaps := []int64{} // of the nearest of each count
	p.judge(c, vm, exclude, func(v Verdict) bool {
		if v.Reason == Fits {
			e.Fitting++
			return true
		}
		i := slices.IndexFunc(e.Counts, func(k Count) bool {
			return k.Reason == v.Reason && k.Group == v.Group && k.Lacks == v.Lacks
		})
		gap := gapOf(vectorOf(v.Free), ask)
		if i < 0 {
			i = len(e.Counts)
			e.Counts = append(e.Counts, Count{Reason: v.Reason, Group: v.Group, Lacks: v.Lacks, Nearest: v.Host, NearestFree: v.Free})
			gaps = append(gaps, gap)
		}
		if v.Reason == Lacks && gap < gaps[i] {
			e.Counts[i].Nearest, e.Counts[i].NearestFree, gaps[i] = v.Host, v.Free, gap
		}
		e.Counts[i].Hosts++
		return true
	})
	slices.SortStableFunc(e.Counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Hosts, a.Hosts), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Lacks, b.Lacks))
	})
	e.Largest = p.largest(c)
	return e
}

// MayPass tells whether a host is out for a reason that passes by itself within moments: it has not reported yet, or it
// is being looked at because it was silent. Who can wait a little asks again then.
func (e Explanation) MayPass() bool {
	return !e.Cordoned && (e.has(Unseen) || e.has(Suspect) || e.has(Checking))
}

// gapOf is the greatest lack, in millionths of what is asked.
func gapOf(free, ask vector) (gap int64) {
	for d := range dimensions {
		if ask[d] > free[d] {
			gap = max(gap, (ask[d]-free[d])*1_000_000/ask[d])
		}
	}
	return gap
}

func (p *Picture) largest(c *cluster) *apiv1.Resources {
	var most vector
	open := false
	for _, slot := range c.slots {
		if p.hosts.closed[slot] != Fits {
			continue
		}
		open = true
		for d, n := range p.hosts.capacity[slot] {
			most[d] = max(most[d], n)
		}
	}
	if !open {
		return nil
	}
	return most.resources()
}

// ZoneExplanation says why no cluster of a zone would do.
type ZoneExplanation struct {
	Zone     string // its name; its id where it is not known
	Clusters []Explanation
}

// ExplainZone looks at every cluster of the VM's zone.
func (p *Picture) ExplainZone(vm *apiv1.VM, exclude ...string) ZoneExplanation {
	z := ZoneExplanation{Zone: cmp.Or(vm.GetZone(), vm.GetZoneId())}
	for _, c := range p.zones[vm.GetZoneId()] {
		z.Clusters = append(z.Clusters, p.explain(c, vm, exclude))
	}
	return z
}
