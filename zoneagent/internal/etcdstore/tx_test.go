package etcdstore

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

func TestAPlacementIsOneTransactionThatChecksCapacityAgain(t *testing.T) {
	a := newZone(t).one()
	own := a.own(ClusterName("c1"))
	place := func(vmID, address string, used uint32, read int64) error {
		tx := a.Begin(own)
		tx.PutObserved(vm(vmID))
		tx.PutAllocation(&zonev1.Allocation{HostId: "h1", VmCount: used}, read)
		tx.TakeAddress(netip.MustParseAddr(address), &zonev1.AddressLease{VmId: vmID, ClusterId: "c1"})
		tx.PutWork(&zonev1.Work{VmId: vmID})
		tx.Journal(usage(vmID))
		_, err := tx.Commit(t.Context())
		return err
	}
	if err := place("vm-1", "10.91.2.10", 1, 0); err != nil {
		t.Fatal(err)
	}
	stale := place("vm-2", "10.91.2.11", 1, 0)
	var conflict *ConflictError
	if !errors.Is(stale, ErrConflict) || !errors.As(stale, &conflict) || conflict.Key != a.keys.of(Allocation, "h1") {
		t.Errorf("capacity that has moved: %v", stale)
	}
	read := must(a.Get(t.Context(), Allocation, "", "h1"))
	taken := place("vm-2", "10.91.2.10", 2, read.Revision)
	if !errors.As(taken, &conflict) || conflict.Key != a.keys.of(Address, "10.91.2.10") {
		t.Errorf("an address that is taken: %v", taken)
	}
	if _, err := a.Get(t.Context(), Work, "", "vm-2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a refused placement left work behind: %v", err)
	}
	if err := place("vm-2", "10.91.2.11", 2, read.Revision); err != nil {
		t.Error(err)
	}
	lease := must(a.Get(t.Context(), Address, "", "10.91.2.10"))
	tx := a.Begin(own)
	tx.FreeAddress(netip.MustParseAddr("10.91.2.10"), lease.Revision)
	tx.DeleteWork("vm-1")
	tx.Tombstone(&apiv1.Reference{Kind: "vm", Id: "vm-1"}, nil)
	a.commit(tx)
	for space, id := range map[Space]string{Address: "10.91.2.10", Work: "vm-1"} {
		if _, err := a.Get(t.Context(), space, "", id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s %s: %v", space, id, err)
		}
	}
}

// P2, P17: concurrent batches of one owner, some of which conflict, leave a journal without gap or double.
func TestTheJournalIsDenseUnderConcurrentBatches(t *testing.T) {
	a := newZone(t).one()
	own := a.own(ClusterName("c1"))
	const writers, each = 16, 20
	var wg sync.WaitGroup
	var mu sync.Mutex
	committed := map[string]bool{}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("vm-%d-%d", w, i)
				tx := a.Begin(own)
				tx.PutObserved(vm(id))
				tx.Journal(usage(id))
				if i%5 == 4 {
					tx.Require(Observed, "vm", "nobody", 7)
				}
				_, err := tx.Commit(t.Context())
				if i%5 == 4 {
					if !errors.Is(err, ErrConflict) {
						t.Errorf("%s: %v", id, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", id, err)
				}
				mu.Lock()
				committed[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	life, _ := a.Incarnation()
	entries := a.journal(life.GetId(), "c1")
	if len(entries) != len(committed) {
		t.Errorf("%d entries for %d commits", len(entries), len(committed))
	}
	for i, e := range entries {
		if e.GetSequence() != uint64(i+1) {
			t.Fatalf("entry %d has sequence %d", i, e.GetSequence())
		}
		id := e.GetUsage().GetVmId()
		if !committed[id] {
			t.Errorf("entry of %s, which was refused or came twice", id)
		}
		delete(committed, id)
	}
}

// journal is all that is kept of a stream.
func (r *running) journal(origin, stream string) (out []*linkv1.JournalEntry) {
	r.t.Helper()
	resp, err := r.get(r.t.Context(), r.keys.under(journals, origin, stream), clientv3.WithPrefix())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		c, _, err := r.keys.change(kv)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, c.Message.(*linkv1.JournalEntry))
	}
	return out
}

// P3: the owner's late write is refused once another owns.
func TestAWriteOfAnOwnerThatWasPausedIsRefused(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	a := z.open(c)
	b := z.open(z.config(2, 1))

	old := a.own(ClusterName("c1"))
	late := a.Begin(old)
	late.PutObserved(vm("vm-late"))
	late.Journal(usage("vm-late"))

	won := make(chan *Ownership, 1)
	go func() { won <- must(b.Campaign(t.Context(), ClusterName("c1"))) }()
	// The pause: the owner's lease ends while it knows nothing of it.
	if err := a.leases.Revoke(t.Context(), old.keeper.id); err != nil {
		t.Fatal(err)
	}
	fresh := <-won
	if _, err := late.Commit(t.Context()); !errors.Is(err, ErrFenced) {
		t.Fatalf("late write: %v", err)
	}
	select {
	case <-old.Lost():
	case <-time.After(10 * time.Second):
		t.Error("the old owner was not told")
	}
	if old.Held() || old.Deadline().After(time.Now()) {
		t.Error("the old owner still thinks that it owns")
	}
	tx := b.Begin(fresh)
	tx.Journal(usage("vm-new"))
	b.commit(tx)
	life, _ := b.Incarnation()
	if got := b.journal(life.GetId(), "c1"); len(got) != 1 || got[0].GetSequence() != 1 || got[0].GetUsage().GetVmId() != "vm-new" {
		t.Errorf("journal is %v", got)
	}
	if owners := must(b.Owners(t.Context())); owners["cluster/c1"] != "agent-2" {
		t.Errorf("owners are %v", owners)
	}
}

// P17: a transaction whose answer was lost is sent again and takes effect once.
func TestALostAnswerDoesNotDoubleAnEntry(t *testing.T) {
	a := newZone(t).one()
	own := a.own(ClusterName("c1"))
	c := &committer{own: own}
	tx := a.Begin(own)
	tx.TakeAddress(netip.MustParseAddr("10.91.2.10"), &zonev1.AddressLease{VmId: "vm-1"})
	tx.Journal(usage("vm-1"))
	batch := []*commit{{tx: tx, done: make(chan outcome, 1)}}
	now := must(c.ready(t.Context(), tx.incarnation))
	compare, then, next, err := c.compose(now, batch)
	if err != nil {
		t.Fatal(err)
	}
	first := must(a.txn(t.Context(), compare, then))
	again := must(a.txn(t.Context(), compare, then))
	if !first.Succeeded || again.Succeeded {
		t.Fatal("the second sending took effect too")
	}
	seen := must(a.txn(t.Context(), nil, c.look(batch)))
	if retry := c.failed(seen, true, next, now, batch); retry != nil {
		t.Error("it is tried once more")
	}
	if out := <-batch[0].done; out.err != nil || out.revision != first.Header.Revision {
		t.Errorf("outcome is %+v, it was committed at %d", out, first.Header.Revision)
	}
	if got := a.journal(tx.incarnation, "c1"); len(got) != 1 {
		t.Errorf("%d entries", len(got))
	}
}

func TestWhatGoesTogetherIsAsIfOneCameAfterTheOther(t *testing.T) {
	a := newZone(t).one()
	own := a.own(ClusterName("c1"))
	begin := func(fill func(*Tx)) *commit {
		tx := a.Begin(own)
		fill(tx)
		return &commit{tx: tx}
	}
	first := begin(func(tx *Tx) { tx.PutWork(&zonev1.Work{VmId: "vm-1"}) })
	for name, c := range map[string]struct {
		next *commit
		want int
	}{
		"another key":                 {begin(func(tx *Tx) { tx.PutWork(&zonev1.Work{VmId: "vm-2"}) }), 2},
		"the same key":                {begin(func(tx *Tx) { tx.DeleteWork("vm-1") }), 1},
		"needs what the first writes": {begin(func(tx *Tx) { tx.Require(Work, "", "vm-1", 0) }), 1},
		"deletes a range":             {begin(func(tx *Tx) { tx.delRange("a", "b") }), 1},
		"another incarnation":         {begin(func(tx *Tx) { tx.ReadIn("another") }), 1},
		"too many observed": {begin(func(tx *Tx) {
			for i := range maxObserved + 1 {
				tx.PutObserved(vm(fmt.Sprint("vm-", i)))
			}
		}), 1},
	} {
		if n := own.together([]*commit{first, c.next}); n != c.want {
			t.Errorf("%s: %d go together", name, n)
		}
	}
}

func TestATransactionKnowsItsRoomAndSplitsNothing(t *testing.T) {
	z := newZone(t)
	z.open(z.config(1))
	small := z.config(2, 1)
	small.Member, small.MaxOps, small.MaxBytes = nil, 32, 1<<16
	b := z.open(small)
	own := b.own(ClusterName("c1"))

	tx := b.Begin(own)
	n := 0
	for ; tx.Room() > 0; n++ {
		tx.PutWork(&zonev1.Work{VmId: fmt.Sprintf("vm-%d", n)})
	}
	if n != 32-overhead {
		t.Errorf("%d writes fit into 32 operations", n)
	}
	b.commit(tx)

	tx = b.Begin(own)
	for i := range 40 {
		tx.PutWork(&zonev1.Work{VmId: fmt.Sprintf("other-%d", i)})
	}
	if _, err := tx.Commit(t.Context()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many operations: %v", err)
	}
	tx = b.Begin(own)
	tx.PutObserved(&apiv1.VM{Id: "vm-1", Host: string(make([]byte, 1<<17))})
	if _, err := tx.Commit(t.Context()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many bytes: %v", err)
	}
	if _, err := b.Get(t.Context(), Work, "", "other-0"); !errors.Is(err, ErrNotFound) {
		t.Error("part of a refused transaction is there")
	}
}

func TestARevisionNeverHoldsMoreThanAChunkCarries(t *testing.T) {
	a := newZone(t).one()
	own := a.own(ClusterName("c1"))
	tx := a.Begin(own)
	n := 0
	for ; tx.Room() > 0; n++ {
		tx.PutObserved(vm(fmt.Sprintf("vm-%d", n)))
	}
	if n != maxObserved {
		t.Errorf("%d observed objects in one transaction", n)
	}
	a.commit(tx)
}

func TestWhatCannotBeWrittenIsSaidAtCommit(t *testing.T) {
	a := newZone(t).one()
	own := a.own(UplinkName)
	for name, fill := range map[string]func(*Tx){
		"no noun":      func(tx *Tx) { tx.PutObserved(&apiv1.Flavor{Id: "f"}) },
		"no id":        func(tx *Tx) { tx.PutObserved(&apiv1.VM{}) },
		"slash":        func(tx *Tx) { tx.PutWork(&zonev1.Work{VmId: "a/b"}) },
		"unknown kind": func(tx *Tx) { tx.Tombstone(&apiv1.Reference{Kind: "flavor", Id: "f"}, nil) },
		"no address":   func(tx *Tx) { tx.TakeAddress(netip.Addr{}, nil) },
		"unread lease": func(tx *Tx) { tx.FreeAddress(netip.MustParseAddr("10.0.0.1"), 0) },
		"unread order": func(tx *Tx) { tx.ConsumeOrder("1/zone/1", 0) },
	} {
		tx := a.Begin(own)
		fill(tx)
		if _, err := tx.Commit(t.Context()); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
