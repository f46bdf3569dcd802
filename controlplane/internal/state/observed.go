package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// ObservedPoint returns how far we have the zone's state: its incarnation, and its revision there. While a full sync is
// under way the revision is 0, so that a sync that was cut off begins anew.
func (tx *Tx) ObservedPoint(zoneID string) (incarnation string, revision uint64, err error) {
	p, err := tx.ObservedCursor(zoneID)
	if p.Syncing {
		p.Revision = 0
	}
	return p.Incarnation, p.Revision, err
}

// ObservedCursor is where the next chunk of a zone's state has to begin.
type ObservedCursor struct {
	Incarnation string
	Revision    uint64
	// Syncing: a full sync has begun and its end marker has not come.
	Syncing bool
}

// ObservedCursor returns the cursor; the zero value when nothing has come yet.
func (tx *Tx) ObservedCursor(zoneID string) (c ObservedCursor, err error) {
	err = tx.first("SELECT incarnation, revision, syncing FROM observed_points WHERE zone_id=?", func(s *sqlite.Stmt) error {
		c = ObservedCursor{s.ColumnText(0), uint64(s.ColumnInt64(1)), s.ColumnBool(2)}
		return nil
	}, zoneID)
	return c, ignoreMissing(err)
}

// SetObservedCursor moves the cursor.
func (tx *Tx) SetObservedCursor(zoneID string, c ObservedCursor) error {
	return tx.write(`INSERT INTO observed_points (zone_id, incarnation, revision, syncing) VALUES (?, ?, ?, ?)
		ON CONFLICT (zone_id) DO UPDATE SET incarnation=excluded.incarnation, revision=excluded.revision, syncing=excluded.syncing`,
		zoneID, c.Incarnation, c.Revision, c.Syncing)
}

// AwaitsReport reports whether a zone has yet to report all that it has since a backup was restored. Until then nothing is
// wished of it: a VM that the backup knows may have been deleted since, and would be made anew.
func (tx *Tx) AwaitsReport(zone *apiv1.Zone) bool {
	return tx.meta.EpochBegan > 0 && zone.GetReportedEpoch() != tx.meta.Epoch
}

// MarkObserved notes that the full sync under way has brought the VM.
func (tx *Tx) MarkObserved(zoneID, vmID string) error {
	return tx.write("INSERT INTO observed_in_sync (zone_id, vm_id) VALUES (?, ?) ON CONFLICT DO NOTHING", zoneID, vmID)
}

// NotObserved returns the ids of the zone's VMs that the full sync has not brought, in order.
func (tx *Tx) NotObserved(zoneID string) (ids []string, err error) {
	err = tx.query(`SELECT id FROM vms WHERE zone_id=?1 AND NOT EXISTS
		(SELECT 1 FROM observed_in_sync o WHERE o.zone_id=?1 AND o.vm_id=vms.id) ORDER BY id`, func(s *sqlite.Stmt) error {
		ids = append(ids, s.ColumnText(0))
		return nil
	}, zoneID)
	return ids, err
}

// ForgetObserved forgets what the full sync has brought: it has ended, or begins anew.
func (tx *Tx) ForgetObserved(zoneID string) error {
	return tx.write("DELETE FROM observed_in_sync WHERE zone_id=?", zoneID)
}
