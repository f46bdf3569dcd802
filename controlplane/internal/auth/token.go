package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/google/uuid"

	"github.com/naru-project/naru/pkg/problem"
)

const (
	tokenPrefix   = "naru_"
	sessionPrefix = "naru_s_"
	secretSize    = 32
)

// NewToken makes the secret of the access token with the given id (a UUID): the text that its bearer keeps, and the hash
// that the federation keeps. The text names the id, so that the token can be found without searching.
func NewToken(id string) (text string, hash []byte, err error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return "", nil, err
	}
	secret := make([]byte, secretSize)
	rand.Read(secret) // never fails
	sum := sha256.Sum256(secret)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(parsed[:], secret...)), sum[:], nil
}

// isSession reports whether a text is a session's; an access token's is shorter.
func isSession(text string) bool {
	return strings.HasPrefix(text, sessionPrefix) && len(text) == len(sessionPrefix)+base64.RawURLEncoding.EncodedLen(16+secretSize)
}

// parseToken returns the id that a token's text names and the hash of its secret. It never repeats the text.
func parseToken(text, prefix string) (id string, hash [sha256.Size]byte, err error) {
	rest, found := strings.CutPrefix(text, prefix)
	raw, decodeErr := base64.RawURLEncoding.Strict().DecodeString(rest)
	if !found || decodeErr != nil || len(raw) != 16+secretSize {
		return "", hash, problem.New(problem.TokenInvalid, "this is no access token of Naru's", "Send the whole text that was shown when the token was made: naru_….")
	}
	return uuid.UUID(raw[:16]).String(), sha256.Sum256(raw[16:]), nil
}
