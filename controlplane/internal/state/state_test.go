package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// open returns an empty database that ends with the test.
func open(t testing.TB, o state.Options) *state.DB {
	t.Helper()
	return reopen(t, filepath.Join(t.TempDir(), "state.db"), o)
}

func reopen(t testing.TB, path string, o state.Options) *state.DB {
	t.Helper()
	if o.ServerID == "" {
		o.ServerID = "server-1"
	}
	db, err := state.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// write runs fn at the next revision.
func write(t testing.TB, db *state.DB, fn func(*state.Tx) error) {
	t.Helper()
	if err := db.Update(func(tx *state.Tx) error {
		advance(tx)
		return fn(tx)
	}); err != nil {
		t.Fatal(err)
	}
}

func advance(tx *state.Tx) {
	m := tx.Meta()
	m.Revision++
	m.AppliedIndex++
	tx.SetMeta(m)
}

func read(t testing.TB, db *state.DB, fn func(*state.Tx) error) {
	t.Helper()
	if err := db.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, db *state.DB, vms ...*apiv1.VM) {
	t.Helper()
	write(t, db, func(tx *state.Tx) error {
		for _, m := range vms {
			if err := tx.VMs.Put(m); err != nil {
				return err
			}
		}
		return nil
	})
}

func vm(n int) *apiv1.VM {
	return &apiv1.VM{
		Id: fmt.Sprintf("vm-%06d", n), Name: fmt.Sprintf("web-%d", n), Project: "shop", ProjectId: "p1", Zone: "business", ZoneId: "z1",
		Flavor: "s1", Image: "tiny", State: apiv1.VM_RUNNING, Generation: &apiv1.Generation{Epoch: 1, Index: uint64(n)},
	}
}

func names(vms []*apiv1.VM) []string {
	var all []string
	for _, m := range vms {
		all = append(all, m.GetName())
	}
	return all
}

func TestANounIsReadBackAsItWasWritten(t *testing.T) {
	db := open(t, state.Options{})
	in := vm(1)
	put(t, db, in)
	read(t, db, func(tx *state.Tx) error {
		out, err := tx.VMs.Get(in.GetId())
		if err != nil {
			return err
		}
		want := proto.CloneOf(in)
		want.Grade = apiv1.Zone_OPEN // reckoned when read
		if !proto.Equal(want, out) {
			t.Errorf("read %v, wrote %v", out, in)
		}
		if out.GetRevision() != "0-1" {
			t.Errorf("revision %q, want that of the transaction", out.GetRevision())
		}
		return nil
	})
}

func TestANounIsFoundByIdOrByNameWithinItsScope(t *testing.T) {
	db := open(t, state.Options{})
	other := vm(2)
	other.Name, other.ProjectId = "web-1", "p2"
	put(t, db, vm(1), other)
	read(t, db, func(tx *state.Tx) error {
		for _, c := range []struct {
			name  string
			scope state.Scope
			id    string
			err   error
		}{
			{"vm-000002", nil, "vm-000002", nil},
			{"vm-000002", state.Scope{"project_id": "p1"}, "", state.ErrNotFound},
			{"web-1", state.Scope{"project_id": "p1"}, "vm-000001", nil},
			{"web-1", state.Scope{"project_id": "p2", "zone_id": "z1"}, "vm-000002", nil},
			{"web-1", nil, "", state.ErrAmbiguous},
			{"web-9", nil, "", state.ErrNotFound},
		} {
			m, err := tx.VMs.Find(c.name, c.scope)
			if !errors.Is(err, c.err) || m.GetId() != c.id {
				t.Errorf("Find(%q, %v) = %q, %v; want %q, %v", c.name, c.scope, m.GetId(), err, c.id, c.err)
			}
		}
		if _, err := tx.VMs.Find("x", state.Scope{"; DROP TABLE vms": "1"}); err == nil {
			t.Error("a scope that is no column was accepted")
		}
		return nil
	})
}

func TestANameIsUniqueInItsScope(t *testing.T) {
	db := open(t, state.Options{})
	put(t, db, vm(1))
	twin := vm(2)
	twin.Name = "web-1"
	if err := db.Update(func(tx *state.Tx) error { return tx.VMs.Put(twin) }); err == nil {
		t.Error("two VMs of one project have one name")
	}
}

func TestAFailedTransactionChangesNothing(t *testing.T) {
	db := open(t, state.Options{})
	put(t, db, vm(1))
	boom := errors.New("boom")
	err := db.Update(func(tx *state.Tx) error {
		advance(tx)
		if err := tx.VMs.Put(vm(2)); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	read(t, db, func(tx *state.Tx) error {
		if n, err := tx.VMs.Count(nil, ""); n != 1 || err != nil {
			t.Errorf("%d VMs, %v; want 1", n, err)
		}
		if r := tx.Meta().Revision; r != 1 {
			t.Errorf("revision %d, want 1", r)
		}
		return nil
	})
}

func TestASavepointUndoesOnlyWhatIsInIt(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) error {
		if err := tx.VMs.Put(vm(1)); err != nil {
			return err
		}
		err := tx.Savepoint(func() error {
			advance(tx)
			if err := tx.VMs.Put(vm(2)); err != nil {
				return err
			}
			return errors.New("refused")
		})
		if err == nil {
			t.Error("the error was swallowed")
		}
		return tx.Savepoint(func() error { return tx.VMs.Put(vm(3)) })
	})
	read(t, db, func(tx *state.Tx) error {
		vms, _, err := tx.VMs.List(state.Query{})
		if got := fmt.Sprint(names(vms)); got != "[web-1 web-3]" || tx.Meta().Revision != 1 {
			t.Errorf("%s at revision %d", got, tx.Meta().Revision)
		}
		return err
	})
}

func TestAReadTransactionCannotWriteAndEndsWithItsFunction(t *testing.T) {
	db := open(t, state.Options{})
	var kept *state.Tx
	read(t, db, func(tx *state.Tx) error {
		kept = tx
		if err := tx.VMs.Put(vm(1)); err == nil {
			t.Error("a read wrote")
		}
		if err := tx.Revoke("z1", ""); err == nil {
			t.Error("a read revoked")
		}
		return nil
	})
	if _, err := kept.VMs.Get("x"); !errors.Is(err, state.ErrClosed) {
		t.Errorf("a transaction was used after its end: %v", err)
	}
}

func TestAViewKeepsItsSnapshotWhileOthersWrite(t *testing.T) {
	db := open(t, state.Options{})
	put(t, db, vm(1))
	read(t, db, func(tx *state.Tx) error {
		put(t, db, vm(2))
		if n, err := tx.VMs.Count(nil, ""); n != 1 || err != nil {
			t.Errorf("the snapshot has %d VMs, %v; want 1", n, err)
		}
		return nil
	})
}

func TestFreshnessIsTheWorseOfLinkAndHost(t *testing.T) {
	db := open(t, state.Options{})
	a, b := vm(1), vm(2)
	a.HostFreshness, b.HostFreshness = apiv1.Freshness_LIVE, apiv1.Freshness_UNREACHABLE
	a.Freshness = apiv1.Freshness_UNREACHABLE // never stored
	put(t, db, a, b)
	for _, c := range []struct {
		zone apiv1.Freshness_Level
		want string
	}{{apiv1.Freshness_LIVE, "LIVE UNREACHABLE"}, {apiv1.Freshness_STALE, "STALE UNREACHABLE"}} {
		write(t, db, func(tx *state.Tx) error {
			return tx.Zones.Put(&apiv1.Zone{Id: "z1", Name: "business", Freshness: c.zone})
		})
		read(t, db, func(tx *state.Tx) error {
			one, err := tx.VMs.Get(a.GetId())
			if err != nil {
				return err
			}
			two, err := tx.VMs.Get(b.GetId())
			if got := one.GetFreshness().String() + " " + two.GetFreshness().String(); got != c.want {
				t.Errorf("zone %v: %s, want %s", c.zone, got, c.want)
			}
			stale, err2 := tx.VMs.Count(nil, "freshness=STALE")
			if want := uint64(0); c.zone == apiv1.Freshness_STALE && stale != 1 || c.zone == apiv1.Freshness_LIVE && stale != want {
				t.Errorf("zone %v: %d VMs are stale by filter", c.zone, stale)
			}
			return errors.Join(err, err2)
		})
	}
}

func TestAllGoesThroughEveryNounAndMayBeLeft(t *testing.T) {
	db := open(t, state.Options{})
	for i := range 5 {
		put(t, db, vm(i))
	}
	read(t, db, func(tx *state.Tx) error {
		seen := 0
		for _, err := range tx.VMs.All(state.Scope{"zone_id": "z1"}) {
			if err != nil {
				return err
			}
			if seen++; seen == 3 {
				break
			}
		}
		if seen != 3 {
			t.Errorf("saw %d", seen)
		}
		_, err := tx.VMs.Get("vm-000001") // the connection is free again
		return err
	})
}

func TestAnAccessTokenIsFoundByTheHashOfItsSecret(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) error {
		return tx.AccessTokens.Put(&apiv1.AccessToken{Id: "t1", Name: "ci", SecretHash: []byte{1, 2, 3}})
	})
	read(t, db, func(tx *state.Tx) error {
		m, err := tx.AccessTokenByHash([]byte{1, 2, 3})
		if m.GetName() != "ci" {
			t.Errorf("found %v, %v", m, err)
		}
		for _, hash := range [][]byte{nil, {}, {1, 2}} {
			if _, err := tx.AccessTokenByHash(hash); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("hash %v: %v", hash, err)
			}
		}
		if _, err := tx.AccessTokens.Count(nil, "secret_hash=010203"); err == nil {
			t.Error("the secret's hash can be searched")
		}
		return nil
	})
}

func TestAHostsFreshnessIsTheWorseOfItsOwnAndItsZones(t *testing.T) {
	db := open(t, state.Options{})
	host := func(id string, freshness apiv1.Freshness_Level) *apiv1.Host {
		return &apiv1.Host{Id: id, Name: id, Zone: "business", ZoneId: "z1", ClusterId: "c1", Freshness: freshness}
	}
	write(t, db, func(tx *state.Tx) error {
		return errors.Join(tx.Hosts.Put(host("h1", apiv1.Freshness_LIVE)), tx.Hosts.Put(host("h2", apiv1.Freshness_UNREACHABLE)), tx.Hosts.Put(host("h3", apiv1.Freshness_LIVE)))
	})
	for _, c := range []struct {
		zone                 apiv1.Freshness_Level
		live, stale, ordered string
	}{
		{apiv1.Freshness_LIVE, "h1 LIVE, h3 LIVE", "", "h2 UNREACHABLE, h3 LIVE, h1 LIVE"},
		{apiv1.Freshness_STALE, "", "h1 STALE, h3 STALE", "h2 UNREACHABLE, h3 STALE, h1 STALE"},
		{apiv1.Freshness_LIVE, "h1 LIVE, h3 LIVE", "", "h2 UNREACHABLE, h3 LIVE, h1 LIVE"},
	} {
		write(t, db, func(tx *state.Tx) error {
			// What is read to be written is the zone's word, so that the link's is not stored with it.
			h, err := tx.Hosts.Get("h1")
			if h.GetFreshness() != apiv1.Freshness_LIVE {
				t.Errorf("zone %v: read to be written it is %v", c.zone, h.GetFreshness())
			}
			return errors.Join(err, tx.Zones.Put(&apiv1.Zone{Id: "z1", Name: "business", Freshness: c.zone}), tx.Hosts.Put(h))
		})
		read(t, db, func(tx *state.Tx) error {
			var errs []error
			list := func(q state.Query) string {
				var found []string
				for token := "-"; token != ""; q.PageToken = token {
					page, next, err := tx.Hosts.List(q)
					errs, token = append(errs, err), next
					for _, h := range page {
						found = append(found, h.GetId()+" "+h.GetFreshness().String())
					}
				}
				return strings.Join(found, ", ")
			}
			for what, want := range map[string]struct {
				query state.Query
				hosts string
			}{
				"live":    {state.Query{Filter: "freshness=LIVE"}, c.live},
				"stale":   {state.Query{Filter: "freshness=STALE"}, c.stale},
				"ordered": {state.Query{OrderBy: "freshness desc", PageSize: 1}, c.ordered},
			} {
				if got := list(want.query); got != want.hosts {
					t.Errorf("zone %v, %s: %s; want %s", c.zone, what, got, want.hosts)
				}
			}
			return errors.Join(errs...)
		})
	}
}

func TestAClustersFreshnessIsItsZones(t *testing.T) {
	db := open(t, state.Options{})
	stored := &apiv1.Cluster{Id: "c1", Name: "kvm", Zone: "business", ZoneId: "z1", Freshness: apiv1.Freshness_UNREACHABLE} // never stored
	write(t, db, func(tx *state.Tx) error { return tx.Clusters.Put(stored) })
	for _, zone := range []apiv1.Freshness_Level{apiv1.Freshness_LEVEL_UNSPECIFIED, apiv1.Freshness_LIVE, apiv1.Freshness_STALE, apiv1.Freshness_LIVE} {
		write(t, db, func(tx *state.Tx) error {
			c, err := tx.Clusters.Get("c1")
			return errors.Join(err, tx.Zones.Put(&apiv1.Zone{Id: "z1", Name: "business", Freshness: zone}), tx.Clusters.Put(c))
		})
		read(t, db, func(tx *state.Tx) error {
			c, err := tx.Clusters.Get("c1")
			if c.GetFreshness() != zone {
				t.Errorf("zone %v: the cluster is %v", zone, c.GetFreshness())
			}
			stale, err2 := tx.Clusters.Count(nil, "freshness=STALE")
			if want := zone == apiv1.Freshness_STALE; (stale == 1) != want {
				t.Errorf("zone %v: %d clusters are stale by filter", zone, stale)
			}
			return errors.Join(err, err2)
		})
	}
}

// TestWhatATableSaysIsWhatTheMessageDoes, also where a column changes that was thought to be fixed: as it is in a server that has loaded
// a snapshot, and for what an index of the column finds.
func TestWhatATableSaysIsWhatTheMessageDoes(t *testing.T) {
	db := open(t, state.Options{})
	m := &apiv1.RoleBinding{Id: "b", Role: "user", RoleId: "r", User: "kim", UserId: "u-kim"}
	write(t, db, func(tx *state.Tx) error { return tx.RoleBindings.Put(m) })
	m.User, m.UserId, m.Reason = "lee", "u-lee", "moved"
	write(t, db, func(tx *state.Tx) error { return tx.RoleBindings.Put(m) })
	other := open(t, state.Options{ServerID: "server-2"})
	if _, err := other.Restore(bytes.NewReader(snapshot(t, db))); err != nil {
		t.Fatal(err)
	}
	for _, at := range []*state.DB{db, other} {
		read(t, at, func(tx *state.Tx) error {
			for user, want := range map[string]int{"kim": 0, "lee": 1} {
				n := 0
				for b, err := range tx.RoleBindingsOf("u-" + user) {
					if err != nil || b.GetReason() != "moved" {
						t.Error(b, err)
					}
					n++
				}
				found, _, err := tx.RoleBindings.List(state.Query{Filter: "user=" + user})
				if err != nil || len(found) != want || n != want {
					t.Errorf("%s has %d by the index and %d by the column, %v", user, n, len(found), err)
				}
			}
			return nil
		})
	}
}
