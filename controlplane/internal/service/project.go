package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type projectService struct {
	apiv1.UnimplementedProjectServiceServer
	*Service
}

func projectChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Project) proto.Message {
	return &apiv1.WatchProjectsResponse{Type: kind, Revision: revision, Project: m}
}

func (s projectService) ListProjects(ctx context.Context, r *apiv1.ListProjectsRequest) (*apiv1.ListProjectsResponse, error) {
	items, next, err := s.projects.list(ctx, r, place{})
	return &apiv1.ListProjectsResponse{Projects: items, NextPageToken: next}, err
}

func (s projectService) GetProject(ctx context.Context, r *apiv1.GetProjectRequest) (*apiv1.GetProjectResponse, error) {
	out := &apiv1.GetProjectResponse{}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if out.Project, err = s.projects.find(ctx, tx, r.GetProject(), place{}); err != nil {
			return err
		}
		out.Project.Quotas, err = tx.QuotasOver(out.Project.GetId(), "", apiv1.Zone_GRADE_UNSPECIFIED)
		return err
	})
	return out, err
}

func (s projectService) WatchProjects(r *apiv1.WatchProjectsRequest, stream grpc.ServerStreamingServer[apiv1.WatchProjectsResponse]) error {
	return s.projects.watch(r, place{}, stream)
}

func (s projectService) CreateProject(ctx context.Context, r *apiv1.CreateProjectRequest) (*apiv1.CreateProjectResponse, error) {
	result, err := s.projects.create(ctx, r, r.GetProject(), func(tx *state.Tx, m *apiv1.Project) (state.Scope, error) {
		m.Grade = grade.Highest(m.GetGrade())
		return nil, s.ownerOf(tx, m)
	}, func(c *commandv1.Command, m *apiv1.Project) {
		c.Body = &commandv1.Command_CreateProject{CreateProject: &commandv1.CreateProject{Project: m}}
	})
	op, err := s.projects.made(ctx, result, err)
	return &apiv1.CreateProjectResponse{Operation: op}, err
}

func (s projectService) UpdateProject(ctx context.Context, r *apiv1.UpdateProjectRequest) (*apiv1.UpdateProjectResponse, error) {
	m, err := s.projects.update(ctx, r, r.GetProject(), r.GetUpdateMask(), place{}, s.ownerOf, func(c *commandv1.Command, m *apiv1.Project, expected string) {
		c.Body = &commandv1.Command_UpdateProject{UpdateProject: &commandv1.UpdateProject{Project: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateProjectResponse{Project: m}, err
}

func (s projectService) DeleteProject(ctx context.Context, r *apiv1.DeleteProjectRequest) (*apiv1.DeleteProjectResponse, error) {
	op, err := s.projects.remove(ctx, r, r.GetProject(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteProject{DeleteProject: d}
	})
	return &apiv1.DeleteProjectResponse{Operation: op}, err
}

func projectUnder(m *apiv1.Project) (string, *apiv1.RoleBinding) {
	return m.GetOrganizationId(), &apiv1.RoleBinding{Scope: apiv1.RoleBinding_PROJECT, PlaceId: m.GetId(), Place: m.GetName()}
}

// ownerOf resolves the organization that a project belongs to.
func (s projectService) ownerOf(tx *state.Tx, m *apiv1.Project) error {
	o, err := s.organization(tx, m.GetOrganization())
	if err != nil {
		return err
	}
	m.Organization, m.OrganizationId = o.GetName(), o.GetId()
	return nil
}
