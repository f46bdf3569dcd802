package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/naru-project/naru/pkg/pki"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// federation is a root with its intermediates.
type federation struct {
	name                            string
	root                            *pki.Authority
	servers, brokers, links, people *pki.Authority
}

func newFederation(t testing.TB, name string, now time.Time) *federation {
	t.Helper()
	root := must(pki.NewAuthority(pki.AuthorityRoot, name, nil, now))
	below := func(role string) *pki.Authority { return must(pki.NewAuthority(role, name, root, now)) }
	return &federation{
		name: name, root: root,
		servers: below(pki.AuthorityServers), brokers: below(pki.AuthorityBrokers),
		links: below(pki.AuthorityLinks), people: below(pki.AuthorityPeople),
	}
}

func (f *federation) rootCert() *x509.Certificate { return f.root.Certificate }

func (f *federation) agent(t testing.TB, zone, name string) spiffeid.ID {
	t.Helper()
	return must(pki.AgentID(f.name, zone, name))
}

// issue gives a chain for a fresh key.
func (f *federation) issue(t testing.TB, a *pki.Authority, id spiffeid.ID, now time.Time) [][]byte {
	t.Helper()
	return must(a.Issue(newKey().Public(), id, pki.IssueOptions{Now: now}))
}

// forge signs whatever the change makes of an honest agent's leaf; the signer is an authority that was stolen.
func (f *federation) forge(t testing.TB, thief *pki.Authority, change func(*x509.Certificate)) [][]byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(7),
		Subject:               pkix.Name{CommonName: "a1"},
		URIs:                  []*url.URL{f.agent(t, "z1", "a1").URL()},
		NotBefore:             noon.Add(-time.Minute),
		NotAfter:              noon.Add(time.Hour),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(template)
	leaf := must(x509.CreateCertificate(rand.Reader, template, thief.Certificate, newKey().Public(), thief.Key))
	chain := [][]byte{leaf}
	for a := thief; a != nil; a = a.Parent {
		chain = append(chain, a.Certificate.Raw)
	}
	return chain
}

func newKey() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func uri(text string) *url.URL { return must(url.Parse(text)) }

// must is for what cannot fail in a test that is well.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
