// Package api is the control plane's front door: one TLS listener for gRPC and REST, and the way in for calls that a
// zone's link carries. Whichever way a call comes, it passes one gate.
//
// The package knows services only by their gRPC descriptors, and nothing of the state behind them.
package api

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/naru-project/naru/pkg/frontdoor"
	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/obs"
)

// Config is what a server is made of. Every field but Logger and Registerer must be set.
type Config struct {
	// Certificate gives the server's certificate; it is asked for at each handshake, so that a renewed one is used at once.
	Certificate func() (*tls.Certificate, error)
	// Register puts the services in.
	Register func(grpc.ServiceRegistrar)
	// Who says who calls.
	Who Authenticator
	// Current returns when this server's state holds everything that was acknowledged before the call.
	Current func(context.Context) error
	// May decides what they may do.
	May Authorizer
	// Audit writes refusals and sensitive reads down.
	Audit Recorder
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
	g := &gate{who: c.Who, may: c.May, audit: c.Audit, log: c.Logger, metrics: newMetrics(c.Registerer),
		current: current{ask: c.Current}}
	s := &Server{config: c, gate: g, dispatcher: newDispatcher(g), log: c.Logger}
	s.grpc = grpc.NewServer(append(frontdoor.Options(maxMessage), grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream))...)
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

// Run serves on l until ctx ends, and closes l. When it returns, no call is under way. Watches are cut at once: they may last
// for ever.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	watching.Go(func() { s.gate.watch(ctx) })
	door := &frontdoor.Door{
		Certificate: s.config.Certificate, GRPC: s.grpc, Web: http.HandlerFunc(s.serveHTTP), Closing: s.gate.live.cutAll, Log: s.log,
		Registerer: s.config.Registerer,
	}
	err := door.Run(ctx, l)
	cancel()
	watching.Wait()
	return err
}

// serveHTTP serves what is no gRPC: health, metrics and REST.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics":
		s.health.ServeHTTP(w, r)
	default:
		o := origin{from: r.RemoteAddr}
		if r.TLS != nil {
			o.chain = r.TLS.PeerCertificates
		}
		s.rest.ServeHTTP(w, r.WithContext(withOrigin(r.Context(), o)))
	}
}
