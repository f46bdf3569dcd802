package member

import (
	"crypto/tls"
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

// Client is the configuration of a client; nil for nil.
func (t *TLS) Client() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	info := transport.TLSInfo{
		CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.CAFile, ServerName: t.Name,
		MinVersion: tls.VersionTLS12, Logger: zap.NewNop(),
	}
	c, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("certificates for etcd: %w", err)
	}
	return c, nil
}
