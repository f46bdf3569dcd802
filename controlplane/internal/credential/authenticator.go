package credential

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp/hotp"
)

const (
	// period is how long a code is shown, as authenticators expect it (RFC 6238).
	period = 30
	// drift is how many steps an authenticator's clock may be off, either way.
	drift      = 1
	secretSize = 20
	codeLength = 6
)

var authenticatorText = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewAuthenticator makes the secret of an authenticator.
func NewAuthenticator() []byte {
	secret := make([]byte, secretSize)
	rand.Read(secret) // never fails
	return secret
}

// AuthenticatorURI is what an authenticator reads, typed or as a picture.
func AuthenticatorURI(secret []byte, federation, user string) string {
	q := url.Values{"secret": {authenticatorText.EncodeToString(secret)}, "issuer": {federation}}
	u := url.URL{Scheme: "otpauth", Host: "totp", Path: "/" + federation + ":" + user, RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20")}
	return u.String()
}

// Step reports which time step a code is of, where it is one that counts now and comes after the last that counted.
func Step(secret []byte, code string, now time.Time, last uint64) (step uint64, ok bool) {
	code = strings.ReplaceAll(code, " ", "")
	if len(code) != codeLength {
		return 0, false
	}
	at := uint64(now.Unix()) / period
	for s := max(at-drift, last+1); s <= at+drift; s++ {
		right, err := hotp.GenerateCode(authenticatorText.EncodeToString(secret), s)
		if err == nil && subtle.ConstantTimeCompare([]byte(right), []byte(code)) == 1 {
			return s, true
		}
	}
	return 0, false
}
