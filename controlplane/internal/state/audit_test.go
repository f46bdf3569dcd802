package state_test

import (
	"fmt"
	"strconv"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func auditEntry(n int) *apiv1.AuditEntry {
	return &apiv1.AuditEntry{
		Time: &timestamppb.Timestamp{Seconds: int64(1000 + n)}, Actor: fmt.Sprintf("user:u%d", n%3), Action: "vm.create", Outcome: apiv1.AuditEntry_DONE,
		Target: &apiv1.Reference{Kind: "vm", Id: fmt.Sprintf("v%d", n), Name: fmt.Sprintf("web-%d", n)}, Project: "shop", Zone: "business",
	}
}

func appendAudit(t testing.TB, db *state.DB, from, n int) {
	t.Helper()
	write(t, db, func(tx *state.Tx) error {
		for i := range n {
			if err := tx.AppendAudit(auditEntry(from + i)); err != nil {
				return err
			}
		}
		return nil
	})
}

func look(t testing.TB, db *state.DB, fn func(*state.Tx)) {
	t.Helper()
	read(t, db, func(tx *state.Tx) error {
		fn(tx)
		return nil
	})
}

// TestTheAuditLogsTreeIsTheOneOfItsLeaves: whatever the transactions in which it grew, the root of each size is that of the leaves
// up to there, and each leaf can be proved.
func TestTheAuditLogsTreeIsTheOneOfItsLeaves(t *testing.T) {
	db := open(t, state.Options{})
	for n, step := 0, 1; n < 70; step = step%7 + 1 {
		appendAudit(t, db, n, step)
		n += step
	}
	look(t, db, func(tx *state.Tx) {
		size, err := tx.AuditSize()
		if err != nil || size < 70 {
			t.Fatal(size, err)
		}
		leaves, err := tx.AuditLeaves(0, 1000)
		if err != nil || uint64(len(leaves)) != size {
			t.Fatal(len(leaves), err)
		}
		var plain []tlog.Hash
		reader := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, _ error) {
			for _, i := range indexes {
				out = append(out, plain[i])
			}
			return out, nil
		})
		for n, l := range leaves {
			hashes, err := tlog.StoredHashes(int64(n), l.Leaf, reader)
			if err != nil || hashes[0] != l.Hash {
				t.Fatalf("leaf %d: %v", n, err)
			}
			plain = append(plain, hashes...)
			want, err := tlog.TreeHash(int64(n)+1, reader)
			if err != nil {
				t.Fatal(err)
			}
			if root, err := tx.AuditRoot(uint64(n) + 1); err != nil || root != want {
				t.Fatalf("root of size %d is %x, want %x; %v", n+1, root, want, err)
			}
			proof, err := tlog.ProveRecord(int64(size), int64(n), tx.AuditHashes())
			if err != nil {
				t.Fatal(err)
			}
			root, _ := tx.AuditRoot(size)
			if err := tlog.CheckRecord(proof, int64(size), root, int64(n), l.Hash); err != nil {
				t.Fatalf("leaf %d: %v", n, err)
			}
		}
	})
}

func TestTimeInTheAuditLogNeverGoesBack(t *testing.T) {
	db := open(t, state.Options{})
	for _, n := range []int{5, 3, 9} {
		appendAudit(t, db, n, 1)
	}
	look(t, db, func(tx *state.Tx) {
		items, _, err := tx.ListAudit(state.Query{OrderBy: "sequence"})
		if err != nil || len(items) != 3 {
			t.Fatal(items, err)
		}
		for i, want := range []int64{1005, 1005, 1009} {
			if items[i].GetTime().GetSeconds() != want || items[i].GetSequence() != strconv.Itoa(i) {
				t.Errorf("entry %d is %v", i, items[i])
			}
		}
	})
}

func TestTheAuditLogIsListedByPages(t *testing.T) {
	db := open(t, state.Options{})
	appendAudit(t, db, 0, 25)
	for _, order := range []string{"", "sequence", "time desc", "action"} {
		look(t, db, func(tx *state.Tx) {
			seen := map[string]bool{}
			q := state.Query{Filter: "actor=user:u1 AND target_kind=vm", OrderBy: order, PageSize: 3, Scope: state.Scope{"project": "shop"}}
			for {
				items, next, err := tx.ListAudit(q)
				if err != nil {
					t.Fatal(order, err)
				}
				for _, m := range items {
					if m.GetActor() != "user:u1" || seen[m.GetSequence()] {
						t.Errorf("order %q brought %v", order, m)
					}
					seen[m.GetSequence()] = true
				}
				if q.PageToken = next; next == "" {
					break
				}
			}
			if len(seen) != 8 {
				t.Errorf("order %q brought %d of 8", order, len(seen))
			}
		})
	}
	look(t, db, func(tx *state.Tx) {
		if items, _, err := tx.ListAudit(state.Query{PageSize: 1}); err != nil || items[0].GetSequence() != "24" {
			t.Errorf("without an order the newest is first, not %v, %v", items, err)
		}
	})
}

// TestOldCheckpointsAreThinnedOut to the last of each hour; the newest stay.
func TestOldCheckpointsAreThinnedOut(t *testing.T) {
	db := open(t, state.Options{})
	const minutes = 1000 + 150
	write(t, db, func(tx *state.Tx) error {
		for n := range minutes {
			c := &apiv1.AuditCheckpoint{Size: strconv.Itoa(n + 1), Time: &timestamppb.Timestamp{Seconds: int64(n) * 60}}
			if err := tx.PutCheckpoint(uint64(n+1), c); err != nil {
				return err
			}
		}
		return nil
	})
	look(t, db, func(tx *state.Tx) {
		all, err := tx.Checkpoints(0, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		// Sizes 1 to 150 are beyond the newest 1000: those of the minutes 59 and 119 remain.
		if len(all) != 1002 || all[0].GetSize() != "60" || all[1].GetSize() != "120" || all[2].GetSize() != "151" {
			t.Fatalf("%d remain, first %v", len(all), all[:min(4, len(all))])
		}
		if newest, err := tx.Checkpoint(); err != nil || newest.GetSize() != strconv.Itoa(minutes) {
			t.Fatal(newest, err)
		}
	})
}
