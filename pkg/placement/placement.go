// Package placement chooses the host a VM is to run on, and explains why none would do.
//
// It is pure: no I/O, no clock, no randomness. A Picture holds clusters, their hosts and the VMs on them; it is kept
// current change by change, and answers a question in O(log hosts).
//
// # How a host is chosen
//
// Of the hosts of the VM's cluster that pass every filter (admin state, health, exclusion, affinity, room for cores,
// memory and disk with overcommit applied), the one with the best score wins; hosts of equal score are taken by name,
// then by id. The answer is exact: it is what comparing every host would give.
//
//   - SPREAD takes the host that is emptiest once the VM is on it: the largest share left in its scarcest resource,
//     then the largest sum of the shares left.
//   - PACK takes the tightest fit: the smallest sum of the shares left, then the smallest share in the scarcest.
//
// # Why it is fast
//
// VMs come in few sizes. For each size lately asked for, a cluster keeps a tournament over its hosts: a complete
// binary tree in one flat array whose leaves are the hosts' scores for that size (0: does not fit) and whose inner
// nodes are the better of two. A question walks down from the root; a change of a host walks up from its leaf, and
// stops where it makes no difference. Hosts that are out for this VM only (excluded, held by an affinity group) are
// marked, and the walk passes round them. A size that was not asked for lately costs one pass over the hosts.
package placement

import (
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// shapeLimit bounds the sizes for which a cluster keeps a tournament; the one unused longest gives way.
const shapeLimit = 32

// Picture is what is known of clusters, hosts and VMs. It never loses sight of what a host has taken: VMs may be told
// before their host, hosts before their cluster, and a host that is removed keeps its VMs until they are released.
// Not safe for concurrent use.
type Picture struct {
	clusters map[string]*cluster
	zones    map[string][]*cluster // by name, then id
	slots    map[string]int32      // host id → slot
	hosts    hosts
	vms      map[string]tenant
	groups   map[groupKey]*group
	marks    marks
	visits   uint64
}

// New returns an empty picture.
func New() *Picture {
	return &Picture{
		clusters: map[string]*cluster{},
		zones:    map[string][]*cluster{},
		slots:    map[string]int32{},
		vms:      map[string]tenant{},
		groups:   map[groupKey]*group{},
	}
}

// Visits counts the tree nodes that were looked at since New: the measure of the work done, free of the machine.
func (p *Picture) Visits() uint64 { return p.visits }

// tenant is a VM on a host, or room that is kept for one.
type tenant struct {
	slot  int32
	size  vector
	seats []seatOf
	kept  bool
}

// Assign puts a VM on a host, whether or not it fits: the picture follows the facts. A VM that is on another host
// moves. Its affinity groups are those of the noun.
func (p *Picture) Assign(vm *apiv1.VM, hostID string) { p.assign(vm, hostID, false) }

// Keep takes room on a host for a VM that is not there, under an id of its own, until that is released: as Assign does, but it
// is no VM of the host's.
func (p *Picture) Keep(room *apiv1.VM, hostID string) { p.assign(room, hostID, true) }

func (p *Picture) assign(vm *apiv1.VM, hostID string, kept bool) {
	slot := p.slot(hostID)
	size := vectorOf(vm.GetSize())
	old, moves := p.vms[vm.GetId()]
	if moves && old.slot == slot && old.size == size && old.kept == kept && sameGroups(old.seats, vm) {
		return
	}
	p.vms[vm.GetId()] = tenant{slot: slot, size: size, seats: p.sit(vm, slot), kept: kept}
	p.hosts.count[slot]++
	if kept {
		p.hosts.kept[slot]++
	}
	p.take(slot, size)
	if moves {
		p.leave(old)
	}
}

// Release takes a VM off its host. A VM that is on none is passed over.
func (p *Picture) Release(vmID string) {
	if t, ok := p.vms[vmID]; ok {
		delete(p.vms, vmID)
		p.leave(t)
	}
}

func (p *Picture) leave(t tenant) {
	p.rise(t.seats, t.slot)
	p.hosts.count[t.slot]--
	if t.kept {
		p.hosts.kept[t.slot]--
	}
	p.take(t.slot, t.size.negative())
	p.vacate(t.slot)
}

// HostOf returns the host a VM is on.
func (p *Picture) HostOf(vmID string) (hostID string, ok bool) {
	t, ok := p.vms[vmID]
	if !ok {
		return "", false
	}
	return p.hosts.id[t.slot], true
}

// Used returns what is taken of a host, by its VMs, kept and held, and how many VMs there are.
func (p *Picture) Used(hostID string) (used *apiv1.Resources, vms uint32) {
	slot, ok := p.slots[hostID]
	if !ok {
		return &apiv1.Resources{}, 0
	}
	return p.hosts.used[slot].resources(), uint32(p.hosts.count[slot] - p.hosts.kept[slot])
}

// Free is what the open hosts of a cluster have free together.
func (p *Picture) Free(clusterID string) *apiv1.Resources {
	free := vector{}
	if c := p.clusters[clusterID]; c != nil {
		for d, n := range c.capacity {
			free[d] = n - c.used[d]
		}
	}
	return free.resources()
}

// Capacity returns what a host can give in all, overcommit applied, and how much of it is taken.
func (p *Picture) Capacity(hostID string) (total, used *apiv1.Resources) {
	slot, ok := p.slots[hostID]
	if !ok {
		return &apiv1.Resources{}, &apiv1.Resources{}
	}
	return p.hosts.capacity[slot].resources(), p.hosts.used[slot].resources()
}
