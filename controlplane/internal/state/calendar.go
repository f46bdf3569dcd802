package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func calendars() *spec[*apiv1.Calendar] {
	return &spec[*apiv1.Calendar]{
		noun: "calendar", plural: "calendars", named: true,
		zero:   func() *apiv1.Calendar { return &apiv1.Calendar{} },
		revise: func(m *apiv1.Calendar, r string) { m.Revision = r },
		columns: []column[*apiv1.Calendar]{
			text("name", (*apiv1.Calendar).GetName).asFixed(),
			text("title", (*apiv1.Calendar).GetTitle),
			text("time_zone", (*apiv1.Calendar).GetTimeZone),
			moment("created_at", (*apiv1.Calendar).GetCreatedAt),
		},
	}
}
