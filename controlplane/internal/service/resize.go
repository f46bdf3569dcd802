package service

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// ResizeVM wishes that a VM has the size of another flavor. What its host has no room for, as far as can be seen from here, is
// refused at once; else its zone does.
func (s vmService) ResizeVM(ctx context.Context, r *apiv1.ResizeVMRequest) (*apiv1.ResizeVMResponse, error) {
	const kind = "vm.resize"
	operation := newID()
	var next *apiv1.VM
	var seen uint64
	result, err := s.decideSettled(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		next, seen = nil, tx.Meta().Revision
		vm, err := s.vms.find(ctx, tx, r.GetVm(), place{project: r.GetProject()})
		if err != nil {
			return nil, err
		}
		if err := s.vms.matches(ctx, vm); err != nil {
			return nil, err
		}
		flavor, err := s.flavors.within(tx, r.GetFlavor(), nil)
		if err != nil {
			return nil, inField(err, "flavor")
		}
		size := &apiv1.Resources{Cores: flavor.GetCores(), MemoryMib: flavor.GetMemoryMib(), DiskGib: flavor.GetDiskGib()}
		ask := &apiv1.ResizeVM{Flavor: flavor.GetName(), Size: size}
		reads, err := intake.Possible(tx, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Resize{Resize: ask}}, vm)
		if err != nil {
			return nil, err
		}
		if vm.GetErrand() == nil && intake.HasSize(ask, vm) {
			op := finished(ctx, kind, reference("vm", vm), "it has that size already")
			op.Project, op.ProjectId, op.Zone = vm.GetProject(), vm.GetProjectId(), vm.GetZone()
			return &commandv1.Result{Operation: op}, nil
		}
		if err := roomToGrow(tx, vm, state.AmountsOfVM(size).Plus(state.AmountsOfVM(vm.GetSize()).Negated())); err != nil {
			return nil, err
		}
		next = proto.CloneOf(vm)
		next.Size = size
		in := &commandv1.ResizeVM{
			VmId: vm.GetId(), Flavor: flavor.GetName(), Size: size, MayStop: r.GetMayStop(), OperationId: operation,
			Deadline: timestamppb.New(time.Now().Add(operationTime)),
			Reads:    append(reads, &commandv1.Read{Noun: reference("flavor", flavor), Revision: flavor.GetRevision()}),
		}
		if callOf(ctx).IfMatch != "" {
			in.ExpectedRevision = vm.GetRevision()
		}
		c.Body = &commandv1.Command_ResizeVm{ResizeVm: in}
		return nil, nil
	}, func(ctx context.Context, _ *commandv1.Command) error { return s.Chooser.Resize(ctx, next, seen) })
	op, err := s.ended(ctx, kind, nil, result, err)
	return &apiv1.ResizeVMResponse{Operation: op}, err
}

// TrashVM puts a VM into the trash. What is there already stays until the time that was said last.
func (s vmService) TrashVM(ctx context.Context, r *apiv1.TrashVMRequest) (*apiv1.TrashVMResponse, error) {
	days := r.GetKeepDays()
	if days == 0 {
		days = intake.UsualKeep
	}
	what := &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Reclaim{Reclaim: &apiv1.ReclaimVMs{}}}
	op, err := s.move(ctx, r, what, "vm.trash", r.GetVm(), r.GetProject(), func(vm *apiv1.VM, set *commandv1.SetVMDesired) string {
		if vm.GetDesiredState() == apiv1.VM_TRASHED && r.GetKeepDays() == 0 {
			return "it is in the trash already"
		}
		set.Desired, set.DeleteAt = apiv1.VM_TRASHED, timestamppb.New(time.Now().AddDate(0, 0, int(days)))
		return ""
	})
	return &apiv1.TrashVMResponse{Operation: op}, err
}

// UntrashVM takes a VM out of the trash.
func (s vmService) UntrashVM(ctx context.Context, r *apiv1.UntrashVMRequest) (*apiv1.UntrashVMResponse, error) {
	what := &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Restore{Restore: &apiv1.RestoreVM{}}}
	op, err := s.move(ctx, r, what, "vm.untrash", r.GetVm(), r.GetProject(), func(vm *apiv1.VM, set *commandv1.SetVMDesired) string {
		set.Desired, set.Untrash = apiv1.VM_STOPPED, true
		return ""
	})
	return &apiv1.UntrashVMResponse{Operation: op}, err
}

// move puts a VM into the trash or takes it out, as change says; where that says that it is so already, or it is under way, nothing
// is done.
func (s vmService) move(ctx context.Context, req proto.Message, what *apiv1.RequestSpecification, kind, name, project string, change func(*apiv1.VM, *commandv1.SetVMDesired) (already string)) (*apiv1.Operation, error) {
	operation := newID()
	result, err := s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		vm, err := s.vms.find(ctx, tx, name, place{project: project})
		if err != nil {
			return nil, err
		}
		if err := s.vms.matches(ctx, vm); err != nil {
			return nil, err
		}
		if op, err := tx.Operations.Get(vm.GetOperation()); err == nil && !op.GetDone() && op.GetKind() == kind && kind == "vm.untrash" {
			return &commandv1.Result{Operation: op}, nil
		}
		set := &commandv1.SetVMDesired{VmId: vm.GetId(), OperationId: operation, Kind: kind, Deadline: timestamppb.New(time.Now().Add(operationTime))}
		if already := change(vm, set); already != "" {
			op := finished(ctx, kind, reference("vm", vm), already)
			op.Project, op.ProjectId, op.Zone = vm.GetProject(), vm.GetProjectId(), vm.GetZone()
			return &commandv1.Result{Operation: op}, nil
		}
		if _, err := intake.Possible(tx, what, vm); err != nil {
			return nil, err
		}
		if callOf(ctx).IfMatch != "" {
			set.ExpectedRevision = vm.GetRevision()
		}
		c.Body = &commandv1.Command_SetVmDesired{SetVmDesired: set}
		return nil, nil
	})
	return s.ended(ctx, kind, nil, result, err)
}
