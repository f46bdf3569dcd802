package state

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// logRow is an entry of a log as tables want it. Its id is its sequence; log is whose, where it is not the control plane's own.
type logRow struct {
	*apiv1.AuditEntry
	log string
}

func (r logRow) GetId() string       { return r.GetSequence() }
func (r logRow) GetRevision() string { return "" }

// logTable is the table of a log, or of all those of zones: the message is the leaf as it is hashed, and beside it stand the hashes that
// the leaf completes, the leaf's own first. Entries are appended, and nothing else.
type logTable struct {
	*spec[logRow]
	// key is the primary key, and what a snapshot holds of a row stands before the message.
	key, before      string
	head, hash, leaf string // statements
}

// newAuditLog is the table of the control plane's own log.
func newAuditLog() logTable { return newLogTable("audit_entries", "") }

// newZoneLogs is the table of the logs that zones have kept themselves.
func newZoneLogs() logTable {
	return newLogTable("zone_log_entries", "log", text("log", func(m logRow) string { return m.log }).asHidden())
}

func newLogTable(table, whose string, further ...column[logRow]) logTable {
	s := (&spec[logRow]{
		noun: "audit entry", plural: table, usual: "sequence desc", walks: []string{"project_id", "zone_id"}, apart: whose,
		zero: func() logRow { return logRow{AuditEntry: &apiv1.AuditEntry{}} },
		columns: append([]column[logRow]{
			{name: "sequence", kind: numberKind, sql: "id", get: func(m logRow) value {
				n, _ := strconv.ParseInt(m.GetSequence(), 10, 64) // seen to when it is appended
				return numberValue(n)
			}},
			moment("time", func(m logRow) *timestamppb.Timestamp { return m.GetTime() }),
			text("actor", func(m logRow) string { return m.GetActor() }),
			text("action", func(m logRow) string { return m.GetAction() }),
			text("target_kind", func(m logRow) string { return m.GetTarget().GetKind() }),
			text("target_id", func(m logRow) string { return m.GetTarget().GetId() }),
			text("target", func(m logRow) string { return m.GetTarget().GetName() }),
			text("project", func(m logRow) string { return m.GetProject() }),
			text("project_id", func(m logRow) string { return m.GetProjectId() }),
			text("zone", func(m logRow) string { return m.GetZone() }),
			text("zone_id", func(m logRow) string { return m.GetZoneId() }),
			text("via_zone", func(m logRow) string { return m.GetViaZone() }),
			enum("outcome", func(m logRow) apiv1.AuditEntry_Outcome { return m.GetOutcome() }),
			text("problem_code", func(m logRow) string { return m.GetProblemCode() }),
		}, further...),
	}).build()
	names, marks := "id", "?"
	for _, c := range s.columns {
		if c.stored() {
			names, marks = names+", "+c.name, marks+", ?"
		}
	}
	s.text.put = "INSERT INTO " + table + " (" + names + ", hashes, crc, message) VALUES (" + marks + ", ?, ?, ?)"
	l := logTable{spec: s, key: "id"}
	of := ""
	if whose != "" {
		l.key, l.before, of = whose+", id", whose+", ", whose+"=? AND "
	}
	l.head = "SELECT id, time FROM " + table + " WHERE " + of + "id>=0 ORDER BY id DESC LIMIT 1"
	l.hash = "SELECT hashes FROM " + table + " WHERE " + of + "id=?"
	l.leaf = "SELECT message, crc, hashes FROM " + table + " WHERE " + of + "id>=? ORDER BY id" + atMost
	return l
}

func (l logTable) createTable() string {
	defs := "id INTEGER NOT NULL"
	for _, c := range l.columns {
		if c.stored() {
			defs += ", " + c.name + " " + c.sqlType() + " NOT NULL"
		}
	}
	return "CREATE TABLE " + l.plural + " (" + defs + ", hashes BLOB NOT NULL, crc INTEGER NOT NULL, message BLOB NOT NULL, PRIMARY KEY (" + l.key + ")) WITHOUT ROWID, STRICT"
}

// createIndexes: who reads what is of one place goes along that.
func (l logTable) createIndexes() []string {
	var all []string
	for _, column := range l.walks {
		all = append(all, fmt.Sprintf("CREATE INDEX %s_%s ON %s (%s%s, id) WHERE %s<>''", l.plural, column, l.plural, l.before, column, column))
	}
	return all
}

func (l logTable) dumped() []string {
	if l.before != "" {
		return []string{"log", "message"}
	}
	return []string{"message"}
}

func (l logTable) dump(tx *Tx, row func([]field) error) error {
	fields := make([]field, len(l.dumped()))
	last := len(fields) - 1
	return tx.query("SELECT "+l.before+"message, crc FROM "+l.plural+" ORDER BY "+l.key, func(q *sqlite.Stmt) error {
		for i := range fields {
			fields[i] = fieldOf(q, i)
		}
		if checksum(fields[last].bytes) != q.ColumnInt64(last+1) {
			return fmt.Errorf("%w: a row of %s does not fit its checksum", ErrCorrupt, l.plural)
		}
		return row(fields)
	})
}

// load appends the leaf, and reckons columns and hashes from it.
func (l logTable) load(tx *Tx, names []string, row []field) error {
	if !slices.Equal(names, l.dumped()) {
		return fmt.Errorf("rows of %s hold %v, not %v", l.plural, names, l.dumped())
	}
	name, leaf := "", row[len(row)-1].bytes
	if l.before != "" {
		name = string(row[0].bytes)
	}
	m := &apiv1.AuditEntry{}
	if err := proto.Unmarshal(leaf, m); err != nil {
		return fmt.Errorf("a row of %s is no %T: %w", l.plural, m, err)
	}
	return tx.Log(name).Append(m, leaf)
}

// Log is a log of entries as a transaction knows it: a Merkle tree (RFC 6962), of which a leaf is an entry as it is hashed.
type Log struct {
	tx    *Tx
	table logTable
	name  string

	known bool
	size  uint64
	last  int64 // time of the last entry in microseconds
	// edge is what is known of the roots of the complete trees along the right edge, by level.
	edge [64]*tlog.Hash
}

// Log returns the log of a zone by its name, or with none the control plane's own. One that there is not has no entries. Of a zone's
// nothing is remembered from one call to the next: a command that writes to it may be undone.
func (tx *Tx) Log(name string) *Log {
	if name != "" {
		return &Log{tx: tx, table: tx.zoneLogs, name: name}
	}
	if tx.log.tx == nil {
		tx.log.tx, tx.log.table = tx, tx.auditLog
	}
	return &tx.log
}

// args puts whose log it is before what else a statement asks for.
func (l *Log) args(further ...any) []any {
	if l.name == "" {
		return further
	}
	return append([]any{l.name}, further...)
}

func (l *Log) open() error {
	if l.known {
		return nil
	}
	err := l.tx.query(l.table.head, func(s *sqlite.Stmt) error {
		l.size, l.last = uint64(s.ColumnInt64(0))+1, s.ColumnInt64(1)
		return nil
	}, l.args()...)
	l.known = err == nil
	return err
}

// Size returns how many entries it has.
func (l *Log) Size() (uint64, error) {
	err := l.open()
	return l.size, err
}

// Append writes the next entry, whose sequence is the size, and whose leaf is the bytes that are hashed.
func (l *Log) Append(m *apiv1.AuditEntry, leaf []byte) error {
	if err := l.open(); err != nil {
		return err
	}
	if m.GetSequence() != strconv.FormatUint(l.size, 10) {
		return fmt.Errorf("%w: entry %s of a log stands where %d should", errSnapshot, m.GetSequence(), l.size)
	}
	completed, err := tlog.StoredHashes(int64(l.size), leaf, tlog.HashReaderFunc(l.readEdge))
	if err != nil {
		return err
	}
	if !l.tx.writable {
		return errReadOnly
	}
	s, err := l.tx.prepare(l.table.text.put)
	if err != nil {
		return err
	}
	row := logRow{m, l.name}
	s.BindInt64(1, int64(l.size))
	i := 2
	for _, c := range l.table.columns {
		if !c.stored() {
			continue
		}
		if v := c.get(row); v.isText {
			s.BindText(i, v.text)
		} else {
			s.BindInt64(i, v.number)
		}
		i++
	}
	s.BindBytes(i, flat(completed))
	s.BindInt64(i+1, checksum(leaf))
	s.BindBytes(i+2, leaf)
	l.tx.writes++
	if err := l.tx.step(s, nil); err != nil {
		return err
	}
	top := len(completed) - 1
	for level := range top {
		l.edge[level] = nil
	}
	l.edge[top] = &completed[top]
	l.size, l.last = l.size+1, Micros(m.GetTime())
	return nil
}

func flat(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

// readEdge reads hashes that lie on the right edge, which are remembered.
func (l *Log) readEdge(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, _ := tlog.SplitStoredHashIndex(index)
		if l.edge[level] == nil {
			read, err := l.read([]int64{index})
			if err != nil {
				return nil, err
			}
			l.edge[level] = &read[0]
		}
		out[i] = *l.edge[level]
	}
	return out, nil
}

// read reads hashes by the index that tlog gives them. Each stands with the leaf that completed its tree.
func (l *Log) read(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		leaf := (n+1)<<level - 1
		err := l.tx.first(l.table.hash, func(s *sqlite.Stmt) error {
			all := columnBytes(s, 0)
			if len(all) < (level+1)*tlog.HashSize {
				return fmt.Errorf("%w: entry %d of %s has %d bytes of hashes", ErrCorrupt, leaf, l.table.plural, len(all))
			}
			copy(out[i][:], all[level*tlog.HashSize:])
			return nil
		}, l.args(leaf)...)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Hashes reads the hashes of the tree.
func (l *Log) Hashes() tlog.HashReader { return tlog.HashReaderFunc(l.read) }

// Before returns the roots of the whole trees that the first size entries make up, the largest first.
func (l *Log) Before(size uint64) (roots [][]byte, err error) {
	at := uint64(0)
	for left := size; left > 0; {
		level := 63 - bits.LeadingZeros64(left)
		read, err := l.read([]int64{tlog.StoredHashIndex(level, int64(at>>level))})
		if err != nil {
			return nil, err
		}
		roots = append(roots, read[0][:])
		at, left = at+1<<level, left-1<<level
	}
	return roots, nil
}

// AuditLeaf is an entry of a log as it was hashed, and its hash.
type AuditLeaf struct {
	Leaf []byte
	Hash [tlog.HashSize]byte
}

// Leaves returns up to limit leaves from a sequence on.
func (l *Log) Leaves(from uint64, limit int) (leaves []AuditLeaf, err error) {
	err = l.tx.query(l.table.leaf, func(s *sqlite.Stmt) error {
		leaf := AuditLeaf{Leaf: columnBytes(s, 0)}
		if checksum(leaf.Leaf) != s.ColumnInt64(1) {
			return fmt.Errorf("%w: a row of %s does not fit its checksum", ErrCorrupt, l.table.plural)
		}
		copy(leaf.Hash[:], columnBytes(s, 2))
		leaves = append(leaves, leaf)
		return nil
	}, l.args(from, limit)...)
	return leaves, err
}

// List returns a page of entries, as Table.List does of a noun, of those within bounds; nil leaves none out.
func (l *Log) List(q Query, within *[]Bound) (items []*apiv1.AuditEntry, next string, err error) {
	if l.name != "" {
		q.Scope = maps.Clone(q.Scope)
		if q.Scope == nil {
			q.Scope = Scope{}
		}
		q.Scope["log"] = l.name
	}
	table := Table[logRow]{l.tx, l.table.spec}
	if within != nil {
		table = table.Within(*within)
	}
	rows, next, err := table.List(q)
	for _, r := range rows {
		items = append(items, r.AuditEntry)
	}
	return items, next, err
}
