package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
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
