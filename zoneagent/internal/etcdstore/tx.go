package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// maxObserved is how many observed objects one transaction writes at most: a chunk of the link carries so many, and
// never cuts a revision in two.
const maxObserved = 128

// overhead is what a transaction needs beside the caller's writes: fence, incarnation and head.
const overhead = 3

// Tx gathers writes of one owner and commits them as one. It is used by one goroutine; several of one Ownership may be
// filled and committed at the same time. A later write of a key takes the place of an earlier one.
type Tx struct {
	own *Ownership
	// incarnation is the life in which the transaction was begun; what it read is of that life.
	incarnation string
	writes      []write
	at          map[string]int
	needs       []need
	entries     []*linkv1.JournalEntry
	observed    int
	bytes       int
	err         error
}

// write is one operation; a nil value deletes, up to end where that is set.
type write struct {
	key   string
	value []byte
	end   string
}

func (w write) op() clientv3.Op {
	switch {
	case w.value != nil:
		return clientv3.OpPut(w.key, string(w.value))
	case w.end != "":
		return clientv3.OpDelete(w.key, clientv3.WithRange(w.end))
	}
	return clientv3.OpDelete(w.key)
}

// need is a key that must still be as it was read; revision 0 is absent.
type need struct {
	key      string
	revision int64
}

// Begin begins a transaction that only succeeds while own lasts.
func (s *Store) Begin(own *Ownership) *Tx {
	now, _ := s.witness.read()
	return &Tx{own: own, incarnation: now.incarnation.GetId(), at: map[string]int{}}
}

// PutObserved writes what is observed of a noun: an apiv1.Zone, Cluster, Host, VM or Reservation with its id and observed fields.
func (t *Tx) PutObserved(noun proto.Message) {
	kind := KindOf(noun)
	if kind == "" {
		t.fail(fmt.Errorf("%T is not observed", noun))
		return
	}
	if t.part(kind+" id", idOf(noun)) {
		t.observed++
		t.put(t.keys().of(Observed, kind, idOf(noun)), noun)
	}
}

// Tombstone says that a noun is gone by decision: what was observed of it is deleted, and the control plane is told.
// generation is that of the desired object which asked for it.
func (t *Tx) Tombstone(noun *apiv1.Reference, generation *apiv1.Generation) {
	kind, id := noun.GetKind(), noun.GetId()
	if kinds[kind] == nil {
		t.fail(fmt.Errorf("tombstone for kind %q: there is no such kind", kind))
		return
	}
	if t.part(kind+" id", id) {
		t.observed++
		t.put(t.keys().of(tombstones, kind, id), &linkv1.Tombstone{Noun: noun, Generation: generation})
		t.del(t.keys().of(Observed, kind, id))
	}
}

// PutAllocation writes what is taken of a host, if that is still as it was read at revision (0: absent).
func (t *Tx) PutAllocation(a *zonev1.Allocation, revision int64) {
	if t.part("host id", a.GetHostId()) {
		t.Require(Allocation, "", a.GetHostId(), revision)
		t.put(t.keys().of(Allocation, a.GetHostId()), a)
	}
}

// DeleteAllocation deletes a host's, if it is still as it was read.
func (t *Tx) DeleteAllocation(hostID string, revision int64) {
	if t.part("host id", hostID) {
		t.Require(Allocation, "", hostID, revision)
		t.del(t.keys().of(Allocation, hostID))
	}
}

// TakeAddress leases an address that nobody has.
func (t *Tx) TakeAddress(a netip.Addr, lease *zonev1.AddressLease) {
	if !a.IsValid() {
		t.fail(errors.New("address is not valid"))
		return
	}
	t.Require(Address, "", a.String(), 0)
	t.put(t.keys().of(Address, a.String()), lease)
}

// FreeAddress gives an address back, if its lease is still as it was read at revision.
func (t *Tx) FreeAddress(a netip.Addr, revision int64) {
	if !a.IsValid() || revision == 0 {
		t.fail(errors.New("an address that is freed is a valid one, read before"))
		return
	}
	t.Require(Address, "", a.String(), revision)
	t.del(t.keys().of(Address, a.String()))
}

// PutWork writes how far a VM's worker has come.
func (t *Tx) PutWork(w *zonev1.Work) {
	if t.part("vm id", w.GetVmId()) {
		t.put(t.keys().of(Work, w.GetVmId()), w)
	}
}

// DeleteWork says that nothing is to be done to the VM.
func (t *Tx) DeleteWork(vmID string) {
	if t.part("vm id", vmID) {
		t.del(t.keys().of(Work, vmID))
	}
}

// ConsumeOrder takes up an order, by its Change's id; it conflicts where somebody has.
func (t *Tx) ConsumeOrder(id string, revision int64) {
	if revision == 0 {
		t.fail(fmt.Errorf("order %s was not read before", id))
		return
	}
	t.Require(Order, "", id, revision)
	t.del(t.keys().of(Order, id))
}

// Journal appends entries to the owner's stream (a cluster's, or "zone" for the uplink's owner). The entries belong to
// the transaction from now on: it sets sequence, and time where that is not set.
func (t *Tx) Journal(entries ...*linkv1.JournalEntry) {
	for _, e := range entries {
		if e.GetTime() == nil {
			e.Time = timestamppb.Now()
		}
		t.entries = append(t.entries, e)
		t.bytes += proto.Size(e) + len(t.keys().prefix) + 160
	}
}

// Require makes the transaction conflict when the key is not as it was read; revision 0 means absent.
func (t *Tx) Require(space Space, kind, id string, revision int64) {
	t.needs = append(t.needs, need{key: t.keys().named(space, kind, id), revision: revision})
}

// ReadIn says in which incarnation the revisions were read that are required, as a Batch tells; without it, in the one
// at Begin.
func (t *Tx) ReadIn(incarnation string) { t.incarnation = incarnation }

// Room is how many more operations fit: a write, a journal entry or a requirement counts as one, a tombstone as two.
// Zero or less: commit, and begin another.
func (t *Tx) Room() int {
	c := t.own.store.cfg
	room := c.MaxOps - overhead - max(len(t.writes)+len(t.entries), len(t.needs))
	if t.bytes >= c.MaxBytes {
		return 0
	}
	return min(room, maxObserved-t.observed)
}

// Commit commits all or nothing and returns the revision at which it took effect.
//
// ErrFenced: the ownership is gone. ErrConflict: something required has moved (errors.As a *ConflictError says which).
// ErrTooLarge: see Room. ErrFull: etcd's quota is used up. ErrUnknown: ctx ended first; what was sent may take effect.
// Transactions that wait while one is under way go together in the next one; each still succeeds or fails by itself.
func (t *Tx) Commit(ctx context.Context) (revision int64, err error) {
	switch {
	case t.err != nil:
		return 0, t.err
	case t.Room() < 0 || t.bytes > t.own.store.cfg.MaxBytes:
		return 0, fmt.Errorf("%d writes, %d requirements, %d observed, %d bytes: %w",
			len(t.writes)+len(t.entries), len(t.needs), t.observed, t.bytes, ErrTooLarge)
	}
	return t.own.submit(ctx, t)
}

func (t *Tx) keys() keyspace { return t.own.store.keys }

func (t *Tx) fail(err error) { t.err = errors.Join(t.err, err) }

func (t *Tx) part(what, s string) bool {
	if err := checkPart(what, s); err != nil {
		t.fail(err)
		return false
	}
	return true
}

func (t *Tx) put(key string, m proto.Message) {
	value, err := proto.Marshal(m)
	if err != nil {
		t.fail(err)
		return
	}
	if value == nil {
		value = []byte{}
	}
	t.write(write{key: key, value: value})
}

func (t *Tx) del(key string) { t.write(write{key: key}) }

// delRange deletes the keys from and up to, not including, end. No other write of the transaction lies between.
func (t *Tx) delRange(from, end string) { t.write(write{key: from, end: end}) }

func (t *Tx) write(w write) {
	t.bytes += len(w.key) + len(w.value) + 16
	if i, ok := t.at[w.key]; ok {
		t.writes[i] = w
		return
	}
	t.at[w.key] = len(t.writes)
	t.writes = append(t.writes, w)
}

// joins tells whether t can follow after in one transaction of etcd: it writes nothing that the others write, and needs
// nothing that they write, since all needs are compared before anything is written.
func (t *Tx) joins(before []*Tx) bool {
	for _, b := range before {
		for _, w := range t.writes {
			if _, ok := b.at[w.key]; ok || w.end != "" {
				return false
			}
		}
		for _, n := range t.needs {
			if _, ok := b.at[n.key]; ok {
				return false
			}
		}
		for _, w := range b.writes {
			if w.end != "" {
				return false
			}
		}
	}
	return true
}
