package fsm

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// maxSteps is how many steps an operation keeps (proto: max_items).
const maxSteps = 64

// open makes an operation that goes on. Its id comes from the proposer.
func (c *command) open(id, kind string, target *apiv1.Reference, at whereabouts, deadline *timestamppb.Timestamp) (*apiv1.Operation, error) {
	if id == "" || kind == "" {
		return nil, invalid("an operation without id or kind cannot be made")
	}
	if _, err := c.tx.Operations.Get(id); err == nil {
		return nil, problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the operation id %s is taken", id)
	} else if !missing(err) {
		return nil, err
	}
	return c.accepted(id, kind, target, at, deadline), nil
}

func (c *command) accepted(id, kind string, target *apiv1.Reference, at whereabouts, deadline *timestamppb.Timestamp) *apiv1.Operation {
	return &apiv1.Operation{
		Id: id, Kind: kind, Target: target, Project: at.project, ProjectId: at.projectID, Zone: at.zone, ZoneId: at.zoneID, CreatedBy: c.actor, CreatedAt: c.now, Deadline: deadline,
		Steps: []*apiv1.Operation_Step{{Name: "accepted", State: apiv1.Operation_Step_DONE, At: c.now}},
	}
}

// done stores the operation of what was done at once. Its id is the command's.
func (c *command) done(kind string, target *apiv1.Reference, at whereabouts) (*apiv1.Operation, error) {
	op := c.accepted(c.ownID(), kind, target, at, nil)
	return op, c.finish(op, nil)
}

// finish ends an operation, with an error if it failed, and stores it. What is done stays done.
func (c *command) finish(op *apiv1.Operation, failed *apiv1.Problem) error {
	op.Done, op.FinishedAt, op.Error = true, c.now, failed
	if failed == nil {
		op.Progress = 100
	}
	if err := c.tx.Operations.Put(op); err != nil {
		return err
	}
	if err := c.endPart(op); err != nil {
		return err
	}
	return c.errandEnded(op)
}

// reported takes a zone's word that an operation has ended. What went well is done once its VM is seen as it then was: the
// zone writes both at once, but they travel by ways of their own, and either may come first.
func (c *command) reported(op *apiv1.Operation, failed *apiv1.Problem) error {
	if failed == nil && op.GetGeneration() != nil {
		vm, err := c.tx.VMs.Get(op.GetTarget().GetId())
		if err != nil && !missing(err) {
			return err
		}
		if err == nil && newer(op.GetGeneration(), vm.GetReached()) {
			op.ReportedAt = c.now
			return c.tx.Operations.Put(op)
		}
	}
	return c.finish(op, failed)
}

// endReported ends the operations on a VM that only waited until it was seen like this.
func (c *command) endReported(vm *apiv1.VM) error {
	open, err := c.tx.OpenOperations(vm.GetId())
	if err != nil {
		return err
	}
	for _, op := range open {
		if op.GetReportedAt() == nil || newer(op.GetGeneration(), vm.GetReached()) {
			continue
		}
		if err := c.finish(op, nil); err != nil {
			return err
		}
	}
	return nil
}

// supersede ends the operations of wishes before that of op, of which its zone now reports. A zone works for a VM's newest wish
// only, and has told the end of what it had begun for another before: what is open still never reached it, or never began.
func (c *command) supersede(op *apiv1.Operation) error {
	if op.GetGeneration() == nil || op.GetKind() == "vm.create" { // no wish; or the first
		return nil
	}
	open, err := c.tx.OpenOperations(op.GetTarget().GetId())
	if err != nil {
		return err
	}
	for _, old := range open {
		if old.GetGeneration() == nil || old.GetReportedAt() != nil || !newer(op.GetGeneration(), old.GetGeneration()) {
			continue
		}
		if err := c.finish(old, problem.New(problem.Cancelled, "A newer request for the VM took this one's place.",
			"Look at the VM and its newest operation.").Problem); err != nil {
			return err
		}
	}
	return nil
}

// newer reports whether a was wished after b; nothing is older than any wish.
func newer(a, b *apiv1.Generation) bool {
	if a.GetEpoch() != b.GetEpoch() {
		return a.GetEpoch() > b.GetEpoch()
	}
	return a.GetIndex() > b.GetIndex()
}

// step writes a step over the one of the same name, or behind the others.
func step(op *apiv1.Operation, s *apiv1.Operation_Step) {
	for i, old := range op.GetSteps() {
		if old.GetName() == s.GetName() {
			op.Steps[i] = s
			return
		}
	}
	if len(op.GetSteps()) < maxSteps {
		op.Steps = append(op.Steps, s)
	}
}

// resolveOperation ends an operation, or has it tried again, by an administrator's word.
func (c *command) resolveOperation(in *commandv1.ResolveOperation) (*commandv1.Result, error) {
	op, err := c.tx.Operations.Get(in.GetOperationId())
	if err != nil {
		return nil, orNotFound(err, "operation", in.GetOperationId())
	}
	if op.GetDone() {
		return nil, problem.Newf(problem.WrongState, "Ask for the action again.", "operation %s is done", op.GetId())
	}
	note := &apiv1.Operation_Step{Name: "resolved", State: apiv1.Operation_Step_DONE, Message: "by " + c.actor + ": " + in.GetReason(), At: c.now}
	switch in.GetOutcome() {
	case apiv1.ResolveOperationRequest_SUCCEED:
		step(op, note)
		err = c.finish(op, nil)
	case apiv1.ResolveOperationRequest_FAIL:
		note.State = apiv1.Operation_Step_FAILED
		step(op, note)
		err = c.finish(op, problem.Newf(problem.Cancelled, "Ask for the action again.",
			"%s ended it as failed: %s", c.actor, in.GetReason()).Problem)
	case apiv1.ResolveOperationRequest_RETRY:
		note.Name = "retried"
		step(op, note)
		err = c.retry(op, in.GetDeadline())
	default:
		err = invalid("an operation is resolved by RETRY, SUCCEED or FAIL")
	}
	if err != nil {
		return nil, err
	}
	return &commandv1.Result{Operation: op}, nil
}

// retry gives the VM of an operation a new generation, so that its zone sets to work again, and the time that a new request
// would have.
func (c *command) retry(op *apiv1.Operation, deadline *timestamppb.Timestamp) error {
	vm, err := c.tx.VMs.Get(op.GetTarget().GetId())
	if op.GetTarget().GetKind() != "vm" || missing(err) || err == nil && vm.GetOperation() != op.GetId() {
		return problem.Newf(problem.WrongState, "End it with SUCCEED or FAIL, and ask for the action again.",
			"operation %s (%s) is not the newest wish of a VM, so there is nothing to try again", op.GetId(), op.GetKind())
	}
	if err != nil {
		return err
	}
	vm.Generation = c.generation()
	op.Generation, op.ReportedAt = vm.GetGeneration(), nil
	if deadline != nil {
		op.Deadline = deadline
	}
	if err := c.tx.VMs.Put(vm); err != nil {
		return err
	}
	if err := c.tx.Desire(vm.GetZoneId(), reference("vm", vm)); err != nil {
		return err
	}
	return c.tx.Operations.Put(op)
}

// expireOperations ends those of the named operations that are open and past their deadline: as failed, unless their zone
// has said that they went well. What they did so far stays.
func (c *command) expireOperations(in *commandv1.ExpireOperations) (*commandv1.Result, error) {
	for _, id := range in.GetOperationIds() {
		op, err := c.tx.Operations.Get(id)
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if op.GetDone() || op.GetDeadline() == nil || later(op.GetDeadline(), c.clock) {
			continue
		}
		failed := problem.New(problem.Timeout, "it was not done before its deadline; what it did so far stays",
			"Look at its steps and at the zone, and ask for the action again.").Problem
		if op.GetReportedAt() != nil {
			step(op, &apiv1.Operation_Step{Name: "reported", State: apiv1.Operation_Step_DONE, At: op.GetReportedAt(),
				Message: "its zone says that it is done; the VM as it was then has not been seen here"})
			failed = nil
		}
		if err := c.finish(op, failed); err != nil {
			return nil, err
		}
	}
	return &commandv1.Result{}, nil
}

// later reports whether a is after b.
func later(a, b *timestamppb.Timestamp) bool {
	if a.GetSeconds() != b.GetSeconds() {
		return a.GetSeconds() > b.GetSeconds()
	}
	return a.GetNanos() > b.GetNanos()
}
