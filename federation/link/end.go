package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Common is what both kinds of end are made of.
type Common struct {
	Identity Identity
	// Verify judges the other end's chain.
	Verify Verify
	// Checker stands at an end (wire.AtEnd).
	Checker *wire.Checker
	// Schema is the highest that this end speaks; default CurrentSchema.
	Schema uint32
	// Version of the program, told to the other end.
	Version string
	Timing  Timing
	// Metrics and Log default to none.
	Metrics *Metrics
	Log     *slog.Logger
}

// shared is a Common made ready.
type shared struct {
	Common
	checker *wire.Checker
	timing  Timing
	metrics *Metrics
	log     *slog.Logger
}

func (c Common) ready() (shared, error) {
	if c.Identity == nil || c.Verify == nil || c.Checker == nil {
		return shared{}, errors.New("an end of a link needs an identity, a judge of the other's, and a checker of frames")
	}
	if c.Schema == 0 {
		c.Schema = CurrentSchema
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return shared{Common: c, checker: c.Checker, timing: c.Timing.withDefaults(), metrics: c.Metrics, log: c.Log}, nil
}

// attempt is what became of an opening.
type attempt struct {
	s      *session
	opened *Opened
	err    error
}

// round is one session from dialling to its end: open proves both ends, begin gives it its classes. Whatever fails is
// what it returns.
func (sh shared) round(ctx context.Context, way linkv1.Direction, dial Dial, open func(*opening) (*Opened, error), begin func(*session, *Opened) error) (err error) {
	defer func() { sh.metrics.ended(err) }()
	// The line outlives the work by a goodbye.
	line, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	began := time.Now()
	patience := time.AfterFunc(sh.timing.Opening, hangUp)
	leave := context.AfterFunc(ctx, hangUp)

	// One goroutine receives, through the opening and after it.
	attempts, ready, heard := make(chan attempt, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(heard)
		a := sh.open(ctx, line, way, dial, open)
		attempts <- a
		select {
		case <-ready:
			a.s.read()
		case <-line.Done():
		}
	}()
	var a attempt
	select {
	case a = <-attempts:
	case <-line.Done():
		a.err = line.Err()
	}
	timely, present := patience.Stop(), leave()
	switch {
	case !present:
		a.err = context.Cause(ctx)
	case !timely:
		a.err = fmt.Errorf("%w: the session did not open within %v", ErrSilent, sh.timing.Opening)
	}
	if a.err != nil {
		hangUp()
		settle(heard)
		return a.err
	}
	sh.metrics.openSeconds.Observe(time.Since(began).Seconds())
	sh.metrics.sessions.Inc()
	defer sh.metrics.sessions.Dec()
	s := a.s
	s.peer = a.opened.Peer
	err = judgeNumbers(a.opened)
	if err == nil {
		err = begin(s, a.opened)
	}
	if err != nil {
		s.end(err)
	}
	close(ready)
	return s.run(line, hangUp, heard)
}

func (sh shared) open(ctx, line context.Context, way linkv1.Direction, dial Dial, open func(*opening) (*Opened, error)) attempt {
	path, err := dial(line)
	if err != nil {
		return attempt{err: fmt.Errorf("dial: %w: %w", errStream, err)}
	}
	s := newSession(ctx, way, path, sh)
	opened, err := open(&opening{s: s, line: line, identity: sh.Identity, verify: sh.Verify, path: path})
	if err != nil {
		s.end(err)
	}
	return attempt{s: s, opened: opened, err: err}
}

// settle waits until a goroutine has left its stream, which it does at once where the stream has ended with the line.
// Where it has not, the stream's owner ends it, and there is nothing to wait for.
func settle(left <-chan struct{}) {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-left:
	case <-timer.C:
	}
}
