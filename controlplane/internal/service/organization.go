package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// firstOrganization is there from the bootstrap on; projects and users that name no organization belong to it.
const firstOrganization = "default"

type organizationService struct {
	apiv1.UnimplementedOrganizationServiceServer
	*Service
}

func organizationChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Organization) proto.Message {
	return &apiv1.WatchOrganizationsResponse{Type: kind, Revision: revision, Organization: m}
}

// organization finds the organization to which something is to belong, by name or id; the first where none is named.
func (s *Service) organization(tx *state.Tx, name string) (*apiv1.Organization, error) {
	if name == "" {
		name = firstOrganization
	}
	m, err := s.organizations.within(tx, name, nil)
	return m, inField(err, "organization")
}

func (s organizationService) ListOrganizations(ctx context.Context, r *apiv1.ListOrganizationsRequest) (*apiv1.ListOrganizationsResponse, error) {
	items, next, err := s.organizations.list(ctx, r, place{})
	return &apiv1.ListOrganizationsResponse{Organizations: items, NextPageToken: next}, err
}

func (s organizationService) GetOrganization(ctx context.Context, r *apiv1.GetOrganizationRequest) (*apiv1.GetOrganizationResponse, error) {
	m, err := s.organizations.get(ctx, r.GetOrganization(), place{})
	return &apiv1.GetOrganizationResponse{Organization: m}, err
}

func (s organizationService) WatchOrganizations(r *apiv1.WatchOrganizationsRequest, stream grpc.ServerStreamingServer[apiv1.WatchOrganizationsResponse]) error {
	return s.organizations.watch(r, place{}, stream)
}

func (s organizationService) CreateOrganization(ctx context.Context, r *apiv1.CreateOrganizationRequest) (*apiv1.CreateOrganizationResponse, error) {
	result, err := s.organizations.create(ctx, r, r.GetOrganization(), func(tx *state.Tx, m *apiv1.Organization) (state.Scope, error) {
		return nil, s.parentOf(tx, m)
	}, func(c *commandv1.Command, m *apiv1.Organization) {
		c.Body = &commandv1.Command_CreateOrganization{CreateOrganization: &commandv1.CreateOrganization{Organization: m}}
	})
	op, err := s.organizations.made(ctx, result, err)
	return &apiv1.CreateOrganizationResponse{Operation: op}, err
}

func (s organizationService) UpdateOrganization(ctx context.Context, r *apiv1.UpdateOrganizationRequest) (*apiv1.UpdateOrganizationResponse, error) {
	m, err := s.organizations.update(ctx, r, r.GetOrganization(), r.GetUpdateMask(), place{}, s.parentOf, func(c *commandv1.Command, m *apiv1.Organization, expected string) {
		c.Body = &commandv1.Command_UpdateOrganization{UpdateOrganization: &commandv1.UpdateOrganization{Organization: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateOrganizationResponse{Organization: m}, err
}

func (s organizationService) DeleteOrganization(ctx context.Context, r *apiv1.DeleteOrganizationRequest) (*apiv1.DeleteOrganizationResponse, error) {
	op, err := s.organizations.remove(ctx, r, r.GetOrganization(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteOrganization{DeleteOrganization: d}
	})
	return &apiv1.DeleteOrganizationResponse{Operation: op}, err
}

func organizationUnder(m *apiv1.Organization) (string, *apiv1.RoleBinding) {
	return m.GetParentId(), &apiv1.RoleBinding{Scope: apiv1.RoleBinding_ORGANIZATION, PlaceId: m.GetId(), Place: m.GetName()}
}

// parentOf resolves the organization that m is to stand below.
func (s organizationService) parentOf(tx *state.Tx, m *apiv1.Organization) error {
	if m.GetParent() == "" {
		m.ParentId = ""
		return nil
	}
	parent, err := s.organizations.within(tx, m.GetParent(), nil)
	if err != nil {
		return inField(err, "parent")
	}
	m.Parent, m.ParentId = parent.GetName(), parent.GetId()
	return nil
}
