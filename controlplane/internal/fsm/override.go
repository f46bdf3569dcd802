package fsm

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// overrideTime is how long a zone may take to say that it has what it does already.
const overrideTime = 15 * 60 // seconds

// acceptOverride answers what was wanted of a VM in its zone while that was cut off. It becomes what is wanted, unless something else was
// wished here meanwhile: then that stays, and the conflict is told. Either way the VM goes down anew, with the answer, and the operation
// of the override's id says what came of it.
func (c *command) acceptOverride(zone *apiv1.Zone, e *linkv1.JournalEntry, in *linkv1.VMOverride) (rejected string, err error) {
	o := in.GetOverride()
	m, err := c.tx.VMs.Get(in.GetVmId())
	switch {
	case missing(err):
		return "there is no VM " + in.GetVmId(), nil
	case err != nil:
		return "", err
	case m.GetZoneId() != zone.GetId():
		return "VM " + in.GetVmId() + " is not in zone " + zone.GetName(), nil
	case o.GetId() == "" || o.GetDesiredState() != apiv1.VM_RUNNING && o.GetDesiredState() != apiv1.VM_STOPPED:
		return "an override has an id, and wants a VM running or stopped", nil
	}
	if _, err := c.tx.Operations.Get(o.GetId()); err == nil {
		return "there is an operation " + o.GetId() + " already", nil
	} else if !missing(err) {
		return "", err
	}
	kind, done := "vm.stop", "stopped"
	if o.GetDesiredState() == apiv1.VM_RUNNING {
		kind, done = "vm.start", "started"
	}
	op, err := c.openOn(m, o.GetId(), kind, after(c.clock, overrideTime))
	if err != nil {
		return "", err
	}
	op.CreatedBy = "zone:" + zone.GetName() // who that was there is the zone's word
	step(op, &apiv1.Operation_Step{Name: "overridden", State: apiv1.Operation_Step_DONE, At: e.GetTime(), Message: "by " + o.GetUser() + " in zone " + zone.GetName() + ", which was cut off"})
	conflict, err := c.overrideConflict(m, o)
	if err != nil {
		return "", err
	}
	if err := c.forgetOverride(m, conflict == nil && m.GetDesiredState() != o.GetDesiredState()); err != nil {
		return "", err
	}
	m.OverrideAnswered, m.Generation = o.GetId(), c.generation()
	message := "zone " + zone.GetName() + " says that " + o.GetUser() + " had VM " + m.GetName() + " " + done + " while it was cut off"
	switch {
	case conflict == nil && m.GetDesiredState() == o.GetDesiredState():
		err = c.finish(op, nil) // what is wanted here stays, with what is done for it
	case conflict == nil:
		m.DesiredState, m.Force, m.Operation, m.Errand = o.GetDesiredState(), o.GetForce(), op.GetId(), nil
		op.Generation = m.GetGeneration()
		err = c.tx.Operations.Put(op)
	default:
		err = c.finish(op, conflict)
	}
	if err != nil {
		return "", err
	}
	if err := c.tx.VMs.Put(m); err != nil {
		return "", err
	}
	if err := c.tx.Desire(zone.GetId(), reference("vm", m)); err != nil {
		return "", err
	}
	if conflict != nil {
		return "", c.tellOfVM(apiv1.Event_WARNING, "vm.override-refused", zone, m, message+"; it is not held to: "+conflict.GetDetail())
	}
	return "", c.tellOfVM(apiv1.Event_INFO, "vm.overridden", zone, m, message)
}

// forgetOverride forgets the operation that the override of a VM before was: at a zone's word few are kept. One that goes on is, but not
// where the next override takes its place: nobody tells what comes of it any more.
func (c *command) forgetOverride(m *apiv1.VM, replaced bool) error {
	id := m.GetOverrideAnswered()
	if id == "" {
		return nil
	}
	op, err := c.tx.Operations.Get(id)
	if missing(err) || err == nil && !op.GetDone() && !(replaced && m.GetOperation() == id) {
		return nil
	}
	if err != nil {
		return err
	}
	if !op.GetDone() {
		op.Error = overtaken()
		if err := c.endPart(op); err != nil {
			return err
		}
	}
	return c.tx.Operations.Delete(id)
}

// overtaken says of an override why nobody tells what came of it.
func overtaken() *apiv1.Problem {
	return problem.New(problem.Cancelled, "the next override of the VM took this one's place", "").Problem
}

// overrideConflict says why an override does not become what is wanted; nil where it does.
func (c *command) overrideConflict(m *apiv1.VM, o *apiv1.VM_Override) (*apiv1.Problem, error) {
	if m.GetDesiredState() == o.GetDesiredState() {
		return nil, nil
	}
	follows := m.GetOverrideAnswered() != "" && m.GetOperation() == m.GetOverrideAnswered() // upon an override that became what is wanted
	switch {
	case !request.Whole(m) || m.GetDesiredState() != apiv1.VM_RUNNING && m.GetDesiredState() != apiv1.VM_STOPPED:
		return problem.Newf(problem.Conflict, "", "VM %s is to be %s", m.GetName(), strings.ToLower(m.GetDesiredState().String())).Problem, nil
	case !proto.Equal(m.GetGeneration(), o.GetBasedOn()) && !follows:
		return problem.Newf(problem.Conflict, "Look at the VM and ask again, if it is still wanted.",
			"something else was wished of VM %s here before the zone was back", m.GetName()).Problem, nil
	}
	err := c.notBusy(m)
	if err == nil {
		err = c.leaseAllows(m, &commandv1.SetVMDesired{Desired: o.GetDesiredState()})
	}
	var refused *problem.Error
	if errors.As(err, &refused) {
		return refused.Problem, nil
	}
	return nil, err
}
