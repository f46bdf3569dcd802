package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var organizationColumns = []column[*apiv1.Organization]{
	{head: "NAME", value: (*apiv1.Organization).GetName},
	{head: "TITLE", value: (*apiv1.Organization).GetTitle, text: true},
	{head: "BELOW", value: (*apiv1.Organization).GetParent},
	{head: "DESCRIPTION", value: (*apiv1.Organization).GetDescription, text: true, wide: true},
	{head: "AGE", value: func(m *apiv1.Organization) string { return age(m.GetCreatedAt()) }},
	{head: "ID", value: (*apiv1.Organization).GetId, wide: true},
}

func (a *app) organizationNoun() noun[*apiv1.Organization] {
	return noun[*apiv1.Organization]{
		name: "organization", plural: "organizations", short: "Organizations, a tree of those who own projects", in: []string{}, filter: "parent=ministry",
		columns: organizationColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Organization, string, error) {
			r, err := c.Organizations.ListOrganizations(ctx, &apiv1.ListOrganizationsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetOrganizations(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Organization, error) {
			r, err := c.Organizations.GetOrganization(ctx, &apiv1.GetOrganizationRequest{Organization: name})
			return r.GetOrganization(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Organization], error), error) {
			s, err := c.Organizations.WatchOrganizations(ctx, &apiv1.WatchOrganizationsRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchOrganizationsResponse) change[*apiv1.Organization] {
				return change[*apiv1.Organization]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetOrganization()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Organizations.DeleteOrganization(ctx, &apiv1.DeleteOrganizationRequest{Organization: name})
			return r.GetOperation(), err
		},
		make: "Make an organization",
		fields: func(f *pflag.FlagSet, m *apiv1.Organization) {
			f.StringVar(&m.Title, "title", "", "what people call it")
			f.StringVar(&m.Parent, "parent", "", "the organization it stands below")
			f.StringVar(&m.Description, "description", "", "for people")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.Organization) (*apiv1.Operation, error) {
			r, err := c.Organizations.CreateOrganization(ctx, &apiv1.CreateOrganizationRequest{Organization: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Organization, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.Organization, error) {
			r, err := c.Organizations.UpdateOrganization(ctx, &apiv1.UpdateOrganizationRequest{Organization: m, UpdateMask: mask})
			return r.GetOrganization(), err
		},
	}
}

func (a *app) organization() *cobra.Command {
	cmd := command(a, a.organizationNoun())
	cmd.Aliases = append(cmd.Aliases, "org")
	return cmd
}
