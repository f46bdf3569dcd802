// Package members is how the agents of one zone find one another and notice that one is gone: memberlist, inside the zone
// only, encrypted under a key that agents of the zone alone hold. What it says is a hint. Who may act is decided by
// elections in the zone's store, never here.
package members

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Member is one agent, as it told of itself.
type Member struct {
	Name string `json:"name"`
	// Agent is HOST:PORT where it answers other agents; EtcdPeer and EtcdClient are where its etcd member listens, or would.
	Agent      string `json:"agent"`
	EtcdPeer   string `json:"etcd_peer"`
	EtcdClient string `json:"etcd_client"`
	Version    string `json:"version"`
	// Alive is false for one that has fallen silent, or has left, since this agent started.
	Alive bool `json:"-"`
}

// Config is what Members is made of.
type Config struct {
	// Name of this agent, unique in the zone.
	Name string
	// Address is HOST:PORT to gossip at, TCP and UDP; others reach it there.
	Address string
	// Key encrypts and authenticates: 32 bytes.
	Key []byte
	// Join are the gossip addresses of others; one that answers is enough.
	Join []string
	// Self is what the others are told.
	Self Member
	Log  *slog.Logger
	// Quick makes failure detection fast enough for tests.
	Quick bool
}

// Members is the zone's agents as this one hears of them. Safe for concurrent use.
type Members struct {
	config Config
	list   *memberlist.Memberlist

	closing sync.Once
	closed  error

	mu      sync.Mutex
	known   map[string]Member
	changed chan struct{}
}

// New begins to listen; Run joins the others.
func New(c Config) (*Members, error) {
	host, portText, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w; want HOST:PORT", c.Address, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: the port is not a number", c.Address)
	}
	c.Self.Name = c.Name
	meta, err := json.Marshal(c.Self)
	if err != nil {
		return nil, err
	}
	if len(meta) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("what agent %s tells of itself takes %d bytes; gossip carries %d: give it shorter addresses", c.Name, len(meta), memberlist.MetaMaxSize)
	}
	m := &Members{config: c, known: map[string]Member{}, changed: make(chan struct{}, 1)}
	l := memberlist.DefaultLANConfig()
	if c.Quick {
		l = memberlist.DefaultLocalConfig()
		l.ProbeInterval, l.ProbeTimeout, l.SuspicionMult, l.GossipInterval = 100*time.Millisecond, 50*time.Millisecond, 2, 20*time.Millisecond
	}
	l.Name, l.BindAddr, l.AdvertiseAddr, l.BindPort, l.AdvertisePort = c.Name, host, host, port, port
	l.SecretKey = c.Key
	l.Delegate, l.Events = told(meta), heard{m}
	l.Logger = slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug)
	l.LogOutput = nil
	if m.list, err = memberlist.Create(l); err != nil {
		return nil, fmt.Errorf("gossip at %s: %w; stop what holds the port, or configure another", c.Address, err)
	}
	return m, nil
}

// Members returns all agents that were heard of since this one started, by name, this one among them.
func (m *Members) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Member, 0, len(m.known))
	for _, k := range m.known {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Changed is level-triggered: receive, then read Members.
func (m *Members) Changed() <-chan struct{} { return m.changed }

// joinEvery is how often an agent that hears of nobody asks again.
const joinEvery = 3 * time.Second

// Run joins the others, and joins them again when it has lost them all, until ctx ends; then it leaves.
func (m *Members) Run(ctx context.Context) error {
	for {
		if len(m.config.Join) > 0 && m.list.NumMembers() < 2 {
			if _, err := m.list.Join(m.config.Join); err != nil {
				m.config.Log.Info("no other agent of the zone answers", "asked", m.config.Join, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), m.Close())
		case <-time.After(joinEvery/2 + rand.N(joinEvery)):
		}
	}
}

// Close tells the others that this agent leaves, and ends the gossip. It may be called more than once.
func (m *Members) Close() error {
	m.closing.Do(func() {
		if err := m.list.Leave(time.Second); err != nil {
			m.config.Log.Debug("leave the zone's agents", "error", err)
		}
		m.closed = m.list.Shutdown()
	})
	return m.closed
}

func (m *Members) hear(n *memberlist.Node, alive bool) {
	member := Member{}
	if err := json.Unmarshal(n.Meta, &member); err != nil || member.Name != n.Name {
		m.config.Log.Warn("an agent tells nonsense of itself", "agent", n.Name)
		return
	}
	member.Alive = alive
	m.mu.Lock()
	m.known[n.Name] = member
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// heard takes memberlist's events.
type heard struct{ m *Members }

func (h heard) NotifyJoin(n *memberlist.Node)   { h.m.hear(n, true) }
func (h heard) NotifyUpdate(n *memberlist.Node) { h.m.hear(n, true) }
func (h heard) NotifyLeave(n *memberlist.Node)  { h.m.hear(n, false) }

// told is what the others are told of this agent; nothing else is gossiped.
type told []byte

func (t told) NodeMeta(int) []byte           { return t }
func (told) NotifyMsg([]byte)                {}
func (told) GetBroadcasts(int, int) [][]byte { return nil }
func (told) LocalState(bool) []byte          { return nil }
func (told) MergeRemoteState([]byte, bool)   {}
