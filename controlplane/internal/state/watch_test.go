package state_test

import (
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// woken reports whether a watch has something to give.
func woken(w *state.Watch) bool {
	select {
	case _, open := <-w.C():
		return open
	default:
		return false
	}
}

func TestAWatchWakesForItsTablesAfterTheCommit(t *testing.T) {
	db := open(t, state.Options{})
	vms, hosts := db.Watch("vms"), db.Watch("hosts", "zones")
	if !woken(vms) || !woken(hosts) || woken(vms) {
		t.Fatal("a watch says at once, and once, that it may have missed something")
	}
	write(t, db, func(tx *state.Tx) error {
		if err := tx.VMs.Put(vm(1)); err != nil {
			return err
		}
		if woken(vms) {
			t.Error("woken before the commit")
		}
		return nil
	})
	put(t, db, vm(2))
	if !woken(vms) || woken(vms) || woken(hosts) {
		t.Error("two commits are one wake of the one watch")
	}
	remove(t, db, 1)
	if !woken(vms) {
		t.Error("a deletion wakes nobody")
	}
	vms.Close()
	put(t, db, vm(3))
	if woken(vms) {
		t.Error("a closed watch woke")
	}
	err := db.Update(func(tx *state.Tx) error {
		if err := tx.Hosts.Put(&apiv1.Host{Id: "h", Name: "h"}); err != nil {
			return err
		}
		return state.ErrNotFound
	})
	if err == nil || woken(hosts) {
		t.Error("a failed transaction woke a watch")
	}
}

func TestAZonesWatchIsLeftAloneByOtherZones(t *testing.T) {
	db := open(t, state.Options{})
	mine, all := db.Watch(state.ForZone(state.TopicDesired, "z1")), db.Watch(state.TopicDesired)
	woken(mine)
	woken(all)
	write(t, db, func(tx *state.Tx) error { return tx.Desire("z2", &apiv1.Reference{Kind: "vm", Id: "x"}) })
	if woken(mine) || !woken(all) {
		t.Error("another zone's objects woke this zone's watch, or not that of all")
	}
	write(t, db, func(tx *state.Tx) error { return tx.Desire("z1", &apiv1.Reference{Kind: "vm", Id: "x"}) })
	if !woken(mine) {
		t.Error("the zone's watch slept")
	}
}

func TestClosingTheDatabaseEndsWatches(t *testing.T) {
	db := open(t, state.Options{})
	w := db.Watch("vms", "hosts")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range w.C() { // gives what it has, and ends
	}
	late := db.Watch("vms")
	if _, open := <-late.C(); open {
		t.Error("a watch of a closed database is open")
	}
	late.Close()
}
