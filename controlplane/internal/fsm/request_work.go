package fsm

import (
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// carryOutRequest has wanted, in this one transaction, all that is not done yet of an approved request. From then on the request is
// EXECUTING: whoever proposes the same again, after a crash or as the next leader, is refused.
func (c *command) carryOutRequest(in *commandv1.CarryOutRequest) (*commandv1.Result, error) {
	if in.GetExpectedRevision() == "" {
		return nil, invalid("a request is carried out at a revision")
	}
	m, err := stored(c.tx.Requests, "request", in.GetRequestId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	for _, p := range []*commandv1.Person{{Id: m.GetRequesterId(), Name: m.GetRequester()}, {Id: m.GetOnBehalfOfId(), Name: m.GetOnBehalfOf()}} {
		if p.GetId() == "" {
			continue
		}
		if _, err := c.actingUser(p); err != nil {
			return nil, err
		}
	}
	if err := request.Begin(m, c.clock); err != nil {
		return nil, err
	}
	todo := 0
	for _, p := range m.GetParts() {
		if !p.GetDone() {
			todo++
		}
	}
	if todo == 0 || len(in.GetParts()) != todo {
		return nil, invalid("of request " + m.GetName() + " " + strconv.Itoa(todo) + " parts are to be done, not " + strconv.Itoa(len(in.GetParts())))
	}
	last := -1
	var ended []*apiv1.Operation
	for _, at := range in.GetParts() {
		i := int(at.GetIndex())
		if i <= last || i >= len(m.GetParts()) || m.GetParts()[i].GetDone() {
			return nil, invalid("part " + strconv.Itoa(i) + " of request " + m.GetName() + " is not to be done")
		}
		last = i
		op, err := c.begin(m, m.GetParts()[i], at, in)
		if err != nil {
			return nil, err
		}
		if len(m.GetOperations()) < 1024 {
			m.Operations = append(m.GetOperations(), op.GetId())
		}
		p := m.GetParts()[i]
		if p.Operation, p.Error = op.GetId(), nil; op.GetTarget().GetKind() == "vm" {
			p.VmId = op.GetTarget().GetId()
		}
		addResult(m, op.GetTarget())
		if op.GetDone() {
			ended = append(ended, op)
			continue
		}
		if err := c.tx.PutRequestWork(op.GetId(), m.GetId()); err != nil {
			return nil, err
		}
	}
	if ask := m.GetSpecification().GetSnapshot(); ask != nil {
		addResult(m, &apiv1.Reference{Kind: "snapshot", Id: ask.GetSnapshotId(), Name: ask.GetName()})
	}
	for _, op := range ended {
		request.Ended(m, op.GetId(), op.GetError(), c.now)
	}
	return c.putRequest(m)
}

func addResult(m *apiv1.Request, target *apiv1.Reference) {
	for _, r := range m.GetResults() {
		if r.GetId() == target.GetId() {
			return
		}
	}
	if len(m.GetResults()) < 256 {
		m.Results = append(m.GetResults(), target)
	}
}

// begin sets to work at one part.
func (c *command) begin(m *apiv1.Request, p *apiv1.Part, at *commandv1.CarryOutRequest_Part, in *commandv1.CarryOutRequest) (*apiv1.Operation, error) {
	switch what := m.GetSpecification().GetWhat().(type) {
	case *apiv1.RequestSpecification_Power:
		return c.beginPower(what.Power, at, in.GetDeadline())
	case *apiv1.RequestSpecification_Extend:
		return c.beginExtend(m, what.Extend, at, in.GetDeadline())
	case *apiv1.RequestSpecification_AccessForTime:
		return c.beginAccess(m, what.AccessForTime)
	case *apiv1.RequestSpecification_CrossZone:
		return c.beginCrossing(m, what.CrossZone)
	case *apiv1.RequestSpecification_Resize:
		held := p.GetReservation()
		p.Reservation = "" // the VM has it now
		return begun(c.resizeVM(&commandv1.ResizeVM{VmId: p.GetVmId(), Flavor: what.Resize.GetFlavor(), Size: what.Resize.GetSize(), MayStop: what.Resize.GetMayStop(),
			OperationId: at.GetOperationId(), Deadline: in.GetDeadline(), Reservation: held}))
	case *apiv1.RequestSpecification_Snapshot:
		return c.beginSnapshot(m, what.Snapshot, at, in.GetDeadline())
	case *apiv1.RequestSpecification_Restore:
		return c.beginRestore(what.Restore, at, in.GetDeadline())
	case *apiv1.RequestSpecification_Reclaim:
		return begun(c.setVMDesired(&commandv1.SetVMDesired{VmId: p.GetVmId(), Desired: apiv1.VM_TRASHED, OperationId: at.GetOperationId(), Kind: "vm.trash", Deadline: in.GetDeadline(),
			DeleteAt: after(c.clock, int64(what.Reclaim.GetKeepDays())*day)}))
	}
	if m.GetSpecification().GetCreate() == nil || in.GetVm() == nil {
		return nil, invalid("nothing is known of how to carry out request " + m.GetName())
	}
	vm, err := c.tx.VMs.Get(p.GetVmId())
	if err != nil && !missing(err) {
		return nil, err
	}
	if err == nil {
		return c.beginAgain(vm, at, in.GetDeadline())
	}
	vm = proto.CloneOf(in.GetVm())
	if vm.GetProjectId() != m.GetProjectId() || vm.GetZoneId() != m.GetZoneId() {
		return nil, invalid("request " + m.GetName() + " is for another project or zone")
	}
	vm.Id, vm.Name, vm.Cluster, vm.ClusterId, vm.Reservation = at.GetVmId(), p.GetName(), at.GetCluster(), at.GetClusterId(), p.GetReservation()
	p.Reservation = "" // the VM has it now
	ask := m.GetSpecification().GetCreate()
	vm.Offering, vm.OfferingId, vm.OfferingVersion, vm.Request = ask.GetOffering(), ask.GetOfferingId(), ask.GetOfferingVersion(), m.GetName()
	op, err := c.addVM(vm, at.GetOperationId(), in.GetDeadline())
	if err != nil {
		return nil, err
	}
	return op, c.grantLease(m, vm)
}

// beginAgain sets the zone to work anew at a VM that was made for a part and did not become usable.
func (c *command) beginAgain(vm *apiv1.VM, at *commandv1.CarryOutRequest_Part, deadline *timestamppb.Timestamp) (*apiv1.Operation, error) {
	if vm.GetDesiredState() != apiv1.VM_RUNNING {
		return nil, problem.Newf(problem.WrongState, "Start it, or wait until it is deleted.", "VM %s is wanted %s meanwhile", vm.GetName(), lowerState(vm.GetDesiredState()))
	}
	op, err := c.openOn(vm, at.GetOperationId(), "vm.create", deadline)
	if err != nil {
		return nil, err
	}
	vm.Generation, vm.Operation = c.generation(), op.GetId()
	op.Generation = vm.GetGeneration()
	if err := c.tx.VMs.Put(vm); err != nil {
		return nil, err
	}
	if err := c.tx.Operations.Put(op); err != nil {
		return nil, err
	}
	return op, c.tx.Desire(vm.GetZoneId(), reference("vm", vm))
}

func lowerState(s apiv1.VM_State) string {
	switch s {
	case apiv1.VM_STOPPED:
		return "stopped"
	case apiv1.VM_DELETED:
		return "deleted"
	}
	return "in another state"
}

// begun is the operation of what was wished.
func begun(r *commandv1.Result, err error) (*apiv1.Operation, error) { return r.GetOperation(), err }

// beginSnapshot has a snapshot taken under the id that the request has for it, so that there is one however often it is tried.
func (c *command) beginSnapshot(m *apiv1.Request, ask *apiv1.SnapshotVM, at *commandv1.CarryOutRequest_Part, deadline *timestamppb.Timestamp) (*apiv1.Operation, error) {
	was, err := c.tx.Snapshots.Get(ask.GetSnapshotId())
	switch {
	case err == nil && was.GetState() == apiv1.Snapshot_READY: // its zone had it after all
		return c.done("vm.snapshot", reference("snapshot", was), where(was))
	case err == nil && was.GetState() == apiv1.Snapshot_ERROR:
		err = c.tx.Snapshots.Delete(was.GetId())
	}
	if err != nil && !missing(err) {
		return nil, err
	}
	return begun(c.createSnapshot(&commandv1.CreateSnapshot{MayStop: ask.GetMayStop(), OperationId: at.GetOperationId(), Deadline: deadline,
		Snapshot: &apiv1.Snapshot{Id: ask.GetSnapshotId(), Name: ask.GetName(), VmId: ask.GetVmId(), Description: ask.GetDescription()}}))
}

// beginRestore has a VM's disk put back, or takes the VM out of the trash.
func (c *command) beginRestore(ask *apiv1.RestoreVM, at *commandv1.CarryOutRequest_Part, deadline *timestamppb.Timestamp) (*apiv1.Operation, error) {
	if ask.GetSnapshotId() == "" {
		return begun(c.setVMDesired(&commandv1.SetVMDesired{VmId: ask.GetVmId(), Desired: apiv1.VM_STOPPED, Untrash: true, OperationId: at.GetOperationId(), Kind: "vm.untrash", Deadline: deadline}))
	}
	return begun(c.restoreSnapshot(&commandv1.RestoreSnapshot{SnapshotId: ask.GetSnapshotId(), MayStop: ask.GetMayStop(), OperationId: at.GetOperationId(), Deadline: deadline}))
}

// beginPower changes what is wanted of a VM, or orders a restart.
func (c *command) beginPower(p *apiv1.PowerVM, at *commandv1.CarryOutRequest_Part, deadline *timestamppb.Timestamp) (*apiv1.Operation, error) {
	var r *commandv1.Result
	var err error
	switch p.GetVerb() {
	case apiv1.PowerVM_START:
		r, err = c.setVMDesired(&commandv1.SetVMDesired{VmId: p.GetVmId(), Desired: apiv1.VM_RUNNING, OperationId: at.GetOperationId(), Kind: "vm.start", Deadline: deadline})
	case apiv1.PowerVM_STOP:
		r, err = c.setVMDesired(&commandv1.SetVMDesired{VmId: p.GetVmId(), Desired: apiv1.VM_STOPPED, Force: p.GetForce(), OperationId: at.GetOperationId(), Kind: "vm.stop", Deadline: deadline})
	case apiv1.PowerVM_REBOOT:
		r, err = c.orderVM(&commandv1.OrderVM{VmId: p.GetVmId(), OperationId: at.GetOperationId(), Kind: "vm.reboot", Deadline: deadline,
			Order: &linkv1.Order{Verb: linkv1.Order_REBOOT, Force: p.GetForce()}})
	default:
		err = invalid("a VM is started, stopped or rebooted")
	}
	return r.GetOperation(), err
}

// endPart tells a request that an operation which works for it has ended.
func (c *command) endPart(op *apiv1.Operation) error {
	id, err := c.tx.RequestWork(op.GetId())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.tx.ForgetRequestWork(op.GetId()); err != nil {
		return err
	}
	m, err := c.tx.Requests.Get(id)
	if missing(err) { // the record of an override that is one too many
		return nil
	}
	if err != nil {
		return err
	}
	if !request.Ended(m, op.GetId(), op.GetError(), c.now) {
		return nil
	}
	if request.Recorded(m) {
		return c.tx.Requests.Put(m) // nobody waits for it to be told: who did it has the operation
	}
	if m.GetFulfilment() == apiv1.Request_FAILED {
		if err := c.tellOfRequest(apiv1.Event_WARNING, "request.failed", m, m.GetFulfilmentReason()); err != nil {
			return err
		}
	}
	_, err = c.putRequest(m)
	return err
}
