package members

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says who this agent is among the others.
type Config struct {
	// Name is the agent's, unique in the zone.
	Name string
	// Address is IP:port in the zone's network, for UDP and TCP.
	Address string
	// Key encrypts what is said: 16, 24 or 32 bytes. OldKeys are understood besides, while a key is being replaced.
	Key     []byte
	OldKeys [][]byte
	// Self is what the others are told of this agent.
	Self Member
	// Join are gossip addresses of other agents, tried again and again until they are heard.
	Join []string
	// Probe is how often another agent is asked whether it lives (500 ms by default). One that is silent counts as dead
	// after about five times as long.
	Probe time.Duration
	// Retry is how often agents of Join that are not heard are tried (5 s by default).
	Retry time.Duration
	Log   *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// Member is an agent of the zone, as it tells of itself and as it is heard.
type Member struct {
	Name string `json:"-"`
	// Agent, EtcdPeer and EtcdClient are where its own service and its member of etcd listen: IP:port.
	Agent      string `json:"agent,omitempty"`
	EtcdPeer   string `json:"etcd_peer,omitempty"`
	EtcdClient string `json:"etcd_client,omitempty"`
	// Version of the program.
	Version string `json:"version,omitempty"`

	// Address is where it gossips.
	Address netip.AddrPort `json:"-"`
	// Alive is false once it has said goodbye or fallen silent; Since is when that was first heard.
	Alive bool      `json:"-"`
	Since time.Time `json:"-"`
}

func (c Config) withDefaults() Config {
	if c.Probe == 0 {
		c.Probe = 500 * time.Millisecond
	}
	if c.Retry == 0 {
		c.Retry = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// check returns the address that is listened on.
func (c Config) check() (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(c.Address)
	switch {
	case c.Name == "":
		return address, errors.New("an agent among others needs a name")
	case err != nil || address.Addr().IsUnspecified():
		return address, fmt.Errorf("gossip address %q: it is IP:port of this machine in the zone's network, never all its networks", c.Address)
	case len(c.Key) == 0:
		return address, errors.New("the zone's gossip key is missing: nothing is said in the clear")
	}
	return address, nil
}
