package etcdstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// life is one incarnation as this agent sees it.
type life struct {
	incarnation *zonev1.Incarnation
	// revision is the modification revision of the incarnation's key; every fenced transaction compares it.
	revision int64
	// over is closed when another life begins.
	over chan struct{}
}

// witness watches that revisions only grow. A linearizable request that is sent after a response with revision R was
// received must answer with R or more; anything else is another life of the store.
type witness struct {
	mu      sync.Mutex
	now     life
	cluster uint64
	// floor is the highest revision seen in this life; round counts lives, so that what was asked in an earlier one is
	// not judged in a later one.
	floor int64
	round int
	// doubt is why the life must be settled again before it is used; empty while all is well.
	doubt string
}

type mark struct {
	floor int64
	round int
}

func (w *witness) mark() mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return mark{floor: w.floor, round: w.round}
}

// judge takes note of a response to a request that was sent at m, and tells whether it can be believed.
func (w *witness) judge(m mark, h *etcdserverpb.ResponseHeader) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.round != w.round {
		return fmt.Errorf("asked of an earlier incarnation of the store: %w", ErrConflict)
	}
	switch {
	case h.GetClusterId() != w.cluster:
		w.doubt = fmt.Sprintf("etcd cluster %x answers in place of %x", h.GetClusterId(), w.cluster)
	case h.GetRevision() < m.floor:
		w.doubt = fmt.Sprintf("the store went back from revision %d to %d", m.floor, h.GetRevision())
	}
	if w.doubt != "" {
		return fmt.Errorf("%s: %w", w.doubt, ErrConflict)
	}
	w.floor = max(w.floor, h.GetRevision())
	return nil
}

// begin makes l the life that counts from now on.
func (w *witness) begin(l life, h *etcdserverpb.ResponseHeader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.now
	w.doubt, w.cluster = "", h.GetClusterId()
	if old.incarnation.GetId() == l.incarnation.GetId() && old.revision == l.revision {
		w.floor = max(w.floor, h.GetRevision())
		return
	}
	w.now, w.floor = l, h.GetRevision()
	w.now.over = make(chan struct{})
	w.round++
	if old.over != nil {
		close(old.over)
	}
}

func (w *witness) read() (now life, doubt string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now, w.doubt
}

// anchor is what is to be kept on disk of what was seen.
func (w *witness) anchor() *zonev1.Anchor {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &zonev1.Anchor{Incarnation: w.now.incarnation.GetId(), Revision: uint64(w.floor)}
}

// Incarnation is the store's present life, and a channel that is closed when another one begins: whoever holds numbers
// of this one starts over then.
func (s *Store) Incarnation() (*zonev1.Incarnation, <-chan struct{}) {
	now, _ := s.witness.read()
	return proto.CloneOf(now.incarnation), now.over
}

// Revision is the highest revision seen in the present incarnation: the store's own right after a read, as of Cursor.
func (s *Store) Revision() uint64 { return s.witness.anchor().GetRevision() }

// Renew mints a new incarnation: for when the control plane has seen more of this one than the store holds.
func (s *Store) Renew(ctx context.Context, reason string) error {
	return s.settle(ctx, reason)
}

// life is the present one, settled first where there is doubt.
func (s *Store) life(ctx context.Context) (life, error) {
	now, doubt := s.witness.read()
	if doubt == "" {
		return now, nil
	}
	if err := s.settle(ctx, doubt); err != nil {
		return life{}, err
	}
	now, _ = s.witness.read()
	return now, nil
}

// settle finds out in which life the store is, and mints a new one where the anchor does not fit or doubt is given.
func (s *Store) settle(ctx context.Context, doubt string) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	anchor := s.anchored()
	for {
		seen, err := s.sight(ctx, anchor)
		if err != nil {
			return fmt.Errorf("look for the store's incarnation: %w", err)
		}
		why := seen.why(anchor, doubt)
		if why == "" {
			s.begin(life{incarnation: seen.incarnation, revision: seen.revision}, seen.header)
			return nil
		}
		fresh := &zonev1.Incarnation{Id: uuid.NewString(), MintedAt: timestamppb.Now(), Reason: why}
		resp, err := s.mint(ctx, seen, fresh)
		if err != nil {
			return fmt.Errorf("mint incarnation: %w", err)
		}
		if resp.Succeeded {
			s.metrics.incarnations.Inc()
			s.log.Warn("a new incarnation of the zone's store begins", "incarnation", fresh.GetId(), "reason", why)
			s.begin(life{incarnation: fresh, revision: resp.Header.GetRevision()}, resp.Header)
			return nil
		}
		// Another agent was first: look again.
	}
}

// anchored is what this agent has seen of the store before: in this process, else as its disk tells.
func (s *Store) anchored() *zonev1.Anchor {
	if a := s.witness.anchor(); a.GetIncarnation() != "" {
		return a
	}
	return s.folder.anchor()
}

func (s *Store) begin(l life, h *etcdserverpb.ResponseHeader) {
	s.witness.begin(l, h)
	s.writeAnchor()
}

// sighting is what the store says of itself.
type sighting struct {
	header      *etcdserverpb.ResponseHeader
	incarnation *zonev1.Incarnation
	revision    int64
	// known: the store has been through the anchor's incarnation.
	known          bool
	cursor         *zonev1.Cursor
	cursorRevision int64
}

func (s *Store) sight(ctx context.Context, anchor *zonev1.Anchor) (*sighting, error) {
	resp, err := s.rawTxn(ctx, nil, []clientv3.Op{
		clientv3.OpGet(s.keys.of(incarnation)),
		clientv3.OpGet(s.keys.of(incarnations, anchor.GetIncarnation())),
		clientv3.OpGet(s.keys.of(Cursor)),
	})
	if err != nil {
		return nil, err
	}
	seen := &sighting{header: resp.Header, known: len(resp.Responses[1].GetResponseRange().GetKvs()) > 0}
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		c, _, err := s.keys.change(kv)
		if err != nil {
			return nil, err
		}
		seen.incarnation, seen.revision = c.Message.(*zonev1.Incarnation), c.Revision
	}
	for _, kv := range resp.Responses[2].GetResponseRange().GetKvs() {
		c, _, err := s.keys.change(kv)
		if err != nil {
			return nil, err
		}
		seen.cursor, seen.cursorRevision = c.Message.(*zonev1.Cursor), c.Revision
	}
	return seen, nil
}

// why is the reason for which a new incarnation must begin; empty where the store's own goes on.
func (g *sighting) why(anchor *zonev1.Anchor, doubt string) string {
	switch {
	case g.incarnation == nil && anchor == nil:
		return "the store is new"
	case g.incarnation == nil:
		return fmt.Sprintf("the store was replaced: incarnation %s was known here", anchor.GetIncarnation())
	case anchor == nil:
		return ""
	case g.incarnation.GetId() == anchor.GetIncarnation() && doubt != "":
		return doubt
	case g.incarnation.GetId() == anchor.GetIncarnation() && uint64(g.header.GetRevision()) < anchor.GetRevision():
		return fmt.Sprintf("the store went back from revision %d to %d", anchor.GetRevision(), g.header.GetRevision())
	case g.incarnation.GetId() != anchor.GetIncarnation() && !g.known:
		return fmt.Sprintf("the store knows nothing of incarnation %s, which was seen here", anchor.GetIncarnation())
	}
	return ""
}

// mint begins a new life, and with it a full sync of what is desired; until that has ended the zone is behind. Orders that
// were not taken up are forgotten: whether they were, after what the store remembers, nobody knows.
func (s *Store) mint(ctx context.Context, seen *sighting, fresh *zonev1.Incarnation) (*clientv3.TxnResponse, error) {
	value, err := proto.Marshal(fresh)
	if err != nil {
		return nil, err
	}
	compare := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(s.keys.of(incarnation)), "=", seen.revision),
		clientv3.Compare(clientv3.ModRevision(s.keys.of(Cursor)), "=", seen.cursorRevision),
	}
	ops := []clientv3.Op{
		clientv3.OpPut(s.keys.of(incarnation), string(value)),
		clientv3.OpPut(s.keys.of(incarnations, fresh.GetId()), string(value)),
		clientv3.OpDelete(s.keys.under(Order), clientv3.WithPrefix()),
	}
	if c := seen.cursor; c != nil {
		ops = append(ops, clientv3.OpDelete(s.keys.of(syncing)))
		c.Point = &linkv1.StateAckPoint{Epoch: c.GetPoint().GetEpoch()}
		c.Syncing, c.Behind = true, true
		value, err := proto.Marshal(c)
		if err != nil {
			return nil, err
		}
		ops = append(ops, clientv3.OpPut(s.keys.of(Cursor), string(value)))
	}
	return s.rawTxn(ctx, compare, ops)
}

// writeAnchor keeps on disk what was seen, when there is something new.
func (s *Store) writeAnchor() {
	s.anchoring.Lock()
	defer s.anchoring.Unlock()
	a := s.witness.anchor()
	if a.GetIncarnation() == "" || proto.Equal(a, s.written) {
		return
	}
	if err := s.folder.setAnchor(a); err != nil {
		s.log.Error("the anchor of the zone's store cannot be written", "error", err)
		return
	}
	s.written = a
}

// anchorLoop writes the anchor on a bounded schedule.
func (s *Store) anchorLoop(ctx context.Context) {
	every(ctx, s.cfg.AnchorEvery, func() { s.writeAnchor() })
}

// every calls f each d until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f()
		}
	}
}
