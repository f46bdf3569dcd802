package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type roleBindingService struct {
	apiv1.UnimplementedRoleBindingServiceServer
	*Service
}

func bindingChange(kind apiv1.WatchType_Value, revision string, m *apiv1.RoleBinding) proto.Message {
	return &apiv1.WatchRoleBindingsResponse{Type: kind, Revision: revision, RoleBinding: m}
}

// placeOfBinding is where a binding is: where its place is.
func placeOfBinding(m *apiv1.RoleBinding, column string) (string, bool) {
	scope, known := map[string]apiv1.RoleBinding_Scope{
		"project_id": apiv1.RoleBinding_PROJECT, "organization_id": apiv1.RoleBinding_ORGANIZATION, "zone_id": apiv1.RoleBinding_ZONE,
	}[column]
	if known && m.GetScope() == scope {
		return m.GetPlaceId(), true
	}
	return "", known
}

func (s roleBindingService) ListRoleBindings(ctx context.Context, r *apiv1.ListRoleBindingsRequest) (*apiv1.ListRoleBindingsResponse, error) {
	items, next, err := s.roleBindings.list(ctx, r, place{})
	return &apiv1.ListRoleBindingsResponse{RoleBindings: items, NextPageToken: next}, err
}

func (s roleBindingService) GetRoleBinding(ctx context.Context, r *apiv1.GetRoleBindingRequest) (*apiv1.GetRoleBindingResponse, error) {
	m, err := s.roleBindings.get(ctx, r.GetRoleBinding(), place{})
	return &apiv1.GetRoleBindingResponse{RoleBinding: m}, err
}

func (s roleBindingService) WatchRoleBindings(r *apiv1.WatchRoleBindingsRequest, stream grpc.ServerStreamingServer[apiv1.WatchRoleBindingsResponse]) error {
	return s.roleBindings.watch(r, place{}, stream)
}

// CreateRoleBinding gives a role. Nobody gives more than they have.
func (s roleBindingService) CreateRoleBinding(ctx context.Context, r *apiv1.CreateRoleBindingRequest) (*apiv1.CreateRoleBindingResponse, error) {
	var reads []*commandv1.Read
	result, err := s.roleBindings.create(ctx, r, r.GetRoleBinding(), func(tx *state.Tx, m *apiv1.RoleBinding) (state.Scope, error) {
		role, err := s.roles.find(ctx, tx, m.GetRole(), place{})
		if err != nil {
			return nil, inField(err, "role")
		}
		m.Role, m.RoleId = role.GetName(), role.GetId()
		reads = []*commandv1.Read{{Noun: reference("role", role), Revision: role.GetRevision()}}
		if err := s.resolveSubject(tx, m); err != nil {
			return nil, err
		}
		if err := s.resolvePlace(ctx, tx, m); err != nil {
			return nil, err
		}
		return nil, s.mayGive(ctx, tx, role, m)
	}, func(c *commandv1.Command, m *apiv1.RoleBinding) {
		c.Body = &commandv1.Command_CreateRoleBinding{CreateRoleBinding: &commandv1.CreateRoleBinding{RoleBinding: m, Reads: reads}}
	})
	if err != nil {
		return nil, err
	}
	m, err := s.roleBindings.decode(result)
	if err != nil {
		return nil, err
	}
	op, err := s.ended(ctx, "role-binding.create", &apiv1.Reference{Kind: "role-binding", Id: m.GetId()}, result, nil)
	return &apiv1.CreateRoleBindingResponse{Operation: op}, err
}

// resolveSubject finds the user or the group. Who may give roles may name everybody.
func (s roleBindingService) resolveSubject(tx *state.Tx, m *apiv1.RoleBinding) error {
	switch {
	case (m.GetUser() == "") == (m.GetGroup() == ""):
		return problem.New(problem.Invalid, "a role is bound to a user or to a group", "Name one of the two.").With("user", "or group is required, and not both")
	case m.GetUser() != "":
		u, err := s.users.within(tx, m.GetUser(), nil)
		m.User, m.UserId = u.GetName(), u.GetId()
		return inField(err, "user")
	}
	g, err := s.groups.within(tx, m.GetGroup(), nil)
	m.Group, m.GroupId = g.GetName(), g.GetId()
	return inField(err, "group")
}

// resolvePlace finds the place, as far as the caller can see.
func (s roleBindingService) resolvePlace(ctx context.Context, tx *state.Tx, m *apiv1.RoleBinding) error {
	reach, err := s.roleBindings.reach(ctx, tx, s.roleBindings.permission(ctx))
	if err != nil {
		return err
	}
	name := m.GetPlace()
	switch m.GetScope() {
	case apiv1.RoleBinding_FEDERATION:
		if name != "" {
			return problem.New(problem.Invalid, "there is one federation, which is not named", "Leave place out.").With("place", "must be empty")
		}
		return nil
	case apiv1.RoleBinding_ORGANIZATION:
		o, err := s.organizations.within(tx, name, nil)
		if err == nil && !reach.TouchesOrganization(o.GetId()) {
			err = s.organizations.notThere(name)
		}
		m.Place, m.PlaceId = o.GetName(), o.GetId()
		return inField(err, "place")
	case apiv1.RoleBinding_PROJECT:
		p, err := s.projects.within(tx, name, nil)
		if err == nil && !touches(reach, p.GetId(), "") {
			err = s.projects.notThere(name)
		}
		m.Place, m.PlaceId = p.GetName(), p.GetId()
		return inField(err, "place")
	}
	z, err := s.zones.within(tx, name, nil)
	if err == nil && !touches(reach, "", z.GetId()) {
		err = s.zones.notThere(name)
	}
	m.Place, m.PlaceId = z.GetName(), z.GetId()
	return inField(err, "place")
}

// ShortenRoleBinding makes a role end earlier. Whoever approves what is asked for shortens what was given by a request; what somebody gave
// by their own right is for those who could take it away.
func (s roleBindingService) ShortenRoleBinding(ctx context.Context, r *apiv1.ShortenRoleBindingRequest) (*apiv1.ShortenRoleBindingResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.roleBindings.find(ctx, tx, r.GetRoleBinding(), place{})
		if err != nil {
			return nil, err
		}
		if m.GetRequestId() == "" {
			if err := s.roleBindings.mayMakeBy(ctx, tx, m, "role-binding.delete"); err != nil {
				return nil, err
			}
		}
		if err := s.roleBindings.matches(ctx, m); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_ShortenRoleBinding{ShortenRoleBinding: &commandv1.ShortenRoleBinding{
			RoleBindingId: m.GetId(), ExpectedRevision: m.GetRevision(), ExpiresAt: r.GetExpiresAt(), Reason: callOf(ctx).Principal.Name + ": " + r.GetReason()}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m, err := s.roleBindings.shown(ctx, result)
	return &apiv1.ShortenRoleBindingResponse{RoleBinding: m}, err
}

func (s roleBindingService) DeleteRoleBinding(ctx context.Context, r *apiv1.DeleteRoleBindingRequest) (*apiv1.DeleteRoleBindingResponse, error) {
	target := &apiv1.Reference{Kind: "role-binding"}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.roleBindings.find(ctx, tx, r.GetRoleBinding(), place{})
		if err != nil {
			return nil, err
		}
		if err := s.roleBindings.matches(ctx, m); err != nil {
			return nil, err
		}
		target.Id = m.GetId()
		d := &commandv1.DeleteNoun{Id: m.GetId()}
		if callOf(ctx).IfMatch != "" {
			d.ExpectedRevision = m.GetRevision()
		}
		c.Body = &commandv1.Command_DeleteRoleBinding{DeleteRoleBinding: d}
		return nil, nil
	})
	op, err := s.ended(ctx, "role-binding.delete", target, result, err)
	return &apiv1.DeleteRoleBindingResponse{Operation: op}, err
}
