// Package locallogin is how an operator shows in a zone that is cut off who they are. The password makes a key for each zone: the
// operator signs with it, and the zone, which knows the public key only, verifies. So a zone learns nothing by which it, or who robs
// it, could be the operator anywhere: it can try passwords, at the price of Argon2id each, and nothing more.
package locallogin

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/crypto/argon2"
)

// The cost of Argon2id: RFC 9106's second choice. It cannot be another for a password that is in use.
const (
	memoryKiB = 64 * 1024
	passes    = 3
	lanes     = 1
)

const (
	// SaltSize is that of a salt, RootSize that of what a password makes with it.
	SaltSize = 16
	RootSize = 32
	// TokenPrefix begins a bearer's token of a session in a zone that is cut off.
	TokenPrefix = "naru_l_"
)

// Root is what a password makes with a salt. It takes 64 MiB and a good part of a second.
func Root(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, passes, memoryKiB, lanes, RootSize)
}

// Key is the key of a root for one zone.
func Key(root []byte, zoneID string) (ed25519.PrivateKey, error) {
	seed, err := hkdf.Expand(sha256.New, root, "naru: local login\x00"+zoneID, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// Device is what a machine shows in one zone to be known by; kept is the SHA-256 of what it keeps.
func Device(kept []byte, zoneID string) []byte {
	m := hmac.New(sha256.New, kept)
	m.Write([]byte("naru: local login\x00" + zoneID))
	return m.Sum(nil)
}

// Claim is what whoever logs in signs: it is good for one zone, one challenge and one session.
type Claim struct {
	ZoneID, User string
	Challenge    []byte
	// Device is of Device; empty where the machine keeps nothing.
	Device []byte
	// SecretHash is the SHA-256 of the session's secret.
	SecretHash []byte
	Client     string
}

func (c Claim) bytes() []byte {
	out := []byte("naru: local login 1\x00")
	for _, part := range [][]byte{[]byte(c.ZoneID), []byte(c.User), c.Challenge, c.Device, c.SecretHash, []byte(c.Client)} {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(part))), part...)
	}
	return out
}

// Sign signs the claim.
func (c Claim) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, c.bytes()) }

// SignedBy reports whether the holder of a key has signed the claim.
func (c Claim) SignedBy(key ed25519.PublicKey, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, c.bytes(), signature)
}
