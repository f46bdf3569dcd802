package service

import (
	"context"
	"sync"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// maxCachedTokens bounds the tokens that are kept in memory.
const maxCachedTokens = 4096

// tokenCache keeps access tokens that were looked up, so that a call need not read the state to know its bearer. It is
// emptied whenever any token changes, and keeps nothing while nobody follows the changes. What it gives is shared and
// read-only. Safe for concurrent use; the zero value keeps nothing.
type tokenCache struct {
	mu     sync.Mutex
	tokens map[string]*apiv1.AccessToken // nil while nothing may be kept
	age    uint64                        // counts the times it was emptied
}

// follow keeps the cache true until ctx ends.
func (c *tokenCache) follow(ctx context.Context, r Reader) {
	w := r.Watch("access_tokens")
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
			c.empty(map[string]*apiv1.AccessToken{})
		}
	}
}

func (c *tokenCache) empty(tokens map[string]*apiv1.AccessToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens = tokens
	c.age++
}

// get returns a token where it is kept. age is for put.
func (c *tokenCache) get(id string) (t *apiv1.AccessToken, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens[id], c.age
}

// put keeps a token that was read after get gave its age, unless tokens changed meanwhile.
func (c *tokenCache) put(t *apiv1.AccessToken, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens == nil || c.age != age {
		return
	}
	if len(c.tokens) >= maxCachedTokens {
		clear(c.tokens)
	}
	c.tokens[t.GetId()] = t
}
