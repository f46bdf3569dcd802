package usageclock

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// box is a machine whose time can be set.
type box struct {
	boot   string
	uptime time.Duration
	set    time.Duration
	began  time.Time
}

func (b *box) machine() Machine {
	return Machine{Boot: b.boot, Uptime: func() time.Duration { return b.uptime }, Time: func() time.Time { return b.began.Add(b.uptime + b.set) }}
}

func (b *box) open(t *testing.T, file string) *Clock {
	t.Helper()
	c, err := Open(file, b.machine(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// P21: what lies between two times of the clock is how long it took, however the machine's time was set, and whoever was restarted.
func TestP21TheClockGoesOnWhenTheMachinesTimeIsSet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock.json")
	b := &box{boot: "first", uptime: time.Hour, began: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	c := b.open(t, file)
	began, id := c.Now()
	if want := b.began.Add(time.Hour); !began.Equal(want) {
		t.Errorf("it begins at %v, and the machine says %v", began, want)
	}
	for _, set := range []time.Duration{10 * 365 * 24 * time.Hour, -20 * 365 * 24 * time.Hour, time.Second} {
		b.set += set
		b.uptime += 90 * time.Minute
		if at, is := c.Now(); is != id || at.Sub(began) != b.uptime-time.Hour {
			t.Errorf("set by %v: %v after %v", set, at.Sub(began), b.uptime-time.Hour)
		}
		if off := c.Offset(); off != b.set {
			t.Errorf("the machine is set by %v, and ahead by %v", b.set, off)
		}
		c = b.open(t, file) // the agent is restarted
	}
}

func TestAMachineThatStartsAnewHasAnotherClock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock.json")
	b := &box{boot: "first", uptime: time.Hour, began: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	_, first := b.open(t, file).Now()
	b.boot, b.uptime, b.set = "second", time.Minute, 2*time.Hour
	at, second := b.open(t, file).Now()
	if first == second || !at.Equal(b.began.Add(2*time.Hour+time.Minute)) {
		t.Errorf("%s went on as %s, at %v", first, second, at)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, third := b.open(t, file).Now(); third == second {
		t.Error("a file that is damaged is gone on with")
	}
}

func TestThisMachinesUptimeGoesOn(t *testing.T) {
	m, err := ThisMachine()
	if err != nil || m.Boot == "" {
		t.Fatalf("%q, %v", m.Boot, err)
	}
	if a, b := m.Uptime(), m.Uptime(); a <= 0 || b < a {
		t.Errorf("%v, then %v", a, b)
	}
}
