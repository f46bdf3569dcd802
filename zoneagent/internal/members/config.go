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
	// Zone is the zone's id: agents of another do not hear this one.
	Zone string
	// Address is IP:port in the zone's network, for UDP and TCP.
	Address netip.AddrPort
	// Keys encrypt what is said; the first is used, the others are understood. 16, 24 or 32 bytes each, at least one.
	Keys [][]byte
	// Self is what the others are told of this agent.
	Self Agent
	// Join are addresses of other agents, tried again and again until they are found.
	Join []netip.AddrPort
	// Probe is how often another agent is asked whether it lives (500 ms by default). One that is silent counts as dead
	// after about five times as long.
	Probe time.Duration
	// Retry is how often agents of Join that are not found are tried (5 s by default).
	Retry  time.Duration
	Logger *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// Agent is what agents tell of themselves.
type Agent struct {
	// Name is unique in the zone.
	Name string `json:"-"`
	// API, Peer and Client are IP:port: the agents' own service, and etcd's member.
	API    string `json:"api,omitempty"`
	Peer   string `json:"peer,omitempty"`
	Client string `json:"client,omitempty"`
	// Version of the program.
	Version string `json:"version,omitempty"`
}

func (c Config) withDefaults() Config {
	if c.Probe == 0 {
		c.Probe = 500 * time.Millisecond
	}
	if c.Retry == 0 {
		c.Retry = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	switch {
	case c.Zone == "" || c.Self.Name == "":
		return errors.New("an agent among others needs the zone's id and a name")
	case !c.Address.IsValid() || c.Address.Addr().IsUnspecified():
		return fmt.Errorf("gossip address %s: it is IP:port of this machine in the zone's network, never all its networks", c.Address)
	case len(c.Keys) == 0:
		return errors.New("the zone's gossip key is missing: nothing is said in the clear")
	}
	return nil
}
