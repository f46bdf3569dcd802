package service

import (
	"context"
	"sync"
)

// maxCached bounds what one cache keeps.
const maxCached = 4096

// cache keeps what was looked up to know who calls, so that a call need not read the state for that. It is emptied whenever
// anything in its table changes, and keeps nothing while nobody follows the changes. What it gives is shared and read-only.
// Safe for concurrent use; the zero value keeps nothing.
type cache[M any] struct {
	mu   sync.Mutex
	kept map[string]*M // nil while nothing may be kept
	age  uint64        // counts the times it was emptied
}

// follow keeps the cache true to a table until ctx ends. It begins like feed.run and has another end: a feed whose table cannot be
// watched any more may lag behind, a cache keeps nothing then.
func (c *cache[M]) follow(ctx context.Context, r Reader, topic string) {
	w := r.Watch(topic)
	defer w.Close()
	defer c.empty(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-w.C():
			if !open {
				return
			}
			c.empty(map[string]*M{})
		}
	}
}

func (c *cache[M]) empty(kept map[string]*M) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = kept
	c.age++
}

// get returns what is kept under a key. age is for put.
func (c *cache[M]) get(key string) (m *M, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept[key], c.age
}

// put keeps what was read after get gave its age, unless the table changed meanwhile.
func (c *cache[M]) put(key string, m *M, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil || c.age != age {
		return
	}
	if len(c.kept) >= maxCached {
		clear(c.kept)
	}
	c.kept[key] = m
}
