package state

import (
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func notificationChannels() *spec[*apiv1.NotificationChannel] {
	return &spec[*apiv1.NotificationChannel]{
		noun: "notification_channel", plural: "notification_channels", named: true,
		zero:   func() *apiv1.NotificationChannel { return &apiv1.NotificationChannel{} },
		revise: func(m *apiv1.NotificationChannel, r string) { m.Revision = r },
		derive: deriveChannel, underive: func(m *apiv1.NotificationChannel) { m.Waiting, m.Dead = 0, 0 },
		columns: []column[*apiv1.NotificationChannel]{
			text("name", (*apiv1.NotificationChannel).GetName).asFixed(),
			flag("disabled", (*apiv1.NotificationChannel).GetDisabled),
			enum("grade", (*apiv1.NotificationChannel).GetGrade),
			moment("created_at", (*apiv1.NotificationChannel).GetCreatedAt).asFixed(),
		},
	}
}

// deriveChannel counts what waits for a channel and what was given up.
func deriveChannel(tx *Tx, m *apiv1.NotificationChannel) (err error) {
	if m.Waiting, err = tx.DeliveriesOf(m.GetId(), apiv1.Delivery_WAITING); err != nil {
		return err
	}
	m.Dead, err = tx.DeliveriesOf(m.GetId(), apiv1.Delivery_DEAD)
	return err
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
