package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/naru-project/naru/pkg/config"
)

const (
	// raftProtocol is what a connection for Raft's messages asks for in ALPN; peerProtocol is the peers' gRPC.
	raftProtocol = "naru-raft/1"
	peerProtocol = "h2"

	handshakeTimeout = 5 * time.Second
	// handshakesAtOnce bounds what those may cost who have shown no certificate yet.
	handshakesAtOnce = 128
	// strangerTime is how long a caller without a server's certificate may stay.
	strangerTime = time.Minute
	raftTimeout  = 10 * time.Second
)

// network is the fabric in the field: one TLS listener for both protocols, told apart by ALPN.
type network struct {
	listener             net.Listener
	serverTLS, clientTLS *tls.Config
	peerOf               func(tls.ConnectionState) (string, error)
	expected             func(address string) (serverID string, known bool)
	log                  *slog.Logger
	metrics              *metrics

	raft              *raft.NetworkTransport
	forRaft, forPeers *handoff

	ctx   context.Context // ends with close
	end   context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex
	open    map[*peerConn]struct{}
	clients map[string]*grpc.ClientConn
	server  *grpc.Server
}

// newNetwork listens. expected says which server stands at an address, where that is known.
func newNetwork(c *Config, expected func(address string) (string, bool), m *metrics) (*network, error) {
	if c.ServerTLS == nil || c.ClientTLS == nil || c.PeerOf == nil {
		return nil, errors.New("a replica needs TLS at both ends and a way to tell its peers")
	}
	listen := c.Listen
	if listen == "" {
		listen = c.Address
	}
	l, err := config.Listen("peer.address", listen)
	if err != nil {
		return nil, err
	}
	n := &network{
		listener: l, serverTLS: offerBoth(c.ServerTLS), clientTLS: c.ClientTLS, peerOf: c.PeerOf, expected: expected,
		log: c.Logger, metrics: m, forRaft: newHandoff(c.Address), forPeers: newHandoff(c.Address),
		open: map[*peerConn]struct{}{}, clients: map[string]*grpc.ClientConn{},
	}
	n.ctx, n.end = context.WithCancel(context.Background())
	n.raft = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream{n.forRaft, n}, MaxPool: 4, Timeout: raftTimeout, Logger: logger{to: c.Logger}, MsgpackUseNewTimeFormat: true,
	})
	n.tasks.Go(n.accept)
	return n, nil
}

// offerBoth makes c, and what it returns for single callers, offer both protocols.
func offerBoth(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{raftProtocol, peerProtocol}
	if single := c.GetConfigForClient; single != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			s, err := single(hello)
			if s != nil {
				s = s.Clone()
				s.NextProtos = []string{raftProtocol, peerProtocol}
			}
			return s, err
		}
	}
	return c
}

func (n *network) transport() raftTransport { return n.raft }

func (n *network) accept() {
	slots := make(chan struct{}, handshakesAtOnce)
	for {
		raw, err := n.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, most likely
			n.log.Warn("a peer could not be let in", "error", err)
			select {
			case <-n.ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		slots <- struct{}{} // each is given back within handshakeTimeout
		n.tasks.Go(func() {
			defer func() { <-slots }()
			if err := n.welcome(raw); err != nil {
				raw.Close()
				n.log.Debug("a connection to the peer port was refused", "from", raw.RemoteAddr().String(), "error", err)
			}
		})
	}
}

// welcome does the handshake and hands the connection to whoever speaks its protocol.
func (n *network) welcome(raw net.Conn) error {
	conn := tls.Server(raw, n.serverTLS)
	ctx, cancel := context.WithTimeout(n.ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	state := conn.ConnectionState()
	id, err := n.peerOf(state)
	switch {
	case state.NegotiatedProtocol == peerProtocol:
		p := n.known(conn, id)
		if err != nil {
			p.serverID = ""
			p.leave = time.AfterFunc(strangerTime, func() { p.Close() })
		}
		return n.forPeers.give(ctx, p)
	case state.NegotiatedProtocol != raftProtocol:
		return fmt.Errorf("the caller speaks neither %s nor %s", raftProtocol, peerProtocol)
	case err != nil:
		n.metrics.refusedPeers.Inc()
		n.log.Warn("only servers may speak Raft", "from", raw.RemoteAddr().String(), "error", err)
		return err
	}
	return n.forRaft.give(ctx, n.known(conn, id))
}

// dial connects to the peer at address, and refuses one that is no server or not the one that stands there.
func (n *network) dial(ctx context.Context, raw net.Conn, address, protocol string) (*peerConn, error) {
	c := n.clientTLS.Clone()
	c.NextProtos = []string{protocol}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(address)
	}
	conn := tls.Client(raw, c)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("greet the peer at %s: %w", address, err)
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != protocol {
		return nil, fmt.Errorf("the peer at %s speaks %q, not %q", address, state.NegotiatedProtocol, protocol)
	}
	id, err := n.peerOf(state)
	if err != nil {
		return nil, fmt.Errorf("what answers at %s is no server of this federation: %w", address, err)
	}
	if want, known := n.expected(address); known && want != id {
		return nil, fmt.Errorf("at %s answers server %s, where server %s was expected", address, id, want)
	}
	return n.known(conn, id), nil
}

// close implements fabric.
func (n *network) close() error {
	n.end()
	err := errors.Join(n.listener.Close(), n.raft.Close(), n.forPeers.Close())
	n.raft.CloseStreams()
	if n.server != nil {
		n.server.Stop()
	}
	n.mu.Lock()
	clients, open := n.clients, n.open
	n.clients, n.open = nil, nil
	n.mu.Unlock()
	for _, c := range clients {
		c.Close()
	}
	for c := range open {
		c.Close()
	}
	n.tasks.Wait()
	return err
}

// peerConn is a connection whose peer is known; "" is one without a server's certificate. It is closed with the network.
type peerConn struct {
	*tls.Conn
	serverID string
	network  *network
	leave    *time.Timer
}

func (n *network) known(c *tls.Conn, serverID string) *peerConn {
	p := &peerConn{Conn: c, serverID: serverID, network: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open != nil {
		n.open[p] = struct{}{}
	} else {
		c.NetConn().Close()
	}
	return p
}

// Close implements net.Conn.
func (p *peerConn) Close() error {
	p.network.mu.Lock()
	delete(p.network.open, p)
	p.network.mu.Unlock()
	if p.leave != nil {
		p.leave.Stop()
	}
	return p.Conn.Close()
}
