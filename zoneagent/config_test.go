package zoneagent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const good = `
name: agent-1
data: /var/lib/naru/zoneagent
brokers: ["broker.example:7443"]
edge: {address: "edge.example:8443", names: [api.example, 192.0.2.7]}
agent: {address: "agent-1.example:7445"}
gossip: {address: "192.0.2.10:7946"}
etcd: {client_address: "192.0.2.10:2379", peer_address: "192.0.2.10:2380"}
`

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "zoneagent.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(file)
}

func TestAConfigurationThatIsRightIsTaken(t *testing.T) {
	c, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if c.ObserveEvery == 0 || c.Libvirt.PoolPath == "" {
		t.Errorf("defaults are missing: %+v", c)
	}
	dns, ips := c.names()
	if !slices.Equal(dns, []string{"edge.example", "api.example"}) || len(ips) != 1 || ips[0].String() != "192.0.2.7" {
		t.Errorf("the edge's certificate is for %v and %v", dns, ips)
	}
}

func TestEachMistakeInAConfigurationIsNamed(t *testing.T) {
	for want, change := range map[string][2]string{
		`key "name" is missing`:                                          {"name: agent-1", ""},
		`key "data" is missing`:                                          {"data: /var/lib/naru/zoneagent", ""},
		`key "gossip.address" is missing`:                                {"192.0.2.10:7946", ""},
		`key "brokers" is missing`:                                       {`brokers: ["broker.example:7443"]`, ""},
		`key "edge.address": "edge" is not HOST:PORT`:                    {"edge.example:8443", "edge"},
		`key "gossip.address": "agent-1.example:7946" is not IP:PORT`:    {"192.0.2.10:7946", "agent-1.example:7946"},
		`key "gossip.address": "0.0.0.0:7946" is not IP:PORT`:            {"192.0.2.10:7946", "0.0.0.0:7946"},
		`key "etcd.client_address": "agent.example:2379" is not IP:PORT`: {"192.0.2.10:2379", "agent.example:2379"},
		`key "etcd.peer_address": "192.0.2.10:0" is not IP:PORT`:         {"192.0.2.10:2380", "192.0.2.10:0"},
		"or endpoints of your own":                                       {`client_address: "192.0.2.10:2379", `, ""},
		`key "etcd.endpoints": "etcd" is not a URL`:                      {"etcd: {", "etcd: {endpoints: [etcd], "},
		"zone_pin is needed":                                             {"brokers:", "peers: [\"192.0.2.11:7445\"]\nbrokers:"},
		"colour":                                                         {"brokers:", "colour: red\nbrokers:"},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if text == good {
			t.Fatalf("%s: nothing was changed", want)
		}
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}

func TestOtherAgentsGossipAtTheSamePort(t *testing.T) {
	c := &Config{Gossip: ListenConfig{Address: "192.0.2.10:7946"}, Peers: []string{"192.0.2.11:7445", "agent-3.example:7445", "nonsense"}}
	if got := c.gossipPeers(); !slices.Equal(got, []string{"192.0.2.11:7946", "agent-3.example:7946"}) {
		t.Errorf("peers are %v", got)
	}
}

// What another agent told of etcd is kept for the next start, and a recovered agent looks nowhere but at itself.
func TestWhereEtcdIsIsKept(t *testing.T) {
	c := &Config{Data: t.TempDir(), Etcd: EtcdConfig{ClientAddress: "192.0.2.10:2379"}}
	if kept, err := c.keptEndpoints(); kept != nil || err != nil {
		t.Errorf("at the first agent: %v, %v", kept, err)
	}
	if err := c.standAlone(); err != nil {
		t.Fatal(err)
	}
	if kept, err := c.keptEndpoints(); kept != nil || err != nil {
		t.Errorf("the first agent needs none: %v, %v", kept, err)
	}
	if err := c.keepEndpoints([]string{"https://192.0.2.11:2379"}); err != nil {
		t.Fatal(err)
	}
	if err := c.standAlone(); err != nil {
		t.Fatal(err)
	}
	if kept, err := c.keptEndpoints(); err != nil || !slices.Equal(kept, []string{"https://192.0.2.10:2379"}) {
		t.Errorf("recovered: %v, %v", kept, err)
	}
	if err := os.WriteFile(c.endpointsFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.keptEndpoints(); err == nil || !strings.Contains(err.Error(), "is damaged; remove it") {
		t.Errorf("damaged: %v", err)
	}
}

// P16: nothing but a digest in the image folder is ever opened.
func TestNoNameLeadsOutOfTheImageFolder(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "images")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(dir, "secret"), filepath.Join(store, "ab")} {
		if err := os.WriteFile(file, []byte("bits"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(store, "link")); err != nil {
		t.Fatal(err)
	}
	f, err := images(store).Open(t.Context(), "ab")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, name := range []string{"../secret", "link", filepath.Join(dir, "secret")} {
		if f, err := images(store).Open(t.Context(), name); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	if _, err := images(store).Open(t.Context(), "cd"); err == nil || !strings.Contains(err.Error(), "has no image cd") {
		t.Errorf("an image that is not there: %v", err)
	}
}
