package fsm

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// An errand is part of a wish: what its zone is to do to a VM once, beside bringing it to its state. The wish has the errand while
// its operation is open. Once that has ended the errand is taken off it, without a new generation: a zone that has carried it out
// hears of nothing new, and one that has forgotten it, because its store was put back, does not carry it out again.

// resizeVM wishes another size of a VM. Its zone says whether there is room, and the size that it has in the end is the VM's.
func (c *command) resizeVM(in *commandv1.ResizeVM) (*commandv1.Result, error) {
	m, err := c.mayErrand(in.GetVmId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	if _, err := c.tx.Flavors.ByName(in.GetFlavor(), nil); err != nil {
		return nil, orNotFound(err, "flavor", in.GetFlavor())
	}
	switch {
	case in.GetSize() == nil:
		return nil, invalid("a VM cannot be resized to no size")
	case in.GetSize().GetDiskGib() < m.GetSize().GetDiskGib():
		return nil, problem.Newf(problem.Invalid, "Choose a flavor whose disk is as large.",
			"the disk of VM %s has %d GiB and cannot become smaller", m.GetName(), m.GetSize().GetDiskGib())
	}
	if in.GetReservation() != "" {
		if err := c.giveGrowth(in.GetReservation(), m, in.GetSize()); err != nil {
			return nil, err
		}
	}
	op, err := c.openOn(m, in.GetOperationId(), "vm.resize", in.GetDeadline())
	if err != nil {
		return nil, err
	}
	m.SizeBefore, m.FlavorBefore = m.GetSize(), m.GetFlavor()
	m.Size, m.Flavor = in.GetSize(), in.GetFlavor()
	return c.wishErrand(m, op, &apiv1.VM_Errand{Kind: apiv1.VM_Errand_RESIZE, MayStop: in.GetMayStop(), Reservation: in.GetReservation()})
}

// mayErrand returns a VM to which something can be done: it is whole, is to stay, and nothing else is being done to it.
func (c *command) mayErrand(id, expected string) (*apiv1.VM, error) {
	m, err := stored(c.tx.VMs, "VM", id, expected)
	if err != nil {
		return nil, err
	}
	zone, err := c.tx.Zones.Get(m.GetZoneId())
	if err != nil {
		return nil, orNotFound(err, "zone", m.GetZone())
	}
	switch {
	case zone.GetState() == apiv1.Zone_RETIRED:
		return nil, retired(zone)
	case m.GetDesiredState() == apiv1.VM_DELETED:
		return nil, problem.Newf(problem.WrongState, "Create another VM.", "VM %s is being deleted", m.GetName())
	case m.GetDesiredState() == apiv1.VM_TRASHED:
		return nil, inTrash(m)
	case !request.Whole(m):
		return nil, request.NotWhole(m)
	case m.GetState() != apiv1.VM_RUNNING && m.GetState() != apiv1.VM_STOPPED:
		return nil, problem.Newf(problem.WrongState, "Wait until it is running or stopped.", "VM %s is %s", m.GetName(), strings.ToLower(m.GetState().String()))
	}
	return m, c.notBusy(m)
}

// notBusy refuses a VM on which an errand is under way: a newer wish would take its place in the middle.
func (c *command) notBusy(m *apiv1.VM) error {
	if m.GetErrand() == nil {
		return nil
	}
	op, err := c.tx.Operations.Get(m.GetOperation())
	if missing(err) || err == nil && op.GetDone() {
		return nil
	}
	if err != nil {
		return err
	}
	return problem.Newf(problem.WrongState, "Wait for it: naru operation wait "+op.GetId()+". An administrator may end it: naru operation resolve.",
		"a %s of VM %s is under way", strings.TrimPrefix(op.GetKind(), "vm."), m.GetName())
}

// wishErrand stores a VM with an errand, under a new generation, and its operation.
func (c *command) wishErrand(m *apiv1.VM, op *apiv1.Operation, e *apiv1.VM_Errand) (*commandv1.Result, error) {
	m.Errand, m.Force, m.Operation, m.Generation = e, false, op.GetId(), c.generation()
	op.Generation = m.GetGeneration()
	if err := c.tx.VMs.Put(m); err != nil {
		return nil, err
	}
	if err := c.tx.Operations.Put(op); err != nil {
		return nil, err
	}
	if err := c.tx.Desire(m.GetZoneId(), reference("vm", m)); err != nil {
		return nil, err
	}
	return made(m, op)
}

// settleSize makes what is said of a VM's size true once its zone has answered the wish to resize it.
func settleSize(m *apiv1.VM) {
	if m.GetSizeBefore() == nil || m.GetActual() == nil || newer(m.GetGeneration(), m.GetReached()) {
		return
	}
	if !proto.Equal(m.GetActual(), m.GetSize()) {
		if proto.Equal(m.GetActual(), m.GetSizeBefore()) {
			m.Flavor = m.GetFlavorBefore()
		}
		m.Size = m.GetActual()
	}
	m.SizeBefore, m.FlavorBefore = nil, ""
}

// freeGrowth has a VM's zone keep no more room for the resize that the VM is wished now: it has taken it, or does not.
func (c *command) freeGrowth(m *apiv1.VM) error {
	id := m.GetErrand().GetReservation()
	if id == "" {
		return nil
	}
	if _, err := c.tx.Reservations.Get(id); err != nil {
		if missing(err) {
			return nil
		}
		return err
	}
	_, err := c.setReservation(&commandv1.SetReservation{ReservationId: id, Desired: apiv1.Reservation_RELEASED})
	return err
}

// errandEnded takes an errand off its VM once its operation has ended, and settles what the operation was to make.
func (c *command) errandEnded(op *apiv1.Operation) error {
	if op.GetTarget().GetKind() != "vm" || op.GetGeneration() == nil {
		return nil
	}
	if err := c.snapshotEnded(op); err != nil {
		return err
	}
	m, err := c.tx.VMs.Get(op.GetTarget().GetId())
	if missing(err) || err == nil && (m.GetOperation() != op.GetId() || m.GetErrand() == nil) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.freeGrowth(m); err != nil {
		return err
	}
	m.Errand, m.Freshness = nil, 0
	if settleSize(m); m.GetSizeBefore() != nil && op.GetError() != nil { // what its zone says in the end counts, either way
		m.Size, m.SizeBefore = m.GetSizeBefore(), m.GetSize()
		m.Flavor, m.FlavorBefore = m.GetFlavorBefore(), m.GetFlavor()
	}
	return c.tx.VMs.Put(m)
}
