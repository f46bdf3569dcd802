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

// Explain returns SQLite's plan of a list.
func (t Table[M]) Explain(sql string, args ...any) (plan []string, err error) {
	return t.tx.explain(sql, args...)
}

func (tx *Tx) explain(sql string, args ...any) (plan []string, err error) {
	err = tx.queryOnce("EXPLAIN QUERY PLAN "+sql, func(s *sqlite.Stmt) error {
		plan = append(plan, s.ColumnText(3))
		return nil
	}, args...)
	return plan, err
}
