package zoneagent

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"github.com/naru-project/naru/pkg/config"
	"github.com/naru-project/naru/pkg/obs"
)

// Config is an agent's configuration file. Unknown keys are errors.
type Config struct {
	// Name of the agent, unique in its zone: lower-case letters, digits and dashes.
	Name string `yaml:"name"`
	// Folder of everything the agent keeps: keys, and its part of the zone's etcd.
	Data string `yaml:"data"`
	// HOST:PORT of the zone legs of the brokers that lead to the control plane.
	Brokers []string `yaml:"brokers"`
	// Where the zone's users reach the API.
	Edge EdgeConfig `yaml:"edge"`
	// Where the zone's other agents reach this one.
	Agent ListenConfig `yaml:"agent"`
	// Where agents gossip about who is alive, IP:PORT; TCP and UDP. All agents of a zone use the same port.
	Gossip ListenConfig `yaml:"gossip"`
	// Agent addresses of others in the zone; empty for the first.
	Peers []string `yaml:"peers"`
	// Pin of the zone's authority, as the first agent prints it with: naru-zoneagent ca --pin. Needed with peers.
	ZonePin string     `yaml:"zone_pin"`
	Etcd    EtcdConfig `yaml:"etcd"`
	// The flat guest network.
	Network NetworkConfig `yaml:"network"`
	// Folder with images, each named by the SHA-256 of its file.
	Images  string        `yaml:"images"`
	Libvirt LibvirtConfig `yaml:"libvirt"`
	// Folder in which simulated hosts live on when the agent restarts; empty: they die with it.
	SimState string `yaml:"sim_state"`
	// How often hosts are looked at and their metrics taken.
	ObserveEvery time.Duration `yaml:"observe_every"`
	// HOST:PORT of /healthz, /readyz and /metrics; empty: none.
	MetricsAddress string        `yaml:"metrics_address"`
	Log            obs.LogConfig `yaml:"log"`
}

// ListenConfig is where something listens.
type ListenConfig struct {
	// HOST:PORT to listen on, and at which others reach it.
	Address string `yaml:"address"`
}

// EdgeConfig is where the zone's users reach the API.
type EdgeConfig struct {
	// HOST:PORT to listen on.
	Address string `yaml:"address"`
	// DNS names and addresses, besides that of address, for which its certificate is good.
	Names []string `yaml:"names"`
	// How long the link is down before the zone's own operators can log in here.
	LocalLoginAfter time.Duration `yaml:"local_login_after"`
}

// EtcdConfig says where the zone's etcd is. Without endpoints it is embedded in the agents.
type EtcdConfig struct {
	// URLs of an etcd of the operator's own.
	Endpoints []string `yaml:"endpoints"`
	// PEM files for it.
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// IP:PORT of the embedded member, towards clients and towards other members.
	ClientAddress string `yaml:"client_address"`
	PeerAddress   string `yaml:"peer_address"`
	// Raft's times within it; 0: 100ms and 1s.
	Tick     time.Duration `yaml:"tick"`
	Election time.Duration `yaml:"election"`
}

// NetworkConfig is the zone's flat guest network.
type NetworkConfig struct {
	// Bridge on the hosts.
	Bridge string `yaml:"bridge"`
	// 10.91.2.0/24; empty: guests ask DHCP.
	CIDR        netip.Prefix `yaml:"cidr"`
	Gateway     netip.Addr   `yaml:"gateway"`
	First       netip.Addr   `yaml:"first"`
	Last        netip.Addr   `yaml:"last"`
	Nameservers []netip.Addr `yaml:"nameservers"`
}

// LibvirtConfig is how hosts of the driver libvirt are used.
type LibvirtConfig struct {
	// Folder on the hosts for disks and images.
	PoolPath string `yaml:"pool_path"`
}

// LoadConfig reads and checks the file at path.
func LoadConfig(path string) (*Config, error) {
	c := &Config{Edge: EdgeConfig{LocalLoginAfter: 30 * time.Second}, ObserveEvery: 5 * time.Second, Libvirt: LibvirtConfig{PoolPath: "/var/lib/naru"}}
	if err := config.Load(path, c); err != nil {
		return nil, err
	}
	for key, value := range map[string]string{
		"name": c.Name, "data": c.Data, "edge.address": c.Edge.Address, "agent.address": c.Agent.Address, "gossip.address": c.Gossip.Address,
	} {
		if value == "" {
			return nil, fmt.Errorf("configuration %s: key %q is missing", path, key)
		}
	}
	if len(c.Etcd.Endpoints) == 0 && (c.Etcd.ClientAddress == "" || c.Etcd.PeerAddress == "") {
		return nil, fmt.Errorf("configuration %s: etcd needs client_address and peer_address for the embedded member, or endpoints of your own", path)
	}
	for key, address := range map[string]string{
		"edge.address": c.Edge.Address, "agent.address": c.Agent.Address, "gossip.address": c.Gossip.Address,
		"etcd.client_address": c.Etcd.ClientAddress, "etcd.peer_address": c.Etcd.PeerAddress, "metrics_address": c.MetricsAddress,
	} {
		if _, _, err := net.SplitHostPort(address); address != "" && err != nil {
			return nil, fmt.Errorf("configuration %s: key %q: %q is not HOST:PORT", path, key, address)
		}
	}
	if c.Edge.LocalLoginAfter < 0 {
		return nil, fmt.Errorf("configuration %s: key %q: %s is less than nothing", path, "edge.local_login_after", c.Edge.LocalLoginAfter)
	}
	// Members of gossip and of etcd know one another by these, and would part if a name meant another address tomorrow.
	for key, address := range map[string]string{
		"gossip.address": c.Gossip.Address, "etcd.client_address": c.Etcd.ClientAddress, "etcd.peer_address": c.Etcd.PeerAddress,
	} {
		if a, err := netip.ParseAddrPort(address); address != "" && (err != nil || a.Addr().IsUnspecified() || a.Port() == 0) {
			return nil, fmt.Errorf("configuration %s: key %q: %q is not IP:PORT of this machine in the zone's network; a host name will not do here",
				path, key, address)
		}
	}
	for _, endpoint := range c.Etcd.Endpoints {
		if u, err := url.Parse(endpoint); err != nil || u.Host == "" {
			return nil, fmt.Errorf("configuration %s: key \"etcd.endpoints\": %q is not a URL", path, endpoint)
		}
	}
	if len(c.Brokers) == 0 {
		return nil, fmt.Errorf("configuration %s: key \"brokers\" is missing: HOST:PORT of the zone leg of the broker before this zone", path)
	}
	if len(c.Peers) > 0 && c.ZonePin == "" {
		return nil, fmt.Errorf("configuration %s: with peers, zone_pin is needed; read it at another agent: naru-zoneagent ca --pin", path)
	}
	return c, nil
}

func (c *Config) keys() string { return filepath.Join(c.Data, "keys") }

// gossipPeers are where the zone's other agents gossip.
func (c *Config) gossipPeers() []string {
	_, port, _ := net.SplitHostPort(c.Gossip.Address)
	var out []string
	for _, p := range c.Peers {
		if host, _, err := net.SplitHostPort(p); err == nil {
			out = append(out, net.JoinHostPort(host, port))
		}
	}
	return out
}

// names splits the names of the edge's certificate into DNS names and addresses.
func (c *Config) names() (dns []string, ips []net.IP) {
	host, _, _ := net.SplitHostPort(c.Edge.Address)
	for _, n := range append([]string{host}, c.Edge.Names...) {
		if ip := net.ParseIP(n); ip != nil {
			ips = append(ips, ip)
		} else if n != "" {
			dns = append(dns, n)
		}
	}
	return dns, ips
}
