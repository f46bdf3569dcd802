package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// OrderSink takes in the control plane's orders: each once, in order, with the point behind it in one transaction. An
// order stays until its stream's owner consumes it.
type OrderSink struct {
	store *Store
	own   *Ownership
}

// OrderSink is the uplink owner's.
func (s *Store) OrderSink(own *Ownership) *OrderSink { return &OrderSink{store: s, own: own} }

// Points are up to where the zone has each stream of orders.
func (k *OrderSink) Points(ctx context.Context) ([]*linkv1.JournalPoint, error) {
	resp, err := k.store.get(ctx, k.store.keys.under(orderPoint), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read points of orders: %w", err)
	}
	var out []*linkv1.JournalPoint
	for _, kv := range resp.Kvs {
		c, _, err := k.store.keys.change(kv)
		if err != nil {
			return nil, err
		}
		out = append(out, c.Message.(*linkv1.JournalPoint))
	}
	return out, nil
}

// point is one stream's, and the revision of its key.
func (k *OrderSink) point(ctx context.Context, origin, stream string) (*linkv1.JournalPoint, int64, error) {
	p := &linkv1.JournalPoint{Origin: origin, Stream: stream}
	if err := checkPoint(p); err != nil {
		return nil, 0, err
	}
	c, err := k.store.Get(ctx, orderPoint, "", origin+"/"+stream)
	if errors.Is(err, ErrNotFound) {
		return p, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return c.Message.(*linkv1.JournalPoint), c.Revision, nil
}

// Commit takes a batch in and returns what to acknowledge. Entries that are there already are passed over; an entry
// that is no order is recorded as rejected. ErrGap when the batch does not follow on what is there.
func (k *OrderSink) Commit(ctx context.Context, b *linkv1.JournalBatch) (*linkv1.JournalAck, error) {
	p, revision, err := k.point(ctx, b.GetOrigin(), b.GetStream())
	if err != nil {
		return nil, err
	}
	in := &orderIntake{sink: k, point: p, revision: revision, ack: &linkv1.JournalAck{Points: []*linkv1.JournalPoint{p}}}
	t := in.part()
	for _, e := range b.GetEntries() {
		if e.GetSequence() <= p.GetSequence() {
			continue
		}
		if e.GetSequence() != p.GetSequence()+1 {
			return nil, fmt.Errorf("order %d of stream %s follows on %d: %w", e.GetSequence(), b.GetStream(), p.GetSequence(), ErrGap)
		}
		if t.Room() < 3 {
			if err := in.commit(ctx, t); err != nil {
				return nil, err
			}
			t = in.part()
		}
		in.take(t, e)
	}
	return in.ack, in.commit(ctx, t)
}

// Withheld takes note that a broker let an entry not through: it is passed over, and recorded as rejected.
func (k *OrderSink) Withheld(ctx context.Context, w *linkv1.Withheld) (*linkv1.JournalAck, error) {
	e := w.GetEntry()
	p, revision, err := k.point(ctx, e.GetOrigin(), e.GetStream())
	if err != nil {
		return nil, err
	}
	in := &orderIntake{sink: k, point: p, revision: revision, ack: &linkv1.JournalAck{Points: []*linkv1.JournalPoint{p}}}
	switch {
	case e.GetSequence() <= p.GetSequence():
		return in.ack, nil
	case e.GetSequence() != p.GetSequence()+1:
		return nil, fmt.Errorf("withheld order %d of stream %s follows on %d: %w", e.GetSequence(), e.GetStream(), p.GetSequence(), ErrGap)
	}
	t := in.part()
	in.reject(t, e.GetSequence(), "withheld by a broker: "+w.GetReason())
	return in.ack, in.commit(ctx, t)
}

// orderIntake is a batch on its way in.
type orderIntake struct {
	sink     *OrderSink
	point    *linkv1.JournalPoint
	revision int64
	ack      *linkv1.JournalAck
}

func (in *orderIntake) part() *Tx {
	t := in.sink.store.Begin(in.sink.own)
	t.Require(orderPoint, "", in.point.GetOrigin()+"/"+in.point.GetStream(), in.revision)
	return t
}

func (in *orderIntake) commit(ctx context.Context, t *Tx) (err error) {
	if len(t.writes) == 0 {
		return nil
	}
	t.put(t.keys().of(orderPoint, in.point.GetOrigin(), in.point.GetStream()), in.point)
	if in.revision, err = t.Commit(ctx); err != nil {
		return fmt.Errorf("commit orders: %w", err)
	}
	return nil
}

func (in *orderIntake) take(t *Tx, e *linkv1.JournalEntry) {
	o := e.GetOrder()
	if o == nil || o.GetOperationId() == "" || o.GetVmId() == "" {
		in.reject(t, e.GetSequence(), "not an order that this zone knows")
		return
	}
	in.point.Sequence = e.GetSequence()
	t.put(t.keys().of(Order, in.point.GetOrigin(), in.point.GetStream(), sequence(e.GetSequence())), e)
}

func (in *orderIntake) reject(t *Tx, n uint64, reason string) {
	in.point.Sequence = n
	r := &linkv1.Rejected{
		Entry:  &linkv1.JournalPoint{Origin: in.point.GetOrigin(), Stream: in.point.GetStream(), Sequence: n},
		Reason: reason,
	}
	in.ack.Rejected = append(in.ack.Rejected, r)
	in.sink.store.metrics.refused.WithLabelValues("order").Inc()
	in.sink.store.log.Error("an order is not taken", "stream", in.point.GetStream(), "sequence", n, "reason", reason)
	t.reject(r)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
