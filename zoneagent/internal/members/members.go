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

// Member is an agent as this one has heard of it.
type Member struct {
	Agent
	// Address is where it gossips.
	Address netip.AddrPort
	// Alive is false once it has said goodbye or fallen silent.
	Alive bool
	// Since is when that was first heard.
	Since time.Time
}

// List is the agents of the zone as this one knows them. All methods are safe for concurrent use.
type List struct {
	cfg     Config
	gossip  *memberlist.Memberlist
	changed chan struct{}
	alive   prometheus.Gauge

	mu    sync.Mutex
	known map[string]Member
}

// New listens on the agent's address. The error names a port that is taken.
func New(c Config) (*List, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	l := &List{cfg: c, changed: make(chan struct{}, 1), known: map[string]Member{}}
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

func (l *List) gossipConfig() (*memberlist.Config, error) {
	c := l.cfg
	ring, err := memberlist.NewKeyring(c.Keys[1:], c.Keys[0])
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
	mc.Name, mc.Label, mc.Keyring = c.Self.Name, c.Zone, ring
	mc.BindAddr, mc.BindPort = c.Address.Addr().String(), int(c.Address.Port())
	mc.AdvertiseAddr, mc.AdvertisePort = mc.BindAddr, mc.BindPort
	mc.ProbeInterval, mc.ProbeTimeout = c.Probe, c.Probe*3/5
	mc.SuspicionMult, mc.SuspicionMaxTimeoutMult = 3, 2
	mc.GossipInterval, mc.PushPullInterval = c.Probe/5, 30*c.Probe
	mc.GossipToTheDeadTime = 60 * c.Probe
	mc.DeadNodeReclaimTime = 10 * c.Probe
	mc.TCPTimeout = 10 * c.Probe
	w := &words{list: l, meta: meta}
	mc.Events, mc.Delegate, mc.Conflict = w, w, w
	mc.Logger = log.New(logWriter{log: c.Logger}, "", 0)
	return mc, nil
}

// Run looks for the agents of Join until ctx ends; then it says goodbye and stops listening.
func (l *List) Run(ctx context.Context) error {
	l.join()
	t := time.NewTicker(l.cfg.Retry)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.join()
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), l.stop())
		}
	}
}

// stop says goodbye to whoever is there.
func (l *List) stop() error {
	if err := l.gossip.Leave(2 * l.cfg.Probe); err != nil {
		l.cfg.Logger.Debug("the goodbye to the zone's other agents was not heard", "error", err)
	}
	return l.gossip.Shutdown()
}

// join tries the agents of Join that are not heard. Those that were cut off and given up are found again so, too.
func (l *List) join() {
	var missing []string
	heard := l.heard()
	for _, a := range l.cfg.Join {
		if !heard[a] {
			missing = append(missing, a.String())
		}
	}
	if len(missing) == 0 {
		return
	}
	if n, err := l.gossip.Join(missing); err != nil && n == 0 {
		l.cfg.Logger.Info("other agents of the zone are not found yet", "addresses", missing, "again_in", l.cfg.Retry, "error", err)
	}
}

// heard are the addresses of agents that are alive, this one among them.
func (l *List) heard() map[netip.AddrPort]bool {
	out := map[netip.AddrPort]bool{l.cfg.Address: true}
	for _, m := range l.Members() {
		out[m.Address] = out[m.Address] || m.Alive
	}
	return out
}

// Members are all agents ever heard of, by name, this one among them.
func (l *List) Members() []Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.known), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
}

// Changed holds a hint when Members may tell something new.
func (l *List) Changed() <-chan struct{} { return l.changed }

// Forget takes an agent off the list that is not alive and will not come back.
func (l *List) Forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known[name].Alive {
		delete(l.known, name)
	}
}

// note takes down what was heard of an agent.
func (l *List) note(n *memberlist.Node, alive bool) {
	m := Member{Alive: alive, Since: time.Now()}
	if err := json.Unmarshal(n.Meta, &m.Agent); err != nil && alive {
		l.cfg.Logger.Warn("an agent of the zone tells nothing of itself that is understood", "agent", n.Name, "error", err)
	}
	m.Name = n.Name
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
	l.cfg.Logger.Debug("heard of an agent", "agent", n.Name, "alive", alive, "address", m.Address)
	select {
	case l.changed <- struct{}{}:
	default:
	}
}
