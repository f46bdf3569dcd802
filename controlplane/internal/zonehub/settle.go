package zonehub

import (
	"context"
	"sync"
	"time"
)

// settler runs the newest of many equal jobs, at most once in a while: each replaces the one that still waits.
type settler struct {
	mu      sync.Mutex
	waiting func(context.Context) error
	failed  error
}

// soon has job run after the delay, in place of any that waits. It returns the error of one that ran before.
func (s *settler) soon(ctx context.Context, delay time.Duration, job func(context.Context) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil && s.failed == nil {
		time.AfterFunc(delay, func() { s.run(ctx) })
	}
	s.waiting = job
	return s.failed
}

func (s *settler) run(ctx context.Context) {
	s.mu.Lock()
	job := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if err := job(ctx); err != nil {
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
	}
}
