package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// ErrNoPeer says that the other end showed no certificate.
var ErrNoPeer = errors.New("the other end showed no certificate")

// Guard judges who is at the other end of a TLS connection. Its fields are set once. Safe for concurrent use.
type Guard struct {
	// Root gives the pinned root; asked at each handshake, since it may come to be known later.
	Root func() *x509.Certificate
	// Roots may stand in place of Root where there may be several, one of which is succeeding another; never empty.
	Roots func() []*x509.Certificate
	// Pin may stand in place of Root: the other end then shows its root, which must have this pin.
	Pin string
	// Want lists the roles that are welcome; none means any of ours.
	Want []Role
	// AllowAbsent lets in who shows no certificate; Peer is then ErrNoPeer.
	AllowAbsent bool
	// AllowExpired lets in whose certificate has expired; Peer then comes with ErrExpired.
	AllowExpired bool
	// Now is time.Now where it is nil.
	Now func() time.Time
}

// ServerTLS is for a listener that takes only holders of the wanted roles.
func ServerTLS(h *Holder, root func() *x509.Certificate, want ...Role) *tls.Config {
	return (&Guard{Root: root, Want: want}).Server(h.TLSCertificate)
}

// ClientTLS is for dialling somebody of the wanted role. Host names are not looked at.
func ClientTLS(h *Holder, root func() *x509.Certificate, want Role) *tls.Config {
	return (&Guard{Root: root, Want: []Role{want}}).Client(h.TLSCertificate)
}

// Server is a configuration for a listener that shows what own gives (asked at each handshake, so that a renewed
// certificate is used at once) and lets in whom the guard accepts. TLS 1.3 only, no resumption: every connection is
// judged anew.
func (g *Guard) Server(own func() (*tls.Certificate, error)) *tls.Config {
	clients := tls.RequireAnyClientCert
	if g.AllowAbsent {
		clients = tls.RequestClientCert
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		ClientAuth:             clients,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own() },
		VerifyConnection:       g.verifyConnection,
	}
}

// Client is a configuration for dialling. own may be nil: nothing is shown then.
func (g *Guard) Client(own func() (*tls.Certificate, error)) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Identity is a SPIFFE id under a pinned root, judged in VerifyConnection; there is no host name to verify.
		InsecureSkipVerify: true,
		VerifyConnection:   g.verifyConnection,
	}
	if own != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() }
	}
	return config
}

func (g *Guard) verifyConnection(state tls.ConnectionState) error {
	certs := state.PeerCertificates
	if len(certs) == 0 && g.AllowAbsent {
		return nil
	}
	root, err := g.root(certs)
	if err != nil {
		return err
	}
	_, err = verify(certs, root, g.now(), g.Want)
	if g.AllowExpired {
		return ignore(err, ErrExpired)
	}
	return err
}

func (g *Guard) root(certs []*x509.Certificate) (*x509.Certificate, error) {
	if g.Root != nil {
		return g.Root(), nil
	}
	if len(certs) == 0 {
		return nil, ErrNoPeer
	}
	if g.Roots != nil {
		return above(certs[len(certs)-1], g.Roots()), nil
	}
	last := certs[len(certs)-1]
	if got := Pin(last); got != g.Pin {
		return nil, fmt.Errorf("%w: the chain ends in %s, and %q is pinned here", ErrUntrusted, got, g.Pin)
	}
	return last, nil
}

// above finds the root that a chain leads to, by its last certificate. Where none does, any will do to say so.
func above(last *x509.Certificate, roots []*x509.Certificate) *x509.Certificate {
	for _, root := range roots {
		if last.Equal(root) || last.CheckSignatureFrom(root) == nil {
			return root
		}
	}
	return roots[0]
}

func (g *Guard) now() time.Time {
	if g.Now != nil {
		return g.Now()
	}
	return time.Now()
}

// Peer tells who is at the other end of a connection that this guard's configuration has let in. The time is judged
// again: a certificate that was good at the handshake may have expired since, and then comes with ErrExpired.
func (g *Guard) Peer(state tls.ConnectionState) (*Peer, error) {
	if !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return nil, ErrNoPeer
	}
	root, err := g.root(state.PeerCertificates)
	if err != nil {
		return nil, err
	}
	path, err := complete(state.PeerCertificates, root)
	if err != nil {
		return nil, err
	}
	p, err := identify(path)
	if err != nil {
		return nil, err
	}
	if len(g.Want) > 0 && !slices.Contains(g.Want, p.Role) {
		return nil, fmt.Errorf("%w: %s is of role %s, and %s is asked", ErrRole, p.ID, p.Role, list(g.Want))
	}
	if now := g.now(); now.After(p.NotAfter) {
		p.Expired = true
		return p, fmt.Errorf("%w: %s ended at %s and it is %s here", ErrExpired, p.ID, stamp(p.NotAfter), stamp(now))
	}
	return p, nil
}

// FromContext is Peer for the gRPC call that ctx belongs to.
func (g *Guard) FromContext(ctx context.Context) (*Peer, error) {
	state, ok := connectionState(ctx)
	if !ok {
		return nil, ErrNoPeer
	}
	return g.Peer(state)
}

// LeafFromContext is the certificate (DER) that the caller of a gRPC method showed; nil where there is none.
func LeafFromContext(ctx context.Context) []byte {
	state, ok := connectionState(ctx)
	if !ok || len(state.PeerCertificates) == 0 {
		return nil
	}
	return state.PeerCertificates[0].Raw
}

func connectionState(ctx context.Context) (tls.ConnectionState, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return tls.ConnectionState{}, false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	return info.State, ok
}

// KeyClient is a configuration for dialling somebody of whom only the key's fingerprint is known, whatever certificate
// it shows with it.
func KeyClient(fingerprint string, own func() (*tls.Certificate, error)) *tls.Config {
	config := (&Guard{}).Client(own)
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return ErrNoPeer
		}
		if got := Fingerprint(state.PeerCertificates[0].PublicKey); got != fingerprint {
			return fmt.Errorf("%w: its key is %s, and %s is expected", ErrUntrusted, got, fingerprint)
		}
		return nil
	}
	return config
}
