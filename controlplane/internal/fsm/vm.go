package fsm

import (
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// createVM stores the VM as it is wanted. It goes down to its zone by its generation.
func (c *command) createVM(in *commandv1.CreateVM) (*commandv1.Result, error) {
	m := in.GetVm()
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	op, err := c.addVM(m, in.GetOperationId(), in.GetDeadline())
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

// addVM stores a VM that is wanted from now on, with the operation that says how far that is.
func (c *command) addVM(m *apiv1.VM, operation string, deadline *timestamppb.Timestamp) (*apiv1.Operation, error) {
	if err := c.mayCreateVM(m); err != nil {
		return nil, err
	}
	op, err := c.openOn(m, operation, "vm.create", deadline)
	if err != nil {
		return nil, err
	}
	if err := c.askHeld(m); err != nil {
		return nil, err
	}
	if m.GetReservation() != "" {
		if err := c.giveReserved(m); err != nil {
			return nil, err
		}
	}
	schema.MergeObserved(m, &apiv1.VM{})
	m.DesiredState, m.State, m.Force = apiv1.VM_RUNNING, apiv1.VM_PENDING, false
	m.Errand, m.SizeBefore, m.FlavorBefore, m.TrashedAt, m.DeleteAt, m.ExpiresAt = nil, nil, "", nil, nil, nil
	m.Generation, m.Operation, m.CreatedAt = c.generation(), op.GetId(), c.now
	op.Generation = m.GetGeneration()
	if err := c.tx.VMs.Put(m); err != nil {
		return nil, err
	}
	if err := c.tx.Operations.Put(op); err != nil {
		return nil, err
	}
	return op, c.tx.Desire(m.GetZoneId(), reference("vm", m))
}

// askHeld has a zone report anew what is held of it, where it gets the first VM of a project: it may be of that one.
func (c *command) askHeld(m *apiv1.VM) error {
	has, err := c.tx.HasVM(m.GetZoneId(), m.GetProjectId())
	if err != nil || has {
		return err
	}
	held, err := c.tx.HeldVMs(m.GetZoneId())
	if err != nil || held == 0 {
		return err
	}
	zone, err := c.tx.Zones.Get(m.GetZoneId())
	if err != nil {
		return err
	}
	return c.askAll(zone)
}

func (c *command) mayCreateVM(m *apiv1.VM) error {
	if err := mayCreate(c.tx.VMs, "VM", m, state.Scope{"project_id": m.GetProjectId()}); err != nil {
		return err
	}
	if !schema.IsLabel(m.GetName()) { // no broker would pass it on, nor any answer that has it
		return invalid("a VM cannot be called " + strconv.Quote(m.GetName()))
	}
	if m.GetSize() == nil {
		return invalid("a VM without a size cannot be created")
	}
	if err := c.projectExists(m.GetProjectId(), m.GetProject()); err != nil {
		return err
	}
	zone, err := c.takesVMs(m.GetZoneId(), m.GetZone())
	if err != nil {
		return err
	}
	if m.GetClusterId() != "" {
		if err := c.clusterOf(m.GetClusterId(), m.GetCluster(), m.GetZoneId()); err != nil {
			return err
		}
	}
	if _, err := c.tx.Flavors.ByName(m.GetFlavor(), nil); err != nil {
		return orNotFound(err, "flavor", m.GetFlavor())
	}
	image, err := c.tx.Images.ByName(m.GetImage(), nil)
	if err != nil {
		return orNotFound(err, "image", m.GetImage())
	}
	project, err := c.tx.Projects.Get(m.GetProjectId())
	if err != nil {
		return orNotFound(err, "project", m.GetProject())
	}
	return grade.Stands(m, project, image, zone)
}

// updateVM changes what is said of a VM for people. It does not go down: it would have the zone begin the VM's work anew.
func (c *command) updateVM(in *commandv1.UpdateVM) (*commandv1.Result, error) {
	m, err := stored(c.tx.VMs, "VM", in.GetVm().GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	m.Description = in.GetVm().GetDescription()
	return put(c.tx.VMs, m)
}

// readsHold compares what the proposer read with what is stored now. It names the one that moved, so that the proposer
// decides again on a new snapshot.
func (c *command) readsHold(reads []*commandv1.Read) error {
	for _, r := range reads {
		revision, err := c.revisionOf(r.GetNoun().GetKind(), r.GetNoun().GetId())
		if err != nil && !missing(err) {
			return err
		}
		if missing(err) || revision != r.GetRevision() {
			if revision == "" {
				revision = "gone"
			}
			return problem.Newf(problem.Conflict, "Try again.", "%s %s was read at revision %s and is now at %s",
				r.GetNoun().GetKind(), r.GetNoun().GetName(), r.GetRevision(), revision).With("reads", r.GetNoun().GetKind()+" "+r.GetNoun().GetId())
		}
	}
	return nil
}

func (c *command) revisionOf(kind, id string) (string, error) {
	switch kind {
	case "zone":
		return revision(c.tx.Zones, id)
	case "cluster":
		return revision(c.tx.Clusters, id)
	case "host":
		return revision(c.tx.Hosts, id)
	case "flavor":
		return revision(c.tx.Flavors, id)
	case "image":
		return revision(c.tx.Images, id)
	case "project":
		return revision(c.tx.Projects, id)
	case "vm":
		return revision(c.tx.VMs, id)
	case "user":
		return revision(c.tx.Users, id)
	case "role-bindings-of-user":
		return c.revisionOfBindings(id)
	case "role":
		return revision(c.tx.Roles, id)
	case "calendar":
		return revision(c.tx.Calendars, id)
	case "approval-policy":
		return revision(c.tx.ApprovalPolicies, id)
	}
	return "", invalid("a read of a " + strconv.Quote(kind) + " cannot be compared")
}

func revision[M state.Noun](t state.Table[M], id string) (string, error) {
	m, err := t.Get(id)
	return m.GetRevision(), err
}

// setVMDesired writes what is wanted of a VM. Deleting keeps the VM until its zone says that it is gone; only a retired
// zone, which will say nothing any more, is not waited for.
func (c *command) setVMDesired(in *commandv1.SetVMDesired) (*commandv1.Result, error) {
	m, err := stored(c.tx.VMs, "VM", in.GetVmId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	zone, err := c.tx.Zones.Get(m.GetZoneId())
	if err != nil {
		return nil, orNotFound(err, "zone", m.GetZone())
	}
	switch deleting := m.GetDesiredState() == apiv1.VM_DELETED; {
	case in.GetDesired() != apiv1.VM_RUNNING && in.GetDesired() != apiv1.VM_STOPPED && in.GetDesired() != apiv1.VM_TRASHED && in.GetDesired() != apiv1.VM_DELETED:
		return nil, invalid("a VM can be wanted RUNNING, STOPPED, TRASHED or DELETED")
	case deleting && in.GetDesired() != apiv1.VM_DELETED:
		return nil, problem.Newf(problem.WrongState, "Create another VM.", "VM %s is being deleted", m.GetName())
	case deleting && (m.GetForce() || !in.GetForce()):
		// Asked twice: the deletion that is under way answers, if it is.
		if op, err := c.tx.Operations.Get(m.GetOperation()); err == nil && !op.GetDone() {
			return made(m, op)
		} else if err != nil && !missing(err) {
			return nil, err
		}
	case in.GetDesired() != apiv1.VM_DELETED && zone.GetState() == apiv1.Zone_RETIRED:
		return nil, retired(zone)
	case in.GetDesired() != apiv1.VM_DELETED && !request.Whole(m):
		return nil, request.NotWhole(m)
	}
	if in.GetDesired() != apiv1.VM_DELETED {
		if err := c.notBusy(m); err != nil {
			return nil, err
		}
	}
	if err := c.toTrash(m, in); err != nil {
		return nil, err
	}
	if err := c.leaseAllows(m, in); err != nil {
		return nil, err
	}
	if err := c.freeGrowth(m); err != nil {
		return nil, err
	}
	m.Errand = nil
	op, err := c.openOn(m, in.GetOperationId(), in.GetKind(), in.GetDeadline())
	if err != nil {
		return nil, err
	}
	m.DesiredState, m.Force, m.Operation, m.Generation = in.GetDesired(), in.GetForce(), op.GetId(), c.generation()
	op.Generation = m.GetGeneration()
	if in.GetDesired() == apiv1.VM_DELETED && zone.GetState() == apiv1.Zone_RETIRED {
		if err := c.tx.Operations.Put(op); err != nil {
			return nil, err
		}
		if err := c.removeVM(m, zone); err != nil {
			return nil, err
		}
		op, err := c.tx.Operations.Get(op.GetId())
		if err != nil {
			return nil, err
		}
		return made(m, op)
	}
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

// openOn makes an operation on a VM, and notes that the command changes it. Where its zone is away, the first step says so.
func (c *command) openOn(m *apiv1.VM, id, kind string, deadline *timestamppb.Timestamp) (*apiv1.Operation, error) {
	op, err := c.open(id, kind, reference("vm", m), where(m), deadline)
	if err != nil {
		return nil, err
	}
	zone, err := c.tx.Zones.Get(m.GetZoneId())
	if err != nil {
		return nil, orNotFound(err, "zone", m.GetZone())
	}
	if zone.GetFreshness() != apiv1.Freshness_LIVE && zone.GetState() != apiv1.Zone_RETIRED {
		op.Steps[0].Message = "zone " + zone.GetName() + " is out of reach; it is carried out when the zone is back"
	}
	c.changes = append(c.changes, change{m, op})
	return op, nil
}

// tellOfVM stores an event about a VM, which belongs to the VM's project.
func (c *command) tellOfVM(severity apiv1.Event_Severity, kind string, zone *apiv1.Zone, m *apiv1.VM, message string) error {
	told := where(m)
	told.zone, told.zoneID = zone.GetName(), zone.GetId()
	return c.tell(severity, kind, told, reference("vm", m), message)
}

// orderVM appends an action that is no state to the journal of the VM's zone.
func (c *command) orderVM(in *commandv1.OrderVM) (*commandv1.Result, error) {
	m, err := stored(c.tx.VMs, "VM", in.GetVmId(), "")
	if err != nil {
		return nil, err
	}
	zone, err := c.openZone(m.GetZoneId(), m.GetZone())
	if err != nil {
		return nil, err
	}
	if in.GetOrder().GetVerb() != linkv1.Order_REBOOT {
		return nil, invalid("there is no order " + in.GetOrder().GetVerb().String())
	}
	if m.GetDesiredState() != apiv1.VM_RUNNING {
		return nil, problem.Newf(problem.WrongState, "Start it first.", "VM %s is not wanted running", m.GetName())
	}
	op, err := c.openOn(m, in.GetOperationId(), in.GetKind(), in.GetDeadline())
	if err != nil {
		return nil, err
	}
	if err := c.tx.Operations.Put(op); err != nil {
		return nil, err
	}
	entry := &linkv1.JournalEntry{Time: c.now, Body: &linkv1.JournalEntry_Order{Order: &linkv1.Order{
		OperationId: op.GetId(), Verb: in.GetOrder().GetVerb(), VmId: m.GetId(), Force: in.GetOrder().GetForce(), Deadline: in.GetDeadline(),
	}}}
	if err := c.tx.AppendOrder(c.ordersTo(zone), entry); err != nil {
		return nil, err
	}
	return made(m, op)
}

// ordersTo is the journal that goes down to a zone in the present epoch.
func (c *command) ordersTo(zone *apiv1.Zone) state.Journal {
	return state.Journal{ZoneID: zone.GetId(), Origin: strconv.FormatUint(c.tx.Meta().Epoch, 10), Stream: "zone"}
}

// removeVM removes a VM that is gone by decision, and ends what was open on it: the newest wish and what its zone has said to
// be done as done, others as cancelled.
func (c *command) removeVM(m *apiv1.VM, zone *apiv1.Zone) error {
	if err := c.tx.VMs.Delete(m.GetId()); err != nil {
		return err
	}
	if err := c.forgetSnapshots(m.GetId()); err != nil {
		return err
	}
	if err := c.endLease(m.GetId()); err != nil {
		return err
	}
	if err := c.leaveTrace(m, zone); err != nil {
		return err
	}
	open, err := c.tx.OpenOperations(m.GetId())
	if err != nil {
		return err
	}
	for _, op := range open {
		var failed *apiv1.Problem
		switch {
		case op.GetId() == m.GetOperation():
			step(op, &apiv1.Operation_Step{Name: "deleted", State: apiv1.Operation_Step_DONE, At: c.now})
		case op.GetReportedAt() == nil:
			failed = problem.Newf(problem.Cancelled, "", "VM %s was deleted meanwhile", m.GetName()).Problem
		}
		if err := c.finish(op, failed); err != nil {
			return err
		}
	}
	return c.tellOfVM(apiv1.Event_INFO, "vm.deleted", zone, m, "VM "+m.GetName()+" is deleted")
}

// leaveTrace leaves what a VM that is gone leaves behind: its tombstone for the zone, and its name for its last usage. One that
// was held at its zone's word alone, and goes at that word, leaves nothing.
func (c *command) leaveTrace(m *apiv1.VM, zone *apiv1.Zone) error {
	if request.Whole(m) {
		if err := c.tx.PutFormerVM(zone.GetId(), m.GetId()); err != nil {
			return err
		}
		if err := c.usageGone(m, zone); err != nil {
			return err
		}
		return c.tx.DesireGone(zone.GetId(), reference("vm", m))
	}
	if err := c.dropHeldUsage(m, zone); err != nil {
		return err
	}
	if m.GetGeneration() != nil {
		if err := c.tx.DesireGone(zone.GetId(), reference("vm", m)); err != nil {
			return err
		}
	}
	return c.askLeftOut(zone)
}
