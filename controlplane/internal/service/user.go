package service

import (
	"context"
	"net/mail"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/controlplane/internal/tie"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type userService struct {
	apiv1.UnimplementedUserServiceServer
	*Service
}

func userChange(kind apiv1.WatchType_Value, revision string, m *apiv1.User) proto.Message {
	return &apiv1.WatchUsersResponse{Type: kind, Revision: revision, User: m}
}

func (s userService) ListUsers(ctx context.Context, r *apiv1.ListUsersRequest) (*apiv1.ListUsersResponse, error) {
	items, next, err := s.users.list(ctx, r, place{})
	return &apiv1.ListUsersResponse{Users: items, NextPageToken: next}, err
}

func (s userService) GetUser(ctx context.Context, r *apiv1.GetUserRequest) (*apiv1.GetUserResponse, error) {
	m, err := s.users.get(ctx, r.GetUser(), place{})
	return &apiv1.GetUserResponse{User: m}, err
}

func (s userService) WatchUsers(r *apiv1.WatchUsersRequest, stream grpc.ServerStreamingServer[apiv1.WatchUsersResponse]) error {
	return s.users.watch(r, place{}, stream)
}

func (s userService) CreateUser(ctx context.Context, r *apiv1.CreateUserRequest) (*apiv1.CreateUserResponse, error) {
	result, err := s.users.create(ctx, r, r.GetUser(), func(tx *state.Tx, m *apiv1.User) (state.Scope, error) {
		if m.GetKind() == apiv1.User_KIND_UNSPECIFIED {
			m.Kind = apiv1.User_PERSON
		}
		if err := mailAddress(m.GetEmail()); err != nil {
			return nil, err
		}
		return nil, s.homeOf(tx, m)
	}, func(c *commandv1.Command, m *apiv1.User) {
		c.Body = &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: m}}
	})
	op, err := s.users.made(ctx, result, err)
	return &apiv1.CreateUserResponse{Operation: op}, err
}

func (s userService) UpdateUser(ctx context.Context, r *apiv1.UpdateUserRequest) (*apiv1.UpdateUserResponse, error) {
	users := s.users
	var was *apiv1.User
	var ends []string
	users.guard = func(ctx context.Context, tx *state.Tx, m *apiv1.User) error {
		was = m
		if to := r.GetUser().GetOrganization(); r.GetDropRights() && (to == "" || to == m.GetOrganization() || to == m.GetOrganizationId()) {
			return problem.Newf(problem.Invalid, "Give another organization with it; or end one thing after the other: naru role-binding delete, naru group remove, naru delegation delete.",
				"drop_rights ends what user %s has by the organization that they leave, and they stay in %s", m.GetName(), m.GetOrganization()).With("drop_rights", "goes with another organization")
		}
		return s.users.guard(ctx, tx, m)
	}
	m, err := users.update(ctx, r, r.GetUser(), r.GetUpdateMask(), place{}, func(tx *state.Tx, m *apiv1.User) error {
		if m.GetOrganization() == "" {
			return problem.New(problem.Invalid, "a user belongs to an organization", "Name one: naru organization list shows which there are.").With("organization", "is required")
		}
		if m.GetEmail() != was.GetEmail() {
			if err := mailAddress(m.GetEmail()); err != nil {
				return err
			}
		}
		if err := s.homeOf(tx, m); err != nil || !r.GetDropRights() {
			return err
		}
		var err error
		ends, err = s.mayUntie(ctx, tx, was, m.GetOrganizationId())
		return err
	}, func(c *commandv1.Command, m *apiv1.User, expected string) {
		c.Body = &commandv1.Command_UpdateUser{UpdateUser: &commandv1.UpdateUser{User: m, ExpectedRevision: expected, DropRights: r.GetDropRights(), Ends: ends}}
	})
	return &apiv1.UpdateUserResponse{User: m}, err
}

// mayUntie refuses to end what a user has by the organization that they leave, where the caller could not end each of it by
// itself. It returns the ids of what that is.
func (s userService) mayUntie(ctx context.Context, tx *state.Tx, was *apiv1.User, organizationID string) ([]string, error) {
	ties, err := tie.Of(tx, was, organizationID, timestamppb.New(s.Now()))
	if err != nil {
		return nil, err
	}
	for _, b := range ties.Bindings {
		if err := s.roleBindings.mayMakeBy(ctx, tx, b, "role-binding.delete"); err != nil {
			return nil, err
		}
	}
	for _, g := range ties.Groups {
		if err := s.groups.mayMakeBy(ctx, tx, g, "group.remove-member"); err != nil {
			return nil, err
		}
	}
	for _, d := range ties.Delegations {
		if err := s.delegations.mayMakeBy(ctx, tx, d, "delegation.delete"); err != nil {
			return nil, err
		}
	}
	return ties.IDs(), nil
}

func (s userService) DeleteUser(ctx context.Context, r *apiv1.DeleteUserRequest) (*apiv1.DeleteUserResponse, error) {
	result, err := s.users.removal(ctx, r, r.GetUser(), place{}, &apiv1.Reference{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteUser{DeleteUser: d}
	})
	out := &apiv1.DeleteUserResponse{}
	if err == nil {
		err = proto.Unmarshal(result.GetNoun(), out)
	}
	return out, err
}

func (s userService) DisableUser(ctx context.Context, r *apiv1.DisableUserRequest) (*apiv1.DisableUserResponse, error) {
	result, err := s.proposeOfUser(ctx, r, r.GetUser(), func(c *commandv1.Command, m *apiv1.User) {
		c.Body = &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: m.GetId(), Reason: r.GetReason()}}
	})
	if err != nil {
		return nil, err
	}
	out := &apiv1.DisableUserResponse{}
	if err := proto.Unmarshal(result.GetNoun(), out); err != nil {
		return nil, err
	}
	return out, s.view(ctx, func(tx *state.Tx) error { return tx.Users.Derive(out.GetUser()) })
}

func (s userService) EnableUser(ctx context.Context, r *apiv1.EnableUserRequest) (*apiv1.EnableUserResponse, error) {
	m, err := s.changeUser(ctx, r, r.GetUser(), func(c *commandv1.Command, m *apiv1.User) {
		c.Body = &commandv1.Command_EnableUser{EnableUser: &commandv1.EnableUser{UserId: m.GetId(), Reason: r.GetReason()}}
	})
	return &apiv1.EnableUserResponse{User: m}, err
}

// changeUser proposes what body says of a user that is there, and returns the user as it then is.
func (s userService) changeUser(ctx context.Context, req proto.Message, name string, body func(*commandv1.Command, *apiv1.User)) (*apiv1.User, error) {
	result, err := s.proposeOfUser(ctx, req, name, body)
	if err != nil {
		return nil, err
	}
	return s.users.shown(ctx, result)
}

// proposeOfUser proposes what body says of a user that is there. Nobody does that to one who has rights that they do not have: whoever
// sets a password could act as its owner.
func (s userService) proposeOfUser(ctx context.Context, req proto.Message, name string, body func(*commandv1.Command, *apiv1.User)) (*commandv1.Result, error) {
	return s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.users.find(ctx, tx, name, place{})
		if err != nil {
			return nil, err
		}
		if err := s.mayActAs(ctx, tx, m); err != nil {
			return nil, err
		}
		body(c, m)
		return nil, nil
	})
}

// homeOf resolves the organization that a user belongs to.
func (s userService) homeOf(tx *state.Tx, m *apiv1.User) error {
	o, err := s.organization(tx, m.GetOrganization())
	if err != nil {
		return err
	}
	m.Organization, m.OrganizationId = o.GetName(), o.GetId()
	return nil
}

// mailAddress refuses what mail cannot be sent to.
func mailAddress(text string) error {
	if a, err := mail.ParseAddress(text); text != "" && (err != nil || a.Address != text) {
		return problem.Newf(problem.Invalid, "Write it as kim@example.org, without a name.", "%q is no mail address", text).With("email", "is no mail address")
	}
	return nil
}
