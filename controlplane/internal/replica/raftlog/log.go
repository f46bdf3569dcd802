// Package raftlog is the durable log of one server: hashicorp's raft-wal, made to keep what it was given or to say that it
// has not.
//
// raft-wal is fast and small, and trusts the disk. What stands around it here: a checksum on every entry and on the
// metadata; a mark that tells a write cut short from acknowledged entries gone; the end of a rotation that a crash
// interrupted; and an end of the process, never a retry, after a failed sync.
package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// DefaultSegmentBytes is the size of one file of the log.
const DefaultSegmentBytes = 64 << 20

// spaceRetry is how long a write that must not fail waits for the disk to have room again.
const spaceRetry = 100 * time.Millisecond

// Options are how a log is opened.
type Options struct {
	// SegmentBytes is the size of one file; 0 means DefaultSegmentBytes.
	SegmentBytes int
	Logger       hclog.Logger
	// Fail is told, once or more, why the log can no longer be relied on; the process has to end then.
	// It may be called from any goroutine and must not block.
	Fail func(error)
	// NoSpace is told that the disk is full, and with nil that it has room again. It must not block.
	NoSpace func(error)

	// Files is the file system that the segments are in; nil means the machine's.
	Files types.VFS
}

// Log implements raft.LogStore, raft.MonotonicLogStore and raft.StableStore. Its methods may be called concurrently, as raft
// does: one writer, many readers.
//
// After a failure that makes the log unreliable (a damaged entry, a failed sync) Fail is called, and a method that Raft
// would answer by a panic or by going on does not return: its goroutine ends. Raft's own goroutines are made for that;
// nothing else may call those methods after Serve.
type Log struct {
	dir  string
	o    Options
	meta *meta
	mark *mark

	// mu guards wal, which is replaced when a rotation has failed.
	mu  sync.RWMutex
	wal *wal.WAL

	serving   atomic.Bool
	closed    chan struct{}
	written   atomic.Uint64
	appending atomic.Int64 // since when an append is under way, in nanoseconds after began; 0 when none is
	began     time.Time
}

// Open opens the log in dir, which must exist, or makes a new one there. It checks what can be checked without reading every
// entry; call Verify for the rest.
func Open(dir string, o Options) (*Log, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Fail == nil {
		o.Fail = func(error) {}
	}
	if o.NoSpace == nil {
		o.NoSpace = func(error) {}
	}
	if o.Files == nil {
		o.Files = walfs.New()
	}
	m, err := openMeta(dir)
	if err != nil {
		return nil, fmt.Errorf("open the log in %s: %w", dir, err)
	}
	l := &Log{dir: dir, o: o, meta: m, closed: make(chan struct{}), began: time.Now()}
	if l.wal, err = l.openWAL(); err != nil {
		return nil, fmt.Errorf("open the log in %s: %w", dir, err)
	}
	tail, marked, known, err := openMark(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the log in %s: %w", dir, err), l.wal.Close())
	}
	l.mark = tail
	last, err := l.wal.LastIndex()
	if err == nil && known && last < marked {
		err = fmt.Errorf("%w: it ends with entry %d, but %d was durable", ErrDamaged, last, marked)
	}
	if err == nil {
		err = l.mark.raise(last)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the log in %s: %w", dir, err), l.Close())
	}
	return l, nil
}

func (l *Log) openWAL() (*wal.WAL, error) {
	files := segments{SegmentFiler: segment.NewFiler(l.dir, l.o.Files), dir: l.dir}
	if err := files.finishRotation(l.meta); err != nil {
		return nil, err
	}
	return wal.Open(l.dir, wal.WithCodec(codec{}), wal.WithMetaStore(l.meta), wal.WithSegmentFiler(files),
		wal.WithSegmentSize(l.o.SegmentBytes), wal.WithLogger(l.o.Logger), wal.WithMetricsCollector(counter{&l.written}))
}

// Verify reads every entry. It returns how many bytes the entries above index take; an error names the entry that is
// damaged.
func (l *Log) Verify(index uint64) (bytes uint64, err error) {
	first, err := l.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := l.LastIndex()
	if err != nil || last == 0 {
		return 0, err
	}
	var entry raft.Log
	for i := first; i <= last; i++ {
		if err := l.read(i, &entry); err != nil {
			return 0, fmt.Errorf("entry %d of %d to %d in %s: %w", i, first, last, l.dir, err)
		}
		if i > index {
			bytes += uint64(len(entry.Data) + len(entry.Extensions))
		}
	}
	return bytes, nil
}

// Serve says that from now on only Raft reads and writes.
func (l *Log) Serve() { l.serving.Store(true) }

// Written returns how many bytes of entries were appended since the log was opened.
func (l *Log) Written() uint64 { return l.written.Load() }

// Appending returns how long the present append has been under way; 0 when none is.
func (l *Log) Appending() time.Duration {
	since := l.appending.Load()
	if since == 0 {
		return 0
	}
	return time.Since(l.began) - time.Duration(since)
}

// IsMonotonic implements raft.MonotonicLogStore.
func (l *Log) IsMonotonic() bool { return true }

// FirstIndex implements raft.LogStore.
func (l *Log) FirstIndex() (uint64, error) { return l.current().FirstIndex() }

// LastIndex implements raft.LogStore.
func (l *Log) LastIndex() (uint64, error) { return l.current().LastIndex() }

// GetLog implements raft.LogStore.
func (l *Log) GetLog(index uint64, entry *raft.Log) error {
	err := l.read(index, entry)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, wal.ErrClosed) {
		return err
	}
	return l.unreliable(fmt.Errorf("read entry %d of the log in %s: %w", index, l.dir, err))
}

func (l *Log) read(index uint64, entry *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	// raft-wal still reads what was deleted from its last segment.
	first, err := l.wal.FirstIndex()
	if err != nil {
		return err
	}
	if index < first {
		return raft.ErrLogNotFound
	}
	if err := l.wal.GetLog(index, entry); err != nil {
		return err
	}
	if entry.Index != index {
		return fmt.Errorf("%w: entry %d stands in the place of entry %d", ErrDamaged, entry.Index, index)
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. On a full disk it returns the error, and works again when there is room.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.appending.Store(max(1, int64(time.Since(l.began))))
	defer l.appending.Store(0)
	err := l.current().StoreLogs(entries)
	if errors.Is(err, wal.ErrSealed) {
		// The last segment is full, and its successor could not be made. Opening again makes it, or says why not.
		if err = l.reopen(); err == nil {
			err = l.current().StoreLogs(entries)
		}
	}
	switch {
	case err == nil:
		l.o.NoSpace(nil)
		err = l.mark.raise(entries[len(entries)-1].Index)
	case noSpace(err):
		l.o.NoSpace(err)
		return fmt.Errorf("append to the log in %s: %w", l.dir, err)
	}
	if err == nil || errors.Is(err, wal.ErrClosed) {
		return err
	}
	return l.unreliable(fmt.Errorf("append to the log in %s: %w", l.dir, err))
}

// reopen puts a fresh opening of the same files in place of the present one, which goes on serving if that fails.
func (l *Log) reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh, err := l.openWAL()
	if err != nil {
		return err
	}
	old := l.wal
	l.wal = fresh
	return old.Close()
}

// DeleteRange implements raft.LogStore.
func (l *Log) DeleteRange(from, to uint64) error {
	last, err := l.LastIndex()
	if err == nil && from <= last && to >= last {
		first := uint64(0)
		if first, err = l.FirstIndex(); err == nil {
			left := uint64(0)
			if from > first {
				left = from - 1
			}
			err = l.mark.lower(left)
		}
	}
	if err == nil {
		err = l.current().DeleteRange(from, to)
	}
	if err == nil || noSpace(err) || errors.Is(err, wal.ErrClosed) {
		return err
	}
	return l.unreliable(fmt.Errorf("delete entries %d to %d of the log in %s: %w", from, to, l.dir, err))
}

// Set implements raft.StableStore. It waits while the disk is full: Raft takes no refusal of its term or vote.
func (l *Log) Set(key, value []byte) error {
	for {
		err := l.meta.SetStable(key, value)
		switch {
		case err == nil:
			l.o.NoSpace(nil)
			return nil
		case !noSpace(err):
			return l.unreliable(fmt.Errorf("write Raft's %s in %s: %w", key, l.dir, err))
		}
		l.o.NoSpace(err)
		select {
		case <-l.closed:
			return err
		case <-time.After(spaceRetry):
		}
	}
}

// Get implements raft.StableStore: nil for a key that was never set.
func (l *Log) Get(key []byte) ([]byte, error) { return l.meta.GetStable(key) }

// SetUint64 implements raft.StableStore.
func (l *Log) SetUint64(key []byte, value uint64) error {
	return l.Set(key, binary.LittleEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore: 0 for a key that was never set.
func (l *Log) GetUint64(key []byte) (uint64, error) {
	raw, err := l.Get(key)
	if err != nil || raw == nil {
		return 0, err
	}
	if len(raw) != 8 {
		return 0, fmt.Errorf("%w: Raft's %s is no number", ErrDamaged, key)
	}
	return binary.LittleEndian.Uint64(raw), nil
}

// Close closes the files. A method that waits for room on the disk gives up.
func (l *Log) Close() error {
	select {
	case <-l.closed:
		return nil
	default:
	}
	close(l.closed)
	return errors.Join(l.current().Close(), l.mark.close())
}

func (l *Log) current() *wal.WAL {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.wal
}

// unreliable reports err. While Raft is served it ends the calling goroutine: Raft would panic or go on.
func (l *Log) unreliable(err error) error {
	l.o.Fail(err)
	if l.serving.Load() {
		runtime.Goexit()
	}
	return err
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// counter takes from raft-wal's metrics how much was appended.
type counter struct{ written *atomic.Uint64 }

// IncrementCounter implements metrics.Collector.
func (c counter) IncrementCounter(name string, delta uint64) {
	if name == "log_entry_bytes_written" {
		c.written.Add(delta)
	}
}

// SetGauge implements metrics.Collector.
func (counter) SetGauge(string, uint64) {}
