package pki_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/pki"
)

func TestAHolderKeepsItsKeyAndChainOverARestart(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	dir := filepath.Join(t.TempDir(), "keys")
	h := must(pki.LoadOrCreate(dir, "link"))
	if _, err := h.TLSCertificate(); !errors.Is(err, pki.ErrNoCertificate) || h.Chain() != nil || h.Root() != nil || h.Peer() != nil {
		t.Fatalf("before its first certificate: %v", err)
	}
	chain := must(f.links.Issue(h.Key().Public(), f.agent(t, "z1", "a1"), pki.IssueOptions{Now: noon}))
	if err := h.Set(chain); err != nil {
		t.Fatal(err)
	}
	again := must(pki.LoadOrCreate(dir, "link"))
	if again.Fingerprint() != h.Fingerprint() || again.Peer().ID != h.Peer().ID || !again.Root().Equal(f.rootCert()) {
		t.Errorf("came back as %s %+v", again.Fingerprint(), again.Peer())
	}
	for name, want := range map[string]fs.FileMode{".": 0o700 | fs.ModeDir, "link.key": 0o600, "link.crt": 0o600} {
		if info := must(os.Stat(filepath.Join(dir, name))); info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
	if left := must(os.ReadDir(dir)); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAHolderRefusesAFolderItCannotTrust(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	made := func(t *testing.T) (dir string) {
		dir = t.TempDir()
		h := must(pki.LoadOrCreate(dir, "link"))
		chain := must(f.links.Issue(h.Key().Public(), f.agent(t, "z1", "a1"), pki.IssueOptions{Now: noon}))
		if err := h.Set(chain); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, c := range map[string]struct {
		spoil func(dir string) error
		say   string
	}{
		"a key that others may read":    {func(dir string) error { return os.Chmod(dir+"/link.key", 0o644) }, "chmod 600"},
		"a key that is gone":            {func(dir string) error { return os.Remove(dir + "/link.key") }, "join anew"},
		"an empty key":                  {func(dir string) error { return os.Truncate(dir+"/link.key", 0) }, "PRIVATE KEY"},
		"a certificate cut short":       {func(dir string) error { return os.Truncate(dir+"/link.crt", 300) }, "CERTIFICATE"},
		"a key of somebody else's":      {func(dir string) error { return os.Rename(madeElsewhere(t)+"/link.key", dir+"/link.key") }, "is ours"},
		"a key that is a link":          {func(dir string) error { return asLink(dir + "/link.key") }, "link.key"},
		"a key that leads out of there": {func(dir string) error { return asLink(dir + "/link.key") }, "link.key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := pki.LoadOrCreate(dir, "link")
			if err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("want an error that says %q, got %v", c.say, err)
			}
		})
	}
}

func madeElsewhere(t *testing.T) string {
	dir := t.TempDir()
	must(pki.LoadOrCreate(dir, "link"))
	return dir
}

func asLink(path string) error {
	return errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path))
}

func TestAHolderNeverBecomesSomebodyElse(t *testing.T) {
	f, other := newFederation(t, "naru.test", noon), newFederation(t, "naru.test", noon)
	h := must(pki.LoadOrCreate(t.TempDir(), "link"))
	id := f.agent(t, "z1", "a1")
	issue := func(a *pki.Authority, id spiffeid.ID) [][]byte {
		return must(a.Issue(h.Key().Public(), id, pki.IssueOptions{Now: noon}))
	}
	if err := h.Set(issue(f.links, id)); err != nil {
		t.Fatal(err)
	}
	for name, chain := range map[string][][]byte{
		"another agent":            issue(f.links, f.agent(t, "z1", "a2")),
		"another zone":             issue(f.links, f.agent(t, "z2", "a1")),
		"a server":                 issue(f.servers, must(pki.ServerID(f.name, "s1"))),
		"another root":             issue(other.links, id),
		"another key":              f.issue(t, f.links, id, noon),
		"no root":                  issue(f.links, id)[:2],
		"only a leaf":              issue(f.links, id)[:1],
		"nothing":                  nil,
		"the wrong intermediate's": {issue(f.links, id)[0], f.servers.Certificate.Raw, f.rootCert().Raw},
	} {
		if err := h.Set(chain); err == nil {
			t.Errorf("%s was taken", name)
		}
		if got := h.Peer().ID; got != id {
			t.Fatalf("%s made it %s", name, got)
		}
	}
}

// renewal is what a control plane does: it looks at the old certificate for the id, at the request for the key.
func renewal(f *federation, old [][]byte, csr []byte, now time.Time) ([][]byte, error) {
	peer, err := pki.Verify(old, f.rootCert(), now, pki.RoleAgent)
	if err != nil && !errors.Is(err, pki.ErrExpired) {
		return nil, err
	}
	key, err := pki.KeyOfCSR(csr)
	if err != nil {
		return nil, err
	}
	return f.links.Issue(key, peer.ID, pki.IssueOptions{Now: now})
}

func TestNoSequenceOfRenewalsChangesAnId(t *testing.T) {
	f := newFederation(t, "naru.test", noon)
	id := f.agent(t, "z1", "a1")
	rapid.Check(t, func(t *rapid.T) {
		now := noon
		chain := must(f.links.Issue(newKey().Public(), id, pki.IssueOptions{Now: now}))
		for range rapid.IntRange(1, 6).Draw(t, "renewals") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(90*24*time.Hour)).Draw(t, "later")))
			key := newKey()
			request := &x509.CertificateRequest{
				URIs:     []*url.URL{uri(rapid.SampledFrom([]string{"spiffe://naru.test/zone/z2/agent/a1", "spiffe://naru.test/server/s1", "spiffe://naru.test/admin/root"}).Draw(t, "wish"))},
				DNSNames: []string{rapid.SampledFrom([]string{"server", "*", "localhost"}).Draw(t, "name")},
			}
			request.Subject.CommonName = "root"
			csr := must(x509.CreateCertificateRequest(nil, request, key))
			next, err := renewal(f, chain, csr, now)
			if err != nil {
				t.Fatal(err)
			}
			peer, err := pki.Verify(next, f.rootCert(), now, pki.RoleAgent)
			if err != nil || peer.ID != id {
				t.Fatalf("became %+v, %v", peer, err)
			}
			leaf := must(x509.ParseCertificate(next[0]))
			if len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 || leaf.Subject.CommonName != "a1" {
				t.Fatalf("took names from the request: %v %v", leaf.Subject, leaf.DNSNames)
			}
			if !leaf.PublicKey.(*ecdsa.PublicKey).Equal(key.Public()) {
				t.Fatal("did not take the request's key")
			}
			chain = next
		}
	})
}

func TestARequestProvesItsKey(t *testing.T) {
	h := must(pki.LoadOrCreate(t.TempDir(), "link"))
	csr := must(h.CSR())
	if key, err := pki.KeyOfCSR(csr); err != nil || pki.Fingerprint(key) != h.Fingerprint() {
		t.Errorf("got %v, %v", key, err)
	}
	forged := append([]byte(nil), csr...)
	forged[len(forged)-1] ^= 1
	for name, bad := range map[string][]byte{"a broken signature": forged, "nothing": nil, "too much": make([]byte, 9000)} {
		if _, err := pki.KeyOfCSR(bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
