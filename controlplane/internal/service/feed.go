package service

import (
	"context"
	"errors"
	"sort"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const (
	// feedLength is how many changes a feed keeps; who is further behind reads the state itself.
	feedLength = 4096
	// feedChunk is how many changes are read or handed out at once.
	feedChunk = 256
	// feedPause is how often a feed looks at the revision while nothing changes, so that bookmarks move on.
	feedPause = 10 * time.Second
)

// entry is one change, made ready once for all who watch: read, decoded, stripped of internal fields, and wrapped in the
// message that is sent. Whoever gets one must not change it.
type entry[M state.Noun] struct {
	revision uint64
	deleted  bool
	noun     M
	at       place
	message  proto.Message
}

// feed follows one table and keeps its newest changes in memory, so that a change costs one read however many watch.
// Safe for concurrent use.
type feed[M state.Noun] struct {
	reader Reader
	topic  string
	table  func(*state.Tx) state.Table[M]
	where  func(M) place
	wrap   func(apiv1.WatchType_Value, string, M) proto.Message

	mu      sync.Mutex
	epoch   uint64
	from    uint64 // ring holds every change after this revision …
	through uint64 // … up to this one
	ring    []entry[M]
	wake    chan struct{} // closed at the next change
}

func newFeed[M state.Noun](r Reader, topic string, table func(*state.Tx) state.Table[M], where func(M) place, wrap func(apiv1.WatchType_Value, string, M) proto.Message) *feed[M] {
	return &feed[M]{reader: r, topic: topic, table: table, where: where, wrap: wrap, wake: make(chan struct{})}
}

// run follows the table until ctx ends.
func (f *feed[M]) run(ctx context.Context) {
	w := f.reader.Watch(f.topic)
	defer w.Close()
	tick := time.NewTicker(feedPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-w.C():
			if !open {
				return
			}
		case <-tick.C:
		}
		// A read that fails is made again at the next change or tick; meanwhile watchers wait.
		for more := true; more; {
			more, _ = f.advance(ctx)
		}
	}
}

// advance reads what changed since the last time, and reports whether there may be more.
func (f *feed[M]) advance(ctx context.Context) (more bool, err error) {
	err = f.reader.View(ctx, func(tx *state.Tx) error {
		meta := tx.Meta()
		more = false
		f.mu.Lock()
		known, epoch, through := f.epoch != 0, f.epoch, f.through
		f.mu.Unlock()
		if !known || epoch != meta.Epoch || through > meta.Revision {
			f.restart(meta)
			return nil
		}
		changes, err := f.table(tx).Since(through, feedChunk)
		if errors.Is(err, state.ErrCompacted) {
			f.restart(meta)
			return nil
		}
		if err != nil {
			return err
		}
		reached := meta.Revision
		if more = len(changes) >= feedChunk; more {
			reached = changes[len(changes)-1].Revision
		}
		f.publish(f.entries(meta.Epoch, changes), reached)
		return nil
	})
	return more && err == nil, err
}

// entries makes changes ready to be sent.
func (f *feed[M]) entries(epoch uint64, changes []state.Change[M]) []entry[M] {
	out := make([]entry[M], len(changes))
	for i, c := range changes {
		schema.Strip(c.Noun)
		kind := apiv1.WatchType_PUT
		if c.Deleted {
			kind = apiv1.WatchType_DELETE
		}
		out[i] = entry[M]{
			revision: c.Revision, deleted: c.Deleted, noun: c.Noun, at: f.where(c.Noun),
			message: f.wrap(kind, state.RevisionText(epoch, c.Revision), c.Noun),
		}
	}
	return out
}

// restart forgets everything: what is known is of another life of the state, or there is a gap.
func (f *feed[M]) restart(meta state.Meta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch, f.from, f.through, f.ring = meta.Epoch, meta.Revision, meta.Revision, nil
	f.broadcast()
}

func (f *feed[M]) publish(entries []entry[M], through uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.through = through
	if len(entries) == 0 {
		return
	}
	if f.ring = append(f.ring, entries...); len(f.ring) > feedLength {
		drop := len(f.ring) - feedLength*3/4
		for drop < len(f.ring) && f.ring[drop].revision == f.ring[drop-1].revision {
			drop++ // a revision is not cut in two
		}
		f.from = f.ring[drop-1].revision
		f.ring = append(make([]entry[M], 0, feedLength), f.ring[drop:]...) // readers may hold the old one
	}
	f.broadcast()
}

func (f *feed[M]) broadcast() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// glance is what a watcher sees of a feed.
type glance[M state.Noun] struct {
	epoch   uint64
	entries []entry[M] // in ascending revision
	through uint64     // where the watcher stands once it has sent them
	kept    bool       // whether the feed still has everything after where the watcher stands
	wake    <-chan struct{}
}

// after returns the next changes after a revision.
func (f *feed[M]) after(revision uint64) glance[M] {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := glance[M]{epoch: f.epoch, through: max(f.through, revision), kept: f.epoch != 0 && revision >= f.from, wake: f.wake}
	if !g.kept {
		return g
	}
	begin := sort.Search(len(f.ring), func(i int) bool { return f.ring[i].revision > revision })
	end := min(begin+feedChunk, len(f.ring))
	for end > begin && end < len(f.ring) && f.ring[end].revision == f.ring[end-1].revision {
		end++
	}
	if g.entries = f.ring[begin:end:end]; end < len(f.ring) {
		g.through = f.ring[end-1].revision
	}
	return g
}
