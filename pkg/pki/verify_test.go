package pki_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/pki"
)

func TestAChainTellsWhoseItIs(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	zone := must(pki.NewAuthority(pki.AuthorityZone, pki.ZoneDomain("naru.test", "z1"), nil, noon))
	for name, c := range map[string]struct {
		by   *pki.Authority
		root *x509.Certificate
		id   spiffeid.ID
		want pki.Peer
	}{
		"a server": {f.servers, f.rootCert(), must(pki.ServerID(f.name, "s1")),
			pki.Peer{Role: pki.RoleServer, ServerID: "s1", Name: "s1"}},
		"a broker": {f.brokers, f.rootCert(), must(pki.BrokerID(f.name, "b1")),
			pki.Peer{Role: pki.RoleBroker, BrokerID: "b1", Name: "b1"}},
		"an agent": {f.links, f.rootCert(), f.agent(t, "z1", "a1"),
			pki.Peer{Role: pki.RoleAgent, ZoneID: "z1", Agent: "a1", Name: "a1"}},
		"an administrator": {f.people, f.rootCert(), must(pki.AdminID(f.name, "hana")),
			pki.Peer{Role: pki.RoleAdmin, Admin: "hana", Name: "hana"}},
		"an agent inside its zone": {zone, zone.Certificate, must(pki.MemberID(f.name, "z1", "a1")),
			pki.Peer{Role: pki.RoleMember, ZoneID: "z1", Agent: "a1", Name: "a1"}},
		"an edge": {zone, zone.Certificate, must(pki.EdgeID(f.name, "z1", "a1")),
			pki.Peer{Role: pki.RoleEdge, ZoneID: "z1", Name: "a1"}},
		"a hypervisor": {zone, zone.Certificate, must(pki.LibvirtID(f.name, "z1", "kvm-1")),
			pki.Peer{Role: pki.RoleLibvirt, ZoneID: "z1", Name: "kvm-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			chain := f.issue(t, c.by, c.id, noon)
			got, err := pki.Verify(chain, c.root, noon, c.want.Role)
			if err != nil {
				t.Fatal(err)
			}
			c.want.ID, c.want.Federation = c.id, "naru.test"
			c.want.Key, c.want.NotBefore, c.want.NotAfter = got.Key, got.NotBefore, got.NotAfter
			if *got != c.want {
				t.Errorf("got %+v, want %+v", *got, c.want)
			}
			if _, err := pki.Verify(chain[:len(chain)-1], c.root, noon); err != nil {
				t.Errorf("the same chain without its root, which the judge has: %v", err)
			}
		})
	}
}

func TestAChainOfAnotherRoleIsRefused(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	agent := f.issue(t, f.links, f.agent(t, "z1", "a1"), noon)
	_, err := pki.Verify(agent, f.rootCert(), noon, pki.RoleServer, pki.RoleBroker)
	if !errors.Is(err, pki.ErrRole) {
		t.Errorf("an agent where a server or broker is asked: %v", err)
	}
}

func TestAnIntermediateCannotIssueForAnotherRole(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	ids := map[string]spiffeid.ID{
		pki.AuthorityServers: must(pki.ServerID(f.name, "x")),
		pki.AuthorityBrokers: must(pki.BrokerID(f.name, "x")),
		pki.AuthorityLinks:   f.agent(t, "z1", "x"),
		pki.AuthorityPeople:  must(pki.AdminID(f.name, "x")),
	}
	for _, thief := range []*pki.Authority{f.servers, f.brokers, f.links, f.people} {
		for role, id := range ids {
			if role == thief.Role {
				continue
			}
			if _, err := thief.Issue(newKey().Public(), id, pki.IssueOptions{Now: noon}); err == nil {
				t.Errorf("%s issued %s", thief.Role, id)
			}
			for _, usage := range [][]x509.ExtKeyUsage{
				{x509.ExtKeyUsageClientAuth},
				{x509.ExtKeyUsageServerAuth},
				{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			} {
				chain := f.forge(t, thief, func(c *x509.Certificate) { c.URIs, c.ExtKeyUsage = []*url.URL{id.URL()}, usage })
				refused(t, chain, f.rootCert(), "the key of "+thief.Role+" signed "+id.String())
			}
		}
	}
}

func TestWhatIsNotExactlyALeafOfOursIsRefused(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	ours := f.agent(t, "z1", "a1").URL()
	for name, change := range map[string]func(*x509.Certificate){
		"no id":                        func(c *x509.Certificate) { c.URIs = nil },
		"two ids":                      func(c *x509.Certificate) { c.URIs = []*url.URL{ours, f.agent(t, "z2", "a1").URL()} },
		"the same id twice":            func(c *x509.Certificate) { c.URIs = []*url.URL{ours, ours} },
		"an id and a web address":      func(c *x509.Certificate) { c.URIs = []*url.URL{ours, uri("https://naru.test/")} },
		"an id of another federation":  func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://other.test/zone/z1/agent/a1") },
		"an id of a zone's inside":     func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://z1.zone.naru.test/agent/a1") },
		"an id with another scheme":    func(c *x509.Certificate) { c.URIs[0] = uri("https://naru.test/zone/z1/agent/a1") },
		"an id with a query":           func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone/z1/agent/a1?x=1") },
		"an id with a fragment":        func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone/z1/agent/a1#x") },
		"an id with a user":            func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://root@naru.test/zone/z1/agent/a1") },
		"an id with a port":            func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test:1/zone/z1/agent/a1") },
		"an id with an escaped slash":  func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone/z1%2Fagent/a1") },
		"an id that climbs":            func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone/z2/../z1/agent/a1") },
		"an id with an empty part":     func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone//z1/agent/a1") },
		"an id that goes on":           func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone/z1/agent/a1/x") },
		"an id that ends early":        func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone/z1") },
		"an id with a slash behind":    func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone/z1/agent/a1/") },
		"an id in capitals":            func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test/zone/z1/agent/A1") },
		"the bare federation":          func(c *x509.Certificate) { c.URIs[0] = uri("spiffe://naru.test") },
		"a role's mark":                func(c *x509.Certificate) { c.URIs = append(c.URIs, uri("urn:naru:authority:links")) },
		"a CA":                         func(c *x509.Certificate) { c.IsCA = true },
		"a leaf that may sign others":  func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
		"a leaf that may not sign":     func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		"a leaf without key usage":     func(c *x509.Certificate) { c.KeyUsage = 0 },
		"a leaf for anything":          func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"a leaf for code":              func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) },
		"a link that may also serve":   func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) },
		"a leaf for nothing":           func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"a leaf for an unknown use":    func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} },
		"a critical unknown extension": func(c *x509.Certificate) { c.ExtraExtensions = unknownExtension() },
	} {
		t.Run(name, func(t *testing.T) { refused(t, f.forge(t, f.links, change), f.rootCert(), name) })
	}
	if _, err := pki.Verify(f.forge(t, f.links, func(*x509.Certificate) {}), f.rootCert(), noon); err != nil {
		t.Errorf("the unchanged leaf, without which the above shows nothing: %v", err)
	}
}

func unknownExtension() []pkix.Extension {
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
}

func TestALeafWithAnotherKindOfKeyIsRefused(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	if _, err := f.links.Issue(key.Public(), f.agent(t, "z1", "a1"), pki.IssueOptions{Now: noon}); err == nil {
		t.Error("issued for an RSA key")
	}
}

func TestASelfMadeIntermediateIsRefused(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	evil := newFederation(t, "naru.test", noon)
	id := f.agent(t, "z1", "a1")
	fake := f.issue(t, evil.links, id, noon)
	refused(t, fake, f.rootCert(), "a root of the same name")
	refused(t, [][]byte{fake[0], fake[1]}, f.rootCert(), "an intermediate of another root")
	refused(t, [][]byte{fake[0], fake[1], f.rootCert().Raw}, f.rootCert(), "the true root put behind it")
	refused(t, [][]byte{fake[0], f.links.Certificate.Raw, f.rootCert().Raw}, f.rootCert(), "the true intermediate put behind it")

	t.Run("made with a leaf's key", func(t *testing.T) {
		key := newKey()
		honest := must(f.links.Issue(key.Public(), id, pki.IssueOptions{Now: noon}))
		leaf := must(x509.ParseCertificate(honest[0]))
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
			URIs: []*url.URL{f.agent(t, "z2", "a1").URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		}
		forged := must(x509.CreateCertificate(rand.Reader, template, leaf, newKey().Public(), key))
		refused(t, [][]byte{forged, honest[0], honest[2]}, f.rootCert(), "a leaf as issuer")
		refused(t, append([][]byte{forged}, honest...), f.rootCert(), "a leaf as issuer, whole path")
	})
	t.Run("made by an intermediate", func(t *testing.T) {
		// The key of "links" makes itself an intermediate of role "servers".
		key := newKey()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
			URIs: f.servers.Certificate.URIs, KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		}
		der := must(x509.CreateCertificate(rand.Reader, template, f.links.Certificate, key.Public(), f.links.Key))
		sub := &pki.Authority{Role: pki.AuthorityServers, Federation: f.name, Certificate: must(x509.ParseCertificate(der)), Key: key, Parent: f.links}
		chain := f.issue(t, sub, must(pki.ServerID(f.name, "s1")), noon)
		refused(t, chain, f.rootCert(), "four certificates")
		refused(t, [][]byte{chain[0], chain[1], chain[3]}, f.rootCert(), "the one between left out")
		refused(t, chain[:3], f.rootCert(), "the root left out")
	})
	t.Run("the root itself issues", func(t *testing.T) {
		chain := f.forge(t, f.root, func(*x509.Certificate) {})
		refused(t, chain, f.rootCert(), "two certificates")
		refused(t, [][]byte{chain[0], f.links.Certificate.Raw, chain[1]}, f.rootCert(), "an intermediate for show")
		refused(t, [][]byte{chain[0], chain[1], chain[1]}, f.rootCert(), "the root twice")
	})
}

func TestAnAuthorityWithoutItsMarksIsRefused(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	for name, uris := range map[string][]*url.URL{
		"no role":                   {uri("spiffe://naru.test")},
		"no id":                     {uri("urn:naru:authority:links")},
		"two roles":                 {uri("spiffe://naru.test"), uri("urn:naru:authority:links"), uri("urn:naru:authority:servers")},
		"two ids":                   {uri("spiffe://naru.test"), uri("spiffe://other.test"), uri("urn:naru:authority:links")},
		"an id with a path":         {uri("spiffe://naru.test/zone"), uri("urn:naru:authority:links")},
		"another federation":        {uri("spiffe://other.test"), uri("urn:naru:authority:links")},
		"an unknown role":           {uri("spiffe://naru.test"), uri("urn:naru:authority:everything")},
		"the zone's role":           {uri("spiffe://naru.test"), uri("urn:naru:authority:zone")},
		"the root's role":           {uri("spiffe://naru.test"), uri("urn:naru:authority:root")},
		"a role with a tail":        {uri("spiffe://naru.test"), uri("urn:naru:authority:links#servers")},
		"marks in another spelling": {uri("spiffe://naru.test"), uri("URN:NARU:authority:links")},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey()
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
				URIs: uris, KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
			}
			der := must(x509.CreateCertificate(rand.Reader, template, f.rootCert(), key.Public(), f.root.Key))
			a := &pki.Authority{Role: "links", Federation: f.name, Certificate: must(x509.ParseCertificate(der)), Key: key, Parent: f.root}
			refused(t, f.forge(t, a, func(*x509.Certificate) {}), f.rootCert(), name)
		})
	}
}

func TestAChainOutOfOrderOrWithMoreInItIsRefused(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	c := f.issue(t, f.links, f.agent(t, "z1", "a1"), noon)
	other := f.issue(t, f.links, f.agent(t, "z2", "a2"), noon)
	for name, chain := range map[string][][]byte{
		"nothing":                   nil,
		"the leaf alone":            {c[0]},
		"the root alone":            {c[2]},
		"the intermediate as leaf":  {c[1], c[2]},
		"the intermediate first":    {c[1], c[0], c[2]},
		"turned round":              {c[2], c[1], c[0]},
		"without the intermediate":  {c[0], c[2]},
		"a second leaf":             {c[0], other[0], c[1], c[2]},
		"another intermediate more": {c[0], c[1], f.servers.Certificate.Raw, c[2]},
		"another intermediate":      {c[0], f.servers.Certificate.Raw, c[2]},
		"the root twice":            {c[0], c[1], c[2], c[2]},
		"bytes behind a leaf":       {append(bytes.Clone(c[0]), 0), c[1], c[2]},
		"an empty certificate":      {{}, c[1], c[2]},
	} {
		refused(t, chain, f.rootCert(), name)
	}
}

func TestTimeIsJudged(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	chain := f.issue(t, f.links, f.agent(t, "z1", "a1"), noon)

	if _, err := pki.Verify(chain, f.rootCert(), noon.Add(-time.Hour)); !errors.Is(err, pki.ErrNotYetValid) {
		t.Errorf("an hour too early: %v", err)
	}
	if _, err := pki.Verify(chain, f.rootCert(), noon.Add(pki.LinkTTL)); err != nil {
		t.Errorf("in its last second: %v", err)
	}
	peer, err := pki.Verify(chain, f.rootCert(), noon.Add(pki.LinkTTL+time.Second), pki.RoleAgent)
	if !errors.Is(err, pki.ErrExpired) || peer == nil || !peer.Expired || peer.ZoneID != "z1" || peer.Agent != "a1" {
		t.Errorf("a second later it should be marked as expired, and still say whose it is: %+v, %v", peer, err)
	}
	peer, err = pki.Verify(chain, f.rootCert(), noon.Add(30*365*24*time.Hour), pki.RoleAgent)
	if !errors.Is(err, pki.ErrExpired) || peer == nil {
		t.Errorf("after its intermediate has ended too, it can still ask for renewal: %+v, %v", peer, err)
	}
	if peer, err := pki.Verify(chain, f.rootCert(), noon.Add(48*time.Hour), pki.RoleServer); !errors.Is(err, pki.ErrRole) || peer != nil {
		t.Errorf("expired and of the wrong role: %+v, %v", peer, err)
	}
}

func TestAnExpiredChainThatWasNeverGoodIsNobodys(t *testing.T) {
	f, evil := newFederation(t, "naru.test", noon), newFederation(t, "naru.test", noon)
	chain := f.issue(t, evil.links, f.agent(t, "z1", "a1"), noon)
	peer, err := pki.Verify([][]byte{chain[0], f.links.Certificate.Raw}, f.rootCert(), noon.Add(48*time.Hour))
	if peer != nil || !errors.Is(err, pki.ErrUntrusted) || errors.Is(err, pki.ErrExpired) {
		t.Errorf("got %+v, %v", peer, err)
	}
}

func TestAZonesAuthorityHasNoWordInTheFederation(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	zone := must(pki.NewAuthority(pki.AuthorityZone, pki.ZoneDomain(f.name, "z1"), nil, noon))
	chain := f.issue(t, zone, must(pki.MemberID(f.name, "z1", "a1")), noon)
	refused(t, chain, f.rootCert(), "a zone's chain at the federation's door")
	for _, id := range []string{"spiffe://naru.test/zone/z1/agent/a1", "spiffe://naru.test/server/s1", "spiffe://z2.zone.naru.test/agent/a1"} {
		if _, err := zone.Issue(newKey().Public(), spiffeid.RequireFromString(id), pki.IssueOptions{Now: noon}); err == nil {
			t.Errorf("a zone's authority issued %s", id)
		}
		forged := f.forge(t, zone, func(c *x509.Certificate) { c.URIs[0] = uri(id) })
		refused(t, forged, zone.Certificate, "forged "+id)
		refused(t, forged, f.rootCert(), "forged "+id)
	}
	agent := f.issue(t, f.links, f.agent(t, "z1", "a1"), noon)
	refused(t, agent, zone.Certificate, "the federation's chain inside the zone")
}

func TestARootIsFoundByItsPinOnly(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	chain := f.issue(t, f.brokers, must(pki.BrokerID(f.name, "b1")), noon)
	pin := pki.Pin(f.rootCert())
	if root, err := pki.RootByPin(chain, pin); err != nil || !root.Equal(f.rootCert()) {
		t.Errorf("the pinned root: %v, %v", root, err)
	}
	for name, bad := range map[string][][]byte{"no root": chain[:2], "nothing": nil, "rubbish": {{1, 2}}} {
		if _, err := pki.RootByPin(bad, pin); !errors.Is(err, pki.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "sha256:", pin[7:], pin + "0", "SHA256:" + pin[7:], "sha256:" + string(bytes.ToUpper([]byte(pin[7:])))} {
		if _, err := pki.RootByPin(chain, bad); err == nil {
			t.Errorf("pin %q was taken", bad)
		}
	}
}

func TestNoFlippedBitOfAChainIsAccepted(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	chain := f.issue(t, f.links, f.agent(t, "z1", "a1"), noon)
	rapid.Check(t, func(t *rapid.T) {
		which := rapid.IntRange(0, 2).Draw(t, "certificate")
		bit := rapid.IntRange(0, len(chain[which])*8-1).Draw(t, "bit")
		changed := slices.Clone(chain)
		changed[which] = bytes.Clone(chain[which])
		changed[which][bit/8] ^= 1 << (bit % 8)
		if peer, err := pki.Verify(changed, f.rootCert(), noon); err == nil {
			t.Fatalf("accepted as %s", peer.ID)
		}
	})
}

func FuzzVerifyNeverPanicsOrTrusts(f *testing.F) {
	fed := newFederation(f, "naru.test", noon)
	chain := fed.issue(f, fed.links, must(pki.AgentID(fed.name, "z1", "a1")), noon)
	f.Add(chain[0], chain[1])
	f.Add(chain[1], chain[2])
	f.Fuzz(func(t *testing.T, leaf, between []byte) {
		peer, err := pki.Verify([][]byte{leaf, between}, fed.rootCert(), noon)
		if err == nil && (!bytes.Equal(leaf, chain[0]) || !bytes.Equal(between, chain[1])) {
			t.Fatalf("accepted as %s", peer.ID)
		}
	})
}

func refused(t *testing.T, chain [][]byte, root *x509.Certificate, why string) {
	t.Helper()
	peer, err := pki.Verify(chain, root, noon)
	if err == nil {
		t.Errorf("%s: accepted as %s", why, peer.ID)
	}
	if peer != nil || (err != nil && !errors.Is(err, pki.ErrUntrusted)) {
		t.Errorf("%s: want no peer and ErrUntrusted, got %v, %v", why, peer, err)
	}
}
