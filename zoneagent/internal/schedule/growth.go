package schedule

import (
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// A reservation can be for a VM that is there and is to grow: then it is one unit on the VM's own host, as large as what the VM gets in
// addition. The wish to resize it names the reservation, whose room becomes the VM's in the transaction that allocates the new size.

// takeGrowth keeps what a VM is to grow by on the host that it is on, or refuses that. A VM that names the reservation and has its room
// already took it in a term whose word the store has forgotten since.
func (t *Term) takeGrowth(p *plan, wanted *apiv1.Reservation) {
	id := wanted.GetVmId()
	vm, is := t.book.desired[id], t.book.observed[id].value
	if vm == nil || is.GetHostId() == "" {
		refused := p.answer(wanted, nil, apiv1.Reservation_REFUSED)
		refused.Error = problem.Newf(problem.WrongState, "Wait until it is placed.", "VM %s is on no host", wanted.GetVm()).Problem
		return
	}
	unit := &apiv1.Reservation_Unit{Host: is.GetHost(), HostId: is.GetHostId()}
	if _, grows := t.book.toAllocate(id); vm.GetErrand().GetReservation() == wanted.GetId() && !grows {
		unit.VmId = id
		p.answer(wanted, nil, apiv1.Reservation_CONSUMED).Units = []*apiv1.Reservation_Unit{unit}
		return
	}
	grown := proto.CloneOf(vm)
	grown.Size = sum(taken(vm, is).GetSize(), wanted.GetSize())
	if lacks := t.book.picture.Lacks(id, grown.GetSize()); lacks != "" {
		p.answer(wanted, nil, apiv1.Reservation_REFUSED).Error = t.noRoom(grown, is, lacks)
		return
	}
	t.book.picture.Keep(room(wanted, 0), is.GetHostId())
	t.book.rooms[wanted.GetId()] = 1
	p.hosts[is.GetHostId()] = true
	hold := p.answer(wanted, nil, apiv1.Reservation_HELD)
	hold.Units, hold.Left = []*apiv1.Reservation_Unit{unit}, 1
}

// growthFor is what a VM that is to be resized may take its room from: the reservation that the wish names, where it is held for it.
func (t *Term) growthFor(p *plan, vm *apiv1.VM) *apiv1.Reservation {
	id := vm.GetErrand().GetReservation()
	if id == "" {
		return nil
	}
	h := p.holds[id]
	if h == nil {
		h = t.book.holds[id].value
	}
	if h.GetState() != apiv1.Reservation_HELD || h.GetVmId() != vm.GetId() || len(h.GetUnits()) != 1 {
		return nil
	}
	return h
}

// mustWaitToGrow tells of a VM whose reservation is not answered yet, or does not go into this transaction.
func (t *Term) mustWaitToGrow(p *plan, vm *apiv1.VM) bool {
	id := vm.GetErrand().GetReservation()
	return p.holds[id] == nil && (t.book.asks[id] || len(p.holds) >= min(maxHolds, t.size) && t.growthFor(p, vm) != nil)
}

// grow has a VM take another amount of its host, in the room that is kept for it where there is one; what it lacks is returned, and
// then nothing is changed.
func (t *Term) grow(p *plan, vm *apiv1.VM, hostID string) (lacks string) {
	h := t.growthFor(p, vm)
	if h != nil {
		t.book.picture.Release(roomID(h.GetId(), 0))
	}
	if lacks = t.book.picture.Lacks(vm.GetId(), vm.GetSize()); lacks != "" {
		if h != nil {
			t.book.picture.Keep(room(h, 0), h.GetUnits()[0].GetHostId())
		}
		return lacks
	}
	t.book.picture.Assign(vm, hostID)
	if h != nil {
		t.consume(p, h, 0, vm, hostID)
	}
	return ""
}

func sum(a, b *apiv1.Resources) *apiv1.Resources {
	return &apiv1.Resources{Cores: a.GetCores() + b.GetCores(), MemoryMib: a.GetMemoryMib() + b.GetMemoryMib(), DiskGib: a.GetDiskGib() + b.GetDiskGib()}
}
