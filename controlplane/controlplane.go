// Package controlplane is the composition root of a control plane server: what it is made of, in which order that starts,
// and in which it stops.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/controller/audit"
	"github.com/naru-project/naru/controlplane/internal/controller/lease"
	"github.com/naru-project/naru/controlplane/internal/controller/leavers"
	"github.com/naru-project/naru/controlplane/internal/controller/notify"
	"github.com/naru-project/naru/controlplane/internal/controller/operators"
	"github.com/naru-project/naru/controlplane/internal/controller/placement"
	"github.com/naru-project/naru/controlplane/internal/controller/requests"
	"github.com/naru-project/naru/controlplane/internal/controller/succession"
	"github.com/naru-project/naru/controlplane/internal/controller/upkeep"
	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/identity"
	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/replica"
	"github.com/naru-project/naru/controlplane/internal/service"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/controlplane/internal/zonehub"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/config"
	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/version"
)

// Server is one server of the control plane.
type Server struct {
	config *Config
	log    *slog.Logger
	id     string

	keeper  *identity.Keeper
	db      *state.DB
	replica *replica.Replica
	service *service.Service
	chooser *placement.Chooser
	api     *api.Server
	listen  net.Listener
	hub     *zonehub.Hub
	brokers *zonehub.Brokers
	upkeep  *upkeep.Upkeep
	asked   *requests.Controller
	leases  *lease.Controller
	told    *notify.Controller
	leavers *leavers.Controller
	locals  *operators.Controller
	// composed is closed when all of the above is set: peers may call before.
	composed chan struct{}
	heirs    *succession.Succession
	signing  *audit.Checkpoints
}

// New opens everything a server keeps, and listens. Run serves. After an error nothing is left open.
func New(c *Config, log *slog.Logger) (_ *Server, err error) {
	s := &Server{config: c, log: log, composed: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	registry := obs.NewRegistry()
	if s.keeper, err = openOwn(c, log); err != nil {
		return nil, err
	}
	peer := s.keeper.Holder().Peer()
	s.id = peer.ServerID
	if s.db, err = state.Open(c.state(), state.Options{
		ServerID: s.id, Federation: peer.Federation, Logger: log.With("part", "state"), Registerer: registry,
	}); err != nil {
		return nil, err
	}
	reader := stateReader{s.db}
	if err := reader.checkFeatureLevel(context.Background(), fsm.FeatureLevel, version.Version); err != nil {
		return nil, err
	}
	if err := reader.checkName(context.Background(), s.id, c); err != nil {
		return nil, err
	}
	s.keeper.Attach(reader)
	samples := zonehub.NewSamples(time.Now)
	local := &localView{server: s, samples: samples}
	if s.replica, err = s.newReplica(local, registry); err != nil {
		return nil, err
	}
	s.chooser = placement.New(s.db, log.With("part", "placement"))
	sender := outbound.New(peer.Federation, networks(c.Notifications.Allow))
	asker := provider.New(networks(c.IdentityProviders.Allow), s.replica.Now)
	s.service = service.New(service.Config{
		Reader: s.db, Proposer: s.replica, Servers: s.replica, Samples: &allSamples{s.replica},
		Chooser: s.chooser, JoinTokens: s.keeper, Certificates: s.keeper, Secrets: s.keeper, Outbound: sender, Providers: asker, Now: s.replica.Now,
	})
	authenticator := auth.New(s.service, s.keeper.Root, s.replica.Now)
	if s.api, err = api.New(api.Config{
		Certificate: s.keeper.Holder().TLSCertificate, Register: s.service.Register, Who: authenticator, Current: s.replica.ReadIndex, May: s.service, Audit: s.service,
		Ready: s.ready, Gatherer: registry, Registerer: registry, Logger: log.With("part", "api"),
	}); err != nil {
		return nil, err
	}
	if err := s.newHub(samples, registry); err != nil {
		return nil, err
	}
	s.upkeep = upkeep.New(upkeep.Config{Reader: s.db, Proposer: s.replica, Servers: s.replica, Log: log.With("part", "upkeep"), Now: s.replica.Now})
	s.asked = requests.New(requests.Config{Reader: s.db, Proposer: s.replica, Chooser: s.chooser, Log: log.With("part", "requests"), Now: s.replica.Now})
	s.leases = lease.New(lease.Config{Reader: s.db, Proposer: s.replica, Log: log.With("part", "leases"), Now: s.replica.Now})
	s.told = notify.New(notify.Config{Reader: s.db, Proposer: s.replica, Sender: sender, Rights: s.service, Unseal: s.keeper.Unseal, Log: log.With("part", "notify"), Now: s.replica.Now})
	s.leavers = leavers.New(leavers.Config{Reader: s.db, Proposer: s.replica, Providers: asker, Seal: s.keeper.Seal, Unseal: s.keeper.Unseal, Log: log.With("part", "leavers"), Now: s.replica.Now, Every: c.IdentityProviders.AskEvery})
	s.locals = operators.New(operators.Config{Reader: s.db, Proposer: s.replica, Rights: s.service, Unseal: s.keeper.Unseal, Log: log.With("part", "operators"), Now: s.replica.Now})
	s.heirs = succession.New(s.keeper, s.replica, log.With("part", "succession"))
	s.signing = audit.New(audit.Config{Reader: s.db, Proposer: s.replica, Keeper: s.keeper, Log: log.With("part", "audit"), Now: s.replica.Now})
	if s.listen, err = config.Listen("api.address", c.API.Address); err != nil {
		return nil, err
	}
	close(s.composed)
	return s, nil
}

func openKeeper(c *Config, log *slog.Logger) (*identity.Keeper, error) {
	dns, ips := c.names()
	return identity.Open(identity.Options{Dir: c.keys(), Names: dns, IPs: ips, LinkLifetime: c.LinkLifetime, Log: log.With("part", "identity")})
}

func (s *Server) newReplica(local replica.LocalView, registry prometheus.Registerer) (*replica.Replica, error) {
	holder := s.keeper.Holder()
	newcomers := &pki.Guard{Root: s.keeper.Root, Want: []pki.Role{pki.RoleServer}, AllowAbsent: true}
	peers := &pki.Guard{Root: s.keeper.Root, Want: []pki.Role{pki.RoleServer}}
	return replica.New(replica.Config{
		ServerID: s.id, Federation: holder.Peer().Federation, Dir: s.config.raft(),
		Address: s.config.Peer.Advertise, Listen: s.config.Peer.Address,
		Machine: machine{fsm.New(s.db)}, Tuning: s.config.Raft,
		ServerTLS: newcomers.Server(holder.TLSCertificate), ClientTLS: peers.Client(holder.TLSCertificate),
		PeerOf: peerOf(peers), Join: &joiner{s}, Local: local,
		Logger: s.log.With("part", "raft"), Metrics: registry,
	})
}

func (s *Server) newHub(samples *zonehub.Samples, registry prometheus.Registerer) (err error) {
	s.hub, err = zonehub.New(zonehub.Config{
		Reader: s.db, Proposer: s.replica, ServerID: s.id, Version: version.Version,
		Identity: link.IdentityOf(s.keeper.Holder()), Verify: verifyAgent(s.keeper.Root),
		Calls: calls{s.api.Dispatcher()}, Samples: samples, Budget: zonehub.DefaultBudget(), Log: s.log.With("part", "zonehub"), Registerer: registry,
	})
	if err != nil {
		return err
	}
	s.brokers, err = zonehub.NewBrokers(zonehub.BrokersConfig{
		Hub: s.hub, Leader: leading{s.replica}, Registrar: &registrar{s}, Holder: s.keeper.Holder(), Root: s.keeper.Root,
		ZoneLeg: s.config.Broker.Address, Data: s.config.Data, Log: s.log.With("part", "brokers"), Registerer: registry,
	})
	return err
}

// Run serves until ctx ends or the server must not go on, and returns why: nil when ctx ended.
//
// It stops in this order: the API, so that nobody is promised anything more; the sessions of zones, which are told to go
// elsewhere; the leader's loops; then Raft, which hands leadership over; then the state under it.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	// Each later part needs the earlier ones while it stops.
	raft, stopRaft := context.WithCancelCause(context.WithoutCancel(ctx))
	raftEnded := make(chan error, 1)
	go func() { raftEnded <- s.replica.Run(raft) }()
	served := s.serve(ctx, raftEnded)
	stopRaft(nil)
	if err := <-raftEnded; served == nil || errors.Is(served, errRaftEnded) {
		served = err
	}
	return served
}

var errRaftEnded = errors.New("replication ended")

// serve runs all that stands on replication, until ctx ends or one of it fails.
func (s *Server) serve(ctx context.Context, raftEnded chan error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case err := <-raftEnded:
			raftEnded <- err
			return errRaftEnded
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error { return s.begin(ctx) })
	g.Go(func() error { return obs.ServeProfiles(ctx, s.config.Data) })
	g.Go(func() error { return ended(ctx, s.keeper.Run(ctx)) })
	g.Go(func() error { return ended(ctx, s.chooser.Run(ctx)) })
	g.Go(func() error { return ended(ctx, s.service.Run(ctx)) })
	g.Go(func() error { return ended(ctx, s.api.Run(ctx, s.listen)) })
	g.Go(func() error { return ended(ctx, s.brokers.Run(ctx)) })
	g.Go(func() error { return ended(ctx, s.replica.WhileLeader(ctx, s.upkeep.Run)) })
	g.Go(func() error { return ended(ctx, s.replica.WhileLeader(ctx, s.asked.Run)) })
	g.Go(func() error { return ended(ctx, s.replica.WhileLeader(ctx, s.leases.Run)) })
	g.Go(func() error { return ended(ctx, s.replica.WhileLeader(ctx, s.told.Run)) })
	g.Go(func() error { return ended(ctx, s.replica.WhileLeader(ctx, s.leavers.Run)) })
	g.Go(func() error { return ended(ctx, s.replica.WhileLeader(ctx, s.locals.Run)) })
	g.Go(func() error { return ended(ctx, s.replica.WhileLeader(ctx, s.heirs.Run)) })
	g.Go(func() error { return ended(ctx, s.replica.WhileLeader(ctx, s.signing.Run)) })
	g.Go(func() error {
		select {
		case <-s.db.Done():
			return s.db.Err()
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// ended is the error of a part that ended: none when it was told to.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ready says whether the server can serve: it knows who leads.
func (s *Server) ready(context.Context) error {
	if l := s.replica.Leader(); l.ID == "" {
		return fmt.Errorf("no leader is known since %s", l.Since.UTC().Format(time.RFC3339))
	}
	return nil
}

// close closes what New opened and Run did not.
func (s *Server) close() {
	if s.listen != nil {
		s.listen.Close()
	}
	if s.replica != nil {
		if err := s.replica.Close(); err != nil {
			s.log.Error("close the log", "error", err)
		}
	}
	if s.db != nil {
		if err := s.db.Close(); err != nil {
			s.log.Error("close the state", "error", err)
		}
	}
}
