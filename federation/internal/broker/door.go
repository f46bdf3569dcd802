package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/naru-project/naru/pkg/frontdoor"
)

// door is the zone leg's listener. It ends TLS itself and sorts who comes: whoever shows a certificate goes to the
// members' queue, whoever shows none to the strangers', behind which stands a server that can do one small thing. So no
// stranger reaches the server that carries sessions.
type door struct {
	listener net.Listener
	tls      *tls.Config
	limits   Limits
	patience time.Duration
	metrics  *metrics
	log      *slog.Logger

	members, strangers *queue

	mu    sync.Mutex
	total int
	each  map[netip.Prefix]int
}

func newDoor(l net.Listener, config *tls.Config, c Config, m *metrics, log *slog.Logger) *door {
	return &door{
		listener: l, tls: config, limits: c.Limits, patience: c.Patience.Handshake, metrics: m, log: log,
		members: newQueue(l.Addr()), strangers: newQueue(l.Addr()), each: map[netip.Prefix]int{},
	}
}

// Run accepts until ctx ends. Connections that were handed over live on; those in the middle of a handshake do not.
func (d *door) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { d.listener.Close() })
	defer stop()
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	defer d.listener.Close()
	for {
		conn, err := d.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return context.Cause(ctx)
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, most likely: those who are here keep theirs, newcomers wait.
			d.log.Warn("cannot accept on the zone leg", "error", err)
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return err
			}
			continue
		}
		counted, ok := d.admit(conn)
		if !ok {
			conn.Close()
			continue
		}
		handshakes.Go(func() { d.shake(ctx, counted) })
	}
}

// shake does the handshake and hands the connection over.
func (d *door) shake(ctx context.Context, conn net.Conn) {
	limited, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	secured := tls.Server(conn, d.tls)
	if err := secured.HandshakeContext(limited); err != nil {
		d.metrics.turnedAway.WithLabelValues("handshake").Inc()
		d.log.Debug("handshake refused on the zone leg", "from", conn.RemoteAddr().String(), "error", err)
		conn.Close()
		return
	}
	state := secured.ConnectionState()
	to := d.members
	if len(state.PeerCertificates) == 0 {
		to = d.strangers
	}
	if state.NegotiatedProtocol != "h2" || !to.put(ctx, secured) {
		d.metrics.turnedAway.WithLabelValues("protocol").Inc()
		conn.Close()
	}
}

// admit counts a connection, or says that there are too many.
func (d *door) admit(conn net.Conn) (net.Conn, bool) {
	from := frontdoor.AddressOf(conn.RemoteAddr())
	d.mu.Lock()
	defer d.mu.Unlock()
	reason := ""
	switch {
	case d.total >= d.limits.Connections:
		reason = "total"
	case d.each[from] >= d.limits.ConnectionsPerAddress:
		reason = "address"
	}
	if reason != "" {
		d.metrics.turnedAway.WithLabelValues(reason).Inc()
		return nil, false
	}
	d.total++
	d.each[from]++
	d.metrics.connections.Set(float64(d.total))
	return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { d.leave(from) })}, true
}

func (d *door) leave(from netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total--
	if d.each[from]--; d.each[from] == 0 {
		delete(d.each, from)
	}
	d.metrics.connections.Set(float64(d.total))
}

// countedConn tells when it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// queue is a net.Listener of connections that somebody else accepted.
type queue struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (q *queue) put(ctx context.Context, conn net.Conn) bool {
	select {
	case q.conns <- conn:
		return true
	case <-q.closed:
	case <-ctx.Done():
	}
	return false
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }

// handshaken is the gRPC credentials of connections that come out of a door: it only tells what the handshake found.
type handshaken struct {
	credentials.TransportCredentials
}

func newHandshaken() credentials.TransportCredentials {
	return handshaken{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13})}
}

func (handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return nil, nil, errors.New("a connection that did not come through the door")
	}
	return conn, credentials.TLSInfo{
		State:          secured.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
