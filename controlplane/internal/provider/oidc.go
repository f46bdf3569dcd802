package provider

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const (
	// maxAnswer bounds what is read of one answer of a provider.
	maxAnswer = 1 << 20
	// foundTime is how long it is believed what a provider says of itself.
	foundTime = time.Hour
	// maxGroups bounds the groups that a claim may name.
	maxGroups = 1000
	// anewWithin is how long ago somebody may have shown who they are, where they were asked to do so anew.
	anewWithin = 5 * time.Minute
	// clocksDiffer is how far ahead a provider's clock may be.
	clocksDiffer = time.Minute
	// DefaultLoopback is where those are sent back who log in on a machine of their own.
	DefaultLoopback = "http://127.0.0.1/callback"
)

// Errand is one login at a provider, as the control plane knows it.
type Errand struct {
	// State comes back with the code, Nonce in the token that the code is exchanged for, and only who has Verifier can exchange it (PKCE).
	State, Nonce, Verifier string
	RedirectURI            string
	// Device is the code of a login on another machine (RFC 8628), where it is one.
	Device string
	// Anew says that the person was asked to show again who they are.
	Anew bool
}

// NewErrand makes one, for whoever will know whom it is for.
func NewErrand() Errand {
	return Errand{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier()}
}

// DeviceLogin is where somebody logs in who has no browser on the machine that they sit at.
type DeviceLogin struct {
	URL, UserCode, Device string
	Interval              time.Duration
	Until                 time.Time
}

func checkOIDC(e *problem.Error, o *apiv1.OpenIDConnect) {
	if u, err := url.Parse(o.GetIssuer()); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		e.With("oidc.issuer", "is no issuer: https://login.example.org/realms/corp")
	}
	if o.GetLoopbackRedirect() != "" && !Loopback(o.GetLoopbackRedirect()) {
		e.With("oidc.loopback_redirect", "does not lead to the machine that somebody sits at: "+DefaultLoopback)
	}
}

// openID is a provider as it said of itself.
type openID struct {
	revision string
	until    time.Time
	provider *oidc.Provider
	client   *http.Client
	basic    bool // it takes the client's secret as HTTP has passwords
}

// known is what a provider said of itself not long ago, or nil.
func (a *Asker) known(p *apiv1.IdentityProvider) *openID {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.found[p.GetId()]; o != nil && o.revision == p.GetRevision() && a.now().Before(o.until) {
		return o
	}
	return nil
}

// discover finds out what a provider says of itself, or knows it.
func (a *Asker) discover(ctx context.Context, p *apiv1.IdentityProvider) (*openID, error) {
	if o := a.known(p); o != nil {
		return o, nil
	}
	u, err := url.Parse(p.GetOidc().GetIssuer())
	if err != nil {
		return nil, failed("issuer", err)
	}
	config, err := tlsFor("", p.GetOidc().GetCa()) // its endpoints may have other names
	if err != nil {
		return nil, failed(u.Host, err)
	}
	o := &openID{revision: p.GetRevision(), until: a.now().Add(foundTime), client: &http.Client{
		Transport:     bounded{&http.Transport{DialContext: a.guard.Dial, TLSClientConfig: config, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       patience,
	}}
	if o.provider, err = oidc.NewProvider(oidc.ClientContext(ctx, o.client), p.GetOidc().GetIssuer()); err != nil {
		return nil, failed(u.Host, err)
	}
	var says struct {
		Keys    string   `json:"jwks_uri"`
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := o.provider.Claims(&says); err != nil {
		return nil, failed(u.Host, err)
	}
	e := o.provider.Endpoint()
	for what, text := range map[string]string{"authorization_endpoint": e.AuthURL, "token_endpoint": e.TokenURL, "jwks_uri": says.Keys,
		"device_authorization_endpoint": cmp.Or(e.DeviceAuthURL, e.AuthURL), "userinfo_endpoint": cmp.Or(o.provider.UserInfoEndpoint(), e.AuthURL)} {
		if u, err := url.Parse(text); err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, &Failure{Err: errors.New("its " + what + " is no https://…")}
		}
	}
	o.basic = len(says.Methods) == 0 || slices.Contains(says.Methods, "client_secret_basic")
	a.mu.Lock()
	a.found[p.GetId()] = o
	a.mu.Unlock()
	return o, nil
}

// bounded cuts answers that are too long.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	}
	return answer, err
}

// config is Naru as a client of the provider.
func (o *openID) config(p *apiv1.IdentityProvider, secret, redirect string) *oauth2.Config {
	scopes := p.GetOidc().GetScopes()
	if len(scopes) == 0 {
		scopes = []string{"profile", "email"}
	}
	e := o.provider.Endpoint()
	if e.AuthStyle = oauth2.AuthStyleInParams; o.basic && secret != "" { // said, or the library tries both, and a code counts once
		e.AuthStyle = oauth2.AuthStyleInHeader
	}
	return &oauth2.Config{ClientID: p.GetOidc().GetClientId(), ClientSecret: secret, Endpoint: e, RedirectURL: redirect, Scopes: append([]string{oidc.ScopeOpenID}, scopes...)}
}

// Begin returns where somebody's browser goes to log in. Errors: *Failure, problem TOO_MANY.
func (a *Asker) Begin(ctx context.Context, place string, p *apiv1.IdentityProvider, in Errand) (_ string, err error) {
	ctx, leave, err := a.enter(ctx, p, place)
	if err != nil {
		return "", err
	}
	came := &err
	if a.known(p) != nil {
		came = &errUnasked
	}
	defer leave(came)
	o, err := a.discover(ctx, p)
	if err != nil {
		return "", err
	}
	options := []oauth2.AuthCodeOption{oidc.Nonce(in.Nonce), oauth2.S256ChallengeOption(in.Verifier)}
	if in.Anew {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	if acrs := p.GetOidc().GetSecondFactorAcrs(); len(acrs) > 0 {
		options = append(options, oauth2.SetAuthURLParam("acr_values", strings.Join(acrs, " ")))
	}
	return o.config(p, "", in.RedirectURI).AuthCodeURL(in.State, options...), nil
}

// BeginDevice has the provider make a code with which somebody logs in on another machine. Errors: *Refusal where it does not do that,
// *Failure, problem TOO_MANY.
func (a *Asker) BeginDevice(ctx context.Context, place string, p *apiv1.IdentityProvider, secret string) (_ *DeviceLogin, err error) {
	ctx, leave, err := a.enter(ctx, p, place)
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	o, err := a.discover(ctx, p)
	if err != nil {
		return nil, err
	}
	c := o.config(p, secret, "")
	if c.Endpoint.DeviceAuthURL == "" {
		return nil, &Refusal{"it has no login without a browser"}
	}
	var options []oauth2.AuthCodeOption
	if secret != "" {
		options = append(options, oauth2.SetAuthURLParam("client_secret", secret))
	}
	r, err := c.DeviceAuth(o.with(ctx), options...)
	if err != nil {
		return nil, failed("device code", told(err))
	}
	where := cmp.Or(r.VerificationURIComplete, r.VerificationURI)
	if u, err := url.Parse(where); err != nil || u.Scheme != "https" || r.DeviceCode == "" || r.UserCode == "" {
		return nil, &Failure{Err: errors.New("its device code has no https://… where to type it")}
	}
	return &DeviceLogin{URL: where, UserCode: shown(r.UserCode, 64), Device: r.DeviceCode, Interval: max(time.Second, time.Duration(cmp.Or(r.Interval, 5))*time.Second), Until: r.Expiry}, nil
}

func (o *openID) with(ctx context.Context) context.Context { return oidc.ClientContext(ctx, o.client) }

// Finish exchanges what came back from a provider for its word on who somebody is. Errors: ErrPending of a device, *Refusal, *Failure,
// problem TOO_MANY.
func (a *Asker) Finish(ctx context.Context, place string, p *apiv1.IdentityProvider, secret, code string, in Errand) (_ *Person, err error) {
	ctx, leave, err := a.enter(ctx, p, place)
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	o, err := a.discover(ctx, p)
	if err != nil {
		return nil, err
	}
	options := []oauth2.AuthCodeOption{oauth2.VerifierOption(in.Verifier)}
	if in.Device != "" {
		code = ""
		options = []oauth2.AuthCodeOption{
			oauth2.SetAuthURLParam("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), oauth2.SetAuthURLParam("device_code", in.Device)}
	}
	token, err := o.config(p, secret, in.RedirectURI).Exchange(o.with(ctx), code, options...)
	if err != nil {
		return nil, unexchanged(err)
	}
	return a.person(ctx, o, p, token, in)
}

// Refresh asks a provider again about somebody, by what it gave for that at the last time. Only ErrGone says that they are not there any
// more. With another error there is a person where the provider took the token and gave another: then nothing is known of them but
// that. Errors: ErrGone, *Refusal, *Failure, problem TOO_MANY.
func (a *Asker) Refresh(ctx context.Context, p *apiv1.IdentityProvider, secret, subject, refreshToken string) (_ *Person, err error) {
	ctx, leave, err := a.enter(ctx, p, "")
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	o, err := a.discover(ctx, p)
	if err != nil {
		return nil, err
	}
	token, err := o.config(p, secret, "").TokenSource(o.with(ctx), &oauth2.Token{RefreshToken: refreshToken}).Token()
	// RFC 6749 has invalid_grant for this; dex says that the request is invalid, of which nothing but the token is another each time.
	if answer := (*oauth2.RetrieveError)(nil); errors.As(err, &answer) && answer.Response.StatusCode == http.StatusBadRequest && (answer.ErrorCode == "invalid_grant" || answer.ErrorCode == "invalid_request") {
		return nil, ErrGone
	}
	if err != nil {
		return nil, failed("refresh", told(err))
	}
	bare := &Person{Subject: subject, GroupsUnknown: true, RefreshToken: token.RefreshToken}
	if raw, _ := token.Extra("id_token").(string); raw == "" {
		return bare, nil
	}
	person, err := a.person(ctx, o, p, token, Errand{})
	if err != nil {
		return bare, err
	}
	if person.Subject != subject {
		return nil, fmt.Errorf("%w: it answers for somebody else", ErrGone)
	}
	return person, nil
}

// unexchanged says why a code was not exchanged.
func unexchanged(err error) error {
	answer := (*oauth2.RetrieveError)(nil)
	if !errors.As(err, &answer) {
		return failed("token", told(err))
	}
	switch answer.ErrorCode {
	case "authorization_pending", "slow_down":
		return ErrPending
	case "invalid_grant", "expired_token":
		return &Refusal{"it does not take the code: it has been used, or came too late"}
	case "access_denied":
		return &Refusal{"it was refused there"}
	case "invalid_request":
		return &Refusal{"it does not take the code"}
	}
	return failed("token", told(err))
}

// answered is the answer of a provider that gave no token, without what only the provider should know: the library's error has it whole.
type answered struct{ *oauth2.RetrieveError }

func (a answered) Error() string {
	status := 0
	if a.Response != nil {
		status = a.Response.StatusCode
	}
	return fmt.Sprintf("it answers %d %s", status, a.ErrorCode)
}

func (a answered) Unwrap() error { return a.RetrieveError }

// told is an error without what only the provider should know.
func told(err error) error {
	if answer := (*oauth2.RetrieveError)(nil); errors.As(err, &answer) {
		return answered{answer}
	}
	if unreached := (*url.Error)(nil); errors.As(err, &unreached) {
		return unreached.Err
	}
	return errors.New("it answers what is no token")
}

// claims are what a token, or the provider asked with one, says.
type claims map[string]json.RawMessage

func (c claims) text(name string) string {
	var out string
	_ = json.Unmarshal(c[name], &out)
	return out
}

// texts are the values of a claim that has one or several.
func (c claims) texts(name string) []string {
	var out []string
	if one := c.text(name); one != "" {
		return []string{one}
	}
	_ = json.Unmarshal(c[name], &out)
	return out
}

// person verifies what a provider gave for a code, and reads from it who somebody is.
func (a *Asker) person(ctx context.Context, o *openID, p *apiv1.IdentityProvider, token *oauth2.Token, in Errand) (*Person, error) {
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return nil, &Failure{Err: errors.New("it gave no ID token; the scope openid may not be allowed to the client")}
	}
	said, err := o.provider.Verifier(&oidc.Config{ClientID: p.GetOidc().GetClientId(), Now: a.now}).Verify(o.with(ctx), raw)
	if err != nil {
		return nil, unverified(err)
	}
	c := claims{}
	if err := said.Claims(&c); err != nil {
		return nil, &Refusal{"its token says nothing that is understood"}
	}
	switch azp := c.text("azp"); {
	case in.Nonce != "" && subtle.ConstantTimeCompare([]byte(said.Nonce), []byte(in.Nonce)) != 1:
		return nil, &Refusal{"its token is for another login"}
	case azp != "" && azp != p.GetOidc().GetClientId() || azp == "" && len(said.Audience) > 1:
		return nil, &Refusal{"its token was given to another client"}
	case said.AccessTokenHash != "" && said.VerifyAccessToken(token.AccessToken) != nil:
		return nil, &Refusal{"its tokens do not belong together"}
	case said.Subject == "" || shown(said.Subject, 256) != said.Subject:
		return nil, &Refusal{"its token does not say whose it is"}
	}
	if in.Anew {
		var at int64
		err := json.Unmarshal(c["auth_time"], &at)
		if ago := a.now().Sub(time.Unix(at, 0)); err != nil || ago > anewWithin || ago < -clocksDiffer {
			return nil, &Refusal{"its token does not say that they have just shown who they are"}
		}
	}
	conf := p.GetOidc()
	login, groups := cmp.Or(conf.GetLoginClaim(), "preferred_username"), cmp.Or(conf.GetGroupsClaim(), "groups")
	if c[login] == nil || c[groups] == nil && len(p.GetGroupMappings()) > 0 {
		if err := o.more(ctx, said.Subject, token, c); err != nil {
			return nil, err
		}
	}
	person := &Person{
		Subject: said.Subject, Login: shown(c.text(login), 254), Title: shown(c.text(cmp.Or(conf.GetNameClaim(), "name")), 128),
		RefreshToken: token.RefreshToken,
	}
	if v := string(c["email_verified"]); v == "true" || v == `"true"` { // unless it says so, anybody may have typed it there
		person.Email = mailOf(c.text(cmp.Or(conf.GetMailClaim(), "email")))
	}
	if person.Groups = c.texts(groups); len(person.Groups) > maxGroups {
		return nil, &Refusal{fmt.Sprintf("it says that they are in more than %d groups", maxGroups)}
	}
	amr := c.texts("amr")
	person.TwoFactors = slices.Contains(conf.GetSecondFactorAcrs(), c.text("acr")) ||
		slices.ContainsFunc(conf.GetSecondFactorAmrs(), func(v string) bool { return slices.Contains(amr, v) })
	return person, nil
}

// more adds what the provider says of somebody beside the token, where it says more.
func (o *openID) more(ctx context.Context, subject string, token *oauth2.Token, c claims) error {
	if o.provider.UserInfoEndpoint() == "" || token.AccessToken == "" {
		return nil
	}
	info, err := o.provider.UserInfo(o.with(ctx), oauth2.StaticTokenSource(token))
	if err != nil {
		return &Failure{Err: errors.New("it does not answer what else it knows of them")}
	}
	if info.Subject != subject {
		return &Refusal{"it answers for somebody else"}
	}
	further := claims{}
	if err := info.Claims(&further); err != nil {
		return &Failure{Err: errors.New("what else it knows of them is not understood")}
	}
	for name, value := range further {
		if c[name] == nil {
			c[name] = value
		}
	}
	return nil
}

// unverified says why a token is not believed.
func unverified(err error) error {
	expired := (*oidc.TokenExpiredError)(nil)
	unreached := (*url.Error)(nil)
	switch text := err.Error(); {
	case errors.As(err, &expired):
		return &Refusal{"its token is too old; look at the clocks, here and there"}
	case errors.As(err, &unreached) || strings.Contains(text, "fetching keys"):
		return &Failure{Err: errors.New("its keys could not be had")}
	case strings.Contains(text, "expected audience"):
		return &Refusal{"its token is for another client"}
	case strings.Contains(text, "issued by a different provider"):
		return &Refusal{"its token is another provider's"}
	case strings.Contains(text, "before the nbf"):
		return &Refusal{"its token does not count yet; look at the clocks, here and there"}
	}
	return &Refusal{"its token is not signed as it should be"}
}

// Try asks a provider what it says of itself, and returns what was found, a sentence each. Errors: *Failure, problem TOO_MANY.
func (a *Asker) Try(ctx context.Context, place string, p *apiv1.IdentityProvider, secret string) (_ []string, err error) {
	ctx, leave, err := a.enter(ctx, p, place)
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	if p.GetLdap() != nil {
		return a.tryDirectory(ctx, p.GetLdap(), secret)
	}
	a.mu.Lock()
	delete(a.found, p.GetId())
	a.mu.Unlock()
	o, err := a.discover(ctx, p)
	if err != nil {
		return nil, err
	}
	e := o.provider.Endpoint()
	out := []string{"It is " + p.GetOidc().GetIssuer() + ".", "People log in at " + e.AuthURL + "."}
	if e.DeviceAuthURL != "" {
		out = append(out, "They can log in without a browser on their own machine.")
	}
	return out, nil
}
