package replica

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/replica/raftlog"
)

func TestWhatIsDoneBeforeRaftStarts(t *testing.T) {
	snapshot := func(index, term uint64) *raft.SnapshotMeta { return &raft.SnapshotMeta{Index: index, Term: term} }
	sameTerm := func(uint64) (uint64, error) { return 2, nil }
	oldTerm := func(uint64) (uint64, error) { return 1, nil }
	for name, c := range map[string]struct {
		found   found
		repair  repair
		refusal string
	}{
		"a new server":                            {found{}, repair{}, ""},
		"nothing but a log":                       {found{first: 1, last: 9, term: sameTerm}, repair{}, ""},
		"all three agree":                         {found{10, 2, 3, 12, snapshot(8, 2), sameTerm}, repair{}, ""},
		"killed between snapshot and cut":         {found{10, 2, 1, 10, snapshot(10, 2), sameTerm}, repair{}, ""},
		"killed before the snapshot was restored": {found{3, 1, 1, 4, snapshot(10, 2), sameTerm}, repair{restore: true, emptyLog: true}, ""},
		"killed before the log was reset":         {found{10, 2, 1, 4, snapshot(10, 2), sameTerm}, repair{emptyLog: true}, ""},
		"the log goes on another way":             {found{10, 2, 1, 12, snapshot(10, 2), oldTerm}, repair{emptyLog: true}, ""},
		"the state is gone, the rest is whole":    {found{0, 0, 3, 12, snapshot(8, 2), sameTerm}, repair{restore: true}, ""},
		"a restored backup":                       {found{10, 2, 0, 0, snapshot(10, 2), nil}, repair{}, ""},
		"applied above both":                      {found{13, 2, 3, 12, snapshot(8, 2), sameTerm}, repair{}, "entries of the log up to 13, but the log ends with 12 and the newest snapshot with 8"},
		"applied, and nothing else is there":      {found{13, 2, 0, 0, nil, nil}, repair{}, "naru server delete"},
		"a gap":                                   {found{20, 2, 15, 22, snapshot(8, 2), sameTerm}, repair{}, "begins with entry 15, but the newest snapshot that can be read ends with 8"},
		"no snapshot can be read":                 {found{20, 2, 15, 22, nil, sameTerm}, repair{}, "begins with entry 15"},
		"a state of another history":              {found{10, 2, 3, 12, snapshot(8, 1), oldTerm}, repair{}, "not of the same history"},
	} {
		got, err := plan(c.found)
		if got != c.repair && c.refusal == "" || (err == nil) != (c.refusal == "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Whatever a crash or an accident has left: after the repair the state, the snapshot and the log fit each other, and no
// entry that the state lacks is missing; or the server does not start.
func TestAfterTheRepairNothingIsSkipped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := func(index uint64) uint64 { return 1 + index/7 } // the term of each committed entry
		f := found{applied: rapid.Uint64Range(0, 30).Draw(t, "applied")}
		f.appliedTerm = history(f.applied)
		if rapid.Bool().Draw(t, "has a log") {
			f.first = rapid.Uint64Range(1, 30).Draw(t, "first")
			f.last = f.first + rapid.Uint64Range(0, 10).Draw(t, "entries") - 1
			if f.last < f.first {
				f.first, f.last = 0, 0
			}
		}
		if index := rapid.Uint64Range(0, 30).Draw(t, "snapshot"); index > 0 {
			f.snapshot = &raft.SnapshotMeta{Index: index, Term: history(index)}
		}
		diverges := rapid.Uint64Range(0, 40).Draw(t, "the log diverges at")
		f.term = func(index uint64) (uint64, error) {
			if index < f.first || index > f.last {
				return 0, fmt.Errorf("entry %d is not in the log", index)
			}
			if diverges > 0 && index >= diverges {
				return history(index) + 100, nil
			}
			return history(index), nil
		}
		r, err := plan(f)
		if err != nil {
			return
		}
		applied, snapshot := f.applied, uint64(0)
		if f.snapshot != nil {
			snapshot = f.snapshot.Index
		}
		if r.restore {
			applied = snapshot
		}
		first, last := f.first, f.last
		if r.emptyLog {
			first, last = 0, 0
		}
		switch {
		case applied < f.applied:
			t.Fatalf("%+v: the state goes back to %d", r, applied)
		case applied < snapshot:
			t.Fatalf("%+v: the state at %d lacks what is in the snapshot", r, applied)
		case last == 0 && applied > snapshot:
			t.Fatalf("%+v: the next entry would be %d, and the state has it already", r, snapshot+1)
		case last > 0 && (first > snapshot+1 || last < snapshot || applied > last):
			t.Fatalf("%+v: log %d to %d, snapshot %d, state %d", r, first, last, snapshot, applied)
		case last > 0 && first <= snapshot && diverges > 0 && snapshot >= diverges:
			t.Fatalf("%+v: the log is not that of the snapshot", r)
		}
	})
}

func TestAServerWhoseStateIsAheadOfItsLogSaysWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, newEther().weave, nil)
		n := s.nodes[0]
		for i := range 10 {
			s.must(n, put("k", fmt.Sprint(i)))
		}
		check(t, n.stop())
		check(t, os.RemoveAll(filepath.Join(n.dir, "log")))
		err := n.tryStart()
		if err == nil || !strings.Contains(err.Error(), "acknowledged are missing") || !strings.Contains(err.Error(), "naru server delete") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAServerThatLostOnlyItsStateMakesItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, newEther().weave, func(c *Config) { c.Tuning.TrailingEntries = 5 })
		n := s.nodes[0]
		for i := range 20 {
			s.must(n, put(fmt.Sprint("key ", i), fmt.Sprint(i)))
		}
		check(t, n.raft.Snapshot().Error())
		s.must(n, put("behind", "the snapshot"))
		check(t, n.stop())
		was := n.ledger
		n.ledger = newLedger()
		n.start()
		defer n.crash()
		check(t, n.ReadIndex(t.Context()))
		for key, value := range was.state.Values {
			if got := n.ledger.get(key); got != value {
				t.Errorf("%s is %q, and was %q", key, got, value)
			}
		}
	})
}

// P18, on the whole server: each byte of what lies beside the state is flipped, and the server either refuses to start or
// ends up with the state it had.
func TestP18AServerWithAFlippedByteStartsWithTheSameStateOrNotAtAll(t *testing.T) {
	source := t.TempDir()
	var want *ledger
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, newEther().weave, func(c *Config) { c.Tuning.TrailingEntries, c.Tuning.SegmentBytes = 3, 2048 })
		n := s.nodes[0]
		for i := range 12 {
			s.must(n, put(fmt.Sprint("key ", i), fmt.Sprint(i)))
		}
		check(t, n.raft.Snapshot().Error())
		s.must(n, put("behind", "the snapshot"))
		check(t, n.stop())
		check(t, os.CopyFS(source, os.DirFS(n.dir)))
		want = n.ledger
	})
	var files []string
	check(t, filepath.Walk(source, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && info.Name() != "lock" {
			files = append(files, path)
		}
		return err
	}))
	flips, refused := 0, 0
	step := 7
	if testing.Short() {
		step = 41
	}
	for _, path := range files {
		whole, err := os.ReadFile(path)
		check(t, err)
		name, err := filepath.Rel(source, path)
		check(t, err)
		for at := 0; at < len(bytes.TrimRight(whole, "\x00")); at += step {
			flips++
			synctest.Test(t, func(t *testing.T) {
				e := newEther()
				s := &site{t: t, weave: e.weave, tune: func(c *Config) { c.Tuning.TrailingEntries, c.Tuning.SegmentBytes = 3, 2048 }}
				n := s.add("server-1")
				check(t, os.CopyFS(n.dir, os.DirFS(source)))
				damaged := bytes.Clone(whole)
				damaged[at] ^= 0x41
				check(t, os.WriteFile(filepath.Join(n.dir, name), damaged, 0o600))
				n.ledger = newLedger() // so that all of the state has to come from what was damaged
				if err := n.tryStart(); err != nil {
					refused++
					return
				}
				defer n.crash()
				s.must(n, put("goes", "on"))
				for key, value := range want.state.Values {
					if got := n.ledger.get(key); got != value {
						t.Errorf("%s, byte %d: %s is %q, and was %q", name, at, key, got, value)
					}
				}
			})
		}
	}
	t.Logf("%d flips in %d files, %d refused", flips, len(files), refused)
	if refused < flips/2 {
		t.Errorf("only %d of %d flips were refused: does the test damage what is read?", refused, flips)
	}
}

func TestADamagedSnapshotIsReplacedWhileTheServerRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, newEther().weave, nil)
		defer s.close()
		n := s.nodes[0]
		s.must(n, put("k", "v"))
		check(t, n.raft.Snapshot().Error())
		kept, err := filepath.Glob(filepath.Join(n.dir, "snapshots", "*", "state.bin"))
		check(t, err)
		if len(kept) != 1 {
			t.Fatalf("snapshots: %v", kept)
		}
		check(t, os.WriteFile(kept[0], []byte("rotten"), 0o600))
		s.must(n, put("k", "w"))

		store, err := openSnapshots(n.dir, logger{to: testLogger("reader")}, n.noteDamaged)
		check(t, err)
		if _, _, err := store.Open(filepath.Base(filepath.Dir(kept[0]))); err == nil {
			t.Error("a damaged snapshot was opened")
		}
		pause(t.Context(), 2*snapshotInterval)
		fresh, err := store.List()
		check(t, err)
		if len(fresh) == 0 || fresh[0].ID == filepath.Base(filepath.Dir(kept[0])) {
			t.Fatalf("no new snapshot: %v", fresh)
		}
		_, content, err := store.Open(fresh[0].ID)
		check(t, err)
		check(t, content.Close())
	})
}

func TestP18ALogDamagedWhileTheServerRunsStopsIt(t *testing.T) {
	s := newSite(t, 3, newEther().weave, nil)
	defer s.close()
	n := s.leader()
	for i := range 1500 { // more than the cache holds
		if i%500 == 0 {
			s.must(n, put("k", fmt.Sprint(i)))
		}
		n.raft.Apply(nil, 0)
	}
	s.must(n, put("k", "last"))
	segments, err := filepath.Glob(filepath.Join(n.dir, "log", "*.wal"))
	check(t, err)
	raw, err := os.ReadFile(segments[0])
	check(t, err)
	for at := 100; at < 2000; at++ {
		raw[at] ^= 0xff
	}
	check(t, os.WriteFile(segments[0], raw, 0o600))
	go func() { _ = n.log.GetLog(5, new(raft.Log)) }() // as Raft does for a follower that lags
	err = <-n.ended
	if !errors.Is(err, raftlog.ErrDamaged) && !strings.Contains(fmt.Sprint(err), "corrupt") {
		t.Errorf("the server ended with %v", err)
	}
	n.Replica = nil
	s.must(s.leader(), put("the others", "go on"))
}
