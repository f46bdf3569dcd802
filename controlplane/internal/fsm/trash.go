package fsm

import (
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// keepTrash is how many seconds a VM stays in the trash of which nobody said how long.
const keepTrash = 7 * 24 * 3600

// toTrash judges a wish that puts a VM into the trash or takes it out, and notes until when it stays there. What is in the trash is
// off, and keeps its disk, its address and its room; it is taken out, or deleted for good.
func (c *command) toTrash(m *apiv1.VM, in *commandv1.SetVMDesired) error {
	trashed := m.GetDesiredState() == apiv1.VM_TRASHED
	switch {
	case in.GetUntrash() && !trashed:
		return problem.Newf(problem.WrongState, "", "VM %s is not in the trash", m.GetName())
	case in.GetUntrash() && in.GetDesired() != apiv1.VM_STOPPED:
		return invalid("a VM that comes out of the trash is wanted STOPPED")
	case trashed && !in.GetUntrash() && in.GetDesired() != apiv1.VM_DELETED && in.GetDesired() != apiv1.VM_TRASHED:
		return inTrash(m)
	case in.GetDesired() != apiv1.VM_TRASHED:
		m.TrashedAt, m.DeleteAt = nil, nil
		return nil
	case in.GetDeleteAt() == nil || !later(in.GetDeleteAt(), c.clock):
		return invalid("a VM is put into the trash until a time that is to come")
	case !trashed && m.GetState() != apiv1.VM_RUNNING && m.GetState() != apiv1.VM_STOPPED:
		return problem.Newf(problem.WrongState, "Delete it: naru vm delete "+m.GetName()+".", "VM %s is neither running nor stopped, and has nothing to be kept", m.GetName())
	}
	if !trashed {
		m.TrashedAt = c.now
	}
	m.DeleteAt = in.GetDeleteAt()
	return nil
}

func inTrash(m *apiv1.VM) *problem.Error {
	return problem.Newf(problem.WrongState, "Take it out first: naru vm untrash "+m.GetName()+".", "VM %s is in the trash", m.GetName())
}

// trashFollowed notes since when a VM is in the trash that a restored backup did not know to be there.
func (c *command) trashFollowed(m *apiv1.VM) {
	if m.GetDesiredState() == apiv1.VM_TRASHED && m.GetDeleteAt() == nil {
		m.TrashedAt, m.DeleteAt = c.now, after(c.clock, keepTrash)
	}
}

// emptyTrash deletes for good those of the named VMs that are in the trash and whose time there is over.
func (c *command) emptyTrash(in *commandv1.EmptyTrash) (*commandv1.Result, error) {
	if len(in.GetVmIds()) > forgetAtOnce {
		return nil, invalid("so many VMs are not deleted at once")
	}
	for _, id := range in.GetVmIds() {
		m, err := c.tx.VMs.Get(id)
		if missing(err) || err == nil && (m.GetDesiredState() != apiv1.VM_TRASHED || later(m.GetDeleteAt(), c.clock)) {
			continue // it was taken out, or is to stay longer
		}
		if err != nil {
			return nil, err
		}
		if _, err := c.setVMDesired(&commandv1.SetVMDesired{
			VmId: id, Desired: apiv1.VM_DELETED, OperationId: c.nextID(), Kind: "vm.delete", Deadline: in.GetDeadline(),
		}); err != nil {
			return nil, err
		}
	}
	return &commandv1.Result{}, nil
}
