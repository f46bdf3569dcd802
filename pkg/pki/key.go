package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const pinPrefix = "sha256:"

// Pin names a root: "sha256:" and the hexadecimal hash of its DER.
func Pin(root *x509.Certificate) string {
	sum := sha256.Sum256(root.Raw)
	return pinPrefix + hex.EncodeToString(sum[:])
}

// CheckPin says what is wrong with a pin's form.
func CheckPin(pin string) error {
	raw, err := hex.DecodeString(strings.TrimPrefix(pin, pinPrefix))
	if err != nil || len(raw) != sha256.Size || !strings.HasPrefix(pin, pinPrefix) || strings.ToLower(pin) != pin {
		return fmt.Errorf("%q is no pin of a root: want sha256: and 64 hexadecimal digits", pin)
	}
	return nil
}

// RootByPin finds the root at the end of a chain (DER, root last) where its hash is the pinned one. The chain itself is
// not verified by that.
func RootByPin(chain [][]byte, pin string) (*x509.Certificate, error) {
	if err := CheckPin(pin); err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%w: the chain is empty", ErrUntrusted)
	}
	root, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if got := Pin(root); got != pin {
		return nil, fmt.Errorf("%w: the chain ends in %s, and %s is pinned here", ErrUntrusted, got, pin)
	}
	return root, nil
}

// Fingerprint is how people compare keys: "SHA256:" and the raw base64 of the SubjectPublicKeyInfo's hash. It is empty
// for a key that cannot be encoded.
func Fingerprint(pub crypto.PublicKey) string {
	sum := KeyHash(pub)
	if sum == nil {
		return ""
	}
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum)
}

// KeyHash is the SHA-256 of the key's SubjectPublicKeyInfo; nil for a key that cannot be encoded.
func KeyHash(pub crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(der)
	return sum[:]
}

// maxCSR bounds what is parsed of a stranger's request.
const maxCSR = 8 << 10

// KeyOfCSR returns the key that a certificate request (PKCS #10, DER) proves to hold. All else that the request says,
// names above all, is ignored: who somebody is, the issuer knows from elsewhere.
func KeyOfCSR(csr []byte) (crypto.PublicKey, error) {
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("certificate request of %d bytes, at most %d", len(csr), maxCSR)
	}
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	if !isP256(request.PublicKey) {
		return nil, errors.New("certificate request: the key is not ECDSA P-256")
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return request.PublicKey, nil
}

func parseKey(pkcs8 []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || !isP256(ec.Public()) {
		return nil, errors.New("private key is not ECDSA P-256")
	}
	return ec, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	ec, ok := a.(*ecdsa.PublicKey)
	return ok && ec.Equal(b)
}
