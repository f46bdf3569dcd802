package schedule

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// A reservation is room that is kept on hosts of the cluster for VMs that are not there yet, or for what one gets in addition
// (growth.go): all of it, or none. In the picture it stands as one room for each VM; in the store it is the observed reservation,
// written with the allocations of its hosts in one transaction. The transaction that places a VM which names the reservation also
// notes the VM in one of its units: so a room is used once, whoever repeats what, and a VM that was placed is never placed again.
//
// What is left is freed at the control plane's word, or when hold_until has passed by this agent's clock, whether or not the
// link is there. A VM that comes too late takes what is free, as any other.

// maxHolds bounds the reservations that one transaction writes.
const maxHolds = 20

// lookAgain is how long a clock may jump unseen while a reservation is held.
const lookAgain = time.Minute

func (b *book) applyReserved(id string, m *apiv1.Reservation) {
	if m != nil && m.GetClusterId() == b.cluster {
		b.reserved[id] = m
	} else {
		delete(b.reserved, id)
	}
}

func (b *book) applyHold(id string, m *apiv1.Reservation, revision int64) (news bool) {
	if revision <= b.holds[id].revision || m != nil && m.GetClusterId() != b.cluster {
		return false
	}
	if b.holds[id] = (seen[*apiv1.Reservation]{m, revision}); m == nil {
		delete(b.holds, id)
	}
	return true
}

// relateHold brings what is left of a reservation into the picture, in place of what was there of it.
func (b *book) relateHold(id string) {
	for i := range b.rooms[id] {
		b.picture.Release(roomID(id, i))
	}
	delete(b.rooms, id)
	if is := b.holds[id].value; is.GetState() == apiv1.Reservation_HELD {
		for i, u := range is.GetUnits() {
			if u.GetVmId() == "" {
				b.picture.Keep(room(is, i), u.GetHostId())
			}
		}
		b.rooms[id] = len(is.GetUnits())
	}
	setOrDelete(b.asks, id, b.unanswered(id))
}

// unanswered tells whether what is wanted of a reservation is to be answered, or what is known of it forgotten: only a tombstone
// has the control plane not name it.
func (b *book) unanswered(id string) bool {
	wanted, is := b.reserved[id], b.holds[id].value
	if wanted == nil {
		return is != nil
	}
	return !b.unclaimed[id] && schema.CompareGenerations(is.GetReached(), wanted.GetGeneration()) < 0
}

func roomID(id string, i int) string { return id + "#" + strconv.Itoa(i) }

// room is the room for one VM, as the picture takes it.
func room(r *apiv1.Reservation, i int) *apiv1.VM {
	vm := &apiv1.VM{Id: roomID(r.GetId(), i), ClusterId: r.GetClusterId(), Cluster: r.GetCluster(), Size: r.GetSize()}
	if r.GetSpread() {
		vm.ProjectId = r.GetId()
		vm.Affinities = []*apiv1.VM_Affinity{{Group: "reservation", Rule: apiv1.VM_Affinity_APART}}
	}
	return vm
}

// lapsing is when a reservation's time is over; false where nothing is held of it.
func (b *book) lapsing(id string) (at time.Time, held bool) {
	wanted := b.reserved[id]
	return wanted.GetHoldUntil().AsTime(), wanted.GetHoldUntil() != nil && b.holds[id].value.GetState() == apiv1.Reservation_HELD
}

// nextLapse is how long nothing lapses; false where nothing can.
func (b *book) nextLapse(now time.Time) (wait time.Duration, some bool) {
	if !b.told || b.syncing {
		return 0, false
	}
	wait = lookAgain
	for id := range b.rooms {
		if at, held := b.lapsing(id); held {
			wait, some = min(wait, at.Sub(now)), true
		}
	}
	return wait, some
}

// planReservations answers what is wanted of reservations, and frees what has lapsed. It comes before VMs are placed.
func (t *Term) planReservations(p *plan, pressed bool) {
	due := maps.Clone(t.book.asks)
	for id := range t.book.rooms {
		if at, held := t.book.lapsing(id); held && !p.now.Before(at) {
			due[id] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(due)) {
		if len(p.holds)+len(p.forgotten) >= min(maxHolds, t.size) {
			return
		}
		t.planReservation(p, id, pressed)
	}
}

func (t *Term) planReservation(p *plan, id string, pressed bool) {
	wanted, is := t.book.reserved[id], t.book.holds[id].value
	if wanted == nil {
		t.free(p, is)
		p.forgotten = append(p.forgotten, id)
		return
	}
	at := wanted.GetHoldUntil()
	over := at != nil && !p.now.Before(at.AsTime())
	held := is.GetState() == apiv1.Reservation_HELD
	// A refusal is reconsidered when asked again; what was released, used up or has lapsed is over.
	open := is == nil || is.GetState() == apiv1.Reservation_REFUSED
	switch released := wanted.GetDesiredState() == apiv1.Reservation_RELEASED; {
	case released && (held || open):
		t.free(p, is)
		p.answer(wanted, is, apiv1.Reservation_RELEASED)
	case over && (held || open):
		t.free(p, is)
		p.answer(wanted, is, apiv1.Reservation_LAPSED)
	case open && pressed:
		t.stall()
	case open && wanted.GetVmId() != "":
		t.takeGrowth(p, wanted)
	case open:
		t.takeRoom(p, wanted)
	default:
		p.answer(wanted, is, is.GetState())
	}
}

// free takes what is left of a reservation out of the picture.
func (t *Term) free(p *plan, is *apiv1.Reservation) {
	if is.GetState() != apiv1.Reservation_HELD {
		return
	}
	for i, u := range is.GetUnits() {
		if u.GetVmId() == "" {
			t.book.picture.Release(roomID(is.GetId(), i))
			p.hosts[u.GetHostId()] = true
		}
	}
}

// answer puts what is said of a reservation into the plan.
func (p *plan) answer(wanted, is *apiv1.Reservation, state apiv1.Reservation_State) *apiv1.Reservation {
	next := &apiv1.Reservation{
		Id: wanted.GetId(), ClusterId: wanted.GetClusterId(), Cluster: wanted.GetCluster(), Size: wanted.GetSize(), Spread: wanted.GetSpread(), VmId: wanted.GetVmId(),
		Units: is.GetUnits(), Left: is.GetLeft(), StateChangedAt: is.GetStateChangedAt(),
		State: state, Reached: wanted.GetGeneration(),
	}
	if state != apiv1.Reservation_HELD {
		next.Left = 0
		// Units that no VM has taken are nobody's any more.
		next.Units = slices.DeleteFunc(slices.Clone(next.GetUnits()), func(u *apiv1.Reservation_Unit) bool { return u.GetVmId() == "" })
	}
	if state != is.GetState() {
		next.StateChangedAt = timestamppb.New(p.now)
	}
	p.holds[wanted.GetId()] = next
	return next
}

// takeRoom keeps room for all VMs of a reservation, or refuses it. VMs that name it and are on hosts already were placed in it by
// a term whose word the store has forgotten since.
func (t *Term) takeRoom(p *plan, wanted *apiv1.Reservation) {
	var units []*apiv1.Reservation_Unit
	for id, vm := range t.book.desired {
		if vm.GetReservation() != wanted.GetId() || len(units) == int(wanted.GetQuantity()) {
			continue
		}
		if is := t.book.observed[id].value; is.GetHostId() != "" {
			units = append(units, &apiv1.Reservation_Unit{Host: is.GetHost(), HostId: is.GetHostId(), VmId: id})
		} else if on := t.book.foundOn(id); len(on) > 0 {
			units = append(units, &apiv1.Reservation_Unit{Host: on[0].GetName(), HostId: on[0].GetId(), VmId: id})
		}
	}
	slices.SortFunc(units, func(a, b *apiv1.Reservation_Unit) int { return strings.Compare(a.GetVmId(), b.GetVmId()) })
	used := len(units)
	for i := used; i < int(wanted.GetQuantity()); i++ {
		one := room(wanted, i)
		host, ok := t.book.picture.Choose(one)
		if !ok {
			e := t.book.picture.Explain(one)
			for k := used; k < i; k++ {
				t.book.picture.Release(roomID(wanted.GetId(), k))
			}
			if e.MayPass() && t.patient(p, wanted.GetId(), t.cfg.Patience) {
				t.stall()
				return
			}
			delete(t.since, wanted.GetId())
			detail := e.Detail()
			if i > 0 {
				detail = fmt.Sprintf("There is room for %d of %d. For the next one: %s", i, wanted.GetQuantity(), detail)
			}
			refused := p.answer(wanted, nil, apiv1.Reservation_REFUSED)
			refused.Error = problem.New(problem.NoHostFits, detail, e.Next()).Problem
			refused.Error.Clusters = e.Refusals()
			return
		}
		t.book.picture.Keep(one, host)
		units = append(units, &apiv1.Reservation_Unit{Host: t.book.hosts[host].desired.GetName(), HostId: host})
	}
	for _, u := range units[used:] {
		p.hosts[u.GetHostId()] = true
	}
	delete(t.since, wanted.GetId())
	t.book.rooms[wanted.GetId()] = len(units)
	state := apiv1.Reservation_HELD
	if used == len(units) {
		state = apiv1.Reservation_CONSUMED
	}
	hold := p.answer(wanted, nil, state)
	hold.Units, hold.Left = units, uint32(len(units)-used)
}

// holdFor is what a VM may take its room from: the reservation that it names, where it is held, has room left, and the VM has not
// had its share.
func (t *Term) holdFor(p *plan, vm *apiv1.VM) *apiv1.Reservation {
	id := vm.GetReservation()
	if id == "" {
		return nil
	}
	h := p.holds[id]
	if h == nil {
		h = t.book.holds[id].value
	}
	if h.GetState() != apiv1.Reservation_HELD || h.GetLeft() == 0 || h.GetClusterId() != t.cfg.Cluster || h.GetVmId() != "" {
		return nil
	}
	for _, u := range h.GetUnits() {
		if u.GetVmId() == vm.GetId() {
			return nil
		}
	}
	return h
}

// findHost chooses a host for a VM and puts it there in the picture: in the room that was reserved for it, or, where that host
// does not take it now, in exchange for that room on another.
func (t *Term) findHost(p *plan, vm *apiv1.VM) (hostID string, ok bool) {
	h := t.holdFor(p, vm)
	if h == nil {
		return t.book.picture.Place(vm)
	}
	tried, first := map[string]bool{}, -1
	for i, u := range h.GetUnits() {
		if u.GetVmId() != "" || tried[u.GetHostId()] {
			continue
		}
		if first < 0 {
			first = i
		}
		tried[u.GetHostId()] = true
		t.book.picture.Release(roomID(h.GetId(), i))
		if t.book.picture.Takes(vm, u.GetHostId()) {
			t.book.picture.Assign(vm, u.GetHostId())
			t.consume(p, h, i, vm, u.GetHostId())
			return u.GetHostId(), true
		}
		t.book.picture.Keep(room(h, i), u.GetHostId())
	}
	at := h.GetUnits()[first].GetHostId()
	t.book.picture.Release(roomID(h.GetId(), first))
	if hostID, ok = t.book.picture.Place(vm); !ok {
		t.book.picture.Keep(room(h, first), at)
		return "", false
	}
	t.consume(p, h, first, vm, hostID)
	return hostID, true
}

// consume notes in the plan that a VM has one of a reservation's units. Its room is out of the picture.
func (t *Term) consume(p *plan, h *apiv1.Reservation, unit int, vm *apiv1.VM, hostID string) {
	next := p.holds[h.GetId()]
	if next == nil {
		next = proto.CloneOf(h)
	} else {
		next.Units = slices.Clone(next.GetUnits())
	}
	p.hosts[next.GetUnits()[unit].GetHostId()] = true
	next.Units[unit] = &apiv1.Reservation_Unit{Host: t.book.host(hostID).desired.GetName(), HostId: hostID, VmId: vm.GetId()}
	if next.Left--; next.GetLeft() == 0 {
		next.State, next.StateChangedAt = apiv1.Reservation_CONSUMED, timestamppb.New(p.now)
	}
	p.holds[h.GetId()] = next
}

// consumeFound notes that a VM which was found on a host has its share of the reservation that it names.
func (t *Term) consumeFound(p *plan, vm *apiv1.VM, hostID string) {
	h := t.holdFor(p, vm)
	if h == nil {
		return
	}
	unit := slices.IndexFunc(h.GetUnits(), func(u *apiv1.Reservation_Unit) bool { return u.GetVmId() == "" && u.GetHostId() == hostID })
	if unit < 0 {
		unit = slices.IndexFunc(h.GetUnits(), func(u *apiv1.Reservation_Unit) bool { return u.GetVmId() == "" })
	}
	t.book.picture.Release(roomID(h.GetId(), unit))
	t.consume(p, h, unit, vm, hostID)
}

func (t *Term) writeHolds(tx Tx, p *plan) {
	for _, id := range slices.Sorted(maps.Keys(p.holds)) {
		tx.Require(etcdstore.Observed, "reservation", id, t.holdRevision(id))
		tx.PutObserved(p.holds[id])
	}
	for _, id := range p.forgotten {
		tx.Require(etcdstore.Observed, "reservation", id, t.holdRevision(id))
		tx.Tombstone(&apiv1.Reference{Kind: "reservation", Id: id}, nil)
	}
}

func (t *Term) holdRevision(id string) int64 {
	if is := t.book.holds[id]; is.value != nil {
		return is.revision
	}
	return 0
}

func (t *Term) settleHolds(p *plan, revision int64) {
	for id, h := range p.holds {
		t.book.holds[id] = seen[*apiv1.Reservation]{h, revision}
		t.book.relateHold(id)
	}
	for _, id := range p.forgotten {
		t.book.holds[id] = seen[*apiv1.Reservation]{nil, revision}
		t.book.relateHold(id)
	}
}

func (t *Term) undoHolds(p *plan) {
	for id := range p.holds {
		t.book.relateHold(id)
	}
	for _, id := range p.forgotten {
		t.book.relateHold(id)
	}
}
