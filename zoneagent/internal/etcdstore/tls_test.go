package etcdstore

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/naru-project/naru/zoneagent/internal/etcdstore/member"
)

// agentsName is what every agent's certificate carries, and no other of the zone's.
const agentsName = "agents.zone.test"

// zoneCA issues certificates of a zone.
type zoneCA struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newZoneCA(t testing.TB) *zoneCA {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "zone CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))
	ca := &zoneCA{t: t, cert: must(x509.ParseCertificate(der)), key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	ca.write(ca.file, "CERTIFICATE", der)
	return ca
}

func (ca *zoneCA) write(file, kind string, der []byte) {
	ca.t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		ca.t.Fatal(err)
	}
}

// issue gives a certificate that carries a DNS name.
func (ca *zoneCA) issue(name string) *member.TLS {
	ca.t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key))
	dir := ca.t.TempDir()
	t := &member.TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), CAFile: ca.file, Name: agentsName}
	ca.write(t.CertFile, "CERTIFICATE", der)
	ca.write(t.KeyFile, "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	return t
}

func (z *testZone) secured(n int, t *member.TLS, others ...int) Config {
	c := z.config(n)
	c.TLS = t
	for _, o := range others {
		c.Endpoints = append(c.Endpoints, "https://"+z.address(o, 2379))
	}
	return c
}

func TestMembersAndClientsKnowEachOtherByTheZonesCertificates(t *testing.T) {
	t.Parallel()
	z, ca := newZone(t), newZoneCA(t)
	a := z.open(z.secured(1, ca.issue(agentsName)))
	b := z.open(z.secured(2, ca.issue(agentsName), 1))
	z.open(z.secured(3, ca.issue(agentsName), 1))
	b.write(b.own("cluster/c1"), "vm-1")
	a.ensure([]string{"agent-1", "agent-2", "agent-3"}, z.agents(1, 2, 3))
	b.write(b.own("cluster/c2"), "vm-2")
}

func TestOtherHoldersOfCertificatesAreKeptOut(t *testing.T) {
	z, ca := newZone(t), newZoneCA(t)
	z.open(z.secured(1, ca.issue(agentsName)))
	for who, tls := range map[string]*member.TLS{
		"a hypervisor of the zone": ca.issue("libvirt.zone.test"),
		"an agent of another zone": newZoneCA(t).issue(agentsName),
		"nobody":                   nil,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if s, err := Open(ctx, z.secured(2, tls, 1)); err == nil {
			t.Errorf("%s is let in", who)
			_ = s.Close()
		}
		cancel()
	}
}

func TestMissingCertificatesAreNamed(t *testing.T) {
	z, ca := newZone(t), newZoneCA(t)
	tls := ca.issue(agentsName)
	if err := os.Remove(tls.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), z.secured(1, tls)); err == nil {
		t.Error("it opens without a key")
	}
	tls = ca.issue(agentsName)
	tls.Name = ""
	if _, err := Open(t.Context(), z.secured(1, tls)); err == nil {
		t.Error("it opens without the agents' name")
	}
}
