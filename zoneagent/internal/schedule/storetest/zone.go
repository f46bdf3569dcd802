// Package storetest is a zone's store in memory, for tests of those who use it: revisions, transactions that compare,
// ownerships that fence, journals, and a Follow that tells it all, with the faults that the real store has.
package storetest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// Zone is the store. Safe for concurrent use.
type Zone struct {
	// Fault is asked before each commit; an error is returned in place of it. Nil: no faults.
	Fault func() error
	// MaxObserved bounds a transaction as the real store does; 128 by default.
	MaxObserved int

	mu        sync.Mutex
	revision  int64
	values    map[name]value
	owners    map[string]*Owner
	followers map[*follower]bool
	pressed   bool
	silent    bool
	life      *zonev1.Incarnation

	entries    []Entry
	tombstones map[string]int // by "kind/id"
	commits    int
}

// Entry is what was journalled, and by which cluster's owner.
type Entry struct {
	Stream string
	*linkv1.JournalEntry
}

type name struct {
	space    etcdstore.Space
	kind, id string
}

func (n name) key() string { return fmt.Sprintf("/naru/zone/%s/%s/%s", n.space, n.kind, n.id) }

type value struct {
	message  proto.Message
	revision int64
}

// NewZone returns an empty store.
func NewZone() *Zone {
	return &Zone{
		revision: 1, values: map[name]value{}, owners: map[string]*Owner{}, followers: map[*follower]bool{},
		tombstones: map[string]int{}, MaxObserved: 128, life: &zonev1.Incarnation{Id: "life-1"},
	}
}

// Put writes as the uplink does, with what the control plane sends; a nil message deletes.
func (z *Zone) Put(space etcdstore.Space, kind, id string, m proto.Message) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.revision++
	z.tell([]etcdstore.Change{z.write(name{space, kind, id}, m)})
}

// Want writes what is desired of a noun.
func (z *Zone) Want(noun proto.Message) {
	z.Put(etcdstore.Desired, etcdstore.KindOf(noun), noun.(interface{ GetId() string }).GetId(), noun)
}

func (z *Zone) write(n name, m proto.Message) etcdstore.Change {
	c := etcdstore.Change{Space: n.space, Kind: n.kind, ID: n.id, Revision: z.revision}
	if m == nil {
		delete(z.values, n)
		return c
	}
	c.Message = proto.Clone(m)
	z.values[n] = value{c.Message, z.revision}
	return c
}

// Get returns a value and its revision; nil and 0 where there is none. The message is not to be changed.
func (z *Zone) Get(space etcdstore.Space, kind, id string) (proto.Message, int64) {
	z.mu.Lock()
	defer z.mu.Unlock()
	v := z.values[name{space, kind, id}]
	return v.message, v.revision
}

// VM returns what is observed of a VM, nil where nothing is.
func (z *Zone) VM(id string) *apiv1.VM {
	m, _ := z.Get(etcdstore.Observed, "vm", id)
	vm, _ := m.(*apiv1.VM)
	return vm
}

// Host returns what is observed of a host, nil where nothing is.
func (z *Zone) Host(id string) *apiv1.Host {
	m, _ := z.Get(etcdstore.Observed, "host", id)
	h, _ := m.(*apiv1.Host)
	return h
}

// Each calls fn with every value of a space.
func (z *Zone) Each(space etcdstore.Space, fn func(kind, id string, m proto.Message)) {
	z.mu.Lock()
	values := maps.Clone(z.values)
	z.mu.Unlock()
	for n, v := range values {
		if n.space == space {
			fn(n.kind, n.id, v.message)
		}
	}
}

// Journal returns what was journalled so far.
func (z *Zone) Journal() []Entry {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.entries)
}

// Reports returns the reports of an operation.
func (z *Zone) Reports(operation string) (reports []*linkv1.OperationReport) {
	for _, e := range z.Journal() {
		if r := e.GetOperation(); r.GetOperationId() == operation {
			reports = append(reports, r)
		}
	}
	return reports
}

// Events returns the types of all events that tell of a noun's id.
func (z *Zone) Events(id string) (types []string) {
	for _, e := range z.Journal() {
		if event := e.GetEvent(); event.GetTarget().GetId() == id {
			types = append(types, event.GetType())
		}
	}
	return types
}

// Tombstones returns how often a tombstone was written.
func (z *Zone) Tombstones(kind, id string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.tombstones[kind+"/"+id]
}

// Commits returns how many transactions were committed.
func (z *Zone) Commits() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.commits
}

// Press makes the store nearly full, or not.
func (z *Zone) Press(yes bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.pressed = yes
}

// Silence holds back all news from followers until it is lifted: they lag behind what they commit themselves.
func (z *Zone) Silence(yes bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.silent = yes
	for f := range z.followers {
		f.poke()
	}
}

// Owner is one ownership of one cluster.
type Owner struct {
	zone     *Zone
	cluster  string
	deadline time.Time
	lost     chan struct{}
}

// Own takes a cluster over, from whoever has it, for a time.
func (z *Zone) Own(cluster string, lasts time.Duration) *Owner {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.depose(cluster)
	o := &Owner{zone: z, cluster: cluster, deadline: time.Now().Add(lasts), lost: make(chan struct{})}
	z.owners[cluster] = o
	return o
}

// Depose ends a cluster's ownership: its owner's writes fail from now on, and it learns of it.
func (z *Zone) Depose(cluster string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.depose(cluster)
}

func (z *Zone) depose(cluster string) {
	if o := z.owners[cluster]; o != nil {
		close(o.lost)
		delete(z.owners, cluster)
	}
}

// Deadline is until when the ownership holds for certain.
func (o *Owner) Deadline() time.Time {
	o.zone.mu.Lock()
	defer o.zone.mu.Unlock()
	return o.deadline
}

// Extend moves the deadline.
func (o *Owner) Extend(lasts time.Duration) {
	o.zone.mu.Lock()
	defer o.zone.mu.Unlock()
	o.deadline = time.Now().Add(lasts)
}

// Lost is closed when the ownership has ended.
func (o *Owner) Lost() <-chan struct{} { return o.lost }

// Pressed tells whether the store is nearly full.
func (o *Owner) Pressed() bool {
	o.zone.mu.Lock()
	defer o.zone.mu.Unlock()
	return o.zone.pressed
}

// Incarnation is the store's present life.
func (o *Owner) Incarnation() (*zonev1.Incarnation, <-chan struct{}) {
	o.zone.mu.Lock()
	defer o.zone.mu.Unlock()
	return proto.CloneOf(o.zone.life), nil
}

// Tx returns a transaction of the owner's.
func (o *Owner) Tx() *Tx { return &Tx{owner: o, writes: map[name]proto.Message{}} }

// follower is one Follow: what it is still to be told.
type follower struct {
	spaces []etcdstore.Space
	queue  []etcdstore.Batch
	wake   chan struct{}
}

// Follow tells everything, then every change.
func (o *Owner) Follow(ctx context.Context, fn func(etcdstore.Batch) error, spaces ...etcdstore.Space) error {
	f := o.zone.follow(spaces)
	defer o.zone.unfollow(f)
	for {
		for _, b := range o.zone.next(f) {
			if err := fn(b); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.wake:
		}
	}
}

func (z *Zone) follow(spaces []etcdstore.Space) *follower {
	z.mu.Lock()
	defer z.mu.Unlock()
	f := &follower{spaces: spaces, wake: make(chan struct{}, 1)}
	z.followers[f] = true
	f.queue = []etcdstore.Batch{z.snapshot(f)}
	return f
}

func (z *Zone) unfollow(f *follower) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.followers, f)
}

func (z *Zone) next(f *follower) []etcdstore.Batch {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.silent {
		return nil
	}
	queue := f.queue
	f.queue = nil
	return queue
}

func (z *Zone) snapshot(f *follower) etcdstore.Batch {
	b := etcdstore.Batch{Reset: true, Revision: z.revision, Incarnation: z.life.GetId()}
	for n, v := range z.values {
		if f.wants(n.space) {
			b.Changes = append(b.Changes, etcdstore.Change{Space: n.space, Kind: n.kind, ID: n.id, Message: v.message, Revision: v.revision})
		}
	}
	slices.SortFunc(b.Changes, func(x, y etcdstore.Change) int {
		return strings.Compare(string(x.Space)+x.Kind+x.ID, string(y.Space)+y.Kind+y.ID)
	})
	return b
}

func (f *follower) wants(s etcdstore.Space) bool {
	return len(f.spaces) == 0 || slices.Contains(f.spaces, s)
}

func (z *Zone) tell(changes []etcdstore.Change) {
	for f := range z.followers {
		var mine []etcdstore.Change
		for _, c := range changes {
			if f.wants(c.Space) {
				mine = append(mine, c)
			}
		}
		if len(mine) > 0 {
			f.push(etcdstore.Batch{Changes: mine, Revision: z.revision, Incarnation: z.life.GetId()})
		}
	}
}

func (f *follower) push(b etcdstore.Batch) {
	f.queue = append(f.queue, b)
	f.poke()
}

func (f *follower) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// PutBack makes the store forget what the zone wrote into it, as one that was restored from an old backup: another life
// begins, in which only what came from the control plane is known.
func (z *Zone) PutBack() {
	z.mu.Lock()
	maps.DeleteFunc(z.values, func(n name, _ value) bool { return n.space != etcdstore.Desired && n.space != etcdstore.Cursor })
	z.life = &zonev1.Incarnation{Id: z.life.GetId() + "'", MintedAt: timestamppb.Now()}
	z.mu.Unlock()
	z.Reset()
}

// Reset makes every follower begin anew, as when a watch was lost.
func (z *Zone) Reset() {
	z.mu.Lock()
	defer z.mu.Unlock()
	for f := range z.followers {
		f.queue = nil
		f.push(z.snapshot(f))
	}
}

// Tx gathers writes; see etcdstore.Tx.
type Tx struct {
	owner    *Owner
	writes   map[name]proto.Message // nil deletes
	order    []name
	needs    []need
	entries  []*linkv1.JournalEntry
	dead     []string
	observed int
	life     string
}

type need struct {
	name
	revision int64
}

func (t *Tx) put(n name, m proto.Message) {
	if _, ok := t.writes[n]; !ok {
		t.order = append(t.order, n)
	}
	t.writes[n] = m
}

// ReadIn says in which life was read what is required.
func (t *Tx) ReadIn(incarnation string) { t.life = incarnation }

// PutObserved writes what is observed of a noun.
func (t *Tx) PutObserved(noun proto.Message) {
	t.observed++
	t.put(name{etcdstore.Observed, etcdstore.KindOf(noun), noun.(interface{ GetId() string }).GetId()}, proto.Clone(noun))
}

// Tombstone deletes what is observed, and notes the tombstone.
func (t *Tx) Tombstone(noun *apiv1.Reference, _ *apiv1.Generation) {
	t.observed++
	t.dead = append(t.dead, noun.GetKind()+"/"+noun.GetId())
	t.put(name{etcdstore.Observed, noun.GetKind(), noun.GetId()}, nil)
}

// PutAllocation writes what is taken of a host.
func (t *Tx) PutAllocation(a *zonev1.Allocation, revision int64) {
	t.Require(etcdstore.Allocation, "", a.GetHostId(), revision)
	t.put(name{etcdstore.Allocation, "", a.GetHostId()}, proto.Clone(a))
}

// DeleteAllocation deletes a host's.
func (t *Tx) DeleteAllocation(hostID string, revision int64) {
	t.Require(etcdstore.Allocation, "", hostID, revision)
	t.put(name{etcdstore.Allocation, "", hostID}, nil)
}

// TakeAddress leases an address that nobody has.
func (t *Tx) TakeAddress(a netip.Addr, lease *zonev1.AddressLease) {
	t.Require(etcdstore.Address, "", a.String(), 0)
	t.put(name{etcdstore.Address, "", a.String()}, proto.Clone(lease))
}

// FreeAddress gives an address back.
func (t *Tx) FreeAddress(a netip.Addr, revision int64) {
	t.Require(etcdstore.Address, "", a.String(), revision)
	t.put(name{etcdstore.Address, "", a.String()}, nil)
}

// PutWork writes how far a VM's worker has come.
func (t *Tx) PutWork(w *zonev1.Work) { t.put(name{etcdstore.Work, "", w.GetVmId()}, proto.Clone(w)) }

// DeleteWork says that nothing is to be done.
func (t *Tx) DeleteWork(vmID string) { t.put(name{etcdstore.Work, "", vmID}, nil) }

// ConsumeOrder takes up an order. The kind of an order is its stream, which is part of its id.
func (t *Tx) ConsumeOrder(id string, revision int64) {
	n := name{etcdstore.Order, strings.Split(id, "/")[1], id}
	t.needs = append(t.needs, need{n, revision})
	t.put(n, nil)
}

// Journal appends entries.
func (t *Tx) Journal(entries ...*linkv1.JournalEntry) { t.entries = append(t.entries, entries...) }

// Require makes the transaction conflict when a key is not as it was read.
func (t *Tx) Require(space etcdstore.Space, kind, id string, revision int64) {
	t.needs = append(t.needs, need{name{space, kind, id}, revision})
}

// Commit commits all or nothing.
func (t *Tx) Commit(ctx context.Context) (int64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	z := t.owner.zone
	if z.Fault != nil {
		if err := z.Fault(); err != nil {
			return 0, err
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.owners[t.owner.cluster] != t.owner {
		return 0, fmt.Errorf("cluster %s: %w", t.owner.cluster, etcdstore.ErrFenced)
	}
	if t.life != "" && t.life != z.life.GetId() {
		return 0, fmt.Errorf("read in incarnation %s, this is %s: %w", t.life, z.life.GetId(), etcdstore.ErrConflict)
	}
	if t.observed > z.MaxObserved {
		return 0, etcdstore.ErrTooLarge
	}
	for _, n := range t.needs {
		if have := z.values[n.name].revision; have != n.revision {
			return 0, &etcdstore.ConflictError{Key: n.key(), Want: n.revision, Have: have}
		}
	}
	z.revision++
	z.commits++
	var changes []etcdstore.Change
	for _, n := range t.order {
		changes = append(changes, z.write(n, t.writes[n]))
	}
	for _, e := range t.entries {
		z.entries = append(z.entries, Entry{t.owner.cluster, proto.CloneOf(e)})
	}
	for _, d := range t.dead {
		z.tombstones[d]++
	}
	z.tell(changes)
	return z.revision, nil
}
