package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// page is how many keys one read brings.
const page = 1000

// Batch is what Follow tells at once. Others are told the same messages: nobody changes them.
type Batch struct {
	// Reset: Changes are all there is; what was told before counts no more.
	Reset bool
	// Changes in the order of their revisions. Those of one revision are never told in different batches.
	Changes []Change
	// Revision up to which everything has been told.
	Revision int64
	// Incarnation in which the revisions count.
	Incarnation string
}

// Follow tells fn everything in the spaces (all that are followed when none is named), and then every change, until
// ctx ends or fn returns an error; what comes while fn is busy is told together. When the watch is lost, or fn is too slow
// for it, or another incarnation begins, it starts over with Reset. A value that does not decode ends it with a DecodeError:
// nobody acts on half a picture.
func (s *Store) Follow(ctx context.Context, fn func(Batch) error, spaces ...Space) error {
	if len(spaces) == 0 {
		spaces = followed
	}
	f := &follower{store: s, fn: fn, spaces: spaces}
	for {
		err := f.round(ctx)
		var stop *stopError
		var broken *DecodeError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &stop):
			return stop.err
		case errors.As(err, &broken):
			return err
		}
		s.log.Debug("following the store begins anew", "reason", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stopError is the follower's own.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

type follower struct {
	store  *Store
	fn     func(Batch) error
	spaces []Space
}

// round tells a snapshot and what follows on it, until the feed is lost.
func (f *follower) round(ctx context.Context) error {
	feed := f.store.feed
	news, err := feed.subscribe(ctx, f.spaces)
	if err != nil {
		return err
	}
	defer feed.leave(news)
	now, err := f.store.life(ctx)
	if err != nil {
		return err
	}
	all, revision, err := f.store.snapshot(ctx, f.spaces)
	if err != nil {
		return err
	}
	select {
	case <-now.over:
		return errors.New("another incarnation has begun")
	default:
	}
	b := Batch{Reset: true, Changes: all, Revision: revision, Incarnation: now.incarnation.GetId()}
	for {
		if err := f.fn(b); err != nil {
			return &stopError{err: err}
		}
		if b, err = f.next(ctx, now, news, b.Revision); err != nil {
			return err
		}
	}
}

// next waits for what follows on a revision, and takes all of it.
func (f *follower) next(ctx context.Context, now life, news *subscription, after int64) (Batch, error) {
	for {
		select {
		case <-ctx.Done():
			return Batch{}, context.Cause(ctx)
		case <-now.over:
			return Batch{}, errors.New("another incarnation has begun")
		case <-news.ready:
		}
		changes, at, err := f.store.feed.take(news)
		if err != nil {
			return Batch{}, err
		}
		known := 0
		for known < len(changes) && changes[known].Revision <= after {
			known++
		}
		if changes = changes[known:]; len(changes) > 0 {
			return Batch{Changes: changes, Revision: at, Incarnation: now.incarnation.GetId()}, nil
		}
	}
}

// Snapshot is everything in the spaces as of one revision.
func (s *Store) Snapshot(ctx context.Context, spaces ...Space) (Batch, error) {
	now, err := s.life(ctx)
	if err != nil {
		return Batch{}, err
	}
	all, revision, err := s.snapshot(ctx, spaces)
	return Batch{Reset: true, Changes: all, Revision: revision, Incarnation: now.incarnation.GetId()}, err
}

func (s *Store) snapshot(ctx context.Context, spaces []Space) (all []Change, revision int64, err error) {
	for _, space := range spaces {
		if revision, err = s.page(ctx, space, revision, func(c Change) { all = append(all, c) }); err != nil {
			return nil, 0, err
		}
	}
	return all, revision, nil
}

// page reads a space page by page as of a revision, or as of now where that is 0, and returns the revision.
func (s *Store) page(ctx context.Context, space Space, revision int64, each func(Change)) (int64, error) {
	from, end := s.keys.of(space), clientv3.GetPrefixRangeEnd(s.keys.under(space))
	for {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision)}
		resp, err := s.get(ctx, from, opts...)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", space, err)
		}
		if revision == 0 {
			revision = resp.Header.GetRevision()
		}
		for _, kv := range resp.Kvs {
			c, ok, err := s.keys.change(kv)
			if err != nil {
				return 0, err
			}
			if ok {
				each(c)
			}
		}
		if !resp.More {
			return revision, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
