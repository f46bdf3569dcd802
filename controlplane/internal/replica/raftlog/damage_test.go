package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

func TestP17AFullSegmentThatWasNotReplacedBeforeACrashIsReplacedAfterIt(t *testing.T) {
	dir, want, _ := sealedWithoutSuccessor(t)
	l := open(t, dir, Options{SegmentBytes: 4096})
	holds(t, l, want)
	more := entries(uint64(len(want))+1, 5, 1)
	check(t, l.StoreLogs(more))
	check(t, l.Close())
	l = open(t, dir, Options{SegmentBytes: 4096})
	defer l.Close()
	holds(t, l, append(want, more...))
}

func TestP17ASealCutShortAnywhereByACrashIsWrittenAgain(t *testing.T) {
	dir, want, start := sealedWithoutSuccessor(t)
	path := onlySegment(t, dir)
	whole, err := os.ReadFile(path)
	check(t, err)
	end := len(bytes.TrimRight(whole, "\x00"))
	// Each cut leaves zeros behind it, as a page that was not written does.
	for cut := end - 1; cut >= start; cut-- {
		torn := copyFolder(t, dir)
		damaged := append(append([]byte(nil), whole[:cut]...), make([]byte, len(whole)-cut)...)
		check(t, os.WriteFile(filepath.Join(torn, filepath.Base(path)), damaged, 0o600))
		check(t, os.Remove(filepath.Join(torn, markName))) // it would have been written after the append
		l := open(t, torn, Options{SegmentBytes: 4096})
		last, err := l.LastIndex()
		check(t, err)
		if last < uint64(len(want))-3 {
			t.Fatalf("cut at %d of %d: %d entries left of %d", cut, end, last, len(want))
		}
		left := want[:last:last]
		holds(t, l, left)
		more := entries(last+1, 3, 2)
		check(t, l.StoreLogs(more))
		check(t, l.Close())
		l = open(t, torn, Options{SegmentBytes: 4096})
		holds(t, l, append(left, more...))
		check(t, l.Close())
		check(t, os.RemoveAll(torn))
	}
}

// Every byte of every file of a log is flipped in turn, with each of a few masks. What is read then is what was written, or
// an error: nothing else, and nothing acknowledged is missing without an error.
func TestP18AFlippedByteIsAnErrorAndNeverAWrongEntry(t *testing.T) {
	dir := t.TempDir()
	o := Options{SegmentBytes: 2048}
	want := entries(1, 30, 1)
	l := open(t, dir, o)
	for i := 0; i < len(want); i += 3 {
		check(t, l.StoreLogs(want[i:i+3]))
	}
	check(t, l.SetUint64([]byte("CurrentTerm"), 5))
	check(t, l.DeleteRange(1, 2))
	want = want[2:]
	check(t, l.Close())

	files, err := os.ReadDir(dir)
	check(t, err)
	flipped, refused, every := 0, 0, 1
	if testing.Short() {
		every = 23 // a prime: all parts of an entry come about
	}
	for _, file := range files {
		whole, err := os.ReadFile(filepath.Join(dir, file.Name()))
		check(t, err)
		used := len(bytes.TrimRight(whole, "\x00"))
		for at := 0; at < min(len(whole), used+16); at += every {
			for _, mask := range []byte{0x01, 0x80, 0xff} {
				copied := copyFolder(t, dir)
				damaged := append([]byte(nil), whole...)
				damaged[at] ^= mask
				check(t, os.WriteFile(filepath.Join(copied, file.Name()), damaged, 0o600))
				flipped++
				if refusedOrWhole(t, fmt.Sprintf("%s, byte %d, mask %#x", file.Name(), at, mask), copied, o, want) {
					refused++
				}
				check(t, os.RemoveAll(copied))
			}
		}
	}
	t.Logf("%d flips: %d refused, %d harmless", flipped, refused, flipped-refused)
	if refused < flipped/2 {
		t.Fatalf("only %d of %d flips were noticed: is the test looking at the log?", refused, flipped)
	}
}

func refusedOrWhole(t *testing.T, what, dir string, o Options, want []*raft.Log) (refused bool) {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		return true
	}
	defer l.Close()
	if _, err := l.Verify(0); err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, types.ErrCorrupt) && !errors.Is(err, raft.ErrLogNotFound) {
			t.Logf("%s: %v", what, err)
		}
		return true
	}
	if term, err := l.GetUint64([]byte("CurrentTerm")); err != nil {
		return true
	} else if term != 5 {
		t.Fatalf("%s: term %d was read, 5 was written", what, term)
	}
	holds(t, l, want)
	return false
}

func TestP18AcknowledgedEntriesThatAreGoneAreMissed(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	check(t, l.StoreLogs(entries(1, 5, 1)))
	check(t, l.StoreLogs(entries(6, 5, 1)))
	check(t, l.Close())
	// The last append as a crash in the middle of it would leave it; but it had been acknowledged.
	path := onlySegment(t, dir)
	whole, err := os.ReadFile(path)
	check(t, err)
	end := len(bytes.TrimRight(whole, "\x00"))
	clear(whole[end-40:])
	check(t, os.WriteFile(path, whole, 0o600))
	_, err = Open(dir, Options{})
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "ends with entry 5, but 10 was durable") {
		t.Fatalf("got %v", err)
	}
}

func TestADamagedMarkIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	want := entries(1, 5, 1)
	check(t, l.StoreLogs(want))
	check(t, l.Close())
	check(t, os.WriteFile(filepath.Join(dir, markName), []byte("not a mark at all"), 0o600))
	l = open(t, dir, Options{})
	defer l.Close()
	holds(t, l, want)
}

func TestSegmentsWithoutMetadataAreRefusedAndKept(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	check(t, l.StoreLogs(entries(1, 5, 1)))
	check(t, l.Close())
	check(t, os.Remove(filepath.Join(dir, metaName)))
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("got %v", err)
	}
	onlySegment(t, dir)
}

func copyFolder(t tester, dir string) string {
	t.Helper()
	copied, err := os.MkdirTemp("", "raftlog")
	check(t, err)
	check(t, os.CopyFS(copied, os.DirFS(dir)))
	return copied
}

func onlySegment(t *testing.T, dir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	check(t, err)
	if len(found) != 1 {
		t.Fatalf("want one segment, got %v", found)
	}
	return found[0]
}

// sealedWithoutSuccessor returns a log as a crash leaves it between the append that seals a segment and the metadata that
// says so, and where in the file that append begins.
func sealedWithoutSuccessor(t *testing.T) (dir string, want []*raft.Log, start int) {
	t.Helper()
	source := t.TempDir()
	disk := &disk{VFS: fs.New()}
	l := open(t, source, Options{SegmentBytes: 4096, Files: disk})
	defer l.Close()
	l.meta.commit = func(string, []byte) error { return syscall.EIO } // raft-wal only logs that a rotation failed
	for {
		raw, err := os.ReadFile(onlySegment(t, source))
		check(t, err)
		start = len(bytes.TrimRight(raw, "\x00"))
		batch := entries(uint64(len(want))+1, 3, 1)
		err = l.current().StoreLogs(batch)
		if errors.Is(err, types.ErrSealed) {
			break
		}
		check(t, err)
		want = append(want, batch...)
		check(t, l.mark.raise(uint64(len(want))))
		dir = copyFolder(t, source)
		t.Cleanup(func() { os.RemoveAll(dir) })
		if sealed(t, dir) {
			return dir, want, start
		}
	}
	t.Fatal("no append sealed the segment")
	return "", nil, 0
}

// sealed reports whether the log's last segment ends with an index.
func sealed(t *testing.T, dir string) bool {
	t.Helper()
	m, err := openMeta(dir)
	check(t, err)
	w, err := segment.NewFiler(dir, fs.New()).RecoverTail(m.state.Log.Segments[len(m.state.Log.Segments)-1])
	check(t, err)
	defer w.Close()
	yes, _, err := w.Sealed()
	check(t, err)
	return yes
}
