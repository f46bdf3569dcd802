package sealed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Key is a key of the control plane to which people seal.
type Key struct {
	ID     string
	Public []byte
	// Until is when nobody seals to it any more, in whole seconds.
	Until time.Time
}

// vouched is what a signature of a key is for, so that it is good for nothing else.
const vouched = "naru: people seal to this key\x00"

func (k Key) digest() []byte {
	return digest(vouched, []byte(k.ID), k.Public, binary.BigEndian.AppendUint64(nil, uint64(k.Until.Unix())))
}

func digest(purpose string, parts ...[]byte) []byte {
	h := sha256.New()
	h.Write([]byte(purpose))
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

func signedBy(by crypto.PublicKey, digest, signature []byte) bool {
	key, ok := by.(*ecdsa.PublicKey)
	return ok && ecdsa.VerifyASN1(key, digest, signature)
}

// Vouch signs that a key is the control plane's. by is the key (ECDSA) of one of its servers.
func (k Key) Vouch(by crypto.Signer) ([]byte, error) {
	return by.Sign(rand.Reader, k.digest(), crypto.SHA256)
}

// VouchedBy reports whether a signature is of this key, by the holder of a server's key. Whose key that is, and whether the time is
// over, is for the caller to find out.
func (k Key) VouchedBy(by crypto.PublicKey, signature []byte) bool {
	return signedBy(by, k.digest(), signature)
}

// Way is where the control plane sends somebody to log in.
type Way struct {
	// Provider is whom they asked for, SecretHash that of the session for which they did.
	Provider   string
	SecretHash []byte
	// URL is where their browser goes, UserCode what they type there, State what has to come back; the latter two may be empty.
	URL, UserCode, State string
}

// wayVouched is what a signature of a way is for.
const wayVouched = "naru: people log in here\x00"

func (w Way) digest() []byte {
	return digest(wayVouched, []byte(w.Provider), w.SecretHash, []byte(w.URL), []byte(w.UserCode), []byte(w.State))
}

// Vouch signs that a way is the control plane's. by is the key (ECDSA) of one of its servers.
func (w Way) Vouch(by crypto.Signer) ([]byte, error) {
	return by.Sign(rand.Reader, w.digest(), crypto.SHA256)
}

// VouchedBy reports whether a signature is of this way, by the holder of a server's key. Whose key that is, is for the caller to find
// out.
func (w Way) VouchedBy(by crypto.PublicKey, signature []byte) bool {
	return signedBy(by, w.digest(), signature)
}
