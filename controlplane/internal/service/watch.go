package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// bookmarkTime is how often a watch hears that it still lives.
const bookmarkTime = 15 * time.Second

// Run keeps watches fed until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var feeds sync.WaitGroup
	for _, run := range s.feeds {
		feeds.Go(func() { run(ctx) })
	}
	feeds.Go(func() { s.followRights(ctx) })
	feeds.Wait()
	return ctx.Err()
}

// watchRequest is what all requests for watches have.
type watchRequest interface {
	GetAfter() string
	GetFilter() string
}

// watcher is one watch under way.
type watcher[M state.Noun] struct {
	noun   noun[M]
	stream grpc.ServerStream
	scope  state.Scope
	at     place
	// bounds are what of the table is in the caller's reach; nil leaves nothing out.
	bounds *[]state.Bound
	filter string
	match  func(M) bool
	epoch  uint64
	stands uint64 // everything up to this revision has been sent
	// known are the ids that the watch's reader may hold because they matched the filter; nil where there is none.
	known map[string]struct{}
	// settled is the revision from which on known is exact. Before, what does not match is told as deleted, whether or not
	// the reader ever had it: it may have, before it came back.
	settled uint64
}

// watch tells what changes: a bookmark at once, then each change in the order of revisions, and a bookmark every 15 s. A
// noun that no longer matches the filter is told as deleted. Without a revision to start after, it first tells all that is
// there, as puts at revision 0, so that a reader who is cut off meanwhile begins again; the bookmark behind them has the
// revision from which to go on.
func (n noun[M]) watch(r watchRequest, at place, stream grpc.ServerStream) error {
	ctx := stream.Context()
	after := callOf(ctx).LastEventID
	if after == "" {
		after = r.GetAfter()
	}
	w := &watcher[M]{noun: n, stream: stream, filter: r.GetFilter()}
	if w.filter != "" {
		w.known = map[string]struct{}{}
	}
	if err := w.begin(ctx, after, at); err != nil {
		return err
	}
	return w.follow(ctx)
}

// begin finds out where the watch stands, sends the first bookmark, and what is there where the reader has nothing yet.
func (w *watcher[M]) begin(ctx context.Context, after string, at place) error {
	var now uint64
	err := w.noun.read(ctx, func(tx *state.Tx) (err error) {
		meta := tx.Meta()
		w.epoch, now, w.stands = meta.Epoch, meta.Revision, 0
		if after != "" {
			if w.stands, err = standsAt(meta, after); err != nil {
				return err
			}
		}
		if w.scope, err = w.noun.scope(ctx, tx, at); err != nil {
			return err
		}
		if w.bounds, err = w.noun.boundsNow(ctx, tx); err != nil {
			return err
		}
		without, err := w.noun.withheld(ctx, w.scope)
		if err != nil {
			return err
		}
		w.match, err = w.noun.table(tx).Without(without...).Matcher(w.filter)
		return err
	})
	if err != nil {
		return err
	}
	w.at = place{project: w.scope[w.noun.project], zone: w.scope[w.noun.zone], cluster: w.scope[w.noun.cluster]}
	if err := w.bookmark(); err != nil {
		return err
	}
	everything := w.stands == 0
	if everything || w.known != nil {
		if err := w.list(ctx, everything); err != nil {
			return err
		}
	}
	w.settled = now
	if everything {
		w.stands = now
		return w.bookmark()
	}
	return nil
}

// standsAt reads the revision that a reader says it has.
func standsAt(meta state.Meta, after string) (uint64, error) {
	stands, err := meta.After(after)
	switch {
	case errors.Is(err, state.ErrCompacted):
		return 0, gone(after)
	case err != nil:
		return 0, problem.New(problem.Invalid, err.Error(), "Send a revision as it was received.").With("after", "is no revision")
	}
	return stands, nil
}

func gone(after string) error {
	return problem.New(problem.Gone, "the changes after revision "+after+" are no longer kept", "List again, and watch from there.")
}

// list goes through everything that is there, page by page, each on a snapshot of its own: what changes meanwhile is told
// again later.
func (w *watcher[M]) list(ctx context.Context, send bool) error {
	q := state.Query{Filter: w.filter, OrderBy: "id", PageSize: feedChunk, Scope: w.scope}
	for {
		var items []M
		err := w.noun.view(ctx, func(tx *state.Tx) (err error) {
			table := w.noun.table(tx)
			if w.bounds != nil {
				table = table.Within(*w.bounds)
			}
			items, q.PageToken, err = table.List(q)
			return err
		})
		if err != nil {
			return err
		}
		for _, m := range items {
			if w.known != nil {
				w.known[m.GetId()] = struct{}{}
			}
			if send {
				schema.Strip(m)
				if err := w.veil(ctx, m); err != nil {
					return err
				}
				if err := w.stream.SendMsg(w.noun.wrap(apiv1.WatchType_PUT, state.RevisionText(w.epoch, 0), m)); err != nil {
					return err
				}
			}
		}
		if q.PageToken == "" {
			return nil
		}
	}
}

// veil leaves out of a noun what the reader may not see of it now.
func (w *watcher[M]) veil(ctx context.Context, m M) error {
	if w.noun.veil == nil {
		return nil
	}
	return w.noun.view(ctx, func(tx *state.Tx) error { return w.noun.veil(ctx, tx, m) })
}

// follow tells changes until the reader goes.
func (w *watcher[M]) follow(ctx context.Context) error {
	tick := time.NewTicker(bookmarkTime)
	defer tick.Stop()
	changed := w.noun.changed.next()
	if err := w.judge(ctx); err != nil { // what changed since it began
		return err
	}
	for due := false; ; {
		g, err := w.look(ctx)
		if err != nil {
			return err
		}
		for _, e := range g.entries {
			if err := w.tell(e); err != nil {
				return err
			}
		}
		w.stands = max(w.stands, g.through)
		if len(g.entries) > 0 {
			continue // there may be more
		}
		if due {
			if err := w.bookmark(); err != nil {
				return err
			}
			due = false
		}
		select {
		case <-g.wake:
		case <-tick.C:
			due = true
		case <-changed:
			changed = w.noun.changed.next()
			if err := w.judge(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look returns the next changes: the feed's, or the state's own where the feed no longer has them.
func (w *watcher[M]) look(ctx context.Context) (glance[M], error) {
	g := w.noun.feed.after(w.stands)
	if g.kept && g.epoch == w.epoch {
		return g, nil
	}
	err := w.noun.view(ctx, func(tx *state.Tx) error {
		meta := tx.Meta()
		if meta.Epoch != w.epoch || meta.Revision < w.stands {
			return gone(state.RevisionText(w.epoch, w.stands))
		}
		changes, err := w.noun.table(tx).Since(w.stands, feedChunk)
		if errors.Is(err, state.ErrCompacted) {
			return gone(state.RevisionText(w.epoch, w.stands))
		}
		if g.through = meta.Revision; len(changes) >= feedChunk {
			g.through = changes[len(changes)-1].Revision
		}
		g.entries = w.noun.feed.entries(meta.Epoch, changes)
		return err
	})
	return g, err
}

// tell sends one change if it is the reader's.
func (w *watcher[M]) tell(e entry[M]) error {
	if !e.at.within(w.at) || w.bounds != nil && !w.noun.holds(*w.bounds, e) {
		return nil
	}
	if w.noun.veil != nil {
		shown := proto.CloneOf(e.noun)
		if err := w.veil(w.stream.Context(), shown); err != nil {
			return err
		}
		kind := apiv1.WatchType_PUT
		if e.deleted {
			kind = apiv1.WatchType_DELETE
		}
		e.message = w.noun.wrap(kind, state.RevisionText(w.epoch, e.revision), shown)
	}
	if w.known == nil {
		return w.stream.SendMsg(e.message)
	}
	id := e.noun.GetId()
	_, held := w.known[id]
	held = held || e.revision <= w.settled
	switch {
	case !e.deleted && w.match(e.noun):
		w.known[id] = struct{}{}
		return w.stream.SendMsg(e.message)
	case held:
		delete(w.known, id)
		return w.stream.SendMsg(w.noun.wrap(apiv1.WatchType_DELETE, state.RevisionText(w.epoch, e.revision), e.noun))
	}
	return nil
}

// judge ends the watch where the caller's reach is no longer what it was: who has more sees it from the beginning, and who has
// less nothing that they may not.
func (w *watcher[M]) judge(ctx context.Context) error {
	now, err := w.noun.boundsNow(ctx, nil)
	switch {
	case err != nil:
		return err
	case now == nil && w.bounds == nil:
		return nil
	case now != nil && w.bounds != nil && sameBounds(*now, *w.bounds):
		return nil
	case now != nil && len(*now) == 0:
		r, err := w.noun.rightsOf(ctx, nil)
		if err != nil {
			return err
		}
		return r.Missing(method(ctx), "")
	}
	return problem.New(problem.Gone, "what you may see has changed", "List again, and watch from there.")
}

func sameBounds(a, b []state.Bound) bool {
	return slices.EqualFunc(a, b, func(a, b state.Bound) bool {
		return slices.EqualFunc(a, b, func(a, b state.In) bool { return a.Column == b.Column && slices.Equal(a.Values, b.Values) })
	})
}

// boundsNow returns what of the table is in the caller's reach now.
func (n noun[M]) boundsNow(ctx context.Context, tx *state.Tx) (*[]state.Bound, error) {
	permission := n.permission(ctx)
	reach, err := n.reach(ctx, tx, permission)
	if err != nil {
		return nil, err
	}
	return n.bounds(ctx, reach, permission), nil
}

// holds reports whether a change is in the caller's reach.
func (n noun[M]) holds(bounds []state.Bound, e entry[M]) bool {
	return state.Holds(bounds, func(column string) string {
		switch column {
		case n.project:
			return e.at.project
		case n.zone:
			return e.at.zone
		case n.organization:
			return e.at.organization
		}
		return n.value(e.noun, column)
	})
}

func (w *watcher[M]) bookmark() error {
	var none M
	return w.stream.SendMsg(w.noun.wrap(apiv1.WatchType_BOOKMARK, state.RevisionText(w.epoch, w.stands), none))
}

// within reports whether a noun at p is in the place asked for; what is not asked for is everywhere.
func (p place) within(asked place) bool {
	return (asked.project == "" || asked.project == p.project) &&
		(asked.zone == "" || asked.zone == p.zone) &&
		(asked.cluster == "" || asked.cluster == p.cluster)
}
