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
	// Skipped, if set, is told of an object that was left out of the state, because a broker refuses it.
	Skipped func(o *linkv1.Object, reason string)
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

// round is one session from dialling to its end: open proves both ends, begin gives it its classes. Whatever fails is
// what it returns, and nothing of it is left behind.
func (sh shared) round(ctx context.Context, way linkv1.Direction, dial Dial, open func(*opening) (*Opened, error), begin func(*session, *Opened) error) (err error) {
	defer func() { sh.metrics.ended(err) }()
	// The line outlives the work by a goodbye.
	line, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	began := time.Now()
	patience := time.AfterFunc(sh.timing.Opening, hangUp)
	leave := context.AfterFunc(ctx, hangUp)

	s, opened, err := sh.open(ctx, line, way, dial, open)
	timely, present := patience.Stop(), leave()
	switch {
	case !present:
		err = context.Cause(ctx)
	case !timely:
		err = fmt.Errorf("%w: the session did not open within %v", ErrSilent, sh.timing.Opening)
	}
	if s != nil {
		defer s.end(nil)
	}
	if err != nil {
		return err
	}
	sh.metrics.openSeconds.Observe(time.Since(began).Seconds())
	sh.metrics.sessions.Inc()
	defer sh.metrics.sessions.Dec()
	s.peer = opened.Peer
	err = judgeNumbers(opened)
	if err == nil {
		err = begin(s, opened)
	}
	if err != nil {
		s.end(err)
	}
	return s.run(hangUp)
}

func (sh shared) open(ctx, line context.Context, way linkv1.Direction, dial Dial, open func(*opening) (*Opened, error)) (*session, *Opened, error) {
	path, err := dial(line)
	if err != nil {
		return nil, nil, fmt.Errorf("dial: %w: %w", errStream, err)
	}
	s := newSession(ctx, way, path, sh)
	opened, err := open(&opening{s: s, identity: sh.Identity, verify: sh.Verify, path: path})
	return s, opened, err
}
