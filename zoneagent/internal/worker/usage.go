package worker

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// What a VM uses is metered by a chain of links, each written in the transaction of the transition that it tells of. The newest link is
// in the VM as it is observed, so that whoever owns its cluster next goes on with the number after it.

// meter gives a VM that is about to be written the next link of its chain, where what it uses has changed, and returns the journal's
// entry of it. A new life of the store has a link of its own for each VM: what was told after a backup that it was put back to is not
// known here. settled: no work on it goes on; before that, whether a VM that was found here is on is not known.
func (t *Term) meter(m *machine, vm *apiv1.VM, settled bool) []*linkv1.JournalEntry {
	was := m.is.GetUsage()
	if was == nil && !settled {
		return nil
	}
	next := t.link(m, vm)
	if next == nil || was.GetState() == next.GetState() && proto.Equal(was.GetSize(), next.GetSize()) && was.GetIncarnationId() == next.GetIncarnationId() {
		return nil
	}
	at, clock := t.w.cfg.Clock()
	next.Number, next.At, next.ClockId = was.GetNumber()+1, &timestamppb.Timestamp{Seconds: at.Unix()}, clock
	vm.Usage = next
	return []*linkv1.JournalEntry{{Time: stamp(time.Now()), Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{
		VmId: m.id, State: next.GetState(), Size: next.GetSize(), Number: next.GetNumber(), At: next.GetAt(), ClockId: clock, Was: was,
	}}}}
}

// link is what a VM uses, without number and time; nil where it was never whole.
func (t *Term) link(m *machine, vm *apiv1.VM) *apiv1.VM_Usage {
	was := m.is.GetUsage()
	next := &apiv1.VM_Usage{State: uses(vm, t.hosts[vm.GetHostId()].lost()), Size: vm.GetActual(), IncarnationId: t.zone.incarnation}
	if next.GetSize() == nil {
		next.Size = was.GetSize() // whether that has changed nobody has told
	}
	if next.GetSize() == nil {
		next.Size = m.wanted.GetSize()
	}
	begins := next.GetState() == apiv1.VM_RUNNING || next.GetState() == apiv1.VM_STOPPED || next.GetState() == apiv1.VM_TRASHED
	if next.GetState() == apiv1.VM_STATE_UNSPECIFIED || next.GetSize() == nil || was == nil && !begins {
		return nil
	}
	return next
}

// uses is the state in which a VM is metered: ERROR where it is broken, or on a host that was declared lost.
func uses(vm *apiv1.VM, lost bool) apiv1.VM_State {
	switch s := vm.GetState(); s {
	case apiv1.VM_DELETED:
		return s
	case apiv1.VM_RUNNING, apiv1.VM_STOPPED, apiv1.VM_TRASHED:
		if !lost {
			return s
		}
		return apiv1.VM_ERROR
	case apiv1.VM_SUSPENDED:
		if !lost {
			return apiv1.VM_STOPPED
		}
		return apiv1.VM_ERROR
	case apiv1.VM_ERROR:
		if !lost && vm.GetPower() == apiv1.VM_ON && vm.GetUsage() != nil {
			return apiv1.VM_RUNNING
		}
		return apiv1.VM_ERROR
	}
	return apiv1.VM_STATE_UNSPECIFIED
}

// meters writes a link of a VM of which nothing else is to be written, where one is due: its host was declared lost or found, or the
// store began another life. It reports whether it does.
func (t *Term) meters(m *machine) bool {
	lost := t.hosts[m.is.GetHostId()].lost()
	if t.zone.syncing || !lost && (!m.sighted || m.work != nil) {
		return false
	}
	r := &record{noun: proto.CloneOf(m.is)}
	if r.entries = t.meter(m, r.noun, m.work == nil); r.entries == nil {
		return false
	}
	r.metered = true
	t.write(m, r)
	return true
}

// ending is the last link of a VM that departs.
func (t *Term) ending(m *machine) []*linkv1.JournalEntry {
	gone := proto.CloneOf(m.is)
	gone.State = apiv1.VM_DELETED
	return t.meter(m, gone, true)
}
