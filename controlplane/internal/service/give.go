package service

import (
	"context"
	"slices"
	"time"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// What gives rights, or lets somebody act as another, asks here first. It is one rule: nobody gives, or gets hold of, more than
// they have. service/give_test.go has every method of the API for which that is a question.

// mayGive refuses to give a role as a binding does where the caller does not have all of it themselves.
func (s *Service) mayGive(ctx context.Context, tx *state.Tx, role *apiv1.Role, m *apiv1.RoleBinding) error {
	r, err := s.rightsOf(ctx, tx)
	if err != nil {
		return err
	}
	return r.MayGive(role, m.GetScope(), m.GetPlaceId(), m.GetPlace(), endOf(m), method(ctx))
}

// endOf is when a binding ends; zero: never.
func endOf(m *apiv1.RoleBinding) (end time.Time) {
	if m.GetExpiresAt() != nil {
		end = m.GetExpiresAt().AsTime()
	}
	return end
}

// mayGiveAll refuses what would give the caller, or somebody they choose, the rights that bindings give: those of a group, where
// somebody is put into it; those of a user, where their password or their second factor is set.
func (s *Service) mayGiveAll(ctx context.Context, tx *state.Tx, scope state.Scope) error {
	now := s.Now()
	for b, err := range tx.RoleBindings.All(scope) {
		if err != nil {
			return err
		}
		if end := endOf(b); !end.IsZero() && !now.Before(end) {
			continue
		}
		role, err := tx.Roles.Get(b.GetRoleId())
		if err != nil {
			return err
		}
		if err := s.mayGive(ctx, tx, role, b); err != nil {
			return err
		}
	}
	return nil
}

// mayActAs refuses to take over a user who has rights that the caller does not have, or who decides in the place of one who has.
func (s *Service) mayActAs(ctx context.Context, tx *state.Tx, user *apiv1.User) error {
	if user.GetId() == callOf(ctx).Principal.UserID {
		return nil
	}
	if err := s.mayGiveAllOf(ctx, tx, user.GetId()); err != nil {
		return err
	}
	var holders []string // collected first: a snapshot runs one statement of a kind at a time
	for d, err := range tx.Delegations.All(state.Scope{"to_user_id": user.GetId()}) {
		if err != nil {
			return err
		}
		if holder := d.GetFromUserId(); d.GetEndsAt().AsTime().After(s.Now()) && holder != callOf(ctx).Principal.UserID {
			holders = append(holders, holder)
		}
	}
	for _, holder := range holders {
		if err := s.mayGiveAllOf(ctx, tx, holder); err != nil {
			return err
		}
	}
	return nil
}

// mayGiveAllOf is mayGiveAll of what a user has, with what their groups have.
func (s *Service) mayGiveAllOf(ctx context.Context, tx *state.Tx, userID string) error {
	if err := s.mayGiveAll(ctx, tx, state.Scope{"user_id": userID}); err != nil {
		return err
	}
	groups, err := tx.GroupsOf(userID)
	if err != nil {
		return err
	}
	for _, id := range groups {
		if err := s.mayGiveAll(ctx, tx, state.Scope{"group_id": id}); err != nil {
			return err
		}
	}
	return nil
}

// mayMakeToken refuses a token with which its bearer could do what whoever makes it cannot. as is the service that it acts as; nil
// where it operates a project by itself. A token that is narrower than its service gives less than the service has, and is
// measured by the service all the same: what a service may do can grow.
func (s *Service) mayMakeToken(ctx context.Context, tx *state.Tx, t *apiv1.AccessToken, as *apiv1.User) error {
	if err := withinOwnToken(callOf(ctx).Principal, t); err != nil {
		return err
	}
	if as != nil {
		return s.mayActAs(ctx, tx, as)
	}
	return s.mayGive(ctx, tx, rights.Holder(rights.ProjectOperator).Role, &apiv1.RoleBinding{
		Scope: apiv1.RoleBinding_PROJECT, PlaceId: t.GetProjectId(), Place: t.GetProject(), ExpiresAt: t.GetExpiresAt(),
	})
}

// withinOwnToken refuses a token that outlives, or is good for more than, the one with which it is made.
func withinOwnToken(p auth.Principal, t *apiv1.AccessToken) error {
	if p.Kind != auth.AccessToken {
		return nil
	}
	switch next := "Make it so, or log in and make it then."; {
	case t.GetExpiresAt().AsTime().After(p.Expires):
		return problem.Newf(problem.Forbidden, next, "a token that is made with the token %s ends with it at the latest", p.Name).With("expires_at", "is after "+p.Expires.UTC().Format(time.RFC3339))
	case p.ZoneID != "" && t.GetZoneId() != p.ZoneID:
		return problem.Newf(problem.Forbidden, next, "a token that is made with the token %s is good in zone %s only, as that is", p.Name, p.Zone).With("zone", "must be "+p.Zone)
	case p.ProjectID != "" && t.GetProjectId() != p.ProjectID:
		return problem.Newf(problem.Forbidden, next, "a token that is made with the token %s is good in project %s only, as that is", p.Name, p.Project).With("project", "must be "+p.Project)
	}
	return nil
}

// mayLetAdminister refuses to give somebody all rights in the federation until a time, zero for ever, where the caller does not
// have them: with an administrator's certificate, or a server of their own.
func (s *Service) mayLetAdminister(ctx context.Context, tx *state.Tx, until time.Time) error {
	r, err := s.rightsOf(ctx, tx)
	if err != nil {
		return err
	}
	return r.MayGive(rights.Holder(rights.FederationAdministrator).Role, apiv1.RoleBinding_FEDERATION, "", "", until, method(ctx))
}

// mayPutUnder refuses to put a project, or an organization with all below it, under an organization where others, or the caller,
// get rights in it by that which the caller does not have in it. from and to are ids of organizations; moved says what is moved.
func (s *Service) mayPutUnder(ctx context.Context, tx *state.Tx, from, to string, moved *apiv1.RoleBinding) error {
	before, err := tx.OrganizationsAbove(from)
	if err != nil {
		return err
	}
	above, err := tx.OrganizationsAbove(to)
	if err != nil {
		return err
	}
	for b, err := range tx.RoleBindings.All(nil) {
		if err != nil {
			return err
		}
		role, err := tx.Roles.Get(b.GetRoleId())
		if err != nil {
			return err
		}
		gains := b.GetScope() == apiv1.RoleBinding_ORGANIZATION && slices.Contains(above, b.GetPlaceId()) && !slices.Contains(before, b.GetPlaceId())
		if _, owner := rights.Asks(role); owner && moved.GetScope() == apiv1.RoleBinding_PROJECT {
			gains = true // it asks to which organization a project belongs, wherever it is bound
		}
		if !gains {
			continue
		}
		// As it would be if every condition held, and without the exception for whoever has the same role.
		bare := &apiv1.Role{Name: role.GetName(), Permissions: role.GetPermissions()}
		if err := s.mayGive(ctx, tx, bare, &apiv1.RoleBinding{Scope: moved.GetScope(), PlaceId: moved.GetPlaceId(), Place: moved.GetPlace(), ExpiresAt: b.GetExpiresAt()}); err != nil {
			return err
		}
	}
	return nil
}
