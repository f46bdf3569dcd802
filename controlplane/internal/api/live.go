package api

import (
	"context"
	"sync"
	"time"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/pkg/problem"
)

// recheckTime is how often the credentials of streams are looked at again: what is revoked is cut off within two seconds.
const recheckTime = 500 * time.Millisecond

// liveStreams are the streams under way, so that those whose credential is no longer good can be cut.
type liveStreams struct {
	mu   sync.Mutex
	next uint64
	all  map[uint64]liveStream
}

type liveStream struct {
	principal auth.Principal
	cut       context.CancelCauseFunc
}

// enter takes a stream in; leave takes it out again.
func (l *liveStreams) enter(p auth.Principal, cut context.CancelCauseFunc) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) >= maxStreams {
		return nil, problem.New(problem.TooMany, "the server has as many watches under way as it takes", "Try again in a moment.")
	}
	if l.all == nil {
		l.all = map[uint64]liveStream{}
	}
	l.next++
	n := l.next
	l.all[n] = liveStream{p, cut}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.all, n)
	}, nil
}

// watch looks at every stream's credential again and again until ctx ends. Where it cannot be told in time whether this server has heard of what
// was revoked, those end of whom only the state says that they may be let in.
func (g *gate) watch(ctx context.Context) {
	tick := time.NewTicker(recheckTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		limit := g.current.until()
		if next := time.Now().Add(recheckTime); next.After(limit) {
			limit = next
		}
		asking, cancel := context.WithDeadline(ctx, limit)
		unknown := g.current.renew(asking)
		cancel()
		if time.Now().Add(recheckTime).Before(g.current.until()) {
			unknown = nil // there is time to ask again
		}
		verdicts := map[auth.Principal]error{} // one principal has many streams
		for _, s := range g.live.list() {
			err, asked := verdicts[s.principal]
			if !asked {
				err = g.who.Recheck(ctx, s.principal)
				verdicts[s.principal] = err
			}
			switch {
			case refused(err): // that the store cannot be asked just now says nothing of the credential
				s.cut(err)
			case unknown != nil && kept(s.principal):
				s.cut(unknown)
			}
		}
	}
}

func refused(err error) bool {
	return problem.Is(err, problem.TokenInvalid) || problem.Is(err, problem.TokenExpired) ||
		problem.Is(err, problem.CertificateInvalid) || problem.Is(err, problem.Revoked)
}

func (l *liveStreams) list() []liveStream {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]liveStream, 0, len(l.all))
	for _, s := range l.all {
		out = append(out, s)
	}
	return out
}

// cutAll ends every stream: the server stops.
func (l *liveStreams) cutAll() {
	for _, s := range l.list() {
		s.cut(problem.New(problem.Unavailable, "the server stops", "Watch again, from the last revision that was received."))
	}
}
