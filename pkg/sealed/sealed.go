// Package sealed encrypts what people type to the control plane, and what the control plane answers to one person, so that
// nobody on the way reads it: HPKE (RFC 9180) with X25519, HKDF-SHA256 and AES-256-GCM. What is sealed is as long as the next
// multiple of 256 bytes, so that its length tells nothing either.
package sealed

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// block is of what the length of a plaintext is made a multiple.
const block = 256

// most is how long a plaintext may be.
const most = 8192

// ErrSealed says that something was not sealed for this key, this method, this user and this session.
var ErrSealed = errors.New("it was not sealed for this")

func kem() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// NewKey makes a pair of keys, 32 bytes each.
func NewKey() (private, public []byte, err error) {
	k, err := kem().GenerateKey()
	if err != nil {
		return nil, nil, err
	}
	private, err = k.Bytes()
	return private, k.PublicKey().Bytes(), err
}

// Public returns the public key of a private one, which may be any 32 bytes.
func Public(private []byte) ([]byte, error) {
	k, err := kem().NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	return k.PublicKey().Bytes(), nil
}

// For says what secrets are for; they open for nothing else.
type For struct {
	// Method is /naru.api.v1.SessionService/LogIn.
	Method string
	// User is the name of whose secrets they are.
	User string
	// SecretHash is the SHA-256 of the session's secret: that of the caller's session, or of the one that is to begin.
	SecretHash []byte
}

func (f For) bound() []byte { return append(append([]byte(f.User), 0), f.SecretHash...) }

// Secrets seals what a person typed to the control plane's public key.
func Secrets(public []byte, keyID string, f For, s *apiv1.Secrets) (*apiv1.Sealed, error) {
	ciphertext, err := Message(public, f, s)
	return &apiv1.Sealed{KeyId: keyID, Ciphertext: ciphertext}, err
}

// OpenSecrets is the reverse of Secrets. Errors: ErrSealed.
func OpenSecrets(private []byte, f For, s *apiv1.Sealed) (*apiv1.Secrets, error) {
	out := &apiv1.Secrets{}
	if err := OpenMessage(private, f, s.GetCiphertext(), out); err != nil {
		return nil, err
	}
	return out, nil
}

// ForOperator says that something is for one zone about one of its operators.
func ForOperator(zoneID, userID string) For {
	return For{Method: "naru: operator", User: zoneID + "/" + userID}
}

// Message seals a message; OpenMessage is its reverse. Errors: ErrSealed.
func Message(public []byte, f For, m proto.Message) ([]byte, error) {
	plain, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return seal(public, f.Method, f.bound(), plain)
}

// OpenMessage is the reverse of Message.
func OpenMessage(private []byte, f For, ciphertext []byte, into proto.Message) error {
	plain, err := open(private, f.Method, f.bound(), ciphertext)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(plain, into); err != nil {
		return fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return nil
}

// Reply seals an answer of a method to the key that the caller sent.
func Reply(public []byte, method, text string) ([]byte, error) {
	return seal(public, method, nil, []byte(text))
}

// OpenReply is the reverse of Reply. Errors: ErrSealed.
func OpenReply(private []byte, method string, ciphertext []byte) (string, error) {
	plain, err := open(private, method, nil, ciphertext)
	return string(plain), err
}

func seal(public []byte, info string, bound, plain []byte) ([]byte, error) {
	if len(plain) > most {
		return nil, fmt.Errorf("%d bytes are too long to be sealed", len(plain))
	}
	key, err := kem().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("the key to seal to: %w", err)
	}
	enc, sender, err := hpke.NewSender(key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info))
	if err != nil {
		return nil, err
	}
	padded := binary.BigEndian.AppendUint16(nil, uint16(len(plain)))
	padded = append(padded, plain...)
	padded = append(padded, make([]byte, (block-len(padded)%block)%block)...)
	ciphertext, err := sender.Seal(bound, padded)
	return append(enc, ciphertext...), err
}

func open(private []byte, info string, bound, ciphertext []byte) ([]byte, error) {
	key, err := kem().NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	const encapsulated = 32
	if len(ciphertext) < encapsulated {
		return nil, ErrSealed
	}
	r, err := hpke.NewRecipient(ciphertext[:encapsulated], key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	padded, err := r.Open(bound, ciphertext[encapsulated:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	if len(padded) < 2 || int(binary.BigEndian.Uint16(padded)) > len(padded)-2 {
		return nil, ErrSealed
	}
	return padded[2 : 2+int(binary.BigEndian.Uint16(padded))], nil
}
