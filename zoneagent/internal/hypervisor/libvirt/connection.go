package libvirt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// connection is a session with a libvirtd that is begun when it is first needed and again when it was lost.
type connection struct {
	dial    dialFunc
	log     *slog.Logger
	metrics *Metrics

	turn chan struct{} // held by whoever changes what is below

	session *session
	closed  bool
}

func newConnection(dial dialFunc, log *slog.Logger, metrics *Metrics) *connection {
	return &connection{dial: dial, log: log, metrics: metrics, turn: make(chan struct{}, 1)}
}

// session is one connection's life. What is known of the daemon's side is known for that long only.
type session struct {
	libvirt *rpc.Libvirt
	conn    *watchedConn
	ends    time.Time // of the daemon's certificate; zero on a socket

	mu     sync.Mutex
	pools  map[string]rpc.StoragePool // those that are ready for use
	reread map[string]bool            // those whose list of volumes is known to be whole
	domain string                     // "kvm" or "qemu", once asked

	logs serialLogs
}

// watchedConn tells when it has been lost. (The library's own sign can fail to come when a connection ends while it is
// being set up.)
type watchedConn struct {
	net.Conn
	once sync.Once
	lost chan struct{}
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() { close(c.lost) })
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.once.Do(func() { close(c.lost) })
	return c.Conn.Close()
}

func (s *session) alive() bool {
	select {
	case <-s.conn.lost:
		return false
	default:
		return true
	}
}

var errClosed = errors.New("the host's handle is closed")

// get returns the living session, or begins one: four attempts within about a second, no longer than ctx. Longer
// patience is the caller's business.
func (c *connection) get(ctx context.Context) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c.closed {
		return nil, errClosed
	}
	if c.session != nil && c.session.alive() {
		return c.session, nil
	}
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		s, err := begin(ctx, c.dial)
		c.metrics.connect(err)
		if err == nil {
			c.session = s
			return s, nil
		}
		if wait > 400*time.Millisecond || hypervisor.IsFatal(err) {
			return nil, fmt.Errorf("connecting to libvirt: %w", err)
		}
		c.log.Debug("libvirt does not answer", "error", err, "again_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("connecting to libvirt: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// close ends the connection for good.
func (c *connection) close() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.closed = true
	if c.session != nil {
		c.session.conn.Close()
	}
}

// begin connects and opens QEMU's driver on the other side.
func begin(ctx context.Context, dial dialFunc) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := &watchedConn{Conn: raw, lost: make(chan struct{})}
	s := &session{
		libvirt: rpc.NewWithDialer(dialers.NewAlreadyConnected(conn)),
		conn:    conn,
		pools:   map[string]rpc.StoragePool{},
		reread:  map[string]bool{},
		logs:    serialLogs{vms: map[string]*serialLog{}},
	}
	if secured, ok := raw.(*tls.Conn); ok {
		s.ends = secured.ConnectionState().PeerCertificates[0].NotAfter
	}
	if _, err := await(ctx, s, func(l *rpc.Libvirt) (struct{}, error) { return struct{}{}, l.ConnectToURI(rpc.QEMUSystem) }); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// await runs one call of the library, which knows no context, no longer than ctx. When ctx ends first, the session is
// closed, and the call with it.
func await[T any](ctx context.Context, s *session, call func(*rpc.Libvirt) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		value, err := call(s.libvirt)
		answered <- answer{value, err}
	}()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-ctx.Done():
		s.conn.Close()
		var none T
		return none, ctx.Err()
	}
}
