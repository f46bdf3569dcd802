package broker

import (
	"context"
	"errors"
	"maps"
	"sync"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

var errNewerAnnounce = errors.New("this server has opened a newer announce stream")

// server is one announce stream.
type server struct {
	id string
	// out is what waits to be told to it. Whoever finds it full treats the server as one that does not answer.
	out chan *linkv1.AnnounceResponse
	// ctx ends with the stream.
	ctx context.Context
	cut context.CancelCauseFunc

	// Guarded by servers.mu.
	status *linkv1.ServerStatus
}

// tell queues a word for the server; false: it is gone or does not listen.
func (s *server) tell(word *linkv1.AnnounceResponse) bool {
	if s.ctx.Err() != nil {
		return false
	}
	select {
	case s.out <- word:
		return true
	default:
		return false
	}
}

// servers knows who holds an announce stream, and whom all of them together refuse.
type servers struct {
	metrics *metrics

	mu   sync.Mutex
	byID map[string]*server
	// load is how many sessions a server has, by id.
	load map[string]int
	// revoked is the union of what the connected servers say, or where there is none, the last word there was.
	revoked map[string]struct{}
	// arrived is closed, and replaced, when a server comes.
	arrived chan struct{}
}

func newServers(m *metrics) *servers {
	return &servers{metrics: m, byID: map[string]*server{}, load: map[string]int{}, revoked: map[string]struct{}{}, arrived: make(chan struct{})}
}

// join adds a server; an older stream of the same one ends.
func (r *servers) join(ctx context.Context, id string) *server {
	s := &server{id: id, out: make(chan *linkv1.AnnounceResponse, 64)}
	s.ctx, s.cut = context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if older := r.byID[id]; older != nil {
		older.cut(errNewerAnnounce)
	}
	r.byID[id] = s
	r.metrics.servers.Set(float64(len(r.byID)))
	r.unite()
	close(r.arrived)
	r.arrived = make(chan struct{})
	return s
}

func (r *servers) leave(s *server) {
	s.cut(context.Canceled)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID[s.id] != s {
		return
	}
	delete(r.byID, s.id)
	r.metrics.servers.Set(float64(len(r.byID)))
	r.unite()
}

// update takes a server's new status.
func (r *servers) update(s *server, status *linkv1.ServerStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.status = status
	if r.byID[s.id] == s {
		r.unite()
	}
}

// unite counts a zone as revoked as soon as one server says so: a server that lags behind cannot let it in.
func (r *servers) unite() {
	union, told, serving := map[string]struct{}{}, false, 0
	defer func() { r.metrics.serving.Set(float64(serving)) }()
	for _, s := range r.byID {
		if s.status.GetServing() {
			serving++
		}
		for _, name := range s.status.GetRevoked() {
			union[name] = struct{}{}
		}
		told = told || s.status != nil
	}
	if told {
		r.revoked = union
	}
}

// isRevoked says whether a zone, or this agent of it, is refused.
func (r *servers) isRevoked(zone, agent string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, whole := r.revoked[zone]
	_, one := r.revoked[zone+"/"+agent]
	return whole || one
}

// choose picks who is to take up a session or answer a query: one that serves and was not tried, the leader before
// others, then who has the fewest sessions. nil: there is none.
func (r *servers) choose(tried map[string]bool) *server {
	r.mu.Lock()
	defer r.mu.Unlock()
	var best *server
	for _, s := range r.byID {
		if !s.status.GetServing() || tried[s.id] || s.ctx.Err() != nil {
			continue
		}
		if best == nil || r.before(s, best) {
			best = s
		}
	}
	return best
}

func (r *servers) before(a, b *server) bool {
	if a.status.Leader != b.status.Leader {
		return a.status.Leader
	}
	if r.load[a.id] != r.load[b.id] {
		return r.load[a.id] < r.load[b.id]
	}
	return a.id < b.id
}

// count moves the number of sessions that a server has.
func (r *servers) count(id string, by int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.load[id] += by; r.load[id] == 0 {
		delete(r.load, id)
	}
}

// all is who is connected, and a channel that is closed when somebody comes.
func (r *servers) all() ([]*server, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*server, 0, len(r.byID))
	for s := range maps.Values(r.byID) {
		list = append(list, s)
	}
	return list, r.arrived
}
