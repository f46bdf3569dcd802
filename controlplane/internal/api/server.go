// Package api is the control plane's front door: one TLS listener for gRPC and REST, and the way in for calls that a
// zone's link carries. Whichever way a call comes, it passes one gate.
//
// The package knows services only by their gRPC descriptors, and nothing of the state behind them.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/obs"
)

// closeTime is how long calls under way may go on when the server stops.
const closeTime = 3 * time.Second

// Config is what a server is made of. Every field but Logger and Registerer must be set.
type Config struct {
	// Certificate gives the server's certificate; it is asked for at each handshake, so that a renewed one is used at once.
	Certificate func() (*tls.Certificate, error)
	// Register puts the services in.
	Register func(grpc.ServiceRegistrar)
	// Who says who calls.
	Who Authenticator
	// Ready returns nil while the server can serve, for /readyz.
	Ready func(context.Context) error
	// Gatherer is what /metrics shows.
	Gatherer   prometheus.Gatherer
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Server serves the API. New makes it complete; Run serves until its context ends.
type Server struct {
	config     Config
	gate       *gate
	dispatcher *Dispatcher
	grpc       *grpc.Server
	rest       http.Handler
	health     http.Handler
	log        *slog.Logger
}

// New returns a server that does not listen yet.
func New(c Config) (*Server, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	g := &gate{who: c.Who, log: c.Logger, metrics: newMetrics(c.Registerer)}
	s := &Server{config: c, gate: g, dispatcher: newDispatcher(g), log: c.Logger}
	s.grpc = grpc.NewServer(
		grpc.Creds(handshaken{}),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(1024),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.MaxHeaderListSize(16<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	c.Register(both{s.grpc, s.dispatcher})
	rest, err := gateway.New(s.Local(), gateway.Options{})
	if err != nil {
		return nil, err
	}
	s.rest = rest
	s.health = obs.Handler(c.Gatherer, c.Ready)
	return s, nil
}

// both registers a service with two.
type both struct{ a, b grpc.ServiceRegistrar }

func (r both) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.a.RegisterService(desc, impl)
	r.b.RegisterService(desc, impl)
}

// Dispatcher carries out calls that came through a zone's link.
func (s *Server) Dispatcher() *Dispatcher { return s.dispatcher }

// Local returns a connection to the services within this process, through the same gate. Its calls come from the control
// network; what shows who calls is their metadata alone. Answers are shared with the services, and read-only.
func (s *Server) Local() grpc.ClientConnInterface { return localConn{s.dispatcher} }

// Run serves on l until ctx ends, and closes l. When it returns, no call is under way.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	split := newSplit(l, s.config.Certificate, s.log)
	web := &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1024, SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 3)
	go func() { ended <- split.run(ctx) }()
	go func() { ended <- s.grpc.Serve(split.grpc) }()
	go func() { ended <- web.Serve(split.web) }()
	go s.gate.live.watch(ctx, s.config.Who.Recheck)

	var err error
	left := 3
	select {
	case <-ctx.Done():
	case err = <-ended:
		left--
	}
	cancel(err)
	s.stop(web)
	for range left {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// stop lets calls under way end for a while, watches excepted: their contexts have ended already.
func (s *Server) stop(web *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	s.gate.live.cutAll()
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	if web.Shutdown(ctx) != nil {
		_ = web.Close() // what is still open is cut
	}
	select {
	case <-graceful:
	case <-ctx.Done():
		s.grpc.Stop()
		<-graceful
	}
}

// serveHTTP serves what did not come as gRPC from the start: REST, health, and gRPC of a client that also offered HTTP/1.1.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		s.grpc.ServeHTTP(w, r)
	case r.URL.Path == "/healthz", r.URL.Path == "/readyz", r.URL.Path == "/metrics":
		s.health.ServeHTTP(w, r)
	default:
		o := origin{}
		if r.TLS != nil {
			o.chain = r.TLS.PeerCertificates
		}
		s.rest.ServeHTTP(w, r.WithContext(withOrigin(r.Context(), o)))
	}
}
