package dev

import "fmt"

// Network is one separated network of the site. Number 0 is the control network; the zones follow.
type Network struct {
	Name   string
	Number int
	// Port of the loopback window into it.
	Port int
}

// The networks of the reference site.
var (
	control  = Network{Name: "control", Number: 0, Port: 8445}
	zones    = []Network{{"internet", 1, 8446}, {"business", 2, 8447}, {"management", 3, 8448}}
	networks = append([]Network{control}, zones...)
)

// Addresses in a network, by who stands there.
const (
	brokerHost = 2
	agentHost  = 10
	serverHost = 10
	kvmHost    = 20
	deskHost   = 200
)

// address returns the address of the n-th machine. On loopback, where nothing is separated, the networks are told apart
// by the second byte only.
func (s *Site) address(n Network, host int) string {
	if s.Mode == Loopback {
		return fmt.Sprintf("127.90.%d.%d", n.Number, host)
	}
	return fmt.Sprintf("10.90.%d.%d", n.Number, host)
}

// guestAddress returns an address in the network's guest network.
func (s *Site) guestAddress(n Network, host int) string {
	if s.Mode == Loopback {
		return fmt.Sprintf("127.91.%d.%d", n.Number, host)
	}
	return fmt.Sprintf("10.91.%d.%d", n.Number, host)
}

// brokerHubHost is the last byte of a broker's address in the control network.
func brokerHubHost(n Network) int { return 20 + n.Number }

// agentsZone is the zone that may have several agents.
const agentsZone = "business"

// agents is how many agents a zone has.
func (o Options) agents(z Network) int {
	if z.Name == agentsZone {
		return max(o.Agents, 1)
	}
	return 1
}

// agentName names the process of a zone's i-th agent: agent-business, agent-business-2.
func agentName(z Network, i int) string {
	if i == 0 {
		return "agent-" + z.Name
	}
	return fmt.Sprintf("agent-%s-%d", z.Name, i+1)
}

// Cluster is one cluster of simulated hosts of the reference site.
type Cluster struct {
	Name, Purpose string
	Hosts         int
	Cores         uint32
	MemoryMiB     uint32
}

// reference is the site of the requirement A2: 53 servers, 480 cores.
var reference = map[string][]Cluster{
	"internet": {
		{"web", "WEB", 8, 8, 32768}, {"was", "WAS", 8, 8, 32768}, {"db", "DB", 8, 8, 32768}, {"test", "TEST", 6, 8, 32768},
	},
	"business": {
		{"web", "WEB", 4, 8, 32768}, {"was", "WAS", 4, 8, 32768}, {"db", "DB", 4, 8, 32768}, {"test", "TEST", 4, 8, 32768},
	},
	"management": {{"management", "Management", 7, 16, 65536}},
}
