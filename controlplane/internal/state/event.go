package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func events() *spec[*apiv1.Event] {
	return &spec[*apiv1.Event]{
		noun: "event", plural: "events", usual: "time desc",
		zero:   func() *apiv1.Event { return &apiv1.Event{} },
		revise: func(m *apiv1.Event, r string) { m.Revision = r },
		columns: []column[*apiv1.Event]{
			moment("time", (*apiv1.Event).GetTime).asFixed(),
			enum("severity", (*apiv1.Event).GetSeverity).asFixed(),
			text("type", (*apiv1.Event).GetType).asFixed(),
			text("zone", (*apiv1.Event).GetZone).asFixed(),
			text("zone_id", (*apiv1.Event).GetZoneId).asFixed(),
			text("project", (*apiv1.Event).GetProject).asFixed(),
			text("project_id", (*apiv1.Event).GetProjectId).asFixed(),
			text("target_kind", func(m *apiv1.Event) string { return m.GetTarget().GetKind() }).asFixed(),
			text("target_id", func(m *apiv1.Event) string { return m.GetTarget().GetId() }).asFixed(),
			text("target", func(m *apiv1.Event) string { return m.GetTarget().GetName() }).asFixed(),
		},
		further: []string{"(time)"},
	}
}

// EventsNow returns the events of types that begin so and that the command being carried out has written.
func (tx *Tx) EventsNow(types string) ([]*apiv1.Event, error) {
	t := tx.Events
	return t.collect(t.spec.text.all+" WHERE revision=?1 AND substr(type, 1, length(?2))=?2 ORDER BY id", tx.meta.Revision, types)
}

// ForgetEvents removes up to limit events from before the time in microseconds.
func (tx *Tx) ForgetEvents(before int64, limit int) error {
	return tx.forget("events", "SELECT id FROM events WHERE time<? ORDER BY time, id"+atMost, before, limit)
}
