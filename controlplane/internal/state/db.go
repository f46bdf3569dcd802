package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// readLimit is how long a read may hold its snapshot: as long as one does, the write-ahead log cannot start over.
	readLimit = 5 * time.Second
	// maxTombstones is how many deleted nouns of a kind are kept for watches. It is part of what Apply computes.
	maxTombstones = 10_000
)

// Options are what a database needs beside its path.
type Options struct {
	// ServerID is whose database it is. A file of another server is refused.
	ServerID string
	// Federation, where set, is the only federation whose state is accepted.
	Federation string
	// Readers is how many reads may run at once; 0 means 8.
	Readers int
	// Logger is told of a full disk and of restores; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil leaves them unregistered.
	Registerer prometheus.Registerer

	// failPoint, in tests, is called at each step of which a crash must be survived.
	failPoint func(step string)
	// retryAfter, in tests, replaces the pause before a write is tried again on a full disk.
	retryAfter time.Duration
	// keepTombstones, in tests, replaces maxTombstones.
	keepTombstones uint64
}

// DB is one server's database. All methods are safe for concurrent use; Update and Restore exclude one another.
type DB struct {
	path           string
	options        Options
	log            *slog.Logger
	metrics        *metrics
	nouns          *nouns
	stores         []store
	auditLog       logTable
	zoneLogs       logTable
	watches        watches
	keepTombstones uint64

	writing sync.Mutex // held by Update, Checkpoint, Restore and Close

	mu     sync.Mutex // guards what follows
	file   *file      // written under writing as well
	closed bool
	broken error

	done   chan struct{} // closed by the first fatal error
	ending chan struct{} // closed by Close
}

// Open opens the database, and makes it if there is none. A restore that was cut off by a crash is finished or undone.
// Errors: ErrForeign, ErrCorrupt.
func Open(path string, o Options) (*DB, error) {
	if o.Readers == 0 {
		o.Readers = 8
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.failPoint == nil {
		o.failPoint = func(string) {}
	}
	if o.retryAfter == 0 {
		o.retryAfter = time.Second
	}
	if o.keepTombstones == 0 {
		o.keepTombstones = maxTombstones
	}
	if o.ServerID == "" {
		return nil, errors.New("open state: the server's id is missing")
	}
	db := &DB{
		path: path, options: o, log: o.Logger, metrics: newMetrics(o.Registerer), nouns: newNouns(), auditLog: newAuditLog(), zoneLogs: newZoneLogs(),
		keepTombstones: o.keepTombstones, done: make(chan struct{}), ending: make(chan struct{}),
	}
	db.stores = db.nouns.stores()
	if err := settle(path); err != nil {
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	f, err := db.openFile()
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	db.file = f
	return db, nil
}

// Close ends all reads, waits for the write in progress, and closes the file.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	close(db.ending)
	db.mu.Unlock()

	db.writing.Lock()
	defer db.writing.Unlock()
	db.watches.closeAll()
	if db.file == nil {
		return nil
	}
	return db.file.close(ErrClosed)
}

// Done is closed when the database can no longer be trusted; Err then says why, and the process has to stop.
func (db *DB) Done() <-chan struct{} { return db.done }

// Err returns the fatal error, if there was one.
func (db *DB) Err() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.broken
}

// note remembers the first fatal error.
func (db *DB) note(err error) {
	if !errors.Is(err, ErrCorrupt) {
		return
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.broken == nil {
		db.broken = err
		close(db.done)
		db.log.Error("state database is no longer usable", "path", db.path, "error", err)
	}
}

// View calls fn with a consistent snapshot. It ends after readLimit with ErrTooLong, and with ErrRetry when a restore
// replaces the file meanwhile; an error of fn's own is returned as it is.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	f, err := db.current()
	if err != nil {
		return err
	}
	defer f.leave()
	db.metrics.views.Inc()
	defer db.metrics.views.Dec()
	ctx, cancel := context.WithTimeoutCause(ctx, readLimit, ErrTooLong)
	defer cancel()
	return f.read(ctx, db, fn)
}

// current returns the file that is in use, entered: the caller leaves it.
func (db *DB) current() (*file, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case db.closed:
		return nil, ErrClosed
	case db.broken != nil:
		return nil, db.broken
	case db.file == nil:
		return nil, ErrRetry
	}
	db.file.users.Add(1)
	return db.file, nil
}

// Update calls fn with the one transaction that writes, commits it, and then tells the watches. When the disk is full it
// says so and tries again until there is space or Close is called: fn may run more than once and has to begin anew each
// time. Errors: those of fn, after which nothing was changed; ErrCorrupt; ErrClosed.
func (db *DB) Update(fn func(*Tx) error) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	defer db.metrics.diskFull.Set(0)
	for {
		err := db.updateOnce(fn)
		if !errors.Is(err, errFull) {
			return err
		}
		db.metrics.diskFull.Set(1)
		db.log.Error("the disk is full, the write waits and is tried again", "path", db.path, "error", err)
		select {
		case <-time.After(db.options.retryAfter):
		case <-db.ending:
			return ErrClosed
		}
	}
}

func (db *DB) updateOnce(fn func(*Tx) error) error {
	f, err := db.current()
	if err != nil {
		return err
	}
	defer f.leave()
	started := time.Now()
	topics, err := f.write(db, fn)
	if err != nil {
		return err
	}
	db.metrics.commits.Observe(time.Since(started).Seconds())
	db.watches.publish(topics)
	return db.checkpointIfDue(f)
}

// Checkpoint makes everything committed so far durable, and moves it from the write-ahead log into the file as far as
// readers permit. Without it a power cut may take the newest commits, which Raft's log then brings again.
func (db *DB) Checkpoint() error {
	db.writing.Lock()
	defer db.writing.Unlock()
	f, err := db.current()
	if err != nil {
		return err
	}
	defer f.leave()
	return db.checkpoint(f, "PASSIVE")
}

const (
	walSoft = 16 << 20  // from here the log is moved into the file as far as readers permit
	walHard = 256 << 20 // from here the writer waits for readers, which end within readLimit
)

// checkpointIfDue keeps the write-ahead log short. SQLite's own automatic checkpoint is off: it hides failed syncs.
func (db *DB) checkpointIfDue(f *file) error {
	info, err := os.Stat(db.path + "-wal")
	if err != nil {
		return nil // not there yet
	}
	db.metrics.walBytes.Set(float64(info.Size()))
	switch {
	case info.Size() < walSoft: // it has started over
		f.nextCheckpoint = walSoft
		return nil
	case info.Size() < f.nextCheckpoint:
		return nil
	case info.Size() > walHard:
		err = db.checkpoint(f, "RESTART")
	default:
		err = db.checkpoint(f, "PASSIVE")
	}
	// The next write starts the log over; should readers prevent that, it may grow a little before the next attempt.
	f.nextCheckpoint = info.Size() + walSoft/4
	if errors.Is(err, errFull) {
		db.log.Warn("the disk is full, the write-ahead log stays as it is", "path", db.path, "error", err)
		return nil
	}
	return err
}

func (db *DB) checkpoint(f *file, mode string) error {
	started := time.Now()
	err := f.checkpoint(mode)
	db.metrics.checkpoints.Observe(time.Since(started).Seconds())
	db.note(err)
	return err
}
