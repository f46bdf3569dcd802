package zoneagent

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/pki"
)

func TestTheFingerprintThatAnAdministratorComparesIsThatOfTheLinksKeyAndStays(t *testing.T) {
	c := newZone(t).config(1, "")
	first := must(Fingerprint(c, silent))
	if again := must(Fingerprint(c, silent)); again != first || first != must(openIdentity(c, silent)).Link.Fingerprint() {
		t.Errorf("%s, then %s", first, again)
	}
}

func TestWhoCannotJoinIsToldWhy(t *testing.T) {
	z := newZone(t)
	token := must(pki.NewJoinToken("sha256:" + strings.Repeat("0", 64)))
	for about, c := range map[string]struct {
		config *Config
		token  string
		says   string
	}{
		"with no token":            {z.config(1, ""), "rubbish", "token"},
		"an agent that has joined": {z.join(z.config(2, "")), token.String(), "has joined already"},
	} {
		if _, err := Join(t.Context(), c.config, silent, c.token, func(string) { t.Errorf("%s: it asked", about) }); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", about, err)
		}
	}
}

func TestWhatIsTheZonesIsNotToBeHadBeforeTheAgentIsInIt(t *testing.T) {
	z := newZone(t)
	c := z.join(z.config(1, ""))
	_, _, ca := CA(c, silent)
	for about, err := range map[string]error{
		"ca": ca, "replace": ReplaceCA(c, silent, time.Hour, time.Hour), "issue": Issue(c, silent, "kvm-1", "192.0.2.7", t.TempDir()),
	} {
		if err == nil || !strings.Contains(err.Error(), "join first") {
			t.Errorf("%s: %v", about, err)
		}
	}
}

// founded is the configuration of a first agent that has founded its zone.
func founded(z *zone) *Config {
	z.Helper()
	c := z.join(z.config(1, ""))
	if err := must(openIdentity(c, silent)).Found(); err != nil {
		z.Fatal(err)
	}
	return c
}

func certificates(t *testing.T, text []byte) (out []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		out = append(out, must(x509.ParseCertificate(block.Bytes)))
	}
	return out
}

func TestClientsOfTheEdgeAreGivenTheZonesAuthorityAndSoonTheNextOneToo(t *testing.T) {
	c := founded(newZone(t))
	text, pin, err := CA(c, silent)
	if err != nil {
		t.Fatal(err)
	}
	roots := certificates(t, text)
	if len(roots) != 1 || pki.Pin(roots[0]) != pin {
		t.Fatalf("%d authorities, pin %s", len(roots), pin)
	}
	if err := ReplaceCA(c, silent, time.Hour, time.Hour); err != nil {
		t.Fatal(err)
	}
	text, same, err := CA(c, silent)
	if both := certificates(t, text); err != nil || len(both) != 2 || same != pin || !both[0].Equal(roots[0]) {
		t.Errorf("while the next one waits: %d authorities, pin %s, %v", len(both), same, err)
	}
}

func TestAHostsCertificateIsForItsAddressAndOfTheZone(t *testing.T) {
	c := founded(newZone(t))
	if err := Issue(c, silent, "kvm-1", "kvm-1.example", t.TempDir()); err == nil || !strings.Contains(err.Error(), `"kvm-1.example" is not an IP address`) {
		t.Errorf("a name for an address: %v", err)
	}
	dir := t.TempDir()
	if err := Issue(c, silent, "kvm-1", "192.0.2.7", dir); err != nil {
		t.Fatal(err)
	}
	text, _, _ := CA(c, silent)
	if !bytes.Equal(must(os.ReadFile(filepath.Join(dir, "cacert.pem"))), text) {
		t.Error("cacert.pem is not the zone's authority")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	leaf := certificates(t, must(os.ReadFile(filepath.Join(dir, "servercert.pem"))))[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "192.0.2.7"}); err != nil {
		t.Error(err)
	}
}

func TestATokenIsReadFromItsFileWithoutTheLinesEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := ReadToken(file); err != nil || token != "secret" {
		t.Errorf("%q, %v", token, err)
	}
	if _, err := ReadToken(file + "s"); err == nil || !strings.Contains(err.Error(), file+"s") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestAnAgentThatHasNotJoinedOrFindsNobodySaysSo(t *testing.T) {
	z := newZone(t)
	if _, err := New(t.Context(), z.config(1, ""), silent); err == nil || !strings.Contains(err.Error(), "naru-zoneagent join") {
		t.Errorf("not joined: %v", err)
	}
	c := z.join(z.config(2, "peers: [\""+z.net+".9:7445\"]\nzone_pin: sha256:"+strings.Repeat("0", 64)+"\n"))
	if _, err := New(t.Context(), c, silent); err == nil || !strings.Contains(err.Error(), z.net+".9:7445") {
		t.Errorf("nobody at its peers: %v", err)
	}
}
