// Package hub is a server's side of a broker's hub leg. A server runs one Client for each broker: it dials, holds the
// announce stream, tells the server's status, answers joins, renewals and the broker's own wish for a certificate, and
// takes up the sessions it is offered.
package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Registrar decides who gets a certificate. Errors go to the asker as they are, with their gRPC code (package problem).
type Registrar interface {
	// Join answers a stranger; pending until an administrator has accepted it.
	Join(ctx context.Context, in *linkv1.JoinRequest) (*linkv1.JoinResponse, error)
	// Renew answers the holder of a link certificate (DER of the leaf, as the broker saw it on its zone leg). The
	// broker has checked it for itself; the registrar checks it again, expired or not, with revocations.
	Renew(ctx context.Context, certificate []byte, in *linkv1.RenewRequest) (*linkv1.RenewResponse, error)
	// EnrollBroker issues the broker (by Config.Broker) a certificate for the request's key, which is the pinned one.
	// The chain is DER, leaf first, root last.
	EnrollBroker(ctx context.Context, broker string, csr []byte) (chain [][]byte, err error)
}

// Stream is a session's frames.
type Stream interface {
	Send(*linkv1.Frame) error
	Recv() (*linkv1.Frame, error)
}

// Session is one that the client has taken up.
type Session struct {
	// ZoneID and Agent are whose it is, as the broker read from the certificate on its zone leg.
	ZoneID, Agent string
	// Broker is Config.Broker.
	Broker string
	// Schema is the highest that the broker can check.
	Schema uint32
	// Stream ends when Serve's context does.
	Stream Stream
}

// Config is all a Client needs; only what is marked may be left out.
type Config struct {
	// Broker is the broker's id.
	Broker string
	// Address is HOST:PORT of its hub leg.
	Address string
	// Fingerprint of its key, as the Broker noun has it. Nobody with another key is spoken to.
	Fingerprint string
	// Certificate is this server's own; pki.Holder.TLSCertificate.
	Certificate func() (*tls.Certificate, error)
	// Board is where this server's status is published.
	Board *Board
	// Registrar answers what the zone side asks.
	Registrar Registrar
	// Serve carries one session until it ends; then the session's stream is closed. Many run at a time.
	Serve func(ctx context.Context, s *Session) error
	// DialContext stands in place of TCP; the InProcess listener's, for a broker in the same process. May be nil.
	DialContext func(ctx context.Context, address string) (net.Conn, error)
	// MaxSessions that are taken up at a time; an offer beyond is left to other servers. Default 1024.
	MaxSessions int
	// Logger may be nil.
	Logger *slog.Logger
	// Metrics are shared by the clients of one server. May be nil.
	Metrics *Metrics
}

func (c *Config) check() error {
	switch {
	case c.Broker == "" || c.Address == "" || c.Fingerprint == "":
		return errors.New("hub client: a broker has an id, an address and a fingerprint")
	case c.Certificate == nil || c.Board == nil || c.Registrar == nil || c.Serve == nil:
		return errors.New("hub client: Certificate, Board, Registrar and Serve must be given")
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = 1024
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = newMetrics()
	}
	return nil
}

// Metrics of the clients of one server.
type Metrics struct {
	connected *prometheus.GaugeVec
	sessions  *prometheus.GaugeVec
	queries   *prometheus.CounterVec
	failures  *prometheus.CounterVec
}

// NewMetrics registers them; nil registers them nowhere.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := newMetrics()
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.connected, m.sessions, m.queries, m.failures} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func newMetrics() *Metrics {
	return &Metrics{
		connected: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "naru_hub_connected", Help: "Whether the announce stream to a broker stands."}, []string{"broker"}),
		sessions:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "naru_hub_sessions", Help: "Sessions taken up."}, []string{"broker"}),
		queries:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "naru_hub_queries_total", Help: "Joins, renewals and enrolments answered, by gRPC code."}, []string{"broker", "kind", "code"}),
		failures:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "naru_hub_connection_failures_total", Help: "Announce streams that could not be opened or that broke."}, []string{"broker"}),
	}
}

// forget drops a broker's series.
func (m *Metrics) forget(broker string) {
	labels := prometheus.Labels{"broker": broker}
	m.connected.DeletePartialMatch(labels)
	m.sessions.DeletePartialMatch(labels)
	m.queries.DeletePartialMatch(labels)
	m.failures.DeletePartialMatch(labels)
}

// Waits between attempts to reach a broker: each is twice the one before, and the first again behind a stream that has worked,
// on which the broker was heard for as long as proven.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 3 * time.Second
	proven     = 3 * time.Second
	// dialPatience is short: while packets are lost TCP asks ever more rarely, and a new attempt asks at once.
	dialPatience = 5 * time.Second
)
