package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var crossingColumns = []column[*apiv1.Crossing]{
	{head: "PROJECT", value: (*apiv1.Crossing).GetProject},
	{head: "FROM", value: (*apiv1.Crossing).GetSourceZone},
	{head: "TO", value: (*apiv1.Crossing).GetZone},
	{head: "PERMITS", value: func(m *apiv1.Crossing) string { return strings.Join(m.GetPermissions(), ", ") }, text: true},
	{head: "ENDS", value: func(m *apiv1.Crossing) string { return local(m.GetEndsAt()) }},
	{head: "REQUEST", value: (*apiv1.Crossing).GetRequest},
	{head: "REASON", value: (*apiv1.Crossing).GetReason, text: true, wide: true},
	{head: "SHORTENED", value: (*apiv1.Crossing).GetShortened, text: true, wide: true},
	{head: "BY", value: (*apiv1.Crossing).GetCreatedBy, text: true, wide: true},
	{head: "ID", value: (*apiv1.Crossing).GetId},
}

func (a *app) crossingNoun() noun[*apiv1.Crossing] {
	return noun[*apiv1.Crossing]{
		name: "crossing", plural: "crossings", short: "Crossings: what a project's people may change from one zone in another, and until when", in: []string{}, filter: "zone=business", columns: crossingColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Crossing, string, error) {
			r, err := c.Crossings.ListCrossings(ctx, &apiv1.ListCrossingsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetCrossings(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Crossing, error) {
			r, err := c.Crossings.GetCrossing(ctx, &apiv1.GetCrossingRequest{Crossing: name})
			return r.GetCrossing(), err
		},
		remove: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Operation, error) {
			r, err := c.Crossings.DeleteCrossing(ctx, &apiv1.DeleteCrossingRequest{Crossing: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) crossing() *cobra.Command {
	return command(a, a.crossingNoun(), a.createCrossing(), a.shortenCrossing())
}

func (a *app) shortenCrossing() *cobra.Command {
	return a.shorten("crossing", "Make a crossing end earlier", "  naru crossing shorten ID --until 2026-12-31T18:00:00+09:00 --reason 'the migration is done'", nil,
		func(ctx context.Context, c *client.Client, name string, _ scope, until *timestamppb.Timestamp, reason string) error {
			r, err := c.Crossings.ShortenCrossing(ctx, &apiv1.ShortenCrossingRequest{Crossing: name, EndsAt: until, Reason: reason})
			if err != nil {
				return err
			}
			return printOne(a, r.GetCrossing(), crossingColumns)
		})
}

func (a *app) createCrossing() *cobra.Command {
	var m apiv1.Crossing
	var days uint32
	cmd := &cobra.Command{
		Use: "create --project PROJECT --from ZONE --to ZONE --permission PERMISSION --days DAYS", Short: "Let a project's people cross without a request, as an administrator", Args: noArguments,
		Long: `Let a project's people change from the edge of one zone what the project has in another. Whoever is not an administrator of the
federation asks for that, and both sides approve it: naru request create --crossing.`,
		Example: `  naru crossing create --project web --from internet --to business --permission vm.start --permission vm.stop --days 30 --reason 'on call'`,
	}
	f := cmd.Flags()
	f.StringVar(&m.Project, "project", "", "whose people")
	f.StringVar(&m.SourceZone, "from", "", "`zone` at whose edge they are")
	f.StringVar(&m.Zone, "to", "", "`zone` in which they change something")
	f.StringArrayVar(&m.Permissions, "permission", nil, "vm.start, snapshot.*; may be given again")
	f.Uint32Var(&days, "days", 0, "how long, 366 at most")
	f.StringVar(&m.Reason, "reason", "", "why")
	for _, name := range []string{"project", "from", "to", "permission", "days"} {
		cmd.MarkFlagRequired(name)
	}
	a.completeNames(cmd, "project", "project")
	a.completeNames(cmd, "from", "zone")
	a.completeNames(cmd, "to", "zone")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			m.EndsAt = timestamppb.New(a.began().AddDate(0, 0, int(days)))
			r, err := c.Crossings.CreateCrossing(ctx, &apiv1.CreateCrossingRequest{Crossing: &m})
			if err != nil {
				return err
			}
			return printOne(a, r.GetOperation(), operationColumns)
		})
	}
	return cmd
}
