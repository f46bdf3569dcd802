package dev

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// admin returns a client of the control network's API with the administrator's certificate.
func (s *Site) admin() (*client.Client, error) {
	c, err := client.LoadConfig(s.path("cli", "control.yaml"))
	if err != nil {
		return nil, err
	}
	return client.New(c)
}

// asAdmin calls f with the administrator's client.
func (s *Site) asAdmin(ctx context.Context, f func(context.Context, *client.Client) error) error {
	c, err := s.admin()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return f(ctx, c)
}

// openControl opens the window into the control network and writes the administrator's configuration for it.
func (s *Site) openControl(ctx context.Context, first []string, servers int) error {
	targets := first
	for i := 1; i < servers; i++ {
		targets = append(targets, s.address(control, serverHost+1+i)+":8443")
	}
	url, err := s.openWindow(control, targets)
	if err != nil {
		return err
	}
	config, err := s.writeCLI(control.Name, map[string]any{
		"server": url, "ca_file": s.path("cli", "ca.pem"),
		"certificate_file": s.path("cli", "admin.pem"), "key_file": s.path("cli", "admin.key"),
	})
	s.Networks = append(s.Networks, NetworkState{control.Name, url, config})
	return err
}

func (s *Site) awaitServer(ctx context.Context, name string) error {
	return s.until(ctx, "waiting for "+name, []string{name}, func(ctx context.Context) error {
		return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
			r, err := c.Servers.ListServers(ctx, &apiv1.ListServersRequest{})
			if err != nil {
				return err
			}
			for _, server := range r.GetServers() {
				if server.GetName() == name && server.GetVoter() && server.GetHealthy() {
					return nil
				}
			}
			return fmt.Errorf("%s is not a healthy voter yet: %v", name, r.GetServers())
		})
	})
}

func (s *Site) serverToken(ctx context.Context, path string) error {
	return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		r, err := c.Servers.CreateServerToken(ctx, &apiv1.CreateServerTokenRequest{})
		if err != nil {
			return err
		}
		return writeFile(path, []byte(r.GetToken()+"\n"))
	})
}

func (s *Site) createBroker(ctx context.Context, z Network, address, fingerprint string) error {
	return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		_, err := c.Brokers.CreateBroker(ctx, &apiv1.CreateBrokerRequest{Broker: &apiv1.Broker{
			Name: z.Name, HubAddress: address, Fingerprint: fingerprint,
		}})
		return err
	})
}

// grades of the zones' networks.
var grades = map[string]apiv1.Zone_Grade{
	"internet": apiv1.Zone_OPEN, "business": apiv1.Zone_SENSITIVE, "management": apiv1.Zone_CLASSIFIED,
}

// policies of zones that show less, or more, than is usual: who asks for VMs in the management zone from elsewhere sees what
// they are called, and neither their addresses nor any figures.
var policies = map[string]*apiv1.ZonePolicy{
	"management": {Disclosures: []*apiv1.Disclosure{{Direction: apiv1.Disclosure_OUT, Names: true}}},
}

func (s *Site) createZone(ctx context.Context, z Network) error {
	return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		_, err := c.Zones.CreateZone(ctx, &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{
			Name: z.Name, Kind: z.Name, Grade: grades[z.Name], Broker: z.Name, Policy: policies[z.Name],
		}})
		return err
	})
}

func (s *Site) zoneToken(ctx context.Context, z Network, path string) error {
	return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		r, err := c.Zones.CreateJoinToken(ctx, &apiv1.CreateJoinTokenRequest{Zone: z.Name})
		if err != nil {
			return err
		}
		return writeFile(path, []byte(r.GetToken()+"\n"))
	})
}

// acceptAgent accepts the agent once it has asked; the error of a join that ended first comes back instead.
func (s *Site) acceptAgent(ctx context.Context, z Network, i int, fingerprint string, joined <-chan error) error {
	return s.until(ctx, "waiting for "+agentName(z, i)+" to ask", []string{"broker-" + z.Name}, func(ctx context.Context) error {
		select {
		case err := <-joined:
			return errors.Join(errors.New("the join ended before it was accepted"), err)
		default:
		}
		return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
			r, err := c.Zones.ListJoinRequests(ctx, &apiv1.ListJoinRequestsRequest{Zone: z.Name})
			if err != nil {
				return err
			}
			for _, asks := range r.GetJoinRequests() {
				if asks.GetFingerprint() == fingerprint {
					_, err = c.Zones.AcceptAgent(ctx, &apiv1.AcceptAgentRequest{Zone: z.Name, Agent: asks.GetAgent(), Fingerprint: fingerprint})
					return err
				}
			}
			return errors.New("it has not asked yet")
		})
	})
}

// awaitZone waits until a zone is online and that many of its agents are there.
func (s *Site) awaitZone(ctx context.Context, z Network, agents int) error {
	processes := []string{"broker-" + z.Name}
	for i := range agents {
		processes = append(processes, agentName(z, i))
	}
	return s.until(ctx, "waiting for zone "+z.Name, processes, func(ctx context.Context) error {
		return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
			r, err := c.Zones.GetZone(ctx, &apiv1.GetZoneRequest{Zone: z.Name})
			if err != nil {
				return err
			}
			there := 0
			for _, a := range r.GetZone().GetAgents() {
				if a.GetAlive() {
					there++
				}
			}
			if state := r.GetZone().GetState(); state != apiv1.Zone_ONLINE || there < agents {
				return fmt.Errorf("it is %s, with %d of %d agents", state, there, agents)
			}
			return nil
		})
	})
}

// fillCatalogue makes flavors, the image, a project, and for each zone's edge a token and the configuration to use it.
func (s *Site) fillCatalogue(ctx context.Context, o Options) error {
	digest, err := s.layImage(ctx, o)
	if err != nil {
		return err
	}
	format := apiv1.Image_QCOW2
	if s.simulated(o) {
		format = apiv1.Image_RAW
	}
	err = s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		if _, err := c.Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: "web", Description: "the walk's project"}}); err != nil {
			return err
		}
		for _, f := range []*apiv1.Flavor{
			{Name: "s1", Cores: 1, MemoryMib: 96, DiskGib: 1, Description: "tiny: the test guest"},
			{Name: "m1", Cores: 2, MemoryMib: 4096, DiskGib: 20},
			{Name: "l1", Cores: 4, MemoryMib: 16384, DiskGib: 40},
		} {
			if _, err := c.Flavors.CreateFlavor(ctx, &apiv1.CreateFlavorRequest{Flavor: f}); err != nil {
				return err
			}
		}
		_, err := c.Images.CreateImage(ctx, &apiv1.CreateImageRequest{Image: &apiv1.Image{
			Name: "tiny", Sha256: digest, Format: format, Os: "busybox", MinMemoryMib: 64, MinDiskGib: 1, Description: "boots in seconds; SSH",
		}})
		return err
	})
	if err != nil {
		return err
	}
	for _, z := range zones {
		if err := s.letUserIn(ctx, z); err != nil {
			return err
		}
		if err := s.letAcross(ctx, z); err != nil {
			return err
		}
	}
	s.say.Tell("catalogue: project web, flavors s1 m1 l1, image tiny; a token for each zone's edge, and crossings to the other zones")
	return nil
}

// letAcross lets the people of the project change from a zone what it has in the others. In earnest, people of both zones would approve
// that.
func (s *Site) letAcross(ctx context.Context, from Network) error {
	return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		for _, to := range zones {
			if to.Name == from.Name {
				continue
			}
			if _, err := c.Crossings.CreateCrossing(ctx, &apiv1.CreateCrossingRequest{Crossing: &apiv1.Crossing{
				Project: "web", SourceZone: from.Name, Zone: to.Name, Permissions: []string{"vm.*", "snapshot.*"}, EndsAt: timestamppb.New(time.Now().Add(24 * time.Hour)),
				Reason: "to try things without asking",
			}}); err != nil {
				return err
			}
		}
		return nil
	})
}

// letUserIn gives the user of a zone's edge a token for the project and writes the configuration to use it.
func (s *Site) letUserIn(ctx context.Context, z Network) error {
	var secret string
	err := s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		r, err := c.AccessTokens.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
			Name: "user-" + z.Name, Project: "web", Zone: z.Name, ExpiresAt: timestamppb.New(time.Now().Add(24 * time.Hour)),
		}})
		secret = r.GetSecret()
		return err
	})
	if err != nil {
		return err
	}
	ca, err := s.run(ctx, "agent-"+z.Name, "naru-zoneagent", "ca", "--config", s.path("config", "agent-"+z.Name+".yaml"))
	if err != nil {
		return err
	}
	caFile := s.path("cli", z.Name+"-ca.pem")
	if err := os.WriteFile(caFile, []byte(ca+"\n"), 0o600); err != nil {
		return err
	}
	for _, n := range s.Networks {
		if n.Name == z.Name {
			_, err = s.writeCLI(z.Name, map[string]any{"server": n.API, "ca_file": caFile, "token": secret, "project": "web"})
		}
	}
	return err
}

// writeCLI writes the configuration with which `naru` works in a network.
func (s *Site) writeCLI(name string, config map[string]any) (string, error) {
	b, err := os.ReadFile(s.path("cli", "ca.pem"))
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return "", fmt.Errorf("%s holds no certificate", s.path("cli", "ca.pem"))
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	config["trust_pin"] = pki.Pin(root)
	b, err = yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	path := s.path("cli", name+".yaml")
	return path, writeFile(path, b)
}
