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
	h := sha256.New()
	h.Write([]byte(vouched))
	for _, part := range [][]byte{[]byte(k.ID), k.Public, binary.BigEndian.AppendUint64(nil, uint64(k.Until.Unix()))} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// Vouch signs that a key is the control plane's. by is the key (ECDSA) of one of its servers.
func (k Key) Vouch(by crypto.Signer) ([]byte, error) {
	return by.Sign(rand.Reader, k.digest(), crypto.SHA256)
}

// VouchedBy reports whether a signature is of this key, by the holder of a server's key. Whose key that is, and whether the time is
// over, is for the caller to find out.
func (k Key) VouchedBy(by crypto.PublicKey, signature []byte) bool {
	key, ok := by.(*ecdsa.PublicKey)
	return ok && ecdsa.VerifyASN1(key, k.digest(), signature)
}
