package link

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

// Identity is who this end is.
type Identity interface {
	// Chain is the certificates, DER, leaf first; the root may be left out.
	Chain() [][]byte
	// Sign signs with the leaf's key: ECDSA over SHA-256, in ASN.1, or Ed25519.
	Sign(transcript []byte) ([]byte, error)
}

// Peer is who the other end has proven to be. Everything in it comes from its certificate.
type Peer struct {
	// Name is the SPIFFE id.
	Name string
	// Zone is the zone's id; empty for a server.
	Zone string
	// Agent is the agent's name in the zone; empty for a server.
	Agent string
	Key   crypto.PublicKey
}

// Verify judges a chain and tells whose it is. It is asked before the other end has proven to hold the key, so it
// changes nothing.
type Verify func(chain [][]byte) (Peer, error)

// Holder has a key and the chain that is current.
type Holder interface {
	Chain() [][]byte
	Key() crypto.Signer
}

// IdentityOf returns the identity of who holds a key: ECDSA or Ed25519.
func IdentityOf(h Holder) Identity { return holderIdentity{h} }

type holderIdentity struct{ Holder }

func (i holderIdentity) Sign(transcript []byte) ([]byte, error) {
	switch i.Key().Public().(type) {
	case ed25519.PublicKey:
		return i.Key().Sign(rand.Reader, transcript, crypto.Hash(0))
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(transcript)
		return i.Key().Sign(rand.Reader, digest[:], crypto.SHA256)
	}
	return nil, fmt.Errorf("sign with a key of type %T: it is neither ECDSA nor Ed25519", i.Key().Public())
}

// signed reports whether signature is the key's over the transcript.
func signed(key crypto.PublicKey, transcript, signature []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, transcript, signature)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(transcript)
		return ecdsa.VerifyASN1(key, digest[:], signature)
	}
	return false
}
