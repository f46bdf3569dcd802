package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
)

// Options say what to bring up.
type Options struct {
	// Servers of the control plane: 1 or 3.
	Servers int
	// WithoutLibvirt leaves the real hosts out; the walk then asks for a simulated one.
	WithoutLibvirt bool
	// Fleet is how many simulated hosts the business zone has besides, in a cluster of its own, with a guest network to match.
	Fleet int
	// Agents of zone business: 1 to 5. The other zones have one.
	Agents int
}

// Up brings the site up, from whatever a killed run left, to the point where `naru` can be used in every network.
func (s *Site) Up(ctx context.Context, o Options) error {
	if err := s.Down(ctx); err != nil {
		return fmt.Errorf("clear what an earlier run left: %w", err)
	}
	for _, step := range []struct {
		what string
		do   func(context.Context, Options) error
	}{
		{"networks", s.layNetworks},
		{"control plane", s.raiseControlPlane},
		{"brokers", s.raiseBrokers},
		{"zones", s.raiseZones},
		{"hosts", s.raiseHosts},
		{"catalogue", s.fillCatalogue},
		{"people", s.letPeopleIn},
		{"hosts", s.awaitHosts},
	} {
		if err := step.do(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return s.save()
}

// Down ends the site and leaves nothing behind: no process, no namespace, no mount, no domain, no data.
func (s *Site) Down(ctx context.Context) error {
	if err := s.endAll(ctx); err != nil {
		return err
	}
	if err := s.endStrays(ctx); err != nil {
		return err
	}
	if err := s.liftNetworks(ctx); err != nil {
		return err
	}
	var errs []error
	for _, sub := range []string{"run", "cli", "config", "data"} {
		errs = append(errs, os.RemoveAll(s.path(sub)), os.MkdirAll(s.path(sub), 0o700))
	}
	logs, _ := filepath.Glob(s.path("log", "*.log"))
	for _, l := range logs {
		errs = append(errs, os.Rename(l, l+".last"))
	}
	if err := os.Remove(s.path("site.json")); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// federation is the trust domain of the site.
const federation = "naru.test"

func (s *Site) raiseControlPlane(ctx context.Context, o Options) error {
	var targets []string
	for i := range o.Servers {
		name, address := serverName(i), s.address(control, serverHost+1+i)
		targets = append(targets, address+":8443")
		config, err := s.writeConfig(name, map[string]any{
			"name": name,
			"data": s.path("data", name),
			"api":  map[string]any{"address": address + ":8443", "names": []string{"control.localhost"}},
			"peer": map[string]any{"address": address + ":8444"},
		})
		if err != nil {
			return err
		}
		if i == 0 {
			if _, err := s.run(ctx, name, "naru-controlplane", "init", "--config", config, "--federation", federation, "--admin", s.path("cli")); err != nil {
				return err
			}
		} else {
			token := s.path("run", name+".token")
			if err := s.serverToken(ctx, token); err != nil {
				return err
			}
			if _, err := s.run(ctx, name, "naru-controlplane", "join", "--config", config, "--server", s.address(control, serverHost+1)+":8444", "--token-file", token); err != nil {
				return err
			}
		}
		if err := s.start(record{Name: name, Group: name, Args: []string{s.program("naru-controlplane"), "run", "--config", config}}); err != nil {
			return err
		}
		if i == 0 {
			if err := s.openControl(ctx, targets, o.Servers); err != nil {
				return err
			}
		}
		if err := s.awaitServer(ctx, name); err != nil {
			return err
		}
	}
	s.say.Tell("control plane: %d server(s) in network control, replicated by Raft", o.Servers)
	return nil
}

func (s *Site) raiseBrokers(ctx context.Context, _ Options) error {
	pin, err := s.run(ctx, "desk-control", "naru-controlplane", "pin", "--ca", s.path("cli", "ca.pem"))
	if err != nil {
		return err
	}
	for _, z := range zones {
		name := "broker-" + z.Name
		config, err := s.writeConfig(name, map[string]any{
			"state_dir":    s.path("data", name),
			"trust_pin":    pin,
			"zone_listen":  s.address(z, brokerHost) + ":7443",
			"hub_listen":   s.address(control, brokerHubHost(z)) + ":7444",
			"admin_listen": s.address(control, brokerHubHost(z)) + ":7445",
		})
		if err != nil {
			return err
		}
		fingerprint, err := s.run(ctx, name, "naru-broker", "fingerprint", "--config", config)
		if err != nil {
			return err
		}
		if err := s.start(record{Name: name, Group: name, Args: []string{s.program("naru-broker"), "run", "--config", config}}); err != nil {
			return err
		}
		if err := s.createBroker(ctx, z, s.address(control, brokerHubHost(z))+":7444", fingerprint); err != nil {
			return err
		}
	}
	s.say.Tell("brokers: one before each zone, a leg in each network, dialled from both sides")
	return nil
}

func (s *Site) raiseZones(ctx context.Context, o Options) error {
	err := together(ctx, zones, func(ctx context.Context, z Network) error { return s.raiseZone(ctx, z, o) })
	if err != nil {
		return err
	}
	for _, z := range zones {
		var edges []string
		for i := range o.agents(z) {
			edges = append(edges, s.address(z, agentHost+i)+":8443")
		}
		url, err := s.openWindow(z, edges)
		if err != nil {
			return err
		}
		s.Networks = append(s.Networks, NetworkState{z.Name, url, s.path("cli", z.Name+".yaml")})
	}
	s.say.Tell("zones: internet, business, management joined and online")
	return nil
}

// raiseZone makes a zone, lets its agents in one after another, and waits until it is online and they see one another.
func (s *Site) raiseZone(ctx context.Context, z Network, o Options) error {
	if err := s.createZone(ctx, z); err != nil {
		return err
	}
	for i := range o.agents(z) {
		if err := s.raiseAgent(ctx, z, i, o); err != nil {
			return err
		}
		if err := s.awaitZone(ctx, z, i+1); err != nil {
			return err
		}
	}
	return nil
}

// raiseAgent joins the i-th agent of a zone to it and starts it. Each but the first enters the zone at the first.
func (s *Site) raiseAgent(ctx context.Context, z Network, i int, o Options) error {
	name := agentName(z, i)
	token := s.path("run", name+".token")
	if err := s.zoneToken(ctx, z, token); err != nil {
		return err
	}
	settings := s.agentConfig(z, i)
	if z.Name == fleetZone && o.Fleet > 0 {
		settings["network"] = fleetNetwork
		delete(settings, "sim_state") // thousands of hosts live in the agent's memory: their files would be what is measured
	}
	if i > 0 {
		pin, err := s.run(ctx, agentName(z, 0), "naru-zoneagent", "ca", "--pin", "--config", s.path("config", agentName(z, 0)+".yaml"))
		if err != nil {
			return err
		}
		settings["peers"], settings["zone_pin"] = []string{s.address(z, agentHost) + ":7445"}, pin
	}
	config, err := s.writeConfig(name, settings)
	if err != nil {
		return err
	}
	if err := s.joinAgent(ctx, z, i, config, token); err != nil {
		return err
	}
	return s.start(record{Name: name, Group: name, Args: []string{s.program("naru-zoneagent"), "run", "--config", config}})
}

// agentConfig is the configuration of a zone's i-th agent.
func (s *Site) agentConfig(z Network, i int) map[string]any {
	here := s.address(z, agentHost+i)
	config := map[string]any{
		"name":    fmt.Sprintf("agent-%d", i+1),
		"data":    s.path("data", agentName(z, i)),
		"brokers": []string{s.address(z, brokerHost) + ":7443"},
		"edge":    map[string]any{"address": here + ":8443", "names": []string{z.Name + ".localhost"}, "local_login_after": "5s"},
		"agent":   map[string]any{"address": here + ":7445"},
		"gossip":  map[string]any{"address": here + ":7946"},
		"etcd":    map[string]any{"client_address": here + ":2379", "peer_address": here + ":2380"},
		"network": map[string]any{
			"bridge": guestBridge, "cidr": s.guestAddress(z, 0) + "/24", "gateway": s.guestAddress(z, 1),
			"first": s.guestAddress(z, 10), "last": s.guestAddress(z, 250),
		},
		"images":          s.path("data", "images"),
		"sim_state":       s.path("data", "sim-"+z.Name),
		"observe_every":   "2s",
		"metrics_address": here + ":9443",
	}
	if pool := s.pool(z); pool != "" {
		config["libvirt"] = map[string]any{"pool_path": pool}
	}
	return config
}

// together does the same for each of all at once; the first failure ends the others.
func together[T any](ctx context.Context, all []T, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, one := range all {
		g.Go(func() error { return do(ctx, one) })
	}
	return g.Wait()
}

// joinAgent lets an agent in: it asks and prints its fingerprint, the administrator compares and accepts.
func (s *Site) joinAgent(ctx context.Context, z Network, i int, config, token string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fingerprint, err := s.run(ctx, agentName(z, i), "naru-zoneagent", "fingerprint", "--config", config)
	if err != nil {
		return err
	}
	joined := make(chan error, 1)
	go func() {
		_, err := s.run(ctx, agentName(z, i), "naru-zoneagent", "join", "--config", config, "--token-file", token)
		joined <- err
	}()
	if err := s.acceptAgent(ctx, z, i, fingerprint, joined); err != nil {
		return err
	}
	return <-joined
}

// writeConfig writes the configuration of a process and returns the file's path.
func (s *Site) writeConfig(name string, config map[string]any) (string, error) {
	b, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	path := s.path("config", name+".yaml")
	return path, writeFile(path, b)
}
