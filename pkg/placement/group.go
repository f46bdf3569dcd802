package placement

import (
	"cmp"
	"slices"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// groupKey names an affinity group: VMs of one project and cluster that name the same group belong together.
type groupKey struct {
	cluster, project, name string
}

// group is where the members of an affinity group are.
//
// A member that asks for TOGETHER stands with the others that ask so; a member that asks for APART stands with no
// member at all, so that who comes later cannot break what the earlier was promised.
type group struct {
	key   groupKey
	seats []seat // by host slot
	// gathered is how many members ask for TOGETHER: they have their hosts, and who joins them stands there too.
	gathered int32
}

// seat is how many members of a group are on one host.
type seat struct {
	slot            int32
	together, apart int32
}

// seatOf is a VM's membership in a group.
type seatOf struct {
	group *group
	apart bool
}

func keyOf(vm *apiv1.VM, clusterID string, a *apiv1.VM_Affinity) groupKey {
	return groupKey{clusterID, vm.GetProjectId(), a.GetGroup()}
}

// apart tells whether a rule is APART; every other is TOGETHER.
func apart(a *apiv1.VM_Affinity) bool { return a.GetRule() == apiv1.VM_Affinity_APART }

func (g *group) find(slot int32) (int, bool) {
	return slices.BinarySearchFunc(g.seats, slot, func(s seat, slot int32) int { return cmp.Compare(s.slot, slot) })
}

// at returns the members on a host.
func (g *group) at(slot int32) seat {
	if i, ok := g.find(slot); ok {
		return g.seats[i]
	}
	return seat{slot: slot}
}

func (g *group) add(slot int32, apart bool, n int32) {
	i, ok := g.find(slot)
	if !ok {
		g.seats = slices.Insert(g.seats, i, seat{slot: slot})
	}
	s := &g.seats[i]
	if apart {
		s.apart += n
	} else {
		s.together += n
		g.gathered += n
	}
	if s.apart == 0 && s.together == 0 {
		g.seats = slices.Delete(g.seats, i, i+1)
	}
}

func (p *Picture) sit(vm *apiv1.VM, slot int32) []seatOf {
	affinities := vm.GetAffinities()
	if len(affinities) == 0 {
		return nil
	}
	seats := make([]seatOf, 0, len(affinities))
	for _, a := range affinities {
		key := keyOf(vm, vm.GetClusterId(), a)
		g := p.groups[key]
		if g == nil {
			g = &group{key: key}
			p.groups[key] = g
		}
		g.add(slot, apart(a), 1)
		seats = append(seats, seatOf{g, apart(a)})
	}
	return seats
}

func (p *Picture) rise(seats []seatOf, slot int32) {
	for _, s := range seats {
		s.group.add(slot, s.apart, -1)
		if len(s.group.seats) == 0 {
			delete(p.groups, s.group.key)
		}
	}
}

func sameGroups(seats []seatOf, vm *apiv1.VM) bool {
	affinities := vm.GetAffinities()
	if len(seats) != len(affinities) {
		return false
	}
	for i, a := range affinities {
		if seats[i].apart != apart(a) || seats[i].group.key != keyOf(vm, vm.GetClusterId(), a) {
			return false
		}
	}
	return true
}

// bars tells whether those on a host keep off a VM that asks to stand apart, or together.
func (s seat) bars(apart bool) bool { return s.apart > 0 || apart && s.together > 0 }
