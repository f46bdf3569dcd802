package raftlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

const markName = "tail"

// mark remembers the last index that was durable. Opening a log, raft-wal takes whatever does not read as a write that a
// crash cut short, and drops it with all that follows; only the mark can tell that from acknowledged entries that were
// damaged.
//
// It is written after each append, without a sync: it may lag behind the log, and must never be ahead of it. So it is
// lowered, durably, before the log's tail is cut off.
type mark struct {
	f *os.File
}

// openMark returns the folder's mark and what it says; known is false for one that is new or does not read.
func openMark(dir string) (m *mark, last uint64, known bool, err error) {
	f, err := os.OpenFile(filepath.Join(dir, markName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, false, err
	}
	var b [12]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, false, errors.Join(err, f.Close())
	}
	known = binary.LittleEndian.Uint32(b[8:]) == crc32.Checksum(b[:8], castagnoli)
	return &mark{f: f}, binary.LittleEndian.Uint64(b[:]), known, nil
}

// raise notes that last is durable.
func (m *mark) raise(last uint64) error {
	var b [12]byte
	binary.LittleEndian.PutUint64(b[:], last)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
	_, err := m.f.WriteAt(b[:], 0)
	return err
}

// lower notes, durably, that nothing above last counts any more.
func (m *mark) lower(last uint64) error {
	if err := m.raise(last); err != nil {
		return err
	}
	return m.f.Sync()
}

func (m *mark) close() error { return m.f.Close() }
