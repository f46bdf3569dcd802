package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// TopicNotices is what watches hear of when something is to be told of which it is still to be found out whom it concerns.
const TopicNotices = "notices"

func notifications() *spec[*apiv1.Notification] {
	return &spec[*apiv1.Notification]{
		noun: "notification", plural: "notifications", usual: "created_at desc",
		zero:   func() *apiv1.Notification { return &apiv1.Notification{} },
		revise: func(m *apiv1.Notification, r string) { m.Revision = r },
		columns: []column[*apiv1.Notification]{
			text("topic", (*apiv1.Notification).GetTopic).asFixed(),
			text("user_id", (*apiv1.Notification).GetUserId).asFixed().asHidden(),
			text("about_id", func(m *apiv1.Notification) string { return m.GetAbout().GetId() }).asFixed().asHidden(),
			flag("read", (*apiv1.Notification).GetRead),
			moment("created_at", (*apiv1.Notification).GetCreatedAt).asFixed(),
		},
		further: []string{"(user_id, created_at, id)", "(user_id) WHERE read=0", "(about_id) WHERE read=0", "(created_at)"},
	}
}

// Unread returns how many of a user's notifications they have not read.
func (tx *Tx) Unread(userID string) (n uint32, err error) {
	err = tx.query("SELECT count(*) FROM notifications WHERE user_id=? AND read=0", func(s *sqlite.Stmt) error {
		n = uint32(s.ColumnInt64(0))
		return nil
	}, userID)
	return n, err
}

// UnreadUpTo returns those of a user's notifications that they have not read: one, and all before it.
func (tx *Tx) UnreadUpTo(userID, id string) ([]*apiv1.Notification, error) {
	t := tx.Notifications
	return t.collect(t.spec.text.all+" WHERE user_id=? AND read=0 AND id<=? ORDER BY id", userID, id)
}

// UnreadAbout returns the notifications of some topics about something that nobody has read, whosever they are: at most limit.
func (tx *Tx) UnreadAbout(aboutID string, topics []string, limit int) (out []*apiv1.Notification, err error) {
	t := tx.Notifications
	for _, topic := range topics {
		found, err := t.collect(t.spec.text.all+" WHERE about_id=? AND read=0 AND topic=? ORDER BY id"+atMost, aboutID, topic, limit)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// KeepNotifications forgets the oldest of a user's notifications, but for so many.
func (tx *Tx) KeepNotifications(userID string, keep int) error {
	return tx.forget("notifications", "SELECT id FROM notifications WHERE user_id=? ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET +?", userID, keep)
}

// ForgetNotifications removes up to limit notifications, and what is still to be addressed, from before the time in microseconds.
func (tx *Tx) ForgetNotifications(before int64, limit int) error {
	if err := tx.write("DELETE FROM notices WHERE time<?", before); err != nil {
		return err
	}
	return tx.forget("notifications", "SELECT id FROM notifications WHERE created_at<? ORDER BY created_at, id"+atMost, before, limit)
}

// ForgetNotificationsOf removes what a user was told.
func (tx *Tx) ForgetNotificationsOf(userID string) error {
	return tx.write("DELETE FROM notifications WHERE user_id=?", userID)
}

// PutNotice notes something of which it is still to be found out whom it concerns.
func (tx *Tx) PutNotice(m *commandv1.Notice) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	tx.touch(TopicNotices)
	return tx.write("INSERT INTO notices (id, time, crc, message) VALUES (?, ?, ?, ?)",
		m.GetNotification().GetId(), Micros(m.GetNotification().GetCreatedAt()), checksum(b), b)
}

// Notice returns one. Errors: ErrNotFound.
func (tx *Tx) Notice(id string) (*commandv1.Notice, error) {
	m := &commandv1.Notice{}
	return m, tx.message(m, "SELECT message, crc FROM notices WHERE id=?", id)
}

// Notices returns what is still to be addressed: at most limit, behind the id after.
func (tx *Tx) Notices(after string, limit int) (out []*commandv1.Notice, err error) {
	err = tx.query("SELECT message, crc FROM notices WHERE id>? ORDER BY id"+atMost, func(s *sqlite.Stmt) error {
		m := &commandv1.Notice{}
		out = append(out, m)
		return decodeInto(s, m, "notices")
	}, after, limit)
	return out, err
}

// ForgetNotice removes one that is addressed.
func (tx *Tx) ForgetNotice(id string) error {
	return tx.write("DELETE FROM notices WHERE id=?", id)
}
