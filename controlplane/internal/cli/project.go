package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var projectColumns = []column[*apiv1.Project]{
	{head: "NAME", value: (*apiv1.Project).GetName},
	{head: "ORGANIZATION", value: (*apiv1.Project).GetOrganization},
	{head: "DESCRIPTION", value: (*apiv1.Project).GetDescription, text: true},
	{head: "AGE", value: func(m *apiv1.Project) string { return age(m.GetCreatedAt()) }},
	{head: "GRADE", value: func(m *apiv1.Project) string { return lower(m.GetGrade()) }},
	{head: "ID", value: (*apiv1.Project).GetId, wide: true},
}

func (a *app) projectNoun() noun[*apiv1.Project] {
	return noun[*apiv1.Project]{
		name: "project", plural: "projects", short: "Projects, which own VMs", in: []string{}, filter: "name~web", columns: projectColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Project, string, error) {
			r, err := c.Projects.ListProjects(ctx, &apiv1.ListProjectsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetProjects(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Project, error) {
			r, err := c.Projects.GetProject(ctx, &apiv1.GetProjectRequest{Project: name})
			return r.GetProject(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Project], error), error) {
			s, err := c.Projects.WatchProjects(ctx, &apiv1.WatchProjectsRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchProjectsResponse) change[*apiv1.Project] {
				return change[*apiv1.Project]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetProject()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Projects.DeleteProject(ctx, &apiv1.DeleteProjectRequest{Project: name})
			return r.GetOperation(), err
		},
		make: "Make a project",
		fields: func(f *pflag.FlagSet, m *apiv1.Project) {
			wordFlag(f, m, "grade", " (open): of what its VMs hold")
			f.StringVar(&m.Description, "description", "", "for people")
			f.StringVar(&m.Organization, "organization", "", "the organization it belongs to (default)")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.Project) (*apiv1.Operation, error) {
			r, err := c.Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{Project: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Project, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.Project, error) {
			r, err := c.Projects.UpdateProject(ctx, &apiv1.UpdateProjectRequest{Project: m, UpdateMask: mask})
			return r.GetProject(), err
		},
	}
}

func (a *app) project() *cobra.Command {
	return command(a, a.projectNoun())
}
