package api

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/pkg/problem"
)

// knownTime is how long a server goes by what it knew: so much later at most, what is revoked anywhere is refused here, or nobody is let in
// of whom only the state says that they may be.
const knownTime = 2 * time.Second

// sureTime is how long a call waits at most for it to be known: as long as a new leader usually takes to be found.
const sureTime = 3 * time.Second

// current knows as of when this server's state holds everything that was acknowledged. Safe for concurrent use.
type current struct {
	// ask returns when the state holds everything that was acknowledged before the call; an error, where that cannot be told.
	ask func(context.Context) error
	// asking is the one question under way, whose answer is everybody's.
	asking singleflight.Group

	mu   sync.Mutex
	asOf time.Time
}

// until is when what this server knows is too old.
func (c *current) until() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asOf.Add(knownTime)
}

// renew returns when it is known anew: nil where what this server knows is then not too old. All who wait ask one question.
func (c *current) renew(ctx context.Context) error {
	for {
		answer := c.asking.DoChan("", func() (any, error) { return nil, c.once() })
		select {
		case <-ctx.Done():
			return unsure(ctx.Err())
		case a := <-answer:
			if a.Err != nil {
				return unsure(a.Err)
			}
		}
		if time.Now().Before(c.until()) {
			return nil
		}
	}
}

// once asks, for nobody in particular.
func (c *current) once() error {
	ctx, cancel := context.WithTimeout(context.Background(), sureTime)
	defer cancel()
	began := time.Now()
	if err := c.ask(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if began.After(c.asOf) {
		c.asOf = began
	}
	return nil
}

func unsure(err error) error {
	return problem.Newf(problem.Unavailable, "Ask another server. Who administers with a certificate is let in here, and may read what is stale.",
		"this server cannot tell whether a session or a token still counts: %w", err)
}

// kept reports whether it stands in the replicated state alone that somebody may be let in, as of sessions and access tokens. Of a certificate
// the record says no more than that it was not taken away.
func kept(p auth.Principal) bool { return p.Kind == auth.User || p.Kind == auth.AccessToken }

// sure returns when it is certain that a caller was let in by what holds now, or did a moment ago. Nobody waits long for that, and
// who takes what is stale only as long as a stream would: without a leader, those who wait must not keep others out.
func (g *gate) sure(ctx context.Context, v *visit) error {
	if !kept(v.principal) || time.Now().Before(g.current.until()) {
		return nil
	}
	limit := sureTime
	if v.call.Stale {
		limit = recheckTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := g.current.renew(ctx); err != nil {
		return err
	}
	return g.who.Recheck(ctx, v.principal)
}
