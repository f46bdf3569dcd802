package service

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type groupService struct {
	apiv1.UnimplementedGroupServiceServer
	*Service
}

func groupChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Group) proto.Message {
	return &apiv1.WatchGroupsResponse{Type: kind, Revision: revision, Group: m}
}

func (s groupService) ListGroups(ctx context.Context, r *apiv1.ListGroupsRequest) (*apiv1.ListGroupsResponse, error) {
	items, next, err := s.groups.list(ctx, r, place{})
	return &apiv1.ListGroupsResponse{Groups: items, NextPageToken: next}, err
}

func (s groupService) GetGroup(ctx context.Context, r *apiv1.GetGroupRequest) (*apiv1.GetGroupResponse, error) {
	m, err := s.groups.get(ctx, r.GetGroup(), place{})
	return &apiv1.GetGroupResponse{Group: m}, err
}

func (s groupService) WatchGroups(r *apiv1.WatchGroupsRequest, stream grpc.ServerStreamingServer[apiv1.WatchGroupsResponse]) error {
	return s.groups.watch(r, place{}, stream)
}

func (s groupService) CreateGroup(ctx context.Context, r *apiv1.CreateGroupRequest) (*apiv1.CreateGroupResponse, error) {
	result, err := s.groups.create(ctx, r, r.GetGroup(), anyName[*apiv1.Group], func(c *commandv1.Command, m *apiv1.Group) {
		c.Body = &commandv1.Command_CreateGroup{CreateGroup: &commandv1.CreateGroup{Group: m}}
	})
	op, err := s.groups.made(ctx, result, err)
	return &apiv1.CreateGroupResponse{Operation: op}, err
}

func (s groupService) UpdateGroup(ctx context.Context, r *apiv1.UpdateGroupRequest) (*apiv1.UpdateGroupResponse, error) {
	m, err := s.groups.update(ctx, r, r.GetGroup(), r.GetUpdateMask(), place{}, nil, func(c *commandv1.Command, m *apiv1.Group, expected string) {
		c.Body = &commandv1.Command_UpdateGroup{UpdateGroup: &commandv1.UpdateGroup{Group: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateGroupResponse{Group: m}, err
}

func (s groupService) DeleteGroup(ctx context.Context, r *apiv1.DeleteGroupRequest) (*apiv1.DeleteGroupResponse, error) {
	op, err := s.groups.remove(ctx, r, r.GetGroup(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteGroup{DeleteGroup: d}
	})
	return &apiv1.DeleteGroupResponse{Operation: op}, err
}

// ListGroupMembers returns a page of members. A page token is the name behind which the next page begins.
func (s groupService) ListGroupMembers(ctx context.Context, r *apiv1.ListGroupMembersRequest) (*apiv1.ListGroupMembersResponse, error) {
	size := int(r.GetPageSize())
	if size == 0 {
		size = 100
	}
	out := &apiv1.ListGroupMembersResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		group, err := s.groups.find(ctx, tx, r.GetGroup(), place{})
		if err != nil {
			return err
		}
		members, names, err := tx.MembersOf(group.GetId(), r.GetPageToken(), size+1)
		if err != nil {
			return err
		}
		providers, err := namesOfProviders(tx)
		if err != nil {
			return err
		}
		out.Reset()
		for i, m := range members[:min(size, len(members))] {
			out.Members = append(out.Members, &apiv1.GroupMember{
				User: names[i], UserId: m.UserID, AddedBy: m.AddedBy, AddedAt: timestamppb.New(time.UnixMicro(m.AddedAt)), IdentityProvider: providers[m.ProviderID],
			})
		}
		if len(members) > size {
			out.NextPageToken = names[size-1]
		}
		return nil
	})
	return out, err
}

func (s groupService) AddGroupMember(ctx context.Context, r *apiv1.AddGroupMemberRequest) (*apiv1.AddGroupMemberResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		group, user, err := s.both(ctx, tx, r.GetGroup(), r.GetUser())
		if err != nil {
			return nil, err
		}
		if err := s.mayGiveAll(ctx, tx, state.Scope{"group_id": group.GetId()}); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_AddGroupMember{AddGroupMember: &commandv1.AddGroupMember{GroupId: group.GetId(), UserId: user.GetId()}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m := &apiv1.GroupMember{}
	return &apiv1.AddGroupMemberResponse{Member: m}, proto.Unmarshal(result.GetNoun(), m)
}

func (s groupService) RemoveGroupMember(ctx context.Context, r *apiv1.RemoveGroupMemberRequest) (*apiv1.RemoveGroupMemberResponse, error) {
	_, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		group, user, err := s.both(ctx, tx, r.GetGroup(), r.GetUser())
		if err != nil {
			return nil, err
		}
		if _, err := tx.Membership(group.GetId(), user.GetId()); errors.Is(err, state.ErrNotFound) {
			return nil, problem.Newf(problem.NotFound, "naru group members "+group.GetName()+" shows who is in it.", "%s is not in group %s", user.GetName(), group.GetName())
		} else if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_RemoveGroupMember{RemoveGroupMember: &commandv1.RemoveGroupMember{GroupId: group.GetId(), UserId: user.GetId()}}
		return nil, nil
	})
	return &apiv1.RemoveGroupMemberResponse{}, err
}

func (s groupService) both(ctx context.Context, tx *state.Tx, groupName, userName string) (*apiv1.Group, *apiv1.User, error) {
	group, err := s.groups.find(ctx, tx, groupName, place{})
	if err != nil {
		return nil, nil, err
	}
	user, err := s.users.find(ctx, tx, userName, place{})
	return group, user, err
}
