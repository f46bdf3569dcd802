package pki_test

import (
	"bytes"
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/naru-project/naru/pkg/pki"
)

func TestAuthoritiesStandWhereTheyBelong(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	for name, make := range map[string]func() (*pki.Authority, error){
		"an intermediate without a root":     func() (*pki.Authority, error) { return pki.NewAuthority("links", f.name, nil, noon) },
		"a root below a root":                func() (*pki.Authority, error) { return pki.NewAuthority("root", f.name, f.root, noon) },
		"a zone's below a root":              func() (*pki.Authority, error) { return pki.NewAuthority("zone", f.name, f.root, noon) },
		"an intermediate below another":      func() (*pki.Authority, error) { return pki.NewAuthority("links", f.name, f.servers, noon) },
		"an intermediate of somebody else's": func() (*pki.Authority, error) { return pki.NewAuthority("links", "other.test", f.root, noon) },
		"an unknown role":                    func() (*pki.Authority, error) { return pki.NewAuthority("everything", f.name, f.root, noon) },
		"no name":                            func() (*pki.Authority, error) { return pki.NewAuthority("root", "", nil, noon) },
		"a name with a path":                 func() (*pki.Authority, error) { return pki.NewAuthority("root", "naru.test/x", nil, noon) },
		"a name with a scheme":               func() (*pki.Authority, error) { return pki.NewAuthority("root", "spiffe://naru.test", nil, noon) },
		"a name in capitals":                 func() (*pki.Authority, error) { return pki.NewAuthority("root", "Naru", nil, noon) },
	} {
		if _, err := make(); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

func TestAnAuthorityIsReadBackAsItWas(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	key := must(f.links.MarshalKey())
	links := must(pki.LoadAuthority(f.links.Certificate.Raw, key, f.root))
	if links.Role != "links" || links.Federation != "naru.test" {
		t.Errorf("read back as %s of %s", links.Role, links.Federation)
	}
	if _, err := pki.Verify(f.issue(t, links, f.agent(t, "z1", "a1"), noon), f.rootCert(), noon); err != nil {
		t.Error(err)
	}

	keyless := must(pki.LoadAuthority(f.links.Certificate.Raw, nil, f.root))
	if _, err := keyless.Issue(newKey().Public(), f.agent(t, "z1", "a1"), pki.IssueOptions{Now: noon}); err == nil {
		t.Error("an authority without its key issued")
	}
	if _, err := pki.LoadAuthority(f.servers.Certificate.Raw, key, f.root); err == nil {
		t.Error("a key was taken for another's")
	}
	other := newFederation(t, "naru.test", noon)
	if _, err := pki.LoadAuthority(f.links.Certificate.Raw, key, other.root); err == nil {
		t.Error("an intermediate was taken below a root that did not sign it")
	}
	leaf := f.issue(t, f.links, f.agent(t, "z1", "a1"), noon)
	if _, err := pki.LoadAuthority(leaf[0], nil, nil); err == nil {
		t.Error("a leaf was taken for an authority")
	}
}

func TestALinkCertificateLivesADayAtMost(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	id := f.agent(t, "z1", "a1")
	leaf := must(x509.ParseCertificate(f.issue(t, f.links, id, noon)[0]))
	if got := leaf.NotAfter.Sub(noon); got != 24*time.Hour {
		t.Errorf("by itself it lives %s", got)
	}
	for _, ttl := range []time.Duration{25 * time.Hour, 24*time.Hour + 1, -time.Second} {
		if _, err := f.links.Issue(newKey().Public(), id, pki.IssueOptions{TTL: ttl, Now: noon}); err == nil {
			t.Errorf("one of %s was issued", ttl)
		}
	}
}

func TestNoCertificateOutlivesItsAuthority(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	end := f.servers.Certificate.NotAfter
	id := must(pki.ServerID(f.name, "s1"))
	leaf := must(x509.ParseCertificate(f.issue(t, f.servers, id, end.Add(-time.Hour))[0]))
	if !leaf.NotAfter.Equal(end) {
		t.Errorf("it ends at %s, its authority at %s", leaf.NotAfter, end)
	}
	if _, err := f.servers.Issue(newKey().Public(), id, pki.IssueOptions{Now: end.Add(time.Second)}); err == nil {
		t.Error("an authority issued after its end")
	}
	if _, err := f.servers.Issue(newKey().Public(), id, pki.IssueOptions{}); err == nil {
		t.Error("issued without being told the time")
	}
}

func TestAnIntermediateIsReplacedInTimeForAllThatItIssued(t *testing.T) {
	const day = 24 * time.Hour
	f := newFederation(t, "naru.test", noon)
	later := noon.Add(2 * 365 * day)
	if f.links.Due(later.Add(-day)) || !f.links.Due(later) || f.root.Due(later) {
		t.Errorf("due the day before %v, at two years %v; a root, which is pinned and never due, %v",
			f.links.Due(later.Add(-day)), f.links.Due(later), f.root.Due(later))
	}
	next := must(pki.NewAuthority(f.links.Role, f.name, f.root, later))
	old, new := f.issue(t, f.links, f.agent(t, "z1", "a1"), later), f.issue(t, next, f.agent(t, "z1", "a1"), later)
	for name, chain := range map[string][][]byte{"the old one's": old, "the new one's": new} {
		if _, err := pki.Verify(chain, f.rootCert(), later, pki.RoleAgent); err != nil {
			t.Errorf("%s certificate: %v", name, err)
		}
	}
	for role, life := range map[string]time.Duration{
		pki.AuthorityLinks: day, pki.AuthorityServers: 30 * day, pki.AuthorityBrokers: 30 * day, pki.AuthorityPeople: 365 * day,
	} {
		first := must(pki.NewAuthority(role, f.name, f.root, noon))
		next := must(pki.NewAuthority(role, f.name, f.root, later))
		if first.Spent(next, later.Add(life)) {
			t.Errorf("%s: spent while what it issued last is valid", role)
		}
		if end := first.Certificate.NotAfter; later.Add(life).After(end) {
			t.Errorf("%s: what it issues last is cut short at %s", role, end)
		}
		if !first.Spent(next, later.Add(life+day+time.Second)) {
			t.Errorf("%s: not spent a day after that", role)
		}
	}
}

func TestNamesThatCouldBeMistakenMakeNoId(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "A", "a b", "ä", "-a", "a-", "a%2fb", "a\x00", string(bytes.Repeat([]byte("a"), 65))} {
		if id, err := pki.AgentID("naru.test", "z1", name); err == nil {
			t.Errorf("agent name %q made %s", name, id)
		}
		if id, err := pki.AgentID("naru.test", name, "a1"); err == nil {
			t.Errorf("zone id %q made %s", name, id)
		}
	}
	var none spiffeid.ID
	if id, err := pki.ServerID("naru.test/x", "s1"); err == nil || id != none {
		t.Errorf("a federation with a path made %s", id)
	}
}
