package frontdoor

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
)

const (
	handshakeTime = 10 * time.Second
	acceptPause   = 100 * time.Millisecond
	// maxHandshakes bounds the handshakes under way; they cost the most of all that a stranger can ask for.
	maxHandshakes = 256
)

// split takes connections off one listener, shakes hands, and gives each to gRPC's own server or to the web server. A
// client that offers HTTP/2 alone is a gRPC client; browsers, curl and HTTP libraries also offer HTTP/1.1, and the web
// server hands over what turns out to be gRPC. The split spares gRPC, which has most of the traffic, the detour through
// net/http.
type split struct {
	listener net.Listener
	log      *slog.Logger
	config   *tls.Config
	guests   *guests
	refusals chan struct{}
	seldom   rate.Sometimes
	grpc     *handed
	web      *handed
}

// newSplit asks clients for a certificate and accepts none or any: who calls is judged for each call, where a refusal can
// be explained.
func newSplit(l net.Listener, certificate func() (*tls.Certificate, error), log *slog.Logger, guests *guests) *split {
	return &split{
		listener: l, log: log, guests: guests, refusals: make(chan struct{}, maxRefusals),
		seldom: rate.Sometimes{First: 3, Interval: 10 * time.Second}, grpc: newHanded(l.Addr()), web: newHanded(l.Addr()),
		config: &tls.Config{
			MinVersion:             tls.VersionTLS13,
			NextProtos:             []string{"h2", "http/1.1"},
			ClientAuth:             tls.RequestClientCert,
			SessionTicketsDisabled: true,
			GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				hello.Conn.(*arrival).http2Only = slices.Equal(hello.SupportedProtos, []string{"h2"})
				return nil, nil
			},
		},
	}
}

// run accepts until ctx ends.
func (s *split) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	defer s.grpc.Close()
	defer s.web.Close()
	slots := make(chan struct{}, maxHandshakes)
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // too many open files, most likely: others will close theirs
			s.log.Warn("cannot accept a connection", "error", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		from := AddressOf(conn.RemoteAddr())
		if reason := s.guests.enter(from); reason != "" {
			s.turnAway(ctx, conn, from, reason)
			continue
		}
		conn = counted{conn, sync.OnceFunc(func() { s.guests.leave(from) })}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			s.guests.shaken(from)
			_ = conn.Close()
			return net.ErrClosed
		}
		go func() {
			defer func() { <-slots }()
			shaken, http2Only := s.shake(ctx, conn)
			s.guests.shaken(from)
			switch {
			case shaken == nil:
				_ = conn.Close()
			case http2Only:
				s.grpc.hand(shaken)
			default:
				s.web.hand(shaken)
			}
		}()
	}
}

// arrival is a connection before its handshake.
type arrival struct {
	net.Conn
	http2Only bool
}

// turnAway refuses a connection, and says why where that does not cost too much.
func (s *split) turnAway(ctx context.Context, raw net.Conn, from netip.Prefix, reason string) {
	s.guests.metrics.refused.WithLabelValues(reason).Inc()
	s.seldom.Do(func() {
		s.log.Warn("a connection is refused, too many are open", "from", from.String(), "limit", reason,
			"connections", s.guests.limits.Connections, "per_address", s.guests.limits.PerAddress)
	})
	select {
	case s.refusals <- struct{}{}:
	default:
		_ = raw.Close()
		return
	}
	go func() {
		defer func() { <-s.refusals }()
		ctx, cancel := context.WithTimeout(ctx, refusalTime)
		defer cancel()
		conn, http2Only := s.shake(ctx, raw)
		if conn == nil {
			_ = raw.Close()
			return
		}
		refuse(conn, http2Only, refusal(reason))
	}()
}

// shake finishes the handshake; nil where it fails.
func (s *split) shake(ctx context.Context, raw net.Conn) (shaken *tls.Conn, http2Only bool) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	a := &arrival{Conn: raw}
	conn := tls.Server(a, s.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		s.log.Debug("tls handshake failed", "remote", raw.RemoteAddr().String(), "error", err)
		return nil, false
	}
	return conn, a.http2Only
}

// handed is a listener whose connections somebody else has accepted.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func newHanded(addr net.Addr) *handed {
	return &handed{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
}

func (h *handed) hand(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.done:
		_ = conn.Close()
	}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handed) Addr() net.Addr { return h.addr }

// handshaken is gRPC's view of a connection whose handshake is done.
type handshaken struct{}

func (handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return nil, nil, errors.New("a connection without TLS")
	}
	return conn, credentials.TLSInfo{
		State: t.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (handshaken) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials serve only")
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }
func (handshaken) OverrideServerName(string) error           { return nil }
