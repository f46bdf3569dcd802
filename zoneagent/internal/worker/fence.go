package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errLost: the ownership's deadline has passed; nothing may be touched any more.
var errLost = errors.New("this agent may not own the cluster any more")

// fence bounds driver calls by the ownership.
type fence struct {
	own   Ownership
	leash *leash
	// calls holds one for each call under way.
	calls   chan struct{}
	timeout time.Duration
}

func newFence(own Ownership, calls chan struct{}, timeout time.Duration) fence {
	return fence{own: own, leash: &leash{own: own}, calls: calls, timeout: timeout}
}

// call makes one driver call, once there is room for it, with a context that ends with the ownership or after the
// timeout. A call that could begin too late is not made.
func (f fence) call(ctx context.Context, fn func(ctx context.Context) error) error {
	return f.until(ctx, f.timeout, fn)
}

// until is call with a timeout of its own.
func (f fence) until(ctx context.Context, timeout time.Duration, fn func(ctx context.Context) error) error {
	select {
	case f.calls <- struct{}{}:
		defer func() { <-f.calls }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx, release := f.bind(ctx)
	defer release()
	if err := ctx.Err(); err != nil {
		return err
	}
	err := fn(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, errLost) {
		err = fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return err
}

// fenced is a context that ends when the ownership's deadline passes. The deadline moves while the ownership is
// confirmed, so it is looked at anew each time: Err is the truth at the moment it is asked, also after the machine was
// suspended, when timers are late.
type fenced struct {
	context.Context
	own Ownership
}

func (f *fenced) Deadline() (time.Time, bool) {
	deadline := f.own.Deadline()
	if parent, ok := f.Context.Deadline(); ok && parent.Before(deadline) {
		return parent, true
	}
	return deadline, true
}

func (f *fenced) Err() error {
	if f.Context.Err() != nil {
		return context.Cause(f.Context)
	}
	if !time.Now().Before(f.own.Deadline()) {
		return errLost
	}
	return nil
}

// bind fences a context; release ends it.
func (f fence) bind(ctx context.Context) (_ context.Context, release func()) {
	inner, cancel := context.WithCancelCause(ctx)
	hold := f.leash.take()
	stop := context.AfterFunc(hold.ctx, func() { cancel(errLost) })
	return &fenced{inner, f.own}, func() {
		stop()
		cancel(context.Canceled)
		f.leash.give(hold)
	}
}

// leash watches the ownership's deadline for all calls under way together.
type leash struct {
	own Ownership

	mu  sync.Mutex
	now *hold
}

// hold lasts while there are calls, and a moment longer, and the deadline lies ahead.
type hold struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	// Under the leash's mu: calls under way, and what ends the hold without any.
	calls int
	end   *time.Timer
}

// linger is how long a hold outlasts its last call, so that the next one finds it.
const linger = 100 * time.Millisecond

// take is one more call's. Where the hold before was lost, there is a new one: the ownership may have been confirmed anew.
func (l *leash) take() *hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil || l.now.ctx.Err() != nil {
		h := &hold{}
		h.ctx, h.cancel = context.WithCancelCause(context.Background())
		l.now = h
		go l.watch(h)
	}
	l.now.calls++
	return l.now
}

// give ends a call's part.
func (l *leash) give(h *hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch h.calls--; {
	case h.calls > 0:
	case h.end == nil:
		h.end = time.AfterFunc(linger, func() { l.drop(h) })
	default:
		h.end.Reset(linger)
	}
}

// drop ends a hold that nobody has taken again.
func (l *leash) drop(h *hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.calls == 0 {
		h.cancel(context.Canceled)
	}
}

// close ends what is left when there are no more calls.
func (l *leash) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil {
		l.now.cancel(context.Canceled)
		l.now = nil
	}
}

func (l *leash) watch(h *hold) {
	for {
		left := time.Until(l.own.Deadline())
		if left <= 0 {
			h.cancel(errLost)
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-h.ctx.Done():
			timer.Stop()
			return
		case <-l.own.Lost():
			timer.Stop()
			h.cancel(errLost)
			return
		case <-timer.C:
		}
	}
}
