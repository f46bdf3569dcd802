package state

import (
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func deliveries() *spec[*apiv1.Delivery] {
	return &spec[*apiv1.Delivery]{
		noun: "delivery", plural: "deliveries", usual: "created_at desc",
		zero:   func() *apiv1.Delivery { return &apiv1.Delivery{} },
		revise: func(m *apiv1.Delivery, r string) { m.Revision = r },
		columns: []column[*apiv1.Delivery]{
			text("channel", (*apiv1.Delivery).GetChannel).asFixed(),
			text("channel_id", (*apiv1.Delivery).GetChannelId).asFixed(),
			enum("state", (*apiv1.Delivery).GetState),
			text("topic", func(m *apiv1.Delivery) string { return m.GetNotification().GetTopic() }).asFixed(),
			text("about", func(m *apiv1.Delivery) string { return m.GetNotification().GetAbout().GetName() }).asFixed(),
			text("recipient", func(m *apiv1.Delivery) string { return strings.Join(m.GetRecipients(), " ") }).asFixed(),
			number("attempts", (*apiv1.Delivery).GetAttempts),
			moment("due", due).asHidden(),
			moment("created_at", (*apiv1.Delivery).GetCreatedAt).asFixed(),
		},
		further: []string{"(channel_id, state, due)", "(state, due)", "(created_at)"},
	}
}

// due is when something becomes of a delivery: it is to be sent, or it has ended and will be forgotten.
func due(m *apiv1.Delivery) *timestamppb.Timestamp {
	if m.GetState() == apiv1.Delivery_WAITING {
		return m.GetNextAttemptAt()
	}
	return m.GetEndedAt()
}

// DueDeliveries returns what is to be sent through a channel at a time in microseconds, what is due longest first: at most limit.
func (tx *Tx) DueDeliveries(channelID string, at int64, limit int) ([]*apiv1.Delivery, error) {
	t := tx.Deliveries
	return t.collect(t.spec.text.all+" WHERE channel_id=? AND state=? AND due<=? ORDER BY due, id"+atMost, channelID, int64(apiv1.Delivery_WAITING), at, limit)
}

// DeliveriesOf returns how many deliveries of a channel are in a state.
func (tx *Tx) DeliveriesOf(channelID string, in apiv1.Delivery_State) (n uint32, err error) {
	err = tx.query("SELECT count(*) FROM deliveries WHERE channel_id=? AND state=?", func(s *sqlite.Stmt) error {
		n = uint32(s.ColumnInt64(0))
		return nil
	}, channelID, int64(in))
	return n, err
}

// KeepDeliveries forgets the deliveries of a channel that ended in a state longest ago, but for so many.
func (tx *Tx) KeepDeliveries(channelID string, in apiv1.Delivery_State, keep int) error {
	return tx.forget("deliveries", "SELECT id FROM deliveries WHERE channel_id=? AND state=? ORDER BY due DESC, id DESC LIMIT -1 OFFSET +?", channelID, int64(in), keep)
}

// ForgetDeliveries removes up to limit deliveries that ended in a state before the time in microseconds.
func (tx *Tx) ForgetDeliveries(in apiv1.Delivery_State, before int64, limit int) error {
	return tx.forget("deliveries", "SELECT id FROM deliveries WHERE state=? AND due<? ORDER BY due, id"+atMost, int64(in), before, limit)
}

// ForgetDeliveriesOf removes all of a channel that is deleted.
func (tx *Tx) ForgetDeliveriesOf(channelID string) error {
	tx.touch("deliveries")
	return tx.write("DELETE FROM deliveries WHERE channel_id=?", channelID)
}
