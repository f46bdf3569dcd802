package libvirt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// dialTimeout bounds a connection attempt to a host that does not answer at all.
const dialTimeout = 5 * time.Second

type dialFunc func(context.Context) (net.Conn, error)

// dialer returns how to reach the endpoint; nil when it needs a certificate and there is none to be had.
func (e endpoint) dialer(certificates func() ([]tls.Certificate, error), roots func() *x509.CertPool) dialFunc {
	if e.socket != "" {
		return func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.socket)
		}
	}
	if certificates == nil || roots == nil {
		return nil
	}
	return func(ctx context.Context) (net.Conn, error) { return e.dialTLS(ctx, certificates, roots) }
}

// dialTLS connects with both sides' certificates. libvirtd sends one byte after the handshake, 1 when it takes the
// client's certificate; it has to be read before anything else.
func (e endpoint) dialTLS(ctx context.Context, certificates func() ([]tls.Certificate, error), roots func() *x509.CertPool) (net.Conn, error) {
	own, err := certificates()
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	dialer := tls.Dialer{Config: &tls.Config{
		ServerName:   e.host,
		Certificates: own,
		RootCAs:      roots(),
		MinVersion:   tls.VersionTLS12,
	}}
	conn, err := dialer.DialContext(ctx, "tcp", e.address())
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetReadDeadline(deadline)
	}
	var verdict [1]byte
	if _, err := conn.Read(verdict[:]); err != nil || verdict[0] != 1 {
		conn.Close()
		return nil, errors.Join(errors.New("the host refused this agent's certificate"), err)
	}
	conn.SetReadDeadline(time.Time{})
	return conn, nil
}
