package members

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

// Members is the agents of the zone as this one knows them. All methods are safe for concurrent use.
type Members struct {
	cfg     Config
	address netip.AddrPort
	gossip  *memberlist.Memberlist
	changed chan struct{}
	alive   prometheus.Gauge
	close   func() error

	mu    sync.Mutex
	known map[string]Member
}

// New listens on the agent's address. The error names a port that is taken.
func New(c Config) (*Members, error) {
	c = c.withDefaults()
	address, err := c.check()
	if err != nil {
		return nil, err
	}
	l := &Members{cfg: c, address: address, changed: make(chan struct{}, 1), known: map[string]Member{}}
	l.close = sync.OnceValue(l.stop)
	l.alive = prometheus.NewGauge(prometheus.GaugeOpts{Name: "naru_members_alive_agents", Help: "Agents of the zone that are heard, this one among them."})
	if c.Registerer != nil {
		c.Registerer.MustRegister(l.alive)
	}
	mc, err := l.gossipConfig()
	if err != nil {
		return nil, err
	}
	if l.gossip, err = memberlist.Create(mc); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
			return nil, fmt.Errorf("gossip address %s is taken by another process: stop that one, or give gossip another port: %w", c.Address, err)
		}
		return nil, fmt.Errorf("gossip at %s: %w", c.Address, err)
	}
	return l, nil
}

func (l *Members) gossipConfig() (*memberlist.Config, error) {
	c := l.cfg
	ring, err := memberlist.NewKeyring(c.OldKeys, c.Key)
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	meta, err := json.Marshal(c.Self)
	if err != nil {
		return nil, err
	}
	if len(meta) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("what this agent tells of itself takes %d bytes, %d can be told", len(meta), memberlist.MetaMaxSize)
	}
	mc := memberlist.DefaultLANConfig()
	mc.Name, mc.Keyring = c.Name, ring
	mc.BindAddr, mc.BindPort = l.address.Addr().String(), int(l.address.Port())
	mc.AdvertiseAddr, mc.AdvertisePort = mc.BindAddr, mc.BindPort
	mc.ProbeInterval, mc.ProbeTimeout = c.Probe, c.Probe*3/5
	mc.SuspicionMult, mc.SuspicionMaxTimeoutMult = 3, 2
	mc.GossipInterval, mc.PushPullInterval = c.Probe/5, 30*c.Probe
	mc.GossipToTheDeadTime = 60 * c.Probe
	mc.DeadNodeReclaimTime = 10 * c.Probe
	mc.TCPTimeout = 10 * c.Probe
	w := &words{list: l, meta: meta}
	mc.Events, mc.Delegate, mc.Conflict = w, w, w
	mc.Logger = log.New(logWriter{log: c.Log}, "", 0)
	return mc, nil
}

// Run looks for the agents of Join until ctx ends.
func (l *Members) Run(ctx context.Context) error {
	l.join()
	t := time.NewTicker(l.cfg.Retry)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.join()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close says goodbye to whoever is there, and stops listening.
func (l *Members) Close() error { return l.close() }

func (l *Members) stop() error {
	if err := l.gossip.Leave(2 * l.cfg.Probe); err != nil {
		l.cfg.Log.Debug("the goodbye to the zone's other agents was not heard", "error", err)
	}
	return l.gossip.Shutdown()
}

// join tries the agents of Join that are not heard. Those that were cut off and given up are found again so, too.
func (l *Members) join() {
	heard, alone := l.heard()
	missing := slices.DeleteFunc(slices.Clone(l.cfg.Join), func(address string) bool {
		if a, err := netip.ParseAddrPort(address); err == nil {
			return heard[a]
		}
		return !alone
	})
	if len(missing) == 0 {
		return
	}
	if n, err := l.gossip.Join(missing); err != nil && n == 0 {
		l.cfg.Log.Info("other agents of the zone are not found yet", "addresses", missing, "again_in", l.cfg.Retry, "error", err)
	}
}

// heard are the addresses of agents that are alive, this one among them, and whether there is no other.
func (l *Members) heard() (at map[netip.AddrPort]bool, alone bool) {
	at = map[netip.AddrPort]bool{l.address: true}
	for _, m := range l.Members() {
		if m.Alive {
			at[m.Address] = true
		}
	}
	return at, len(at) == 1
}

// Members are all agents ever heard of, by name, this one among them.
func (l *Members) Members() []Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.known), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
}

// Changed holds a hint when Members may tell something new.
func (l *Members) Changed() <-chan struct{} { return l.changed }

// Forget takes an agent off the list that is not alive and will not come back.
func (l *Members) Forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known[name].Alive {
		delete(l.known, name)
	}
}

// note takes down what was heard of an agent.
func (l *Members) note(n *memberlist.Node, alive bool) {
	var m Member
	if err := json.Unmarshal(n.Meta, &m); err != nil && alive {
		l.cfg.Log.Warn("an agent of the zone tells nothing of itself that is understood", "agent", n.Name, "error", err)
	}
	m.Name, m.Alive, m.Since = n.Name, alive, time.Now()
	if ip, ok := netip.AddrFromSlice(n.Addr); ok {
		m.Address = netip.AddrPortFrom(ip.Unmap(), n.Port)
	}
	l.mu.Lock()
	if old, ok := l.known[n.Name]; ok && old.Alive == alive {
		m.Since = old.Since
	}
	l.known[n.Name] = m
	count := 0
	for _, k := range l.known {
		if k.Alive {
			count++
		}
	}
	l.mu.Unlock()
	l.alive.Set(float64(count))
	l.cfg.Log.Debug("heard of an agent", "agent", n.Name, "alive", alive, "address", m.Address)
	select {
	case l.changed <- struct{}{}:
	default:
	}
}
