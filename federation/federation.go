// Package federation is what the programs of a federation need to stand a broker between two networks. Around it:
// link is both ends of the link, wire says which frames may cross, hub is a server's side of a broker's hub leg, dial an
// agent's side of its zone leg.
package federation

import "github.com/naru-project/naru/federation/internal/broker"

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

// NewBroker makes a broker ready. Nothing listens before Run. A small federation runs one inside the control plane's
// process: give it a Pipe's Listener as Options.Hub.
func NewBroker(config Config, options Options) (*Broker, error) { return broker.New(config, options) }
