package libvirt

import (
	"context"
	"sync"
)

// latches let one caller at a time pass for each key.
type latches struct {
	mu   sync.Mutex
	keys map[string]chan struct{}
}

func newLatches() *latches { return &latches{keys: map[string]chan struct{}{}} }

// take waits for the key's turn, no longer than ctx.
func (l *latches) take(ctx context.Context, key string) (release func(), err error) {
	l.mu.Lock()
	turn := l.keys[key]
	if turn == nil {
		turn = make(chan struct{}, 1)
		l.keys[key] = turn
	}
	l.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
