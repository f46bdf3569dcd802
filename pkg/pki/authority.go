package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	year = 365 * day
	// rootLife is the life of a root, which is pinned in many hands and so is not rotated in place.
	rootLife = 40 * year
	// intermediateLife is three times that of the longest-lived certificate: an intermediate issues for two thirds of its life
	// (Due), and whatever it issued ends within the last one.
	intermediateLife = 3 * year
	// backdate lets a certificate be used at once by somebody whose clock is a little behind.
	backdate = 5 * time.Minute
)

// Authority issues certificates. Its Key is nil where only the certificate is known; such a one issues nothing.
type Authority struct {
	// Role is AuthorityRoot, AuthorityServers and so on.
	Role string
	// Federation, or for a zone's own authority its ZoneDomain.
	Federation  string
	Certificate *x509.Certificate
	Key         crypto.Signer
	// Parent is nil for a root and for a zone's authority.
	Parent *Authority
}

// NewAuthority makes an authority with a fresh key: a root (AuthorityRoot, or AuthorityZone with a ZoneDomain as
// federation) where parent is nil, else an intermediate of the parent, which must be a root that holds its key.
func NewAuthority(role, federation string, parent *Authority, now time.Time) (*Authority, error) {
	domain, err := trustDomain(federation)
	if err != nil {
		return nil, err
	}
	if err := checkPlace(role, federation, parent); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of authority %s: %w", role, err)
	}
	number := serial()
	subject := pkix.Name{Organization: []string{federation}, CommonName: role}
	if role == AuthorityZone {
		// Whoever asks for certificates by their issuer's name, as libvirt does, must tell a zone's next authority from this one.
		subject.SerialNumber = number.Text(16)
	}
	template := &x509.Certificate{
		SerialNumber:          number,
		Subject:               subject,
		URIs:                  authorityURIs(domain, role),
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	signer, signing := template, crypto.Signer(key)
	switch {
	case parent != nil:
		signer, signing = parent.Certificate, parent.Key
		template.NotAfter = earlier(now.Add(intermediateLife), parent.Certificate.NotAfter)
	case role == AuthorityRoot:
		template.MaxPathLen, template.MaxPathLenZero = 1, false
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signing)
	if err != nil {
		return nil, fmt.Errorf("sign authority %s: %w", role, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back authority %s: %w", role, err)
	}
	return &Authority{Role: role, Federation: federation, Certificate: cert, Key: key, Parent: parent}, nil
}

// LoadAuthority reads back what Certificate.Raw and MarshalKey gave. key may be nil: the authority then issues nothing.
func LoadAuthority(certificate, key []byte, parent *Authority) (*Authority, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	domain, role, err := authorityOf(cert)
	if err != nil {
		return nil, err
	}
	if err := checkPlace(role, domain.Name(), parent); err != nil {
		return nil, err
	}
	issuer := cert
	if parent != nil {
		issuer = parent.Certificate
	}
	if err := cert.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("authority %s of %s: %w", role, domain.Name(), err)
	}
	a := &Authority{Role: role, Federation: domain.Name(), Certificate: cert, Parent: parent}
	if key == nil {
		return a, nil
	}
	if a.Key, err = parseKey(key); err != nil {
		return nil, fmt.Errorf("key of authority %s: %w", role, err)
	}
	if !sameKey(a.Key.Public(), cert.PublicKey) {
		return nil, fmt.Errorf("key of authority %s does not belong to its certificate", role)
	}
	return a, nil
}

// checkPlace holds roots above and intermediates below.
func checkPlace(role, federation string, parent *Authority) error {
	switch {
	case role == AuthorityRoot || role == AuthorityZone:
		if parent != nil {
			return fmt.Errorf("authority %s stands on its own and has no parent", role)
		}
	case !slices.Contains([]string{AuthorityServers, AuthorityBrokers, AuthorityLinks, AuthorityPeople}, role):
		return fmt.Errorf("there is no authority of role %q", role)
	case parent == nil || parent.Role != AuthorityRoot || parent.Federation != federation:
		return fmt.Errorf("authority %s stands below the root of %s", role, federation)
	}
	return nil
}

// MarshalKey gives the private key as PKCS #8, to be sealed.
func (a *Authority) MarshalKey() ([]byte, error) {
	if a.Key == nil {
		return nil, fmt.Errorf("authority %s has no key here", a.Role)
	}
	return x509.MarshalPKCS8PrivateKey(a.Key)
}

// Due says that an intermediate should be replaced by a new one (NewAuthority with the same arguments): two thirds of
// its life are over. What the old one issued stays good until its own end.
func (a *Authority) Due(now time.Time) bool {
	return a.Parent != nil && !now.Before(renewalTime(a.Certificate, 0))
}

// Valid says that the authority's own time is now.
func (a *Authority) Valid(now time.Time) bool {
	return !now.Before(a.Certificate.NotBefore) && !now.After(a.Certificate.NotAfter)
}

// Spent says that nothing which the authority issued is valid any more, given that next has issued in its place ever since
// that was made. A day is added for issuers who learned of next late.
func (a *Authority) Spent(next *Authority, now time.Time) bool {
	var longest time.Duration
	for _, k := range kinds() {
		if k.authority == a.Role {
			longest = max(longest, k.ttl, k.max)
		}
	}
	return now.After(earlier(a.Certificate.NotAfter, next.Certificate.NotBefore.Add(backdate+longest+day)))
}

// IssueOptions says what a certificate is to be beyond its key and id.
type IssueOptions struct {
	// TTL is counted from Now; zero means the role's usual one. A link certificate lives 24 h at most, and none
	// longer than its authority.
	TTL time.Duration
	// DNS and IPs are for the sake of clients outside the federation, such as browsers; nothing here judges by them.
	DNS []string
	IPs []net.IP
	// Now must be set.
	Now time.Time
}

// Issue makes a certificate for the key under the id and returns the chain: DER, leaf first, root last. The id must be
// one of this authority's federation and role.
func (a *Authority) Issue(pub crypto.PublicKey, id spiffeid.ID, o IssueOptions) ([][]byte, error) {
	if a.Key == nil {
		return nil, fmt.Errorf("authority %s has no key here", a.Role)
	}
	if o.Now.IsZero() {
		return nil, errors.New("issue a certificate: the time is not told")
	}
	if !isP256(pub) {
		return nil, errors.New("issue a certificate: the key is not ECDSA P-256")
	}
	if id.TrustDomain().Name() != a.Federation {
		return nil, fmt.Errorf("issue a certificate: %s is not of %s", id, a.Federation)
	}
	k, names, err := kindOf(id, a.Role)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	ttl := o.TTL
	if ttl == 0 {
		ttl = k.ttl
	}
	if ttl < 0 || (k.max > 0 && ttl > k.max) {
		return nil, fmt.Errorf("issue a certificate: %s is no life for role %s, at most %s", ttl, k.role, k.max)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{a.Federation}, CommonName: names[len(names)-1]},
		URIs:                  []*url.URL{id.URL()},
		DNSNames:              o.DNS,
		IPAddresses:           o.IPs,
		NotBefore:             o.Now.Add(-min(backdate, ttl/10)),
		NotAfter:              earlier(o.Now.Add(ttl), a.Certificate.NotAfter),
		BasicConstraintsValid: true,
		KeyUsage:              k.keyUsage(),
		ExtKeyUsage:           k.usage,
	}
	if template.NotAfter.Before(o.Now) {
		return nil, fmt.Errorf("issue a certificate: authority %s ended at %s", a.Role, stamp(a.Certificate.NotAfter))
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, pub, a.Key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", id, err)
	}
	chain := [][]byte{leaf}
	for up := a; up != nil; up = up.Parent {
		chain = append(chain, up.Certificate.Raw)
	}
	return chain, nil
}

// serial is 127 random bits, never zero.
func serial() *big.Int {
	raw := make([]byte, 16)
	rand.Read(raw) // never fails
	raw[0] = raw[0]&0x7f | 0x40
	return new(big.Int).SetBytes(raw)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
