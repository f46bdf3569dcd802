package sim

import (
	"cmp"
	"context"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// host is one simulated machine. Its state is touched under mu, and, with a state folder, under the file's lock too.
type host struct {
	id    string
	fleet *Fleet

	mu       sync.Mutex
	settings settings
	chance   *rand.Rand
	failNext int
	loseNext int
	file     stateFile
	state    *state
}

func newHost(f *Fleet, id string) *host {
	h := &host{id: id, fleet: f, state: newState()}
	if f.options.StateDir != "" {
		h.file = stateFile{dir: f.options.StateDir, id: id}
	}
	return h
}

// configure takes a new endpoint's settings. The same seed does not begin anew.
func (h *host) configure(s settings) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.chance == nil || h.settings.seed != s.seed {
		sum := fnv.New64a()
		sum.Write([]byte(h.id))
		h.chance = rand.New(rand.NewPCG(s.seed, sum.Sum64()))
	}
	h.settings = s
}

// call is one round trip: the latency, then, unless something goes wrong first, the effect, then perhaps a lost reply.
// The context is looked at for the last time under the lock, right before the effect.
func (h *host) call(ctx context.Context, effect func(*state, time.Time) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	latency := h.settings.latency
	h.mu.Unlock()
	if err := wait(ctx, latency); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.transact(func(now time.Time) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		h.state.settle(now, h.settings)
		if h.state.Dead || h.state.Cut {
			return ErrUnreachable
		}
		if h.failNext > 0 || h.chance.Float64() < h.settings.fail {
			h.failNext = max(h.failNext-1, 0)
			return ErrInjected
		}
		if err := effect(h.state, now); err != nil {
			return err
		}
		if h.loseNext > 0 || h.chance.Float64() < h.settings.loseReply {
			h.loseNext = max(h.loseNext-1, 0)
			return ErrReplyLost
		}
		return nil
	})
}

// peek runs a look at the state past all latency, failures and death: a test's view from above.
func (h *host) peek(look func(*state)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.transact(func(now time.Time) error {
		h.state.settle(now, h.settings)
		look(h.state)
		return nil
	})
	if err != nil {
		h.fleet.options.Logger.Error("state of a simulated host", "host", h.id, "error", err)
	}
}

// transact runs a change between reading what other processes wrote and writing what changed. h.mu is held.
func (h *host) transact(change func(now time.Time) error) error {
	if h.file.dir == "" {
		return change(time.Now())
	}
	unlock, err := h.file.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if h.state, err = h.file.read(h.state); err != nil {
		return err
	}
	changeErr := change(time.Now())
	if err := h.file.write(h.state); err != nil {
		return err
	}
	return changeErr
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil // the context is looked at right before and after
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sortedValues returns a map's values in the order of their keys.
func sortedValues[K cmp.Ordered, V any](m map[K]V) []V {
	values := make([]V, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[key])
	}
	return values
}
