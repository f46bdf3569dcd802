package member

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.uber.org/zap"
)

// TLS is how members and clients of a zone's etcd know each other: files in PEM, read again at each handshake, so that
// a renewed certificate is used without a restart.
type TLS struct {
	// CertFile holds the chain, leaf first; KeyFile its key.
	CertFile, KeyFile string
	// CAFile holds the roots that are believed.
	CAFile string
	// Name is the DNS name that the certificate of every agent carries, and of nobody else: it lets agents in and keeps
	// other holders of certificates of the same CA out. Needed for a member; a client without it checks the endpoint's
	// host name as usual.
	Name string
}

func (t *TLS) check() error {
	if t.Name == "" {
		return errors.New("certificates of the etcd member: the name that agents' certificates carry is missing")
	}
	for what, file := range map[string]string{"certificate": t.CertFile, "key": t.KeyFile, "CA": t.CAFile} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%s file of the etcd member: %w", what, err)
		}
	}
	return nil
}

// info serves both as server and as client of a peer. Host names are not looked up: who carries Name is let in.
func (t *TLS) info(log *zap.Logger) transport.TLSInfo {
	return transport.TLSInfo{
		CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.CAFile,
		ClientCertAuth: true, SkipClientSANVerify: true,
		ServerName: t.Name, AllowedHostnames: []string{t.Name},
		MinVersion: tls.VersionTLS13, Logger: log,
	}
}

// Client is the configuration of a client; nil for nil. Files are read at each handshake.
func (t *TLS) Client() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	if _, err := t.roots(); err != nil {
		return nil, err
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		return &c, err
	}
	if _, err := load(nil); err != nil {
		return nil, fmt.Errorf("certificate for etcd: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetClientCertificate: load, InsecureSkipVerify: true}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		name := t.Name
		if name == "" {
			name = s.ServerName
		}
		return t.verify(s.PeerCertificates, name)
	}
	return c, nil
}

// verify does what InsecureSkipVerify leaves out. gRPC would hold a certificate against the address that it dials; here
// it is held against the name that all agents carry.
func (t *TLS) verify(chain []*x509.Certificate, name string) error {
	if len(chain) == 0 {
		return errors.New("etcd shows no certificate")
	}
	roots, err := t.roots()
	if err != nil {
		return err
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), DNSName: name}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(o)
	return err
}

func (t *TLS) roots() (*x509.CertPool, error) {
	raw, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("CA for etcd: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("CA for etcd: no certificate in %s", t.CAFile)
	}
	return pool, nil
}
