package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var groupColumns = []column[*apiv1.Group]{
	{head: "NAME", value: (*apiv1.Group).GetName},
	{head: "TITLE", value: (*apiv1.Group).GetTitle, text: true},
	{head: "DESCRIPTION", value: (*apiv1.Group).GetDescription, text: true},
	{head: "AGE", value: func(m *apiv1.Group) string { return age(m.GetCreatedAt()) }},
	{head: "ID", value: (*apiv1.Group).GetId, wide: true},
}

var memberColumns = []column[*apiv1.GroupMember]{
	{head: "USER", value: (*apiv1.GroupMember).GetUser},
	{head: "SINCE", value: func(m *apiv1.GroupMember) string { return local(m.GetAddedAt()) }},
	{head: "BY", value: (*apiv1.GroupMember).GetAddedBy, text: true},
	{head: "PROVIDER", value: (*apiv1.GroupMember).GetIdentityProvider, wide: true},
	{head: "ID", value: (*apiv1.GroupMember).GetUserId, wide: true},
}

func (a *app) groupNoun() noun[*apiv1.Group] {
	return noun[*apiv1.Group]{
		name: "group", plural: "groups", short: "Groups of users, to which roles are bound", in: []string{}, filter: "name~ops", columns: groupColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Group, string, error) {
			r, err := c.Groups.ListGroups(ctx, &apiv1.ListGroupsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetGroups(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Group, error) {
			r, err := c.Groups.GetGroup(ctx, &apiv1.GetGroupRequest{Group: name})
			return r.GetGroup(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Group], error), error) {
			s, err := c.Groups.WatchGroups(ctx, &apiv1.WatchGroupsRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchGroupsResponse) change[*apiv1.Group] {
				return change[*apiv1.Group]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetGroup()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Groups.DeleteGroup(ctx, &apiv1.DeleteGroupRequest{Group: name})
			return r.GetOperation(), err
		},
		make: "Make a group",
		fields: func(f *pflag.FlagSet, m *apiv1.Group) {
			f.StringVar(&m.Title, "title", "", "what people call it")
			f.StringVar(&m.Description, "description", "", "for people")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.Group) (*apiv1.Operation, error) {
			r, err := c.Groups.CreateGroup(ctx, &apiv1.CreateGroupRequest{Group: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Group, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.Group, error) {
			r, err := c.Groups.UpdateGroup(ctx, &apiv1.UpdateGroupRequest{Group: m, UpdateMask: mask})
			return r.GetGroup(), err
		},
	}
}

func (a *app) group() *cobra.Command {
	members := &cobra.Command{Use: "members GROUP", Short: "List who is in a group", Args: oneArgument, RunE: func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error { return a.listMembers(ctx, c, args[0]) })
	}}
	add := a.changeMembers("add", "Put users into a group", func(ctx context.Context, c *client.Client, group, user string) error {
		_, err := c.Groups.AddGroupMember(ctx, &apiv1.AddGroupMemberRequest{Group: group, User: user})
		return err
	})
	remove := a.changeMembers("remove", "Take users out of a group", func(ctx context.Context, c *client.Client, group, user string) error {
		_, err := c.Groups.RemoveGroupMember(ctx, &apiv1.RemoveGroupMemberRequest{Group: group, User: user})
		return err
	})
	for _, cmd := range []*cobra.Command{members, add, remove} {
		a.completeArguments(cmd, "group", 1, &scope{})
	}
	return command(a, a.groupNoun(), members, add, remove)
}

// changeMembers is a verb that does something to a group for one user after the other. One that is refused does not keep the others.
func (a *app) changeMembers(verb, short string, do func(ctx context.Context, c *client.Client, group, user string) error) *cobra.Command {
	return &cobra.Command{Use: verb + " GROUP USER...", Short: short, Args: arguments(2, many), RunE: func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) (first error) {
			for _, user := range args[1:] {
				switch err := do(ctx, c, args[0], user); {
				case first == nil:
					first = err
				case err != nil:
					a.explain(err)
				}
			}
			return first
		})
	}}
}

func (a *app) listMembers(ctx context.Context, c *client.Client, group string) error {
	var all []*apiv1.GroupMember
	for token := ""; ; {
		r, err := c.Groups.ListGroupMembers(ctx, &apiv1.ListGroupMembersRequest{Group: group, PageSize: 1000, PageToken: token})
		if err != nil {
			return err
		}
		all = append(all, r.GetMembers()...)
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(all) == 0 && !a.documents() {
		fmt.Fprintf(a.err, "Nobody is in group %s.\n", group)
		return nil
	}
	return printList(a, memberColumns, all)
}
