// Package provider asks identity providers who somebody is: OpenID Connect providers and LDAP directories. It keeps nothing but what
// saves asking twice for what they say of themselves, and writes nothing; who calls it decides who that is here.
//
// A provider is a stranger. It is spoken to over TLS alone, sent nowhere else (no redirect, no referral), read up to a bound, and waited
// for ten seconds at most. Few ask it at once, and one that does not answer is left alone for a while, so that whoever waits for it holds
// up nobody else.
package provider

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/oauth2"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// patience is how long a provider may take for one question, whatever it does.
const patience = 10 * time.Second

// Person is what a provider says of somebody.
type Person struct {
	// Subject is by which the provider knows them for ever.
	Subject string
	// Login is what they are called there; Title and Email may be empty.
	Login, Title, Email string
	// Groups are the provider's own: values of a claim, or DNs.
	Groups []string
	// GroupsUnknown says that the provider was not asked for them, or did not tell.
	GroupsUnknown bool
	// TwoFactors says that they showed two.
	TwoFactors bool
	// RefreshToken is with what the provider can be asked again; empty where it gave none.
	RefreshToken string
}

var (
	// ErrWrong says that there is no such person, or that it is not their password; which, nobody is told.
	ErrWrong = errors.New("the name or the password is wrong")
	// ErrGone says that the provider no longer knows somebody, or lets them in no more.
	ErrGone = errors.New("the provider does not know them any more")
	// ErrPending says that somebody has not been at the provider yet.
	ErrPending = errors.New("nobody has been there yet")
)

// Failure says that a provider does not answer, or not as it should. Its text is for those who administer it.
type Failure struct {
	Err error
	// Answered says that it did answer: it refuses the question, and is there for others.
	Answered bool
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

func failed(what string, err error) error {
	return &Failure{errors.New(what + ": " + outbound.Printable(err.Error())), refuses(err)}
}

// refuses reports whether an error is the answer of a provider that refuses the question. One that is too busy for it refuses nothing.
func refuses(err error) bool {
	if answer := (*oauth2.RetrieveError)(nil); errors.As(err, &answer) {
		return answer.Response != nil && (answer.Response.StatusCode/100 == 4 || answer.Response.StatusCode/100 == 2 && answer.ErrorCode != "")
	}
	answer := (*ldap.Error)(nil)
	return errors.As(err, &answer) && answer.ResultCode < ldap.ErrorNetwork && !ldap.IsErrorAnyOf(err, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable,
		ldap.LDAPResultTimeLimitExceeded, ldap.LDAPResultAdminLimitExceeded, ldap.LDAPResultOperationsError, ldap.LDAPResultOther)
}

// OfOne reports whether an error is about one person, of whom a provider says what is not understood; it answers for others.
func OfOne(err error) bool {
	refusal, failure := (*Refusal)(nil), (*Failure)(nil)
	return errors.As(err, &refusal) || errors.As(err, &failure) && failure.Answered
}

// Refusal says why what a provider answered does not show who somebody is. Its text is for them.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return r.Reason }

// Asker asks. It is safe for concurrent use.
type Asker struct {
	guard outbound.Guard
	now   func() time.Time

	mu    sync.Mutex
	lines map[string]*line   // by id of the provider
	found map[string]*openID // likewise
}

// New returns one. allowed are networks with which it may connect although they are refused otherwise.
func New(allowed outbound.Networks, now func() time.Time) *Asker {
	return &Asker{
		guard: outbound.Guard{Allowed: allowed, What: "identity providers", Key: "identity_providers.allow"}, now: now,
		lines: map[string]*line{}, found: map[string]*openID{},
	}
}

// SealingRole is the role under which a provider's secret is sealed.
func SealingRole(providerID string) string { return "identity-provider/" + providerID }

// RefreshRole is the role under which is sealed with what a provider is asked again about an identity.
func RefreshRole(identityID string) string { return "identity/" + identityID }

// Check refuses a provider that could never be asked.
func Check(p *apiv1.IdentityProvider) error {
	e := problem.New(problem.Invalid, "", "Correct the fields named and send it again.")
	for field, pem := range map[string]string{"oidc.ca": p.GetOidc().GetCa(), "ldap.ca": p.GetLdap().GetCa()} {
		if pem != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
			e.With(field, "is no certificate in PEM")
		}
	}
	if p.GetOidc() != nil {
		checkOIDC(e, p.GetOidc())
	}
	if p.GetLdap() != nil {
		checkDirectory(e, p.GetLdap())
		for _, m := range p.GetGroupMappings() {
			if _, err := ldap.ParseDN(m.GetProviderGroup()); err != nil {
				e.With("group_mappings.provider_group", "is no DN of a group: "+outbound.Printable(m.GetProviderGroup()))
			}
		}
	}
	if len(e.Problem.GetErrors()) == 0 {
		return nil
	}
	var said []string
	for _, f := range e.Problem.GetErrors() {
		said = append(said, f.GetField()+" "+f.GetDetail())
	}
	e.Problem.Detail = strings.Join(said, "; ")
	return e
}

// Mapped returns the ids of the groups here that somebody is in by a provider's word, in order.
func Mapped(p *apiv1.IdentityProvider, person *Person) (ids []string) {
	same := func(a, b string) bool { return a == b }
	if p.GetLdap() != nil {
		same = sameDN
	}
	for _, m := range p.GetGroupMappings() {
		if slices.ContainsFunc(person.Groups, func(g string) bool { return same(g, m.GetProviderGroup()) }) && !slices.Contains(ids, m.GetGroupId()) {
			ids = append(ids, m.GetGroupId())
		}
	}
	slices.Sort(ids)
	return ids
}

// Loopback reports whether a URL leads to the machine that its reader sits at.
func Loopback(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.User != nil || u.Fragment != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// tlsFor is how a server of the name is spoken to.
func tlsFor(host, ca string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("the CA is no certificate in PEM")
		}
	}
	return c, nil
}

// shown is a text of a provider's as people may read it, cut to a length; empty where it is nothing that is written in one line.
func shown(text string, most int) string {
	text = strings.TrimSpace(text)
	if strings.ContainsFunc(text, unicode.IsControl) || strings.ToValidUTF8(text, "") != text {
		return ""
	}
	if r := []rune(text); len(r) > most {
		return string(r[:most])
	}
	return text
}
