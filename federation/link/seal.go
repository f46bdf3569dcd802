package link

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Labels keep what is signed or derived for one purpose from being taken for another.
const (
	labelTranscript = "naru link v1 transcript"
	labelZone       = "naru link v1 proof of the zone"
	labelHub        = "naru link v1 proof of the hub"
	labelUp         = "naru link v1 key up"
	labelDown       = "naru link v1 key down"
	labelSeal       = "naru link v1 key of sealed credentials"
)

// transcript is a hash over everything that both ends said before either could prove anything.
func transcript(session, hello, welcome []byte) []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(labelTranscript), session, hello, welcome} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// toSign is what an end signs: its role and the transcript, so that no end's proof serves the other.
func toSign(label string, transcript []byte) []byte {
	return append([]byte(label+"\n"), transcript...)
}

// secrets are a session's keys.
type secrets struct {
	up, down *tagger
	sealing  cipher.AEAD
}

// newSecrets derives the keys from this end's ephemeral key, the other end's, and the transcript.
func newSecrets(own *ecdh.PrivateKey, other, transcript []byte) (*secrets, error) {
	key, err := ecdh.X25519().NewPublicKey(other)
	if err != nil {
		return nil, fmt.Errorf("the other end's ephemeral key: %w", err)
	}
	shared, err := own.ECDH(key) // refuses a key that would make the secret known to all
	if err != nil {
		return nil, fmt.Errorf("the other end's ephemeral key: %w", err)
	}
	root, err := hkdf.Extract(sha256.New, shared, transcript)
	if err != nil {
		return nil, err
	}
	derive := func(label string) []byte {
		key, e := hkdf.Expand(sha256.New, root, label, 32)
		if e != nil {
			err = e
		}
		return key
	}
	s := &secrets{up: newTagger(derive(labelUp)), down: newTagger(derive(labelDown))}
	block, e := aes.NewCipher(derive(labelSeal))
	if err != nil || e != nil {
		return nil, fmt.Errorf("derive the session's keys: %w", err)
	}
	s.sealing, err = cipher.NewGCM(block)
	return s, err
}

func (s *secrets) tagger(d linkv1.Direction) *tagger {
	if d == linkv1.Direction_UP {
		return s.up
	}
	return s.down
}

// tagger makes and judges the tags of one direction. One goroutine uses it.
type tagger struct {
	mac  hash.Hash
	head [33]byte
	sum  [sha256.Size]byte
}

func newTagger(key []byte) *tagger { return &tagger{mac: hmac.New(sha256.New, key)} }

// compute leaves the tag of a frame in t.sum.
func (t *tagger) compute(f *linkv1.Frame) []byte {
	head := append(t.head[:0], f.Session...)
	head = append(head, byte(f.Direction))
	head = binary.BigEndian.AppendUint64(head, f.Counter)
	head = binary.BigEndian.AppendUint32(head, uint32(f.Type))
	head = binary.BigEndian.AppendUint32(head, uint32(len(f.Payload)))
	t.mac.Reset()
	t.mac.Write(head)
	t.mac.Write(f.Payload)
	return t.mac.Sum(t.sum[:0])
}

// tag puts the tag onto a frame.
func (t *tagger) tag(f *linkv1.Frame) { f.Tag = append([]byte(nil), t.compute(f)...) }

// matches reports whether a frame's tag is its own.
func (t *tagger) matches(f *linkv1.Frame) bool { return hmac.Equal(t.compute(f), f.Tag) }

// sealCredential seals a bearer token to the far end of the session, for one call only.
func (s *secrets) sealCredential(call uint64, method string, body, credential []byte) []byte {
	return s.sealing.Seal(nil, callNonce(call), credential, callData(method, body))
}

// openCredential is its opposite.
func (s *secrets) openCredential(call uint64, method string, body, sealed []byte) ([]byte, error) {
	credential, err := s.sealing.Open(nil, callNonce(call), sealed, callData(method, body))
	if err != nil {
		return nil, fmt.Errorf("open the credential of a call: %w", err)
	}
	return credential, nil
}

// callNonce: a zone never uses the number of a call twice in a session, and the key serves nothing else.
func callNonce(call uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), call)
}

func callData(method string, body []byte) []byte {
	data := binary.BigEndian.AppendUint64(nil, uint64(len(method)))
	return append(append(data, method...), body...)
}
