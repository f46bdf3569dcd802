package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var projectColumns = []column[*apiv1.Project]{
	{head: "NAME", value: (*apiv1.Project).GetName},
	{head: "DESCRIPTION", value: (*apiv1.Project).GetDescription},
	{head: "AGE", value: func(m *apiv1.Project) string { return age(m.GetCreatedAt()) }},
	{head: "ID", value: (*apiv1.Project).GetId, wide: true},
}

func (a *app) projectNoun() noun[*apiv1.Project] {
	return noun[*apiv1.Project]{
		name: "project", plural: "projects", short: "Projects, which own VMs", in: []string{}, columns: projectColumns,
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
			return received(s, err, func(m *apiv1.WatchProjectsResponse) change[*apiv1.Project] {
				return change[*apiv1.Project]{m.GetType(), m.GetRevision(), m.GetProject()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Projects.DeleteProject(ctx, &apiv1.DeleteProjectRequest{Project: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) project() *cobra.Command {
	return command(a, a.projectNoun(), a.createProject())
}

func (a *app) createProject() *cobra.Command {
	var w waiting
	m := &apiv1.Project{}
	cmd := &cobra.Command{Use: "create NAME", Short: "Make a project", Args: oneArgument}
	cmd.Flags().StringVar(&m.Description, "description", "", "for people")
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			m.Name = args[0]
			r, err := c.Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{Project: m})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), w)
		})
	}
	return cmd
}
