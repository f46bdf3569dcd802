package pki

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"

	"github.com/google/uuid"
)

const (
	tokenPrefix  = "naru-join:"
	tokenSecret  = 32
	maxTokenText = 512
)

// JoinToken is what an administrator gives to whoever is to join. Its Secret never travels: the joiner proves it with
// MAC. Pin is the federation's root, so that the joiner knows whom it talks to.
type JoinToken struct {
	ID     string
	Secret []byte
	Pin    string
}

// NewJoinToken makes a token with a fresh id and secret.
func NewJoinToken(pin string) (JoinToken, error) {
	if err := CheckPin(pin); err != nil {
		return JoinToken{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return JoinToken{}, err
	}
	secret := make([]byte, tokenSecret)
	rand.Read(secret) // never fails
	return JoinToken{ID: id.String(), Secret: secret, Pin: pin}, nil
}

// String is the token as people copy it. It holds the secret; LogValue does not.
func (t JoinToken) String() string {
	secret := base64.RawURLEncoding.EncodeToString(t.Secret)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(t.ID+"."+secret+"."+t.Pin))
}

// LogValue keeps the secret out of logs.
func (t JoinToken) LogValue() slog.Value { return slog.StringValue("join token " + t.ID) }

// ParseJoinToken reads what String wrote, spaces around it allowed. Its errors never repeat the text.
func ParseJoinToken(text string) (JoinToken, error) {
	bad := func(why string) (JoinToken, error) {
		return JoinToken{}, errors.New("this is no join token: " + why + "; copy the whole text that the administrator was shown, naru-join: included")
	}
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > maxTokenText {
		return bad("it does not begin with " + tokenPrefix + " or is too long")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil {
		return bad("its letters are damaged")
	}
	parts := strings.Split(string(raw), ".")
	if len(parts) != 3 {
		return bad("a part is missing")
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil || len(secret) != tokenSecret {
		return bad("its secret is damaged")
	}
	if id, err := uuid.Parse(parts[0]); err != nil || id.String() != parts[0] {
		return bad("its id is damaged")
	}
	if err := CheckPin(parts[2]); err != nil {
		return bad("its pin is damaged")
	}
	return JoinToken{ID: parts[0], Secret: secret, Pin: parts[2]}, nil
}

// MAC is HMAC-SHA256 over the parts, each with its length (8 bytes, big-endian) before it, so that no two lists of
// parts give the same input.
func MAC(secret []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, secret)
	for _, part := range parts {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// CheckMAC compares in constant time.
func CheckMAC(mac, secret []byte, parts ...[]byte) bool {
	return hmac.Equal(mac, MAC(secret, parts...))
}
