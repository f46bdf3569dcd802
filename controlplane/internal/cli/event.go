package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var eventColumns = []column[*apiv1.Event]{
	{head: "TIME", value: func(m *apiv1.Event) string { return local(m.GetTime()) }},
	{head: "SEVERITY", value: func(m *apiv1.Event) string { return lower(m.GetSeverity()) }, state: true},
	{head: "TYPE", value: (*apiv1.Event).GetType},
	{head: "ZONE", value: (*apiv1.Event).GetZone},
	{head: "TARGET", value: func(m *apiv1.Event) string { return m.GetTarget().GetName() }},
	{head: "MESSAGE", value: (*apiv1.Event).GetMessage, text: true},
}

func (a *app) eventNoun() noun[*apiv1.Event] {
	return noun[*apiv1.Event]{
		name: "event", plural: "events", short: "Events: what happened", in: []string{"project", "zone"}, filter: "severity=error", history: true, columns: eventColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Event, string, error) {
			r, err := c.Events.ListEvents(ctx, &apiv1.ListEventsRequest{Project: q.project, Zone: q.zone, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetEvents(), r.GetNextPageToken(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Event], error), error) {
			s, err := c.Events.WatchEvents(ctx, &apiv1.WatchEventsRequest{After: after, Project: q.project, Zone: q.zone, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchEventsResponse) change[*apiv1.Event] {
				return change[*apiv1.Event]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetEvent()}
			})
		},
	}
}

func (a *app) event() *cobra.Command {
	return command(a, a.eventNoun())
}
