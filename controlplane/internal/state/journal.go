package state

import (
	"zombiezen.com/go/sqlite"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Journal names one stream of one zone, up or down.
type Journal struct{ ZoneID, Origin, Stream string }

// JournalPoints returns how far we have each of the zone's journals.
func (tx *Tx) JournalPoints(zoneID string) (points []*linkv1.JournalPoint, err error) {
	err = tx.query("SELECT origin, stream, sequence, covered FROM journal_points WHERE zone_id=? ORDER BY origin, stream", func(s *sqlite.Stmt) error {
		points = append(points, &linkv1.JournalPoint{
			Origin: s.ColumnText(0), Stream: s.ColumnText(1), Sequence: uint64(s.ColumnInt64(2)), Covered: uint64(s.ColumnInt64(3)),
		})
		return nil
	}, zoneID)
	return points, err
}

// JournalCovered returns how far a confirmed backup has a journal.
func (tx *Tx) JournalCovered(j Journal) (covered uint64, err error) {
	err = tx.first("SELECT covered FROM journal_points WHERE zone_id=? AND origin=? AND stream=?", func(s *sqlite.Stmt) error {
		covered = uint64(s.ColumnInt64(0))
		return nil
	}, j.ZoneID, j.Origin, j.Stream)
	return covered, ignoreMissing(err)
}

// BeginBackup notes what a backup that is made of a later state has of all journals. It takes the place of one that was not
// confirmed.
func (tx *Tx) BeginBackup(id string) error {
	if err := tx.write("UPDATE journal_points SET backed_up=sequence WHERE backed_up<>sequence"); err != nil {
		return err
	}
	return tx.write("INSERT INTO backups (one, id, revision) VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET id=excluded.id, revision=excluded.revision",
		id, tx.meta.Revision)
}

// UnconfirmedBackup returns the newest backup and the revision at which it began. Errors: ErrNotFound when it is confirmed, or
// there is none.
func (tx *Tx) UnconfirmedBackup() (id string, revision uint64, err error) {
	err = tx.first("SELECT id, revision FROM backups", func(s *sqlite.Stmt) error {
		id, revision = s.ColumnText(0), uint64(s.ColumnInt64(1))
		return nil
	})
	return id, revision, err
}

// ConfirmBackup notes that what the newest backup has of journals need not be kept for it.
func (tx *Tx) ConfirmBackup() error {
	if err := tx.write("UPDATE journal_points SET covered=backed_up WHERE covered<>backed_up"); err != nil {
		return err
	}
	return tx.write("DELETE FROM backups")
}

// JournalPoint returns how far we have a journal, 0 for nothing, and the epoch in which that was reached.
func (tx *Tx) JournalPoint(j Journal) (sequence, epoch uint64, err error) {
	err = tx.first("SELECT sequence, epoch FROM journal_points WHERE zone_id=? AND origin=? AND stream=?", func(s *sqlite.Stmt) error {
		sequence, epoch = uint64(s.ColumnInt64(0)), uint64(s.ColumnInt64(1))
		return nil
	}, j.ZoneID, j.Origin, j.Stream)
	return sequence, epoch, ignoreMissing(err)
}

// JournalCount returns of how many of the zone's journals we know how far we have them.
func (tx *Tx) JournalCount(zoneID string) (n int, err error) {
	err = tx.query("SELECT count(*) FROM journal_points WHERE zone_id=?", func(s *sqlite.Stmt) error {
		n = s.ColumnInt(0)
		return nil
	}, zoneID)
	return n, err
}

// SetJournalPoint notes that we have the journal up to a sequence, in the present epoch.
func (tx *Tx) SetJournalPoint(j Journal, sequence uint64) error {
	return tx.write(`INSERT INTO journal_points (zone_id, origin, stream, sequence, epoch, time) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (zone_id, origin, stream) DO UPDATE SET sequence=excluded.sequence, epoch=excluded.epoch, time=excluded.time`,
		j.ZoneID, j.Origin, j.Stream, sequence, tx.meta.Epoch, tx.meta.LastStamp.UnixMicro())
}

// ForgetJournals forgets how far we have a zone's journals that were last heard of before the time in microseconds, save those
// of an incarnation and of the journal's origin.
func (tx *Tx) ForgetJournals(j Journal, incarnation string, before int64) error {
	return tx.write("DELETE FROM journal_points WHERE zone_id=? AND origin<>? AND origin<>? AND time<?", j.ZoneID, j.Origin, incarnation, before)
}

// Reject records an entry of a zone's journal that was consumed and not accepted. Of each zone the newest keep are kept.
func (tx *Tx) Reject(j Journal, sequence uint64, reason string, keep int) error {
	var last int64
	err := tx.query("SELECT max(number) FROM rejected WHERE zone_id=?", func(s *sqlite.Stmt) error {
		last = s.ColumnInt64(0)
		return nil
	}, j.ZoneID)
	if err != nil {
		return err
	}
	err = tx.write("INSERT INTO rejected (zone_id, origin, stream, sequence, number, time, reason) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		j.ZoneID, j.Origin, j.Stream, sequence, last+1, tx.meta.LastStamp.UnixMicro(), reason)
	if err != nil || last < int64(keep) {
		return err
	}
	return tx.write("DELETE FROM rejected WHERE zone_id=? AND number<=?", j.ZoneID, last+1-int64(keep))
}

// Rejected returns the entries from..through of a journal that were not accepted, for its acknowledgement.
func (tx *Tx) Rejected(j Journal, from, through uint64) (rejected []*linkv1.Rejected, err error) {
	err = tx.query(`SELECT sequence, reason FROM rejected WHERE zone_id=? AND origin=? AND stream=? AND sequence BETWEEN ? AND ?
		ORDER BY sequence`, func(s *sqlite.Stmt) error {
		rejected = append(rejected, &linkv1.Rejected{
			Entry:  &linkv1.JournalPoint{Origin: j.Origin, Stream: j.Stream, Sequence: uint64(s.ColumnInt64(0))},
			Reason: s.ColumnText(1),
		})
		return nil
	}, j.ZoneID, j.Origin, j.Stream, from, through)
	return rejected, err
}

// ForgetRejected removes up to limit records from before the time in microseconds.
func (tx *Tx) ForgetRejected(before int64, limit int) error {
	return tx.write(`DELETE FROM rejected WHERE (zone_id, origin, stream, sequence) IN
		(SELECT zone_id, origin, stream, sequence FROM rejected WHERE time<? ORDER BY time, zone_id, origin, stream, sequence`+atMost+`)`, before, limit)
}

// OrderHead returns the last sequence written to a journal down, and the last acknowledged.
func (tx *Tx) OrderHead(j Journal) (last, acknowledged uint64, err error) {
	err = tx.first("SELECT last, acknowledged FROM order_heads WHERE zone_id=? AND origin=? AND stream=?", func(s *sqlite.Stmt) error {
		last, acknowledged = uint64(s.ColumnInt64(0)), uint64(s.ColumnInt64(1))
		return nil
	}, j.ZoneID, j.Origin, j.Stream)
	return last, acknowledged, ignoreMissing(err)
}

// AppendOrder writes the next entry of a journal down and sets its sequence, which is dense from 1.
func (tx *Tx) AppendOrder(j Journal, e *linkv1.JournalEntry) error {
	last, acknowledged, err := tx.OrderHead(j)
	if err != nil {
		return err
	}
	e.Sequence = last + 1
	b, err := encode(e)
	if err != nil {
		return err
	}
	tx.touchZone(TopicOrders, j.ZoneID)
	err = tx.write("INSERT INTO orders (zone_id, origin, stream, sequence, crc, message) VALUES (?, ?, ?, ?, ?, ?)",
		j.ZoneID, j.Origin, j.Stream, e.Sequence, checksum(b), b)
	if err != nil {
		return err
	}
	return tx.setOrderHead(j, e.Sequence, acknowledged)
}

func (tx *Tx) setOrderHead(j Journal, last, acknowledged uint64) error {
	return tx.write(`INSERT INTO order_heads (zone_id, origin, stream, last, acknowledged) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (zone_id, origin, stream) DO UPDATE SET last=excluded.last, acknowledged=excluded.acknowledged`,
		j.ZoneID, j.Origin, j.Stream, last, acknowledged)
}

// AcknowledgeOrders drops a journal's entries up to a sequence; one beyond what was written counts as the last written.
func (tx *Tx) AcknowledgeOrders(j Journal, sequence uint64) error {
	last, acknowledged, err := tx.OrderHead(j)
	if err != nil {
		return err
	}
	if sequence = min(sequence, last); sequence <= acknowledged {
		return nil
	}
	err = tx.write("DELETE FROM orders WHERE zone_id=? AND origin=? AND stream=? AND sequence<=?", j.ZoneID, j.Origin, j.Stream, sequence)
	if err != nil {
		return err
	}
	return tx.setOrderHead(j, last, sequence)
}

// Order returns an entry of a journal down that is not acknowledged yet. Errors: ErrNotFound.
func (tx *Tx) Order(j Journal, sequence uint64) (*linkv1.JournalEntry, error) {
	e := &linkv1.JournalEntry{}
	err := tx.first("SELECT message, crc FROM orders WHERE zone_id=? AND origin=? AND stream=? AND sequence=?", func(s *sqlite.Stmt) error {
		return decodeInto(s, e, "orders")
	}, j.ZoneID, j.Origin, j.Stream, sequence)
	return e, err
}

// OrdersAfter returns up to limit consecutive entries of a journal down after a sequence; nil when there is none.
func (tx *Tx) OrdersAfter(zoneID, origin, stream string, after uint64, limit int) (*linkv1.JournalBatch, error) {
	b := &linkv1.JournalBatch{Origin: origin, Stream: stream}
	err := tx.query(`SELECT message, crc FROM orders WHERE zone_id=? AND origin=? AND stream=? AND sequence>? ORDER BY sequence`+atMost, func(s *sqlite.Stmt) error {
		e := &linkv1.JournalEntry{}
		b.Entries = append(b.Entries, e)
		return decodeInto(s, e, "orders")
	}, zoneID, origin, stream, after, limit)
	if err != nil || len(b.Entries) == 0 {
		return nil, err
	}
	return b, nil
}

// OrderJournals returns how far each journal to the zone has been acknowledged, of those that have more.
func (tx *Tx) OrderJournals(zoneID string) (points []*linkv1.JournalPoint, err error) {
	err = tx.query("SELECT origin, stream, acknowledged FROM order_heads WHERE zone_id=? AND last>acknowledged ORDER BY origin, stream", func(s *sqlite.Stmt) error {
		points = append(points, &linkv1.JournalPoint{Origin: s.ColumnText(0), Stream: s.ColumnText(1), Sequence: uint64(s.ColumnInt64(2))})
		return nil
	}, zoneID)
	return points, err
}
