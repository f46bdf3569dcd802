package etcdstore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxQueued is how many changes may wait for a follower; one that is slower starts over with what there is then.
const maxQueued = 1 << 16

var (
	errWatchEnded = errors.New("the watch has ended")
	errTooSlow    = errors.New("too many changes wait for their follower")
)

// feed is the agent's one watch of the zone's keys. What it tells is decoded once, for all who follow, and nobody changes
// it. A watch that is lost begins anew, and whoever followed starts over.
type feed struct {
	mu sync.Mutex
	// stands: every change after now comes to the subscriptions. turned is closed when that turns.
	stands bool
	turned chan struct{}
	subs   map[*subscription]bool
}

func newFeed() *feed { return &feed{turned: make(chan struct{}), subs: map[*subscription]bool{}} }

// subscription queues the changes of some spaces for one follower.
type subscription struct {
	spaces []Space
	ready  chan struct{}
	// Under the feed's mu: what waits, the revision up to which that is all, and why nothing follows on it.
	queue []Change
	at    int64
	end   error
}

// subscribe waits until a watch stands. What is read from the store after it has returned, and what the subscription
// brings, leave no gap between them.
func (f *feed) subscribe(ctx context.Context, spaces []Space) (*subscription, error) {
	for {
		f.mu.Lock()
		if f.stands {
			s := &subscription{spaces: spaces, ready: make(chan struct{}, 1)}
			f.subs[s] = true
			f.mu.Unlock()
			return s, nil
		}
		turned := f.turned
		f.mu.Unlock()
		select {
		case <-turned:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (f *feed) leave(s *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subs, s)
}

// take is all that waits. The error, which comes alone, ends the subscription.
func (f *feed) take(s *subscription) (changes []Change, at int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if changes, s.queue = s.queue, nil; len(changes) > 0 {
		return changes, s.at, nil
	}
	return nil, s.at, s.end
}

// turn says whether a watch stands. One that does no longer ends all subscriptions.
func (f *feed) turn(stands bool, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stands = stands
	close(f.turned)
	f.turned = make(chan struct{})
	for s := range f.subs {
		f.stop(s, why)
	}
}

// stop ends a subscription once what waits is taken. f.mu is held.
func (f *feed) stop(s *subscription, why error) {
	s.end = why
	delete(f.subs, s)
	s.signal()
}

func (s *subscription) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// deliver gives the events of whole revisions to those who follow their spaces, and returns the spaces.
func (f *feed) deliver(keys keyspace, events []*clientv3.Event) (spaces []Space) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		c, ok := keys.parse(string(e.Kv.Key))
		if !ok {
			continue
		}
		if !slices.Contains(spaces, c.Space) {
			spaces = append(spaces, c.Space)
		}
		c.Revision = e.Kv.ModRevision
		var broken error
		decoded := e.Type == clientv3.EventTypeDelete
		for s := range f.subs {
			if !slices.Contains(s.spaces, c.Space) {
				continue
			}
			if !decoded {
				c.Message, broken = decode(c.Space, c.Kind, string(e.Kv.Key), e.Kv.Value)
				decoded = true
			}
			switch {
			case broken != nil:
				s.queue = nil // half a picture
				f.stop(s, broken)
			case len(s.queue) == maxQueued:
				s.queue = nil
				f.stop(s, errTooSlow)
			default:
				s.queue = append(s.queue, c)
			}
		}
	}
	at := events[len(events)-1].Kv.ModRevision
	for s := range f.subs {
		if s.at = at; len(s.queue) > 0 {
			s.signal()
		}
	}
	return spaces
}

// watchLoop feeds those who follow, and turns what comes into hints.
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
	stands := false
	defer func() {
		if stands {
			s.feed.turn(false, errWatchEnded)
		}
	}()
	for {
		select {
		case <-over:
			return
		case resp, ok := <-events:
			switch {
			case !ok || resp.Err() != nil:
				return
			case resp.Created:
				stands = true
				s.feed.turn(true, nil)
				// Once the watch stands: what was missed is looked for.
				s.hints.tell()
			case len(resp.Events) > 0:
				spaces := s.feed.deliver(s.keys, resp.Events)
				if len(spaces) > 0 {
					s.hints.tell(spaces...)
				}
				if slices.Contains(spaces, incarnation) {
					s.beat(ctx)
				}
			}
		}
	}
}
