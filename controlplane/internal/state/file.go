package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// formatVersion is SQLite's user_version of the file. It changes when a table does, and not when an index does.
const formatVersion = 6

// pageSize is small, since a commit writes and sums up every page that it changed, some twenty of them, whole. A row beyond a
// quarter of a page, a VM with several SSH keys, needs another page.
const pageSize = 4096

// file is one database file with the connections to it. A restore replaces it by another.
type file struct {
	db      *DB
	writer  *sqlite.Conn
	readers chan *sqlite.Conn
	// users counts who works with the file: reads, snapshots, the writer. Only when all have left may it be closed,
	// since the last connection to close deletes the write-ahead log by name.
	users sync.WaitGroup

	retired context.Context
	retire  context.CancelCauseFunc

	nextCheckpoint int64
}

// openFile opens db.path, creates the tables if it is new, and checks whose it is.
func (db *DB) openFile() (_ *file, err error) {
	f := &file{db: db, readers: make(chan *sqlite.Conn, db.options.Readers), nextCheckpoint: walSoft}
	f.retired, f.retire = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			_ = f.close(ErrClosed)
		}
	}()
	if f.writer, err = connect(db.path, sqlite.OpenReadWrite|sqlite.OpenCreate); err != nil {
		return nil, err
	}
	if err := db.prepare(f.writer); err != nil {
		return nil, err
	}
	for range db.options.Readers {
		c, err := connect(db.path, sqlite.OpenReadWrite, "query_only=ON")
		if err != nil {
			return nil, err
		}
		f.readers <- c
	}
	return f, nil
}

// connect opens one connection.
func connect(path string, flags sqlite.OpenFlags, pragmas ...string) (*sqlite.Conn, error) {
	c, err := sqlite.OpenConn(path, flags)
	if err != nil {
		return nil, classify(err)
	}
	c.SetBusyTimeout(10 * time.Second)
	for _, p := range append([]string{
		fmt.Sprintf("page_size=%d", pageSize), "journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0",
		"journal_size_limit=0", "temp_store=MEMORY", "trusted_schema=OFF", "cache_size=-16384",
	}, pragmas...) {
		if err := sqlitex.ExecuteTransient(c, "PRAGMA "+p, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("pragma %s: %w", p, classify(err)), c.Close())
		}
	}
	return c, nil
}

// prepare creates what is missing and checks that the file is this server's.
func (db *DB) prepare(c *sqlite.Conn) (err error) {
	end, err := sqlitex.ImmediateTransaction(c)
	if err != nil {
		return classify(err)
	}
	defer end(&err)
	version, err := sqlitex.ResultInt(c.Prep("PRAGMA user_version"))
	if err != nil {
		return classify(err)
	}
	switch {
	case version > formatVersion:
		return fmt.Errorf("%w: it has format %d and this version knows %d; run the newer version", ErrForeign, version, formatVersion)
	case version == 0:
		if err := db.create(c, true); err != nil {
			return err
		}
	case version == formatVersion:
		if err := db.reindex(c); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: it has format %d, which this version no longer reads; empty the server's data folder but for its keys, and let it join anew or restore a backup", ErrForeign, version)
	}
	return db.checkOwner(c)
}

// create makes the tables in an empty file and writes whose it is.
func (db *DB) create(c *sqlite.Conn, indexes bool) error {
	statements := []string{metaTable, localTable}
	for _, s := range db.stores {
		statements = append(statements, s.createTable())
	}
	if indexes {
		statements = append(statements, db.createIndexes()...)
	}
	statements = append(statements,
		`INSERT INTO meta VALUES (1, '', 0, x'', 0, 0, 0, 0)`,
		fmt.Sprintf("PRAGMA user_version=%d", formatVersion))
	for _, s := range statements {
		if err := sqlitex.ExecuteTransient(c, s, nil); err != nil {
			return fmt.Errorf("%s: %w", s, classify(err))
		}
	}
	return classify(sqlitex.ExecuteTransient(c, `INSERT INTO local VALUES (1, ?, 0, 0)`,
		&sqlitex.ExecOptions{Args: []any{db.options.ServerID}}))
}

func (db *DB) createIndexes() []string {
	var all []string
	for _, s := range db.stores {
		all = append(all, s.createIndexes()...)
	}
	return all
}

// reindex makes the file's indexes those of this version, which may be others than those of the version that made it: they hold nothing
// that rows do not.
func (db *DB) reindex(c *sqlite.Conn) error {
	wanted, are := db.createIndexes(), map[string]bool{}
	var statements []string
	err := sqlitex.ExecuteTransient(c, "SELECT name, sql FROM sqlite_schema WHERE type='index' AND sql IS NOT NULL ORDER BY name", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			if are[s.ColumnText(1)] = true; !slices.Contains(wanted, s.ColumnText(1)) {
				statements = append(statements, "DROP INDEX "+s.ColumnText(0))
			}
			return nil
		},
	})
	if err != nil {
		return classify(err)
	}
	for _, w := range wanted {
		if !are[w] {
			statements = append(statements, w)
		}
	}
	if len(statements) > 0 {
		db.log.Info("the state's indexes are made anew where this version has others", "path", db.path, "statements", len(statements))
	}
	for _, s := range statements {
		if err := sqlitex.ExecuteTransient(c, s, nil); err != nil {
			return fmt.Errorf("%s: %w", s, classify(err))
		}
	}
	return nil
}

func (db *DB) checkOwner(c *sqlite.Conn) error {
	server, err := sqlitex.ResultText(c.Prep("SELECT server_id FROM local"))
	if err != nil {
		return classify(err)
	}
	if server != db.options.ServerID {
		return fmt.Errorf("%w: it belongs to server %s and this is %s; give the server its own data folder", ErrForeign, server, db.options.ServerID)
	}
	federation, err := sqlitex.ResultText(c.Prep("SELECT federation FROM meta"))
	if err != nil {
		return classify(err)
	}
	return db.checkFederation(federation)
}

func (db *DB) checkFederation(federation string) error {
	if want := db.options.Federation; want != "" && federation != "" && federation != want {
		return fmt.Errorf("%w: it holds the state of federation %s and this server belongs to %s", ErrForeign, federation, want)
	}
	return nil
}

// leave ends one use of the file.
func (f *file) leave() { f.users.Done() }

// close ends all reads with cause, waits until everybody has left, and closes the connections.
func (f *file) close(cause error) error {
	f.retire(cause)
	f.users.Wait()
	var errs []error
	for {
		select {
		case c := <-f.readers:
			errs = append(errs, c.Close())
			continue
		default:
		}
		break
	}
	if f.writer != nil {
		errs = append(errs, f.writer.Close())
	}
	return errors.Join(errs...)
}

// read runs fn on one reader's snapshot until ctx or the file ends.
func (f *file) read(ctx context.Context, db *DB, fn func(*Tx) error) error {
	var c *sqlite.Conn
	select {
	case c = <-f.readers:
	case <-f.retired.Done():
		return context.Cause(f.retired)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { f.readers <- c }()
	return f.onSnapshot(ctx, db, c, fn)
}

// onSnapshot runs fn in a read transaction of c.
func (f *file) onSnapshot(ctx context.Context, db *DB, c *sqlite.Conn, fn func(*Tx) error) error {
	tx, end, err := f.snapshot(ctx, db, c)
	if err != nil {
		return err
	}
	defer end()
	return db.noted(fn(tx))
}

// snapshot begins a read transaction on c that ends with ctx, with the file, or by the function returned.
func (f *file) snapshot(ctx context.Context, db *DB, c *sqlite.Conn) (*Tx, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(f.retired, func() { cancel(context.Cause(f.retired)) })
	fail := func(err error) error {
		if isInterrupt(err) {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
		}
		return db.noted(classify(err))
	}
	c.SetInterrupt(ctx.Done())
	release := func() {
		stop()
		c.SetInterrupt(nil)
		cancel(nil)
	}
	if err := run(c, "BEGIN"); err != nil {
		err = fail(err)
		release()
		return nil, nil, err
	}
	tx, err := db.begin(c, false, fail)
	end := func() {
		tx.conn = nil
		release()
		if err := run(c, "ROLLBACK"); err != nil {
			db.note(classify(err))
		}
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return tx, end, nil
}

// write runs fn in the one write transaction and commits it. It returns the topics that changed.
func (f *file) write(db *DB, fn func(*Tx) error) (map[string]struct{}, error) {
	fail := func(err error) error { return classify(err) }
	if err := run(f.writer, "BEGIN IMMEDIATE"); err != nil {
		return nil, db.noted(fail(err))
	}
	committed := false
	tx, err := db.begin(f.writer, true, fail)
	defer func() {
		tx.conn = nil
		// A full disk may have rolled the transaction back already.
		if !committed && !f.writer.AutocommitEnabled() {
			if err := run(f.writer, "ROLLBACK"); err != nil {
				db.note(classify(err))
			}
		}
	}()
	if err == nil {
		err = fn(tx)
	}
	if err == nil {
		err = tx.storeMeta()
	}
	if err == nil {
		err = fail(run(f.writer, "COMMIT"))
	}
	if err != nil {
		return nil, db.noted(err)
	}
	committed = true
	return tx.touched, nil
}

func (db *DB) noted(err error) error {
	db.note(err)
	return err
}

// checkpoint moves the write-ahead log into the file. Readers in the way are no error.
func (f *file) checkpoint(mode string) error {
	s, err := f.writer.Prepare("PRAGMA wal_checkpoint(" + mode + ")")
	if err != nil {
		return classify(err)
	}
	_, err = s.Step()
	if e := s.Reset(); err == nil {
		err = e
	}
	if sqlite.ErrCode(err).ToPrimary() == sqlite.ResultBusy {
		return nil
	}
	return classify(err)
}

// run executes one of the few statements without arguments or rows.
func run(c *sqlite.Conn, sql string) error {
	s, err := c.Prepare(sql)
	if err != nil {
		return err
	}
	_, err = s.Step()
	if e := s.Reset(); err == nil {
		err = e
	}
	return err
}
