package members

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var zoneKey = bytes.Repeat([]byte{7}, 32)

// site is a network of agents on loopback addresses of its own.
type site struct {
	t   *testing.T
	net string
}

func newSite(t *testing.T) *site {
	return &site{t: t, net: fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), rand.IntN(250))}
}

func (s *site) address(n int) netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("%s.%d:7946", s.net, n))
}

func (s *site) config(n int, join ...int) Config {
	c := Config{
		Name: fmt.Sprintf("agent-%d", n), Address: s.address(n).String(), Key: zoneKey,
		Self:  Member{Agent: fmt.Sprintf("10.0.0.%d:8443", n), EtcdPeer: "p", EtcdClient: "c", Version: "v1"},
		Probe: 50 * time.Millisecond, Retry: 50 * time.Millisecond,
	}
	for _, j := range join {
		c.Join = append(c.Join, s.address(j).String())
	}
	return c
}

// running is an agent's list, and how to end it.
type running struct {
	*Members
	cancel context.CancelFunc
	done   chan error
	once   sync.Once
}

func (s *site) start(c Config) *running {
	s.t.Helper()
	l, err := New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Members: l, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- l.Run(ctx) }()
	s.t.Cleanup(r.leave)
	return r
}

// leave ends an agent with a goodbye.
func (r *running) leave() {
	r.once.Do(func() {
		r.cancel()
		if err := <-r.done; !errors.Is(err, context.Canceled) {
			panic(err)
		}
		if err := r.Close(); err != nil {
			panic(err)
		}
	})
}

// sees waits until an agent is alive, or is not.
func (r *running) sees(t *testing.T, name string, alive bool) Member {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		for _, m := range r.Members.Members() {
			if m.Name == name && m.Alive == alive {
				return m
			}
		}
		select {
		case <-r.Changed():
		case <-limit:
			t.Fatalf("%s does not see %s alive %v: %v", r.cfg.Name, name, alive, r.Members.Members())
		}
	}
}

func TestAgentsFindEachOtherInWhateverOrderTheyStart(t *testing.T) {
	s := newSite(t)
	a := s.start(s.config(1, 1, 2, 3))
	b := s.start(s.config(2, 1, 2, 3))
	c := s.start(s.config(3, 1, 2, 3))
	for _, r := range []*running{a, b, c} {
		for n := range 3 {
			m := r.sees(t, fmt.Sprintf("agent-%d", n+1), true)
			want := s.config(n + 1).Self
			want.Name, want.Address, want.Alive, want.Since = fmt.Sprintf("agent-%d", n+1), s.address(n+1), true, m.Since
			if m != want || m.Since.IsZero() {
				t.Errorf("told of as %+v, want %+v", m, want)
			}
		}
	}
}

func TestAnAgentThatIsKilledIsDeadAndComesBack(t *testing.T) {
	s := newSite(t)
	a := s.start(s.config(1))
	b := s.start(s.config(2, 1))
	c, err := New(s.config(3, 1))
	if err != nil {
		t.Fatal(err)
	}
	c.join()
	for _, r := range []*running{a, b} {
		r.sees(t, "agent-3", true)
	}
	// Killed: no goodbye.
	if err := c.gossip.Shutdown(); err != nil {
		t.Fatal(err)
	}
	a.sees(t, "agent-3", false)
	b.sees(t, "agent-3", false)
	s.start(s.config(3, 1))
	a.sees(t, "agent-3", true)
}

func TestAnAgentThatSaysGoodbyeHasLeft(t *testing.T) {
	s := newSite(t)
	a := s.start(s.config(1))
	b := s.start(s.config(2, 1))
	a.sees(t, "agent-2", true)
	b.leave()
	a.sees(t, "agent-2", false)
	a.Forget("agent-2")
	a.Forget("agent-1")
	if m := a.Members.Members(); len(m) != 1 || m[0].Name != "agent-1" {
		t.Errorf("members are %v", m)
	}
}

func TestAnotherZonesKeyIsNotHeard(t *testing.T) {
	s := newSite(t)
	a := s.start(s.config(1))
	c := s.config(2, 1)
	c.Key = bytes.Repeat([]byte{8}, 32)
	stranger := s.start(c)
	stranger.join()
	if m := stranger.Members.Members(); len(m) != 1 {
		t.Errorf("a stranger sees %v", m)
	}
	friend := s.start(s.config(4, 1))
	friend.sees(t, "agent-1", true)
	a.sees(t, "agent-4", true)
	if m := a.Members.Members(); len(m) != 2 {
		t.Errorf("a stranger is heard: %v", m)
	}
}

func TestAKeyIsReplacedWhileAllGoOn(t *testing.T) {
	s := newSite(t)
	fresh := bytes.Repeat([]byte{9}, 32)
	old := s.config(1)
	old.OldKeys = [][]byte{fresh}
	a := s.start(old)
	next := s.config(2, 1)
	next.Key, next.OldKeys = fresh, [][]byte{zoneKey}
	b := s.start(next)
	a.sees(t, "agent-2", true)
	b.sees(t, "agent-1", true)
}

func TestWhatCannotWorkIsRefusedWithItsReason(t *testing.T) {
	s := newSite(t)
	taken, err := net.Listen("tcp", s.address(9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, change := range map[string]func(*Config){
		"name":                        func(c *Config) { c.Name = "" },
		"never all its networks":      func(c *Config) { c.Address = "0.0.0.0:7946" },
		"in the clear":                func(c *Config) { c.Key = nil },
		"gossip key":                  func(c *Config) { c.Key = []byte{1} },
		"can be told":                 func(c *Config) { c.Self.Version = strings.Repeat("v", 600) },
		s.address(9).String() + " is": func(c *Config) { c.Address = s.address(9).String() },
	} {
		c := s.config(1)
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	next chan struct{} // closed at the next write
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		close(l.next)
		l.next = nil
	}
	return l.text.Write(p)
}

// written returns a channel that is closed at the next write.
func (l *lines) written() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = make(chan struct{})
	}
	return l.next
}

func (l *lines) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

func TestTwoAgentsOfOneNameAreToldApart(t *testing.T) {
	s := newSite(t)
	var log lines
	c := s.config(1)
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	a := s.start(c)
	twin := s.config(2, 1)
	twin.Name = "agent-1"
	b, err := New(twin)
	if err != nil {
		t.Fatal(err)
	}
	b.join()
	for patience := time.After(20 * time.Second); ; {
		next := log.written()
		if log.contains("same name") {
			break
		}
		select {
		case <-next:
		case <-patience:
			t.Fatal("nothing is said of it")
		}
	}
	if m := a.Members.Members(); len(m) != 1 || m[0].Address != s.address(1) {
		t.Errorf("members are %v", m)
	}
	if err := b.gossip.Shutdown(); err != nil {
		t.Fatal(err)
	}
}

func TestLinesOfGossipComeAtTheirLevel(t *testing.T) {
	var log lines
	w := logWriter{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	for _, line := range []string{"[ERR] memberlist: a\n", "[WARN] memberlist: b\n", "[DEBUG] memberlist: c\n"} {
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	if !log.contains("level=WARN msg=gossip said=\"memberlist: a\"") || !log.contains("level=INFO") || log.contains("memberlist: c") {
		t.Errorf("log is %s", log.text.String())
	}
}
