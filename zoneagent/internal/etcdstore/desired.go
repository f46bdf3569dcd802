package etcdstore

import (
	"bytes"
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// DesiredSink takes in what the control plane wants. Objects and the cursor behind them are one transaction; a chunk
// that is larger than one is committed in parts, the cursor after each as far as all before it is there. What is there
// already it finds in the agent's Picture, with what it has written itself since, as long as nobody else has moved the
// cursor: then a chunk costs one request to etcd. It is one session's, and one goroutine gives it chunks.
type DesiredSink struct {
	store *Store
	own   *Ownership
	// at is where this sink's last commit left the zone, outside a full sync; revision 0: it is to be read.
	at standing
	// incarnation in which at and what follows count.
	incarnation string
	// Of what was written up to base the picture has to tell. written is what this sink has written since then, until the
	// picture shows it.
	base    int64
	written map[nounKey]wish
}

// wish is a desired object, nil where there is none, as of a revision; it is not unclaimed.
type wish struct {
	noun     proto.Message
	revision int64
}

// DesiredSink is the uplink owner's.
func (s *Store) DesiredSink(own *Ownership) *DesiredSink {
	return &DesiredSink{store: s, own: own, written: map[nounKey]wish{}}
}

// Cursor is where the zone stands in the control plane's state; a blank one before the first session.
func (s *Store) Cursor(ctx context.Context) (*zonev1.Cursor, error) {
	st, err := s.standing(ctx)
	if err != nil {
		return nil, err
	}
	return st.cursor, nil
}

// standing is the cursor, the revision of its key, and the revision at which the full sync under way began: 0 outside
// one.
type standing struct {
	cursor   *zonev1.Cursor
	revision int64
	began    int64
}

func (s *Store) standing(ctx context.Context) (st standing, err error) {
	st.cursor = &zonev1.Cursor{Point: &linkv1.StateAckPoint{}}
	resp, err := s.txn(ctx, nil, []clientv3.Op{
		clientv3.OpGet(s.keys.of(Cursor)), clientv3.OpGet(s.keys.of(syncing), clientv3.WithKeysOnly()),
	})
	if err != nil {
		return st, fmt.Errorf("read cursor: %w", err)
	}
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		c, _, err := s.keys.change(kv)
		if err != nil {
			return st, err
		}
		st.cursor, st.revision = c.Message.(*zonev1.Cursor), c.Revision
	}
	for _, kv := range resp.Responses[1].GetResponseRange().GetKvs() {
		st.began = kv.ModRevision
	}
	return st, nil
}

// Point is up to where the zone has the control plane's state; a full sync that has not ended counts for nothing.
func (d *DesiredSink) Point(ctx context.Context) (*linkv1.StateAckPoint, error) {
	c, err := d.store.Cursor(ctx)
	if err != nil {
		return nil, err
	}
	if c.GetSyncing() {
		return &linkv1.StateAckPoint{Epoch: c.GetPoint().GetEpoch()}, nil
	}
	return c.GetPoint(), nil
}

// BeginEpoch writes down the epoch with which the control plane has opened a session, before anything of it is taken
// in: ErrOldEpoch for a lower one than known, ErrQuarantine for a known one with another id. A new one asks for a full
// sync.
func (d *DesiredSink) BeginEpoch(ctx context.Context, epoch uint64, id []byte) error {
	st, err := d.store.standing(ctx)
	if err != nil {
		return err
	}
	known := st.cursor.GetPoint().GetEpoch()
	switch {
	case epoch < known:
		return fmt.Errorf("epoch %d, known is %d: %w", epoch, known, ErrOldEpoch)
	case epoch == known && bytes.Equal(id, st.cursor.GetEpochId()):
		return nil
	case epoch == known && len(st.cursor.GetEpochId()) > 0:
		return fmt.Errorf("epoch %d with id %x, known with %x: %w", epoch, id, st.cursor.GetEpochId(), ErrQuarantine)
	}
	d.at = standing{}
	t := d.store.Begin(d.own)
	t.Require(Cursor, "", "", st.revision)
	t.put(t.keys().of(Cursor), &zonev1.Cursor{
		Point: &linkv1.StateAckPoint{Epoch: epoch}, EpochId: id, Syncing: true, Behind: st.cursor.GetBehind(),
	})
	t.del(t.keys().of(syncing))
	if _, err := t.Commit(ctx); err != nil {
		return fmt.Errorf("write down epoch %d: %w", epoch, err)
	}
	return nil
}

// Commit takes a chunk in. ErrGap: it does not follow on the cursor. ErrOldEpoch, ErrFenced: as they say. A chunk that
// is there already is no error. An object of an older generation than the zone's own is not taken. After the last chunk
// of a full sync, objects that it did not name are unclaimed, and stay.
func (d *DesiredSink) Commit(ctx context.Context, chunk *linkv1.StateChunk) (err error) {
	st, err := d.standing(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			d.at = standing{}
		}
	}()
	known := st.cursor.GetPoint()
	in := &intake{sink: d, chunk: chunk, cursor: st.cursor, revision: st.revision}
	switch {
	case chunk.GetEpoch() < known.GetEpoch():
		return fmt.Errorf("chunk of epoch %d, known is %d: %w", chunk.GetEpoch(), known.GetEpoch(), ErrOldEpoch)
	case chunk.GetEpoch() > known.GetEpoch() && chunk.GetAfter() != 0:
		return fmt.Errorf("epoch %d begins without a full sync: %w", chunk.GetEpoch(), ErrGap)
	case chunk.GetEpoch() > known.GetEpoch():
		in.begin(chunk.GetEpoch(), nil)
	case chunk.GetAfter() == 0 && st.began != 0 && known.GetRevision() == 0:
		// The first revision of the sync under way came in more than one chunk.
	case chunk.GetAfter() == 0:
		in.begin(chunk.GetEpoch(), st.cursor.GetEpochId())
	case chunk.GetAfter() == known.GetRevision():
	case chunk.GetThrough() <= known.GetRevision():
		return nil
	default:
		return fmt.Errorf("chunk after %d, the zone stands at %d: %w", chunk.GetAfter(), known.GetRevision(), ErrGap)
	}
	return in.run(ctx)
}

// standing is where the zone stands, as far as this sink knows.
func (d *DesiredSink) standing(ctx context.Context) (standing, error) {
	if now, doubt := d.store.witness.read(); d.at.revision != 0 && doubt == "" && now.incarnation.GetId() == d.incarnation {
		return standing{cursor: proto.CloneOf(d.at.cursor), revision: d.at.revision}, nil
	}
	st, err := d.store.standing(ctx)
	now, _ := d.store.witness.read()
	d.rebase(st.revision, now.incarnation.GetId())
	return st, err
}

// rebase says that everything up to a revision is the picture's to tell.
func (d *DesiredSink) rebase(revision int64, incarnation string) {
	d.at, d.base, d.incarnation = standing{}, revision, incarnation
	clear(d.written)
}
