package state

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A restore goes through these files beside the database:
//
//	PATH.restoring  being built; worth nothing after a crash
//	PATH.restored   whole and synced; from its rename on, the restore has happened
//
// Putting it in place removes the old write-ahead log by name before the rename, since SQLite would otherwise replay
// the old log onto the new file. A crash in between is repeated by settle at the next start.
func restoring(path string) string { return path + ".restoring" }
func restored(path string) string  { return path + ".restored" }

// Restore replaces the whole state by a snapshot, and returns its numbers. Reads in progress end with ErrRetry, and every
// watch wakes. Until the snapshot has been read whole and verified, nothing changes. A crash at any point leaves either
// the old state or the new.
func (db *DB) Restore(r io.Reader) (Meta, error) {
	db.writing.Lock()
	defer db.writing.Unlock()
	f, err := db.current()
	if err != nil {
		return Meta{}, err
	}
	f.leave() // nobody replaces it as long as writing is held
	if err := discard(restoring(db.path)); err != nil {
		return Meta{}, fmt.Errorf("restore: %w", err)
	}
	meta, err := db.build(restoring(db.path), r)
	if err != nil {
		return Meta{}, errors.Join(fmt.Errorf("restore: %w", err), discard(restoring(db.path)))
	}
	db.options.failPoint("built")
	if err := replace(restoring(db.path), restored(db.path)); err != nil {
		return Meta{}, fmt.Errorf("restore: %w", err)
	}
	db.options.failPoint("complete")
	if err := db.swap(); err != nil {
		err = fmt.Errorf("restore: %w: %w", ErrCorrupt, err)
		db.note(err)
		return Meta{}, err
	}
	db.metrics.restores.Inc()
	db.log.Info("state restored", "path", db.path, "epoch", meta.Epoch, "revision", meta.Revision, "index", meta.AppliedIndex)
	db.watches.publishAll()
	return meta, nil
}

// build makes a database of a snapshot at path, and syncs it.
func (db *DB) build(path string, r io.Reader) (meta Meta, err error) {
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		return Meta{}, classify(err)
	}
	meta, err = db.fill(c, r)
	if err := errors.Join(err, classify(c.Close())); err != nil {
		return Meta{}, err
	}
	return meta, syncPath(path)
}

func (db *DB) fill(c *sqlite.Conn, r io.Reader) (meta Meta, err error) {
	for _, p := range []string{fmt.Sprintf("page_size=%d", pageSize), "journal_mode=OFF", "synchronous=OFF", "temp_store=MEMORY", "cache_size=-65536"} {
		if err := sqlitex.ExecuteTransient(c, "PRAGMA "+p, nil); err != nil {
			return Meta{}, classify(err)
		}
	}
	if err := run(c, "BEGIN"); err != nil {
		return Meta{}, classify(err)
	}
	// Indexes come last: sorted once, they are built faster than row by row.
	if err := db.create(c, false); err != nil {
		return Meta{}, err
	}
	tx, err := db.begin(c, true, classify)
	if err != nil {
		return Meta{}, err
	}
	if err := db.load(tx, &recordReader{r: bufio.NewReaderSize(r, 64<<10)}); err != nil {
		return Meta{}, err
	}
	for _, s := range db.createIndexes() {
		if err := tx.exec(s); err != nil {
			return Meta{}, err
		}
	}
	if err := tx.storeMeta(); err != nil {
		return Meta{}, err
	}
	db.options.failPoint("filled")
	return tx.meta, classify(run(c, "COMMIT"))
}

// load reads a whole snapshot into an empty database.
func (db *DB) load(tx *Tx, in *recordReader) error {
	meta, err := in.header()
	if err != nil {
		return err
	}
	if err := db.checkFederation(meta.Federation); err != nil {
		return err
	}
	tx.meta = meta
	sum := newContentHash(meta)
	var table store
	var columns []string
	for {
		before := in.records
		record, err := in.next()
		if err != nil {
			return err
		}
		p := &parser{b: record}
		switch p.byte() {
		case recordTable:
			sum.add(record)
			if table, columns, err = db.loadTable(p); err != nil {
				return err
			}
		case recordRow:
			sum.add(record)
			row := p.row(len(columns))
			if p.bad || table == nil {
				return fmt.Errorf("%w: record %d is no row", errSnapshot, before)
			}
			if err := table.load(tx, columns, row); err != nil {
				return err
			}
			if before%1024 == 0 {
				db.options.failPoint("loading")
			}
		case recordEnd:
			if count := p.uvarint(); p.bad || count != before {
				return fmt.Errorf("%w: it should have %d records and has %d", errSnapshot, count, before)
			}
			if string(p.b) != string(sum.Sum(nil)) {
				return fmt.Errorf("%w: its content does not fit its hash", errSnapshot)
			}
			return nil
		default:
			return fmt.Errorf("%w: record %d is of no known kind", errSnapshot, before)
		}
	}
}

func (db *DB) loadTable(p *parser) (store, []string, error) {
	name := string(p.bytes())
	var columns []string
	for n := p.uvarint(); n > 0 && !p.bad; n-- {
		columns = append(columns, string(p.bytes()))
	}
	if p.bad || len(p.b) > 0 {
		return nil, nil, fmt.Errorf("%w: table %q cannot be read", errSnapshot, name)
	}
	for _, s := range db.stores {
		if s.name() == name {
			return s, columns, known(s, columns)
		}
	}
	return nil, nil, fmt.Errorf("%w: there is no table %q", errSnapshot, name)
}

// known refuses columns that the table does not have: they become part of a statement.
func known(s store, columns []string) error {
	has := map[string]bool{}
	for _, c := range s.dumped() {
		has[c] = true
	}
	for _, c := range columns {
		if !has[c] {
			return fmt.Errorf("%w: table %s has no column %q", errSnapshot, s.name(), c)
		}
		has[c] = false // not twice
	}
	return nil
}

// swap ends everybody's use of the old file and puts the restored one in its place.
func (db *DB) swap() error {
	db.mu.Lock()
	old := db.file
	db.file = nil
	db.mu.Unlock()
	if err := old.close(ErrRetry); err != nil {
		db.log.Warn("the replaced state did not close well", "path", db.path, "error", err)
	}
	db.options.failPoint("closed")
	if err := install(db.path, db.options.failPoint); err != nil {
		return err
	}
	f, err := db.openFile()
	if err != nil {
		return err
	}
	db.mu.Lock()
	db.file = f
	db.mu.Unlock()
	return nil
}

// settle finishes or undoes a restore that was cut off.
func settle(path string) error {
	if err := discard(restoring(path)); err != nil {
		return err
	}
	if _, err := os.Stat(restored(path)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return install(path, func(string) {})
}

// install puts the restored file in place. It may be repeated from any point.
func install(path string, failPoint func(string)) error {
	for _, old := range []string{path + "-wal", path + "-shm"} {
		if err := discard(old); err != nil {
			return err
		}
		failPoint("removed")
	}
	if err := syncPath(filepath.Dir(path)); err != nil {
		return err
	}
	if err := replace(restored(path), path); err != nil {
		return err
	}
	failPoint("installed")
	return nil
}

// replace renames and makes the rename durable.
func replace(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncPath(filepath.Dir(to))
}

func discard(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
