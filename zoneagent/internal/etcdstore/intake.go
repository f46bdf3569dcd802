package etcdstore

import (
	"context"
	"fmt"
	"maps"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// intake is one chunk on its way in.
type intake struct {
	sink  *DesiredSink
	chunk *linkv1.StateChunk
	// cursor is as it will be written next, revision that of its key.
	cursor   *zonev1.Cursor
	revision int64
	begins   bool
	// stored is what is there of the chunk's objects, unclaimed which desired objects are.
	stored    map[string]proto.Message
	unclaimed map[string]bool
	// taken are the objects of the transaction that is being filled.
	taken []nounKey
}

// begin makes the chunk the first of a full sync.
func (in *intake) begin(epoch uint64, id []byte) {
	in.begins = true
	in.cursor = &zonev1.Cursor{Point: &linkv1.StateAckPoint{Epoch: epoch}, EpochId: id, Syncing: true, Behind: in.cursor.GetBehind()}
}

func (in *intake) run(ctx context.Context) error {
	objects, err := in.wellFormed()
	if err != nil {
		return err
	}
	if err := in.look(ctx, objects); err != nil {
		return fmt.Errorf("read desired state: %w", err)
	}
	s := in.sink.store
	t := in.part()
	for i, o := range objects {
		if t.Room() < 4 || (len(t.writes) > 2 && t.bytes+proto.Size(o) > s.cfg.MaxBytes) {
			if err := in.commit(ctx, t); err != nil {
				return err
			}
			t = in.part()
		}
		in.take(t, o)
		if i+1 < len(objects) && objects[i+1].GetRevision() > o.GetRevision() {
			in.cursor.GetPoint().Revision = max(in.cursor.GetPoint().GetRevision(), o.GetRevision())
		}
	}
	if in.cursor.GetSyncing() {
		defer func() { in.sink.rebase(in.revision, t.incarnation) }()
	}
	if in.chunk.GetEnd() && in.cursor.GetSyncing() {
		return in.finish(ctx, t)
	}
	in.cursor.GetPoint().Revision = in.chunk.GetThrough()
	return in.commit(ctx, t)
}

// wellFormed are the objects that can be taken; what can not is counted, logged and left out, since sending it again
// would not change it.
func (in *intake) wellFormed() (out []*linkv1.Object, err error) {
	var last uint64
	for _, o := range in.chunk.GetObjects() {
		if o.GetRevision() < last {
			return nil, fmt.Errorf("revision %d comes after %d in one chunk: %w", o.GetRevision(), last, ErrGap)
		}
		last = o.GetRevision()
		kind, id := named(o)
		if err := checkPart(kind+" id", id); err != nil || kinds[kind] == nil {
			in.sink.store.metrics.refused.WithLabelValues("malformed").Inc()
			in.sink.store.log.Error("an object of the control plane cannot be kept", "kind", kind, "id", id, "revision", o.GetRevision())
			continue
		}
		out = append(out, o)
	}
	return out, nil
}

// named is the kind and id of an object of the link.
func named(o *linkv1.Object) (kind, id string) {
	if t := o.GetTombstone(); t != nil {
		return t.GetNoun().GetKind(), t.GetNoun().GetId()
	}
	noun := nounOf(o)
	return KindOf(noun), idOf(noun)
}

func nounOf(o *linkv1.Object) proto.Message {
	switch n := o.GetNoun().(type) {
	case *linkv1.Object_Zone:
		return n.Zone
	case *linkv1.Object_Cluster:
		return n.Cluster
	case *linkv1.Object_Host:
		return n.Host
	case *linkv1.Object_Vm:
		return n.Vm
	case *linkv1.Object_Reservation:
		return n.Reservation
	case *linkv1.Object_Checkpoint:
		return n.Checkpoint
	case *linkv1.Object_LocalOperator:
		return n.LocalOperator
	}
	return nil
}

// recall finds what is there of the objects in the picture and in what the sink has written since; false where that is not
// all there is, or in a full sync, which is looked at key by key.
func (in *intake) recall(objects []*linkv1.Object) bool {
	d, p, keys := in.sink, in.sink.store.picture, in.sink.store.keys
	p.mu.RLock()
	defer p.mu.RUnlock()
	if in.cursor.GetSyncing() || p.incarnation != d.incarnation || p.revision < d.base {
		return false
	}
	maps.DeleteFunc(d.written, func(_ nounKey, w wish) bool { return w.revision <= p.revision })
	for _, o := range objects {
		kind, id := named(o)
		key := nounKey{kind, id}
		noun, unclaimed := p.desired[key], p.unclaimed[key]
		if w, ok := d.written[key]; ok {
			noun, unclaimed = w.noun, false
		}
		if noun != nil {
			in.stored[keys.of(Desired, kind, id)] = noun
		}
		if unclaimed {
			in.unclaimed[keys.of(Unclaimed, kind, id)] = true
		}
	}
	return true
}

// look finds what is there of the objects.
func (in *intake) look(ctx context.Context, objects []*linkv1.Object) error {
	s := in.sink.store
	in.stored, in.unclaimed = map[string]proto.Message{}, map[string]bool{}
	if in.recall(objects) {
		return nil
	}
	for len(objects) > 0 {
		n := min(len(objects), s.cfg.MaxOps)
		var ops []clientv3.Op
		for _, o := range objects[:n] {
			kind, id := named(o)
			ops = append(ops, clientv3.OpGet(s.keys.of(Desired, kind, id)))
		}
		objects = objects[n:]
		resp, err := s.txn(ctx, nil, ops)
		if err != nil {
			return err
		}
		for _, r := range resp.Responses {
			for _, kv := range r.GetResponseRange().GetKvs() {
				c, _, err := s.keys.change(kv)
				if err != nil {
					return err
				}
				in.stored[string(kv.Key)] = c.Message
			}
		}
	}
	resp, err := s.get(ctx, s.keys.under(Unclaimed), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	for _, kv := range resp.Kvs {
		in.unclaimed[string(kv.Key)] = true
	}
	return nil
}

// part begins a transaction that stands on the cursor.
func (in *intake) part() *Tx {
	s := in.sink.store
	t := s.Begin(in.sink.own)
	t.Require(Cursor, "", "", in.revision)
	if in.begins {
		// The revision of this key tells later what the sync did not name: what is older.
		t.put(s.keys.of(syncing), in.cursor)
		in.begins = false
	}
	return t
}

func (in *intake) commit(ctx context.Context, t *Tx) (err error) {
	t.put(t.keys().of(Cursor), in.cursor)
	if in.revision, err = t.Commit(ctx); err != nil {
		return fmt.Errorf("commit desired state: %w", err)
	}
	d := in.sink
	for _, key := range in.taken {
		d.written[key] = wish{in.stored[d.store.keys.of(Desired, key.kind, key.id)], in.revision}
	}
	in.taken = in.taken[:0]
	if d.at = (standing{}); !in.cursor.GetSyncing() {
		d.at = standing{cursor: proto.CloneOf(in.cursor), revision: in.revision}
	}
	return nil
}

type generated interface{ GetGeneration() *apiv1.Generation }

func generationOf(m proto.Message) *apiv1.Generation {
	if g, ok := m.(generated); ok {
		return g.GetGeneration()
	}
	return nil
}

// older tells whether a comes before b.
func older(a, b *apiv1.Generation) bool {
	if a.GetEpoch() != b.GetEpoch() {
		return a.GetEpoch() < b.GetEpoch()
	}
	return a.GetIndex() < b.GetIndex()
}

// take writes one object, unless the zone has a newer generation of it, or holds to an override that has not been answered.
func (in *intake) take(t *Tx, o *linkv1.Object) {
	s := in.sink.store
	kind, id := named(o)
	key := s.keys.of(Desired, kind, id)
	stored := in.stored[key]
	in.taken = append(in.taken, nounKey{kind, id})
	if lost := s.keys.of(Unclaimed, kind, id); in.unclaimed[lost] {
		t.del(lost)
	}
	noun, generation := nounOf(o), o.GetTombstone().GetGeneration()
	if noun != nil {
		generation = generationOf(noun)
	}
	if stored != nil && generation != nil && older(generation, generationOf(stored)) {
		s.metrics.refused.WithLabelValues("older_generation").Inc()
		s.log.Warn("an older generation of a desired object is not taken", "kind", kind, "id", id,
			"sent", generation.String(), "known", generationOf(stored).String())
		if in.cursor.GetSyncing() {
			// The sync has named it.
			t.put(key, stored)
		}
		return
	}
	if holds(stored, noun) {
		if in.cursor.GetSyncing() {
			t.put(key, stored)
		}
		return
	}
	if noun != nil {
		noun = after(stored, noun)
	}
	switch {
	case noun == nil:
		delete(in.stored, key)
		t.del(key)
	case in.cursor.GetSyncing() || !proto.Equal(noun, stored):
		in.stored[key] = noun
		t.put(key, noun)
	}
}

// finish makes a full sync take effect: what it did not name is unclaimed from now on. t holds the last objects. Until
// all is done the cursor stays before them, so that the control plane sends the end again should it be cut short.
func (in *intake) finish(ctx context.Context, t *Tx) error {
	s := in.sink.store
	if err := in.commit(ctx, t); err != nil {
		return err
	}
	st, err := s.standing(ctx)
	if err != nil {
		return err
	}
	missing, former, err := in.unnamed(ctx, st.began)
	if err != nil {
		return err
	}
	t = in.part()
	for _, r := range append(former, missing...) {
		if t.Room() < 4 {
			if err := in.commit(ctx, t); err != nil {
				return err
			}
			t = in.part()
		}
		if r.GetKind() == "local-operator" {
			t.del(s.keys.of(Desired, r.GetKind(), r.GetId()))
			continue
		}
		t.put(s.keys.of(Unclaimed, r.GetKind(), r.GetId()), r)
	}
	if len(missing) > 0 {
		s.metrics.unclaimed.Add(float64(len(missing)))
		s.log.Warn("the control plane did not name all that the zone holds; it is kept", "count", len(missing), "first", missing[0].String())
		t.Journal(unclaimedEvent(missing))
	}
	t.del(s.keys.of(syncing))
	in.cursor.GetPoint().Revision, in.cursor.Syncing, in.cursor.Behind = in.chunk.GetThrough(), false, false
	return in.commit(ctx, t)
}

// unnamed are the desired objects last written before the sync began, and not unclaimed yet; former are those among them who are not the
// zone's operators any more.
func (in *intake) unnamed(ctx context.Context, began int64) (out, former []*apiv1.Reference, err error) {
	s := in.sink.store
	resp, err := s.get(ctx, s.keys.under(Desired), clientv3.WithPrefix(), clientv3.WithMaxModRev(began-1))
	if err != nil {
		return nil, nil, fmt.Errorf("read desired state: %w", err)
	}
	for _, kv := range resp.Kvs {
		c, ok, err := s.keys.change(kv)
		if err != nil {
			return nil, nil, err
		}
		switch c.Kind {
		case "checkpoint":
			continue // it is shown again in time, and is nothing that the zone holds
		case "local-operator":
			former = append(former, &apiv1.Reference{Kind: c.Kind, Id: c.ID})
			continue
		}
		if ok && !in.unclaimed[s.keys.of(Unclaimed, c.Kind, c.ID)] {
			out = append(out, &apiv1.Reference{Kind: c.Kind, Id: c.ID, Name: nameOf(c.Message)})
		}
	}
	return out, former, nil
}

func nameOf(noun proto.Message) string {
	if n, ok := noun.(interface{ GetName() string }); ok {
		return n.GetName()
	}
	return ""
}
