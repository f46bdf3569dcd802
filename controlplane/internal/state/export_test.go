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
