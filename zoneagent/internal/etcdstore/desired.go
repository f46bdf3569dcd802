package etcdstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// DesiredSink takes in what the control plane wants. Objects and the cursor behind them are one transaction; a chunk
// that is larger than one is committed in parts, the cursor after each as far as all before it is there.
type DesiredSink struct {
	store *Store
	own   *Ownership

	mu sync.Mutex
	// epoch and id are what the control plane said of itself in this session.
	epoch uint64
	id    []byte
}

// DesiredSink is the uplink owner's.
func (s *Store) DesiredSink(own *Ownership) *DesiredSink { return &DesiredSink{store: s, own: own} }

// Cursor is where the zone stands in the control plane's state; a blank one before the first sync.
func (s *Store) Cursor(ctx context.Context) (*zonev1.Cursor, error) {
	c, _, err := s.cursor(ctx)
	return c, err
}

func (s *Store) cursor(ctx context.Context) (*zonev1.Cursor, int64, error) {
	c, err := s.Get(ctx, Cursor, "", "")
	if errors.Is(err, ErrNotFound) {
		return &zonev1.Cursor{Point: &linkv1.StateAckPoint{}}, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return c.Message.(*zonev1.Cursor), c.Revision, nil
}

// Point is up to where the zone has the control plane's state.
func (d *DesiredSink) Point(ctx context.Context) (*linkv1.StateAckPoint, error) {
	c, err := d.store.Cursor(ctx)
	if err != nil {
		return nil, err
	}
	return c.GetPoint(), nil
}

// Greet takes the epoch with which the control plane opens a session: ErrOldEpoch for a lower one than known,
// ErrQuarantine for a known one with another id.
func (d *DesiredSink) Greet(ctx context.Context, epoch uint64, id []byte) error {
	c, err := d.store.Cursor(ctx)
	if err != nil {
		return err
	}
	if err := admitEpoch(c, epoch, id); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch, d.id = epoch, bytes.Clone(id)
	return nil
}

func admitEpoch(c *zonev1.Cursor, epoch uint64, id []byte) error {
	known := c.GetPoint().GetEpoch()
	switch {
	case epoch < known:
		return fmt.Errorf("epoch %d was sent, %d is known: %w", epoch, known, ErrOldEpoch)
	case epoch == known && len(id) > 0 && len(c.GetEpochId()) > 0 && !bytes.Equal(id, c.GetEpochId()):
		return fmt.Errorf("epoch %d was sent with id %x, it is known with %x: %w", epoch, id, c.GetEpochId(), ErrQuarantine)
	}
	return nil
}

func (d *DesiredSink) epochID(epoch uint64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch == epoch {
		return d.id
	}
	return nil
}

// Commit takes a chunk in. Besides Greet's errors: ErrGap when it does not follow on the cursor, ErrFenced when the
// uplink's ownership is gone. A chunk that is there already is no error. An object of an older generation than the
// zone's own is not taken. After the last chunk of a full sync, objects that it did not name are unclaimed, and stay.
func (d *DesiredSink) Commit(ctx context.Context, chunk *linkv1.StateChunk) error {
	cursor, revision, err := d.store.cursor(ctx)
	if err != nil {
		return err
	}
	id := d.epochID(chunk.GetEpoch())
	if err := admitEpoch(cursor, chunk.GetEpoch(), id); err != nil {
		return err
	}
	known := cursor.GetPoint()
	begins := chunk.GetAfter() == 0
	switch {
	case begins:
	case chunk.GetEpoch() != known.GetEpoch():
		return fmt.Errorf("epoch %d begins without a full sync: %w", chunk.GetEpoch(), ErrGap)
	case chunk.GetThrough() <= known.GetRevision():
		return nil
	case chunk.GetAfter() != known.GetRevision():
		return fmt.Errorf("chunk after %d, the zone stands at %d: %w", chunk.GetAfter(), known.GetRevision(), ErrGap)
	}
	in := &intake{sink: d, chunk: chunk, cursor: proto.CloneOf(cursor), revision: revision, begins: begins}
	if begins {
		in.cursor = &zonev1.Cursor{
			Point: &linkv1.StateAckPoint{Epoch: chunk.GetEpoch()}, EpochId: cursor.GetEpochId(), Syncing: true,
		}
		if chunk.GetEpoch() != known.GetEpoch() {
			in.cursor.EpochId = nil
		}
	}
	if len(id) > 0 {
		in.cursor.EpochId = id
	}
	return in.run(ctx)
}

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
	}
	return nil
}

// look reads what is there of the objects.
func (in *intake) look(ctx context.Context, objects []*linkv1.Object) error {
	s := in.sink.store
	in.stored, in.unclaimed = map[string]proto.Message{}, map[string]bool{}
	for len(objects) > 0 {
		n := min(len(objects), s.cfg.MaxOps)
		var ops []clientv3.Op
		for _, o := range objects[:n] {
			kind, id := named(o)
			ops = append(ops, clientv3.OpGet(s.keys.of(Desired, kind, id)))
		}
		objects = objects[n:]
		resp, err := s.txn(ctx, nil, ops, nil)
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

// take writes one object, unless the zone has a newer generation of it.
func (in *intake) take(t *Tx, o *linkv1.Object) {
	s := in.sink.store
	kind, id := named(o)
	key := s.keys.of(Desired, kind, id)
	stored := in.stored[key]
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
	began, err := s.get(ctx, s.keys.of(syncing), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	var missing []*apiv1.Reference
	if len(began.Kvs) > 0 {
		if missing, err = in.unnamed(ctx, began.Kvs[0].ModRevision); err != nil {
			return err
		}
	}
	t = in.part()
	for _, r := range missing {
		if t.Room() < 4 {
			if err := in.commit(ctx, t); err != nil {
				return err
			}
			t = in.part()
		}
		t.put(s.keys.of(Unclaimed, r.GetKind(), r.GetId()), r)
	}
	if len(missing) > 0 {
		s.metrics.unclaimed.Add(float64(len(missing)))
		s.log.Warn("the control plane did not name all that the zone holds; it is kept", "count", len(missing), "first", missing[0].String())
		t.Journal(unclaimedEvent(missing))
	}
	t.del(s.keys.of(syncing))
	in.cursor.GetPoint().Revision, in.cursor.Syncing = in.chunk.GetThrough(), false
	return in.commit(ctx, t)
}

// unnamed are the desired objects last written before the sync began, and not unclaimed yet.
func (in *intake) unnamed(ctx context.Context, began int64) (out []*apiv1.Reference, err error) {
	s := in.sink.store
	resp, err := s.get(ctx, s.keys.under(Desired), clientv3.WithPrefix(), clientv3.WithMaxModRev(began-1))
	if err != nil {
		return nil, fmt.Errorf("read desired state: %w", err)
	}
	for _, kv := range resp.Kvs {
		c, ok, err := s.keys.change(kv)
		if err != nil {
			return nil, err
		}
		if ok && !in.unclaimed[s.keys.of(Unclaimed, c.Kind, c.ID)] {
			out = append(out, &apiv1.Reference{Kind: c.Kind, Id: c.ID, Name: nameOf(c.Message)})
		}
	}
	return out, nil
}

func nameOf(noun proto.Message) string {
	if n, ok := noun.(interface{ GetName() string }); ok {
		return n.GetName()
	}
	return ""
}
