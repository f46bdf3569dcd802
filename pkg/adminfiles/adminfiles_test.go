package adminfiles

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func certificate(t *testing.T, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) (crypto.Signer, []byte) {
	t.Helper()
	key, csr, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

func TestAnAdministratorsFolderHasAllThatTheCommandLineNeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "admin")
	key, _ := newKey(t)
	root := certificate(t, key)
	if err := Write(dir, key, [][]byte{root.Raw, root.Raw}, root, "10.0.0.1:8443"); err != nil {
		t.Fatal(err)
	}
	for name, has := range map[string]string{Key: "PRIVATE KEY", Certificate: "CERTIFICATE", CA: "CERTIFICATE", Config: "https://10.0.0.1:8443"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		info, _ := os.Stat(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(b), has) || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %s", name, err, b)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 4 {
		t.Errorf("in the folder: %v", left)
	}
}

func TestAKeyIsNeverWrittenOver(t *testing.T) {
	dir := t.TempDir()
	key, csr := newKey(t)
	if err := Free(dir); err != nil {
		t.Fatal(err)
	}
	if err := WriteRequest(dir, key, csr); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(filepath.Join(dir, Key))
	if err != nil {
		t.Fatal(err)
	}
	other, otherCSR := newKey(t)
	root := certificate(t, other)
	for what, err := range map[string]error{
		"asked":          Free(dir),
		"a request":      WriteRequest(dir, other, otherCSR),
		"a whole folder": Write(dir, other, [][]byte{root.Raw}, root, "x:1"),
	} {
		if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "name another folder") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(dir, Key)); string(b) != string(first) {
		t.Error("the key is another one")
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("in the folder: %v", left)
	}
	block, _ := pem.Decode(first)
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		t.Error(err)
	}
}

func TestARenewedChainTakesTheFormersPlace(t *testing.T) {
	key, _ := newKey(t)
	root := certificate(t, key)
	path := filepath.Join(t.TempDir(), Certificate)
	if err := os.WriteFile(path, []byte("former, and longer than what comes: "+strings.Repeat("x", 5000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteChain(path, [][]byte{root.Raw}); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	block, rest := pem.Decode(b)
	if info, _ := os.Stat(path); block == nil || len(rest) != 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("%s", b)
	}
}
