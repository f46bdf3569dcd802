package service

import (
	"sync"

	"github.com/naru-project/naru/controlplane/internal/state"
)

// maxCached bounds what one cache keeps.
const maxCached = 4096

// cache keeps what was looked up to know who calls, so that a call need not read the state for that. Before it gives anything
// it looks whether its tables changed: once a change is acknowledged, nothing that was read before it is given any more. What
// it gives is shared and read-only. Safe for concurrent use.
type cache[M any] struct {
	watch *state.Watch

	mu   sync.Mutex
	kept map[string]*M
	age  uint64 // counts the times it was emptied
}

func newCache[M any](r Reader, topics ...string) *cache[M] {
	return &cache[M]{watch: r.Watch(topics...)}
}

// get returns what is kept under a key. age is for put.
func (c *cache[M]) get(key string) (m *M, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.watch.C(): // always, once the database is closed
		c.kept = map[string]*M{}
		c.age++
	default:
	}
	return c.kept[key], c.age
}

// put keeps what was read after get gave its age, unless a table was seen to change meanwhile.
func (c *cache[M]) put(key string, m *M, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.age != age {
		return
	}
	if len(c.kept) >= maxCached {
		clear(c.kept)
	}
	c.kept[key] = m
}
