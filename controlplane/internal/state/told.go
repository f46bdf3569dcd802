package state

import "zombiezen.com/go/sqlite"

// Told notes an event that is kept at a zone's word, or because of what the zone did: of each source of a zone the newest
// keep are kept, and the event that is one too many is removed.
func (tx *Tx) Told(zoneID, source, eventID string, keep int) error {
	return tx.keepNewest("events", zoneID, source, eventID, keep)
}

// Overridden notes the record of what was done in a zone while that was cut off: of a zone the newest keep are kept.
func (tx *Tx) Overridden(zoneID, requestID string, keep int) error {
	return tx.keepNewest("requests", zoneID, "overridden", requestID, keep)
}

// keepNewest notes one more of a table that there is because of a zone, and removes the oldest of its source beyond keep.
func (tx *Tx) keepNewest(table, zoneID, source, id string, keep int) error {
	var last int64
	err := tx.query("SELECT max(number) FROM told WHERE zone_id=? AND source=?", func(s *sqlite.Stmt) error {
		last = s.ColumnInt64(0)
		return nil
	}, zoneID, source)
	if err != nil {
		return err
	}
	err = tx.write("INSERT INTO told (zone_id, source, number, event_id) VALUES (?, ?, ?, ?)", zoneID, source, last+1, id)
	if err != nil || last < int64(keep) {
		return err
	}
	const tooMany = "FROM told WHERE zone_id=? AND source=? AND number<=?"
	err = tx.forget(table, "SELECT event_id "+tooMany, zoneID, source, last+1-int64(keep))
	if err != nil {
		return err
	}
	return tx.write("DELETE "+tooMany, zoneID, source, last+1-int64(keep))
}

// Tally returns how much of a kind was taken at a zone's word alone in the present epoch.
func (tx *Tx) Tally(zoneID, kind string) (number uint64, err error) {
	err = tx.query("SELECT number FROM tallies WHERE zone_id=? AND epoch=? AND kind=?", func(s *sqlite.Stmt) error {
		number = uint64(s.ColumnInt64(0))
		return nil
	}, zoneID, tx.meta.Epoch, kind)
	return number, err
}

// AddTally counts more of it. Tallies of earlier epochs are dropped.
func (tx *Tx) AddTally(zoneID, kind string, more uint64) error {
	if err := tx.write("DELETE FROM tallies WHERE zone_id=? AND epoch<?", zoneID, tx.meta.Epoch); err != nil {
		return err
	}
	return tx.write(`INSERT INTO tallies (zone_id, epoch, kind, number) VALUES (?, ?, ?, ?)
		ON CONFLICT (zone_id, epoch, kind) DO UPDATE SET number=number+excluded.number`, zoneID, tx.meta.Epoch, kind, more)
}

// ClearTally begins to count anew.
func (tx *Tx) ClearTally(zoneID, kind string) error {
	return tx.write("DELETE FROM tallies WHERE zone_id=? AND kind=?", zoneID, kind)
}

// PutFormerVM notes that a VM of the zone is gone, so that its last usage is known for what it is.
func (tx *Tx) PutFormerVM(zoneID, vmID string) error {
	return tx.write(`INSERT INTO former_vms (id, zone_id, time) VALUES (?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET zone_id=excluded.zone_id, time=excluded.time`, vmID, zoneID, tx.meta.LastStamp.UnixMicro())
}

// FormerVM returns the zone of a VM that is gone; empty when none is known.
func (tx *Tx) FormerVM(vmID string) (zoneID string, err error) {
	err = tx.query("SELECT zone_id FROM former_vms WHERE id=?", func(s *sqlite.Stmt) error {
		zoneID = s.ColumnText(0)
		return nil
	}, vmID)
	return zoneID, err
}

// ForgetFormerVMs removes up to limit of those that went before the time in microseconds.
func (tx *Tx) ForgetFormerVMs(before int64, limit int) error {
	return tx.write("DELETE FROM former_vms WHERE id IN (SELECT id FROM former_vms WHERE time<? ORDER BY time, id LIMIT ?)", before, limit)
}

// HasVM reports whether a project has a VM in a zone.
func (tx *Tx) HasVM(zoneID, projectID string) (has bool, err error) {
	err = tx.query("SELECT 1 FROM vms WHERE project_id=? AND zone_id=? LIMIT 1", func(*sqlite.Stmt) error {
		has = true
		return nil
	}, projectID, zoneID)
	return has, err
}

// HeldVMs returns how many VMs are held at a zone's word alone: they are in no project.
func (tx *Tx) HeldVMs(zoneID string) (n int, err error) {
	err = tx.query("SELECT count(*) FROM vms WHERE zone_id=? AND generation=0 AND project_id=''", func(s *sqlite.Stmt) error {
		n = s.ColumnInt(0)
		return nil
	}, zoneID)
	return n, err
}
