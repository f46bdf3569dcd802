package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// SealKeySize is the length of a sealing key in bytes.
const SealKeySize = 32

// NewSealKey makes a sealing key.
func NewSealKey() []byte {
	key := make([]byte, SealKeySize)
	rand.Read(key) // never fails
	return key
}

// Seal encrypts plain with AES-256-GCM under a random nonce. role says what it is, and must be told again to Open: a
// sealed thing cannot be passed off as another.
func Seal(key []byte, role string, plain []byte) ([]byte, error) {
	aead, err := sealer(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, []byte(role)), nil
}

// Open is the reverse of Seal.
func Open(key []byte, role string, sealed []byte) ([]byte, error) {
	aead, err := sealer(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(role))
	if err != nil {
		return nil, fmt.Errorf("open what is sealed as %q: wrong sealing key, or damaged", role)
	}
	return plain, nil
}

func sealer(key []byte) (cipher.AEAD, error) {
	if len(key) != SealKeySize {
		return nil, errors.New("a sealing key has 32 bytes")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
