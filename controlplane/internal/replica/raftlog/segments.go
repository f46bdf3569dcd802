package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// frameHeader is the length of what stands before each entry, index and commit in a segment; frames are padded to multiples
// of it.
const frameHeader = 8

// segments creates and opens the log's files, with our codec's number in their headers.
type segments struct {
	types.SegmentFiler
	dir string
}

// Create implements types.SegmentFiler.
func (s segments) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	info.Codec = codecID
	return s.SegmentFiler.Create(info)
}

// finishRotation brings the last segment into a state in which it can be appended to. A full segment is sealed by its last
// append, and replaced by a new one a moment later; raft-wal does not take a sealed last segment up again when it opens, but
// refuses every append from then on. So a whole seal gets its new segment here, and one that was cut short is removed.
func (s segments) finishRotation(m *meta) error {
	state, err := m.Load(s.dir)
	if err != nil || len(state.Segments) == 0 {
		return err
	}
	state.Segments = slices.Clone(state.Segments)
	tail := &state.Segments[len(state.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	w, err := s.RecoverTail(*tail)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was about to be created, and will be
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", segment.FileName(*tail), err)
	}
	defer w.Close()
	sealed, indexStart, err := w.Sealed()
	if err != nil || !sealed {
		return err
	}
	last := w.LastIndex()
	path := filepath.Join(s.dir, segment.FileName(*tail))
	whole, end, err := s.inspectSeal(path, w, *tail, last, indexStart)
	if err != nil {
		return fmt.Errorf("read the seal of %s: %w", segment.FileName(*tail), err)
	}
	if !whole {
		return cutOff(path, end)
	}
	now := time.Now()
	tail.SealTime, tail.IndexStart, tail.MaxIndex = now, indexStart, last
	state.Segments = append(state.Segments, types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1, SizeLimit: tail.SizeLimit, CreateTime: now,
	})
	state.NextSegmentID++
	return m.CommitState(state)
}

// inspectSeal compares the index that seals a segment with where its entries, up to last, really stand. end is where the
// last committed append ends.
func (s segments) inspectSeal(path string, w types.SegmentWriter, info types.SegmentInfo, last, indexStart uint64) (whole bool, end int64, err error) {
	offsets, ok := w.(interface {
		OffsetForFrame(uint64) (uint32, error)
	})
	if !ok {
		return false, 0, fmt.Errorf("%T does not tell where its entries stand", w)
	}
	if last < info.BaseIndex { // nothing was ever committed to it
		return false, 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, 0, err
	}
	defer f.Close()
	var header [frameHeader]byte
	at, err := offsets.OffsetForFrame(last)
	if err != nil {
		return false, 0, err
	}
	if _, err := f.ReadAt(header[:], int64(at)); err != nil {
		return false, 0, err
	}
	end = int64(at) + frameHeader + int64(padded(binary.LittleEndian.Uint32(header[4:])))

	count := last - info.BaseIndex + 1
	index := make([]byte, frameHeader+4*count)
	if _, err := f.ReadAt(index, int64(indexStart)-frameHeader); err != nil {
		return false, end + frameHeader, nil
	}
	whole = uint64(binary.LittleEndian.Uint32(index[4:])) == 4*count
	for i := info.MinIndex; whole && i <= last; i++ { // what was before MinIndex has been deleted
		at, err := offsets.OffsetForFrame(i)
		whole = err == nil && binary.LittleEndian.Uint32(index[frameHeader+4*(i-info.BaseIndex):]) == at
	}
	return whole, end + frameHeader, nil // behind the last entry stands the commit of its append
}

func padded(n uint32) uint64 { return (uint64(n) + frameHeader - 1) / frameHeader * frameHeader }

// cutOff makes everything in the file from end on zero, as if it had never been written.
func cutOff(path string, end int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		err = f.Truncate(info.Size())
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
