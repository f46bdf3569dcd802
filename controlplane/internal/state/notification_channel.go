package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func notificationChannels() *spec[*apiv1.NotificationChannel] {
	return &spec[*apiv1.NotificationChannel]{
		noun: "notification_channel", plural: "notification_channels", named: true,
		zero:   func() *apiv1.NotificationChannel { return &apiv1.NotificationChannel{} },
		revise: func(m *apiv1.NotificationChannel, r string) { m.Revision = r },
		derive: deriveChannel, underive: func(m *apiv1.NotificationChannel) { m.Waiting, m.Dead, m.Dropped = 0, 0, 0 },
		columns: []column[*apiv1.NotificationChannel]{
			text("name", (*apiv1.NotificationChannel).GetName).asFixed(),
			flag("disabled", (*apiv1.NotificationChannel).GetDisabled),
			enum("grade", (*apiv1.NotificationChannel).GetGrade),
			moment("created_at", (*apiv1.NotificationChannel).GetCreatedAt).asFixed(),
		},
	}
}

// deriveChannel counts what waits for a channel, what was given up and what was never written.
func deriveChannel(tx *Tx, m *apiv1.NotificationChannel) (err error) {
	err = tx.query("SELECT number FROM dropped WHERE channel_id=?", func(s *sqlite.Stmt) error {
		m.Dropped = uint32(s.ColumnInt64(0))
		return nil
	}, m.GetId())
	if err != nil {
		return err
	}
	if m.Waiting, err = tx.DeliveriesOf(m.GetId(), apiv1.Delivery_WAITING); err != nil {
		return err
	}
	m.Dead, err = tx.DeliveriesOf(m.GetId(), apiv1.Delivery_DEAD)
	return err
}

// Channels returns those that are not disabled, without what is reckoned of them.
func (tx *Tx) Channels() ([]*apiv1.NotificationChannel, error) {
	bare := *tx.NotificationChannels.spec
	bare.derive = nil
	t := Table[*apiv1.NotificationChannel]{tx, &bare}
	return t.collect(t.spec.text.all + " WHERE disabled=0 ORDER BY id")
}

// Drop counts deliveries of a channel that are not written. The channel itself stays as it is: whoever edits it is not in the way.
func (tx *Tx) Drop(channelID string, n int) error {
	return tx.write("INSERT INTO dropped (channel_id, number) VALUES (?, ?) ON CONFLICT (channel_id) DO UPDATE SET number=number+excluded.number", channelID, n)
}

// ForgetDropped begins to count anew.
func (tx *Tx) ForgetDropped(channelID string) error {
	return tx.write("DELETE FROM dropped WHERE channel_id=?", channelID)
}

// ChannelSecrets returns what is kept of a channel, sealed. Errors: ErrNotFound.
func (tx *Tx) ChannelSecrets(channelID string) (*commandv1.ChannelSecrets, error) {
	m := &commandv1.ChannelSecrets{}
	return m, tx.message(m, "SELECT message, crc FROM channel_secrets WHERE channel_id=?", channelID)
}

// PutChannelSecrets stores it.
func (tx *Tx) PutChannelSecrets(m *commandv1.ChannelSecrets) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	return tx.write("INSERT INTO channel_secrets (channel_id, crc, message) VALUES (?, ?, ?) ON CONFLICT (channel_id) DO UPDATE SET crc=excluded.crc, message=excluded.message",
		m.GetChannelId(), checksum(b), b)
}

// ForgetChannelSecrets removes it.
func (tx *Tx) ForgetChannelSecrets(channelID string) error {
	return tx.write("DELETE FROM channel_secrets WHERE channel_id=?", channelID)
}
