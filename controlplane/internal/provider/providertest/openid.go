package providertest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// OpenID is an OpenID Connect provider that answers whatever a test has it answer.
type OpenID struct {
	t      testing.TB
	server *httptest.Server
	ca     *CA
	key    *rsa.PrivateKey

	mu     sync.Mutex
	status int
	code   string
	claims map[string]any
	asked  int
}

// NewOpenID starts one, and ends it with the test. It gives tokens until it is told otherwise.
func NewOpenID(t testing.TB, ca *CA) *OpenID {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	o := &OpenID{t: t, ca: ca, key: key}
	mux := http.NewServeMux()
	o.server = httptest.NewUnstartedServer(mux)
	o.server.TLS = ca.config(t)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": o.server.URL, "authorization_endpoint": o.server.URL + "/auth", "token_endpoint": o.server.URL + "/token",
			"jwks_uri": o.server.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1",
			"n": text(key.N.Bytes()), "e": text(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) { o.token(w) })
	o.server.StartTLS()
	t.Cleanup(o.server.Close)
	return o
}

// Provider is a provider for it, named corp.
func (o *OpenID) Provider() *apiv1.IdentityProvider {
	return &apiv1.IdentityProvider{Name: "corp", Oidc: &apiv1.OpenIDConnect{Issuer: o.server.URL, Ca: o.ca.PEM, ClientId: "naru"}}
}

// Says has its ID tokens say this, beside what every one says; a claim that is nil is left out.
func (o *OpenID) Says(claims map[string]any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.claims = claims
}

// Refuses has it answer every question for a token with a status and a code of RFC 6749; 0: it gives tokens again.
func (o *OpenID) Refuses(status int, code string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status, o.code = status, code
}

// Asked is how often it was asked for a token.
func (o *OpenID) Asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

func (o *OpenID) token(w http.ResponseWriter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	if o.status != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(o.status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": o.code})
		return
	}
	claims := map[string]any{"iss": o.server.URL, "aud": "naru", "sub": "kim-1", "preferred_username": "kim", "email": "kim@corp.example", "email_verified": true,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	maps.Copy(claims, o.claims)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	head, _ := json.Marshal(map[string]string{"alg": "RS256", "kid": "1"})
	body, _ := json.Marshal(claims)
	signed := text(head) + "." + text(body)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, o.key, crypto.SHA256, sum[:])
	if err != nil {
		o.t.Error(err)
	}
	answer(w, map[string]any{"access_token": "a", "token_type": "Bearer", "refresh_token": "the next", "id_token": signed + "." + text(signature)})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
