package service

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type snapshotService struct {
	apiv1.UnimplementedSnapshotServiceServer
	*Service
}

func snapshotsOf(s *Service) noun[*apiv1.Snapshot] {
	return noun[*apiv1.Snapshot]{Service: s, kind: "snapshot", topic: "snapshots", project: "project_id", zone: "zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Snapshot] { return tx.Snapshots }}
}

func (s snapshotService) ListSnapshots(ctx context.Context, r *apiv1.ListSnapshotsRequest) (*apiv1.ListSnapshotsResponse, error) {
	if r.GetVm() != "" {
		vm, err := s.vms.get(ctx, r.GetVm(), place{project: r.GetProject(), zone: r.GetZone()})
		if err != nil {
			return nil, err
		}
		r = proto.CloneOf(r)
		if term := "vm=" + vm.GetName(); r.GetFilter() == "" {
			r.Filter = term
		} else {
			r.Filter += " AND " + term
		}
		if r.GetProject() == "" {
			r.Project = vm.GetProjectId()
		}
	}
	items, next, err := s.snapshots.list(ctx, r, place{project: r.GetProject(), zone: r.GetZone()})
	return &apiv1.ListSnapshotsResponse{Snapshots: items, NextPageToken: next}, err
}

func (s snapshotService) GetSnapshot(ctx context.Context, r *apiv1.GetSnapshotRequest) (*apiv1.GetSnapshotResponse, error) {
	out := &apiv1.GetSnapshotResponse{}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		out.Snapshot, err = s.snapshot(ctx, tx, r.GetSnapshot(), r.GetVm(), r.GetProject())
		return err
	})
	return out, err
}

// snapshot finds one by its id, or by its name and its VM, where names of several VMs would be alike.
func (s snapshotService) snapshot(ctx context.Context, tx *state.Tx, name, vm, project string) (*apiv1.Snapshot, error) {
	m, err := s.snapshots.find(ctx, tx, name, place{project: project})
	if vm == "" {
		if problem.Is(err, problem.Invalid) {
			err = problem.Newf(problem.Invalid, "Say which: the VM, or the id.", "there is more than one snapshot named %s", name)
		}
		return m, err
	}
	of, err := s.vms.find(ctx, tx, vm, place{project: project})
	if err != nil {
		return nil, err
	}
	all, err := tx.SnapshotsOf(of.GetId())
	if err != nil {
		return nil, err
	}
	for _, one := range all {
		if one.GetId() == name || one.GetName() == name {
			return s.snapshots.find(ctx, tx, one.GetId(), place{project: project})
		}
	}
	return nil, problem.Newf(problem.NotFound, "naru snapshot list --vm "+of.GetName()+" shows which there are.", "VM %s has no snapshot %s", of.GetName(), name)
}

// CreateSnapshot has a snapshot of a VM taken.
func (s snapshotService) CreateSnapshot(ctx context.Context, r *apiv1.CreateSnapshotRequest) (*apiv1.CreateSnapshotResponse, error) {
	const kind = "vm.snapshot"
	sent := r.GetSnapshot()
	if err := schema.CheckCreate(sent); err != nil {
		return nil, err
	}
	id, operation := newID(), newID()
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		vm, err := s.vms.find(ctx, tx, sent.GetVm(), place{project: sent.GetProject()})
		if err != nil {
			return nil, inField(err, "vm")
		}
		m := proto.CloneOf(sent)
		m.Id, m.VmId, m.Vm = id, vm.GetId(), vm.GetName()
		m.Project, m.ProjectId, m.Zone, m.ZoneId = vm.GetProject(), vm.GetProjectId(), vm.GetZone(), vm.GetZoneId()
		if err := s.snapshots.mayMake(ctx, tx, m); err != nil {
			return nil, err
		}
		what := &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Snapshot{Snapshot: &apiv1.SnapshotVM{MayStop: r.GetMayStop()}}}
		if _, err := intake.Possible(tx, what, vm); err != nil {
			return nil, err
		}
		if err := roomToGrow(tx, vm, state.Amounts{Snapshots: 1}); err != nil {
			return nil, err
		}
		if err := s.snapshots.nameIsFree(tx, m, state.Scope{"vm_id": vm.GetId()}); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_CreateSnapshot{CreateSnapshot: &commandv1.CreateSnapshot{
			Snapshot: m, MayStop: r.GetMayStop(), OperationId: operation, Deadline: timestamppb.New(time.Now().Add(operationTime)),
		}}
		return nil, nil
	})
	op, err := s.ended(ctx, kind, nil, result, err)
	return &apiv1.CreateSnapshotResponse{Operation: op}, err
}

// DeleteSnapshot has a snapshot removed from its VM's disk.
func (s snapshotService) DeleteSnapshot(ctx context.Context, r *apiv1.DeleteSnapshotRequest) (*apiv1.DeleteSnapshotResponse, error) {
	operation := newID()
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.snapshot(ctx, tx, r.GetSnapshot(), r.GetVm(), r.GetProject())
		if err != nil {
			return nil, err
		}
		if err := s.snapshots.matches(ctx, m); err != nil {
			return nil, err
		}
		in := &commandv1.DeleteSnapshot{SnapshotId: m.GetId(), OperationId: operation, Deadline: timestamppb.New(time.Now().Add(operationTime))}
		if callOf(ctx).IfMatch != "" {
			in.ExpectedRevision = m.GetRevision()
		}
		c.Body = &commandv1.Command_DeleteSnapshot{DeleteSnapshot: in}
		return nil, nil
	})
	op, err := s.ended(ctx, "snapshot.delete", nil, result, err)
	return &apiv1.DeleteSnapshotResponse{Operation: op}, err
}

// RestoreSnapshot has a VM's disk put back to what it held.
func (s snapshotService) RestoreSnapshot(ctx context.Context, r *apiv1.RestoreSnapshotRequest) (*apiv1.RestoreSnapshotResponse, error) {
	operation := newID()
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.snapshot(ctx, tx, r.GetSnapshot(), r.GetVm(), r.GetProject())
		if err != nil {
			return nil, err
		}
		vm, err := tx.VMs.Get(m.GetVmId())
		if err != nil {
			return nil, err
		}
		if e := vm.GetErrand(); e.GetKind() == apiv1.VM_Errand_RESTORE && e.GetSnapshotId() == m.GetId() {
			if op, err := tx.Operations.Get(vm.GetOperation()); err == nil && !op.GetDone() {
				return &commandv1.Result{Operation: op}, nil // it is under way
			}
		}
		what := &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Restore{Restore: &apiv1.RestoreVM{Snapshot: m.GetName(), SnapshotId: m.GetId(), MayStop: r.GetMayStop()}}}
		if _, err := intake.Possible(tx, what, vm); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_RestoreSnapshot{RestoreSnapshot: &commandv1.RestoreSnapshot{
			SnapshotId: m.GetId(), MayStop: r.GetMayStop(), OperationId: operation, Deadline: timestamppb.New(time.Now().Add(operationTime)),
		}}
		return nil, nil
	})
	op, err := s.ended(ctx, "vm.restore", nil, result, err)
	return &apiv1.RestoreSnapshotResponse{Operation: op}, err
}
