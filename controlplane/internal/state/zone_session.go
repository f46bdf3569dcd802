package state

import "zombiezen.com/go/sqlite"

// ZoneSession is a zone's newest session, connected or not.
type ZoneSession struct {
	ID []byte
	// Agent is who holds it in the zone, ServerID who does here.
	Agent, ServerID string
	Incarnation     string
	Connected       bool
}

// ZoneSession returns a zone's newest session. Errors: ErrNotFound.
func (tx *Tx) ZoneSession(zoneID string) (s ZoneSession, err error) {
	err = tx.first("SELECT session, agent, server_id, incarnation, connected FROM zone_sessions WHERE zone_id=?", func(q *sqlite.Stmt) error {
		s = ZoneSession{columnBytes(q, 0), q.ColumnText(1), q.ColumnText(2), q.ColumnText(3), q.ColumnBool(4)}
		return nil
	}, zoneID)
	return s, err
}

// OpenZoneSessions returns the session of each zone that is connected, by the zone's id.
func (tx *Tx) OpenZoneSessions() (map[string]ZoneSession, error) {
	open := map[string]ZoneSession{}
	err := tx.query("SELECT zone_id, session, agent, server_id, incarnation FROM zone_sessions WHERE connected=1 ORDER BY zone_id", func(q *sqlite.Stmt) error {
		open[q.ColumnText(0)] = ZoneSession{columnBytes(q, 1), q.ColumnText(2), q.ColumnText(3), q.ColumnText(4), true}
		return nil
	})
	return open, err
}

// PutZoneSession replaces a zone's session.
func (tx *Tx) PutZoneSession(zoneID string, s ZoneSession) error {
	return tx.write(`INSERT INTO zone_sessions (zone_id, session, agent, server_id, incarnation, connected) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (zone_id) DO UPDATE SET session=excluded.session, agent=excluded.agent, server_id=excluded.server_id,
		incarnation=excluded.incarnation, connected=excluded.connected`,
		zoneID, s.ID, s.Agent, s.ServerID, s.Incarnation, s.Connected)
}

// EndZoneSessions notes that no zone is connected: a new epoch has begun.
func (tx *Tx) EndZoneSessions() error {
	return tx.write("UPDATE zone_sessions SET connected=0 WHERE connected=1")
}
