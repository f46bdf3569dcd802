package dev

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/naru-project/naru/deploy/dev/libvirthost"
	"github.com/naru-project/naru/deploy/guest"
	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// raiseHosts makes the reference site's simulated hosts, and a real libvirt host in each zone's cluster kvm.
func (s *Site) raiseHosts(ctx context.Context, o Options) error {
	servers, cores := 0, uint32(0)
	err := s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		for _, z := range zones {
			for _, cluster := range reference[z.Name] {
				if err := createCluster(ctx, c, z, cluster.Name, cluster.Purpose, "sim"); err != nil {
					return err
				}
				for i := range cluster.Hosts {
					name := fmt.Sprintf("%s-%s-%d", z.Name[:1], cluster.Name, i+1)
					endpoint := fmt.Sprintf("sim://%s?cores=%d&memory_mib=%d&disk_gib=500", name, cluster.Cores, cluster.MemoryMiB)
					if err := createHost(ctx, c, z, cluster.Name, name, endpoint, nil); err != nil {
						return err
					}
					servers, cores = servers+1, cores+cluster.Cores
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.say.Tell("hosts: %d simulated servers with %d cores, as in the reference site", servers, cores)
	if s.simulated(o) {
		return nil
	}
	if err := together(ctx, zones, s.raiseKVM); err != nil {
		return err
	}
	s.say.Tell("hosts: kvm-1 in each zone, a real libvirt with QEMU, reached over TLS")
	return nil
}

// awaitHosts waits until every host has been seen by its zone's agent.
func (s *Site) awaitHosts(ctx context.Context, _ Options) error {
	return s.until(ctx, "waiting for the hosts to be seen", nil, func(ctx context.Context) error {
		return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
			r, err := c.Hosts.ListHosts(ctx, &apiv1.ListHostsRequest{PageSize: 1000})
			if err != nil {
				return err
			}
			for _, h := range r.GetHosts() {
				if h.GetHealth() != apiv1.Host_AVAILABLE {
					return fmt.Errorf("host %s of zone %s is %s %s", h.GetName(), h.GetZone(), h.GetHealth(), h.GetHealthReason())
				}
			}
			return nil
		})
	})
}

// raiseKVM starts the zone's libvirt host, with a certificate of the zone's own CA, and makes it known.
func (s *Site) raiseKVM(ctx context.Context, z Network) error {
	address := s.address(z, kvmHost)
	pki := s.path("data", "host-"+z.Name, "pki")
	if err := os.MkdirAll(pki, 0o700); err != nil {
		return err
	}
	if _, err := s.run(ctx, "agent-"+z.Name, "naru-zoneagent", "issue", "--config", s.path("config", "agent-"+z.Name+".yaml"),
		"--host", "kvm-1", "--address", address, "--out", pki); err != nil {
		return err
	}
	host := record{Name: "host-" + z.Name, Group: "host-" + z.Name, Host: &libvirthost.Config{
		Dir:    s.path("data", "host-"+z.Name),
		Name:   "kvm-1",
		UUID:   uuid.NewSHA1(uuid.NameSpaceURL, []byte(s.dir+"/"+z.Name)).String(),
		NetNS:  "/run/netns/" + s.netns("host-"+z.Name),
		Bridge: guestBridge,
		TLS: &libvirthost.TLS{
			Certificate: filepath.Join(pki, "servercert.pem"), Key: filepath.Join(pki, "serverkey.pem"),
			Authorities: filepath.Join(pki, "cacert.pem"), Address: address,
		},
		Capabilities: s.path("cache", "libvirt"),
	}}
	if err := s.startHost(ctx, host); err != nil {
		return err
	}
	return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		if err := createCluster(ctx, c, z, "kvm", "real hosts", "libvirt"); err != nil {
			return err
		}
		return createHost(ctx, c, z, "kvm", "kvm-1", "qemu+tls://"+address+"/system", &apiv1.Resources{Cores: 4, MemoryMib: 2048, DiskGib: 40})
	})
}

func createCluster(ctx context.Context, c *client.Client, z Network, name, purpose, hypervisor string) error {
	_, err := c.Clusters.CreateCluster(ctx, &apiv1.CreateClusterRequest{Cluster: &apiv1.Cluster{
		Name: name, Zone: z.Name, Purpose: purpose, Hypervisor: hypervisor, Strategy: apiv1.Cluster_SPREAD,
	}})
	return err
}

func createHost(ctx context.Context, c *client.Client, z Network, cluster, name, endpoint string, capacity *apiv1.Resources) error {
	_, err := c.Hosts.CreateHost(ctx, &apiv1.CreateHostRequest{Host: &apiv1.Host{
		Name: name, Zone: z.Name, Cluster: cluster, Endpoint: endpoint, Capacity: capacity,
	}})
	return err
}

// layImage builds the guest image where it has not been built yet, and lays it into the zones' image store under its
// digest. The store's folder is one for all zones of the site: what is in it crossed by the administrator's hand.
func (s *Site) layImage(ctx context.Context, o Options) (string, error) {
	store := s.path("data", "images")
	if err := os.MkdirAll(store, 0o700); err != nil {
		return "", err
	}
	built, err := s.guestImage(ctx, o)
	if err != nil {
		return "", err
	}
	in, err := os.Open(built)
	if err != nil {
		return "", err
	}
	defer in.Close()
	tmp := filepath.Join(store, "new")
	out, err := os.Create(tmp)
	if err != nil {
		return "", err
	}
	defer out.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, h), in); err != nil {
		return "", err
	}
	digest := hex.EncodeToString(h.Sum(nil))
	return digest, os.Rename(tmp, filepath.Join(store, digest))
}

// guestImage returns the path of the bootable guest, built once and kept in the user's cache. Where no real host runs, a
// few bytes stand for it: a simulated host boots anything.
func (s *Site) guestImage(ctx context.Context, o Options) (string, error) {
	if s.simulated(o) {
		path := s.path("data", "stand-in")
		return path, os.WriteFile(path, []byte("stands for an image on simulated hosts"), 0o600)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return guest.Image(ctx, filepath.Join(cache, "naru"), func() {
		s.say.Tell("guest image: building it from Debian's packages, once")
	})
}

// startHost starts the zone's libvirt host in its namespaces, and records it.
func (s *Site) startHost(ctx context.Context, r record) error {
	h, err := libvirthost.Start(ctx, *r.Host)
	if err != nil {
		return fmt.Errorf("start %s: %w", r.Name, err)
	}
	if r.ProcessIdentity, err = identify(h.PID()); err != nil {
		return err
	}
	return s.writeRecord(r)
}

// simulated reports whether the site has simulated hosts only.
func (s *Site) simulated(o Options) bool { return o.WithoutLibvirt || s.Mode == Loopback }
