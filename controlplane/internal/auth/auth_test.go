package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// world is a federation with one administrator and what tokens are put in.
type world struct {
	*Authenticator
	now    time.Time
	root   *pki.Authority
	people *pki.Authority
	tokens map[string]*apiv1.AccessToken
	admins map[string]*apiv1.Administrator
	// sessions are by id.
	sessions map[string]*apiv1.Session
}

func (w *world) Administrator(_ context.Context, name, _ string) (*apiv1.Administrator, error) {
	if m, ok := w.admins[name]; ok {
		return m, nil
	}
	return nil, problem.New(problem.NotFound, "there is no administrator "+name, "")
}

// record notes an administrator with the key of a certificate.
func (w *world) record(name string, chain []*x509.Certificate) {
	w.admins[name] = &apiv1.Administrator{Name: name, Fingerprint: pki.Fingerprint(chain[0].PublicKey)}
}

func (w *world) AccessToken(_ context.Context, id string) (*apiv1.AccessToken, error) {
	if t, ok := w.tokens[id]; ok {
		return t, nil
	}
	return nil, problem.New(problem.NotFound, "there is no token "+id, "")
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), tokens: map[string]*apiv1.AccessToken{}, admins: map[string]*apiv1.Administrator{}}
	w.root, w.people = authorities(t, "naru.test", w.now)
	w.Authenticator = New(w, func() *x509.Certificate { return w.root.Certificate }, func() time.Time { return w.now })
	return w
}

func authorities(t *testing.T, federation string, now time.Time) (root, people *pki.Authority) {
	t.Helper()
	root, err := pki.NewAuthority(pki.AuthorityRoot, federation, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	people, err = pki.NewAuthority(pki.AuthorityPeople, federation, root, now)
	if err != nil {
		t.Fatal(err)
	}
	return root, people
}

func issue(t *testing.T, by *pki.Authority, id spiffeid.ID, err error, now time.Time) []*x509.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := by.Issue(key.Public(), id, pki.IssueOptions{TTL: 24 * time.Hour, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	var out []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func (w *world) token(t *testing.T, name string, change func(*apiv1.AccessToken)) (text string) {
	t.Helper()
	id := uuid.Must(uuid.NewV7()).String()
	text, hash, err := NewToken(id)
	if err != nil {
		t.Fatal(err)
	}
	token := &apiv1.AccessToken{Id: id, Name: name, Project: "web", ProjectId: "p-web", SecretHash: hash, ExpiresAt: timestamppb.New(w.now.Add(time.Hour))}
	if change != nil {
		change(token)
	}
	w.tokens[id] = token
	return text
}

func TestAnAdministratorIsKnownByCertificate(t *testing.T) {
	w := newWorld(t)
	id, err := pki.AdminID("naru.test", "kim")
	chain := issue(t, w.people, id, err, w.now)
	w.record("kim", chain)
	for range 2 { // the second time from memory
		p, err := w.Authenticate(t.Context(), Credentials{Chain: chain})
		if err != nil || p.Kind != Admin || p.Name != "kim" || p.Actor != "spiffe://naru.test/admin/kim" {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	w.now = w.now.Add(25 * time.Hour)
	_, err = w.Authenticate(t.Context(), Credentials{Chain: chain})
	if !problem.Is(err, problem.CertificateInvalid) || !strings.Contains(err.Error(), "expired") || !strings.Contains(problem.Of(err).GetNext(), "kim") {
		t.Fatalf("an expired certificate, remembered as good: %v", err)
	}
}

func TestNoOtherCertificateIsAnAdministrators(t *testing.T) {
	w := newWorld(t)
	_, foreign := authorities(t, "naru.test", w.now)
	links, err := pki.NewAuthority(pki.AuthorityLinks, "naru.test", w.root, w.now)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pki.AdminID("naru.test", "kim")
	agent, agentErr := pki.AgentID("naru.test", "0192", "agent-1")
	for about, chain := range map[string][]*x509.Certificate{
		"of another federation with the same name": issue(t, foreign, admin, err, w.now),
		"an agent's": issue(t, links, agent, agentErr, w.now),
	} {
		p, err := w.Authenticate(t.Context(), Credentials{Chain: chain})
		if !problem.Is(err, problem.CertificateInvalid) || p.Kind != "" || problem.Of(err).GetNext() == "" {
			t.Errorf("%s: %+v, %v", about, p, err)
		}
	}
}

func TestACertificateAtAnEdgeIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	id, err := pki.AdminID("naru.test", "kim")
	p, err := w.Authenticate(t.Context(), Credentials{Chain: issue(t, w.people, id, err, w.now), ViaZone: "z-business"})
	if err != nil || p.Kind != "" {
		t.Fatalf("%+v, %v", p, err)
	}
}

func TestATokenActsInItsProject(t *testing.T) {
	w := newWorld(t)
	text := w.token(t, "ci", nil)
	for _, c := range []Credentials{{Authorization: "Bearer " + text}, {Authorization: "bearer  " + text, ViaZone: "z-business"}} {
		p, err := w.Authenticate(t.Context(), c)
		if err != nil || p.Kind != AccessToken || p.ProjectID != "p-web" || p.Actor != "token:ci" || p.Kind == Admin {
			t.Fatalf("%+v, %v", p, err)
		}
	}
}

func TestABadTokenIsRefusedWithTheReason(t *testing.T) {
	w := newWorld(t)
	good := w.token(t, "ci", nil)
	other := w.token(t, "other", nil)
	for about, c := range map[string]struct {
		authorization, via string
		code               problem.Code
		says               string
	}{
		"nonsense":              {"Bearer x", "", problem.TokenInvalid, "no access token of Naru"},
		"another scheme":        {"Basic a2ltOmtpbQ==", "", problem.Unauthenticated, "scheme"},
		"a cut one":             {"Bearer " + good[:len(good)-4], "", problem.TokenInvalid, "no access token of Naru"},
		"with another's secret": {"Bearer " + good[:27] + other[27:], "", problem.TokenInvalid, "no such access token"},
		"deleted":               {"Bearer " + deleted(t, w), "", problem.TokenInvalid, "no such access token"},
		"expired": {"Bearer " + w.token(t, "old", func(a *apiv1.AccessToken) { a.ExpiresAt = timestamppb.New(w.now) }), "",
			problem.TokenExpired, "old expired at 2026-11-21T12:00:00Z"},
		"of another zone": {"Bearer " + w.token(t, "bound", func(a *apiv1.AccessToken) { a.Zone, a.ZoneId = "business", "z-business" }), "z-internet",
			problem.Forbidden, "edge of zone business only"},
		"of a zone, used in the control network": {"Bearer " + w.token(t, "bound2", func(a *apiv1.AccessToken) { a.Zone, a.ZoneId = "business", "z-business" }), "",
			problem.Forbidden, "edge of zone business only"},
	} {
		p, err := w.Authenticate(t.Context(), Credentials{Authorization: c.authorization, ViaZone: c.via})
		if !problem.Is(err, c.code) || !strings.Contains(err.Error(), c.says) || problem.Of(err).GetNext() == "" || p.Kind != "" {
			t.Errorf("%s: %+v, %v", about, p, err)
		}
		if err != nil && strings.Contains(problem.Of(err).String(), good[30:]) {
			t.Errorf("%s: the answer repeats the secret", about)
		}
	}
}

func deleted(t *testing.T, w *world) string {
	text := w.token(t, "gone", nil)
	for id, token := range w.tokens {
		if token.GetName() == "gone" {
			delete(w.tokens, id)
		}
	}
	return text
}

func TestATokenOfAZoneIsGoodAtItsEdge(t *testing.T) {
	w := newWorld(t)
	text := w.token(t, "bound", func(a *apiv1.AccessToken) { a.Zone, a.ZoneId = "business", "z-business" })
	p, err := w.Authenticate(t.Context(), Credentials{Authorization: "Bearer " + text, ViaZone: "z-business"})
	if err != nil || p.Zone != "business" {
		t.Fatalf("%+v, %v", p, err)
	}
}

// TestP12WhatLastsIsCheckedAgain is what cuts a live watch when its token is deleted or runs out.
func TestP12WhatLastsIsCheckedAgain(t *testing.T) {
	w := newWorld(t)
	p, err := w.Authenticate(t.Context(), Credentials{Authorization: "Bearer " + w.token(t, "ci", nil)})
	if err != nil || w.Recheck(t.Context(), p) != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Hour)
	if err := w.Recheck(t.Context(), p); !problem.Is(err, problem.TokenExpired) {
		t.Fatalf("after it expired: %v", err)
	}
	w.now = w.now.Add(-time.Hour)
	clear(w.tokens)
	if err := w.Recheck(t.Context(), p); !problem.Is(err, problem.TokenInvalid) {
		t.Fatalf("after it was deleted: %v", err)
	}
}

// TestP12AnAdministratorWhoIsDeletedIsRefusedAtOnce, though the chain is remembered as good: by the next call, and in what
// lasts.
func TestP12AnAdministratorWhoIsDeletedIsRefusedAtOnce(t *testing.T) {
	for about, change := range map[string]func(w *world, anew []*x509.Certificate){
		"deleted":                 func(w *world, _ []*x509.Certificate) { delete(w.admins, "kim") },
		"renewed for another key": func(w *world, anew []*x509.Certificate) { w.record("kim", anew) },
		"deleted and made anew":   func(w *world, anew []*x509.Certificate) { delete(w.admins, "kim"); w.record("kim", anew) },
	} {
		w := newWorld(t)
		id, err := pki.AdminID("naru.test", "kim")
		chain, anew := issue(t, w.people, id, err, w.now), issue(t, w.people, id, err, w.now)
		w.record("kim", chain)
		p, err := w.Authenticate(t.Context(), Credentials{Chain: chain})
		if err != nil || w.Recheck(t.Context(), p) != nil {
			t.Fatal(err)
		}
		change(w, anew)
		if err := w.Recheck(t.Context(), p); !problem.Is(err, problem.Revoked) {
			t.Errorf("%s: a watch: %v", about, err)
		}
		if p, err := w.Authenticate(t.Context(), Credentials{Chain: chain}); !problem.Is(err, problem.Revoked) || p.Kind != "" || problem.Of(err).GetNext() == "" {
			t.Errorf("%s: the next call: %+v, %v", about, p, err)
		}
	}
}

func TestACertificateThatWasNeverRecordedIsRefused(t *testing.T) {
	w := newWorld(t)
	id, err := pki.AdminID("naru.test", "kim")
	if p, err := w.Authenticate(t.Context(), Credentials{Chain: issue(t, w.people, id, err, w.now)}); !problem.Is(err, problem.Revoked) || p.Kind != "" {
		t.Fatalf("%+v, %v", p, err)
	}
}

func FuzzToken(f *testing.F) {
	text, _, err := NewToken("0192f0c1-2345-7abc-8def-0123456789ab")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("naru_")
	f.Fuzz(func(t *testing.T, text string) {
		id, hash, err := parseToken(text, tokenPrefix)
		if err != nil {
			return
		}
		if _, err := uuid.Parse(id); err != nil || hash == [32]byte{} {
			t.Fatalf("%q gave id %q", text, id)
		}
	})
}
