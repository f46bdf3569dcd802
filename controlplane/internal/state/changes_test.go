package state_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func since(t testing.TB, db *state.DB, revision uint64, limit int) (changes string, err error) {
	t.Helper()
	read(t, db, func(tx *state.Tx) error {
		all, e := tx.VMs.Since(revision, limit)
		err = e
		var parts []string
		for _, c := range all {
			sign := "+"
			if c.Deleted {
				sign = "-"
			}
			parts = append(parts, fmt.Sprintf("%d%s%s", c.Revision, sign, c.Noun.GetName()))
		}
		changes = strings.Join(parts, " ")
		return nil
	})
	return changes, err
}

func remove(t testing.TB, db *state.DB, n int) {
	t.Helper()
	write(t, db, func(tx *state.Tx) error { return tx.VMs.Delete(vm(n).GetId()) })
}

func TestSinceTellsEachNounAsItIsNowInOrderOfItsLastChange(t *testing.T) {
	db := open(t, state.Options{})
	put(t, db, vm(1))        // 1
	put(t, db, vm(2), vm(3)) // 2
	put(t, db, vm(1))        // 3
	remove(t, db, 2)         // 4
	put(t, db, vm(4))        // 5
	for _, c := range []struct {
		after uint64
		limit int
		want  string
	}{
		{0, 100, "2+web-3 3+web-1 4-web-2 5+web-4"}, {2, 100, "3+web-1 4-web-2 5+web-4"}, {3, 1, "4-web-2"}, {5, 100, ""}, {99, 100, ""}, {0, 0, ""},
	} {
		if got, err := since(t, db, c.after, c.limit); got != c.want || err != nil {
			t.Errorf("since %d: %q, %v; want %q", c.after, got, err, c.want)
		}
	}
}

func TestWhatGoesAndComesBackAtOneRevisionIsToldAsItIsThen(t *testing.T) {
	gone := func(tx *state.Tx) error { return tx.VMs.Delete(vm(1).GetId()) }
	back := func(tx *state.Tx) error { return tx.VMs.Put(vm(1)) }
	for _, c := range []struct {
		at   []func(*state.Tx) error
		want string
	}{
		{[]func(*state.Tx) error{gone, back}, "2-web-1 2+web-1"},
		{[]func(*state.Tx) error{gone, back, gone}, "2-web-1"},
		{[]func(*state.Tx) error{gone, back, gone, back, gone, back}, "2-web-1 2+web-1"},
	} {
		db := open(t, state.Options{}.WithTombstones(2))
		put(t, db, vm(1)) // 1
		write(t, db, func(tx *state.Tx) error {
			for _, step := range c.at {
				if err := step(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if got, err := since(t, db, 1, 100); got != c.want || err != nil {
			t.Errorf("after %d steps it is told %q, %v; want %q", len(c.at), got, err, c.want)
		}
		if got, err := since(t, db, 1, 1); !strings.HasPrefix(c.want, got) || got == "" || err != nil { // with more behind it
			t.Errorf("after %d steps, one at a time, it is told %q, %v", len(c.at), got, err)
		}
		put(t, db, vm(2)) // 3
		remove(t, db, 2)  // 4
		if _, err := since(t, db, 0, 100); err != nil {
			t.Errorf("it is counted as more than one tombstone: %v", err)
		}
	}
}

func TestSinceNeverCutsARevisionInTwo(t *testing.T) {
	db := open(t, state.Options{})
	put(t, db, vm(1), vm(2), vm(3))
	put(t, db, vm(4))
	put(t, db, vm(5), vm(6))
	for limit, want := range map[int]string{1: "1+web-1 1+web-2 1+web-3", 2: "1+web-1 1+web-2 1+web-3", 4: "1+web-1 1+web-2 1+web-3 2+web-4", 5: "1+web-1 1+web-2 1+web-3 2+web-4 3+web-5 3+web-6"} {
		if got, err := since(t, db, 0, limit); got != want || err != nil {
			t.Errorf("limit %d: %q, %v; want %q", limit, got, err, want)
		}
	}
}

func TestTombstonesAreBoundedAndATooOldWatchIsTold(t *testing.T) {
	db := open(t, state.Options{}.WithTombstones(3))
	for n := range 6 {
		put(t, db, vm(n)) // 1 to 6
	}
	for n := range 5 {
		remove(t, db, n) // 7 to 11
	}
	for after, want := range map[uint64]error{0: state.ErrCompacted, 7: state.ErrCompacted, 8: nil, 10: nil} {
		if _, err := since(t, db, after, 100); !errors.Is(err, want) {
			t.Errorf("since %d: %v, want %v", after, err, want)
		}
	}
	if got, err := since(t, db, 8, 100); got != "9-web-2 10-web-3 11-web-4" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	read(t, db, func(tx *state.Tx) error {
		if _, err := tx.Zones.Since(0, 10); err != nil { // each noun has its own floor
			t.Error(err)
		}
		return nil
	})
}

func TestWhatIsForgottenLeavesNoTombstone(t *testing.T) {
	db := open(t, state.Options{})
	put(t, db, vm(1))
	write(t, db, func(tx *state.Tx) error { return tx.VMs.Forget("vm-000001") })
	if got, err := since(t, db, 0, 10); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	write(t, db, func(tx *state.Tx) error {
		if err := tx.VMs.Delete("vm-000001"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("deleting what is not there: %v", err)
		}
		return nil
	})
}

func TestRevisionsAreReadAsTheyAreWritten(t *testing.T) {
	for _, text := range []string{"", "7", "7-", "-7", "7-x", "7-7-7", "-1-2", "7-9223372036854775808", " 7-7"} {
		if _, _, err := state.ParseRevision(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	if e, r, err := state.ParseRevision(state.RevisionText(17, 42)); e != 17 || r != 42 || err != nil {
		t.Errorf("%d, %d, %v", e, r, err)
	}
}

func TestDesiredComesInWholeRevisions(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) error { // 1
		z := &apiv1.Zone{Id: "z1", Name: "business"}
		if err := tx.Zones.Put(z); err != nil {
			return err
		}
		return tx.Desire("z1", &apiv1.Reference{Kind: "zone", Id: "z1"})
	})
	at := func(n int, index uint64) *apiv1.VM {
		m := vm(n)
		m.Generation.Index = index
		return m
	}
	put(t, db, at(1, 2))                     // 2
	put(t, db, at(2, 3), at(3, 3), at(4, 3)) // 3
	write(t, db, func(tx *state.Tx) error {  // 4
		return tx.DesireGone("z1", &apiv1.Reference{Kind: "host", Id: "h", Name: "old"})
	})
	other := at(9, 5)
	other.ZoneId = "z2"
	put(t, db, other) // 5
	partial := at(8, 0)
	partial.Generation = nil
	put(t, db, partial) // 6
	read(t, db, func(tx *state.Tx) error {
		for _, c := range []struct {
			after   uint64
			limit   int
			want    string
			through uint64
			more    bool
		}{
			{0, 100, "1:zone 2:vm 3:vm 3:vm 3:vm 4:gone", 6, false},
			{0, 1, "1:zone", 1, true},
			{0, 3, "1:zone 2:vm", 2, true},
			{2, 2, "3:vm 3:vm 3:vm", 3, true}, // larger than the limit: whole
			{2, 3, "3:vm 3:vm 3:vm", 3, true},
			{2, 4, "3:vm 3:vm 3:vm 4:gone", 6, false},
			{4, 10, "", 6, false},
		} {
			objects, through, more, err := tx.DesiredSince("z1", c.after, c.limit)
			var parts []string
			for _, o := range objects {
				kind := "vm"
				switch {
				case o.GetZone() != nil:
					kind = "zone"
				case o.GetTombstone() != nil:
					kind = "gone"
				}
				parts = append(parts, fmt.Sprintf("%d:%s", o.GetRevision(), kind))
			}
			if got := strings.Join(parts, " "); got != c.want || through != c.through || more != c.more || err != nil {
				t.Errorf("after %d, limit %d: %q through %d, more %v, %v; want %q through %d, more %v", c.after, c.limit, got, through, more, err, c.want, c.through, c.more)
			}
		}
		return nil
	})
}
