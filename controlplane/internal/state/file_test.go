package state_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/controlplane/internal/state"
)

func TestADatabaseOfAnotherServerOrFederationIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := reopen(t, path, state.Options{})
	write(t, db, func(tx *state.Tx) error {
		m := tx.Meta()
		m.Federation = "example.test"
		tx.SetMeta(m)
		return nil
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for says, o := range map[string]state.Options{
		"it belongs to server server-1": {ServerID: "server-2"},
		"federation example.test":       {ServerID: "server-1", Federation: "other.test"},
	} {
		if _, err := state.Open(path, o); !errors.Is(err, state.ErrForeign) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
	if _, err := state.Open(path, state.Options{}); err == nil {
		t.Error("opened for no server")
	}
	reopen(t, path, state.Options{Federation: "example.test"})
}

func TestADatabaseOfANewerVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := reopen(t, path, state.Options{})
	if err := db.Writer("PRAGMA user_version=99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(path, state.Options{ServerID: "server-1"}); !errors.Is(err, state.ErrForeign) || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("%v", err)
	}
}

func TestP18AFileThatIsNoDatabaseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, bytes.Repeat([]byte("junk"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(path, state.Options{ServerID: "server-1"}); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

// A bit that the disk has turned in a message is found when the row is read, in a snapshot as well; then the database is
// not used any more.
func TestP18ADamagedRowIsFoundAndStopsTheDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := reopen(t, path, state.Options{})
	m := vm(1)
	m.UserData = "#!/bin/sh echo a-long-and-peculiar-text"
	put(t, db, m)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("peculiar"))
	b[at] ^= 4
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, touch := range map[string]func(*state.DB) error{
		"a read": func(db *state.DB) error {
			return db.View(context.Background(), func(tx *state.Tx) error {
				_, err := tx.VMs.Get(m.GetId())
				return err
			})
		},
		"a write": func(db *state.DB) error {
			return db.Update(func(tx *state.Tx) error { return tx.VMs.Delete(m.GetId()) })
		},
		"a snapshot": func(db *state.DB) error {
			s, err := db.Snapshot()
			if err != nil {
				return err
			}
			defer s.Release()
			_, err = s.WriteTo(&bytes.Buffer{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := reopen(t, path, state.Options{})
			if err := touch(db); !errors.Is(err, state.ErrCorrupt) {
				t.Fatalf("%v", err)
			}
			select {
			case <-db.Done():
			default:
				t.Error("the database does not say that it is done")
			}
			if err := db.View(context.Background(), func(*state.Tx) error { return nil }); !errors.Is(err, state.ErrCorrupt) || !errors.Is(db.Err(), state.ErrCorrupt) {
				t.Errorf("it is used all the same: %v", err)
			}
		})
	}
}

func TestP19OnAFullDiskAWriteWaitsAndIsNotLost(t *testing.T) {
	registry := prometheus.NewRegistry()
	db := open(t, state.Options{Registerer: registry}.WithRetryAfter(time.Millisecond))
	put(t, db, vm(0))
	if err := db.Writer("PRAGMA max_page_count=1"); err != nil { // as many as there are: no more
		t.Fatal(err)
	}
	big := vm(1)
	big.UserData = strings.Repeat("x", 1<<20)
	tries := 0
	done := make(chan error)
	waiting := make(chan struct{})
	go func() {
		done <- db.Update(func(tx *state.Tx) error {
			advance(tx)
			if tries++; tries == 3 {
				close(waiting)
			}
			if tries > 5 { // somebody has made space
				if err := tx.VMs.Put(vm(2)); err != nil {
					return err
				}
				return nil
			}
			return tx.VMs.Put(big)
		})
	}()
	<-waiting
	if got := gauge(t, registry, "naru_state_disk_full"); got != 1 {
		t.Errorf("the gauge of a full disk is %v", got)
	}
	read(t, db, func(tx *state.Tx) error { // reads go on
		_, err := tx.VMs.Get("vm-000000")
		return err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := gauge(t, registry, "naru_state_disk_full"); got != 0 {
		t.Errorf("afterwards the gauge is %v", got)
	}
	read(t, db, func(tx *state.Tx) error {
		if r := tx.Meta().Revision; r != 2 {
			t.Errorf("revision %d: a try that failed left something", r)
		}
		_, err := tx.VMs.Get("vm-000002")
		return err
	})
}

func TestP19ClosingEndsAWriteThatWaitsForSpace(t *testing.T) {
	db := open(t, state.Options{}.WithRetryAfter(time.Hour))
	if err := db.Writer("PRAGMA max_page_count=1"); err != nil {
		t.Fatal(err)
	}
	big := vm(1)
	big.UserData = strings.Repeat("x", 1<<20)
	done, tried := make(chan error), make(chan struct{}, 1)
	go func() {
		done <- db.Update(func(tx *state.Tx) error {
			tried <- struct{}{}
			return tx.VMs.Put(big)
		})
	}()
	<-tried
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, state.ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := db.View(context.Background(), func(*state.Tx) error { return nil }); !errors.Is(err, state.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func gauge(t testing.TB, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func TestAReadEndsWithItsContext(t *testing.T) {
	db := open(t, state.Options{Readers: 1})
	put(t, db, vm(1))
	ctx, cancel := context.WithCancel(context.Background())
	err := db.View(ctx, func(tx *state.Tx) error {
		cancel()
		_, err := tx.VMs.Get("vm-000001")
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	read(t, db, func(tx *state.Tx) error { // its connection serves the next
		_, err := tx.VMs.Get("vm-000001")
		return err
	})
	err = db.View(ctx, func(*state.Tx) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a read began with a context that had ended: %v", err)
	}
}

func TestTheWriteAheadLogStartsOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := reopen(t, path, state.Options{})
	biggest := int64(0)
	for n := range 60 {
		m := vm(n)
		m.UserData = strings.Repeat("x", 1<<20)
		put(t, db, m)
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		biggest = max(biggest, info.Size())
	}
	if biggest > 24<<20 {
		t.Errorf("the log grew to %d MiB", biggest>>20)
	}
	if err := db.Checkpoint(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsCommittedIsThereAfterAReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := reopen(t, path, state.Options{})
	at := time.Date(2026, 11, 1, 9, 0, 0, 123_000, time.UTC)
	write(t, db, func(tx *state.Tx) error {
		m := tx.Meta()
		m.Federation, m.Epoch, m.EpochID, m.EpochBegan, m.FeatureLevel, m.LastStamp, m.AppliedIndex, m.AppliedTerm = "f", 7, []byte{1, 2}, 1, 3, at, 42, 5
		tx.SetMeta(m)
		return tx.VMs.Put(vm(1))
	})
	var before, after state.Meta
	read(t, db, func(tx *state.Tx) error { before = tx.Meta(); return nil })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = reopen(t, path, state.Options{})
	read(t, db, func(tx *state.Tx) error { after = tx.Meta(); _, err := tx.VMs.Get("vm-000001"); return err })
	if before.AppliedIndex != 42 || !after.LastStamp.Equal(at) || before.Text() != after.Text() || after.AppliedTerm != 5 || after.FeatureLevel != 3 {
		t.Errorf("%+v, and after a reopen %+v", before, after)
	}
}

func TestAPanicInAWriteLeavesTheDatabaseUsable(t *testing.T) {
	db := open(t, state.Options{})
	func() {
		defer func() { _ = recover() }()
		_ = db.Update(func(tx *state.Tx) error {
			_ = tx.VMs.Put(vm(1))
			panic("a fault of ours")
		})
	}()
	put(t, db, vm(2))
	read(t, db, func(tx *state.Tx) error {
		if n, err := tx.VMs.Count(nil, ""); n != 1 || err != nil {
			t.Errorf("%d VMs, %v", n, err)
		}
		return nil
	})
}
