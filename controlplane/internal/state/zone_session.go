package state

import "zombiezen.com/go/sqlite"

// Session is a zone's newest session, connected or not.
type Session struct {
	ID []byte
	// Agent is who holds it in the zone, ServerID who does here.
	Agent, ServerID string
	Incarnation     string
	Connected       bool
}

// Session returns a zone's newest session. Errors: ErrNotFound.
func (tx *Tx) Session(zoneID string) (s Session, err error) {
	err = tx.first("SELECT session, agent, server_id, incarnation, connected FROM sessions WHERE zone_id=?", func(q *sqlite.Stmt) error {
		s = Session{columnBytes(q, 0), q.ColumnText(1), q.ColumnText(2), q.ColumnText(3), q.ColumnBool(4)}
		return nil
	}, zoneID)
	return s, err
}

// PutSession replaces a zone's session.
func (tx *Tx) PutSession(zoneID string, s Session) error {
	return tx.write(`INSERT INTO sessions (zone_id, session, agent, server_id, incarnation, connected) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (zone_id) DO UPDATE SET session=excluded.session, agent=excluded.agent, server_id=excluded.server_id,
		incarnation=excluded.incarnation, connected=excluded.connected`,
		zoneID, s.ID, s.Agent, s.ServerID, s.Incarnation, s.Connected)
}

// EndSessions notes that no zone is connected: a new epoch has begun.
func (tx *Tx) EndSessions() error {
	return tx.write("UPDATE sessions SET connected=0 WHERE connected=1")
}
