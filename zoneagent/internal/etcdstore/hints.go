package etcdstore

import (
	"slices"
	"sync"
)

// hints tells in-process consumers that a space may have changed. A hint may come without a change, never a change
// without a hint.
type hints struct {
	mu   sync.Mutex
	subs []*hint
}

type hint struct {
	spaces []Space
	c      chan struct{}
	done   <-chan struct{}
}

// subscribe returns a channel that holds at most one hint; it is forgotten when done is closed.
func (h *hints) subscribe(done <-chan struct{}, spaces ...Space) <-chan struct{} {
	n := &hint{spaces: spaces, c: make(chan struct{}, 1), done: done}
	n.c <- struct{}{}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs = append(h.subs, n)
	return n.c
}

// tell hints at the spaces; none means all.
func (h *hints) tell(spaces ...Space) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs = slices.DeleteFunc(h.subs, func(n *hint) bool {
		select {
		case <-n.done:
			return true
		default:
			return false
		}
	})
	for _, n := range h.subs {
		if len(spaces) == 0 || slices.ContainsFunc(spaces, func(s Space) bool { return slices.Contains(n.spaces, s) }) {
			n.give()
		}
	}
}

// give leaves a hint, unless there is one.
func (n *hint) give() {
	select {
	case n.c <- struct{}{}:
	default:
	}
}
