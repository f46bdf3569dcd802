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
// again where it is told to, and gives out tokens that are not as they should be. Discovery, keys and signatures are go-oidc's; whoever
// comes to its login page is logged in as User.
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
	certificate, private, _ := ca.issue(t, t.TempDir())
	pair, err := tls.LoadX509KeyPair(certificate, private)
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
	i.server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
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
	w.Header().Set("Content-Type", "application/json")
	id, secret, _ := r.BasicAuth()
	secret, _ = url.QueryUnescape(secret) // as RFC 6749 has it
	asked := i.logins[r.FormValue("code")]
	delete(i.logins, r.FormValue("code"))
	challenge := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if id != "naru" || secret != Secret || asked == nil || asked.Get("redirect_uri") != r.FormValue("redirect_uri") ||
		asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(challenge[:]) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant"})
		return
	}
	now := time.Now()
	t := Token{
		Claims: map[string]any{
			"iss": i.server.URL, "aud": "naru", "sub": i.user + "-1", "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "nonce": asked.Get("nonce"),
			"auth_time": i.since.Unix(), "preferred_username": i.user,
		},
		Public: i.key.Public(), KeyID: issuersKey, With: i.sign,
		Sign: func(claims map[string]any) string { return i.sign(claims, i.key, issuersKey, oidc.RS256) },
	}
	given := t.Sign(t.Claims)
	if i.forge != nil {
		given = i.forge(t)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 600, "id_token": given})
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
