package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/pki"
)

// Config is what an operator tells a broker. Begin with DefaultConfig.
type Config struct {
	// StateDir is the folder for the broker's key and certificate chain; nothing else is kept. Required.
	StateDir string `yaml:"state_dir"`
	// TrustPin names the root of the federation, as the control plane prints it: sha256: and 64 hexadecimal digits.
	// Required.
	TrustPin string `yaml:"trust_pin"`
	// ZoneListen is HOST:PORT of the leg in the zone's network, which agents dial. Required, except where the listener
	// is given.
	ZoneListen string `yaml:"zone_listen"`
	// HubListen is HOST:PORT of the leg in the control network, which servers dial. Required, except where the listener
	// is given.
	HubListen string `yaml:"hub_listen"`
	// AdminListen is HOST:PORT for /healthz and /metrics, in the control network. Empty: there is none.
	AdminListen string `yaml:"admin_listen"`
	// Limits bound what the zone side may ask of the broker.
	Limits Limits `yaml:"limits"`
	// Patience is how long the broker waits for others.
	Patience Patience `yaml:"patience"`
	// Log is how the program around the broker logs.
	Log obs.LogConfig `yaml:"log"`
}

// Limits bound what the zone side may ask of the broker.
type Limits struct {
	// Connections to the zone leg at one time. Default 4096.
	Connections int `yaml:"connections"`
	// ConnectionsPerAddress at one time; an IPv6 /64 counts as one address. Default 64.
	ConnectionsPerAddress int `yaml:"connections_per_address"`
	// JoinsPerMinute, of all strangers together. Default 120.
	JoinsPerMinute int `yaml:"joins_per_minute"`
	// JoinsPerMinutePerAddress. Default 30.
	JoinsPerMinutePerAddress int `yaml:"joins_per_minute_per_address"`
	// RenewalsPerMinutePerZone. Default 30.
	RenewalsPerMinutePerZone int `yaml:"renewals_per_minute_per_zone"`
	// SessionsPerZone at one time. Default 8.
	SessionsPerZone int `yaml:"sessions_per_zone"`
	// FramesPerSecondPerZone, up. Default 5000.
	FramesPerSecondPerZone int `yaml:"frames_per_second_per_zone"`
	// MiBPerSecondPerZone, up. Default 64.
	MiBPerSecondPerZone int `yaml:"mib_per_second_per_zone"`
}

// Patience is how long the broker waits for others.
type Patience struct {
	// Handshake bounds a TLS handshake on the zone leg. Default 10s.
	Handshake time.Duration `yaml:"handshake"`
	// Hello bounds the wait for a session's first frame. Default 10s.
	Hello time.Duration `yaml:"hello"`
	// Offer bounds the wait for one server to take up a session; then another is asked. Default 2s.
	Offer time.Duration `yaml:"offer"`
	// TakeUp bounds the wait for any server to take up a session. Default 10s.
	TakeUp time.Duration `yaml:"take_up"`
	// Query bounds the wait for a server's answer to a join or a renewal. Default 10s.
	Query time.Duration `yaml:"query"`
}

// DefaultConfig is a Config with every default.
func DefaultConfig() Config {
	return Config{
		Limits: Limits{
			Connections: 4096, ConnectionsPerAddress: 64,
			JoinsPerMinute: 120, JoinsPerMinutePerAddress: 30, RenewalsPerMinutePerZone: 30,
			SessionsPerZone: 8, FramesPerSecondPerZone: 5000, MiBPerSecondPerZone: 64,
		},
		Patience: Patience{
			Handshake: 10 * time.Second, Hello: 10 * time.Second, Offer: 2 * time.Second,
			TakeUp: 10 * time.Second, Query: 10 * time.Second,
		},
	}
}

// Options is what the program around a broker gives it.
type Options struct {
	// Logger; nil is silent.
	Logger *slog.Logger
	// Registerer takes the metrics; nil keeps them to the broker.
	Registerer prometheus.Registerer
	// Gatherer is what /metrics shows; needed where Config.AdminListen or Admin is set.
	Gatherer prometheus.Gatherer
	// Zone, Hub and Admin stand in place of the addresses to listen on. Run closes them.
	Zone, Hub, Admin net.Listener
	// Version is told to servers.
	Version string
	// Now is time.Now where it is nil.
	Now func() time.Time
}

// check names every key that is missing or cannot be.
func (c *Config) check(o *Options) error {
	var errs []error
	complain := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	complain(c.StateDir == "", "state_dir: say where the broker may keep its key and certificate")
	if err := pki.CheckPin(c.TrustPin); err != nil {
		errs = append(errs, fmt.Errorf("trust_pin: %w; the control plane prints it when it is set up", err))
	}
	complain(c.ZoneListen == "" && o.Zone == nil, "zone_listen: say HOST:PORT for the leg in the zone's network")
	complain(c.HubListen == "" && o.Hub == nil, "hub_listen: say HOST:PORT for the leg in the control network")
	complain(c.ZoneListen != "" && c.ZoneListen == c.HubListen, "zone_listen and hub_listen are the same address: a broker has a leg in each network")
	complain((c.AdminListen != "" || o.Admin != nil) && o.Gatherer == nil, "admin_listen: there is nothing to show as /metrics")
	for key, n := range map[string]int{
		"connections": c.Limits.Connections, "connections_per_address": c.Limits.ConnectionsPerAddress,
		"joins_per_minute": c.Limits.JoinsPerMinute, "joins_per_minute_per_address": c.Limits.JoinsPerMinutePerAddress,
		"renewals_per_minute_per_zone": c.Limits.RenewalsPerMinutePerZone, "sessions_per_zone": c.Limits.SessionsPerZone,
		"frames_per_second_per_zone": c.Limits.FramesPerSecondPerZone, "mib_per_second_per_zone": c.Limits.MiBPerSecondPerZone,
	} {
		complain(n < 1, "limits.%s: %d is too few", key, n)
	}
	for key, d := range map[string]time.Duration{
		"handshake": c.Patience.Handshake, "hello": c.Patience.Hello, "offer": c.Patience.Offer,
		"take_up": c.Patience.TakeUp, "query": c.Patience.Query,
	} {
		complain(d <= 0, "patience.%s: %s is no time to wait", key, d)
	}
	return errors.Join(errs...)
}
