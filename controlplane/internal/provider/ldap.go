package provider

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const (
	// maxRead bounds what one connection to a directory reads.
	maxRead = 16 << 20
	// groupPage is how many groups are asked for at once.
	groupPage = 500
)

// checkDirectory finds what a directory could never be asked by.
func checkDirectory(e *problem.Error, d *apiv1.Directory) {
	for _, text := range d.GetUrls() {
		if _, _, err := endpoint(text); err != nil {
			e.With("ldap.urls", err.Error())
		}
	}
	for field, filter := range map[string]string{"ldap.user_filter": userFilter(d), "ldap.group_filter": groupFilter(d)} {
		if _, err := ldap.CompileFilter(filter); err != nil {
			e.With(field, "is no filter as RFC 4515 has them: (objectClass=person)")
		}
	}
	for field, dn := range map[string]string{"ldap.bind_dn": d.GetBindDn(), "ldap.user_base": d.GetUserBase(), "ldap.group_base": d.GetGroupBase()} {
		if _, err := ldap.ParseDN(dn); err != nil {
			e.With(field, "is no DN: ou=people,dc=example,dc=org")
		}
	}
}

// endpoint splits the URL of a directory.
func endpoint(text string) (address string, startTLS bool, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" || u.User != nil {
		return "", false, errors.New("takes ldaps://HOST[:PORT] and ldap://HOST[:PORT]")
	}
	port := "636"
	if startTLS = u.Scheme == "ldap"; startTLS {
		port = "389"
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)), startTLS, nil
}

func userFilter(d *apiv1.Directory) string { return cmp.Or(d.GetUserFilter(), "(objectClass=person)") }
func groupFilter(d *apiv1.Directory) string {
	return cmp.Or(d.GetGroupFilter(), "(objectClass=groupOfNames)")
}
func idAttribute(d *apiv1.Directory) string    { return cmp.Or(d.GetIdAttribute(), "entryUUID") }
func loginAttribute(d *apiv1.Directory) string { return cmp.Or(d.GetLoginAttribute(), "uid") }
func nameAttribute(d *apiv1.Directory) string  { return cmp.Or(d.GetNameAttribute(), "cn") }
func mailAttribute(d *apiv1.Directory) string  { return cmp.Or(d.GetMailAttribute(), "mail") }

// sameDN compares DNs as directories do.
func sameDN(a, b string) bool {
	x, err := ldap.ParseDN(a)
	if err != nil {
		return false
	}
	y, err := ldap.ParseDN(b)
	return err == nil && x.EqualFold(y)
}

// Password asks a directory whether a password is somebody's. secret is that of the provider; place is where the question comes from.
// Before the password is tried, before is asked whether it may be, with by which subject the directory knows who it is, however their
// name was typed; empty for nobody. Errors: before's, ErrWrong, *Refusal, *Failure, problem TOO_MANY.
func (a *Asker) Password(ctx context.Context, place string, p *apiv1.IdentityProvider, secret, login, password string, before func(subject string) error) (_ *Person, err error) {
	if password == "" || login == "" {
		return nil, ErrWrong // a bind without a password succeeds for everybody: RFC 4513, 5.1.2
	}
	ctx, leave, err := a.enter(ctx, p, place)
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	v, err := a.visit(ctx, p.GetLdap(), secret)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	dn, person, err := v.find(loginAttribute(v.d), login)
	if errors.Is(err, ErrWrong) {
		if err := before(""); err != nil {
			return nil, err
		}
		_ = v.conn.Bind("cn="+rand.Text()+","+v.d.GetUserBase(), password) // it takes as long
	}
	if err != nil {
		return nil, err
	}
	if err := before(person.Subject); err != nil {
		return nil, err
	}
	if err := v.bind(dn, password); err != nil {
		return nil, err
	}
	// Only for who has shown their password their groups are looked for: not as themselves, who may see fewer of them.
	if err := v.asks(secret); err != nil {
		return nil, failed("log in again as "+v.d.GetBindDn(), err)
	}
	if err := v.groups(dn, person); err != nil {
		return nil, err
	}
	return person, nil
}

// Find asks a directory who somebody is, by what they would type. Errors: ErrWrong, *Refusal, *Failure, problem TOO_MANY.
func (a *Asker) Find(ctx context.Context, place string, p *apiv1.IdentityProvider, secret, login string) (_ *Person, err error) {
	ctx, leave, err := a.enter(ctx, p, place)
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	v, err := a.visit(ctx, p.GetLdap(), secret)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	dn, person, err := v.find(loginAttribute(v.d), login)
	if err != nil {
		return nil, err
	}
	return person, v.groups(dn, person)
}

// Still asks a directory what it says now of people whom it knows by these subjects, over one connection. Of whom it no longer knows, or
// who may not log in any more, there is none. Of whom it says what is not understood there is what that is, in odd, and nothing is known
// of them. Errors: *Failure, problem TOO_MANY; then nothing is known of anybody.
func (a *Asker) Still(ctx context.Context, p *apiv1.IdentityProvider, secret string, subjects []string) (still map[string]*Person, odd map[string]error, err error) {
	ctx, leave, err := a.enter(ctx, p, "")
	if err != nil {
		return nil, nil, err
	}
	defer leave(&err)
	v, err := a.visit(ctx, p.GetLdap(), secret)
	if err != nil {
		return nil, nil, err
	}
	defer v.Close()
	still, odd = map[string]*Person{}, map[string]error{}
	for _, subject := range subjects {
		dn, person, err := v.find(idAttribute(v.d), subject)
		if err == nil {
			err = v.groups(dn, person)
		}
		switch {
		case err == nil:
			still[subject] = person
		case errors.Is(err, ErrWrong):
		case OfOne(err):
			odd[subject] = err
		default:
			return nil, nil, err
		}
	}
	return still, odd, nil
}

// tryDirectory asks for one person who may log in.
func (a *Asker) tryDirectory(ctx context.Context, d *apiv1.Directory, secret string) ([]string, error) {
	v, err := a.visit(ctx, d, secret)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	r, err := v.conn.Search(&ldap.SearchRequest{
		BaseDN: d.GetUserBase(), Scope: ldap.ScopeWholeSubtree, DerefAliases: ldap.NeverDerefAliases, SizeLimit: 1, TimeLimit: int(patience.Seconds()),
		Filter: userFilter(d), Attributes: []string{"1.1"},
	})
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		return nil, failed("search "+d.GetUserBase(), err)
	}
	if len(r.Entries) == 0 {
		return []string{"It answers, and nobody under " + d.GetUserBase() + " passes " + userFilter(d) + "."}, nil
	}
	return []string{"It answers, and there are people under " + d.GetUserBase() + " who pass " + userFilter(d) + "."}, nil
}

// visit is one connection to a directory.
type visit struct {
	d    *apiv1.Directory
	conn *ldap.Conn
	stop func() bool
}

// Close ends it.
func (v *visit) Close() {
	v.stop()
	v.conn.Close()
}

// visit connects to the first address of a directory that answers, and says who asks. ctx bounds all of it.
func (a *Asker) visit(ctx context.Context, d *apiv1.Directory, secret string) (*visit, error) {
	var last error
	for _, text := range d.GetUrls() {
		conn, stop, err := a.connect(ctx, text, d.GetCa())
		if err != nil {
			last = failed(text, err)
			continue
		}
		v := &visit{d: d, conn: conn, stop: stop}
		if d.GetBindDn() == "" {
			return v, nil
		}
		if secret == "" {
			v.Close()
			return nil, &Failure{Err: errors.New("it has no password for bind_dn: naru identity-provider secret")}
		}
		if err := v.asks(secret); err != nil {
			v.Close()
			return nil, failed(text+": log in as "+d.GetBindDn(), err)
		}
		return v, nil
	}
	if last == nil {
		last = &Failure{Err: errors.New("it has no address")}
	}
	return nil, last
}

// asks says who asks from now on: whoever the directory's secret is for, or nobody.
func (v *visit) asks(secret string) error {
	if v.d.GetBindDn() == "" {
		return v.conn.UnauthenticatedBind("")
	}
	return v.conn.Bind(v.d.GetBindDn(), secret)
}

// connect opens a connection over TLS, which ends with ctx.
func (a *Asker) connect(ctx context.Context, text, ca string) (*ldap.Conn, func() bool, error) {
	address, startTLS, err := endpoint(text)
	if err != nil {
		return nil, nil, err
	}
	host, _, _ := net.SplitHostPort(address)
	config, err := tlsFor(host, ca)
	if err != nil {
		return nil, nil, err
	}
	raw, err := a.guard.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	// What ends the connection ends whatever waits for it: the library itself waits for ever.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	bounded := &boundedConn{Conn: raw, left: maxRead}
	if !startTLS {
		conn := tls.Client(bounded, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			stop()
			raw.Close()
			return nil, nil, err
		}
		out := ldap.NewConn(conn, true)
		out.Start()
		return out, stop, nil
	}
	out := ldap.NewConn(bounded, false)
	out.Start()
	if err := out.StartTLS(config); err != nil {
		stop()
		out.Close()
		return nil, nil, err
	}
	return out, stop, nil
}

// boundedConn is a connection of which so many bytes are read and no more.
type boundedConn struct {
	net.Conn
	left int
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("it answered with more than %d bytes", maxRead)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// bind shows a password. Whatever the directory says of it, it is right or it is not.
func (v *visit) bind(dn, password string) error {
	err := v.conn.Bind(dn, password)
	switch {
	case err == nil:
		return nil
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultNoSuchObject,
		ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultConstraintViolation, ldap.LDAPResultInvalidDNSyntax):
		return ErrWrong
	}
	return failed("log in as the user", err)
}

// find looks for the one person whose attribute has a value. Errors: ErrWrong where there is none, *Refusal where there are several.
func (v *visit) find(attribute, value string) (dn string, _ *Person, err error) {
	value = ldap.EscapeFilter(value)
	if attribute == idAttribute(v.d) {
		if value, err = filterOfSubject(attribute, value); err != nil {
			return "", nil, ErrWrong
		}
	}
	id := idAttribute(v.d)
	r, err := v.conn.Search(&ldap.SearchRequest{
		BaseDN: v.d.GetUserBase(), Scope: ldap.ScopeWholeSubtree, DerefAliases: ldap.NeverDerefAliases, SizeLimit: 2, TimeLimit: int(patience.Seconds()),
		Filter: "(&" + userFilter(v.d) + "(" + attribute + "=" + value + "))", Attributes: []string{id, loginAttribute(v.d), nameAttribute(v.d), mailAttribute(v.d)},
	})
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		return "", nil, failed("search "+v.d.GetUserBase(), err)
	}
	switch { // entries elsewhere, to which it refers, are not looked for
	case err != nil || len(r.Entries) > 1:
		return "", nil, &Refusal{"more than one person there has that name"}
	case len(r.Entries) == 0:
		return "", nil, ErrWrong
	}
	entry := r.Entries[0]
	subject, err := subjectOf(id, entry.GetEqualFoldRawAttributeValues(id))
	if err != nil {
		return "", nil, &Failure{fmt.Errorf("%s: %w", entry.DN, err), true}
	}
	return entry.DN, &Person{
		Subject: subject, Login: shown(entry.GetEqualFoldAttributeValue(loginAttribute(v.d)), 254), Title: shown(entry.GetEqualFoldAttributeValue(nameAttribute(v.d)), 128),
		Email: mailOf(entry.GetEqualFoldAttributeValue(mailAttribute(v.d))), GroupsUnknown: v.d.GetGroupBase() == "",
	}, nil
}

// binaryID is the attribute whose values are bytes: Active Directory's. They are written as hexadecimal digits.
const binaryID = "objectGUID"

// subjectOf is by which somebody is known, of the values of the attribute that says so.
func subjectOf(attribute string, values [][]byte) (string, error) {
	if len(values) != 1 || len(values[0]) == 0 {
		return "", fmt.Errorf("it has %d values of %s, by which people are to be known for ever", len(values), attribute)
	}
	if strings.EqualFold(attribute, binaryID) {
		return hex.EncodeToString(values[0]), nil
	}
	if text := string(values[0]); utf8.ValidString(text) && shown(text, 256) == text {
		return text, nil
	}
	return "", fmt.Errorf("its %s is no text of 256 letters at most", attribute)
}

// filterOfSubject is the reverse, as filters have it.
func filterOfSubject(attribute, escaped string) (string, error) {
	if !strings.EqualFold(attribute, binaryID) {
		return escaped, nil
	}
	b, err := hex.DecodeString(escaped)
	var out strings.Builder
	for _, c := range b {
		fmt.Fprintf(&out, "\\%02x", c)
	}
	return out.String(), err
}

// groups finds the groups that somebody is in.
func (v *visit) groups(dn string, person *Person) error {
	if v.d.GetGroupBase() == "" {
		return nil
	}
	attribute, value := cmp.Or(v.d.GetGroupMemberAttribute(), "member"), dn
	if strings.EqualFold(attribute, "memberUid") {
		value = person.Login
	}
	r, err := v.conn.SearchWithPaging(&ldap.SearchRequest{
		BaseDN: v.d.GetGroupBase(), Scope: ldap.ScopeWholeSubtree, DerefAliases: ldap.NeverDerefAliases, TimeLimit: int(patience.Seconds()),
		Filter: "(&" + groupFilter(v.d) + "(" + attribute + "=" + ldap.EscapeFilter(value) + "))", Attributes: []string{"1.1"},
	}, groupPage)
	if err != nil {
		return failed("search "+v.d.GetGroupBase(), err)
	}
	for _, g := range r.Entries {
		person.Groups = append(person.Groups, g.DN)
	}
	return nil
}

// mailOf is an address as users have one; empty where it is none.
func mailOf(text string) string {
	if text = strings.TrimSpace(text); len(text) > 254 || shown(text, 254) != text || strings.ContainsAny(text, " <>,;") || strings.Count(text, "@") != 1 {
		return ""
	}
	return text
}
