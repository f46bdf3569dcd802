package controlplane

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/replica"
	"github.com/naru-project/naru/pkg/config"
	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/pki"
)

// Config is a server's configuration file. Unknown keys are errors.
type Config struct {
	// Name of the server, unique in the federation: lower-case letters, digits and dashes.
	Name string `yaml:"name"`
	// Folder of everything the server keeps: keys, log, snapshots, state.
	Data string `yaml:"data"`
	// Where administrators and the portal reach the API.
	API APIConfig `yaml:"api"`
	// Where the other servers reach this one.
	Peer PeerConfig `yaml:"peer"`
	// A broker inside this process, for federations that have none of their own before some zone.
	Broker BrokerConfig `yaml:"broker"`
	// How long the link certificates live that this server issues to agents: 24h where it is not said, which is the most.
	LinkLifetime time.Duration `yaml:"link_lifetime"`
	// Where notification channels may lead.
	Notifications NotificationsConfig `yaml:"notifications"`
	// Where identity providers may lead, and how often they are asked.
	IdentityProviders ProvidersConfig `yaml:"identity_providers"`
	Raft              replica.Tuning  `yaml:"raft"`
	Log               obs.LogConfig   `yaml:"log"`
}

// APIConfig is where the API listens.
type APIConfig struct {
	// HOST:PORT to listen on.
	Address string `yaml:"address"`
	// HOST:PORT that is shown to people; empty: as address.
	Advertise string `yaml:"advertise"`
	// DNS names and addresses, besides that of address, for which its certificate is good.
	Names []string `yaml:"names"`
}

// PeerConfig is where the server's peers find it.
type PeerConfig struct {
	// HOST:PORT to listen on.
	Address string `yaml:"address"`
	// HOST:PORT at which the other servers reach it; empty: as address.
	Advertise string `yaml:"advertise"`
}

// BrokerConfig is the broker inside the process.
type BrokerConfig struct {
	// HOST:PORT of its leg towards zones; empty: there is none.
	Address string `yaml:"address"`
}

// NotificationsConfig is where notification channels may lead.
type NotificationsConfig struct {
	// Networks, as 127.0.0.0/8, to which channels may lead although they are refused otherwise: this machine, link-local addresses,
	// and those at which clouds answer with a machine's credentials.
	Allow []string `yaml:"allow"`
}

// ProvidersConfig is where identity providers may lead, and how often they are asked.
type ProvidersConfig struct {
	// How long lies between two rounds of asking directories who is still there: 2m where it is not said.
	AskEvery time.Duration `yaml:"ask_every"`
	// Networks, as 127.0.0.0/8, to which identity providers may lead although they are refused otherwise: as of notifications.
	Allow []string `yaml:"allow"`
}

// networks are those that are allowed; what is none LoadConfig has refused.
func networks(allow []string) (out outbound.Networks) {
	for _, text := range allow {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// shortestLink leaves a holder the time to renew.
const shortestLink = 10 * time.Second

// LoadConfig reads and checks the file at path.
func LoadConfig(path string) (*Config, error) {
	c := &Config{LinkLifetime: pki.LinkTTL, IdentityProviders: ProvidersConfig{AskEvery: 2 * time.Minute}}
	if err := config.Load(path, c); err != nil {
		return nil, err
	}
	for key, value := range map[string]string{"name": c.Name, "data": c.Data, "api.address": c.API.Address, "peer.address": c.Peer.Address} {
		if value == "" {
			return nil, fmt.Errorf("configuration %s: key %q is missing", path, key)
		}
	}
	for key, address := range map[string]string{"api.address": c.API.Address, "peer.address": c.Peer.Address, "broker.address": c.Broker.Address} {
		if _, _, err := net.SplitHostPort(address); address != "" && err != nil {
			return nil, fmt.Errorf("configuration %s: key %q: %q is not HOST:PORT", path, key, address)
		}
	}
	for key, allow := range map[string][]string{"notifications.allow": c.Notifications.Allow, "identity_providers.allow": c.IdentityProviders.Allow} {
		for _, text := range allow {
			if _, err := netip.ParsePrefix(text); err != nil {
				return nil, fmt.Errorf("configuration %s: key %q: %q is no network; write it as 127.0.0.0/8", path, key, text)
			}
		}
	}
	if c.LinkLifetime < shortestLink || c.LinkLifetime > pki.LinkTTL {
		return nil, fmt.Errorf("configuration %s: key %q: %v is no life of a link certificate; choose one from %v to %v",
			path, "link_lifetime", c.LinkLifetime, shortestLink, pki.LinkTTL)
	}
	if every := c.IdentityProviders.AskEvery; every < time.Second || every > time.Hour {
		return nil, fmt.Errorf("configuration %s: key %q: %v lies between two rounds; choose from 1s to 1h", path, "identity_providers.ask_every", every)
	}
	if c.API.Advertise == "" {
		c.API.Advertise = c.API.Address
	}
	if c.Peer.Advertise == "" {
		c.Peer.Advertise = c.Peer.Address
	}
	return c, nil
}

// names splits the names of the API's certificate into DNS names and addresses.
func (c *Config) names() (dns []string, ips []net.IP) {
	host, _, _ := net.SplitHostPort(c.API.Address)
	advertised, _, _ := net.SplitHostPort(c.API.Advertise)
	for _, n := range append([]string{host, advertised}, c.API.Names...) {
		if ip := net.ParseIP(n); ip != nil {
			ips = append(ips, ip)
		} else if n != "" {
			dns = append(dns, n)
		}
	}
	return dns, ips
}

func (c *Config) keys() string  { return filepath.Join(c.Data, "keys") }
func (c *Config) raft() string  { return filepath.Join(c.Data, "raft") }
func (c *Config) state() string { return filepath.Join(c.Data, "state.db") }
