package state

import (
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// auditRow is an entry of the audit log as tables want it. Its id is its sequence.
type auditRow struct{ *apiv1.AuditEntry }

func (r auditRow) GetId() string       { return r.GetSequence() }
func (r auditRow) GetRevision() string { return "" }

// auditLog is the table of the audit log: the message is the leaf as it is hashed, and beside it stand the hashes that the leaf
// completes, the leaf's own first. Entries are appended, and nothing else.
type auditLog struct{ *spec[auditRow] }

func newAuditLog() auditLog {
	s := (&spec[auditRow]{
		noun: "audit entry", plural: "audit_entries", usual: "sequence desc",
		zero: func() auditRow { return auditRow{&apiv1.AuditEntry{}} },
		columns: []column[auditRow]{
			{name: "sequence", kind: numberKind, sql: "id", get: func(m auditRow) value {
				n, _ := strconv.ParseInt(m.GetSequence(), 10, 64) // written by AppendAudit alone
				return numberValue(n)
			}},
			moment("time", func(m auditRow) *timestamppb.Timestamp { return m.GetTime() }),
			text("actor", func(m auditRow) string { return m.GetActor() }),
			text("action", func(m auditRow) string { return m.GetAction() }),
			text("target_kind", func(m auditRow) string { return m.GetTarget().GetKind() }),
			text("target_id", func(m auditRow) string { return m.GetTarget().GetId() }),
			text("target", func(m auditRow) string { return m.GetTarget().GetName() }),
			text("project", func(m auditRow) string { return m.GetProject() }),
			text("zone", func(m auditRow) string { return m.GetZone() }),
			text("via_zone", func(m auditRow) string { return m.GetViaZone() }),
			enum("outcome", func(m auditRow) apiv1.AuditEntry_Outcome { return m.GetOutcome() }),
			text("problem_code", func(m auditRow) string { return m.GetProblemCode() }),
		},
	}).build()
	names, marks := "id", "?"
	for _, c := range s.columns {
		if c.stored() {
			names, marks = names+", "+c.name, marks+", ?"
		}
	}
	s.text.put = "INSERT INTO audit_entries (" + names + ", hashes, crc, message) VALUES (" + marks + ", ?, ?, ?)"
	return auditLog{s}
}

func (l auditLog) createTable() string {
	defs := "id INTEGER NOT NULL PRIMARY KEY"
	for _, c := range l.columns {
		if c.stored() {
			defs += ", " + c.name + " " + c.sqlType() + " NOT NULL"
		}
	}
	return "CREATE TABLE audit_entries (" + defs + ", hashes BLOB NOT NULL, crc INTEGER NOT NULL, message BLOB NOT NULL) WITHOUT ROWID, STRICT"
}

func (l auditLog) createIndexes() []string { return nil }

func (l auditLog) dumped() []string { return []string{"message"} }

func (l auditLog) dump(tx *Tx, row func([]field) error) error {
	fields := make([]field, 1)
	return tx.query("SELECT message, crc FROM audit_entries ORDER BY id", func(q *sqlite.Stmt) error {
		fields[0] = fieldOf(q, 0)
		if checksum(fields[0].bytes) != q.ColumnInt64(1) {
			return fmt.Errorf("%w: a row of audit_entries does not fit its checksum", ErrCorrupt)
		}
		return row(fields)
	})
}

// load appends the leaf, and reckons columns and hashes from it.
func (l auditLog) load(tx *Tx, names []string, row []field) error {
	if !slices.Equal(names, l.dumped()) {
		return fmt.Errorf("rows of audit_entries hold %v, not %v", names, l.dumped())
	}
	m := l.zero()
	if err := proto.Unmarshal(row[0].bytes, m); err != nil {
		return fmt.Errorf("a row of audit_entries is no %T: %w", m, err)
	}
	size, err := tx.AuditSize()
	if err != nil {
		return err
	}
	if m.GetSequence() != strconv.FormatUint(size, 10) {
		return fmt.Errorf("%w: entry %s of the audit log stands where %d should", errSnapshot, m.GetSequence(), size)
	}
	return tx.insertAudit(l, m, row[0].bytes)
}

// auditHead is the end of the audit log as a transaction knows it.
type auditHead struct {
	known bool
	size  uint64
	last  int64 // time of the last entry in microseconds
	// edge is what is known of the roots of the complete trees along the log's right edge, by level.
	edge [64]*tlog.Hash
}

func (tx *Tx) auditHead() (*auditHead, error) {
	h := &tx.audited
	if h.known {
		return h, nil
	}
	err := tx.query("SELECT id, time FROM audit_entries ORDER BY id DESC LIMIT 1", func(s *sqlite.Stmt) error {
		h.size, h.last = uint64(s.ColumnInt64(0))+1, s.ColumnInt64(1)
		return nil
	})
	h.known = err == nil
	return h, err
}

// AuditSize returns how many entries the audit log has.
func (tx *Tx) AuditSize() (uint64, error) {
	h, err := tx.auditHead()
	return h.size, err
}

// AppendAudit writes the next entry of the audit log, and sets its sequence. Its time is not before that of the entry before.
func (tx *Tx) AppendAudit(m *apiv1.AuditEntry) error {
	h, err := tx.auditHead()
	if err != nil {
		return err
	}
	m.Sequence = strconv.FormatUint(h.size, 10)
	if Micros(m.GetTime()) < h.last {
		m.Time = &timestamppb.Timestamp{Seconds: h.last / 1e6, Nanos: int32(h.last % 1e6 * 1e3)}
	}
	leaf, err := encode(m)
	if err != nil {
		return err
	}
	return tx.insertAudit(tx.auditLog, auditRow{m}, leaf)
}

func (tx *Tx) insertAudit(l auditLog, m auditRow, leaf []byte) error {
	h, err := tx.auditHead()
	if err != nil {
		return err
	}
	completed, err := tlog.StoredHashes(int64(h.size), leaf, tlog.HashReaderFunc(tx.auditEdge))
	if err != nil {
		return err
	}
	if !tx.writable {
		return errReadOnly
	}
	s, err := tx.prepare(l.text.put)
	if err != nil {
		return err
	}
	s.BindInt64(1, int64(h.size))
	i := 2
	for _, c := range l.columns {
		if !c.stored() {
			continue
		}
		if v := c.get(m); v.isText {
			s.BindText(i, v.text)
		} else {
			s.BindInt64(i, v.number)
		}
		i++
	}
	s.BindBytes(i, flat(completed))
	s.BindInt64(i+1, checksum(leaf))
	s.BindBytes(i+2, leaf)
	tx.writes++
	tx.touch(TopicAudit)
	if err := tx.step(s, nil); err != nil {
		return err
	}
	top := len(completed) - 1
	for level := range top {
		h.edge[level] = nil
	}
	h.edge[top] = &completed[top]
	h.size, h.last = h.size+1, Micros(m.GetTime())
	return nil
}

func flat(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

// auditEdge reads hashes that lie on the log's right edge, which the transaction remembers.
func (tx *Tx) auditEdge(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, _ := tlog.SplitStoredHashIndex(index)
		if tx.audited.edge[level] == nil {
			read, err := tx.auditHashes([]int64{index})
			if err != nil {
				return nil, err
			}
			tx.audited.edge[level] = &read[0]
		}
		out[i] = *tx.audited.edge[level]
	}
	return out, nil
}

// auditHashes reads hashes by the index that tlog gives them. Each stands with the leaf that completed its tree.
func (tx *Tx) auditHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		leaf := (n+1)<<level - 1
		err := tx.first("SELECT hashes FROM audit_entries WHERE id=?", func(s *sqlite.Stmt) error {
			all := columnBytes(s, 0)
			if len(all) < (level+1)*tlog.HashSize {
				return fmt.Errorf("%w: entry %d of the audit log has %d bytes of hashes", ErrCorrupt, leaf, len(all))
			}
			copy(out[i][:], all[level*tlog.HashSize:])
			return nil
		}, leaf)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// AuditHashes reads the hashes of the audit log's tree.
func (tx *Tx) AuditHashes() tlog.HashReader { return tlog.HashReaderFunc(tx.auditHashes) }

// AuditRoot returns the root of the audit log's tree as it was at a size.
func (tx *Tx) AuditRoot(size uint64) (root [tlog.HashSize]byte, err error) {
	return tlog.TreeHash(int64(size), tx.AuditHashes())
}

// AuditLeaf is an entry of the audit log as it was hashed, and its hash.
type AuditLeaf struct {
	Leaf []byte
	Hash [tlog.HashSize]byte
}

// AuditLeaves returns up to limit leaves of the audit log from a sequence on.
func (tx *Tx) AuditLeaves(from uint64, limit int) (leaves []AuditLeaf, err error) {
	err = tx.query("SELECT message, crc, hashes FROM audit_entries WHERE id>=? ORDER BY id"+atMost, func(s *sqlite.Stmt) error {
		l := AuditLeaf{Leaf: columnBytes(s, 0)}
		if checksum(l.Leaf) != s.ColumnInt64(1) {
			return fmt.Errorf("%w: a row of audit_entries does not fit its checksum", ErrCorrupt)
		}
		copy(l.Hash[:], columnBytes(s, 2))
		leaves = append(leaves, l)
		return nil
	}, from, limit)
	return leaves, err
}

// ListAudit returns a page of the audit log, as Table.List does of a noun.
func (tx *Tx) ListAudit(q Query) (items []*apiv1.AuditEntry, next string, err error) {
	rows, next, err := Table[auditRow]{tx, tx.auditLog.spec}.List(q)
	for _, r := range rows {
		items = append(items, r.AuditEntry)
	}
	return items, next, err
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

// RefusalKinds returns how many kinds of refusals are known of a zone's edge.
func (tx *Tx) RefusalKinds(viaZoneID string) (n int, err error) {
	err = tx.query("SELECT count(*) FROM audit_refusals WHERE via_zone_id=?", func(s *sqlite.Stmt) error {
		n = s.ColumnInt(0)
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
