package state

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"zombiezen.com/go/sqlite"
)

// Change is one noun as a revision left it.
type Change[M Noun] struct {
	Revision uint64
	// Deleted: Noun is as it last was.
	Deleted bool
	Noun    M
}

// Since returns what changed after a revision, each noun once as it is now, in ascending order of the revision that last
// wrote it, deleted ones included; what one revision deleted and made anew comes twice, the deletion first. It never cuts a
// revision in two: more than limit come back where one revision wrote many. The caller goes on from the last change's revision;
// where fewer than limit came back, from Meta().Revision. Errors: ErrCompacted when a tombstone after the revision may have been
// dropped.
func (t Table[M]) Since(revision uint64, limit int) ([]Change[M], error) {
	floor, _, err := t.floor()
	if err != nil {
		return nil, err
	}
	if revision < floor {
		return nil, ErrCompacted
	}
	const buried = "SELECT revision FROM tombstones WHERE noun=? AND revision>? ORDER BY revision" + atMost
	revisions, err := t.tx.numbers(t.spec.text.revisions, revision, limit)
	if err != nil {
		return nil, err
	}
	graves, err := t.tx.numbers(buried, t.spec.noun, revision, limit)
	if err != nil {
		return nil, err
	}
	revisions = append(revisions, graves...)
	if len(revisions) == 0 || limit < 1 {
		return nil, nil
	}
	slices.Sort(revisions)
	return t.between(revision, revisions[min(limit, len(revisions))-1])
}

// between returns the changes of after < revision <= through.
func (t Table[M]) between(after, through uint64) (changes []Change[M], err error) {
	const graves = "SELECT message, crc, revision FROM tombstones WHERE noun=? AND revision>? AND revision<=? ORDER BY revision, id"
	err = t.tx.query(graves, func(s *sqlite.Stmt) error {
		m := t.spec.zero()
		changes = append(changes, Change[M]{Revision: uint64(s.ColumnInt64(2)), Deleted: true, Noun: m})
		return decodeInto(s, m, "tombstones")
	}, t.spec.noun, after, through)
	if err != nil {
		return nil, err
	}
	err = t.tx.query(t.spec.text.byRevision, func(s *sqlite.Stmt) error {
		m, err := t.decode(s)
		changes = append(changes, Change[M]{Revision: uint64(s.ColumnInt64(2)), Noun: m})
		return err
	}, after, through)
	slices.SortStableFunc(changes, func(a, b Change[M]) int { // deletions are first, and stay before what was made anew
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Noun.GetId(), b.Noun.GetId()))
	})
	return changes, err
}

// bury leaves a tombstone, and drops the oldest when there are too many. What was buried at this revision already, and has come back
// since, keeps one: as it last was.
func (t Table[M]) bury(m M) error {
	b, err := encode(m)
	if err != nil {
		return fmt.Errorf("bury %s %s: %w", t.spec.noun, m.GetId(), err)
	}
	err = t.tx.write("INSERT INTO tombstones (noun, revision, id, crc, message) VALUES (?, ?, ?, ?, ?) ON CONFLICT (noun, revision, id) DO NOTHING",
		t.spec.noun, t.tx.meta.Revision, m.GetId(), checksum(b), b)
	if err != nil {
		return err
	}
	t.tx.touch(t.spec.plural)
	if t.tx.conn.Changes() == 0 { // it was made anew and deleted again by one revision
		return t.tx.write("UPDATE tombstones SET crc=?, message=? WHERE noun=? AND revision=? AND id=?", checksum(b), b, t.spec.noun, t.tx.meta.Revision, m.GetId())
	}
	floor, kept, err := t.floor()
	if err != nil {
		return err
	}
	if kept++; kept > t.tx.keep {
		var id string
		err := t.tx.query("SELECT revision, id FROM tombstones WHERE noun=? ORDER BY revision, id LIMIT 1", func(s *sqlite.Stmt) error {
			floor, id = uint64(s.ColumnInt64(0)), s.ColumnText(1)
			return nil
		}, t.spec.noun)
		if err != nil {
			return err
		}
		if err := t.tx.write("DELETE FROM tombstones WHERE noun=? AND revision=? AND id=?", t.spec.noun, floor, id); err != nil {
			return err
		}
		kept--
	}
	return t.tx.write("INSERT INTO floors (noun, floor, kept) VALUES (?, ?, ?) ON CONFLICT (noun) DO UPDATE SET floor=excluded.floor, kept=excluded.kept",
		t.spec.noun, floor, kept)
}

func (t Table[M]) floor() (floor, kept uint64, err error) {
	err = t.tx.query("SELECT floor, kept FROM floors WHERE noun=?", func(s *sqlite.Stmt) error {
		floor, kept = uint64(s.ColumnInt64(0)), uint64(s.ColumnInt64(1))
		return nil
	}, t.spec.noun)
	return floor, kept, err
}

// numbers returns the first column of a query.
func (tx *Tx) numbers(sql string, args ...any) (all []uint64, err error) {
	err = tx.query(sql, func(s *sqlite.Stmt) error {
		all = append(all, uint64(s.ColumnInt64(0)))
		return nil
	}, args...)
	return all, err
}

// first runs a query for at most one row. Errors: ErrNotFound.
func (tx *Tx) first(sql string, row func(*sqlite.Stmt) error, args ...any) error {
	found := false
	err := tx.query(sql, func(s *sqlite.Stmt) error {
		found = true
		return row(s)
	}, args...)
	if err == nil && !found {
		return ErrNotFound
	}
	return err
}

// ignoreMissing turns ErrNotFound into nil.
func ignoreMissing(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
