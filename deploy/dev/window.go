package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// listen opens a listener on loopback for a network's window, on its usual port where that is free.
func listen(n Network) (*os.File, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n.Port))
	if err != nil {
		// The usual port is taken, by another site perhaps.
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// openWindow opens the loopback window into a network: a listener made out here, handed to a process that stands inside.
// What passes is TLS from end to end; the window carries bytes and reads nothing.
func (s *Site) openWindow(n Network, targets []string) (url string, err error) {
	var f *os.File
	if s.Mode == UserNamespaces {
		// Made before this program was started again inside: file descriptors 3 and on, in the order of the networks.
		f = os.NewFile(uintptr(3+n.Number), "window")
	} else if f, err = listen(n); err != nil {
		return "", err
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return "", err
	}
	defer l.Close()
	listeners := []*os.File{f}
	if s.Mode == UserNamespaces {
		// What runs in here, this program too, reaches the window under the same address.
		inner, err := net.Listen("tcp", l.Addr().String())
		if err != nil {
			return "", err
		}
		defer inner.Close()
		f, err := inner.(*net.TCPListener).File()
		if err != nil {
			return "", err
		}
		defer f.Close()
		listeners = append(listeners, f)
	}
	r := record{Name: windowPrefix + n.Name, Group: "desk-" + n.Name, Args: []string{
		s.program("naru-dev"), "window", "--listeners", strconv.Itoa(len(listeners)), strings.Join(targets, ","),
	}}
	return fmt.Sprintf("https://%s.localhost:%d", n.Name, l.Addr().(*net.TCPAddr).Port), s.start(r, listeners...)
}

// windowPrefix begins the names of the windows' processes.
const windowPrefix = "window-"

// ServeWindow carries connections of the listeners, on the file descriptors from 3 on, to the first of the targets that
// answers.
func ServeWindow(ctx context.Context, listeners int, targets []string) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range listeners {
		l, err := net.FileListener(os.NewFile(uintptr(3+i), "window"))
		if err != nil {
			return fmt.Errorf("file descriptor %d is no listener: %w", 3+i, err)
		}
		g.Go(func() error { return serve(ctx, l, targets) })
	}
	return g.Wait()
}

func serve(ctx context.Context, l net.Listener, targets []string) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go carry(ctx, c.(*net.TCPConn), targets)
	}
}

func carry(ctx context.Context, in *net.TCPConn, targets []string) {
	defer in.Close()
	for _, t := range targets {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "tcp", t)
		if err != nil {
			continue
		}
		out := c.(*net.TCPConn)
		defer out.Close()
		done := make(chan struct{})
		go func() { defer close(done); copyHalf(out, in) }()
		copyHalf(in, out)
		<-done
		return
	}
}

// copyHalf copies one way until its end, and passes the end on; an error ends both ways.
func copyHalf(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil && !errors.Is(err, net.ErrClosed) {
		dst.Close()
		src.Close()
		return
	}
	dst.CloseWrite()
}
