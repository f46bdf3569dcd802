package pki

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
)

// Handover is a one-time key (X25519) to which somebody else encrypts a secret that is to be handed over: HPKE (RFC 9180)
// with HKDF-SHA256 and AES-256-GCM.
type Handover struct{ private hpke.PrivateKey }

// NewHandover makes a key.
func NewHandover() (*Handover, error) {
	k, err := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	return &Handover{k}, err
}

// PublicKey is what the other side needs: 32 bytes.
func (h *Handover) PublicKey() []byte { return h.private.PublicKey().Bytes() }

// Open decrypts what SealTo encrypted for the same purpose, bound to the same bytes.
func (h *Handover) Open(purpose string, bound, sealed []byte) ([]byte, error) {
	plain, err := hpke.Open(h.private, hpke.HKDFSHA256(), hpke.AES256GCM(), handoverInfo(purpose, bound), sealed)
	if err != nil {
		return nil, fmt.Errorf("%s: it was not encrypted to this key, or not for this: %w", purpose, err)
	}
	return plain, nil
}

// SealTo encrypts plain to a handover's public key. purpose says what it is; bound is what it belongs to, such as the
// request it answers.
func SealTo(publicKey []byte, purpose string, bound, plain []byte) ([]byte, error) {
	to, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("%s: public key: %w", purpose, err)
	}
	return hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), handoverInfo(purpose, bound), plain)
}

func handoverInfo(purpose string, bound []byte) []byte {
	d := sha256.Sum256(bound)
	return append([]byte("naru handover v1 "+purpose+" "), d[:]...)
}
