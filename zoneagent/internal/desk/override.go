package desk

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// wish is what somebody wants of a VM.
type wish struct {
	state apiv1.VM_State
	force bool
}

// action is the word for it in logs and operations.
func (w wish) action() string {
	if w.state == apiv1.VM_RUNNING {
		return "vm.start"
	}
	return "vm.stop"
}

// again bounds how often a wish is tried that others are quicker than.
const again = 3

// override has the zone hold to a wish of somebody in it, until the control plane answers. The operation that it returns goes by the
// override's id, here and later in the control plane.
func (d *Desk) override(ctx context.Context, who *person, w wish, name, project string) (op *apiv1.Operation, err error) {
	for range again {
		if op, err = d.tryOverride(ctx, who, w, name, project); !errors.Is(err, etcdstore.ErrConflict) {
			return op, err
		}
	}
	return nil, problem.Newf(problem.Conflict, "Try again.", "VM %s changed all the time", name)
}

func (d *Desk) tryOverride(ctx context.Context, who *person, w wish, name, project string) (*apiv1.Operation, error) {
	id, observed, err := d.find(name, project)
	if err != nil {
		return nil, err
	}
	is, err := d.Store.Get(ctx, etcdstore.Desired, "vm", id)
	if err != nil {
		return nil, err
	}
	vm := proto.CloneOf(is.Message.(*apiv1.VM))
	if err = who.may(who.call.Method); err == nil {
		err = d.allows(ctx, vm, observed, w)
	}
	if err != nil {
		return nil, d.refuse(ctx, who, w.action(), vm, err)
	}
	if vm.GetDesiredState() == w.state && vm.GetForce() == w.force && !astray(vm, observed) {
		return nothingToDo(vm, w.action(), timestamppb.New(d.Now())), nil
	}
	cursor, err := d.Store.Get(ctx, etcdstore.Cursor, "", "")
	if err != nil {
		return nil, err
	}
	o := &apiv1.VM_Override{
		Id: uuid.Must(uuid.NewV7()).String(), DesiredState: w.state, Force: w.force, InsteadOf: vm.GetDesiredState(), BasedOn: vm.GetGeneration(),
		User: who.GetUser(), UserId: who.GetUserId(), At: timestamppb.New(d.Now()),
	}
	if before := vm.GetOverride(); before != nil {
		o.InsteadOf, o.BasedOn = before.GetInsteadOf(), before.GetBasedOn()
	}
	vm.Override, vm.DesiredState, vm.Force = o, w.state, w.force
	// Nobody waits for what was asked for before; it is told as given up by whoever works on it.
	vm.Operation, vm.Errand = "", nil
	vm.Generation = proto.CloneOf(vm.GetGeneration())
	vm.Generation.Override++
	err = d.write(ctx, who.own, who.entry(w.action(), vm), func(tx *etcdstore.Tx) {
		tx.Override(vm, is.Revision, cursor)
		tx.Journal(&linkv1.JournalEntry{Body: &linkv1.JournalEntry_VmOverride{VmOverride: &linkv1.VMOverride{VmId: vm.GetId(), Override: o}}})
	})
	if err != nil {
		return nil, err
	}
	d.Log.Info("the zone is cut off, and holds to what an operator of its own wants of a VM", "vm", vm.GetName(), "wants", w.action(), "user", who.GetUser())
	return operationOf(vm), nil
}

// astray reports a VM that came to be as it is wanted, and is not so any more: it fell with its host, or somebody in it switched it off.
func astray(vm, observed *apiv1.VM) bool {
	return schema.CompareGenerations(observed.GetReached(), vm.GetGeneration()) >= 0 && observed.GetState() != vm.GetDesiredState()
}

// find finds a VM of the zone by name or id.
func (d *Desk) find(name, project string) (id string, observed *apiv1.VM, err error) {
	var found []string
	d.Picture.Nouns("vm", func(desired, is proto.Message) {
		vm := desired.(*apiv1.VM)
		if (vm.GetId() == name || vm.GetName() == name) && (project == "" || project == vm.GetProject() || project == vm.GetProjectId()) {
			found, id = append(found, vm.GetProject()), vm.GetId()
			observed, _ = is.(*apiv1.VM)
		}
	})
	switch slices.Sort(found); {
	case len(found) == 0:
		return "", nil, problem.Newf(problem.NotFound, "The zone is cut off and knows its own VMs only: naru vm list.", "there is no VM %q in this zone", name)
	case len(found) > 1:
		return "", nil, problem.Newf(problem.Invalid, "Say which: --project.", "there are VMs named %s in the projects %s", name, strings.Join(found, ", "))
	}
	return id, observed, nil
}

// allows refuses what the control plane would refuse too.
func (d *Desk) allows(ctx context.Context, vm, observed *apiv1.VM, w wish) error {
	switch desired := vm.GetDesiredState(); {
	case desired != apiv1.VM_RUNNING && desired != apiv1.VM_STOPPED:
		return problem.Newf(problem.WrongState, "Ask the control plane when the link is up.", "VM %s is to be %s", vm.GetName(), strings.ToLower(desired.String()))
	case w.state == apiv1.VM_RUNNING && vm.GetExpiresAt() != nil && !d.Now().Before(vm.GetExpiresAt().AsTime()):
		return problem.Newf(problem.WrongState, "Ask for it to be extended when the link is up.", "the lease of VM %s has ended", vm.GetName())
	case vm.GetErrand() != nil && schema.CompareGenerations(observed.GetReached(), vm.GetGeneration()) < 0:
		return problem.Newf(problem.WrongState, "Wait until that is done: naru vm show.", "VM %s is being worked on (%s)", vm.GetName(), strings.ToLower(observed.GetTask().String()))
	}
	_, err := d.Store.Get(ctx, etcdstore.Unclaimed, "vm", vm.GetId())
	switch {
	case missing(err):
		return nil
	case err != nil:
		return err
	}
	return problem.Newf(problem.WrongState, "Ask the control plane when the link is up.", "the control plane did not name VM %s when it last named all that the zone has", vm.GetName())
}

// operationOn is an operation on a VM.
func operationOn(vm *apiv1.VM, kind string, at *timestamppb.Timestamp) *apiv1.Operation {
	return &apiv1.Operation{
		Kind: kind, Target: &apiv1.Reference{Kind: "vm", Id: vm.GetId(), Name: vm.GetName()}, Project: vm.GetProject(), ProjectId: vm.GetProjectId(),
		Zone: vm.GetZone(), ZoneId: vm.GetZoneId(), CreatedAt: at,
	}
}

// nothingToDo is an operation that says so.
func nothingToDo(vm *apiv1.VM, kind string, at *timestamppb.Timestamp) *apiv1.Operation {
	op := operationOn(vm, kind, at)
	op.Done, op.Progress = true, 100
	op.Steps = []*apiv1.Operation_Step{{Name: "accepted", State: apiv1.Operation_Step_DONE, Message: "it is wanted so already", At: at}}
	return op
}

// operationOf is the operation that a VM's override is.
func operationOf(vm *apiv1.VM) *apiv1.Operation {
	o := vm.GetOverride()
	op := operationOn(vm, wish{o.GetDesiredState(), o.GetForce()}.action(), o.GetAt())
	op.Id, op.CreatedBy = o.GetId(), "user:"+o.GetUser()
	op.Steps = []*apiv1.Operation_Step{{
		Name: "overridden", State: apiv1.Operation_Step_DONE, At: o.GetAt(),
		Message: "the zone is cut off and does it by itself; the control plane is told when the link is back",
	}}
	return op
}

// readOperation answers what has become of an override.
func (r *Reader) readOperation(who Sight, id string) (*apiv1.Operation, error) {
	var op *apiv1.Operation
	r.picture.Nouns("vm", func(desired, observed proto.Message) {
		vm := desired.(*apiv1.VM)
		o := vm.GetOverride()
		if o.GetId() != id || id == "" || !who.sees(vm) {
			return
		}
		op = operationOf(vm)
		if is, ok := observed.(*apiv1.VM); ok && schema.CompareGenerations(is.GetReached(), vm.GetGeneration()) >= 0 {
			op.Done, op.Progress, op.Error = true, 100, proto.CloneOf(is.GetError())
			op.Steps = append(op.Steps, &apiv1.Operation_Step{Name: strings.ToLower(is.GetState().String()), State: apiv1.Operation_Step_DONE})
		}
	})
	if op == nil {
		return nil, problem.Newf(problem.LinkDown, "Ask again when the link is up.", "operation %q is none that the zone carries out by itself; of others the control plane knows", id)
	}
	return op, nil
}
