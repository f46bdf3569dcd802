package service

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type delegationService struct {
	apiv1.UnimplementedDelegationServiceServer
	*Service
}

func delegationChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Delegation) proto.Message {
	return &apiv1.WatchDelegationsResponse{Type: kind, Revision: revision, Delegation: m}
}

// mine narrows the delegations to those that the caller may see: by a role, or because they are from or to the caller.
func (s delegationService) mine(ctx context.Context, tx *state.Tx) (state.Table[*apiv1.Delegation], error) {
	reach, err := s.delegations.reach(ctx, tx, "delegation.read")
	if err != nil || reach.Everywhere() {
		return tx.Delegations, err
	}
	me := callOf(ctx).Principal.UserID
	if me == "" {
		return tx.Delegations.Within(nil), nil
	}
	return tx.Delegations.Within([]state.Bound{{{Column: "from_user_id", Values: []string{me}}}, {{Column: "to_user_id", Values: []string{me}}}}), nil
}

func (s delegationService) ListDelegations(ctx context.Context, r *apiv1.ListDelegationsRequest) (*apiv1.ListDelegationsResponse, error) {
	out := &apiv1.ListDelegationsResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		table, err := s.mine(ctx, tx)
		if err != nil {
			return err
		}
		out.Delegations, out.NextPageToken, err = table.List(state.Query{Filter: r.GetFilter(), OrderBy: r.GetOrderBy(), PageSize: int(r.GetPageSize()), PageToken: r.GetPageToken()})
		return err
	})
	return out, err
}

func (s delegationService) GetDelegation(ctx context.Context, r *apiv1.GetDelegationRequest) (*apiv1.GetDelegationResponse, error) {
	out := &apiv1.GetDelegationResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		table, err := s.mine(ctx, tx)
		if err != nil {
			return err
		}
		out.Delegation, err = s.delegations.found(table, r.GetDelegation(), nil)
		return err
	})
	return out, err
}

func (s delegationService) WatchDelegations(r *apiv1.WatchDelegationsRequest, stream grpc.ServerStreamingServer[apiv1.WatchDelegationsResponse]) error {
	return s.delegations.watch(r, place{}, stream)
}

// colleague returns the user of a name whom somebody may know: of an organization above or below their own, or one whom they may
// read. Everybody else is not there.
func (s delegationService) colleague(ctx context.Context, tx *state.Tx, me *apiv1.User, name string) (*apiv1.User, error) {
	u, err := s.users.within(tx, name, nil)
	if err != nil {
		return nil, err
	}
	mine, err := tx.OrganizationsAbove(me.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	theirs, err := tx.OrganizationsAbove(u.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	if slices.Contains(mine, u.GetOrganizationId()) || slices.Contains(theirs, me.GetOrganizationId()) {
		return u, nil
	}
	_, err = s.users.seen(ctx, tx, name, place{})
	if problem.Is(err, problem.Forbidden) {
		err = s.users.notThere(name)
	}
	return u, err
}

// CreateDelegation lets somebody else decide in the caller's place.
func (s delegationService) CreateDelegation(ctx context.Context, r *apiv1.CreateDelegationRequest) (*apiv1.CreateDelegationResponse, error) {
	callOf(ctx).Asked.note()
	if err := inSession(ctx); err != nil {
		return nil, err
	}
	if err := schema.CheckCreate(r.GetDelegation()); err != nil {
		return nil, err
	}
	id, target := newID(), &apiv1.Reference{Kind: "delegation"}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		me, err := s.caller(ctx, tx)
		if err != nil {
			return nil, err
		}
		m := proto.CloneOf(r.GetDelegation())
		m.Id, m.FromUser, m.FromUserId = id, me.GetName(), me.GetId()
		to, err := s.colleague(ctx, tx, me, m.GetToUser())
		if err != nil {
			return nil, inField(err, "to_user")
		}
		m.ToUser, m.ToUserId = to.GetName(), to.GetId()
		if m.GetProject() != "" {
			project, err := s.projects.find(ctx, tx, m.GetProject(), place{})
			if err != nil {
				return nil, inField(err, "project")
			}
			m.Project, m.ProjectId = project.GetName(), project.GetId()
		}
		if m.GetZone() != "" {
			zone, err := s.zones.find(ctx, tx, m.GetZone(), place{})
			if err != nil {
				return nil, inField(err, "zone")
			}
			m.Zone, m.ZoneId = zone.GetName(), zone.GetId()
		}
		target.Id, target.Name = m.GetId(), m.GetFromUser()+"/"+m.GetToUser()
		c.Body = &commandv1.Command_CreateDelegation{CreateDelegation: &commandv1.CreateDelegation{Delegation: m}}
		return nil, nil
	})
	op, err := s.ended(ctx, "delegation.create", target, result, err)
	return &apiv1.CreateDelegationResponse{Operation: op}, err
}

// DeleteDelegation ends one: that of the caller, or one that a role lets the caller end.
func (s delegationService) DeleteDelegation(ctx context.Context, r *apiv1.DeleteDelegationRequest) (*apiv1.DeleteDelegationResponse, error) {
	target := &apiv1.Reference{Kind: "delegation"}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		table, err := s.delegations.narrowed(ctx, tx)
		if err != nil {
			return nil, err
		}
		m, err := s.delegations.found(table, r.GetDelegation(), nil)
		if err != nil {
			return nil, err
		}
		target.Id, target.Name = m.GetId(), m.GetFromUser()+"/"+m.GetToUser()
		c.Body = &commandv1.Command_DeleteDelegation{DeleteDelegation: &commandv1.DeleteNoun{Id: m.GetId()}}
		return nil, nil
	})
	op, err := s.ended(ctx, "delegation.delete", target, result, err)
	return &apiv1.DeleteDelegationResponse{Operation: op}, err
}
