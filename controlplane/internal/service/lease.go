package service

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type leaseService struct {
	apiv1.UnimplementedLeaseServiceServer
	*Service
}

func leaseChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Lease) proto.Message {
	return &apiv1.WatchLeasesResponse{Type: kind, Revision: revision, Lease: m}
}

func (s leaseService) ListLeases(ctx context.Context, r *apiv1.ListLeasesRequest) (*apiv1.ListLeasesResponse, error) {
	items, next, err := s.leases.list(ctx, r, place{project: r.GetProject()})
	return &apiv1.ListLeasesResponse{Leases: items, NextPageToken: next}, err
}

func (s leaseService) GetLease(ctx context.Context, r *apiv1.GetLeaseRequest) (*apiv1.GetLeaseResponse, error) {
	out := &apiv1.GetLeaseResponse{}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		out.Lease, err = s.lease(ctx, tx, r.GetLease(), r.GetProject())
		return err
	})
	return out, err
}

func (s leaseService) WatchLeases(r *apiv1.WatchLeasesRequest, stream grpc.ServerStreamingServer[apiv1.WatchLeasesResponse]) error {
	return s.leases.watch(r, place{project: r.GetProject()}, stream)
}

// lease returns one by its id, or by the id or name of its VM.
func (s leaseService) lease(ctx context.Context, tx *state.Tx, name, project string) (*apiv1.Lease, error) {
	m, err := s.leases.find(ctx, tx, name, place{project: project})
	if !problem.Is(err, problem.NotFound) {
		return m, err
	}
	scope, e := s.leases.scope(ctx, tx, place{project: project})
	if e != nil {
		return nil, e
	}
	of, e := tx.LeaseOf(name)
	if errors.Is(e, state.ErrNotFound) {
		of, e = tx.LeaseByVM(name, scope["project_id"])
	}
	if errors.Is(e, state.ErrNotFound) {
		return nil, err
	}
	if e != nil {
		return nil, e
	}
	return s.leases.find(ctx, tx, of.GetId(), place{project: project})
}

// CreateLease gives a VM that has none a lease.
func (s leaseService) CreateLease(ctx context.Context, r *apiv1.CreateLeaseRequest) (*apiv1.CreateLeaseResponse, error) {
	sent := r.GetLease()
	if err := schema.CheckCreate(sent); err != nil {
		return nil, err
	}
	id := newID()
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		vm, err := s.vms.find(ctx, tx, sent.GetVm(), place{project: sent.GetProject()})
		if err != nil {
			return nil, inField(err, "vm")
		}
		m := proto.CloneOf(sent)
		m.Id, m.Vm, m.VmId, m.Project, m.ProjectId, m.Zone, m.ZoneId = id, vm.GetName(), vm.GetId(), vm.GetProject(), vm.GetProjectId(), vm.GetZone(), vm.GetZoneId()
		if m.GetDays() == 0 {
			return nil, problem.New(problem.Invalid, "a lease has an end", "Say how many days it lasts.").With("days", "is required")
		}
		if err := s.leases.mayMake(ctx, tx, m); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_CreateLease{CreateLease: &commandv1.CreateLease{Lease: m}}
		return nil, nil
	})
	op, err := s.ended(ctx, "lease.create", &apiv1.Reference{Kind: "lease", Id: id, Name: sent.GetVm()}, result, err)
	return &apiv1.CreateLeaseResponse{Operation: op}, err
}

// ShortenLease makes a lease end earlier.
func (s leaseService) ShortenLease(ctx context.Context, r *apiv1.ShortenLeaseRequest) (*apiv1.ShortenLeaseResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.lease(ctx, tx, r.GetLease(), r.GetProject())
		if err != nil {
			return nil, err
		}
		if err := s.leases.matches(ctx, m); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_ShortenLease{ShortenLease: &commandv1.ShortenLease{
			LeaseId: m.GetId(), ExpiresAt: r.GetExpiresAt(), Reason: callOf(ctx).Principal.Name + ": " + r.GetReason()}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m, err := s.leases.shown(ctx, result)
	return &apiv1.ShortenLeaseResponse{Lease: m}, err
}
