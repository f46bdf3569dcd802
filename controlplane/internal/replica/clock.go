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
)

// clock stamps commands with the wall clock, and compares it with the monotonic one. It may be used concurrently.
type clock struct {
	read   func() (wall time.Time, monotonic time.Duration)
	jumped func(by time.Duration)

	mu        sync.Mutex
	wall      time.Time
	monotonic time.Duration
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

// now returns the wall clock's time, and reports it when that has jumped since it was last read.
func (c *clock) now() time.Time {
	wall, monotonic := c.read()
	c.mu.Lock()
	passed := monotonic - c.monotonic
	if passed < 0 { // somebody read the clocks after this and came first
		c.mu.Unlock()
		return wall
	}
	by := wall.Sub(c.wall) - passed
	c.wall, c.monotonic = wall, monotonic
	c.mu.Unlock()
	if by.Abs() > jumpFloor+passed/jumpShare {
		c.jumped(by)
	}
	return wall
}
