package etcdstore

import (
	"context"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// hints tells in-process consumers that a space may have changed. A hint may come without a change, never a change
// without a hint; what has changed is always read by range.
type hints struct {
	mu   sync.Mutex
	subs []*hint
}

type hint struct {
	spaces []Space
	c      chan struct{}
	done   <-chan struct{}
	// pace is the least time between two hints; the first of a burst comes at once, the last is never lost.
	pace  time.Duration
	last  time.Time
	armed bool
}

// subscribe returns a channel that holds at most one hint; it is forgotten when done is closed.
func (h *hints) subscribe(done <-chan struct{}, pace time.Duration, spaces ...Space) <-chan struct{} {
	n := &hint{spaces: spaces, c: make(chan struct{}, 1), done: done, pace: pace}
	n.c <- struct{}{}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs = append(h.subs, n)
	return n.c
}

// tell hints at the spaces; none means all.
func (h *hints) tell(spaces ...Space) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs = slices.DeleteFunc(h.subs, func(n *hint) bool {
		select {
		case <-n.done:
			return true
		default:
			return false
		}
	})
	for _, n := range h.subs {
		if len(spaces) == 0 || slices.ContainsFunc(spaces, func(s Space) bool { return slices.Contains(n.spaces, s) }) {
			h.pass(n)
		}
	}
}

// pass gives a hint on, now or when its time has come. h.mu is held.
func (h *hints) pass(n *hint) {
	wait := n.pace - time.Since(n.last)
	switch {
	case n.armed:
	case wait <= 0:
		n.give()
	default:
		n.armed = true
		time.AfterFunc(wait, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			n.armed = false
			n.give()
		})
	}
}

func (n *hint) give() {
	n.last = time.Now()
	select {
	case n.c <- struct{}{}:
	default:
	}
}

// watchLoop turns etcd's watch into hints. A watch that is lost begins anew, with a hint at everything once it stands.
func (s *Store) watchLoop(ctx context.Context) {
	for ctx.Err() == nil {
		now, _ := s.witness.read()
		s.watchOnce(ctx, now.over)
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *Store) watchOnce(ctx context.Context, over <-chan struct{}) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := s.client.Watch(ctx, s.keys.prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	for {
		select {
		case <-over:
			return
		case resp, ok := <-events:
			if !ok || resp.Err() != nil {
				return
			}
			if resp.Created {
				s.hints.tell()
				continue
			}
			var spaces []Space
			for _, e := range resp.Events {
				if c, ok := s.keys.parse(string(e.Kv.Key)); ok && !slices.Contains(spaces, c.Space) {
					spaces = append(spaces, c.Space)
				}
			}
			if len(spaces) == 0 {
				continue
			}
			s.hints.tell(spaces...)
			if slices.Contains(spaces, incarnation) {
				s.beat(ctx)
			}
		}
	}
}
