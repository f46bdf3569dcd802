package service

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/door"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	"github.com/naru-project/naru/pkg/sealed"
	"github.com/naru-project/naru/pkg/shell"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// errandTime is how long somebody may take to log in at a provider.
	errandTime = 10 * time.Minute
	// ticketRole is under which a ticket is sealed.
	ticketRole = "provider-login"
)

// loginProviders are those through which one can log in now.
func (s *Service) loginProviders(ctx context.Context) (out []*apiv1.LoginProvider, err error) {
	err = s.view(ctx, func(tx *state.Tx) error {
		out = nil
		for p, err := range tx.IdentityProviders.All(nil) {
			if err != nil {
				return err
			}
			if p.GetDisabled() {
				continue
			}
			m := &apiv1.LoginProvider{Name: p.GetName(), Title: p.GetTitle(), Kind: apiv1.LoginProvider_LDAP}
			if p.GetOidc() != nil {
				m.Kind, m.LoopbackRedirect = apiv1.LoginProvider_OIDC, loopback(p)
			}
			out = append(out, m)
		}
		slices.SortFunc(out, func(a, b *apiv1.LoginProvider) int { return strings.Compare(a.GetName(), b.GetName()) })
		return nil
	})
	return out, err
}

func loopback(p *apiv1.IdentityProvider) string {
	if text := p.GetOidc().GetLoopbackRedirect(); text != "" {
		return text
	}
	return provider.DefaultLoopback
}

// enabled finds a provider by name or id through which one can log in, and opens its secret.
func (s *Service) enabled(ctx context.Context, name string) (p *apiv1.IdentityProvider, secret string, err error) {
	err = s.read(ctx, func(tx *state.Tx) error {
		if p, err = s.identityProviders.within(tx, name, nil); err != nil {
			return err
		}
		if p.GetDisabled() {
			return problem.Newf(problem.Forbidden, "Log in another way, or ask an administrator.", "identity provider %s is disabled", p.GetName())
		}
		secret, err = s.secretOf(tx, p)
		return err
	})
	return p, secret, err
}

// asked says what came of asking a provider, in words for whoever wants to log in. What only those who administer it should know goes
// into the record.
func (s *shown) asked(err error) error {
	failure, refusal := (*provider.Failure)(nil), (*provider.Refusal)(nil)
	name := s.provider.GetName()
	switch {
	case errors.Is(err, provider.ErrWrong):
		return wrong()
	case errors.As(err, &refusal):
		return problem.Newf(problem.Unauthenticated, "Log in again. Where it goes on, tell an administrator.", "identity provider %s does not show who you are: %s", name, refusal.Reason)
	case errors.As(err, &failure):
		s.why = "identity provider " + name + " does not answer: " + failure.Error()
		return problem.Newf(problem.Unavailable, "Try again later, or log in another way.", "identity provider %s does not answer", name)
	}
	return err
}

// judgeByProvider holds a claim against what a directory says, or what came back from a provider where the user has shown it anew.
func (s *Service) judgeByProvider(ctx context.Context, c claim, out *shown) error {
	name, login := out.secrets.GetIdentityProvider(), c.name
	if c.session != nil {
		name = c.session.GetIdentityProviderId()
	}
	p, secret, err := s.enabled(ctx, name)
	if err != nil {
		return err
	}
	out.provider = p
	if p.GetOidc() != nil {
		if c.session == nil {
			return problem.Newf(problem.Invalid, "naru login --provider "+p.GetName()+" goes there.", "identity provider %s takes passwords itself, and none is to be sent here", p.GetName())
		}
		return s.judgeTicket(ctx, c, out)
	}
	if c.session != nil {
		if err := s.view(ctx, func(tx *state.Tx) error {
			known, err := tx.Identities.Get(c.session.GetIdentityId())
			login = known.GetLogin()
			return err
		}); err != nil {
			return err
		}
	}
	knocked := false
	person, err := s.Providers.Password(ctx, callOf(ctx).Place, p, secret, login, out.secrets.GetPassword(), func(subject string) error {
		if err := s.knownAs(ctx, out, subject, login); err != nil {
			return err
		}
		err := s.doors.Knock(out.way)
		knocked = err == nil
		return err
	})
	if err != nil {
		if knocked && !errors.Is(err, provider.ErrWrong) {
			s.doors.Undo(out.way) // nobody has said whether it was right
		}
		return out.asked(err)
	}
	if err := s.recognise(ctx, c, out, person); err != nil {
		return err
	}
	return s.judgeCode(c, out)
}

// knownAs finds by which way a claim comes: as whom the directory knows somebody, or where it knows nobody, as what was typed.
func (s *Service) knownAs(ctx context.Context, out *shown, subject, typed string) error {
	err := s.read(ctx, func(tx *state.Tx) error {
		out.user, out.kept = nil, nil
		known, err := tx.IdentityOf(out.provider.GetId(), subject)
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err == nil {
			out.user, out.kept, err = s.linked(tx, known)
		}
		return err
	})
	who := out.provider.GetName() + ":" + subject
	if subject == "" {
		who = out.provider.GetName() + "?" + strings.ToLower(typed)
	}
	out.way = way(who, callOf(ctx), out)
	return err
}

// linked is the user of an identity, with what is kept of them.
func (s *Service) linked(tx *state.Tx, m *apiv1.Identity) (*apiv1.User, *commandv1.Credentials, error) {
	user, err := tx.Users.Get(m.GetUserId())
	if err != nil {
		return nil, nil, err
	}
	kept, err := tx.Credentials(user.GetId())
	if errors.Is(err, state.ErrNotFound) {
		return user, &commandv1.Credentials{UserId: user.GetId()}, nil
	}
	return user, kept, err
}

// recognise finds which user somebody is of whom a provider says who they are, or whom a first login makes. Only provider and subject say
// that; neither name nor mail does.
func (s *Service) recognise(ctx context.Context, c claim, out *shown, person *provider.Person) error {
	p := out.provider
	out.person = person
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		out.identity, err = tx.IdentityOf(p.GetId(), person.Subject)
		if err == nil {
			out.user, out.kept, err = s.linked(tx, out.identity)
			return err
		}
		if !errors.Is(err, state.ErrNotFound) {
			return err
		}
		out.user, out.kept = nil, nil
		out.identity = &apiv1.Identity{Id: newID(), IdentityProvider: p.GetName(), IdentityProviderId: p.GetId(), Subject: person.Subject}
		if c.session != nil {
			return nil
		}
		out.user, err = s.firstLogin(tx, p, person)
		return err
	})
	switch {
	case err != nil:
		return err
	case c.session != nil && c.session.GetIdentityId() != out.identity.GetId():
		return problem.Newf(problem.Unauthenticated, "Log in there as who you are here.", "identity provider %s says that it is somebody else", p.GetName())
	case out.user.GetDisabled():
		return problem.Newf(problem.Forbidden, "Ask an administrator.", "user %s is disabled", out.user.GetName())
	}
	return nil
}

// firstLogin is the user whom a first login makes.
func (s *Service) firstLogin(tx *state.Tx, p *apiv1.IdentityProvider, person *provider.Person) (*apiv1.User, error) {
	link := "naru identity-provider link " + p.GetName() + " " + shell.Quote(person.Subject) + " USER"
	if !p.GetCreateUsers() {
		return nil, problem.Newf(problem.Forbidden, "Ask an administrator: "+link+".", "identity provider %s knows you as %s, and that is linked with no user here", p.GetName(), person.Subject)
	}
	user := &apiv1.User{
		Id: newID(), Name: strings.ToLower(person.Login), Kind: apiv1.User_PERSON, Title: person.Title, Email: person.Email,
		Organization: p.GetOrganization(), OrganizationId: p.GetOrganizationId(),
	}
	if user.GetName() == "" || schema.Validate(user) != nil {
		return nil, problem.Newf(problem.Forbidden, "Ask an administrator to take another claim or attribute for the name; or to make a user: "+link+".",
			"identity provider %s calls you %q, which cannot be the name of a user here", p.GetName(), person.Login)
	}
	_, err := tx.Users.ByName(user.GetName(), nil)
	if err == nil {
		return nil, problem.Newf(problem.NameTaken, "Ask an administrator. Where that user is you: "+link+".",
			"there is a user %s already, and nothing says that it is who identity provider %s knows as %s", user.GetName(), p.GetName(), person.Subject)
	}
	if !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	return user, nil
}

// beginByProvider begins the session of somebody whom a provider has let in. ticket is that of the errand, where there was one.
func (s *Service) beginByProvider(ctx context.Context, out *shown, hash []byte, client string, ticket []byte) (*apiv1.Session, error) {
	zone, err := s.zoneOfCall(ctx)
	if err != nil {
		return nil, err
	}
	p := out.provider
	lasts := sessionTime
	if n := p.GetSessionMinutes(); n > 0 {
		lasts = min(lasts, time.Duration(n)*time.Minute)
	}
	identity := &apiv1.Identity{Id: out.identity.GetId(), IdentityProvider: p.GetName(), IdentityProviderId: p.GetId(), Subject: out.person.Subject, Login: out.person.Login}
	if out.person.RefreshToken != "" {
		if identity.SealedRefreshToken, err = s.Secrets.Seal(provider.RefreshRole(identity.GetId()), []byte(out.person.RefreshToken)); err != nil {
			return nil, err
		}
	}
	user := &apiv1.User{
		Id: out.user.GetId(), Name: out.user.GetName(), Kind: out.user.GetKind(), Title: out.person.Title, Email: out.person.Email,
		Organization: out.user.GetOrganization(), OrganizationId: out.user.GetOrganizationId(),
	}
	id := newID()
	result, err := s.propose(asShown(ctx, out, id), nil, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_BeginProviderSession{BeginProviderSession: &commandv1.BeginProviderSession{
			Session: &apiv1.Session{
				Id: id, User: user.GetName(), UserId: user.GetId(), Zone: zone.GetName(), ZoneId: zone.GetId(), Strength: out.strength, Client: client,
				ExpiresAt: timestamppb.New(time.Now().Add(lasts)), SecretHash: hash,
			},
			Identity: identity, ProviderRevision: p.GetRevision(), User: user, GroupIds: provider.Mapped(p, out.person), Shown: out.proof,
			DeviceHash: hashOf(out.secrets.GetDevice()), TicketHash: hashOf(ticket), Reason: "through identity provider " + p.GetName(),
		}}
	})
	if err != nil {
		return nil, err
	}
	if out.way != (door.Way{}) {
		s.doors.Open(out.way)
	}
	return s.sessions.decode(result)
}

// ticket is what the control plane gives to whoever goes to a provider, to be shown when they come back. It is sealed, so that nothing
// need be kept of who never comes back, and counts once.
type ticket struct {
	ProviderID string          `json:"p"`
	Errand     provider.Errand `json:"e"`
	SecretHash []byte          `json:"h"`
	// SessionID is that of who shows again who they are.
	SessionID string        `json:"s"`
	Interval  time.Duration `json:"i"`
	Until     time.Time     `json:"u"`
}

// BeginProviderLogin says where somebody logs in.
func (s sessionService) BeginProviderLogin(ctx context.Context, r *apiv1.BeginProviderLoginRequest) (*apiv1.BeginProviderLoginResponse, error) {
	p, secret, err := s.enabled(ctx, r.GetIdentityProvider())
	if err != nil {
		return nil, err
	}
	if p.GetOidc() == nil {
		return nil, problem.Newf(problem.Invalid, "Log in with name and password: naru login --provider "+p.GetName()+" USER.", "identity provider %s is a directory", p.GetName())
	}
	t := ticket{ProviderID: p.GetId(), SecretHash: r.GetSecretHash(), Errand: provider.NewErrand(), Until: time.Now().Add(errandTime)}
	if r.GetStepUp() {
		if r.GetDevice() {
			return nil, problem.New(problem.Invalid, "a step-up is made with a browser on the machine that one sits at", "Send a redirect_uri.").With("device", "is not for a step-up")
		}
		if t.SessionID, err = s.stepUpAt(ctx, p, r.GetSecretHash()); err != nil {
			return nil, err
		}
		t.Errand.Anew = true
	}
	out := &apiv1.BeginProviderLoginResponse{}
	asked := &shown{provider: p}
	if r.GetDevice() {
		d, err := s.Providers.BeginDevice(ctx, callOf(ctx).Place, p, secret)
		if err != nil {
			return nil, s.refused(ctx, "session.log-in", asked, asked.asked(err))
		}
		if !d.Until.IsZero() && d.Until.Before(t.Until) {
			t.Until = d.Until
		}
		t.Errand, t.Interval = provider.Errand{Device: d.Device}, d.Interval
		out.Url, out.UserCode, out.IntervalSeconds = d.URL, d.UserCode, uint32(d.Interval.Seconds())
	} else {
		if !mayRedirect(p, r.GetRedirectUri()) {
			return nil, problem.Newf(problem.Invalid, "Send "+loopback(p)+", with a port, or one of its redirect_uris.", "identity provider %s sends nobody back to %q", p.GetName(), r.GetRedirectUri()).With("redirect_uri", "is not one of the provider's")
		}
		t.Errand.RedirectURI = r.GetRedirectUri()
		if out.Url, err = s.Providers.Begin(ctx, callOf(ctx).Place, p, t.Errand); err != nil {
			return nil, s.refused(ctx, "session.log-in", asked, asked.asked(err))
		}
		out.State = t.Errand.State
	}
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if out.Ticket, err = s.Secrets.Seal(ticketRole, b); err != nil {
		return nil, err
	}
	out.ExpiresAt = timestamppb.New(t.Until)
	out.Chain, out.Signature, err = s.Secrets.VouchWay(sealed.Way{Provider: r.GetIdentityProvider(), SecretHash: r.GetSecretHash(), URL: out.GetUrl(), UserCode: out.GetUserCode(), State: out.GetState()})
	return out, err
}

// stepUpAt is the session that is to be stepped up at a provider: the caller's, begun through it.
func (s *Service) stepUpAt(ctx context.Context, p *apiv1.IdentityProvider, hash []byte) (string, error) {
	id, err := ownSession(ctx)
	if err != nil {
		return "", err
	}
	session, err := s.Session(ctx, id)
	if err != nil {
		return "", err
	}
	if session.GetIdentityProviderId() != p.GetId() || subtle.ConstantTimeCompare(session.GetSecretHash(), hash) != 1 {
		return "", problem.Newf(problem.WrongState, "Show again what you logged in with: naru session step-up.", "your session was not begun through identity provider %s", p.GetName())
	}
	return id, nil
}

// mayRedirect reports whether a provider may send people back to an address: the machine that they sit at, at any port where the
// provider's configuration names none, or one that the configuration has.
func mayRedirect(p *apiv1.IdentityProvider, text string) bool {
	if slices.Contains(p.GetOidc().GetRedirectUris(), text) {
		return true
	}
	want, err := url.Parse(loopback(p))
	got, e := url.Parse(text)
	return err == nil && e == nil && provider.Loopback(text) && got.RawQuery == "" && got.Hostname() == want.Hostname() && got.EscapedPath() == want.EscapedPath() &&
		(want.Port() == "" || got.Port() == want.Port())
}

// FinishProviderLogin begins a session with what a provider sent back.
func (s sessionService) FinishProviderLogin(ctx context.Context, r *apiv1.FinishProviderLoginRequest) (*apiv1.FinishProviderLoginResponse, error) {
	c := claim{hash: r.GetSecretHash(), method: apiv1.SessionService_FinishProviderLogin_FullMethodName, sealed: r.GetSecrets()}
	out := &shown{}
	err := s.opened(ctx, c, out)
	if err == nil {
		err = s.judgeTicket(ctx, c, out)
	}
	if wait := (*pending)(nil); errors.As(err, &wait) {
		return &apiv1.FinishProviderLoginResponse{WaitSeconds: uint32(wait.interval.Seconds())}, nil
	}
	if err != nil {
		return nil, s.refused(ctx, "session.log-in", out, err)
	}
	m, err := s.beginByProvider(ctx, out, r.GetSecretHash(), r.GetClient(), out.secrets.GetTicket())
	return &apiv1.FinishProviderLoginResponse{Session: m}, err
}

// pending says that somebody has not been at the provider yet.
type pending struct{ interval time.Duration }

func (*pending) Error() string { return provider.ErrPending.Error() }

// judgeTicket judges what came back from a provider, by the ticket that was given for that.
func (s *Service) judgeTicket(ctx context.Context, c claim, out *shown) error {
	t := &ticket{}
	b, err := s.Secrets.Unseal(ticketRole, out.secrets.GetTicket())
	if err == nil {
		err = json.Unmarshal(b, t)
	}
	device := t.Errand.Device != ""
	switch again := "Begin again."; {
	case err != nil:
		return problem.New(problem.Invalid, "there is no ticket of a login at an identity provider, or it was not given here", again)
	case !time.Now().Before(t.Until):
		return problem.New(problem.Unauthenticated, "the login at the identity provider took too long", again)
	case subtle.ConstantTimeCompare(t.SecretHash, c.hash) != 1 || t.SessionID != c.session.GetId():
		return problem.New(problem.Unauthenticated, "the login at the identity provider was begun for another session", again)
	case !device && subtle.ConstantTimeCompare([]byte(t.Errand.State), []byte(out.secrets.GetState())) != 1:
		return problem.New(problem.Unauthenticated, "what came back is the answer to another login", again)
	case !device && out.secrets.GetAuthorizationCode() == "":
		return problem.New(problem.Unauthenticated, "the identity provider sent no code back", again)
	}
	p, secret, err := s.enabled(ctx, t.ProviderID)
	if err != nil {
		return err
	}
	out.provider = p
	person, err := s.Providers.Finish(ctx, callOf(ctx).Place, p, secret, out.secrets.GetAuthorizationCode(), t.Errand)
	if errors.Is(err, provider.ErrPending) {
		return &pending{t.Interval}
	}
	if err != nil {
		return out.asked(err)
	}
	if err := s.recognise(ctx, c, out, person); err != nil {
		return err
	}
	if out.prove(c); person.TwoFactors {
		out.strength = apiv1.Session_TWO_FACTORS
	}
	return nil
}

// opened opens what somebody sealed.
func (s *Service) opened(ctx context.Context, c claim, out *shown) (err error) {
	if out.secrets, err = s.Secrets.OpenSecrets(ctx, sealed.For{Method: c.method, User: c.name, SecretHash: c.hash}, c.sealed); err != nil {
		return err
	}
	return schema.Validate(out.secrets)
}

// providerOfCaller is through which provider the caller's session was begun; none where it was not, or is no session.
func (s *Service) providerOfCaller(ctx context.Context) (p *apiv1.IdentityProvider, err error) {
	id := callOf(ctx).Principal.SessionID
	if id == "" {
		return nil, nil
	}
	session, err := s.Session(ctx, id)
	if err != nil || session.GetIdentityProviderId() == "" {
		return nil, err
	}
	err = s.view(ctx, func(tx *state.Tx) (err error) {
		p, err = tx.IdentityProviders.Get(session.GetIdentityProviderId())
		return err
	})
	return p, err
}
