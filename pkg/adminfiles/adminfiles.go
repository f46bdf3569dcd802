// Package adminfiles is the folder in which an administrator's key, certificate and configuration of the command line lie.
// A key that is there is never written over.
package adminfiles

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/naru-project/naru/pkg/pki"
)

// Files of the folder.
const (
	Key         = "admin.key" // PKCS #8
	Request     = "admin.csr"
	Certificate = "admin.pem" // the chain, leaf first
	CA          = "ca.pem"
	Config      = "config.yaml"
)

// NewKey makes a key, and a certificate request (PKCS #10, DER) for it.
func NewKey() (key crypto.Signer, csr []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err = RequestFor(own)
	return own, csr, err
}

// RequestFor makes a certificate request for a key. Whom it is for, whoever issues the certificate says.
func RequestFor(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// Free refuses a folder that holds an administrator's key.
func Free(dir string) error {
	switch _, err := os.Lstat(filepath.Join(dir, Key)); {
	case err == nil:
		return taken(dir)
	case errors.Is(err, os.ErrNotExist):
		return nil
	default:
		return err
	}
}

func taken(dir string) error {
	return fmt.Errorf("%s holds the key of an administrator already; name another folder, so that nothing is lost", dir)
}

// WriteRequest writes a new key and its request. The folder is made where it is missing.
func WriteRequest(dir string, key crypto.Signer, csr []byte) error {
	if err := writeKey(dir, key); err != nil {
		return err
	}
	return write(filepath.Join(dir, Request), encode("CERTIFICATE REQUEST", csr))
}

// Write writes all that a new administrator needs: the key, its chain, the federation's root, and a configuration that names
// the server, HOST:PORT. The folder is made where it is missing.
func Write(dir string, key crypto.Signer, chain [][]byte, root *x509.Certificate, server string) error {
	config, err := yaml.Marshal(map[string]string{
		"server": "https://" + server, "ca_file": CA, "trust_pin": pki.Pin(root), "certificate_file": Certificate, "key_file": Key,
	})
	if err != nil {
		return err
	}
	if err := writeKey(dir, key); err != nil {
		return err
	}
	if err := write(filepath.Join(dir, CA), encode("CERTIFICATE", root.Raw)); err != nil {
		return err
	}
	if err := WriteChain(filepath.Join(dir, Certificate), chain); err != nil {
		return err
	}
	return write(filepath.Join(dir, Config), config)
}

// WriteChain puts a chain in the place of what is at path: the file is the former one or the new one, and never a part.
func WriteChain(path string, chain [][]byte) error { return write(path, Chain(chain)) }

// Chain is a chain in PEM.
func Chain(chain [][]byte) (text []byte) {
	for _, der := range chain {
		text = append(text, encode("CERTIFICATE", der)...)
	}
	return text
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeKey(dir string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, Key), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return taken(dir)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(encode("PRIVATE KEY", der)); err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// write puts a file in its place when it is whole and on disk, for its owner only.
func write(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
