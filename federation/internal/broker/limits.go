package broker

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// perMinute lets a burst of a quarter of a minute's worth pass at once.
func perMinute(n int) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(n)/60, max(n/4, 1))
}

// joinLimits hold strangers to a pace, each address and all together. They remember at most maxAddresses; who comes
// beyond is held to the common pace alone.
type joinLimits struct {
	perAddress int
	all        *rate.Limiter

	mu     sync.Mutex
	each   map[netip.Prefix]*rate.Limiter
	looked time.Time // when those who are quiet were last looked for
}

const maxAddresses = 4096

func newJoinLimits(l Limits) *joinLimits {
	return &joinLimits{
		perAddress: l.JoinsPerMinutePerAddress,
		all:        perMinute(l.JoinsPerMinute),
		each:       map[netip.Prefix]*rate.Limiter{},
	}
}

// allow says whether an address may ask now. One address's greed is judged first, so that it costs the others nothing.
func (j *joinLimits) allow(from netip.Prefix, now time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	own, known := j.each[from]
	if !known {
		if len(j.each) >= maxAddresses && now.Sub(j.looked) >= time.Second {
			j.forget(now)
		}
		own = perMinute(j.perAddress)
		if len(j.each) < maxAddresses {
			j.each[from] = own
		}
	}
	return own.AllowN(now, 1) && j.all.AllowN(now, 1)
}

// forget drops the addresses that have been quiet for so long that a fresh limiter would say the same.
func (j *joinLimits) forget(now time.Time) {
	j.looked = now
	for from, l := range j.each {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(j.each, from)
		}
	}
}

// pace holds one zone's frames to its limits, by making their sender wait.
type pace struct {
	frames, bytes *rate.Limiter
	waited        func(time.Duration)
}

func newPace(l Limits, waited func(time.Duration)) *pace {
	bytes := l.MiBPerSecondPerZone << 20
	return &pace{
		frames: rate.NewLimiter(rate.Limit(l.FramesPerSecondPerZone), l.FramesPerSecondPerZone),
		bytes:  rate.NewLimiter(rate.Limit(bytes), max(bytes, maxFrame)),
		waited: waited,
	}
}

// wait returns when a frame of so many bytes may go on, or when ctx ends.
func (p *pace) wait(ctx context.Context, size int) error {
	now := time.Now()
	frames, bytes := p.frames.ReserveN(now, 1), p.bytes.ReserveN(now, size)
	delay := max(frames.DelayFrom(now), bytes.DelayFrom(now))
	if delay == 0 {
		return nil
	}
	p.waited(delay)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
