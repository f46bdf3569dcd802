package state

import (
	"encoding/hex"

	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func sessions() *spec[*apiv1.Session] {
	return &spec[*apiv1.Session]{
		noun: "session", plural: "sessions", usual: "created_at",
		zero:   func() *apiv1.Session { return &apiv1.Session{} },
		revise: func(m *apiv1.Session, r string) { m.Revision = r },
		columns: []column[*apiv1.Session]{
			text("user", (*apiv1.Session).GetUser).asFixed(),
			text("user_id", (*apiv1.Session).GetUserId).asFixed(),
			text("zone", (*apiv1.Session).GetZone).asFixed(),
			text("zone_id", (*apiv1.Session).GetZoneId).asFixed(),
			enum("strength", (*apiv1.Session).GetStrength),
			text("client", (*apiv1.Session).GetClient).asFixed(),
			moment("expires_at", (*apiv1.Session).GetExpiresAt),
			text("identity_provider", (*apiv1.Session).GetIdentityProvider).asFixed(),
			text("identity_id", (*apiv1.Session).GetIdentityId).asFixed().asHidden(),
			moment("created_at", (*apiv1.Session).GetCreatedAt),
			text("secret_hash", func(m *apiv1.Session) string { return hex.EncodeToString(m.GetSecretHash()) }).asHidden(),
		},
		further: []string{"(user_id)", "(secret_hash)", "(expires_at)", "(identity_id) WHERE identity_id<>''"},
	}
}

// SessionsOf returns the sessions of a user, the oldest first.
func (tx *Tx) SessionsOf(userID string) (all []*apiv1.Session, err error) {
	err = tx.query(tx.Sessions.spec.text.all+" WHERE user_id=? ORDER BY created_at, id", func(s *sqlite.Stmt) error {
		m, err := tx.Sessions.decode(s)
		all = append(all, m)
		return err
	}, userID)
	return all, err
}

// HasSessionOf reports whether there is a session whose secret has the SHA-256.
func (tx *Tx) HasSessionOf(secretHash []byte) (has bool, err error) {
	err = tx.first("SELECT 1 FROM sessions WHERE secret_hash=? LIMIT 1", func(*sqlite.Stmt) error {
		has = true
		return nil
	}, hex.EncodeToString(secretHash))
	return has, ignoreMissing(err)
}

// ForgetSessions removes at most limit sessions that have ended before a time, in microseconds since 1970.
func (tx *Tx) ForgetSessions(before int64, limit int) error {
	tx.touch("sessions")
	return tx.write("DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at<? ORDER BY expires_at, id"+atMost+")", before, limit)
}
