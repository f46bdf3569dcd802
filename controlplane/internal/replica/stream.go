package replica

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream is the network as Raft sees it.
type stream struct {
	*handoff
	network *network
}

// Dial implements raft.StreamLayer.
func (s stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.network.ctx, timeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", string(to))
	if err != nil {
		return nil, err
	}
	conn, err := s.network.dial(ctx, raw, string(to), raftProtocol)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// handoff is a listener whose connections are given to it.
type handoff struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newHandoff(address string) *handoff {
	return &handoff{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give passes c on to who accepts.
func (h *handoff) give(ctx context.Context, c net.Conn) error {
	select {
	case h.conns <- c:
		return nil
	case <-h.closed:
		return errors.Join(net.ErrClosed, c.Close())
	case <-ctx.Done():
		return errors.Join(ctx.Err(), c.Close())
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener: the address by which peers know this server.
func (h *handoff) Addr() net.Addr { return peerAddr(h.address) }

type peerAddr string

func (peerAddr) Network() string  { return "tcp" }
func (a peerAddr) String() string { return string(a) }
