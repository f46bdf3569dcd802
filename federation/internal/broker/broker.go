package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/config"
	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// schema is the version of the link's messages that this broker can check.
	schema = 1
	// maxFrame bounds a frame on either leg, and so what gRPC gathers before it hands one over.
	maxFrame = 4 << 20
	// frameOverhead is counted for each frame beside its payload.
	frameOverhead = 128
	// window is how much one stream may send ahead of its reader; a slow reader fills it and slows only its sender.
	window = 256 << 10
	// connWindow is the same for all streams of one connection: a server's carries many sessions.
	connWindow = 8 << 20
	// maxStranger bounds what somebody without a certificate may send.
	maxStranger = 32 << 10
	// maxAnnounce bounds a server's word: a long list of revocations.
	maxAnnounce = 8 << 20
)

var errStopping = status.Error(codes.Unavailable, "the broker is going down: connect again in a moment")

// Broker is one broker. See the package's page.
type Broker struct {
	config  Config
	options Options
	now     func() time.Time
	log     *slog.Logger

	holder     *pki.Holder
	selfSigned func() (*tls.Certificate, error)
	// zoneGuard lets in agents, also with an expired certificate or none; each method says whom it takes. hubGuard lets
	// in servers only.
	zoneGuard, hubGuard *pki.Guard

	checker   *wire.Checker
	validator protovalidate.Validator
	metrics   *metrics
	zones     *zones
	servers   *servers
	sessions  *sessions
	queries   *queries
	joins     *joinLimits
	enrolment *enrolment

	// stopping is closed when the broker begins to end.
	stopping chan struct{}
}

// New makes a broker ready: it checks the configuration and opens or makes the key. Nothing listens before Run.
func New(config Config, options Options) (*Broker, error) {
	if err := config.check(&options); err != nil {
		return nil, fmt.Errorf("broker's configuration: %w", err)
	}
	b := &Broker{config: config, options: options, now: options.Now, log: options.Logger, stopping: make(chan struct{})}
	if b.now == nil {
		b.now = time.Now
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if b.holder, err = pki.LoadOrCreate(config.StateDir, "broker", pki.WithClock(b.now), pki.WithLogger(b.log)); err != nil {
		return nil, err
	}
	if root := b.holder.Root(); root != nil && pki.Pin(root) != config.TrustPin {
		return nil, fmt.Errorf("the certificate in %s is of the federation %s and trust_pin is %s: correct trust_pin, or remove broker.crt to enrol anew",
			config.StateDir, pki.Pin(root), config.TrustPin)
	}
	b.selfSigned = sync.OnceValues(b.holder.SelfSigned)
	// Before there is a certificate, and with it the root, the zone leg lets nobody in.
	b.zoneGuard = &pki.Guard{Root: b.holder.Root, Want: []pki.Role{pki.RoleAgent}, AllowAbsent: true, AllowExpired: true, Now: b.now}
	b.hubGuard = &pki.Guard{Pin: config.TrustPin, Want: []pki.Role{pki.RoleServer}, Now: b.now}

	if b.checker, err = wire.NewChecker(wire.AtBroker); err != nil {
		return nil, fmt.Errorf("frame checker: %w", err)
	}
	if b.validator, err = protovalidate.New(protovalidate.WithMessages(&linkv1.JoinRequest{}, &linkv1.JoinResponse{}, &linkv1.RenewRequest{}, &linkv1.RenewResponse{}), protovalidate.WithDisableLazy()); err != nil {
		return nil, fmt.Errorf("rules of joins and renewals: %w", err)
	}
	if b.metrics, err = newMetrics(options.Registerer, b.enrolledUntil); err != nil {
		return nil, fmt.Errorf("broker's metrics: %w", err)
	}
	b.zones = newZones(config.Limits, b.metrics)
	if options.Registerer != nil {
		if err := options.Registerer.Register(newTrafficCollector(b.zones)); err != nil {
			return nil, fmt.Errorf("broker's metrics: %w", err)
		}
	}
	b.servers = newServers(b.metrics)
	b.sessions = newSessions(config.Limits.SessionsPerZone)
	b.queries = newQueries(b.servers, config.Patience.Query, b.metrics)
	b.joins = newJoinLimits(config.Limits)
	b.enrolment = newEnrolment(b.servers, config.TrustPin, options.Version, b.holder.Chain(), b.log)
	return b, nil
}

// Fingerprint is the key's; the Broker noun names it, and servers hold the broker to it.
func (b *Broker) Fingerprint() string { return b.holder.Fingerprint() }

// Enrolled says whether the broker has been given a certificate.
func (b *Broker) Enrolled() bool { return b.holder.Peer() != nil }

func (b *Broker) enrolledUntil() time.Time {
	if peer := b.holder.Peer(); peer != nil {
		return peer.NotAfter
	}
	return time.Time{}
}

// Run listens on both legs until ctx ends, whose cause it returns, or until one of them fails. It ends in this order:
// nobody new is let in, every session is told, then the connections close. Run may be called once.
func (b *Broker) Run(ctx context.Context) error {
	listeners, err := b.listen()
	if err != nil {
		return err
	}
	door := newDoor(listeners.zone, b.zoneTLS(), b.config, b.metrics, b.log)
	members, strangers, hub := b.memberServer(), b.strangerServer(), b.hubServer()
	if !b.Enrolled() {
		b.log.Info("waiting to be enrolled: make a broker with this fingerprint known to the control plane", "fingerprint", b.Fingerprint(), "hub_leg", listeners.hub.Addr().String())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return door.Run(ctx) })
	group.Go(func() error { return serve(ctx, members, door.members) })
	group.Go(func() error { return serve(ctx, strangers, door.strangers) })
	group.Go(func() error { return serve(ctx, hub, listeners.hub) })
	group.Go(func() error { return b.holder.Run(ctx, b.enrolment.renew) })
	if listeners.admin != nil {
		group.Go(func() error { return b.serveAdmin(ctx, listeners.admin, b.options.Gatherer) })
	}
	b.log.Info("broker listens", "zone_leg", listeners.zone.Addr().String(), "hub_leg", listeners.hub.Addr().String(), "fingerprint", b.Fingerprint())
	<-ctx.Done()
	close(b.stopping)
	b.sessions.endWhere(func(*session) *ending {
		return ended(endStopping, codes.Unavailable, "the broker is going down: connect again in a moment")
	})
	stop(members, strangers, hub)
	return group.Wait()
}

// stop lets handlers, which have all been told, say their last word; who does not take it is cut off.
func stop(servers ...*grpc.Server) {
	var all sync.WaitGroup
	for _, s := range servers {
		all.Go(func() {
			late := time.AfterFunc(2*time.Second, s.Stop)
			defer late.Stop()
			s.GracefulStop()
		})
	}
	all.Wait()
}

func serve(ctx context.Context, s *grpc.Server, l net.Listener) error {
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

type listeners struct{ zone, hub, admin net.Listener }

// listen opens what was not given. On an error nothing stays open.
func (b *Broker) listen() (_ *listeners, err error) {
	l := &listeners{zone: b.options.Zone, hub: b.options.Hub, admin: b.options.Admin}
	defer func() {
		if err != nil {
			for _, one := range []net.Listener{l.zone, l.hub, l.admin} {
				if one != nil {
					one.Close()
				}
			}
		}
	}()
	for _, one := range []struct {
		to           *net.Listener
		key, address string
	}{
		{&l.zone, "zone_listen", b.config.ZoneListen},
		{&l.hub, "hub_listen", b.config.HubListen},
		{&l.admin, "admin_listen", b.config.AdminListen},
	} {
		if *one.to != nil || one.address == "" {
			continue
		}
		opened, err := config.Listen(one.key, one.address)
		if err != nil {
			return nil, err
		}
		*one.to = opened
	}
	return l, nil
}

// zoneTLS shows the broker's certificate and takes agents and strangers. Until there is a certificate nobody gets in.
func (b *Broker) zoneTLS() *tls.Config {
	config := b.zoneGuard.Server(b.holder.TLSCertificate)
	config.NextProtos = []string{"h2"}
	return config
}

// hubTLS shows the broker's certificate, or before the first one that of its bare key, which servers know by its
// fingerprint.
func (b *Broker) hubTLS() *tls.Config {
	return b.hubGuard.Server(func() (*tls.Certificate, error) {
		cert, err := b.holder.TLSCertificate()
		if errors.Is(err, pki.ErrNoCertificate) {
			return b.selfSigned()
		}
		return cert, err
	})
}

// memberServer carries sessions. A connection keeps no buffer for reading: TLS has one already.
func (b *Broker) memberServer() *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(newHandshaken()),
		grpc.MaxRecvMsgSize(maxFrame), grpc.MaxSendMsgSize(maxFrame),
		grpc.MaxConcurrentStreams(8),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(2*window),
		grpc.ReadBufferSize(0),
		grpc.MaxHeaderListSize(8<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 2 * time.Minute, Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	linkv1.RegisterZoneLegServiceServer(s, zoneLeg{Broker: b})
	return s
}

// strangerServer answers Join and nothing else: whatever else is asked finds no certificate and is refused.
func (b *Broker) strangerServer() *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(newHandshaken()),
		grpc.MaxRecvMsgSize(maxStranger),
		grpc.MaxConcurrentStreams(1),
		grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10),
		grpc.ReadBufferSize(0),
		grpc.MaxHeaderListSize(8<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Second, MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: 15 * time.Second}),
	)
	linkv1.RegisterZoneLegServiceServer(s, zoneLeg{Broker: b})
	return s
}

func (b *Broker) hubServer() *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(b.hubTLS())),
		grpc.MaxRecvMsgSize(maxAnnounce), grpc.MaxSendMsgSize(maxAnnounce),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(connWindow),
		grpc.MaxHeaderListSize(8<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	linkv1.RegisterHubLegServiceServer(s, hubLeg{Broker: b})
	return s
}

// validate holds a question of the zone side to its form, its rules and to a request that proves its key.
func (b *Broker) validate(question proto.Message, csr []byte) error {
	if err := b.check(question); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if _, err := pki.KeyOfCSR(csr); err != nil {
		return status.Errorf(codes.InvalidArgument, "%v", err)
	}
	return nil
}

// passes holds a server's answer to its form and rules.
func (b *Broker) passes(answer proto.Message) error {
	if err := b.check(answer); err != nil {
		return status.Errorf(codes.Internal, "the control plane gave an answer that may not pass: %v", err)
	}
	return nil
}

// check refuses what the message's schema here does not have, and what breaks its rules.
func (b *Broker) check(m proto.Message) error {
	encoded, err := proto.Marshal(m)
	if err == nil {
		err = wire.CheckForm(encoded, m.ProtoReflect().Descriptor())
	}
	if err == nil {
		err = b.validator.Validate(m)
	}
	return err
}
