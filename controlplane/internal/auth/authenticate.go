package auth

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Credentials are what a call brings to show who calls.
type Credentials struct {
	// Chain is the client's certificates from the TLS handshake, leaf first. The handshake proved that the client has
	// the leaf's key; nothing else of it has been judged.
	Chain []*x509.Certificate
	// Authorization is the header: Bearer naru_….
	Authorization string
	// ViaZone is the id of the zone at whose edge the call was made; empty in the control network.
	ViaZone string
}

// Tokens finds access tokens, with their internal fields.
type Tokens interface {
	// AccessToken returns the token with an id, or a problem NOT_FOUND.
	AccessToken(ctx context.Context, id string) (*apiv1.AccessToken, error)
}

// Administrators finds administrators.
type Administrators interface {
	// Administrator returns the one of this name, or a problem NOT_FOUND. What is remembered may be given only where it has
	// the key with this fingerprint.
	Administrator(ctx context.Context, name, fingerprint string) (*apiv1.Administrator, error)
}

// Sessions finds sessions that have not ended, with their internal fields.
type Sessions interface {
	// Session returns the session with an id, or a problem NOT_FOUND.
	Session(ctx context.Context, id string) (*apiv1.Session, error)
}

// Known is whom the federation knows.
type Known interface {
	Tokens
	Administrators
	Sessions
}

// Authenticator tells who calls. Safe for concurrent use.
type Authenticator struct {
	known Known
	root  func() *x509.Certificate
	now   func() time.Time

	mu     sync.Mutex
	admins map[string]Principal // by leaf, as DER
}

// maxAdmins bounds the certificates whose chains are remembered as verified.
const maxAdmins = 256

// New returns an authenticator that knows administrators by certificates under root, for the keys that are recorded, and
// bearers by tokens.
func New(known Known, root func() *x509.Certificate, now func() time.Time) *Authenticator {
	return &Authenticator{known: known, root: root, now: now, admins: map[string]Principal{}}
}

// Authenticate returns who calls. A token goes before a certificate: it is what the caller chose to send with the call. No
// credentials at all are nobody, without an error; Authorize then refuses.
func (a *Authenticator) Authenticate(ctx context.Context, c Credentials) (Principal, error) {
	switch {
	case c.Authorization != "":
		return a.bearer(ctx, c)
	case c.ViaZone != "":
		return Principal{}, nil // whatever an agent says of who calls is not believed
	case len(c.Chain) > 0:
		return a.certificate(ctx, c.Chain)
	}
	return Principal{}, nil
}

// allowedUnchanged is what may be called by somebody whose password was set by another.
var allowedUnchanged = map[string]bool{
	apiv1.UserService_ChangePassword_FullMethodName:     true,
	apiv1.AccessTokenService_WhoAmI_FullMethodName:      true,
	apiv1.SessionService_LogOut_FullMethodName:          true,
	apiv1.SessionService_GetLoginOptions_FullMethodName: true,
}

// Restricted refuses a method to somebody who has to change the password first.
func (p Principal) Restricted(method string) error {
	if !p.MustChangePassword || allowedUnchanged[method] {
		return nil
	}
	return problem.New(problem.MustChangePassword, "the password of "+p.Name+" was set by somebody else, and has to be changed first", "Change it: naru passwd.")
}

// Recheck says whether a principal that was authenticated before is still good: for what lasts, like a watch.
func (a *Authenticator) Recheck(ctx context.Context, p Principal) error {
	if code := problem.TokenExpired; !a.now().Before(p.Expires) {
		if p.Kind == Admin {
			code = problem.CertificateInvalid
		}
		return problem.New(code, "the credential of "+p.Name+" expired at "+stamp(p.Expires), "Get a new one, and call again.")
	}
	switch p.Kind {
	case Admin:
		_, err := a.recorded(ctx, p)
		return err
	case User:
		_, err := a.findSession(ctx, p.SessionID)
		return err
	}
	_, err := a.find(ctx, p.tokenID)
	return err
}

func (a *Authenticator) bearer(ctx context.Context, c Credentials) (Principal, error) {
	scheme, text, _ := strings.Cut(c.Authorization, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return Principal{}, problem.New(problem.Unauthenticated, "the Authorization header has no scheme that is known here", "Send Authorization: Bearer naru_….")
	}
	text = strings.TrimSpace(text)
	if isSession(text) {
		return a.session(ctx, text, c.ViaZone)
	}
	id, hash, err := parseToken(text, tokenPrefix)
	if err != nil {
		return Principal{}, err
	}
	t, err := a.find(ctx, id)
	if err != nil {
		return Principal{}, err
	}
	if subtle.ConstantTimeCompare(hash[:], t.GetSecretHash()) != 1 {
		return Principal{}, unknownToken()
	}
	if end := t.GetExpiresAt().AsTime(); !a.now().Before(end) {
		return Principal{}, problem.Newf(problem.TokenExpired, "Ask an administrator for a new one: naru token create.",
			"access token %s expired at %s", t.GetName(), stamp(end))
	}
	if t.GetZoneId() != "" && t.GetZoneId() != c.ViaZone {
		return Principal{}, problem.Newf(problem.Forbidden, "Use it there, or ask an administrator for one of this place.",
			"access token %s can be used at the edge of zone %s only", t.GetName(), t.GetZone())
	}
	return Principal{
		Kind: AccessToken, Name: t.GetName(), Actor: "token:" + t.GetName(), ID: id, UserID: t.GetUserId(),
		Project: t.GetProject(), ProjectID: t.GetProjectId(), Zone: t.GetZone(), ZoneID: t.GetZoneId(),
		Expires: t.GetExpiresAt().AsTime(), tokenID: id,
	}, nil
}

// session returns the user whose session's bearer calls. It counts only through the zone at whose edge it was begun.
func (a *Authenticator) session(ctx context.Context, text, via string) (Principal, error) {
	id, hash, err := parseToken(text, sessionPrefix)
	if err != nil {
		return Principal{}, err
	}
	s, err := a.findSession(ctx, id)
	if err != nil {
		return Principal{}, err
	}
	if subtle.ConstantTimeCompare(hash[:], s.GetSecretHash()) != 1 {
		return Principal{}, unknownSession()
	}
	if end := s.GetExpiresAt().AsTime(); !a.now().Before(end) {
		return Principal{}, problem.Newf(problem.TokenExpired, "Log in again: naru login.", "the session of %s ended at %s", s.GetUser(), stamp(end))
	}
	if s.GetZoneId() != via {
		return Principal{}, problem.New(problem.Forbidden, "the session was begun elsewhere, and counts there only", "Log in here: naru login.")
	}
	return Principal{
		Kind: User, Name: s.GetUser(), Actor: "user:" + s.GetUser(), ID: s.GetUserId(), UserID: s.GetUserId(),
		SessionID: id, Strength: s.GetStrength(), SteppedUpUntil: s.GetSteppedUpUntil().AsTime(), MustChangePassword: s.GetMustChangePassword(),
		Zone: s.GetZone(), ZoneID: s.GetZoneId(), Expires: s.GetExpiresAt().AsTime(),
	}, nil
}

func (a *Authenticator) findSession(ctx context.Context, id string) (*apiv1.Session, error) {
	s, err := a.known.Session(ctx, id)
	if problem.Is(err, problem.NotFound) {
		return nil, unknownSession()
	}
	return s, err
}

// unknownSession is one answer for a session that never was, one that was ended, and a wrong secret.
func unknownSession() error {
	return problem.New(problem.TokenInvalid, "there is no such session, or it has been ended", "Log in again: naru login.")
}

func (a *Authenticator) find(ctx context.Context, id string) (*apiv1.AccessToken, error) {
	t, err := a.known.AccessToken(ctx, id)
	if problem.Is(err, problem.NotFound) {
		return nil, unknownToken()
	}
	return t, err
}

// unknownToken is one answer for a token that never was, one that was deleted, and a wrong secret.
func unknownToken() error {
	return problem.New(problem.TokenInvalid, "there is no such access token, or it has been deleted", "Ask an administrator for a new one: naru token create.")
}

// recorded refuses a certificate whose administrator is no longer one, or has another key now.
func (a *Authenticator) recorded(ctx context.Context, p Principal) (Principal, error) {
	m, err := a.known.Administrator(ctx, p.Name, p.Key)
	if problem.Is(err, problem.NotFound) || err == nil && m.GetFingerprint() != p.Key {
		err = problem.Newf(problem.Revoked, "Ask an administrator: naru admin create, or naru admin renew.",
			"the certificate of %s for the key %s is not, or no longer, one of an administrator", p.Name, p.Key)
	}
	if err != nil {
		return Principal{}, err
	}
	p.ID = m.GetId()
	return p, nil
}

func (a *Authenticator) certificate(ctx context.Context, chain []*x509.Certificate) (Principal, error) {
	key := string(chain[0].Raw)
	now := a.now()
	a.mu.Lock()
	p, known := a.admins[key]
	a.mu.Unlock()
	if known && now.Before(p.Expires) {
		return a.recorded(ctx, p)
	}
	der := make([][]byte, len(chain))
	for i, c := range chain {
		der[i] = c.Raw
	}
	peer, err := pki.Verify(der, a.root(), now, pki.RoleAdmin)
	if err != nil {
		return Principal{}, refusedCertificate(peer, err)
	}
	p = Principal{Kind: Admin, Name: peer.Admin, Actor: peer.ID.String(), Strength: apiv1.Session_CERTIFICATE, Expires: peer.NotAfter, Key: pki.Fingerprint(peer.Key)}
	a.mu.Lock()
	if len(a.admins) >= maxAdmins {
		clear(a.admins)
	}
	a.admins[key] = p
	a.mu.Unlock()
	return a.recorded(ctx, p)
}

// refusedCertificate says what is wrong with a certificate, and the way out.
func refusedCertificate(peer *pki.Peer, err error) error {
	next := "Use the certificate of an administrator of this federation."
	switch {
	case errors.Is(err, pki.ErrExpired) && peer != nil:
		next = "Have another administrator renew that of " + peer.Admin + ": naru admin renew. Where none is left: naru-controlplane admin, on a server."
	case errors.Is(err, pki.ErrNotYetValid):
		next = "Set the clocks right, here and there."
	case errors.Is(err, pki.ErrUntrusted):
		next = "It is of another federation, or damaged. " + next
	}
	return problem.Newf(problem.CertificateInvalid, next, "%w", err)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
