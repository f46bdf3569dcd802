package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type quotaService struct {
	apiv1.UnimplementedQuotaServiceServer
	*Service
}

func quotaChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Quota) proto.Message {
	return &apiv1.WatchQuotasResponse{Type: kind, Revision: revision, Quota: m}
}

func (s quotaService) ListQuotas(ctx context.Context, r *apiv1.ListQuotasRequest) (*apiv1.ListQuotasResponse, error) {
	items, next, err := s.quotas.list(ctx, r, place{project: r.GetProject()})
	return &apiv1.ListQuotasResponse{Quotas: items, NextPageToken: next}, err
}

func (s quotaService) GetQuota(ctx context.Context, r *apiv1.GetQuotaRequest) (*apiv1.GetQuotaResponse, error) {
	m, err := s.quotas.get(ctx, r.GetQuota(), place{})
	return &apiv1.GetQuotaResponse{Quota: m}, err
}

func (s quotaService) WatchQuotas(r *apiv1.WatchQuotasRequest, stream grpc.ServerStreamingServer[apiv1.WatchQuotasResponse]) error {
	return s.quotas.watch(r, place{project: r.GetProject()}, stream)
}

func (s quotaService) CreateQuota(ctx context.Context, r *apiv1.CreateQuotaRequest) (*apiv1.CreateQuotaResponse, error) {
	result, err := s.quotas.create(ctx, r, r.GetQuota(), func(tx *state.Tx, m *apiv1.Quota) (state.Scope, error) {
		return nil, s.resolve(ctx, tx, m)
	}, func(c *commandv1.Command, m *apiv1.Quota) {
		c.Body = &commandv1.Command_CreateQuota{CreateQuota: &commandv1.CreateQuota{Quota: m}}
	})
	op, err := s.quotas.made(ctx, result, err)
	return &apiv1.CreateQuotaResponse{Operation: op}, err
}

// resolve finds what a quota is of, and where, as far as the caller can see.
func (s quotaService) resolve(ctx context.Context, tx *state.Tx, m *apiv1.Quota) error {
	reach, err := s.quotas.reach(ctx, tx, s.quotas.permission(ctx))
	if err != nil {
		return err
	}
	switch {
	case (m.GetProject() == "") == (m.GetOrganization() == ""):
		return problem.New(problem.Invalid, "a quota is of a project or of an organization", "Name one of the two.").With("project", "or organization is required, and not both")
	case m.GetProject() != "":
		p, err := s.projects.within(tx, m.GetProject(), nil)
		if err == nil && !touches(reach, p.GetId(), "") {
			err = s.projects.notThere(m.GetProject())
		}
		if err != nil {
			return inField(err, "project")
		}
		m.Project, m.ProjectId = p.GetName(), p.GetId()
	default:
		o, err := s.organizations.within(tx, m.GetOrganization(), nil)
		if err == nil && !reach.TouchesOrganization(o.GetId()) {
			err = s.organizations.notThere(m.GetOrganization())
		}
		if err != nil {
			return inField(err, "organization")
		}
		m.Organization, m.OrganizationId = o.GetName(), o.GetId()
	}
	if m.GetZone() != "" {
		z, err := s.zones.within(tx, m.GetZone(), nil)
		if err != nil {
			return inField(err, "zone")
		}
		m.Zone, m.ZoneId = z.GetName(), z.GetId()
	}
	m.Name = state.QuotaName(m)
	return limited(tx, m)
}

// limited refuses a quota that bounds nothing.
func limited(_ *state.Tx, m *apiv1.Quota) error {
	if l := m.GetLimit(); l == nil || l.Vms == nil && l.Cores == nil && l.MemoryMib == nil && l.DiskGib == nil && l.Snapshots == nil {
		return problem.New(problem.Invalid, "the quota limits nothing", "Set one limit at least; to take all away, delete the quota.").With("limit", "has nothing set")
	}
	return nil
}

func (s quotaService) UpdateQuota(ctx context.Context, r *apiv1.UpdateQuotaRequest) (*apiv1.UpdateQuotaResponse, error) {
	m, err := s.quotas.update(ctx, r, r.GetQuota(), r.GetUpdateMask(), place{}, limited, func(c *commandv1.Command, m *apiv1.Quota, expected string) {
		c.Body = &commandv1.Command_UpdateQuota{UpdateQuota: &commandv1.UpdateQuota{Quota: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateQuotaResponse{Quota: m}, err
}

func (s quotaService) DeleteQuota(ctx context.Context, r *apiv1.DeleteQuotaRequest) (*apiv1.DeleteQuotaResponse, error) {
	op, err := s.quotas.remove(ctx, r, r.GetQuota(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteQuota{DeleteQuota: d}
	})
	return &apiv1.DeleteQuotaResponse{Operation: op}, err
}

// roomFor refuses a VM for which no quota leaves room. project and image are of its grade as well.
func roomFor(tx *state.Tx, vm *apiv1.VM, project, image apiv1.Zone_Grade) error {
	return quota.Fits(tx, state.Cell{OwnerID: vm.GetProjectId(), ZoneID: vm.GetZoneId(), Grade: grade.Highest(vm.GetGrade(), project, image)}, state.AmountsOfVM(vm.GetSize()))
}

// roomToGrow refuses what a VM is to take more than before, where no quota leaves room for it.
func roomToGrow(tx *state.Tx, vm *apiv1.VM, more state.Amounts) error {
	at, err := tx.ChargedGrade(vm.GetId())
	if err != nil {
		return err
	}
	return quota.Fits(tx, state.Cell{OwnerID: vm.GetProjectId(), ZoneID: vm.GetZoneId(), Grade: at}, more)
}
