package dev

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

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
	if err := s.raiseFleet(ctx, o); err != nil {
		return err
	}
	if s.simulated(o) {
		return nil
	}
	if err := together(ctx, zones, s.raiseKVM); err != nil {
		return err
	}
	s.say.Tell("hosts: kvm-1 in each zone, a real libvirt with QEMU, reached over TLS")
	return nil
}

// The fleet's zone and cluster, and the guest network of that zone: the reference site's has no room for thousands of VMs.
const (
	fleetZone    = "business"
	fleetCluster = "fleet"
)

var fleetNetwork = map[string]any{
	"bridge": guestBridge, "cidr": "10.92.0.0/16", "gateway": "10.92.0.1", "first": "10.92.1.0", "last": "10.92.255.250",
}

// raiseFleet makes the simulated hosts of a large site.
func (s *Site) raiseFleet(ctx context.Context, o Options) error {
	if o.Fleet == 0 {
		return nil
	}
	z, err := zoneNamed(fleetZone)
	if err != nil {
		return err
	}
	err = s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		if err := createCluster(ctx, c, z, fleetCluster, "a large fleet", "sim"); err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(64)
		for i := range o.Fleet {
			g.Go(func() error {
				name := fmt.Sprintf("f-%05d", i+1)
				return createHost(ctx, c, z, fleetCluster, name, "sim://"+name+"?cores=32&memory_mib=131072&disk_gib=2000", nil)
			})
		}
		return g.Wait()
	})
	if err == nil {
		s.say.Tell("hosts: a fleet of %d more in cluster %s of zone %s", o.Fleet, fleetCluster, fleetZone)
	}
	return err
}

// awaitHosts waits until every host has been seen by its zone's agent.
func (s *Site) awaitHosts(ctx context.Context, _ Options) error {
	return s.until(ctx, "waiting for the hosts to be seen", nil, func(ctx context.Context) error {
		return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
			for page := ""; ; {
				r, err := c.Hosts.ListHosts(ctx, &apiv1.ListHostsRequest{PageSize: 1000, PageToken: page})
				if err != nil {
					return err
				}
				for _, h := range r.GetHosts() {
					if h.GetHealth() != apiv1.Host_AVAILABLE {
						return fmt.Errorf("host %s of zone %s is %s %s", h.GetName(), h.GetZone(), h.GetHealth(), h.GetHealthReason())
					}
				}
				if page = r.GetNextPageToken(); page == "" {
					return nil
				}
			}
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
		NetNS:  filepath.Join(netnsFolder, s.netns("host-"+z.Name)),
		Bridge: guestBridge,
		Pool:   s.pool(z),
		Env:    []string{s.mark()},
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

// pool is where a zone's host sees its folder for disks, empty where that is the usual place: in a user namespace none can
// be made outside the site's folder.
func (s *Site) pool(z Network) string {
	if s.Mode == UserNamespaces {
		return s.path("data", "host-"+z.Name, "pool")
	}
	return ""
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
func (s *Site) simulated(o Options) bool { return o.WithoutLibvirt || s.lacks() != "" }

// lacks says what keeps real hosts from running in the site's mode; empty when nothing does. As root a host that cannot be
// started is an error instead.
func (s *Site) lacks() string {
	switch s.Mode {
	case Namespaces:
		return ""
	case Loopback:
		return "they need namespaces"
	}
	for _, program := range []string{"libvirtd", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed"
		}
	}
	if b, err := os.ReadFile("/proc/self/setgroups"); err != nil || strings.TrimSpace(string(b)) != "allow" {
		return "libvirt sets groups, for which this user needs the package uidmap and lines in /etc/subuid and /etc/subgid"
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return "their guests' network needs /dev/net/tun: " + err.Error()
	}
	tun.Close()
	return ""
}
