package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func reservations() *spec[*apiv1.Reservation] {
	return &spec[*apiv1.Reservation]{
		noun: "reservation", plural: "reservations", usual: "id",
		zero:   func() *apiv1.Reservation { return &apiv1.Reservation{} },
		revise: func(m *apiv1.Reservation, r string) { m.Revision = r },
		columns: []column[*apiv1.Reservation]{
			text("project", (*apiv1.Reservation).GetProject).asFixed(),
			text("project_id", (*apiv1.Reservation).GetProjectId).asFixed(),
			text("zone", (*apiv1.Reservation).GetZone).asFixed(),
			text("zone_id", (*apiv1.Reservation).GetZoneId).asFixed(),
			text("cluster", (*apiv1.Reservation).GetCluster).asFixed(),
			text("cluster_id", (*apiv1.Reservation).GetClusterId).asFixed(),
			enum("desired_state", (*apiv1.Reservation).GetDesiredState),
			enum("state", (*apiv1.Reservation).GetState),
			number("quantity", (*apiv1.Reservation).GetQuantity),
			moment("hold_until", (*apiv1.Reservation).GetHoldUntil),
			moment("created_at", (*apiv1.Reservation).GetCreatedAt),
			hidden("generation", func(m *apiv1.Reservation) uint64 { return m.GetGeneration().GetIndex() }),
		},
		further: []string{"(zone_id, generation)", "(hold_until)"},
	}
}

// PastReservations returns up to limit reservations whose time was over before the time in microseconds, earliest first.
func (tx *Tx) PastReservations(before int64, limit int) ([]*apiv1.Reservation, error) {
	t := tx.Reservations
	return t.collect(t.spec.text.all+" WHERE hold_until<? ORDER BY hold_until, id"+atMost, before, limit)
}
