// Package federation is what the programs of a federation need to stand a broker between two networks. Around it:
// link is both ends of the link, wire says which frames may cross, hub is a server's side of a broker's hub leg, dial an
// agent's side of its zone leg.
package federation

import (
	"context"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/naru-project/naru/federation/internal/broker"
	"github.com/naru-project/naru/pkg/config"
	"github.com/naru-project/naru/pkg/folderlock"
	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/version"
)

type (
	// Config is what an operator tells a broker.
	Config = broker.Config
	// Limits bound what the zone side may ask of a broker.
	Limits = broker.Limits
	// Patience is how long a broker waits for others.
	Patience = broker.Patience
	// Options is what the program around a broker gives it.
	Options = broker.Options
	// Broker is one broker: Run(ctx) error, Fingerprint() string, Enrolled() bool.
	Broker = broker.Broker
)

// DefaultConfig is a Config with every default.
func DefaultConfig() Config { return broker.DefaultConfig() }

// LoadConfig reads the file at path over the defaults. What it says is checked by NewBroker.
func LoadConfig(path string) (*Config, error) {
	c := DefaultConfig()
	return &c, config.Load(path, &c)
}

// NewBroker makes a broker ready. Nothing listens before Run. A small federation runs one inside the control plane's
// process: give it a Pipe's Listener as Options.Hub.
func NewBroker(config Config, options Options) (*Broker, error) { return broker.New(config, options) }

// Run is a broker with a process of its own, until ctx ends or the broker cannot go on; it returns why, nil when ctx ended.
func Run(ctx context.Context, c *Config, log *slog.Logger) error {
	registry := obs.NewRegistry()
	b, err := NewBroker(*c, Options{Logger: log, Registerer: registry, Gatherer: registry, Version: version.Version})
	if err != nil {
		return err
	}
	lock, err := folderlock.Take(c.StateDir)
	if err != nil {
		return err
	}
	defer lock.Release()
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return b.Run(running) })
	g.Go(func() error { return obs.ServeProfiles(running, c.StateDir) })
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	log.Info("broker ended")
	return nil
}

// Fingerprint returns that of the broker's key, which is made where there is none.
func Fingerprint(c *Config, log *slog.Logger) (string, error) {
	b, err := NewBroker(*c, Options{Logger: log, Gatherer: obs.NewRegistry()})
	if err != nil {
		return "", err
	}
	return b.Fingerprint(), nil
}
