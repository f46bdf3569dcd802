package zoneagent

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/naru-project/naru/pkg/sealed"
	"github.com/naru-project/naru/zoneagent/internal/desk"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore/member"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/libvirt"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
	"github.com/naru-project/naru/zoneagent/internal/identity"
	"github.com/naru-project/naru/zoneagent/internal/peer"
	"github.com/naru-project/naru/zoneagent/internal/schedule"
	"github.com/naru-project/naru/zoneagent/internal/usageclock"
	"github.com/naru-project/naru/zoneagent/internal/worker"
)

// enterZone sees to it that the agent holds the zone's authority, and returns where the zone's etcd is, where another agent
// told it; the answer is kept for the next start.
func (a *Agent) enterZone(ctx context.Context) ([]string, error) {
	endpoints, err := a.config.keptEndpoints()
	if err != nil {
		return nil, err
	}
	switch {
	case a.identity.InZone() && (len(a.config.Peers) == 0 || len(endpoints) > 0):
		return endpoints, nil
	case len(a.config.Peers) == 0:
		return nil, a.identity.Found()
	}
	a.log.Info("entering the zone", "at", a.config.Peers)
	endpoints, err = peer.Enter(ctx, a.identity, a.config.Peers, a.config.ZonePin)
	if err != nil {
		return nil, fmt.Errorf("enter the zone: %w", err)
	}
	return endpoints, a.config.keepEndpoints(endpoints)
}

func (c *Config) endpointsFile() string { return filepath.Join(c.Data, "etcd-endpoints.json") }

// keptEndpoints are those of the zone's etcd, as another agent told them when this one entered; none at the first agent.
func (c *Config) keptEndpoints() (endpoints []string, err error) {
	b, err := os.ReadFile(c.endpointsFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &endpoints); err != nil {
		return nil, fmt.Errorf("%s is damaged; remove it, and start again: %w", c.endpointsFile(), err)
	}
	return endpoints, nil
}

func (c *Config) keepEndpoints(endpoints []string) error {
	b, err := json.Marshal(endpoints)
	if err != nil {
		return err
	}
	return os.WriteFile(c.endpointsFile(), b, 0o600)
}

// openStore opens the zone's etcd.
func (a *Agent) openStore(ctx context.Context, endpoints []string) (*etcdstore.Store, error) {
	c := storeConfig(a.config, a.identity, endpoints, a.log)
	c.Registerer = a.registry
	return etcdstore.Open(ctx, c)
}

// storeConfig says where the zone's etcd is: a member of the agent's own, the other agents', or the operator's.
func storeConfig(c *Config, i *identity.Identity, endpoints []string, log *slog.Logger) etcdstore.Config {
	e := c.Etcd
	s := etcdstore.Config{
		Zone: i.ZoneID(), Agent: c.Name, Dir: filepath.Join(c.Data, "store"), Endpoints: endpoints, Logger: log.With("part", "store"),
	}
	if len(e.Endpoints) > 0 {
		s.Endpoints = e.Endpoints
		if e.CertFile != "" {
			s.TLS = &member.TLS{CertFile: e.CertFile, KeyFile: e.KeyFile, CAFile: e.CAFile}
		}
		return s
	}
	certificate, key := i.HolderFiles("member")
	s.Member = &etcdstore.MemberConfig{Peer: e.PeerAddress, Client: e.ClientAddress, Tick: e.Tick, Election: e.Election}
	s.TLS = &member.TLS{CertFile: certificate, KeyFile: key, CAFile: i.AuthorityFile(), Name: i.EtcdName()}
	return s
}

// newWorker makes what drives hypervisors. The literal map is the list of drivers.
func (a *Agent) newWorker() (*worker.Worker, error) {
	fleet, err := sim.New(sim.Options{StateDir: a.config.SimState, Logger: a.log.With("driver", "sim")})
	if err != nil {
		return nil, err
	}
	clock, err := a.usageClock()
	if err != nil {
		return nil, err
	}
	return worker.New(worker.Config{
		Agent: a.config.Name, Zone: a.identity.ZoneID(), Clock: clock.Now,
		Drivers: map[string]hypervisor.Driver{
			"sim": fleet,
			"libvirt": libvirt.New(libvirt.Options{
				Folder: a.config.Libvirt.PoolPath, Bridge: a.config.Network.Bridge,
				Certificates: a.identity.HostCertificates, Roots: a.roots,
				Logger: a.log.With("driver", "libvirt"), Metrics: libvirt.NewMetrics(a.registry),
			}),
		},
		Images: images(a.config.Images), Others: a.company, Samples: a.samples,
		Network: func(string) worker.Network {
			n := a.config.Network
			return worker.Network{Bridge: n.Bridge, CIDR: n.CIDR, Gateway: n.Gateway, Nameservers: n.Nameservers}
		},
		Limits: worker.Limits{ObserveEvery: a.config.ObserveEvery},
		Logger: a.log.With("part", "worker"), Metrics: worker.NewMetrics(a.registry),
	})
}

// newDesk makes where the zone's own operators are served while it is cut off. A zone that was founded without a secret of its own has none.
func (a *Agent) newDesk() (*desk.Desk, error) {
	if len(a.identity.WitnessSeed()) == 0 {
		a.log.Warn("nobody can log in here while the zone is cut off: the zone's first agent was of an older version", "next", "found the zone anew")
		return nil, nil
	}
	sealing, err := a.identity.SealingKey()
	if err != nil {
		return nil, err
	}
	public, err := sealed.Public(sealing)
	if err != nil {
		return nil, err
	}
	challenges, err := a.identity.ChallengeKey()
	if err != nil {
		return nil, err
	}
	return desk.New(desk.Config{
		Store: a.store, Picture: a.store.Picture(), ZoneID: a.identity.ZoneID(), Federation: a.identity.Federation(), Seed: a.identity.WitnessSeed(),
		SealingKey: sealing, Public: public, ChallengeKey: challenges, Patience: a.config.Edge.LocalLoginAfter, Now: time.Now, Log: a.log.With("part", "desk"),
	}), nil
}

// usageClock is the time by which use is metered.
func (a *Agent) usageClock() (*usageclock.Clock, error) {
	machine, err := usageclock.ThisMachine()
	if err != nil {
		return nil, err
	}
	clock, err := usageclock.Open(filepath.Join(a.config.Data, "usage-clock.json"), machine, a.log)
	if err != nil {
		return nil, err
	}
	promauto.With(a.registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "naru_agent_usage_clock_offset_seconds", Help: "By how much the machine's time is ahead of the clock by which use is metered: it was set since.",
	}, func() float64 { return clock.Offset().Seconds() })
	return clock, nil
}

// roots are the authorities that hosts' certificates come from: the zone's own.
func (a *Agent) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, root := range a.identity.Roots() {
		pool.AddCert(root)
	}
	return pool
}

// guestNetwork is the pool that addresses are taken from; nil where guests ask DHCP.
func (a *Agent) guestNetwork() *schedule.Network {
	n := a.config.Network
	if !n.CIDR.IsValid() {
		return nil
	}
	return &schedule.Network{CIDR: n.CIDR, Gateway: n.Gateway, First: n.First, Last: n.Last}
}

// images is a folder with images, each named by the SHA-256 of its file.
type images string

// Open opens an image. Nothing but a digest is ever looked up, so no name leads out of the folder.
func (i images) Open(_ context.Context, sha256 string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(string(i))
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	defer root.Close()
	f, err := root.Open(sha256)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the image store %s of this zone has no image %s; lay the file there under that name", i, sha256)
	}
	return f, err
}
