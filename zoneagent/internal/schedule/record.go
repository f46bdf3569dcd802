package schedule

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// noun is the VM as it is observed once it has a host.
func (p placed) noun() *apiv1.VM {
	vm := &apiv1.VM{
		Id: p.vm.GetId(), Name: p.vm.GetName(), State: apiv1.VM_BUILDING,
		Host: p.host.GetName(), HostId: p.host.GetId(), HostFreshness: apiv1.Freshness_LIVE,
	}
	if p.vm.GetDesiredState() == apiv1.VM_RUNNING {
		vm.Task = apiv1.VM_STARTING
	}
	vm.Allocated = p.vm.GetSize()
	if p.found {
		vm.State = apiv1.VM_STOPPED // it is whole, and nothing of it is to be made; the worker sees whether it runs, and what it has
	} else {
		vm.Actual, vm.Snapshots = p.vm.GetSize(), &apiv1.VM_Snapshots{}
	}
	if p.address.IsValid() {
		vm.Address = p.address.String()
	}
	return vm
}

// forgottenErrand ends the operation of what a VM was to have done to it once, of which nobody knows whether it was.
func forgottenErrand(at time.Time, vm *apiv1.VM) *linkv1.OperationReport {
	why := problem.Newf(problem.Unavailable, "Look at the VM, and ask again where it was not done.",
		"The zone's store was put back or began anew; whether this was done to VM %s is not known.", vm.GetName()).Problem
	return &linkv1.OperationReport{Step: step(at, "placed", apiv1.Operation_Step_FAILED, why.GetDetail()), Done: true, Error: why}
}

func (p placed) String() string {
	s := fmt.Sprintf("on %s of %s", p.host.GetName(), p.host.GetCluster())
	if p.found {
		s = "found " + s
	}
	return s
}

// noun is the VM as it is observed when it found no place: that answers what was wanted.
func (r refused) noun() *apiv1.VM {
	return &apiv1.VM{
		Id: r.vm.GetId(), Name: r.vm.GetName(), State: apiv1.VM_ERROR, Error: r.why, Reached: r.vm.GetGeneration(),
	}
}

func reference(vm *apiv1.VM) *apiv1.Reference {
	return &apiv1.Reference{Kind: "vm", Id: vm.GetId(), Name: vm.GetName()}
}

func step(at time.Time, name string, state apiv1.Operation_Step_State, message string) *apiv1.Operation_Step {
	const most = 1024
	if len(message) > most {
		message = message[:most-len("…")] + "…"
	}
	return &apiv1.Operation_Step{Name: name, State: state, Message: message, At: timestamppb.New(at)}
}

// report is the entry that tells the VM's operation; none where the VM has no operation.
func report(at time.Time, vm *apiv1.VM, r *linkv1.OperationReport) []*linkv1.JournalEntry {
	if vm.GetOperation() == "" {
		return nil
	}
	r.OperationId = vm.GetOperation()
	return []*linkv1.JournalEntry{{
		Time: timestamppb.New(at), Body: &linkv1.JournalEntry_Operation{Operation: r},
	}}
}
