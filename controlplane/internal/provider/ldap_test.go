package provider_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func newAsker() *provider.Asker {
	return provider.New(allowed, time.Now)
}

func anybody(string) error { return nil }

func TestADirectorySaysWhoHasShownTheirPassword(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	for _, url := range []string{d.TLS, d.Plain} {
		p := d.Provider(ca, url)
		who, err := newAsker().Password(t.Context(), "", p, providertest.Secret, "KIM", "kim's own password", anybody)
		if err != nil {
			t.Fatalf("at %s: %v", url, err)
		}
		if len(who.Subject) != 36 || who.Login != "kim" || who.Title != "김민수" || who.Email != "shared@corp.example" || !slices.Equal(who.Groups, []string{"cn=ops,ou=groups,dc=corp"}) {
			t.Errorf("at %s it is %+v", url, who)
		}
	}
}

// TestNobodyComesInWithWhatIsNoPassword: in particular not without one, which directories take for nobody's and let pass.
func TestNobodyComesInWithWhatIsNoPassword(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	a, p := newAsker(), d.Provider(ca)
	for about, try := range map[string][2]string{
		"no password": {"kim", ""}, "a wrong one": {"kim", "lee's own password"}, "an unknown name": {"nobody", "kim's own password"}, "no name": {"", "kim's own password"},
		"a star": {"*", "kim's own password"}, "a part of it": {"ki*", "kim's own password"}, "a filter": {"kim)(uid=*", "kim's own password"},
		"another attribute": {"x)(|(uid=kim)", "kim's own password"}, "a nul": {"kim\x00", "kim's own password"}, "a backslash": {`\6bim`, "kim's own password"},
		"somebody who left": {"former", "former's own password"}, "somebody elsewhere": {"stranger", "kim's own password"}, "a DN": {"uid=kim,ou=people,dc=corp", "kim's own password"},
	} {
		if who, err := a.Password(t.Context(), "", p, providertest.Secret, try[0], try[1], anybody); !errors.Is(err, provider.ErrWrong) || who != nil {
			t.Errorf("%s: %+v, %v", about, who, err)
		}
	}
	p.Ldap.LoginAttribute = "mail"
	refusal := (*provider.Refusal)(nil)
	if _, err := a.Password(t.Context(), "", p, providertest.Secret, "shared@corp.example", "kim's own password", anybody); !errors.As(err, &refusal) {
		t.Errorf("with a name that two have: %v", err)
	}
}

// TestWhoMayNotTryIsNotTried: whoever has to wait has no password tried, however they write their name.
func TestWhoMayNotTryIsNotTried(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	a, p := newAsker(), d.Provider(ca)
	kim, err := a.Find(t.Context(), "", p, providertest.Secret, "kim")
	if err != nil {
		t.Fatal(err)
	}
	for _, written := range []string{"kim", "KIM", " kim ", "ｋｉｍ"} {
		asked := ""
		_, err := a.Password(t.Context(), "", p, providertest.Secret, written, "kim's own password", func(subject string) error {
			asked = subject
			return problem.New(problem.TooMany, "wait", "")
		})
		if !problem.Is(err, problem.TooMany) || asked != kim.Subject {
			t.Errorf("%q: asked about %q, and %v", written, asked, err)
		}
	}
}

func TestADirectoryIsBelievedOverTLSAlone(t *testing.T) {
	ca, other := providertest.NewCA(t), providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	failure := (*provider.Failure)(nil)
	for about, p := range map[string]*apiv1.IdentityProvider{
		"another CA":               d.Provider(other),
		"another CA, and StartTLS": d.Provider(other, d.Plain),
		"the machine's CAs":        {Name: "corp", Ldap: &apiv1.Directory{Urls: []string{d.TLS}, UserBase: "dc=corp"}},
		"TLS where there is none":  d.Provider(ca, strings.Replace(d.Plain, "ldap:", "ldaps:", 1)),
		"nothing there":            d.Provider(ca, "ldaps://127.0.0.1:1"),
		"another name":             d.Provider(ca, strings.Replace(d.TLS, "127.0.0.1", "127.0.0.2", 1)),
	} {
		if _, err := newAsker().Password(t.Context(), "", p, providertest.Secret, "kim", "kim's own password", anybody); !errors.As(err, &failure) {
			t.Errorf("%s: %v", about, err)
		}
	}
	p := d.Provider(ca)
	if _, err := newAsker().Password(t.Context(), "", p, "not the secret", "kim", "kim's own password", anybody); !errors.As(err, &failure) || strings.Contains(err.Error(), "not the secret") {
		t.Errorf("with a wrong secret: %v", err)
	}
	if _, err := provider.New(nil, time.Now).Try(t.Context(), "", p, providertest.Secret); !errors.As(err, &failure) || !strings.Contains(err.Error(), "identity_providers.allow") {
		t.Errorf("where this machine is not allowed: %v", err)
	}
	// One that is down is passed over for the next.
	p = d.Provider(ca, "ldaps://127.0.0.1:1", d.TLS)
	if _, err := newAsker().Password(t.Context(), "", p, providertest.Secret, "kim", "kim's own password", anybody); err != nil {
		t.Errorf("with a second address: %v", err)
	}
}

func TestADirectorySaysWhoIsStillThere(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	a, p := newAsker(), d.Provider(ca)
	p.GroupMappings = []*apiv1.GroupMapping{{ProviderGroup: "CN=Admins, ou=groups,dc=corp", GroupId: "g1"}, {ProviderGroup: "cn=ops,ou=groups,dc=corp", GroupId: "g2"}}
	subject := func(login string) string {
		who, err := a.Find(t.Context(), "", p, providertest.Secret, login)
		if err != nil {
			t.Fatal(err)
		}
		return who.Subject
	}
	kim, lee := subject("kim"), subject("lee")
	still := func() map[string]*provider.Person {
		t.Helper()
		out, odd, err := a.Still(t.Context(), p, providertest.Secret, []string{kim, lee, "no-such-subject", "*"})
		if err != nil || len(odd) > 0 {
			t.Fatal(err, odd)
		}
		return out
	}
	if got := still(); len(got) != 2 || !slices.Equal(provider.Mapped(p, got[lee]), []string{"g1"}) || !slices.Equal(provider.Mapped(p, got[kim]), []string{"g2"}) {
		t.Errorf("there are %v", got)
	}
	d.Change("dn: uid=kim,ou=people,dc=corp\nchangetype: modify\nreplace: employeeType\nemployeeType: left\n")
	if got := still(); len(got) != 1 || got[lee] == nil {
		t.Errorf("after kim was locked out there are %v", got)
	}
	d.Change("dn: uid=lee,ou=people,dc=corp\nchangetype: modrdn\nnewrdn: uid=lee2\ndeleteoldrdn: 1\n")
	if got := still(); len(got) != 1 || got[lee].Login != "lee2" {
		t.Errorf("after lee was renamed there are %v", got)
	}
	d.Change("dn: uid=lee2,ou=people,dc=corp\nchangetype: delete\n")
	if got := still(); len(got) != 0 {
		t.Errorf("after lee was deleted there are %v", got)
	}
	d.Stop()
	failure := (*provider.Failure)(nil)
	if _, _, err := a.Still(t.Context(), p, providertest.Secret, []string{kim}); !errors.As(err, &failure) {
		t.Errorf("while it is down: %v", err)
	}
}

// TestWhoIsOddHidesNobody: neither of whom there are two, nor of whom the directory says nothing by which people are known.
func TestWhoIsOddHidesNobody(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	a, p := newAsker(), d.Provider(ca)
	p.Ldap.IdAttribute = "mail" // of kim and lee there are two
	still, odd, err := a.Still(t.Context(), p, providertest.Secret, []string{"shared@corp.example", "no-such-subject"})
	if err != nil || len(still) != 0 || len(odd) != 1 || odd["shared@corp.example"] == nil {
		t.Errorf("still there %v, odd %v: %v", still, odd, err)
	}
	p.Ldap.IdAttribute, p.Ldap.GroupBase = "uid", "ou=nowhere,dc=corp"
	still, odd, err = a.Still(t.Context(), p, providertest.Secret, []string{"kim", "no-such-subject"})
	if err != nil || len(still) != 0 || len(odd) != 1 || odd["kim"] == nil {
		t.Errorf("whose groups are not told: still there %v, odd %v: %v", still, odd, err)
	}
}

// TestGroupsAreLookedForOnceSomebodyHasShownWhoTheyAre: whoever types a name has the directory look for one entry, and no more.
func TestGroupsAreLookedForOnceSomebodyHasShownWhoTheyAre(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	a, p := newAsker(), d.Provider(ca)
	p.Ldap.GroupBase = "ou=nowhere,dc=corp" // whoever looks there is refused
	if _, err := a.Password(t.Context(), "", p, providertest.Secret, "kim", "lee's own password", anybody); !errors.Is(err, provider.ErrWrong) {
		t.Errorf("a wrong password: %v", err)
	}
	failure := (*provider.Failure)(nil)
	if _, err := a.Password(t.Context(), "", p, providertest.Secret, "kim", "kim's own password", anybody); !errors.As(err, &failure) {
		t.Errorf("the right one: %v", err)
	}
}

func TestADirectoryThatCannotBeAskedIsRefused(t *testing.T) {
	good := func() *apiv1.IdentityProvider {
		return &apiv1.IdentityProvider{Ldap: &apiv1.Directory{Urls: []string{"ldaps://ldap.example.org"}, UserBase: "dc=example"}}
	}
	if err := provider.Check(good()); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(p *apiv1.IdentityProvider){
		"ldap.urls":                     func(p *apiv1.IdentityProvider) { p.Ldap.Urls = []string{"ldaps://:636"} },
		"ldap.ca":                       func(p *apiv1.IdentityProvider) { p.Ldap.Ca = "none" },
		"ldap.user_filter":              func(p *apiv1.IdentityProvider) { p.Ldap.UserFilter = "(uid=" },
		"ldap.group_filter":             func(p *apiv1.IdentityProvider) { p.Ldap.GroupFilter = "cn=x)(y" },
		"ldap.bind_dn":                  func(p *apiv1.IdentityProvider) { p.Ldap.BindDn = "kim" },
		"group_mappings.provider_group": func(p *apiv1.IdentityProvider) { p.GroupMappings = []*apiv1.GroupMapping{{ProviderGroup: "ops"}} },
	} {
		p := good()
		spoil(p)
		if err := provider.Check(p); !problem.Is(err, problem.Invalid) || problem.Of(err).GetErrors()[0].GetField() != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
