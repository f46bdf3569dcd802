package placement

import (
	"cmp"
	"slices"
	"strings"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// cluster is a set of hosts with one strategy and one overcommit.
type cluster struct {
	id, name, zone string
	told           bool // by SetCluster; until then no VM is placed
	cordoned       bool
	strategy       apiv1.Cluster_Strategy
	percent        [dimensions]int64
	slots          []int32 // of its hosts; by name, then id, unless unsorted
	unsorted       bool
	tournaments    []*tournament
	tick           uint64
	capacity, used vector // of its open hosts together
}

// hosts are flat arrays, one entry a slot. A slot stands for one host for as long as the host is known or has VMs.
type hosts struct {
	id, name   []string
	home       []*cluster // nil: the host is not told, or removed
	leaf       []int32    // index in home.slots, while that is sorted
	closed     []Reason   // Fits: open to VMs
	total      []vector   // before overcommit
	capacity   []vector   // after it
	used       []vector   // by VMs, and held
	held       []vector
	free       []vector // capacity less used, never below 0
	reciprocal [][dimensions]uint64
	count      []int32 // VMs, and rooms kept for some
	kept       []int32 // of these, the rooms
	vacant     []int32 // slots to use again
}

// SetCluster adds a cluster or takes over its changes.
func (p *Picture) SetCluster(c *apiv1.Cluster) {
	to := p.cluster(c.GetId())
	percent := [dimensions]int64{percentOf(c.GetCpuOvercommitPercent()), percentOf(c.GetMemoryOvercommitPercent()), 100}
	strategy := c.GetStrategy()
	if strategy != apiv1.Cluster_PACK {
		strategy = apiv1.Cluster_SPREAD
	}
	rescore := strategy != to.strategy || percent != to.percent
	if to.told && (to.name != c.GetName() || to.zone != c.GetZoneId()) {
		p.leaveZone(to)
		to.told = false
	}
	to.name, to.zone, to.cordoned = c.GetName(), c.GetZoneId(), c.GetCordoned()
	to.strategy, to.percent = strategy, percent
	if !to.told {
		to.told = true
		p.enterZone(to)
	}
	if rescore {
		for _, slot := range to.slots {
			p.measure(slot)
		}
		to.forget()
		p.sum(to)
	}
}

// RemoveCluster takes a cluster away. Its hosts stay known, and take no VM.
func (p *Picture) RemoveCluster(id string) {
	c := p.clusters[id]
	if c == nil || !c.told {
		return
	}
	p.leaveZone(c)
	c.told = false
	p.dropCluster(c)
}

// SetHost adds a host or takes over its changes: the noun as desired and observed together.
func (p *Picture) SetHost(h *apiv1.Host) {
	slot := p.slot(h.GetId())
	p.subtract(slot)
	if at := p.hosts.home[slot]; at == nil || at.id != h.GetClusterId() || p.hosts.name[slot] != h.GetName() {
		p.evict(slot)
		at = p.cluster(h.GetClusterId())
		p.hosts.home[slot], p.hosts.name[slot] = at, h.GetName()
		at.slots = append(at.slots, slot)
		at.unsorted = true
		at.forget()
	}
	p.hosts.closed[slot] = closedBy(h)
	p.hosts.total[slot] = totalOf(h)
	p.measure(slot)
	p.add(slot)
	p.rescore(slot)
}

// RemoveHost takes a host away. Its VMs stay assigned to it until they are released.
func (p *Picture) RemoveHost(id string) {
	slot, ok := p.slots[id]
	if !ok {
		return
	}
	p.subtract(slot)
	p.evict(slot)
	p.vacate(slot)
}

// Hold takes an amount of a host beside what its VMs take, in place of what was held before: for tenants whose size is
// not known. The host is told already, or has VMs; of any other nothing is held.
func (p *Picture) Hold(hostID string, amount *apiv1.Resources) {
	slot, ok := p.slots[hostID]
	if !ok {
		return
	}
	held := vectorOf(amount)
	change := held
	for d, n := range p.hosts.held[slot] {
		change[d] -= n
	}
	p.hosts.held[slot] = held
	p.take(slot, change)
}

// totalOf is what a host has: what its hypervisor reports, and where the operator set a number, that.
func totalOf(h *apiv1.Host) vector {
	total, set := vectorOf(h.GetTotal()), vectorOf(h.GetCapacity())
	for d, n := range set {
		if n > 0 {
			total[d] = n
		}
	}
	return total
}

func percentOf(n uint32) int64 {
	if n == 0 {
		return 100
	}
	return int64(n)
}

func (p *Picture) cluster(id string) *cluster {
	c := p.clusters[id]
	if c == nil {
		c = &cluster{id: id, strategy: apiv1.Cluster_SPREAD, percent: [dimensions]int64{100, 100, 100}}
		p.clusters[id] = c
	}
	return c
}

func (p *Picture) dropCluster(c *cluster) {
	if !c.told && len(c.slots) == 0 {
		delete(p.clusters, c.id)
	}
}

func (p *Picture) enterZone(c *cluster) {
	in := p.zones[c.zone]
	i, _ := slices.BinarySearchFunc(in, c, func(a, b *cluster) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.id, b.id))
	})
	p.zones[c.zone] = slices.Insert(in, i, c)
}

func (p *Picture) leaveZone(c *cluster) {
	in := p.zones[c.zone]
	if i := slices.Index(in, c); i >= 0 {
		p.zones[c.zone] = slices.Delete(in, i, i+1)
	}
	if len(p.zones[c.zone]) == 0 {
		delete(p.zones, c.zone)
	}
}

// slot returns the host's slot; an unknown host gets one, so that its VMs can be counted before it is told.
func (p *Picture) slot(id string) int32 {
	if slot, ok := p.slots[id]; ok {
		return slot
	}
	h := &p.hosts
	var slot int32
	if n := len(h.vacant); n > 0 {
		slot = h.vacant[n-1]
		h.vacant = h.vacant[:n-1]
	} else {
		slot = int32(len(h.id))
		h.id, h.name, h.home = append(h.id, ""), append(h.name, ""), append(h.home, nil)
		h.leaf, h.closed = append(h.leaf, 0), append(h.closed, Fits)
		h.total, h.capacity = append(h.total, vector{}), append(h.capacity, vector{})
		h.used, h.held, h.free = append(h.used, vector{}), append(h.held, vector{}), append(h.free, vector{})
		h.reciprocal, h.count, h.kept = append(h.reciprocal, [dimensions]uint64{}), append(h.count, 0), append(h.kept, 0)
	}
	h.id[slot], h.name[slot], h.home[slot], h.closed[slot] = id, id, nil, Unseen
	h.total[slot], h.capacity[slot], h.free[slot] = vector{}, vector{}, vector{}
	h.used[slot], h.held[slot] = vector{}, vector{}
	h.reciprocal[slot], h.count[slot], h.kept[slot] = [dimensions]uint64{}, 0, 0
	p.slots[id] = slot
	return slot
}

// vacate gives a slot back once neither a host nor a VM needs it.
func (p *Picture) vacate(slot int32) {
	h := &p.hosts
	if h.home[slot] != nil || h.count[slot] > 0 {
		return
	}
	delete(p.slots, h.id[slot])
	h.id[slot], h.name[slot] = "", ""
	h.vacant = append(h.vacant, slot)
}

// evict takes a host out of its cluster.
func (p *Picture) evict(slot int32) {
	c := p.hosts.home[slot]
	if c == nil {
		return
	}
	p.hosts.home[slot] = nil
	i := int(p.hosts.leaf[slot])
	if c.unsorted {
		i = slices.Index(c.slots, slot)
	}
	c.slots[i] = c.slots[len(c.slots)-1]
	c.slots = c.slots[:len(c.slots)-1]
	c.unsorted = true
	c.forget()
	p.dropCluster(c)
}

// measure applies the cluster's overcommit to what the host has.
func (p *Picture) measure(slot int32) {
	h := &p.hosts
	for d, n := range h.total[slot] {
		h.capacity[slot][d] = n * h.home[slot].percent[d] / 100
	}
	h.reciprocal[slot] = reciprocals(h.capacity[slot])
	p.balance(slot)
}

func (p *Picture) balance(slot int32) {
	h := &p.hosts
	for d, n := range h.capacity[slot] {
		h.free[slot][d] = max(n-h.used[slot][d], 0)
	}
}

// take adds to what is used of a host.
func (p *Picture) take(slot int32, size vector) {
	p.subtract(slot)
	for d, n := range size {
		p.hosts.used[slot][d] += n
	}
	p.balance(slot)
	p.add(slot)
	p.rescore(slot)
}

// add counts an open host into its cluster's sums; subtract is its opposite.
func (p *Picture) add(slot int32) {
	h := &p.hosts
	if c := h.home[slot]; c != nil && h.closed[slot] == Fits {
		for d := range dimensions {
			c.capacity[d] += h.capacity[slot][d]
			c.used[d] += h.used[slot][d]
		}
	}
}

func (p *Picture) subtract(slot int32) {
	h := &p.hosts
	if c := h.home[slot]; c != nil && h.closed[slot] == Fits {
		for d := range dimensions {
			c.capacity[d] -= h.capacity[slot][d]
			c.used[d] -= h.used[slot][d]
		}
	}
}

func (p *Picture) sum(c *cluster) {
	c.capacity, c.used = vector{}, vector{}
	for _, slot := range c.slots {
		p.add(slot)
	}
}

// rescore takes a change of a host into the tournaments.
func (p *Picture) rescore(slot int32) {
	c := p.hosts.home[slot]
	if c == nil || c.unsorted {
		return
	}
	for _, t := range c.tournaments {
		if t.width > 0 {
			p.visits += t.set(p.hosts.leaf[slot], p.score(slot, c, &t.ask))
		}
	}
}

func (p *Picture) score(slot int32, c *cluster, ask *vector) uint64 {
	h := &p.hosts
	if h.closed[slot] != Fits {
		return 0
	}
	return score(c.strategy, &h.free[slot], ask, &h.reciprocal[slot])
}

// forget drops the tournaments, keeping their arrays for the next.
func (c *cluster) forget() {
	for _, t := range c.tournaments {
		t.asked, t.width = 0, 0
	}
}

// sort brings the hosts into the order in which ties are settled.
func (p *Picture) sort(c *cluster) {
	if !c.unsorted {
		return
	}
	h := &p.hosts
	slices.SortFunc(c.slots, func(a, b int32) int {
		return cmp.Or(strings.Compare(h.name[a], h.name[b]), strings.Compare(h.id[a], h.id[b]))
	})
	for leaf, slot := range c.slots {
		h.leaf[slot] = int32(leaf)
	}
	c.unsorted = false
}
