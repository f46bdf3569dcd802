package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var roleColumns = []column[*apiv1.Role]{
	{head: "NAME", value: (*apiv1.Role).GetName},
	{head: "TITLE", value: (*apiv1.Role).GetTitle, text: true},
	{head: "BUILT-IN", value: func(m *apiv1.Role) string { return yes(m.GetBuiltIn()) }},
	{head: "AT EDGES", value: func(m *apiv1.Role) string { return yes(m.GetAtEdges()) }},
	{head: "DESCRIPTION", value: (*apiv1.Role).GetDescription, text: true},
	{head: "PERMISSIONS", value: func(m *apiv1.Role) string { return strings.Join(m.GetPermissions(), ",") }, text: true, wide: true},
	{head: "CONDITION", value: (*apiv1.Role).GetCondition, text: true, wide: true},
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func (a *app) role() *cobra.Command {
	return command(a, noun[*apiv1.Role]{
		name: "role", plural: "roles", short: "Roles: what those may do to whom they are bound", in: []string{}, filter: "built_in=false", columns: roleColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Role, string, error) {
			r, err := c.Roles.ListRoles(ctx, &apiv1.ListRolesRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetRoles(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Role, error) {
			r, err := c.Roles.GetRole(ctx, &apiv1.GetRoleRequest{Role: name})
			return r.GetRole(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Role], error), error) {
			s, err := c.Roles.WatchRoles(ctx, &apiv1.WatchRolesRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchRolesResponse) change[*apiv1.Role] {
				return change[*apiv1.Role]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetRole()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Operation, error) {
			r, err := c.Roles.DeleteRole(ctx, &apiv1.DeleteRoleRequest{Role: name})
			return r.GetOperation(), err
		},
		make: "Make a role; nobody can put into it what they do not have themselves",
		fields: func(f *pflag.FlagSet, m *apiv1.Role) {
			f.StringVar(&m.Title, "title", "", "what people call it")
			f.StringVar(&m.Description, "description", "", "for people")
			f.StringSliceVar(&m.Permissions, "permissions", nil, "what it permits: vm.read, vm.*, *.read")
			f.StringVar(&m.Condition, "condition", "", "a Cedar `expression` that must hold besides: resource.zone_grade <= 2")
			f.BoolVar(&m.AtEdges, "at-edges", false, "it counts at the edges of zones too")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.Role) (*apiv1.Operation, error) {
			r, err := c.Roles.CreateRole(ctx, &apiv1.CreateRoleRequest{Role: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Role, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.Role, error) {
			r, err := c.Roles.UpdateRole(ctx, &apiv1.UpdateRoleRequest{Role: m, UpdateMask: mask})
			return r.GetRole(), err
		},
	})
}

var bindingColumns = []column[*apiv1.RoleBinding]{
	{head: "ID", value: (*apiv1.RoleBinding).GetId},
	{head: "ROLE", value: (*apiv1.RoleBinding).GetRole},
	{head: "WHO", value: func(m *apiv1.RoleBinding) string {
		if m.GetGroup() != "" {
			return "group " + m.GetGroup()
		}
		return m.GetUser()
	}},
	{head: "WHERE", value: func(m *apiv1.RoleBinding) string {
		where := strings.ToLower(m.GetScope().String())
		if m.GetPlace() != "" {
			where += " " + m.GetPlace()
		}
		return where
	}},
	{head: "UNTIL", value: func(m *apiv1.RoleBinding) string {
		if m.GetExpiresAt() == nil {
			return ""
		}
		return local(m.GetExpiresAt())
	}},
	{head: "REASON", value: (*apiv1.RoleBinding).GetReason, text: true, wide: true},
	{head: "SHORTENED", value: (*apiv1.RoleBinding).GetShortened, text: true, wide: true},
	{head: "BY", value: (*apiv1.RoleBinding).GetCreatedBy, text: true, wide: true},
}

func (a *app) roleBinding() *cobra.Command {
	return command(a, noun[*apiv1.RoleBinding]{
		name: "role-binding", plural: "role-bindings", short: "Role bindings, which give a role to a user or a group in a place", in: []string{},
		filter: "user=kim", columns: bindingColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.RoleBinding, string, error) {
			r, err := c.RoleBindings.ListRoleBindings(ctx, &apiv1.ListRoleBindingsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetRoleBindings(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.RoleBinding, error) {
			r, err := c.RoleBindings.GetRoleBinding(ctx, &apiv1.GetRoleBindingRequest{RoleBinding: name})
			return r.GetRoleBinding(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.RoleBinding], error), error) {
			s, err := c.RoleBindings.WatchRoleBindings(ctx, &apiv1.WatchRoleBindingsRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchRoleBindingsResponse) change[*apiv1.RoleBinding] {
				return change[*apiv1.RoleBinding]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetRoleBinding()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Operation, error) {
			r, err := c.RoleBindings.DeleteRoleBinding(ctx, &apiv1.DeleteRoleBindingRequest{RoleBinding: name})
			return r.GetOperation(), err
		},
	}, a.createRoleBinding(), a.shortenRoleBinding())
}

func (a *app) shortenRoleBinding() *cobra.Command {
	return a.shorten("role-binding", "Make a role that somebody has end earlier", "  naru role-binding shorten ID --until 2026-12-31T18:00:00+09:00 --reason 'the work is done'", nil,
		func(ctx context.Context, c *client.Client, name string, _ scope, until *timestamppb.Timestamp, reason string) error {
			r, err := c.RoleBindings.ShortenRoleBinding(ctx, &apiv1.ShortenRoleBindingRequest{RoleBinding: name, ExpiresAt: until, Reason: reason})
			if err != nil {
				return err
			}
			return printOne(a, r.GetRoleBinding(), bindingColumns)
		})
}

func (a *app) createRoleBinding() *cobra.Command {
	m := &apiv1.RoleBinding{}
	places := map[apiv1.RoleBinding_Scope]*string{
		apiv1.RoleBinding_ORGANIZATION: new(string), apiv1.RoleBinding_PROJECT: new(string), apiv1.RoleBinding_ZONE: new(string),
	}
	var lifetime time.Duration
	var w waiting
	cmd := &cobra.Command{
		Use: "create ROLE", Short: "Give a role to a user or a group: in an organization with all below it, a project, a zone, or else the federation",
		Example: "  naru role-binding create zone-operator --user kim --zone business --lifetime 720h", Args: oneArgument,
	}
	f := cmd.Flags()
	f.StringVar(&m.User, "user", "", "the user who gets it")
	f.StringVar(&m.Group, "group", "", "the group whose members get it")
	f.StringVar(places[apiv1.RoleBinding_ORGANIZATION], "organization", "", "in this organization, and all that stands below it")
	f.StringVar(places[apiv1.RoleBinding_PROJECT], "project", "", "in this project")
	f.StringVar(places[apiv1.RoleBinding_ZONE], "zone", "", "for what is in this zone")
	lifetimeFlag(cmd, &lifetime, "lifetime", 0, "how long it lasts; without it, until it is taken away")
	f.StringVar(&m.Reason, "reason", "", "why, for those who read it later")
	w.flags(cmd)
	cmd.MarkFlagsMutuallyExclusive("user", "group")
	cmd.MarkFlagsOneRequired("user", "group")
	cmd.MarkFlagsMutuallyExclusive("organization", "project", "zone")
	for _, name := range []string{"user", "group", "organization", "project", "zone"} {
		a.completeNames(cmd, name, name)
	}
	a.completeArguments(cmd, "role", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			m.Role, m.Scope = args[0], apiv1.RoleBinding_FEDERATION
			for scope, place := range places {
				if *place != "" {
					m.Scope, m.Place = scope, *place
				}
			}
			if lifetime > 0 {
				m.ExpiresAt = timestamppb.New(a.began().Add(lifetime))
			}
			r, err := c.RoleBindings.CreateRoleBinding(ctx, &apiv1.CreateRoleBindingRequest{RoleBinding: m})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), w)
		})
	}
	return cmd
}

// auth is what there is to ask about rights.
func (a *app) auth() *cobra.Command {
	cmd := &cobra.Command{Use: "auth", Short: "Who may do what, and why"}
	cmd.AddCommand(a.explainAccess())
	return cmd
}

func (a *app) explainAccess() *cobra.Command {
	r := &apiv1.ExplainAccessRequest{}
	cmd := &cobra.Command{
		Use: "explain WHO METHOD [WHAT]", Short: "Say whether somebody may call a method on something, and why; WHO may be me",
		Example: "  naru auth explain kim VMService/StartVM vm/web-1 --project web\n  naru auth explain me ZoneService/UpdateZone zone/business",
		Args:    arguments(2, 3),
	}
	cmd.Flags().StringVar(&r.Project, "project", "", "the project of a VM")
	cmd.Flags().StringVar(&r.Zone, "zone", "", "as if at the edge of this zone")
	a.completeNames(cmd, "project", "project")
	a.completeNames(cmd, "zone", "zone")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.inMethods = true
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			if r.User = args[0]; r.User == "me" {
				r.User = ""
			}
			r.Method, r.What = args[1], "federation"
			if len(args) == 3 {
				r.What = args[2]
			}
			answer, err := c.Roles.ExplainAccess(ctx, r)
			if err != nil {
				return err
			}
			if a.documents() {
				return a.message(answer)
			}
			a.tellAccess(args[0], r, answer)
			return nil
		})
	}
	return cmd
}

// tellAccess writes an explanation for people.
func (a *app) tellAccess(who string, r *apiv1.ExplainAccessRequest, answer *apiv1.ExplainAccessResponse) {
	verdict := "may not"
	if answer.GetAllowed() {
		verdict = "may"
	}
	if who == "me" {
		who = "you"
	}
	fmt.Fprintf(a.out, "%s %s call %s on %s, which needs %s.\n", who, verdict, r.GetMethod(), r.GetWhat(), answer.GetPermission())
	for _, reason := range answer.GetReasons() {
		mark := "-"
		if reason.GetPermits() {
			mark = "+"
		}
		line := reason.GetMessage()
		if reason.GetRole() != "" {
			line = "role " + reason.GetRole() + " in " + reason.GetScope()
			if reason.GetGroup() != "" {
				line += " through group " + reason.GetGroup()
			}
			line += ": " + reason.GetMessage()
		}
		fmt.Fprintf(a.out, "%s %s\n", mark, printable(line))
	}
	if answer.GetAllowed() {
		return
	}
	if roles := answer.GetRoles(); len(roles) > 0 {
		fmt.Fprintf(a.out, "Roles that have it: %s.\n", strings.Join(roles, ", "))
	}
	givers := "an administrator of the federation"
	if len(answer.GetGivers()) > 0 {
		givers = strings.Join(answer.GetGivers(), ", ") + ", or " + givers
	}
	fmt.Fprintf(a.out, "Who could give one: %s.\n", givers)
}
