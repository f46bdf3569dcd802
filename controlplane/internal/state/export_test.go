package state

import (
	"time"

	"zombiezen.com/go/sqlite"
)

// WithFailPoint calls f at each step of which a crash must be survived.
func (o Options) WithFailPoint(f func(string)) Options { o.failPoint = f; return o }

// WithRetryAfter replaces the pause before a write is tried again on a full disk.
func (o Options) WithRetryAfter(d time.Duration) Options { o.retryAfter = d; return o }

// WithTombstones replaces how many deleted nouns of a kind are kept.
func (o Options) WithTombstones(n uint64) Options { o.keepTombstones = n; return o }

// Writer runs a statement on the writer's connection, past all rules.
func (db *DB) Writer(sql string) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	return run(db.file.writer, sql)
}

// Explain returns SQLite's plan of a statement.
func (tx *Tx) Explain(sql string) (plan []string, err error) {
	err = tx.queryOnce("EXPLAIN QUERY PLAN "+sql, func(s *sqlite.Stmt) error {
		plan = append(plan, s.ColumnText(3))
		return nil
	})
	return plan, err
}

// PlanOf returns SQLite's plan of the statement that lists a page.
func PlanOf[M Noun](t Table[M], q Query) (plan []string, err error) {
	order, err := t.spec.parseOrder(q.OrderBy)
	if err != nil {
		return nil, err
	}
	page, err := t.page(q, order, token{noun: t.spec.noun, filter: q.Filter, order: order.String(), scope: q.Scope, bounds: t.spec.bounds})
	if err != nil {
		return nil, err
	}
	return t.tx.Explain(page.sql)
}

// Entries are a log as a table, within bounds; nil leaves none out.
func (tx *Tx) Entries(log string, bounds *[]Bound) Table[logRow] {
	t := Table[logRow]{tx, tx.Log(log).table.spec}
	if bounds == nil {
		return t
	}
	return t.Within(*bounds)
}

// Schema is how every table and index was made.
func (tx *Tx) Schema() (all string) {
	_ = tx.queryOnce("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name", func(s *sqlite.Stmt) error {
		all += s.ColumnText(0) + "\n"
		return nil
	})
	return all
}

// Tables names every table of a snapshot.
func Tables() (names []string) {
	for _, s := range newNouns().stores() {
		names = append(names, s.name())
	}
	return names
}

// CountRows counts a table's rows.
func (tx *Tx) CountRows(table string) (n int) {
	_ = tx.queryOnce("SELECT count(*) FROM "+table, func(s *sqlite.Stmt) error {
		n = s.ColumnInt(0)
		return nil
	})
	return n
}
