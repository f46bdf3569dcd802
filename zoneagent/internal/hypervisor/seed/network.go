package seed

import (
	"fmt"
	"net"

	"go.yaml.in/yaml/v3"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// networkConfig returns the network configuration, version 2, of the machine's one card, found by its MAC and not by a
// name that depends on the guest's slots. Without an address the guest asks by DHCP.
func networkConfig(m hypervisor.Machine) ([]byte, error) {
	mac, err := net.ParseMAC(m.MAC)
	if err != nil {
		return nil, fmt.Errorf("mac: %w", err)
	}
	card := mapping("match", mapping("macaddress", quoted(mac.String())))
	add := func(key string, value *yaml.Node) {
		card.Content = append(card.Content, mapping(key, value).Content...)
	}
	if m.Address.IsValid() {
		add("addresses", sequence(quoted(m.Address.String())))
	} else {
		add("dhcp4", &yaml.Node{Kind: yaml.ScalarNode, Value: "true"})
	}
	if m.Gateway.IsValid() {
		everywhere := "0.0.0.0/0"
		if m.Gateway.Is6() {
			everywhere = "::/0"
		}
		add("routes", sequence(mapping("to", quoted(everywhere), "via", quoted(m.Gateway.String()))))
	}
	if len(m.Nameservers) > 0 {
		servers := sequence()
		for _, server := range m.Nameservers {
			if !server.IsValid() {
				return nil, fmt.Errorf("nameserver: %s", server)
			}
			servers.Content = append(servers.Content, quoted(server.String()))
		}
		add("nameservers", mapping("addresses", servers))
	}
	return encode(mapping(
		"version", &yaml.Node{Kind: yaml.ScalarNode, Value: "2"},
		"ethernets", mapping("primary", card),
	))
}
