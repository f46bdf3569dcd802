package state

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func crossings() *spec[*apiv1.Crossing] {
	return &spec[*apiv1.Crossing]{
		noun: "crossing", plural: "crossings", usual: "ends_at desc",
		zero:   func() *apiv1.Crossing { return &apiv1.Crossing{} },
		revise: func(m *apiv1.Crossing, r string) { m.Revision = r },
		columns: []column[*apiv1.Crossing]{
			text("project", (*apiv1.Crossing).GetProject),
			text("project_id", (*apiv1.Crossing).GetProjectId).asFixed(),
			text("source_zone", (*apiv1.Crossing).GetSourceZone).asFixed(),
			text("source_zone_id", (*apiv1.Crossing).GetSourceZoneId).asFixed(),
			text("zone", (*apiv1.Crossing).GetZone).asFixed(),
			text("zone_id", (*apiv1.Crossing).GetZoneId).asFixed(),
			text("request", (*apiv1.Crossing).GetRequest).asFixed(),
			moment("ends_at", (*apiv1.Crossing).GetEndsAt),
			moment("created_at", (*apiv1.Crossing).GetCreatedAt).asFixed(),
		},
		further: []string{"(source_zone_id)", "(zone_id)", "(project_id)", "(ends_at)"},
	}
}

// CrossingsFrom returns what may be done from the edge of a zone in others, by crossings that have not ended at a time.
func (tx *Tx) CrossingsFrom(zoneID string, at *timestamppb.Timestamp) ([]*apiv1.Crossing, error) {
	t := tx.Crossings
	return t.collect(t.spec.text.all+" WHERE source_zone_id=? AND ends_at>? ORDER BY id", zoneID, Micros(at))
}

// ForgetCrossings removes the crossings that ended before a time in microseconds, at most so many of them.
func (tx *Tx) ForgetCrossings(before int64, limit int) error {
	return tx.Crossings.deleteRows("SELECT id FROM crossings WHERE ends_at<? ORDER BY id"+atMost, before, limit)
}

// ForgetCrossingsOf removes those of a zone, on either side, or of a project that is deleted.
func (tx *Tx) ForgetCrossingsOf(id string) error {
	return tx.Crossings.deleteRows("SELECT id FROM crossings WHERE zone_id=?1 OR source_zone_id=?1 OR project_id=?1 ORDER BY id", id)
}
