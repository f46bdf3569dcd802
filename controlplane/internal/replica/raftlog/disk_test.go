package raftlog

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
)

func TestP19AFullDiskRefusesAppendsAndHeals(t *testing.T) {
	disk := &disk{VFS: fs.New()}
	var full error
	l := open(t, t.TempDir(), Options{SegmentBytes: 4096, Files: disk, NoSpace: func(err error) { full = err },
		Fail: func(err error) { t.Errorf("a full disk is no reason to stop: %v", err) }})
	defer l.Close()
	var want []*raft.Log
	// The disk fills up in the middle of a segment, and again exactly when a new one is needed.
	for round := range 40 {
		disk.full.Store(round%3 == 1)
		batch := entries(uint64(len(want))+1, 3, 1)
		err := l.StoreLogs(batch)
		switch {
		case disk.full.Load() && err == nil:
			t.Fatal("appended to a full disk")
		case disk.full.Load() && (!errors.Is(err, syscall.ENOSPC) || full == nil):
			t.Fatalf("got %v, told %v", err, full)
		case !disk.full.Load() && (err != nil || full != nil):
			t.Fatalf("with room again: %v, told %v", err, full)
		}
		if err == nil {
			want = append(want, batch...)
		}
		holds(t, l, want)
	}
}

func TestP19ARotationThatFoundNoRoomIsMadeUpFor(t *testing.T) {
	disk := &disk{VFS: fs.New()}
	l := open(t, t.TempDir(), Options{SegmentBytes: 4096, Files: disk})
	defer l.Close()
	disk.noCreate.Store(true)
	var want []*raft.Log
	var err error
	for err == nil {
		batch := entries(uint64(len(want))+1, 3, 1)
		if err = l.StoreLogs(batch); err == nil {
			want = append(want, batch...)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	holds(t, l, want)
	disk.noCreate.Store(false)
	batch := entries(uint64(len(want))+1, 3, 1)
	check(t, l.StoreLogs(batch))
	holds(t, l, append(want, batch...))
}

func TestP19AFailedSyncEndsTheLogAndIsNeverTriedAgain(t *testing.T) {
	disk := &disk{VFS: fs.New()}
	var failed error
	l := open(t, t.TempDir(), Options{Files: disk, Fail: func(err error) { failed = err }})
	defer l.Close()
	check(t, l.StoreLogs(entries(1, 3, 1)))
	l.Serve()
	disk.sync = syscall.EIO
	returned := make(chan bool, 1)
	go func() {
		defer func() { returned <- false }()
		_ = l.StoreLogs(entries(4, 3, 1))
		returned <- true
	}()
	if <-returned {
		t.Fatal("an append whose sync failed returned to Raft")
	}
	if !errors.Is(failed, syscall.EIO) {
		t.Fatalf("reported %v", failed)
	}
}

func TestP19AVoteWaitsForRoomOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, dir, Options{})
		defer l.Close()
		full := true
		l.meta.commit = func(path string, content []byte) error {
			if full {
				return fmt.Errorf("write: %w", syscall.ENOSPC)
			}
			return writeSynced(path, content)
		}
		done := make(chan error, 1)
		go func() { done <- l.SetUint64([]byte("CurrentTerm"), 3) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("returned %v while the disk was full", err)
		default:
		}
		l.meta.mu.Lock()
		full = false
		l.meta.mu.Unlock()
		check(t, <-done)
		if term, err := l.GetUint64([]byte("CurrentTerm")); term != 3 || err != nil {
			t.Fatalf("term %d, %v", term, err)
		}
	})
}

// disk is a file system that can be full, or fail to sync.
type disk struct {
	types.VFS
	full, noCreate atomic.Bool // raft-wal makes files beside appends
	sync           error
}

func (d *disk) Create(dir, name string, size uint64) (types.WritableFile, error) {
	if d.full.Load() || d.noCreate.Load() {
		return nil, fmt.Errorf("create %s: %w", name, syscall.ENOSPC)
	}
	f, err := d.VFS.Create(dir, name, size)
	return &file{f, d}, err
}

func (d *disk) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := d.VFS.OpenWriter(dir, name)
	return &file{f, d}, err
}

type file struct {
	types.WritableFile
	d *disk
}

func (f *file) WriteAt(b []byte, at int64) (int, error) {
	if f.d.full.Load() {
		n, _ := f.WritableFile.WriteAt(b[:len(b)/2], at)
		return n, fmt.Errorf("write: %w", syscall.ENOSPC)
	}
	return f.WritableFile.WriteAt(b, at)
}

func (f *file) Sync() error {
	if f.d.sync != nil {
		return f.d.sync
	}
	return f.WritableFile.Sync()
}
