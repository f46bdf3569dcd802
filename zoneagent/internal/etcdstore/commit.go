package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// commit is a transaction that waits for its outcome.
type commit struct {
	tx   *Tx
	done chan outcome
}

type outcome struct {
	revision int64
	err      error
}

func (o *Ownership) submit(ctx context.Context, t *Tx) (int64, error) {
	c := &commit{tx: t, done: make(chan outcome, 1)}
	select {
	case <-o.lost:
		return 0, fmt.Errorf("%s: %w", o.Name, ErrFenced)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case o.commits <- c:
	}
	select {
	case out := <-c.done:
		return out.revision, out.err
	case <-ctx.Done():
		return 0, errors.Join(ErrUnknown, context.Cause(ctx))
	case <-o.drained:
		select {
		case out := <-c.done:
			return out.revision, out.err
		default:
			return 0, fmt.Errorf("%s: %w", o.Name, ErrFenced)
		}
	}
}

// head is where the owner's stream stands: the next sequence, and the revision of the key that says so.
type head struct {
	origin   string
	next     uint64
	revision int64
}

// committer sends an owner's transactions one after the other. Only it writes its stream's head, so it knows by the
// head whether a transaction whose answer was lost has taken effect.
type committer struct {
	own  *Ownership
	head head
}

// commitLoop commits what is submitted until the ownership ends.
func (o *Ownership) commitLoop(ctx context.Context) {
	defer close(o.drained)
	c := &committer{own: o}
	var waiting []*commit
	for {
		if len(waiting) == 0 {
			select {
			case <-ctx.Done():
			case next := <-o.commits:
				waiting = append(waiting, next)
			}
		}
		waiting = append(waiting, o.queued()...)
		if ctx.Err() != nil {
			answer(waiting, outcome{err: fmt.Errorf("%s: %w", o.Name, ErrFenced)})
			return
		}
		n := o.together(waiting)
		retry := c.commit(ctx, waiting[:n])
		waiting = slices.Concat(retry, waiting[n:])
	}
}

// queued takes what has been submitted by now.
func (o *Ownership) queued() (all []*commit) {
	for {
		select {
		case c := <-o.commits:
			all = append(all, c)
		default:
			return all
		}
	}
}

// together is how many of the waiting, from the first on, go in one transaction of etcd.
func (o *Ownership) together(waiting []*commit) int {
	cfg := o.store.cfg
	var writes, needs, observed, bytes int
	var before []*Tx
	for i, c := range waiting {
		t := c.tx
		writes, needs = writes+len(t.writes)+len(t.entries), needs+len(t.needs)
		observed, bytes = observed+t.observed, bytes+t.bytes
		fits := max(writes, needs)+overhead <= cfg.MaxOps && observed <= maxObserved && bytes <= cfg.MaxBytes
		if i > 0 && (!fits || t.incarnation != before[0].incarnation || !t.joins(before)) {
			return i
		}
		before = append(before, t)
	}
	return len(waiting)
}

func answer(all []*commit, out outcome) {
	for _, c := range all {
		c.done <- out
	}
}

// commit commits some transactions as one and answers them. Where one of them conflicts only that one is answered, and
// the others are returned to be tried again.
func (c *committer) commit(ctx context.Context, batch []*commit) (retry []*commit) {
	s := c.own.store
	now, err := c.ready(ctx, batch[0].tx.incarnation)
	if err != nil {
		answer(batch, outcome{err: err})
		return nil
	}
	compare, then, next, err := c.compose(now, batch)
	if err != nil {
		answer(batch, outcome{err: err})
		return nil
	}
	s.metrics.merged.Observe(float64(len(batch)))
	s.metrics.operations.Observe(float64(len(then)))
	resp, repeated, err := c.send(ctx, compare, then)
	if err == nil && resp.Succeeded {
		s.metrics.commits.WithLabelValues("ok").Add(float64(len(batch)))
		c.head.next, c.head.revision = next, resp.Header.GetRevision()
		answer(batch, outcome{revision: c.head.revision})
		return nil
	}
	if err == nil {
		resp, _, err = c.send(ctx, nil, c.look(batch))
	}
	if err != nil {
		s.metrics.commits.WithLabelValues("error").Add(float64(len(batch)))
		c.head = head{}
		answer(batch, outcome{err: err})
		return nil
	}
	return c.failed(resp, repeated, next, now, batch)
}

// ready is the present life, with the head of its stream at hand. A transaction of an earlier life conflicts.
func (c *committer) ready(ctx context.Context, incarnation string) (life, error) {
	s := c.own.store
	now, err := s.life(ctx)
	if err != nil {
		return now, err
	}
	id := now.incarnation.GetId()
	if id != incarnation {
		return now, fmt.Errorf("read in incarnation %s, this is %s: %w", incarnation, id, ErrConflict)
	}
	if c.head.origin == id && c.head.next != 0 {
		return now, nil
	}
	resp, err := s.get(ctx, c.headKey(id))
	if err != nil {
		return now, fmt.Errorf("read head of stream %s: %w", c.own.stream(), err)
	}
	c.head = head{origin: id, next: 1}
	for _, kv := range resp.Kvs {
		h, _, err := s.keys.change(kv)
		if err != nil {
			c.head = head{}
			return now, err
		}
		c.head.next, c.head.revision = h.Message.(*zonev1.JournalHead).GetNext(), h.Revision
	}
	return now, nil
}

func (c *committer) headKey(origin string) string {
	return c.own.store.keys.of(journalHead, origin, c.own.stream())
}

// compose makes etcd's transaction: everything compared, everything written.
func (c *committer) compose(now life, batch []*commit) (compare []clientv3.Cmp, then []clientv3.Op, next uint64, err error) {
	keys := c.own.store.keys
	same := func(key string, revision int64) {
		compare = append(compare, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	}
	compare = append(compare, clientv3.Compare(clientv3.CreateRevision(c.own.Key), "=", c.own.CreateRevision))
	same(keys.of(incarnation), now.revision)
	same(c.headKey(c.head.origin), c.head.revision)
	journal := keys.under(journals, c.head.origin, c.own.stream())
	next = c.head.next
	for _, b := range batch {
		for _, n := range b.tx.needs {
			same(n.key, n.revision)
		}
		for _, w := range b.tx.writes {
			then = append(then, w.op())
		}
		for _, e := range b.tx.entries {
			e.Sequence = next
			next++
			value, err := proto.Marshal(e)
			if err != nil {
				return nil, nil, 0, err
			}
			then = append(then, clientv3.OpPut(journal+sequence(e.Sequence), string(value)))
		}
	}
	value, err := proto.Marshal(&zonev1.JournalHead{Next: next})
	if err != nil {
		return nil, nil, 0, err
	}
	return compare, append(then, clientv3.OpPut(c.headKey(c.head.origin), string(value))), next, nil
}

// look reads what compose compares, in the same order. A modification revision never comes back, so that it may be done
// after the comparison has failed.
func (c *committer) look(batch []*commit) (gets []clientv3.Op) {
	keys := []string{c.own.Key, c.own.store.keys.of(incarnation), c.headKey(c.head.origin)}
	for _, b := range batch {
		for _, n := range b.tx.needs {
			keys = append(keys, n.key)
		}
	}
	for _, k := range keys {
		gets = append(gets, clientv3.OpGet(k, clientv3.WithKeysOnly()))
	}
	return gets
}

// send sends the transaction until there is an answer. repeated: an earlier sending may have taken effect.
func (c *committer) send(ctx context.Context, compare []clientv3.Cmp, then []clientv3.Op) (resp *clientv3.TxnResponse, repeated bool, err error) {
	s := c.own.store
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		began := time.Now()
		resp, err := s.txn(ctx, compare, then)
		s.metrics.commitTime.Observe(time.Since(began).Seconds())
		switch {
		case err == nil:
			return resp, repeated, nil
		case errors.Is(err, ErrConflict):
			return nil, repeated, err
		case errors.Is(err, rpctypes.ErrNoSpace):
			return nil, repeated, fmt.Errorf("%w: free space below its quota, or raise it", ErrFull)
		case errors.Is(err, rpctypes.ErrTooManyOps) || errors.Is(err, rpctypes.ErrRequestTooLarge):
			return nil, repeated, fmt.Errorf("etcd refuses a transaction of %d operations; set the limits to what it takes: %w: %w", len(then), ErrTooLarge, err)
		case status.Code(err) == codes.InvalidArgument:
			return nil, repeated, fmt.Errorf("etcd refuses the transaction: %w", err)
		}
		repeated = true
		select {
		case <-ctx.Done():
			return nil, repeated, fmt.Errorf("%s: %w: %w", c.own.Name, ErrFenced, err)
		case <-time.After(wait):
		}
	}
}

// failed says why a comparison did not hold, by what was seen afterwards.
func (c *committer) failed(resp *clientv3.TxnResponse, repeated bool, next uint64, now life, batch []*commit) (retry []*commit) {
	s := c.own.store
	seen := func(i int) *mvccpb.KeyValue {
		if kvs := resp.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
			return kvs[0]
		}
		return &mvccpb.KeyValue{}
	}
	switch fence, inc, at := seen(0), seen(1), seen(2); {
	case fence.GetCreateRevision() != c.own.CreateRevision:
		s.metrics.commits.WithLabelValues("fenced").Add(float64(len(batch)))
		err := fmt.Errorf("%s: %w", c.own.Name, ErrFenced)
		c.own.lose(errors.New("another agent may own"))
		answer(batch, outcome{err: err})
		return nil
	case at.GetModRevision() != c.head.revision && repeated:
		// Only this committer writes the head, so it was this transaction.
		s.metrics.commits.WithLabelValues("ok").Add(float64(len(batch)))
		c.head.next, c.head.revision = next, at.GetModRevision()
		answer(batch, outcome{revision: at.GetModRevision()})
		return nil
	case inc.GetModRevision() != now.revision:
		s.metrics.commits.WithLabelValues("conflict").Add(float64(len(batch)))
		c.head = head{}
		answer(batch, outcome{err: fmt.Errorf("another incarnation of the store has begun: %w", ErrConflict)})
		return nil
	case at.GetModRevision() != c.head.revision:
		c.head = head{}
		return batch
	}
	i := overhead
	for _, b := range batch {
		var conflict error
		for _, n := range b.tx.needs {
			if have := seen(i).GetModRevision(); have != n.revision && conflict == nil {
				conflict = &ConflictError{Key: n.key, Want: n.revision, Have: have}
			}
			i++
		}
		if conflict == nil {
			retry = append(retry, b)
			continue
		}
		s.metrics.commits.WithLabelValues("conflict").Inc()
		b.done <- outcome{err: conflict}
	}
	return retry
}
