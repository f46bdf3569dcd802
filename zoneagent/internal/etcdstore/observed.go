package etcdstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// ObservedSource sends up what the zone observes. It reads by range on the modification revision, so that no compaction
// can take anything away from it. It is one session's, and one goroutine asks it.
//
// VMs go up with what was wanted of them, too, in a full sync, and as long as the control plane does not name them: it may
// have been restored from a backup that is older than they are, and adopts them.
type ObservedSource struct {
	store   *Store
	own     *Ownership
	changed <-chan struct{}
	full    bool // a full sync is under way
}

// observedPace is how often at most the observed state is looked through while it keeps changing: etcd has no index by
// modification revision, so that each look costs some microseconds for every object there is.
const observedPace = 100 * time.Millisecond

// ObservedSource is the uplink owner's.
func (s *Store) ObservedSource(own *Ownership) *ObservedSource {
	return &ObservedSource{store: s, own: own, changed: s.hints.subscribe(own.Lost(), observedPace, Observed, tombstones)}
}

// Changed holds a hint when there may be something new.
func (o *ObservedSource) Changed() <-chan struct{} { return o.changed }

// Since is the chunk after a point, nil where nothing is new: objects and tombstones in ascending revision, at most
// limit (and 128), but never part of a revision, so that one revision's objects may go beyond limit. A point of another
// incarnation, revision 0 or one that lies ahead begins a full sync.
func (o *ObservedSource) Since(ctx context.Context, after *linkv1.StateAckPoint, limit int) (*linkv1.StateChunk, error) {
	now, err := o.store.life(ctx)
	if err != nil {
		return nil, err
	}
	from := after.GetRevision()
	if after.GetIncarnation() != now.incarnation.GetId() {
		from = 0
	}
	rows, at, err := o.read(ctx, from)
	if err == nil && at < from {
		from = 0
		rows, at, err = o.read(ctx, from)
	}
	if err != nil {
		return nil, fmt.Errorf("read observed state: %w", err)
	}
	if len(rows) == 0 && from > 0 {
		return nil, nil
	}
	rows, cut := cutAtRevision(rows, min(max(limit, 1), maxObserved))
	o.full = from == 0 || o.full
	if rows, err = o.whole(ctx, rows); err != nil {
		return nil, fmt.Errorf("read what was wanted of VMs: %w", err)
	}
	o.full = o.full && cut
	c := &linkv1.StateChunk{
		Incarnation: now.incarnation.GetId(), After: from, Through: at, Objects: rows, Full: from == 0, End: !cut,
	}
	if cut {
		c.Through = rows[len(rows)-1].GetRevision()
	}
	return c, nil
}

// read brings the first objects after a revision, of what there was at a revision. It asks for one more of each space
// than a revision can hold: where there are more, a cut at maxObserved leaves only revisions that came whole.
func (o *ObservedSource) read(ctx context.Context, from uint64) (rows []*linkv1.Object, at uint64, err error) {
	since := func(s Space) clientv3.Op {
		return clientv3.OpGet(o.store.keys.under(s), clientv3.WithPrefix(), clientv3.WithMinModRev(int64(from)+1),
			clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend), clientv3.WithLimit(maxObserved+1))
	}
	resp, err := o.store.txn(ctx, nil, []clientv3.Op{since(Observed), since(tombstones)})
	if err != nil {
		return nil, 0, err
	}
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			c, ok, err := o.store.keys.change(kv)
			if err != nil {
				return nil, 0, err
			}
			if ok {
				rows = append(rows, objectOf(c))
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b *linkv1.Object) int { return cmp.Compare(a.GetRevision(), b.GetRevision()) })
	return rows, uint64(resp.Header.GetRevision()), nil
}

// whole returns the objects with what was wanted of the VMs that the control plane may not know.
func (o *ObservedSource) whole(ctx context.Context, rows []*linkv1.Object) ([]*linkv1.Object, error) {
	s := o.store
	for from := 0; from < len(rows); {
		var ops []clientv3.Op
		at := from
		for ; at < len(rows) && len(ops)+2 <= s.cfg.MaxOps; at++ {
			id := rows[at].GetVm().GetId()
			if rows[at].GetVm() == nil {
				continue
			}
			ops = append(ops, clientv3.OpGet(s.keys.of(Desired, "vm", id)), clientv3.OpGet(s.keys.of(Unclaimed, "vm", id), clientv3.WithKeysOnly()))
		}
		if len(ops) == 0 {
			return rows, nil
		}
		resp, err := s.txn(ctx, nil, ops)
		if err != nil {
			return nil, err
		}
		answers := resp.Responses
		for _, row := range rows[from:at] {
			is := row.GetVm()
			if is == nil {
				continue
			}
			desired, unclaimed := answers[0].GetResponseRange().GetKvs(), len(answers[1].GetResponseRange().GetKvs()) > 0
			answers = answers[2:]
			if len(desired) == 0 || !o.full && !unclaimed {
				continue
			}
			c, _, err := s.keys.change(desired[0])
			if err != nil {
				return nil, err
			}
			vm := c.Message.(*apiv1.VM)
			schema.MergeObserved(vm, is)
			row.Noun = &linkv1.Object_Vm{Vm: vm}
		}
		from = at
	}
	return rows, nil
}

// cutAtRevision takes at most limit rows, whole revisions only, but at least one revision.
func cutAtRevision(rows []*linkv1.Object, limit int) ([]*linkv1.Object, bool) {
	if len(rows) <= limit {
		return rows, false
	}
	n := limit
	for n > 0 && rows[n-1].GetRevision() == rows[n].GetRevision() {
		n--
	}
	if n == 0 {
		for n = 1; n < len(rows) && rows[n].GetRevision() == rows[0].GetRevision(); n++ {
		}
	}
	return rows[:n], n < len(rows)
}

func objectOf(c Change) *linkv1.Object {
	o := &linkv1.Object{Revision: uint64(c.Revision)}
	switch m := c.Message.(type) {
	case *apiv1.Zone:
		o.Noun = &linkv1.Object_Zone{Zone: m}
	case *apiv1.Cluster:
		o.Noun = &linkv1.Object_Cluster{Cluster: m}
	case *apiv1.Host:
		o.Noun = &linkv1.Object_Host{Host: m}
	case *apiv1.VM:
		o.Noun = &linkv1.Object_Vm{Vm: m}
	case *linkv1.Tombstone:
		o.Noun = &linkv1.Object_Tombstone{Tombstone: m}
	}
	return o
}

// Acknowledged forgets tombstones that the control plane has committed.
func (o *ObservedSource) Acknowledged(ctx context.Context, p *linkv1.StateAckPoint) error {
	now, err := o.store.life(ctx)
	if err != nil {
		return err
	}
	if p.GetIncarnation() != now.incarnation.GetId() || p.GetRevision() == 0 {
		return nil
	}
	resp, err := o.store.get(ctx, o.store.keys.under(tombstones), clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithMaxModRev(int64(p.GetRevision())))
	if err != nil {
		return fmt.Errorf("read tombstones: %w", err)
	}
	for kvs := resp.Kvs; len(kvs) > 0; {
		t := o.store.Begin(o.own)
		for len(kvs) > 0 && t.Room() > 0 {
			t.needs = append(t.needs, need{key: string(kvs[0].Key), revision: kvs[0].ModRevision})
			t.del(string(kvs[0].Key))
			kvs = kvs[1:]
		}
		if _, err := t.Commit(ctx); err != nil {
			return fmt.Errorf("forget acknowledged tombstones: %w", err)
		}
	}
	return nil
}
