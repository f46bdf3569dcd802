package pki

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Role is what the holder of a certificate is.
type Role string

// Roles in a federation, and (RoleMember, RoleEdge, RoleLibvirt) inside a zone.
const (
	RoleServer Role = "server"
	RoleBroker Role = "broker"
	RoleAgent  Role = "agent"
	RoleAdmin  Role = "admin"

	RoleMember  Role = "member"
	RoleEdge    Role = "edge"
	RoleLibvirt Role = "libvirt"
)

// Roles of authorities.
const (
	AuthorityRoot    = "root"
	AuthorityServers = "servers"
	AuthorityBrokers = "brokers"
	AuthorityLinks   = "links"
	AuthorityPeople  = "people"
	AuthorityZone    = "zone"
)

// LinkTTL is the life of a link certificate. No longer one is issued.
const LinkTTL = 24 * time.Hour

// kind is all that is particular to a role.
type kind struct {
	role Role
	// authority that alone issues it.
	authority string
	// path of the SPIFFE id; "*" stands for one name.
	path []string
	// usage is exactly what a leaf carries.
	usage []x509.ExtKeyUsage
	// ttl where the issuer names none; max bounds what it may name, 0 for the authority's own end.
	ttl, max time.Duration
}

// keyUsage is exactly what a leaf's key may do. Inside a zone it may also encipher: libvirt asks that of the certificates at
// both ends, though no TLS 1.3 does it.
func (k kind) keyUsage() x509.KeyUsage {
	if k.authority == AuthorityZone {
		return x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	return x509.KeyUsageDigitalSignature
}

const day = 24 * time.Hour

// kinds is the table of who there is. A path determines its role within federation or zone.
func kinds() []kind {
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return []kind{
		{RoleServer, AuthorityServers, []string{"server", "*"}, both, 30 * day, 0},
		{RoleBroker, AuthorityBrokers, []string{"broker", "*"}, server, 30 * day, 0},
		{RoleAgent, AuthorityLinks, []string{"zone", "*", "agent", "*"}, client, LinkTTL, LinkTTL},
		{RoleAdmin, AuthorityPeople, []string{"admin", "*"}, client, 90 * day, 365 * day},
		{RoleMember, AuthorityZone, []string{"agent", "*"}, both, 30 * day, 0},
		{RoleEdge, AuthorityZone, []string{"edge", "*"}, server, 30 * day, 0},
		{RoleLibvirt, AuthorityZone, []string{"libvirt", "*"}, both, 365 * day, 0},
	}
}

// namePattern is what one name in a SPIFFE id may be: lower case only, so that no two ids look alike.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$`)

// kindOf finds the one kind that an authority of the given role issues under the id's path, and the names in it.
func kindOf(id spiffeid.ID, authority string) (kind, []string, error) {
	segments := strings.Split(strings.TrimPrefix(id.Path(), "/"), "/")
	for _, k := range kinds() {
		if names, ok := match(k.path, segments); ok && k.authority == authority {
			return k, names, nil
		}
	}
	return kind{}, nil, fmt.Errorf("%w: %s is no id that the %q authority issues", ErrUntrusted, id, authority)
}

func match(path, segments []string) (names []string, ok bool) {
	if len(path) != len(segments) {
		return nil, false
	}
	for i, want := range path {
		switch {
		case want == "*" && namePattern.MatchString(segments[i]):
			names = append(names, segments[i])
		case want != segments[i]:
			return nil, false
		}
	}
	return names, true
}

func kindOfRole(role Role) (kind, bool) {
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.role == role })
	if i < 0 {
		return kind{}, false
	}
	return all[i], true
}

func newID(federation string, role Role, names ...string) (spiffeid.ID, error) {
	domain, err := trustDomain(federation)
	if err != nil {
		return spiffeid.ID{}, err
	}
	k, _ := kindOfRole(role)
	segments := slices.Clone(k.path)
	for i, s := range segments {
		if s == "*" {
			if !namePattern.MatchString(names[0]) {
				return spiffeid.ID{}, fmt.Errorf("%q is no name for an id: lower-case letters, digits and . _ - between them, 1 to 64", names[0])
			}
			segments[i], names = names[0], names[1:]
		}
	}
	return spiffeid.FromSegments(domain, segments...)
}

// ServerID is spiffe://<federation>/server/<id>.
func ServerID(federation, id string) (spiffeid.ID, error) { return newID(federation, RoleServer, id) }

// BrokerID is spiffe://<federation>/broker/<id>.
func BrokerID(federation, id string) (spiffeid.ID, error) { return newID(federation, RoleBroker, id) }

// AgentID is spiffe://<federation>/zone/<zone id>/agent/<agent>, the id of a link certificate.
func AgentID(federation, zoneID, agent string) (spiffeid.ID, error) {
	return newID(federation, RoleAgent, zoneID, agent)
}

// AdminID is spiffe://<federation>/admin/<name>.
func AdminID(federation, name string) (spiffeid.ID, error) {
	return newID(federation, RoleAdmin, name)
}

// ZoneDomain is the name that a zone's own authority stands for: <zone id>.zone.<federation>.
func ZoneDomain(federation, zoneID string) string { return zoneID + zoneMark + federation }

// MemberID is spiffe://<zone id>.zone.<federation>/agent/<agent>: an agent inside its zone.
func MemberID(federation, zoneID, agent string) (spiffeid.ID, error) {
	return newID(ZoneDomain(federation, zoneID), RoleMember, agent)
}

// EdgeID is spiffe://<zone id>.zone.<federation>/edge/<name>.
func EdgeID(federation, zoneID, name string) (spiffeid.ID, error) {
	return newID(ZoneDomain(federation, zoneID), RoleEdge, name)
}

// LibvirtID is spiffe://<zone id>.zone.<federation>/libvirt/<name>.
func LibvirtID(federation, zoneID, name string) (spiffeid.ID, error) {
	return newID(ZoneDomain(federation, zoneID), RoleLibvirt, name)
}

const (
	zoneMark      = ".zone."
	authorityMark = "urn:naru:authority:"
)

// trustDomain takes a bare name only: no scheme, no path, nothing that could be read in two ways.
func trustDomain(name string) (spiffeid.TrustDomain, error) {
	domain, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("federation name %q: %w", name, err)
	}
	if domain.Name() != name || len(name) > 200 {
		return spiffeid.TrustDomain{}, fmt.Errorf("federation name %q: want letters, digits and . _ - only, at most 200", name)
	}
	return domain, nil
}

// authorityOf reads the two URIs that every authority carries: its trust domain and its role.
func authorityOf(cert *x509.Certificate) (domain spiffeid.TrustDomain, role string, err error) {
	for _, uri := range cert.URIs {
		switch {
		case uri.Scheme == "spiffe" && domain.IsZero():
			id, err := spiffeid.FromURI(uri)
			if err != nil || id.Path() != "" {
				return domain, "", fmt.Errorf("%w: authority's id %q", ErrUntrusted, uri)
			}
			domain = id.TrustDomain()
		case strings.HasPrefix(uri.String(), authorityMark) && role == "":
			role = strings.TrimPrefix(uri.String(), authorityMark)
		default:
			return domain, "", fmt.Errorf("%w: authority carries %q besides its id and role", ErrUntrusted, uri)
		}
	}
	if domain.IsZero() || role == "" {
		return domain, "", fmt.Errorf("%w: issuer %q carries no authority's id and role", ErrUntrusted, cert.Subject)
	}
	return domain, role, nil
}

func authorityURIs(domain spiffeid.TrustDomain, role string) []*url.URL {
	return []*url.URL{domain.ID().URL(), {Scheme: "urn", Opaque: strings.TrimPrefix(authorityMark, "urn:") + role}}
}
