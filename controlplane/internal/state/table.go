package state

import (
	"fmt"
	"hash/crc32"
	"iter"
	"strings"

	"google.golang.org/protobuf/proto"
	"zombiezen.com/go/sqlite"
)

// Noun is a message that has a table of its own.
type Noun interface {
	comparable
	proto.Message
	GetId() string
	GetRevision() string
}

// Scope narrows a query to rows whose columns have these values: {"project_id": "0192…"}. Text columns only.
type Scope map[string]string

// Table is one noun's rows as a transaction sees them.
type Table[M Noun] struct {
	tx   *Tx
	spec *spec[M]
}

// spec is what is particular to a noun's table: little more than its columns.
type spec[M Noun] struct {
	noun   string // "vm"
	plural string // "vms": the table's name
	zero   func() M
	// revise writes the message's own revision.
	revise func(M, string)
	// columns beside id, revision, crc and message.
	columns []column[M]
	// named nouns have a column name, unique within the columns of scope.
	named bool
	scope []string
	// usual is the order of lists where none is asked; empty: by name, or by id where there is none.
	usual string
	// further are indexes beside those on revision and name: what follows ON table.
	further []string
	// walks, where set, are text columns of each of which an index has what holds one value in the usual order (walk.go); those that leave
	// the least stand first.
	walks []string
	// apart, where set, is a text column without which an id says nothing: it stands before that in the primary key.
	apart string
	// derive, where set, writes what is reckoned when read: the fields of columns with sql.
	derive func(*Tx, M) error
	// underive clears it again.
	underive func(M)
	// charge, where set, counts what the noun takes.
	charge func(*Tx, M) error
	// bounds, where set, are what Within narrows to.
	bounds *[]Bound
	// without are columns that Without has hidden.
	without []string

	text sqlText
}

// sqlText is the statements of one table, put together once.
type sqlText struct {
	get, remove, byRevision, revisions, all string
	// put changes nothing where a fixed column would change; replace changes those too.
	put, replace string
	fields       string // what decode reads
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) int64 { return int64(crc32.Checksum(b, castagnoli)) }

// encode is the one way a message becomes bytes here.
func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// build completes a spec.
func (s *spec[M]) build() *spec[M] {
	var names, marks, updates, all, same []string
	s.text.fields = "message, crc"
	for _, c := range s.columns {
		if !c.stored() {
			continue
		}
		names, marks = append(names, c.name), append(marks, "?")
		all = append(all, c.name+"=excluded."+c.name)
		if c.fixed {
			same = append(same, s.plural+"."+c.name+"=excluded."+c.name)
		} else {
			updates = append(updates, c.name+"=excluded."+c.name)
		}
	}
	row := []string{"revision=excluded.revision", "crc=excluded.crc", "message=excluded.message"}
	s.text.get = fmt.Sprintf("SELECT %s FROM %s WHERE id=?", s.text.fields, s.plural)
	insert := fmt.Sprintf("INSERT INTO %s (id, %s, revision, crc, message) VALUES (?, %s, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET ",
		s.plural, strings.Join(names, ", "), strings.Join(marks, ", "))
	s.text.put = insert + strings.Join(append(updates, row...), ", ") + " WHERE 1" + and(same)
	s.text.replace = insert + strings.Join(append(all, row...), ", ")
	s.text.remove = fmt.Sprintf("DELETE FROM %s WHERE id=?", s.plural)
	s.text.revisions = fmt.Sprintf("SELECT revision FROM %s WHERE revision>? ORDER BY revision"+atMost, s.plural)
	s.text.byRevision = fmt.Sprintf("SELECT %s, revision FROM %s WHERE revision>? AND revision<=? ORDER BY revision, id", s.text.fields, s.plural)
	s.text.all = fmt.Sprintf("SELECT %s FROM %s", s.text.fields, s.plural)
	return s
}

func (s *spec[M]) column(name string) (column[M], bool) {
	for _, c := range s.columns {
		if c.name == name {
			return c, true
		}
	}
	return column[M]{}, false
}

// decode reads a row whose first columns are spec.text.fields.
func (t Table[M]) decode(s *sqlite.Stmt) (M, error) {
	m := t.spec.zero()
	if err := decodeInto(s, m, t.spec.plural); err != nil {
		var none M
		return none, err
	}
	if t.spec.derive != nil {
		if err := t.spec.derive(t.tx, m); err != nil {
			var none M
			return none, err
		}
	}
	return m, nil
}

// Derive writes into m, as the state machine answered with it, what is reckoned when read.
func (t Table[M]) Derive(m M) error {
	if t.spec.derive == nil {
		return nil
	}
	return t.spec.derive(t.tx, m)
}

// decodeInto reads a message and its checksum from columns 0 and 1.
func decodeInto(s *sqlite.Stmt, m proto.Message, table string) error {
	b := columnBytes(s, 0)
	if checksum(b) != s.ColumnInt64(1) {
		return fmt.Errorf("%w: a row of %s does not fit its checksum", ErrCorrupt, table)
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: a row of %s is no %T: %w", ErrCorrupt, table, m, err)
	}
	return nil
}

// Get returns the noun with the id. Errors: ErrNotFound.
func (t Table[M]) Get(id string) (M, error) {
	return t.one(t.spec.text.get, id)
}

// one returns the only row of a query. Errors: ErrNotFound, ErrAmbiguous.
func (t Table[M]) one(sql string, args ...any) (found M, err error) {
	rows := 0
	err = t.tx.query(sql, func(s *sqlite.Stmt) (err error) {
		rows++
		found, err = t.decode(s)
		return err
	}, args...)
	var none M
	switch {
	case err != nil:
		return none, err
	case rows == 0:
		return none, ErrNotFound
	case rows > 1:
		return none, ErrAmbiguous
	}
	return found, nil
}

// ByName returns the noun of the name within scope, of which parts may be missing as long as the name is clear.
// Errors: ErrNotFound, ErrAmbiguous.
func (t Table[M]) ByName(name string, scope Scope) (M, error) {
	if !t.spec.named {
		var none M
		return none, ErrNotFound
	}
	where, args, err := t.where(scope)
	if err != nil {
		var none M
		return none, err
	}
	return t.one(t.spec.text.all+" WHERE name=?"+and(where)+" ORDER BY id LIMIT 2", append([]any{name}, args...)...)
}

// Find returns the noun with the id, or else that of the name, within scope. Errors: ErrNotFound, ErrAmbiguous.
func (t Table[M]) Find(nameOrID string, scope Scope) (M, error) {
	where, args, err := t.where(scope)
	if err != nil {
		var none M
		return none, err
	}
	m, err := t.one(t.spec.text.get+and(where), append([]any{nameOrID}, args...)...)
	if err != ErrNotFound {
		return m, err
	}
	return t.ByName(nameOrID, scope)
}

// where turns a scope and the bounds into conditions, always in the same order.
func (t Table[M]) where(scope Scope) (conditions []string, args []any, err error) {
	conditions, args, err = t.scoped(scope)
	if err != nil || t.spec.bounds == nil {
		return conditions, args, err
	}
	within, more, err := t.withinSQL()
	return append(conditions, within), append(args, more...), err
}

// scoped turns a scope into conditions.
func (t Table[M]) scoped(scope Scope) (conditions []string, args []any, err error) {
	left := len(scope)
	for _, c := range t.spec.columns {
		if v, ok := scope[c.name]; ok {
			if c.kind != textKind {
				return nil, nil, fmt.Errorf("scope %s of %s is not a text", c.name, t.spec.plural)
			}
			conditions, args, left = append(conditions, c.name+"=?"), append(args, v), left-1
		}
	}
	if left > 0 {
		return nil, nil, fmt.Errorf("scope %v names what is no column of %s", scope, t.spec.plural)
	}
	return conditions, args, nil
}

func and(conditions []string) string {
	if len(conditions) == 0 {
		return ""
	}
	return " AND " + strings.Join(conditions, " AND ")
}

// All goes through the nouns within scope in the order of their ids. It may be left early.
func (t Table[M]) All(scope Scope) iter.Seq2[M, error] {
	where, args, err := t.where(scope)
	if err != nil {
		return func(yield func(M, error) bool) {
			var none M
			yield(none, err)
		}
	}
	return t.rows(t.spec.text.all+" WHERE 1"+and(where)+" ORDER BY id", args...)
}

// rows goes through the nouns that a statement returns.
func (t Table[M]) rows(sql string, args ...any) iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		var none M
		stop := fmt.Errorf("left early")
		err := t.tx.queryOnce(sql, func(s *sqlite.Stmt) error {
			m, err := t.decode(s)
			if err != nil {
				return err
			}
			if !yield(m, nil) {
				return stop
			}
			return nil
		}, args...)
		if err != nil && err != stop {
			yield(none, err)
		}
	}
}

// Put stores m whole under its id, and writes its revision and m.revision from the transaction's.
func (t Table[M]) Put(m M) error {
	if !t.tx.writable {
		return errReadOnly
	}
	t.spec.revise(m, t.tx.meta.Text())
	if t.spec.underive != nil {
		t.spec.underive(m)
	}
	b, err := encode(m)
	if err != nil {
		return fmt.Errorf("store %s %s: %w", t.spec.noun, m.GetId(), err)
	}
	if err := t.insert(m, b, t.tx.meta.Revision); err != nil || t.spec.charge == nil {
		return err
	}
	return t.spec.charge(t.tx, m)
}

// insert writes the row of m, which is encoded as b. Where a fixed column is another after all, it is written with its indexes: what the
// table says is always what the message does, as it is in a server that has read it from a snapshot.
func (t Table[M]) insert(m M, b []byte, revision uint64) error {
	t.tx.writes++
	t.tx.touch(t.spec.plural)
	if err := t.insertBy(t.spec.text.put, m, b, revision); err != nil || t.tx.conn.Changes() > 0 {
		return err
	}
	return t.insertBy(t.spec.text.replace, m, b, revision)
}

func (t Table[M]) insertBy(sql string, m M, b []byte, revision uint64) error {
	s, err := t.tx.prepare(sql)
	if err != nil {
		return err
	}
	s.BindText(1, m.GetId())
	i := 2
	for _, c := range t.spec.columns {
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
	s.BindInt64(i, int64(revision))
	s.BindInt64(i+1, checksum(b))
	s.BindBytes(i+2, b)
	return t.tx.step(s, nil)
}

// Delete removes the noun and leaves a tombstone for watches. Errors: ErrNotFound.
func (t Table[M]) Delete(id string) error {
	m, err := t.Get(id)
	if err != nil {
		return err
	}
	if err := t.Forget(id); err != nil {
		return err
	}
	return t.bury(m)
}

// DeleteAll removes the nouns within scope, in the order of their ids, as Delete does.
func (t Table[M]) DeleteAll(scope Scope) error {
	where, args, err := t.where(scope)
	if err != nil {
		return err
	}
	return t.deleteRows("SELECT id FROM "+t.spec.plural+" WHERE 1"+and(where)+" ORDER BY id", args...)
}

// deleteRows removes the nouns whose ids a statement returns. They are collected first: what is being read is not written.
func (t Table[M]) deleteRows(sql string, args ...any) error {
	var ids []string
	err := t.tx.query(sql, func(s *sqlite.Stmt) error {
		ids = append(ids, s.ColumnText(0))
		return nil
	}, args...)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := t.Delete(id); err != nil {
			return err
		}
	}
	return nil
}

// Forget removes the noun and tells nobody: it has outlived its keep.
func (t Table[M]) Forget(id string) error {
	if err := t.tx.write(t.spec.text.remove, id); err != nil || t.spec.charge == nil {
		return err
	}
	return t.tx.uncharge(t.spec.noun, id)
}
