package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestALogReadsBackWhatWasWrittenAfterItIsOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	want := entries(1, 40, 1)
	want[7].Type, want[8].Extensions, want[9].AppendedAt, want[10].Data = raft.LogConfiguration, []byte("ext"), time.Time{}, nil
	l := open(t, dir, Options{})
	check(t, l.StoreLogs(want))
	check(t, l.SetUint64([]byte("CurrentTerm"), 7))
	check(t, l.Set([]byte("LastVoteCand"), []byte("b:7000")))
	check(t, l.Close())

	l = open(t, dir, Options{})
	defer l.Close()
	if _, err := l.Verify(0); err != nil {
		t.Fatal(err)
	}
	holds(t, l, want)
	if term, err := l.GetUint64([]byte("CurrentTerm")); term != 7 || err != nil {
		t.Fatalf("term %d, %v", term, err)
	}
	if v, err := l.Get([]byte("LastVoteCand")); string(v) != "b:7000" || err != nil {
		t.Fatalf("vote %q, %v", v, err)
	}
	if v, err := l.Get([]byte("never set")); v != nil || err != nil {
		t.Fatalf("got %q, %v for a key that was never set", v, err)
	}
}

func TestVerifyCountsTheBytesAfterAnIndex(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	defer l.Close()
	check(t, l.StoreLogs(entries(1, 10, 1)))
	all, err := l.Verify(0)
	check(t, err)
	half, err := l.Verify(5)
	check(t, err)
	if all == 0 || half == 0 || half >= all {
		t.Fatalf("%d bytes in all, %d after entry 5", all, half)
	}
	if none, err := l.Verify(10); none != 0 || err != nil {
		t.Fatalf("%d bytes after the last entry, %v", none, err)
	}
}

// A log behaves like a list of entries, whatever is appended, cut off, or opened again, with or without having been closed.
func TestALogBehavesLikeAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "raftlog")
		check(t, err)
		defer os.RemoveAll(dir)
		o := Options{SegmentBytes: rapid.SampledFrom([]int{2048, 8192, 1 << 20}).Draw(t, "segment")}
		l := open(t, dir, o)
		defer func() { l.Close() }()
		var model []*raft.Log
		next, term := uint64(1), uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				n := rapid.IntRange(1, 12).Draw(t, "entries")
				batch := entries(next, n, term)
				check(t, l.StoreLogs(batch))
				model, next = append(model, batch...), next+uint64(n)
			},
			"begin elsewhere when empty": func(t *rapid.T) {
				if len(model) == 0 {
					next += rapid.Uint64Range(0, 1000).Draw(t, "skip")
				}
			},
			"forget the oldest": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip()
				}
				n := rapid.IntRange(1, len(model)).Draw(t, "entries")
				check(t, l.DeleteRange(model[0].Index, model[n-1].Index))
				model = model[n:]
			},
			"cut off the newest": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip()
				}
				n := rapid.IntRange(1, len(model)).Draw(t, "entries")
				check(t, l.DeleteRange(model[len(model)-n].Index, next-1))
				model, term = model[:len(model)-n], term+1
				next -= uint64(n)
			},
			"open again": func(t *rapid.T) {
				check(t, l.Close())
				l = open(t, dir, o)
			},
			"crash": func(t *rapid.T) {
				check(t, l.DeleteRange(next+1, next+1)) // waits for a rotation: a copy that runs beside one is no moment in time
				copied := copyFolder(t, dir)
				check(t, l.Close())
				check(t, os.RemoveAll(dir))
				check(t, os.Rename(copied, dir))
				l = open(t, dir, o)
			},
			"": func(t *rapid.T) { holds(t, l, model) },
		})
	})
}

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

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			l := open(b, b.TempDir(), Options{})
			defer l.Close()
			next := uint64(1)
			for b.Loop() {
				batch := entries(next, size, 1)
				check(b, l.StoreLogs(batch))
				next += uint64(size)
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	l := open(b, b.TempDir(), Options{})
	defer l.Close()
	const n = 50_000
	for i := uint64(1); i <= n; i += 500 {
		check(b, l.StoreLogs(entries(i, 500, 1)))
	}
	for b.Loop() {
		_, err := l.Verify(0)
		check(b, err)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
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

type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func open(t tester, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	check(t, err)
	return l
}

func check(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entries makes n entries from first on, each recognisable.
func entries(first uint64, n int, term uint64) []*raft.Log {
	out := make([]*raft.Log, n)
	for i := range out {
		index := first + uint64(i)
		out[i] = &raft.Log{Index: index, Term: term, Data: fmt.Appendf(nil, "entry %d of term %d %s", index, term, strings.Repeat(".", int(index%50))),
			AppendedAt: time.Unix(0, int64(1700000000000000000+index))}
	}
	return out
}

func holds(t tester, l *Log, want []*raft.Log) {
	t.Helper()
	first, err := l.FirstIndex()
	check(t, err)
	last, err := l.LastIndex()
	check(t, err)
	if len(want) == 0 {
		if first != 0 || last != 0 {
			// raft-wal may remember where an emptied log went on; there is no entry all the same.
			if err := l.GetLog(last, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
				t.Fatalf("an empty log holds %d to %d: %v", first, last, err)
			}
		}
		return
	}
	if first != want[0].Index || last != want[len(want)-1].Index {
		t.Fatalf("holds entries %d to %d, want %d to %d", first, last, want[0].Index, want[len(want)-1].Index)
	}
	for _, gone := range []uint64{first - 1, last + 1} {
		if err := l.GetLog(gone, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatalf("entry %d is read from a log that holds %d to %d: %v", gone, first, last, err)
		}
	}
	for _, w := range want {
		var got raft.Log
		check(t, l.GetLog(w.Index, &got))
		if got.Index != w.Index || got.Term != w.Term || got.Type != w.Type || !bytes.Equal(got.Data, w.Data) ||
			!bytes.Equal(got.Extensions, w.Extensions) || !got.AppendedAt.Equal(w.AppendedAt) {
			t.Fatalf("got %+v, want %+v", got, *w)
		}
	}
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
