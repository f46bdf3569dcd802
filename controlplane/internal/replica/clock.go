package replica

import (
	"sync"
	"time"
)

// A jump is a difference between what the two clocks say has passed of more than jumpFloor and of more than a part in
// jumpShare: so much a clock may drift.
const (
	jumpFloor = time.Second
	jumpShare = 50
	// clockInterval is how often the clocks are compared when nothing is proposed.
	clockInterval = 10 * time.Second
	// settleTime is how long after a jump the time goes on as if there had been none. What was about to expire has until then
	// to be looked at, and a clock that was set by mistake to be set right.
	settleTime = 10 * time.Minute
)

// clock stamps commands with the wall clock, and compares it with the monotonic one. A jump is not followed before it has
// stood for settleTime: nothing expires on its strength. It may be used concurrently.
type clock struct {
	read   func() (wall time.Time, monotonic time.Duration)
	jumped func(by time.Duration)

	mu        sync.Mutex
	wall      time.Time
	monotonic time.Duration
	ahead     time.Duration // of the wall clock, by jumps that are not followed yet
	since     time.Duration // monotonic time of the last jump
}

func newClock(jumped func(time.Duration)) *clock {
	start := time.Now()
	c := &clock{jumped: jumped, read: func() (time.Time, time.Duration) {
		now := time.Now()
		return now.Round(0), now.Sub(start)
	}}
	c.wall, c.monotonic = c.read()
	return c
}

// now returns the wall clock's time, less the jumps that are not followed yet, and reports a jump since it was last read.
func (c *clock) now() time.Time {
	wall, monotonic := c.read()
	c.mu.Lock()
	passed := monotonic - c.monotonic
	if passed < 0 { // somebody read the clocks after this and came first
		defer c.mu.Unlock()
		return wall.Add(-c.ahead)
	}
	by := wall.Sub(c.wall) - passed
	c.wall, c.monotonic = wall, monotonic
	jumped := by.Abs() > jumpFloor+passed/jumpShare
	switch {
	case jumped:
		if c.ahead, c.since = c.ahead+by, monotonic; c.ahead.Abs() <= jumpFloor {
			c.ahead = 0 // it was set right again
		}
	case monotonic-c.since >= settleTime:
		c.ahead = 0
	}
	now := wall.Add(-c.ahead)
	c.mu.Unlock()
	if jumped {
		c.jumped(by)
	}
	return now
}
