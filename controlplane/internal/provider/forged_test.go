package provider_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// come goes through a login at an issuer, and returns what Naru makes of what comes back.
func come(t *testing.T, a *provider.Asker, i *providertest.Issuer, p *apiv1.IdentityProvider, anew bool) (*provider.Person, error) {
	t.Helper()
	in := provider.NewErrand()
	in.RedirectURI, in.Anew = loopback, anew
	page, err := a.Begin(t.Context(), "", p, in)
	if err != nil {
		return nil, err
	}
	away := i.Visit(page)
	if away.Query().Get("state") != in.State {
		t.Fatalf("the browser is sent to %v", away)
	}
	return a.Finish(t.Context(), "", p, providertest.Secret, away.Query().Get("code"), in)
}

// TestATokenThatIsNotForThisLoginIsRefused though it comes from the provider itself, over TLS, for the right code: nobody is somebody by
// a token for another client, of another issuer, of another login, of another time, or by another hand.
func TestATokenThatIsNotForThisLoginIsRefused(t *testing.T) {
	i := providertest.NewIssuer(t, providertest.NewCA(t))
	a, p := newAsker(), i.Provider()
	if who, err := come(t, a, i, p, false); err != nil || who.Login != "kim" || who.Subject != "kim-1" {
		t.Fatalf("as it should be: %+v, %v", who, err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for about, forged := range map[string]struct {
		forge func(providertest.Token) string
		says  string
	}{
		"for another client": {func(t providertest.Token) string { return t.Sign(t.Other("aud", "somebody-else")) }, "for another client"},
		"for others and this one, and not given to this one": {func(t providertest.Token) string {
			c := t.Other("aud", []string{"somebody-else", "naru"})
			c["azp"] = "somebody-else"
			return t.Sign(c)
		}, "given to another client"},
		"for others and this one, and nobody says to whom it was given": {func(t providertest.Token) string { return t.Sign(t.Other("aud", []string{"somebody-else", "naru"})) }, "given to another client"},
		"for nobody":           {func(t providertest.Token) string { return t.Sign(t.Other("aud", nil)) }, "for another client"},
		"of another issuer":    {func(t providertest.Token) string { return t.Sign(t.Other("iss", "https://127.0.0.1:1")) }, "another provider's"},
		"of no issuer":         {func(t providertest.Token) string { return t.Sign(t.Other("iss", nil)) }, "another provider's"},
		"of another login":     {func(t providertest.Token) string { return t.Sign(t.Other("nonce", provider.NewErrand().Nonce)) }, "for another login"},
		"of no login":          {func(t providertest.Token) string { return t.Sign(t.Other("nonce", nil)) }, "for another login"},
		"that has expired":     {func(t providertest.Token) string { return t.Sign(t.Other("exp", now.Add(-time.Minute).Unix())) }, "too old"},
		"that does not expire": {func(t providertest.Token) string { return t.Sign(t.Other("exp", nil)) }, "too old"},
		"of a time to come":    {func(t providertest.Token) string { return t.Sign(t.Other("nbf", now.Add(time.Hour).Unix())) }, "does not count yet"},
		"of nobody":            {func(t providertest.Token) string { return t.Sign(t.Other("sub", nil)) }, "whose it is"},
		"that is not signed":   {func(t providertest.Token) string { return t.With(t.Claims, nil, t.KeyID, "none") }, "not signed as it should be"},
		"signed with the public key as if it were a shared secret": {func(token providertest.Token) string {
			der, err := x509.MarshalPKIXPublicKey(token.Public)
			if err != nil {
				t.Error(err)
			}
			return token.With(token.Claims, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), token.KeyID, "HS256")
		}, "not signed as it should be"},
		"signed with the client's secret": {func(t providertest.Token) string {
			return t.With(t.Claims, []byte(strings.Repeat(providertest.Secret, 32)), t.KeyID, "HS256")
		}, "not signed as it should be"},
		"signed with another key of the same name": {func(t providertest.Token) string { return t.With(t.Claims, other, t.KeyID, "RS256") }, "not signed as it should be"},
		"signed in another way": {func(token providertest.Token) string {
			return token.With(token.Claims, providertest.AnotherKey(t), token.KeyID, "ES256")
		}, "not signed as it should be"},
		"whose claims were changed": {func(t providertest.Token) string {
			mine, theirs := strings.Split(t.Sign(t.Claims), "."), strings.Split(t.Sign(t.Other("sub", "root-1")), ".")
			return mine[0] + "." + theirs[1] + "." + mine[2]
		}, "not signed as it should be"},
		"that is none": {func(providertest.Token) string { return "eyJ" }, "not signed as it should be"},
	} {
		i.Forge(forged.forge)
		refusal := (*provider.Refusal)(nil)
		if who, err := come(t, a, i, p, false); who != nil || !errors.As(err, &refusal) || !strings.Contains(err.Error(), forged.says) {
			t.Errorf("a token %s: %+v, %v", about, who, err)
		}
	}
	i.Forge(nil)
	if _, err := come(t, a, i, p, false); err != nil {
		t.Errorf("as it should be, afterwards: %v", err)
	}
}

// TestWhoIsToShowAnewWhoTheyAreHasJustDoneSo: what counts is the provider's word on when (auth_time), not that somebody came back.
func TestWhoIsToShowAnewWhoTheyAreHasJustDoneSo(t *testing.T) {
	i := providertest.NewIssuer(t, providertest.NewCA(t))
	a, p := newAsker(), i.Provider()
	refusal := (*provider.Refusal)(nil)
	refused := func(about string) {
		t.Helper()
		if who, err := come(t, a, i, p, true); who != nil || !errors.As(err, &refusal) || !strings.Contains(err.Error(), "just shown who they are") {
			t.Errorf("%s: %+v, %v", about, who, err)
		}
	}
	i.TakesNoNotice(true)
	refused("logged in an hour ago, and not asked again")
	if _, err := come(t, a, i, p, false); err != nil {
		t.Errorf("where nobody is to be asked again: %v", err)
	}
	i.TakesNoNotice(false)
	if who, err := come(t, a, i, p, true); err != nil || who.Login != "kim" {
		t.Errorf("asked again: %+v, %v", who, err)
	}
	for about, value := range map[string]any{
		"no word on when": nil, "a word that is no time": "now", "as if it were 1970": 0, "six minutes ago": time.Now().Add(-6 * time.Minute).Unix(),
		"in two minutes": time.Now().Add(2 * time.Minute).Unix(), "in a hundred years": time.Now().AddDate(100, 0, 0).Unix(),
	} {
		i.Forge(func(t providertest.Token) string { return t.Sign(t.Other("auth_time", value)) })
		refused(about)
	}
	i.Forge(func(t providertest.Token) string {
		return t.Sign(t.Other("auth_time", time.Now().Add(-4*time.Minute).Unix()))
	})
	if _, err := come(t, a, i, p, true); err != nil {
		t.Errorf("four minutes ago: %v", err)
	}
}
