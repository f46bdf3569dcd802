package replica

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// progress is the index up to which the Machine has applied the log, and who waits for it to rise.
type progress struct {
	index atomic.Uint64

	mu      sync.Mutex
	waiters []waiter
}

type waiter struct {
	index   uint64
	reached chan struct{}
}

// applied returns the index.
func (p *progress) applied() uint64 { return p.index.Load() }

// advance sets the index and wakes those who waited for it or less.
func (p *progress) advance(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index.Store(index)
	p.waiters = slices.DeleteFunc(p.waiters, func(w waiter) bool {
		if w.index > index {
			return false
		}
		close(w.reached)
		return true
	})
}

// wait returns when index has been applied, or with ctx's error.
func (p *progress) wait(ctx context.Context, index uint64) error {
	if p.applied() >= index {
		return nil
	}
	p.mu.Lock()
	if p.index.Load() >= index {
		p.mu.Unlock()
		return nil
	}
	w := waiter{index: index, reached: make(chan struct{})}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters = slices.DeleteFunc(p.waiters, func(o waiter) bool { return o.reached == w.reached })
	return context.Cause(ctx)
}
