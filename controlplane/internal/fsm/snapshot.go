package fsm

import (
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// createSnapshot has a snapshot of a VM taken.
func (c *command) createSnapshot(in *commandv1.CreateSnapshot) (*commandv1.Result, error) {
	s := in.GetSnapshot()
	vm, err := c.mayErrand(s.GetVmId(), "")
	if err != nil {
		return nil, err
	}
	if err := mayCreate(c.tx.Snapshots, "snapshot", s, state.Scope{"vm_id": vm.GetId()}); err != nil {
		return nil, err
	}
	if err := quota.AnotherSnapshot(c.tx, vm); err != nil {
		return nil, err
	}
	op, err := c.openOn(vm, in.GetOperationId(), "vm.snapshot", in.GetDeadline())
	if err != nil {
		return nil, err
	}
	s.Vm, s.Project, s.ProjectId, s.Zone, s.ZoneId = vm.GetName(), vm.GetProject(), vm.GetProjectId(), vm.GetZone(), vm.GetZoneId()
	s.State, s.Error, s.TakenAt, s.DiskGib = apiv1.Snapshot_PENDING, nil, nil, 0
	s.Operation, s.CreatedAt = op.GetId(), c.now
	if err := c.tx.Snapshots.Put(s); err != nil {
		return nil, err
	}
	if _, err := c.wishErrand(vm, op, &apiv1.VM_Errand{
		Kind: apiv1.VM_Errand_SNAPSHOT, SnapshotId: s.GetId(), Snapshot: s.GetName(), MayStop: in.GetMayStop(),
	}); err != nil {
		return nil, err
	}
	return made(s, op)
}

// deleteSnapshot has a snapshot removed from its VM's disk. One that was never taken is forgotten at once.
func (c *command) deleteSnapshot(in *commandv1.DeleteSnapshot) (*commandv1.Result, error) {
	s, err := stored(c.tx.Snapshots, "snapshot", in.GetSnapshotId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if s.GetState() == apiv1.Snapshot_DELETING {
		if op, err := c.tx.Operations.Get(s.GetOperation()); err == nil && !op.GetDone() {
			return made(s, op)
		} else if err != nil && !missing(err) {
			return nil, err
		}
	}
	if s.GetState() == apiv1.Snapshot_ERROR {
		return remove(c, c.tx.Snapshots, "snapshot", s)
	}
	vm, err := c.mayErrand(s.GetVmId(), "")
	if err != nil {
		return nil, err
	}
	op, err := c.openOn(vm, in.GetOperationId(), "vm.drop-snapshot", in.GetDeadline())
	if err != nil {
		return nil, err
	}
	s.State, s.Operation = apiv1.Snapshot_DELETING, op.GetId()
	if err := c.tx.Snapshots.Put(s); err != nil {
		return nil, err
	}
	if _, err := c.wishErrand(vm, op, &apiv1.VM_Errand{Kind: apiv1.VM_Errand_DROP, SnapshotId: s.GetId(), Snapshot: s.GetName()}); err != nil {
		return nil, err
	}
	return made(s, op)
}

// restoreSnapshot has a VM's disk put back to what it was.
func (c *command) restoreSnapshot(in *commandv1.RestoreSnapshot) (*commandv1.Result, error) {
	s, err := stored(c.tx.Snapshots, "snapshot", in.GetSnapshotId(), "")
	if err != nil {
		return nil, err
	}
	if s.GetState() != apiv1.Snapshot_READY {
		return nil, problem.Newf(problem.WrongState, "Restore one that is ready: naru snapshot list --vm "+s.GetVm()+".",
			"snapshot %s of VM %s is not ready", s.GetName(), s.GetVm())
	}
	vm, err := c.mayErrand(s.GetVmId(), "")
	if err != nil {
		return nil, err
	}
	op, err := c.openOn(vm, in.GetOperationId(), "vm.restore", in.GetDeadline())
	if err != nil {
		return nil, err
	}
	return c.wishErrand(vm, op, &apiv1.VM_Errand{
		Kind: apiv1.VM_Errand_RESTORE, SnapshotId: s.GetId(), Snapshot: s.GetName(), MayStop: in.GetMayStop(),
	})
}

// snapshotEnded settles the snapshot that an operation was to take or to delete. Whether there is one in the end its zone says.
func (c *command) snapshotEnded(op *apiv1.Operation) error {
	s, err := c.tx.SnapshotOfOperation(op.GetId())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	failed := op.GetError()
	switch {
	case s.GetState() == apiv1.Snapshot_PENDING && failed != nil:
		s.State, s.Error = apiv1.Snapshot_ERROR, failed
	case s.GetState() == apiv1.Snapshot_PENDING:
		s.State, s.TakenAt = apiv1.Snapshot_READY, c.now
	case s.GetState() == apiv1.Snapshot_DELETING && failed != nil:
		s.State = apiv1.Snapshot_READY
	case s.GetState() == apiv1.Snapshot_DELETING:
		return c.tx.Snapshots.Delete(s.GetId())
	default:
		return nil
	}
	return c.tx.Snapshots.Put(s)
}

// takeSnapshots takes over which snapshots a zone has of a VM. All of them are in its report, so one that is not there is gone;
// but one that is being taken is not there yet.
func (o *observation) takeSnapshots(vm *apiv1.VM) error {
	if vm.GetSnapshots() == nil || !request.Whole(vm) {
		return nil
	}
	known, err := o.tx.SnapshotsOf(vm.GetId())
	if err != nil {
		return err
	}
	has := map[string]*apiv1.VM_Snapshots_Item{}
	for _, item := range vm.GetSnapshots().GetItems() {
		has[item.GetId()] = item
	}
	for _, s := range known {
		item := has[s.GetId()]
		delete(has, s.GetId())
		was := proto.CloneOf(s)
		switch gone := item == nil; {
		case gone && (s.GetState() == apiv1.Snapshot_PENDING || s.GetState() == apiv1.Snapshot_ERROR):
			continue
		case gone:
			if err := o.tx.Snapshots.Delete(s.GetId()); err != nil {
				return err
			}
			continue
		case s.GetState() == apiv1.Snapshot_PENDING, s.GetState() == apiv1.Snapshot_ERROR:
			s.State, s.Error = apiv1.Snapshot_READY, nil
		}
		s.TakenAt, s.DiskGib = item.GetTakenAt(), item.GetDiskGib()
		if proto.Equal(was, s) {
			continue
		}
		if err := o.tx.Snapshots.Put(s); err != nil {
			return err
		}
	}
	for _, item := range vm.GetSnapshots().GetItems() { // in their order
		if has[item.GetId()] == nil {
			continue
		}
		if err := o.meetSnapshot(vm, item); err != nil {
			return err
		}
	}
	return nil
}

// meetSnapshot takes over a snapshot that the plane does not know: a restored backup has forgotten it.
func (o *observation) meetSnapshot(vm *apiv1.VM, item *apiv1.VM_Snapshots_Item) error {
	if other, err := o.tx.Snapshots.Get(item.GetId()); err == nil {
		o.refuse("snapshot " + other.GetId())
		return nil
	} else if !missing(err) {
		return err
	}
	s := &apiv1.Snapshot{
		Id: item.GetId(), Name: item.GetName(), Vm: vm.GetName(), VmId: vm.GetId(), Project: vm.GetProject(), ProjectId: vm.GetProjectId(),
		Zone: vm.GetZone(), ZoneId: vm.GetZoneId(), State: apiv1.Snapshot_READY, TakenAt: item.GetTakenAt(), DiskGib: item.GetDiskGib(), CreatedAt: o.now,
	}
	if s.GetName() == "" {
		s.Name = s.GetId()
	}
	if err := nameFree(o.tx.Snapshots, "snapshot", s.GetName(), state.Scope{"vm_id": vm.GetId()}); problem.Is(err, problem.NameTaken) {
		s.Name = s.GetId()
	} else if err != nil {
		return err
	}
	return o.tx.Snapshots.Put(s)
}

// forgetSnapshots forgets those of a VM that is gone: they were in its disk.
func (c *command) forgetSnapshots(vmID string) error {
	all, err := c.tx.SnapshotsOf(vmID)
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := c.tx.Snapshots.Delete(s.GetId()); err != nil {
			return err
		}
	}
	return nil
}
