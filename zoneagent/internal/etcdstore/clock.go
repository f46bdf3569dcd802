package etcdstore

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is time that runs on while the machine sleeps, as Go's monotonic clock does not: a machine that was
// suspended past its lease must not think that it still owns.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		// The clock is there on every Linux that Go runs on.
		panic(err)
	}
	return time.Duration(t.Nano())
}
