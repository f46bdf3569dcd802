package fsm

import (
	"strconv"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/grade"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// change is an operation that a command has opened on a VM.
type change struct {
	vm *apiv1.VM
	op *apiv1.Operation
}

// recordChanges writes the records of what the command does to VMs without a request: requests that are standard changes, approved by what
// allowed them. A record asks nobody, holds nothing, and ends with its operation, by the same tie as what a request has carried out.
func (c *command) recordChanges(in *commandv1.Command) error {
	for _, done := range c.changes {
		intake, why, err := c.allowed(in, done)
		if err != nil {
			return err
		}
		if intake == apiv1.Intake_VALUE_UNSPECIFIED {
			continue
		}
		if err := c.recordChange(in, done, intake, why); err != nil {
			return err
		}
	}
	return nil
}

// allowed says which way a change came, and what allowed it; nothing of what a request has carried out. A command by which VMs come to be
// changed by themselves says here by whose policy they are.
func (c *command) allowed(in *commandv1.Command, done change) (intake apiv1.Intake_Value, why string, err error) {
	switch in.GetBody().(type) {
	case *commandv1.Command_CarryOutRequest:
		return apiv1.Intake_VALUE_UNSPECIFIED, "", nil
	case *commandv1.Command_PassLease, *commandv1.Command_EmptyTrash:
		why, err = c.whyEnded(done.vm)
		return apiv1.Intake_LEASE, why, err
	case *commandv1.Command_AppendJournal:
		for _, s := range done.op.GetSteps() {
			if s.GetName() == "overridden" {
				why = "overridden " + s.GetMessage()
			}
		}
		return apiv1.Intake_ZONE, why, nil
	}
	return apiv1.Intake_DIRECT, permissionOf(done.op) + " is permitted to " + actorText(c.actor), nil
}

// whyEnded says of a VM that the clock stops, trashes or deletes what is over.
func (c *command) whyEnded(vm *apiv1.VM) (string, error) {
	m, err := c.tx.LeaseOf(vm.GetId())
	if err != nil && !missing(err) {
		return "", err
	}
	if m.GetState() != apiv1.Lease_EXPIRED && m.GetState() != apiv1.Lease_TRASHED {
		return "its time in the trash is over", nil
	}
	why := "its lease"
	if m.GetRequest() != "" {
		why += " of request " + m.GetRequest()
	}
	return why + " ended on " + dayOf(m.GetExpiresAt()), nil
}

// permissionOf is what whoever has an operation opened is permitted.
func permissionOf(op *apiv1.Operation) string {
	switch op.GetKind() {
	case "vm.snapshot":
		return "snapshot.create"
	case "vm.drop-snapshot":
		return "snapshot.delete"
	case "vm.restore":
		return "snapshot.restore"
	}
	return op.GetKind()
}

// recordChange writes the record of one change. Its operation may have ended at once.
func (c *command) recordChange(in *commandv1.Command, done change, intake apiv1.Intake_Value, why string) error {
	vm := done.vm
	op, err := c.tx.Operations.Get(done.op.GetId())
	switch {
	case missing(err): // a later override of the same batch took its place
		if op = done.op; !op.GetDone() {
			op.Done, op.Error = true, overtaken()
		}
	case err != nil:
		return err
	case intake == apiv1.Intake_ZONE && op.GetDone() && op.GetError() != nil:
		return nil // it is not held to: nothing is changed by it
	}
	project, err := c.tx.Projects.Get(vm.GetProjectId())
	if err != nil && !missing(err) { // one that was found in its zone and is held may have none
		return err
	}
	zone, err := c.tx.Zones.Get(vm.GetZoneId())
	if err != nil {
		return orNotFound(err, "zone", vm.GetZone())
	}
	n, err := c.tx.NextRequestNumber()
	if err != nil {
		return err
	}
	kind, specification := deed(in, vm, op)
	m := &apiv1.Request{
		Id: c.nextID(), Name: "r-" + strconv.FormatInt(n, 10), Kind: kind, Title: op.GetKind(), Intake: intake, ChangeType: apiv1.ChangeType_STANDARD,
		Organization: project.GetOrganization(), OrganizationId: project.GetOrganizationId(), Project: vm.GetProject(), ProjectId: vm.GetProjectId(),
		Zone: vm.GetZone(), ZoneId: vm.GetZoneId(), Grade: grade.Highest(project.GetGrade(), zone.GetGrade(), vm.GetGrade()), Specification: specification,
		Approval: apiv1.Request_APPROVED, ApprovalReason: cut(why), Fulfilment: apiv1.Request_EXECUTING, CreatedAt: c.now, DecidedAt: c.now,
		Parts: []*apiv1.Part{{Name: vm.GetName(), VmId: vm.GetId(), Operation: op.GetId()}}, Operations: []string{op.GetId()}, Results: []*apiv1.Reference{op.GetTarget()},
	}
	if s := specification.GetSnapshot(); s != nil {
		addResult(m, &apiv1.Reference{Kind: "snapshot", Id: s.GetSnapshotId(), Name: s.GetName()})
	}
	m.Requester, m.RequesterId = c.whoActs(op)
	if m.SourceZoneId = in.GetOrigin().GetZoneId(); m.GetSourceZoneId() != "" {
		source, err := c.tx.Zones.Get(m.GetSourceZoneId())
		if err != nil && !missing(err) {
			return err
		}
		m.SourceZone = source.GetName()
	}
	if op.GetDone() {
		request.Ended(m, op.GetId(), op.GetError(), c.now)
	} else if err := c.tx.PutRequestWork(op.GetId(), m.GetId()); err != nil {
		return err
	}
	if err := c.tx.Requests.Put(m); err != nil || intake != apiv1.Intake_ZONE {
		return err
	}
	return c.tx.Overridden(vm.GetZoneId(), m.GetId(), keepOverridden)
}

// whoActs is who has an operation opened: a user where it is one, else as the record calls whoever it is.
func (c *command) whoActs(op *apiv1.Operation) (name, id string) {
	switch {
	case c.session != nil:
		return c.session.GetUser(), c.session.GetUserId()
	case c.token.GetUserId() != "":
		return c.token.GetUser(), c.token.GetUserId()
	}
	return cutTo(actorText(op.GetCreatedBy()), 64), c.by
}

// deed is what an operation does to a VM, as a request would ask for it.
func deed(in *commandv1.Command, vm *apiv1.VM, op *apiv1.Operation) (apiv1.RequestKind_Value, *apiv1.RequestSpecification) {
	name, id, errand := vm.GetName(), vm.GetId(), vm.GetErrand()
	power := func(verb apiv1.PowerVM_Verb, force bool) (apiv1.RequestKind_Value, *apiv1.RequestSpecification) {
		return apiv1.RequestKind_POWER, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Vm: name, VmId: id, Verb: verb, Force: force}}}
	}
	switch op.GetKind() {
	case "vm.create":
		return apiv1.RequestKind_CREATE, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{
			Quantity: 1, Flavor: vm.GetFlavor(), Cluster: vm.GetCluster(), ClusterId: vm.GetClusterId()}}}
	case "vm.start":
		return power(apiv1.PowerVM_START, false)
	case "vm.stop":
		return power(apiv1.PowerVM_STOP, vm.GetForce())
	case "vm.reboot":
		return power(apiv1.PowerVM_REBOOT, in.GetOrderVm().GetOrder().GetForce())
	case "vm.resize":
		return apiv1.RequestKind_RESIZE, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Resize{Resize: &apiv1.ResizeVM{
			Vm: name, VmId: id, Flavor: vm.GetFlavor(), Size: vm.GetSize(), SizeBefore: vm.GetSizeBefore(), MayStop: errand.GetMayStop()}}}
	case "vm.snapshot":
		return apiv1.RequestKind_SNAPSHOT, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Snapshot{Snapshot: &apiv1.SnapshotVM{
			Vm: name, VmId: id, Name: errand.GetSnapshot(), SnapshotId: errand.GetSnapshotId(), MayStop: errand.GetMayStop()}}}
	case "vm.restore":
		return apiv1.RequestKind_RESTORE, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Restore{Restore: &apiv1.RestoreVM{
			Vm: name, VmId: id, Snapshot: errand.GetSnapshot(), SnapshotId: errand.GetSnapshotId(), MayStop: errand.GetMayStop()}}}
	case "vm.untrash":
		return apiv1.RequestKind_RESTORE, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Restore{Restore: &apiv1.RestoreVM{Vm: name, VmId: id}}}
	case "vm.trash":
		return apiv1.RequestKind_RECLAIM, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Reclaim{Reclaim: &apiv1.ReclaimVMs{
			Vms: []string{name}, VmIds: []string{id}, KeepDays: uint32((vm.GetDeleteAt().GetSeconds() - op.GetCreatedAt().GetSeconds() + day - 1) / day)}}}
	case "vm.delete":
		return apiv1.RequestKind_DELETE, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Delete{Delete: &apiv1.DeleteVM{Vm: name, VmId: id}}}
	case "vm.drop-snapshot":
		return apiv1.RequestKind_DELETE, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Delete{Delete: &apiv1.DeleteVM{
			Vm: name, VmId: id, Snapshot: errand.GetSnapshot(), SnapshotId: errand.GetSnapshotId()}}}
	}
	return apiv1.RequestKind_VALUE_UNSPECIFIED, nil
}
