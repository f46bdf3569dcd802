// Package zoneagent is the composition root of a zone agent: what it is made of, in which order that starts, and in which
// it stops.
package zoneagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/naru-project/naru/federation/dial"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/config"
	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/version"
	"github.com/naru-project/naru/zoneagent/internal/desk"
	"github.com/naru-project/naru/zoneagent/internal/edge"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/identity"
	"github.com/naru-project/naru/zoneagent/internal/peer"
	"github.com/naru-project/naru/zoneagent/internal/schedule"
	"github.com/naru-project/naru/zoneagent/internal/uplink"
	"github.com/naru-project/naru/zoneagent/internal/witness"
	"github.com/naru-project/naru/zoneagent/internal/worker"
)

// Agent is one of a zone's controllers.
type Agent struct {
	config   *Config
	log      *slog.Logger
	registry *prometheus.Registry

	identity *identity.Identity
	dialer   *dial.Dialer
	store    *etcdstore.Store
	company  *company
	samples  *link.Samples
	worker   *worker.Worker
	schedule *schedule.Metrics
	uplink   *uplink.Uplink
	witness  *witness.Witness
	central  *uplink.Central
	desk     *desk.Desk // nil where the zone has no secret of its own
	edge     *edge.Conn

	edgeListen, peerListen net.Listener
	opened                 atomic.Bool // New has everything
	metrics                *metricsServer
}

// sampleBuffer is how many samples wait for the link before the oldest are dropped.
const sampleBuffer = 8192

// New opens everything an agent keeps, and listens. The agent must have joined. It waits for the zone's etcd until ctx
// ends. After an error nothing is left open.
func New(ctx context.Context, c *Config, log *slog.Logger) (_ *Agent, err error) {
	a := &Agent{config: c, log: log, registry: obs.NewRegistry()}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.identity, err = openIdentity(c, log); err != nil {
		return nil, err
	}
	if !a.identity.Joined() {
		return nil, fmt.Errorf("%s has not joined a zone yet: join with naru-zoneagent join", c.Data)
	}
	if a.dialer, err = dial.New(dial.Config{Addresses: c.Brokers, Holder: a.identity.Link, Logger: log.With("part", "dial")}); err != nil {
		return nil, err
	}
	endpoints, err := a.enterZone(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.identity.Reissue(); err != nil {
		return nil, err
	}
	if a.company, err = newCompany(a); err != nil {
		return nil, err
	}
	if a.metrics, err = a.serveMetrics(); err != nil {
		return nil, err
	}
	if a.store, err = a.openStore(ctx, endpoints); err != nil {
		return nil, err
	}
	linkMetrics := link.NewMetrics(a.registry)
	a.samples = link.NewSamples(sampleBuffer, linkMetrics)
	a.schedule = schedule.NewMetrics(a.registry)
	if a.worker, err = a.newWorker(); err != nil {
		return nil, err
	}
	a.witness = witness.New(witness.Config{
		Store: a.store, Picture: a.store.Picture(), ZoneID: a.identity.ZoneID(), Federation: a.identity.Federation(),
		Seed: a.identity.WitnessSeed(), Now: time.Now, Log: log.With("part", "witness"), Registerer: a.registry,
	})
	a.uplink = uplink.New(uplink.Config{
		Store: a.store, Dialer: connector{a.dialer}, Link: a.identity.Link, Samples: a.samples, Version: version.Version,
		Housekeeping: a.keepHouse, Log: log.With("part", "uplink"), Metrics: linkMetrics, Registerer: a.registry,
	})
	if a.desk, err = a.newDesk(); err != nil {
		return nil, err
	}
	var at uplink.Desk
	if a.desk != nil {
		at = a.desk
	}
	a.central = a.uplink.Central(a.company, at)
	if a.edge, err = edge.NewConn(a.central, desk.NewReader(a.store.Picture()), time.Now, a.uplink.DownSince); err != nil {
		return nil, err
	}
	a.opened.Store(true)
	return a, a.listen()
}

// listen opens the agent's listeners; an error names the key of the configuration.
func (a *Agent) listen() (err error) {
	for _, l := range []struct {
		key, address string
		listener     *net.Listener
	}{
		{"edge.address", a.config.Edge.Address, &a.edgeListen},
		{"agent.address", a.config.Agent.Address, &a.peerListen},
	} {
		if *l.listener, err = config.Listen(l.key, l.address); err != nil {
			return err
		}
	}
	return nil
}

// Run controls the zone until ctx ends or the agent must not go on, and returns why: nil when ctx ended.
//
// It stops in this order: what serves and drives, then the store under it. Clusters and the link are given up, so that
// another agent takes them over at once.
func (a *Agent) Run(ctx context.Context) error {
	defer a.close()
	g, ctx := errgroup.WithContext(ctx)
	run := func(what string, f func(context.Context) error) {
		g.Go(func() error {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	run("store", a.store.Run)
	run("certificates of the zone", a.identity.Run)
	run("link certificate", func(ctx context.Context) error { return a.identity.Link.Run(ctx, a.dialer.Renew) })
	run("members", a.company.run)
	run("link", a.uplink.Run)
	run("clusters", a.runClusters)
	run("edge", func(ctx context.Context) error {
		return edge.Serve(ctx, a.edgeListen, a.edge, a.identity.Edge.TLSCertificate, a.log.With("part", "edge"), a.registry)
	})
	run("agents of the zone", a.servePeers)
	run("profiles", func(ctx context.Context) error { return obs.ServeProfiles(ctx, a.config.Data) })
	run("status", a.serveStatus)
	run("metrics", a.metrics.run)
	return g.Wait()
}

// servePeers answers the zone's other agents.
func (a *Agent) servePeers(ctx context.Context) error {
	s := &peer.Server{Identity: a.identity, Endpoints: a.store.Endpoints, Reacher: a, Caller: a.central, Log: a.log.With("part", "peer")}
	return s.Run(ctx, a.peerListen)
}

// close closes what New opened.
func (a *Agent) close() {
	a.metrics.close()
	for _, l := range []net.Listener{a.edgeListen, a.peerListen} {
		if l != nil {
			l.Close()
		}
	}
	if a.company != nil {
		a.company.close()
	}
	if a.store != nil {
		if err := a.store.Close(); err != nil && !errors.Is(err, etcdstore.ErrClosed) {
			a.log.Error("close the store", "error", err)
		}
	}
}

// connector opens sessions' streams for the uplink.
type connector struct{ *dial.Dialer }

func (c connector) Connect(ctx context.Context) (link.Stream, error) { return c.Dialer.Connect(ctx) }
