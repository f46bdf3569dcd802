package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var calendarColumns = []column[*apiv1.Calendar]{
	{head: "NAME", value: (*apiv1.Calendar).GetName},
	{head: "TIME_ZONE", value: (*apiv1.Calendar).GetTimeZone},
	{head: "HOLIDAYS", value: func(m *apiv1.Calendar) string { return strconv.Itoa(len(m.GetHolidays())) }},
	{head: "TITLE", value: (*apiv1.Calendar).GetTitle, text: true},
	{head: "ID", value: (*apiv1.Calendar).GetId, wide: true},
	{head: "AGE", value: func(m *apiv1.Calendar) string { return age(m.GetCreatedAt()) }, wide: true},
}

func (a *app) calendarNoun() noun[*apiv1.Calendar] {
	return noun[*apiv1.Calendar]{
		name: "calendar", plural: "calendars", short: "Working hours and holidays, by which due times are reckoned", in: []string{}, filter: "time_zone~Asia", columns: calendarColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Calendar, string, error) {
			r, err := c.Calendars.ListCalendars(ctx, &apiv1.ListCalendarsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetCalendars(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Calendar, error) {
			r, err := c.Calendars.GetCalendar(ctx, &apiv1.GetCalendarRequest{Calendar: name})
			return r.GetCalendar(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Calendar], error), error) {
			s, err := c.Calendars.WatchCalendars(ctx, &apiv1.WatchCalendarsRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchCalendarsResponse) change[*apiv1.Calendar] {
				return change[*apiv1.Calendar]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetCalendar()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Calendars.DeleteCalendar(ctx, &apiv1.DeleteCalendarRequest{Calendar: name})
			return r.GetOperation(), err
		},
		make: "Make a calendar",
	}
}

func (a *app) calendar() *cobra.Command {
	n := a.calendarNoun()
	return command(a, n, written(a, n, func(ctx context.Context, c *client.Client, m *apiv1.Calendar) (*apiv1.Operation, error) {
		r, err := c.Calendars.CreateCalendar(ctx, &apiv1.CreateCalendarRequest{Calendar: m})
		return r.GetOperation(), err
	}, func(ctx context.Context, c *client.Client, m *apiv1.Calendar, mask *fieldmaskpb.FieldMask) (*apiv1.Calendar, error) {
		r, err := c.Calendars.UpdateCalendar(ctx, &apiv1.UpdateCalendarRequest{Calendar: m, UpdateMask: mask})
		return r.GetCalendar(), err
	})...)
}
