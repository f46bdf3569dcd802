package providertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Issuer is an OpenID Connect provider that does what dex does not: it says when somebody has shown who they are (auth_time), asks them
// again where it is told to, refuses, and gives out tokens that are not as they should be. Discovery, keys and signatures are go-oidc's;
// whoever comes to its login page is logged in as kim.
type Issuer struct {
	t      testing.TB
	ca     *CA
	server *httptest.Server
	key    *rsa.PrivateKey

	mu     sync.Mutex
	user   string
	since  time.Time // when they showed who they are
	logins map[string]url.Values
	// Careless issuers take no notice of being told to ask somebody again.
	careless bool
	forge    func(Token) string
	// refresh is the one token that is taken for new ones.
	refresh string
	status  int
	code    string
	asked   int
}

// Token is what an issuer is about to give out, for whoever forges it.
type Token struct {
	Claims map[string]any
	// Sign signs claims with the issuer's own key; With with another key, or with the issuer's public one as if it were a shared secret.
	Sign func(claims map[string]any) string
	With func(claims map[string]any, key any, keyID, algorithm string) string
	// Public is the issuer's public key, KeyID what it is called.
	Public crypto.PublicKey
	KeyID  string
}

const issuersKey = "key-1"

// NewIssuer starts one in which kim has been logged in for an hour, with a client naru, whose secret is Secret; and ends it with the test.
func NewIssuer(t testing.TB, ca *CA) *Issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{t: t, ca: ca, key: key, user: "kim", since: time.Now().Add(-time.Hour), logins: map[string]url.Values{}}
	said := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: issuersKey, Algorithm: oidc.RS256}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /auth", i.authorize)
	mux.HandleFunc("POST /token", i.token)
	mux.Handle("/", said)
	i.server = httptest.NewUnstartedServer(mux)
	i.server.TLS = ca.config(t)
	i.server.StartTLS()
	t.Cleanup(i.server.Close)
	said.SetIssuer(i.server.URL)
	return i
}

// Provider is a provider for it, named corp.
func (i *Issuer) Provider() *apiv1.IdentityProvider {
	return &apiv1.IdentityProvider{Name: "corp", Oidc: &apiv1.OpenIDConnect{Issuer: i.server.URL, Ca: i.ca.PEM, ClientId: "naru", Scopes: []string{"profile"}}}
}

// Forge has the issuer give out other tokens; nil: its own again.
func (i *Issuer) Forge(with func(Token) string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forge = with
}

// Says has its tokens say this, beside what they say anyway; a claim that is nil is left out.
func (i *Issuer) Says(claims map[string]any) {
	i.Forge(func(t Token) string {
		for name, value := range claims {
			t.Claims = t.Other(name, value)
		}
		return t.Sign(t.Claims)
	})
}

// Refuses has it answer every question for a token with a status and a code of RFC 6749; 0: it gives tokens again.
func (i *Issuer) Refuses(status int, code string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status, i.code = status, code
}

// Asked is how often it was asked for a token.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// TakesNoNotice has it log people in without asking them again, though it is told to.
func (i *Issuer) TakesNoNotice(careless bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.careless = careless
}

// Visit goes to its login page, and returns where it sends the browser.
func (i *Issuer) Visit(page string) *url.URL {
	i.t.Helper()
	b := *i.server.Client()
	b.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // who it is does not matter here
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r, err := b.Get(page)
	if err != nil {
		i.t.Fatal(err)
	}
	r.Body.Close()
	away, err := r.Location()
	if err != nil {
		i.t.Fatalf("%s: %v", r.Status, err)
	}
	return away
}

func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	asked := r.URL.Query()
	if asked.Get("client_id") != "naru" || asked.Get("response_type") != "code" || asked.Get("code_challenge_method") != "S256" {
		http.Error(w, "what is asked for is not understood", http.StatusBadRequest)
		return
	}
	if !i.careless && (asked.Get("prompt") == "login" || asked.Get("max_age") == "0") {
		i.since = time.Now()
	}
	code := rand.Text()
	i.logins[code] = asked
	away := url.Values{"code": {code}, "state": {asked.Get("state")}}
	http.Redirect(w, r, asked.Get("redirect_uri")+"?"+away.Encode(), http.StatusFound)
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked++
	w.Header().Set("Content-Type", "application/json")
	asked, known := i.asks(r)
	status, code := i.status, i.code
	if status == 0 && !known {
		status, code = http.StatusBadRequest, "invalid_grant"
	}
	if status != 0 {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code})
		return
	}
	now := time.Now()
	t := Token{
		Claims: map[string]any{
			"iss": i.server.URL, "aud": "naru", "sub": i.user + "-1", "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "nonce": asked.Get("nonce"),
			"auth_time": i.since.Unix(), "preferred_username": i.user, "email": i.user + "@corp.example", "email_verified": true,
		},
		Public: i.key.Public(), KeyID: issuersKey, With: i.sign,
		Sign: func(claims map[string]any) string { return i.sign(claims, i.key, issuersKey, oidc.RS256) },
	}
	given := t.Sign(t.Claims)
	if i.forge != nil {
		given = i.forge(t)
	}
	i.refresh = rand.Text()
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 600, "refresh_token": i.refresh, "id_token": given,
	})
}

// asks tells whether somebody may ask for a token, and what they had asked for when they were logged in.
func (i *Issuer) asks(r *http.Request) (asked url.Values, ok bool) {
	id, secret, _ := r.BasicAuth()
	secret, _ = url.QueryUnescape(secret) // as RFC 6749 has it
	if id != "naru" || secret != Secret {
		return nil, false
	}
	if r.FormValue("grant_type") == "refresh_token" {
		return nil, i.refresh != "" && r.FormValue("refresh_token") == i.refresh
	}
	asked = i.logins[r.FormValue("code")]
	delete(i.logins, r.FormValue("code"))
	challenge := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	return asked, asked != nil && asked.Get("redirect_uri") == r.FormValue("redirect_uri") &&
		asked.Get("code_challenge") == base64.RawURLEncoding.EncodeToString(challenge[:])
}

func (i *Issuer) sign(claims map[string]any, key any, keyID, algorithm string) string {
	b, err := json.Marshal(claims)
	if err != nil {
		i.t.Error(err)
	}
	if algorithm == "none" {
		header := `{"alg":"none","kid":"` + keyID + `"}`
		return strings.Join([]string{base64.RawURLEncoding.EncodeToString([]byte(header)), base64.RawURLEncoding.EncodeToString(b), ""}, ".")
	}
	return oidctest.SignIDToken(key, keyID, algorithm, string(b))
}

// Other returns claims with one that says something else; nil: that is not there.
func (t Token) Other(name string, value any) map[string]any {
	claims := maps.Clone(t.Claims)
	if claims[name] = value; value == nil {
		delete(claims, name)
	}
	return claims
}

// AnotherKey is one that the issuer does not know.
func AnotherKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
