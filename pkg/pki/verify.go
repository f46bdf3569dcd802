package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Why a chain was not accepted. Every error of Verify wraps one of them.
var (
	// ErrUntrusted: it does not lead to the pinned root as one of our chains does.
	ErrUntrusted = errors.New("certificate is not trusted")
	// ErrRole: it is one of ours, of another role than is asked here.
	ErrRole = errors.New("certificate has another role")
	// ErrExpired: it was good once. Comes with the Peer.
	ErrExpired = errors.New("certificate has expired")
	// ErrNotYetValid: it will be good; one of the clocks is wrong.
	ErrNotYetValid = errors.New("certificate is not valid yet")
)

// Peer is who a verified chain says its holder is.
type Peer struct {
	ID   spiffeid.ID
	Role Role
	// Federation, also for an id inside a zone.
	Federation string
	// Name is the last part of the id; of the following, those of the role are set.
	Name     string
	ServerID string
	BrokerID string
	ZoneID   string
	Agent    string
	Admin    string

	Key       crypto.PublicKey
	NotBefore time.Time
	NotAfter  time.Time
	// Expired is set with ErrExpired only.
	Expired bool
}

// Verify judges a chain (DER, leaf first; the root may be left out) against the pinned root, at now, and tells whose it
// is. want lists the roles that are welcome; none means any. The chain must be exactly ours: complete, in order, with
// nothing beside it.
//
// For a chain whose only fault is that the leaf's time is over, it returns the Peer, marked, and ErrExpired: the
// holder may renew it and do nothing else.
func Verify(chain [][]byte, root *x509.Certificate, now time.Time, want ...Role) (*Peer, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	return verify(certs, root, now, want)
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	if len(chain) > 3 {
		return nil, fmt.Errorf("%w: %d certificates in one chain", ErrUntrusted, len(chain))
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d: %w", ErrUntrusted, i, err)
		}
		certs[i] = cert
	}
	return certs, nil
}

func verify(certs []*x509.Certificate, root *x509.Certificate, now time.Time, want []Role) (*Peer, error) {
	path, err := complete(certs, root)
	if err != nil {
		return nil, err
	}
	leaf := path[0]
	if now.Before(leaf.NotBefore) {
		return nil, fmt.Errorf("%w: it begins at %s and it is %s here", ErrNotYetValid, stamp(leaf.NotBefore), stamp(now))
	}
	// An expired leaf is judged as it stood at its end; whoever signed it may have ended since.
	at, expired := now, now.After(leaf.NotAfter)
	if expired {
		at = leaf.NotAfter
	}
	if err := verifyPath(path, at); err != nil {
		return nil, err
	}
	peer, err := identify(path)
	if err != nil {
		return nil, err
	}
	if len(want) > 0 && !slices.Contains(want, peer.Role) {
		return nil, fmt.Errorf("%w: %s is of role %s, and %s is asked", ErrRole, peer.ID, peer.Role, list(want))
	}
	if peer.Expired = expired; expired {
		return peer, fmt.Errorf("%w: %s ended at %s and it is %s here", ErrExpired, peer.ID, stamp(leaf.NotAfter), stamp(now))
	}
	return peer, nil
}

// complete brings a chain to its full form, root included, or says what is wrong with its shape.
func complete(certs []*x509.Certificate, root *x509.Certificate) ([]*x509.Certificate, error) {
	if root == nil {
		return nil, fmt.Errorf("%w: no root is known here yet", ErrUntrusted)
	}
	_, role, err := authorityOf(root)
	if err != nil {
		return nil, err
	}
	depth := 3
	if role == AuthorityZone {
		depth = 2
	}
	path := certs
	if len(certs) == depth-1 {
		path = append(slices.Clone(certs), root)
	}
	if len(path) != depth {
		return nil, fmt.Errorf("%w: %d certificates, where a chain has %d", ErrUntrusted, len(certs), depth)
	}
	if !path[depth-1].Equal(root) {
		return nil, fmt.Errorf("%w: it leads to the root %s, and %s is pinned here", ErrUntrusted, Pin(path[depth-1]), Pin(root))
	}
	return path, nil
}

// verifyPath checks signatures, times, path lengths and critical extensions, and that x509 sees the very path we do.
func verifyPath(path []*x509.Certificate, at time.Time) error {
	last := len(path) - 1
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(path[last])
	for _, cert := range path[1:last] {
		between.AddCert(cert)
	}
	found, err := path[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	same := func(other []*x509.Certificate) bool {
		return slices.EqualFunc(path, other, (*x509.Certificate).Equal)
	}
	if len(found) != 1 || !same(found[0]) {
		return fmt.Errorf("%w: its certificates are out of order", ErrUntrusted)
	}
	return nil
}

// identify reads who a complete path speaks for, and checks that the issuer may say so. It checks no signature.
func identify(path []*x509.Certificate) (*Peer, error) {
	leaf, issuer, root := path[0], path[1], path[len(path)-1]
	domain, authority, err := authorityOf(issuer)
	if err != nil {
		return nil, err
	}
	rootDomain, rootRole, err := authorityOf(root)
	if err != nil {
		return nil, err
	}
	if rootDomain != domain || (rootRole != AuthorityRoot && rootRole != AuthorityZone) {
		return nil, fmt.Errorf("%w: an authority of %s under a root of %s", ErrUntrusted, domain, rootDomain)
	}
	if leaf.IsCA {
		return nil, fmt.Errorf("%w: its leaf is an authority", ErrUntrusted)
	}
	if !isP256(leaf.PublicKey) {
		return nil, fmt.Errorf("%w: its key is not ECDSA P-256", ErrUntrusted)
	}
	if len(leaf.URIs) != 1 {
		return nil, fmt.Errorf("%w: %d URIs, where exactly one SPIFFE id is asked", ErrUntrusted, len(leaf.URIs))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if !id.MemberOf(domain) {
		return nil, fmt.Errorf("%w: %s under an authority of %s", ErrUntrusted, id, domain)
	}
	k, names, err := kindOf(id, authority)
	if err != nil {
		return nil, err
	}
	if leaf.KeyUsage != k.keyUsage() || !slices.Equal(leaf.ExtKeyUsage, k.usage) || len(leaf.UnknownExtKeyUsage) > 0 {
		return nil, fmt.Errorf("%w: its key usages are not those of role %s", ErrUntrusted, k.role)
	}
	return newPeer(id, k, names, leaf), nil
}

// ClaimedZone returns the id of the zone whose agent a certificate claims to be; empty where it claims no such thing.
// Nothing is verified.
func ClaimedZone(leaf *x509.Certificate) string {
	if len(leaf.URIs) != 1 {
		return ""
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return ""
	}
	_, names, err := kindOf(id, AuthorityLinks)
	if err != nil {
		return ""
	}
	return names[0]
}

func newPeer(id spiffeid.ID, k kind, names []string, leaf *x509.Certificate) *Peer {
	peer := &Peer{
		ID:         id,
		Role:       k.role,
		Federation: id.TrustDomain().Name(),
		Name:       names[len(names)-1],
		Key:        leaf.PublicKey,
		NotBefore:  leaf.NotBefore,
		NotAfter:   leaf.NotAfter,
	}
	switch k.role {
	case RoleServer:
		peer.ServerID = peer.Name
	case RoleBroker:
		peer.BrokerID = peer.Name
	case RoleAgent:
		peer.ZoneID, peer.Agent = names[0], names[1]
	case RoleAdmin:
		peer.Admin = peer.Name
	case RoleMember, RoleEdge, RoleLibvirt:
		peer.ZoneID, peer.Federation, _ = strings.Cut(peer.Federation, zoneMark)
		if k.role == RoleMember {
			peer.Agent = peer.Name
		}
	}
	return peer
}

func isP256(key crypto.PublicKey) bool {
	ec, ok := key.(*ecdsa.PublicKey)
	return ok && ec.Curve == elliptic.P256()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func list(roles []Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return strings.Join(words, " or ")
}
