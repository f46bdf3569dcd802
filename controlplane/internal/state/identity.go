package state

import (
	"google.golang.org/protobuf/proto"
	"zombiezen.com/go/sqlite"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Keyring returns the federation's authorities, their keys sealed. Errors: ErrNotFound before the bootstrap.
func (tx *Tx) Keyring() (*commandv1.Keyring, error) {
	m := &commandv1.Keyring{}
	return m, tx.message(m, "SELECT message, crc FROM keyring")
}

// PutKeyring replaces the keyring.
func (tx *Tx) PutKeyring(m *commandv1.Keyring) error {
	b, err := tx.identity(m)
	if err != nil {
		return err
	}
	return tx.write("INSERT INTO keyring (one, crc, message) VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET crc=excluded.crc, message=excluded.message",
		checksum(b), b)
}

// JoinToken returns a token by its id. Errors: ErrNotFound.
func (tx *Tx) JoinToken(id string) (*commandv1.JoinToken, error) {
	m := &commandv1.JoinToken{}
	return m, tx.message(m, "SELECT message, crc FROM join_tokens WHERE id=?", id)
}

// PutJoinToken stores a token.
func (tx *Tx) PutJoinToken(m *commandv1.JoinToken) error {
	b, err := tx.identity(m)
	if err != nil {
		return err
	}
	return tx.write(`INSERT INTO join_tokens (id, expires_at, crc, message) VALUES (?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET expires_at=excluded.expires_at, crc=excluded.crc, message=excluded.message`,
		m.GetId(), Micros(m.GetExpiresAt()), checksum(b), b)
}

// ForgetJoinTokens removes the tokens that expired before the time in microseconds.
func (tx *Tx) ForgetJoinTokens(before int64) error {
	return tx.write("DELETE FROM join_tokens WHERE expires_at<?", before)
}

// Member returns the agent of a zone by name. Errors: ErrNotFound.
func (tx *Tx) Member(zoneID, agent string) (*commandv1.Member, error) {
	m := &commandv1.Member{}
	return m, tx.message(m, "SELECT message, crc FROM members WHERE zone_id=? AND agent=?", zoneID, agent)
}

// Members returns a zone's agents that have asked to join, or have joined, by name; with an empty id, those of all zones.
func (tx *Tx) Members(zoneID string) (members []*commandv1.Member, err error) {
	err = tx.query("SELECT message, crc FROM members WHERE ?1='' OR zone_id=?1 ORDER BY zone_id, agent", func(s *sqlite.Stmt) error {
		m := &commandv1.Member{}
		members = append(members, m)
		return decodeInto(s, m, "members")
	}, zoneID)
	return members, err
}

// PutMember stores a member.
func (tx *Tx) PutMember(m *commandv1.Member) error {
	b, err := tx.identity(m)
	if err != nil {
		return err
	}
	return tx.write(`INSERT INTO members (zone_id, agent, crc, message) VALUES (?, ?, ?, ?)
		ON CONFLICT (zone_id, agent) DO UPDATE SET crc=excluded.crc, message=excluded.message`, m.GetZoneId(), m.GetAgent(), checksum(b), b)
}

// Revoked returns all that are revoked, as "zone id" or "zone id/agent", in order.
func (tx *Tx) Revoked() (names []string, err error) {
	err = tx.query("SELECT name FROM revoked ORDER BY name", func(s *sqlite.Stmt) error {
		names = append(names, s.ColumnText(0))
		return nil
	})
	return names, err
}

// IsRevoked reports whether the zone, or this agent of it, is revoked.
func (tx *Tx) IsRevoked(zoneID, agent string) (revoked bool, err error) {
	err = tx.first("SELECT 1 FROM revoked WHERE name IN (?, ?) ORDER BY name LIMIT 1", func(*sqlite.Stmt) error {
		revoked = true
		return nil
	}, zoneID, revokedName(zoneID, agent))
	return revoked, ignoreMissing(err)
}

// Revoke refuses a zone, or one agent of it, for ever.
func (tx *Tx) Revoke(zoneID, agent string) error {
	tx.touch(TopicIdentity)
	return tx.write("INSERT INTO revoked (name) VALUES (?) ON CONFLICT DO NOTHING", revokedName(zoneID, agent))
}

func revokedName(zoneID, agent string) string {
	if agent == "" {
		return zoneID
	}
	return zoneID + "/" + agent
}

// identity encodes a message that is about to be written.
func (tx *Tx) identity(m proto.Message) ([]byte, error) {
	tx.touch(TopicIdentity)
	return encode(m)
}

// message reads the only row of a query into m. Errors: ErrNotFound.
func (tx *Tx) message(m proto.Message, sql string, args ...any) error {
	return tx.first(sql, func(s *sqlite.Stmt) error { return decodeInto(s, m, string(m.ProtoReflect().Descriptor().Name())) }, args...)
}

// ForgetMember removes an agent that has asked to be let in.
func (tx *Tx) ForgetMember(zoneID, agent string) error {
	tx.touch(TopicIdentity)
	return tx.write("DELETE FROM members WHERE zone_id=? AND agent=?", zoneID, agent)
}
