package federation

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// InProcess is a listener that can only be dialled from inside this process.
type InProcess struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Pipe makes one. Its connections are pairs of connected sockets, so that deadlines and buffers are the kernel's.
func Pipe() *InProcess {
	return &InProcess{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// DialContext connects to whoever accepts. The address is ignored: there is only one.
func (p *InProcess) DialContext(ctx context.Context, _ string) (net.Conn, error) {
	here, there, err := pair()
	if err != nil {
		return nil, err
	}
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	here.Close()
	there.Close()
	return nil, err
}

// Accept waits for the next connection.
func (p *InProcess) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and DialContext; connections live on.
func (p *InProcess) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr names what has no address.
func (p *InProcess) Addr() net.Addr { return &net.UnixAddr{Name: "in-process", Net: "unix"} }

func pair() (a, b net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	if a, err = conn(fds[0]); err != nil {
		syscall.Close(fds[1])
		return nil, nil, err
	}
	if b, err = conn(fds[1]); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

// conn takes the descriptor over.
func conn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "in-process")
	defer f.Close()
	return net.FileConn(f)
}
