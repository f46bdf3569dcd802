package state

import (
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/types/known/timestamppb"
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// AuditSize returns how many entries the control plane's own log has.
func (tx *Tx) AuditSize() (uint64, error) { return tx.Log("").Size() }

// AppendAudit writes the next entry of the control plane's own log, and sets its sequence. Its time is not before that of the entry
// before.
func (tx *Tx) AppendAudit(m *apiv1.AuditEntry) error {
	l := tx.Log("")
	if err := l.open(); err != nil {
		return err
	}
	m.Sequence = strconv.FormatUint(l.size, 10)
	if Micros(m.GetTime()) < l.last {
		m.Time = &timestamppb.Timestamp{Seconds: l.last / 1e6, Nanos: int32(l.last % 1e6 * 1e3)}
	}
	leaf, err := encode(m)
	if err != nil {
		return err
	}
	tx.touch(TopicAudit)
	return l.Append(m, leaf)
}

// AuditHashes reads the hashes of the own log's tree.
func (tx *Tx) AuditHashes() tlog.HashReader { return tx.Log("").Hashes() }

// AuditRoot returns the root of the own log's tree as it was at a size.
func (tx *Tx) AuditRoot(size uint64) (root [tlog.HashSize]byte, err error) {
	return tlog.TreeHash(int64(size), tx.AuditHashes())
}

// AuditLeaves returns up to limit leaves of the own log from a sequence on.
func (tx *Tx) AuditLeaves(from uint64, limit int) ([]AuditLeaf, error) {
	return tx.Log("").Leaves(from, limit)
}

// ListAudit returns a page of the own log, as Table.List does of a noun.
func (tx *Tx) ListAudit(q Query) (items []*apiv1.AuditEntry, next string, err error) {
	return tx.Log("").List(q, nil)
}

// Reports are what was taken in of a zone since its last entry in the audit log.
type Reports struct {
	// Since is when the first came, in microseconds.
	Since int64
	Count uint32
	// Digest is that of the last command, with the digest before it.
	Digest []byte
}

// Reports returns what was taken in of a zone and has no entry yet.
func (tx *Tx) Reports(zoneID string) (r Reports, err error) {
	err = tx.query("SELECT since, count, digest FROM audit_reports WHERE zone_id=?", func(s *sqlite.Stmt) error {
		r = Reports{Since: s.ColumnInt64(0), Count: uint32(s.ColumnInt64(1)), Digest: columnBytes(s, 2)}
		return nil
	}, zoneID)
	return r, err
}

// PutReports replaces what Reports returns.
func (tx *Tx) PutReports(zoneID string, r Reports) error {
	return tx.write(`INSERT INTO audit_reports (zone_id, since, count, digest) VALUES (?, ?, ?, ?)
		ON CONFLICT (zone_id) DO UPDATE SET since=excluded.since, count=excluded.count, digest=excluded.digest`, zoneID, r.Since, r.Count, r.Digest)
}

// OldReports returns up to limit zones whose reports began to come before the time in microseconds.
func (tx *Tx) OldReports(before int64, limit int) (zoneIDs []string, err error) {
	err = tx.query("SELECT zone_id FROM audit_reports WHERE since<? ORDER BY zone_id"+atMost, func(s *sqlite.Stmt) error {
		zoneIDs = append(zoneIDs, s.ColumnText(0))
		return nil
	}, before, limit)
	return zoneIDs, err
}

// ForgetReports begins anew: they have an entry.
func (tx *Tx) ForgetReports(zoneID string) error {
	return tx.write("DELETE FROM audit_reports WHERE zone_id=?", zoneID)
}

// Refusals are refusals that are alike.
type Refusals struct {
	// ViaZoneID is the zone at whose edge they were asked for; empty: the control network.
	ViaZoneID, Actor, Action, Code string
	// Since is when the entry was written that stands for them, in microseconds; Count is how many came since then.
	Since int64
	Count uint32
}

const refusalFields = "SELECT via_zone_id, actor, action, code, since, count FROM audit_refusals WHERE "

func refusalOf(s *sqlite.Stmt) Refusals {
	return Refusals{s.ColumnText(0), s.ColumnText(1), s.ColumnText(2), s.ColumnText(3), s.ColumnInt64(4), uint32(s.ColumnInt64(5))}
}

// Refusals returns what is known of refusals like one. Errors: ErrNotFound.
func (tx *Tx) Refusals(like Refusals) (r Refusals, err error) {
	err = tx.first(refusalFields+"via_zone_id=? AND actor=? AND action=? AND code=?", func(s *sqlite.Stmt) error {
		r = refusalOf(s)
		return nil
	}, like.ViaZoneID, like.Actor, like.Action, like.Code)
	return r, err
}

// PutRefusals replaces what is known of refusals like it.
func (tx *Tx) PutRefusals(r Refusals) error {
	return tx.write(`INSERT INTO audit_refusals (via_zone_id, actor, action, code, since, count) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (via_zone_id, actor, action, code) DO UPDATE SET since=excluded.since, count=excluded.count`,
		r.ViaZoneID, r.Actor, r.Action, r.Code, r.Since, r.Count)
}

// ForgetRefusals forgets all that are like one.
func (tx *Tx) ForgetRefusals(like Refusals) error {
	return tx.write("DELETE FROM audit_refusals WHERE via_zone_id=? AND actor=? AND action=? AND code=?", like.ViaZoneID, like.Actor, like.Action, like.Code)
}

// RefusalKinds returns how many kinds of refusals are known of a zone's edge, of those whose codes count.
func (tx *Tx) RefusalKinds(viaZoneID string, counts func(code string) bool) (n int, err error) {
	err = tx.query("SELECT code, count(*) FROM audit_refusals WHERE via_zone_id=? GROUP BY code", func(s *sqlite.Stmt) error {
		if counts(s.ColumnText(0)) {
			n += s.ColumnInt(1)
		}
		return nil
	}, viaZoneID)
	return n, err
}

// OldRefusals returns up to limit kinds whose entry was written before the time in microseconds.
func (tx *Tx) OldRefusals(before int64, limit int) (all []Refusals, err error) {
	err = tx.query(refusalFields+"since<? ORDER BY since, via_zone_id, actor, action, code"+atMost, func(s *sqlite.Stmt) error {
		all = append(all, refusalOf(s))
		return nil
	}, before, limit)
	return all, err
}
