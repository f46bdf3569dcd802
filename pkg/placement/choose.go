package placement

import (
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Choose returns the host that a VM is to run on: of its cluster, not among the excluded ids, passing every filter,
// with the best score. The picture is left as it is. The VM itself, where it is on a host already, counts as one more
// tenant. Does not allocate once the size is known.
func (p *Picture) Choose(vm *apiv1.VM, exclude ...string) (hostID string, ok bool) {
	slot := p.choose(p.clusters[vm.GetClusterId()], vm, exclude)
	if slot < 0 {
		return "", false
	}
	return p.hosts.id[slot], true
}

// Place chooses a host and assigns the VM to it, so that the next question sees it there.
func (p *Picture) Place(vm *apiv1.VM, exclude ...string) (hostID string, ok bool) {
	hostID, ok = p.Choose(vm, exclude...)
	if ok {
		p.Assign(vm, hostID)
	}
	return hostID, ok
}

// Takes tells whether one host of the VM's cluster passes every filter for it.
func (p *Picture) Takes(vm *apiv1.VM, hostID string) bool {
	c := p.clusters[vm.GetClusterId()]
	slot, ok := p.slots[hostID]
	if !ok || c == nil || !c.told || c.cordoned || p.hosts.home[slot] != c || p.hosts.closed[slot] != Fits {
		return false
	}
	if reason, _ := p.keepsOff(c, vm, slot, false); reason != Fits {
		return false
	}
	free, ask := p.hosts.free[slot], vectorOf(vm.GetSize())
	return lacking(&free, &ask) == 0
}

// ChooseCluster returns the cluster of the VM's zone that the VM is to go to, and the host that its own strategy
// would take there now. Only clusters with a host for it are looked at. SPREAD takes the cluster that is emptiest
// with the VM in it, PACK the fullest, measured as hosts are; equals are settled by name, then id. Where the VM names
// a cluster (by id), it is that or none.
func (p *Picture) ChooseCluster(vm *apiv1.VM, strategy apiv1.Cluster_Strategy, exclude ...string) (clusterID, hostID string, ok bool) {
	if named := vm.GetClusterId(); named != "" {
		hostID, ok = p.Choose(vm, exclude...)
		if !ok {
			return "", "", false
		}
		return named, hostID, true
	}
	ask := vectorOf(vm.GetSize())
	var best uint64
	for _, c := range p.zones[vm.GetZoneId()] {
		slot := p.choose(c, vm, exclude)
		if slot < 0 {
			continue
		}
		var free vector
		for d := range dimensions {
			free[d] = max(c.capacity[d]-c.used[d], 0)
		}
		each := reciprocals(c.capacity)
		if s := score(strategy, &free, &ask, &each); s > best || !ok {
			best, clusterID, hostID, ok = s, c.id, p.hosts.id[slot], true
		}
	}
	return clusterID, hostID, ok
}

// choose returns the slot of the best host of a cluster, or -1.
func (p *Picture) choose(c *cluster, vm *apiv1.VM, exclude []string) int32 {
	if c == nil || !c.told || c.cordoned || len(c.slots) == 0 {
		return -1
	}
	ask := vectorOf(vm.GetSize())
	anchor := p.mark(c, vm, exclude)
	if anchor != nil {
		return p.beside(anchor, c, vm, &ask)
	}
	w := walk{tournament: p.tournament(c, ask), slots: c.slots, marks: &p.marks}
	leaf, _ := w.best(1, 0)
	p.visits += w.visits
	if leaf < 0 {
		return -1
	}
	return c.slots[leaf]
}

// mark marks the hosts that are out for this VM only, and returns the smallest group that the VM must stand with,
// if there is one.
func (p *Picture) mark(c *cluster, vm *apiv1.VM, exclude []string) (anchor *group) {
	p.marks.begin(len(p.hosts.id))
	for _, id := range exclude {
		if slot, ok := p.slots[id]; ok {
			p.marks.add(slot)
		}
	}
	for _, a := range vm.GetAffinities() {
		g := p.groups[keyOf(vm, c.id, a)]
		if g == nil {
			continue
		}
		for _, s := range g.seats {
			if s.bars(apart(a)) {
				p.marks.add(s.slot)
			}
		}
		p.visits += uint64(len(g.seats))
		if !apart(a) && g.gathered > 0 && (anchor == nil || g.gathered < anchor.gathered) {
			anchor = g
		}
	}
	return anchor
}

// beside chooses among the hosts where a group is gathered.
func (p *Picture) beside(anchor *group, c *cluster, vm *apiv1.VM, ask *vector) int32 {
	best, winner := uint64(0), int32(-1)
	p.sort(c)
	for _, s := range anchor.seats {
		p.visits++
		if s.together == 0 || p.hosts.home[s.slot] != c || p.marks.has(s.slot) || p.strayed(c, vm, s.slot) != nil {
			continue
		}
		sc := p.score(s.slot, c, ask)
		if sc > best || sc == best && sc > 0 && p.hosts.leaf[s.slot] < p.hosts.leaf[winner] {
			best, winner = sc, s.slot
		}
	}
	return winner
}

// strayed returns a group that the VM must stand with and that is gathered elsewhere, if there is one.
func (p *Picture) strayed(c *cluster, vm *apiv1.VM, slot int32) *group {
	for _, a := range vm.GetAffinities() {
		if apart(a) {
			continue
		}
		if g := p.groups[keyOf(vm, c.id, a)]; g != nil && g.gathered > 0 && g.at(slot).together == 0 {
			return g
		}
	}
	return nil
}

// tournament returns the cluster's tournament for a size, held anew if there is none.
func (p *Picture) tournament(c *cluster, ask vector) *tournament {
	c.tick++
	p.sort(c)
	var oldest *tournament
	for _, t := range c.tournaments {
		if t.width > 0 && t.ask == ask {
			t.asked = c.tick
			return t
		}
		if oldest == nil || t.asked < oldest.asked {
			oldest = t
		}
	}
	// One that was forgotten has asked 0 and is taken first.
	if oldest == nil || oldest.asked > 0 && len(c.tournaments) < shapeLimit {
		oldest = &tournament{}
		c.tournaments = append(c.tournaments, oldest)
	}
	oldest.asked = c.tick
	oldest.reset(ask, len(c.slots))
	for leaf, slot := range c.slots {
		oldest.nodes[oldest.width+leaf] = p.score(slot, c, &ask)
	}
	oldest.settle()
	p.visits += uint64(len(c.slots) + oldest.width)
	return oldest
}
