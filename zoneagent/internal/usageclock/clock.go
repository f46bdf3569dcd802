// Package usageclock tells the time by which the use of VMs is metered.
//
// A machine's time may be set, forwards or back, while VMs run on and agents are restarted. So it is asked once in the life of the
// machine, when the first agent on it begins; from then on the clock goes by how long the machine has been up, which nobody can set.
// The difference of two of its times is right, however the machine's time was set between them. A machine that starts anew has another
// clock, with another id; what begins by one clock and ends by another is only as exact as both machines' times are.
package usageclock

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// Machine is what a machine says of time.
type Machine struct {
	// Boot is another one after each start.
	Boot string
	// Uptime runs on while the machine sleeps, and is never set.
	Uptime func() time.Duration
	// Time may be set at any moment.
	Time func() time.Time
}

// ThisMachine is the one that this program runs on.
func ThisMachine() (Machine, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Machine{}, fmt.Errorf("tell one start of the machine from another: %w", err)
	}
	return Machine{
		Boot: strings.TrimSpace(string(boot)),
		Time: time.Now,
		Uptime: func() time.Duration {
			var t unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
				panic(err) // the clock is there on every Linux that Go runs on
			}
			return time.Duration(t.Nano())
		},
	}, nil
}

// tie is a moment of a machine's life at which its time was asked.
type tie struct {
	ID     string        `json:"id"`
	Boot   string        `json:"boot"`
	Uptime time.Duration `json:"uptime_ns"`
	Time   time.Time     `json:"time"`
}

// Clock is one. It is safe for concurrent use.
type Clock struct {
	machine Machine
	tie     tie
}

// Open goes on with the clock that is kept in a file, as long as the machine is up since then, or else begins another and keeps it
// there.
func Open(file string, m Machine, log *slog.Logger) (*Clock, error) {
	c := &Clock{machine: m}
	kept, err := os.ReadFile(file)
	if err == nil && json.Unmarshal(kept, &c.tie) == nil && c.tie.Boot == m.Boot && c.tie.ID != "" && c.tie.Uptime <= m.Uptime() {
		if off := c.Offset(); off.Abs() > time.Minute {
			log.Warn("the machine's time was set since it was asked first; use is metered by how long the machine is up", "offset", off.Round(time.Second))
		}
		return c, nil
	}
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("the clock by which use is metered: %w", err)
	}
	c.tie = tie{ID: uuid.Must(uuid.NewV7()).String(), Boot: m.Boot, Uptime: m.Uptime(), Time: m.Time().UTC().Round(0)}
	b, err := json.Marshal(c.tie)
	if err != nil {
		return nil, err
	}
	if err := keep(file, b); err != nil {
		return nil, fmt.Errorf("keep the clock by which use is metered: %w", err)
	}
	return c, nil
}

// keep writes a file whole or not at all.
func keep(file string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".usage-clock-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// Now returns the time, and the clock's id.
func (c *Clock) Now() (at time.Time, id string) {
	return c.tie.Time.Add(c.machine.Uptime() - c.tie.Uptime), c.tie.ID
}

// Offset is by how much the machine's time is ahead of the clock.
func (c *Clock) Offset() time.Duration {
	at, _ := c.Now()
	return c.machine.Time().Round(0).Sub(at)
}
