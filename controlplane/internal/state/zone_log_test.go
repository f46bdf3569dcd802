package state_test

import (
	"bytes"
	"errors"
	"strconv"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// appendTo writes an entry to the log of a name.
func appendTo(tx *state.Tx, log string, n int) error {
	m := auditEntry(n)
	m.Sequence = strconv.Itoa(n)
	leaf, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	return tx.Log(log).Append(m, leaf)
}

// TestLogsOfZonesGrowBesideTheOwnOne: each has the tree of its own leaves, whatever was written to the others meanwhile.
func TestLogsOfZonesGrowBesideTheOwnOne(t *testing.T) {
	db := open(t, state.Options{})
	logs := map[string]int{"business/1": 37, "business/2": 5, "internet/1": 64}
	for n := range 64 {
		write(t, db, func(tx *state.Tx) error {
			err := tx.AppendAudit(auditEntry(n))
			for log, size := range logs {
				if n < size {
					err = errors.Join(err, appendTo(tx, log, n))
				}
			}
			return err
		})
	}
	write(t, db, func(tx *state.Tx) error {
		if appendTo(tx, "business/2", 7) == nil || appendTo(tx, "business/2", 4) == nil {
			t.Error("an entry may be left out, or told twice")
		}
		return nil
	})
	look(t, db, func(tx *state.Tx) {
		for log, size := range logs {
			l, grown := tx.Log(log), audit.Growing{}
			if n, err := l.Size(); err != nil || n != uint64(size) {
				t.Fatalf("%s has %d entries, %v", log, n, err)
			}
			leaves, err := l.Leaves(0, 1000)
			if err != nil || len(leaves) != size {
				t.Fatalf("%s has %d leaves, %v", log, len(leaves), err)
			}
			for n, leaf := range leaves {
				before, err := l.Before(uint64(n))
				if want := grown.Hashes; err != nil || len(before) != len(want) || n > 0 && !bytes.Equal(bytes.Join(before, nil), bytes.Join(want, nil)) {
					t.Fatalf("before entry %d of %s stand %x, want %x; %v", n, log, before, want, err)
				}
				if err := grown.Append(leaf.Leaf); err != nil {
					t.Fatal(err)
				}
			}
			want, err := grown.Root()
			if root, treeErr := tlog.TreeHash(int64(size), l.Hashes()); err != nil || treeErr != nil || root != want {
				t.Errorf("the root of %s is %v, want %v; %v", log, root, want, treeErr)
			}
		}
		if n, err := tx.Log("nobody/1").Size(); err != nil || n != 0 {
			t.Errorf("a log that there is not has %d entries, %v", n, err)
		}
	})
}

func TestTheLogOfAZoneIsListedByPagesAndHoldsNothingOfOthers(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) (err error) {
		for n := range 25 {
			err = errors.Join(err, appendTo(tx, "business/1", n), appendTo(tx, "business/2", n), tx.AppendAudit(auditEntry(n)))
		}
		return err
	})
	for _, order := range []string{"", "sequence", "time desc", "action"} {
		look(t, db, func(tx *state.Tx) {
			seen := map[string]bool{}
			q := state.Query{Filter: "actor=user:u1", OrderBy: order, PageSize: 3, Scope: state.Scope{"project": "shop"}}
			for {
				items, next, err := tx.Log("business/2").List(q, nil)
				if err != nil {
					t.Fatal(order, err)
				}
				for _, m := range items {
					if m.GetActor() != "user:u1" || seen[m.GetSequence()] {
						t.Errorf("order %q brought %v", order, m)
					}
					seen[m.GetSequence()] = true
				}
				if next != "" {
					if _, _, err := tx.Log("business/1").List(state.Query{Filter: q.Filter, OrderBy: order, PageSize: 3, Scope: q.Scope, PageToken: next}, nil); err == nil {
						t.Error("a page of one log goes on in another")
					}
				}
				if q.PageToken = next; next == "" {
					break
				}
			}
			if len(seen) != 8 || len(q.Scope) != 1 {
				t.Errorf("order %q brought %d of 8; the scope is %v", order, len(seen), q.Scope)
			}
		})
	}
	look(t, db, func(tx *state.Tx) {
		if _, _, err := tx.Log("business/1").List(state.Query{Filter: "log=business/2"}, nil); err == nil {
			t.Error("another log can be asked for by a filter")
		}
	})
}

// TestWhatIsUndoneOfAZonesLogIsForgotten: the log goes on where it was.
func TestWhatIsUndoneOfAZonesLogIsForgotten(t *testing.T) {
	db := open(t, state.Options{})
	refused := errors.New("refused")
	write(t, db, func(tx *state.Tx) error {
		if err := appendTo(tx, "business/1", 0); err != nil {
			return err
		}
		err := tx.Savepoint(func() error { return errors.Join(appendTo(tx, "business/1", 1), refused) })
		if !errors.Is(err, refused) {
			t.Fatal(err)
		}
		return appendTo(tx, "business/1", 1)
	})
	look(t, db, func(tx *state.Tx) {
		if n, err := tx.Log("business/1").Size(); err != nil || n != 2 {
			t.Errorf("it has %d entries, %v", n, err)
		}
	})
}

// TestLogsAreCountedByTheZonesName: a zone with the name of one that is gone does not take its logs' names.
func TestLogsAreCountedByTheZonesName(t *testing.T) {
	db := open(t, state.Options{})
	for _, c := range []struct{ id, name, want string }{
		{"z1", "business", "business/1"}, {"z1", "business", "business/2"}, {"z2", "internet", "internet/1"}, {"z3", "business", "business/3"},
	} {
		write(t, db, func(tx *state.Tx) error {
			l, err := tx.NewZoneLog(&apiv1.Zone{Id: c.id, Name: c.name}, "life")
			if err != nil || l.GetName() != c.want {
				t.Errorf("the next log of %s is %s, want %s; %v", c.name, l.GetName(), c.want, err)
			}
			return tx.PutZoneLog(l)
		})
	}
	look(t, db, func(tx *state.Tx) {
		all, err := tx.ZoneLogs()
		of, ofErr := tx.ZoneLogsOf("z1")
		if err != nil || ofErr != nil || len(all) != 4 || len(of) != 2 || of[1].GetName() != "business/2" {
			t.Errorf("there are %v, of z1 %v; %v, %v", all, of, err, ofErr)
		}
		if _, err := tx.ZoneLog("business/4"); !errors.Is(err, state.ErrNotFound) {
			t.Error(err)
		}
	})
}
