package cli

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	"github.com/naru-project/naru/pkg/problem"
)

// indent writes a PEM into YAML.
func indent(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") }

// heed runs a command line and gives each line that it says to people to see, as it says it.
func (d *desk) heed(line string, see func(said string)) result {
	d.Helper()
	r, w := io.Pipe()
	var out, errOut bytes.Buffer
	came := make(chan int, 1)
	go func() {
		code := Run(d.Context(), strings.Fields(line), strings.NewReader(""), &out, io.MultiWriter(&errOut, w))
		w.Close()
		came <- code
	}()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		see(lines.Text())
	}
	code := <-came
	return result{code, out.String(), errOut.String()}
}

// administers runs a command line as the administrator, whoever is logged in.
func (d *desk) administers(line string) string {
	d.Helper()
	if err := os.Setenv("NARU_TOKEN", "admin"); err != nil {
		d.Fatal(err)
	}
	defer os.Setenv("NARU_TOKEN", "")
	return d.must(line + " --context admin")
}

func TestSomebodyLogsInThroughAProviderWithABrowserHereOrElsewhere(t *testing.T) {
	d, _ := newDoor(t)
	dex := providertest.NewDex(t, providertest.NewCA(t), 600)
	t.Setenv("BROWSER", "no-such-browser")
	file := filepath.Join(d.folder, "corp.yaml")
	d.write("../corp.yaml", "oidc:\n  issuer: "+dex.Issuer+"\n  client_id: naru\n  scopes: [profile, email, groups]\n  login_claim: email\n  ca: |\n    "+indent(dex.Provider().GetOidc().GetCa())+
		"\ncreate_users: true\nsession_minutes: 60\n")
	d.must("identity-provider create corp --context admin --file " + file)
	if r := naru(t.Context(), "identity-provider secret corp --context admin", providertest.Secret+"\n"); r.code != 0 || strings.Contains(r.err+r.out, providertest.Secret) {
		t.Fatalf("secret: %+v", r)
	}
	if got := d.must("identity-provider test corp --context admin"); !strings.Contains(got, dex.Issuer) || !strings.Contains(got, "without a browser") {
		t.Errorf("test says %q", got)
	}
	if got := d.must("identity-provider show corp --context admin -o yaml"); !strings.Contains(got, "session_minutes: 60") || strings.Contains(got, "set_by") {
		t.Errorf("show says %q", got)
	}
	// dex calls kim by the mail, which is no name here; the refusal says how they are linked.
	visit := func(mail string) func(string) {
		return func(said string) {
			if !strings.HasPrefix(said, dex.Issuer) {
				return
			}
			away := dex.Visit(said, mail, providertest.Password)
			forged := *away
			forged.RawQuery = "code=x&state=guessed"
			for _, u := range []struct {
				url  string
				want int
			}{{forged.String(), http.StatusBadRequest}, {away.String(), http.StatusOK}} {
				r, err := http.Get(u.url)
				if err != nil {
					t.Errorf("the way back: %v", err)
					continue
				}
				r.Body.Close()
				if r.StatusCode != u.want {
					t.Errorf("%s answers %d", u.url, r.StatusCode)
				}
			}
		}
	}
	r := d.heed("login --provider corp", visit("kim@corp.example"))
	_, rest, _ := strings.Cut(r.err, "naru identity-provider link corp ")
	subject, _, found := strings.Cut(rest, " USER")
	if r.code != problem.ExitNotAllowed || !found {
		t.Fatalf("login of who is nobody here: %+v", r)
	}
	d.administers("identity-provider link corp " + subject + " kim")
	if r := d.heed("login --provider corp", visit("kim@corp.example")); r.code != 0 || !strings.Contains(r.err, "You are logged in as kim in the control network until") {
		t.Fatalf("login: %+v", r)
	}
	if got := d.must("whoami"); got != "user kim\n" {
		t.Errorf("whoami says %q", got)
	}
	if got := d.administers("identity-provider identities"); !strings.Contains(got, subject) || !strings.Contains(got, "kim@corp.example") {
		t.Errorf("identities says %q", got)
	}
	if r := d.types("passwd", own, another, another); r.code == 0 || !strings.Contains(r.err, "through identity provider corp") {
		t.Errorf("passwd: %+v", r)
	}
	d.must("logout")
	r = d.heed("login --provider corp --device", func(said string) {
		if _, rest, ok := strings.Cut(said, "Go to "); ok {
			page, _, _ := strings.Cut(rest, " ")
			dex.Type(page, "kim@corp.example")
		}
	})
	if r.code != 0 || !strings.Contains(r.err, "You are logged in as kim") {
		t.Errorf("login on another machine: %+v", r)
	}
	if r := d.heed("session step-up", visit("kim@corp.example")); r.code != 0 && !strings.Contains(r.err, "have just shown who they are") {
		t.Errorf("step-up: %+v", r)
	}
	for line, says := range map[string]string{
		"login --provider other": "It is corp", "login kim --provider corp": "says who you are", "login kim --device": "goes with a browser",
	} {
		if r := d.naru(line); r.code == 0 || !strings.Contains(r.err, says) {
			t.Errorf("naru %s: %+v", line, r)
		}
	}
	d.administers("identity-provider disable corp")
	if r := d.naru("whoami"); r.code == 0 {
		t.Errorf("through one that is disabled: %+v", r)
	}
}

func TestSomebodyLogsInWithADirectorysPasswordOnTheCommandLine(t *testing.T) {
	d, _ := newDoor(t)
	ca := providertest.NewCA(t)
	slapd := providertest.NewSlapd(t, ca)
	d.must("group create operators --context admin")
	d.write("../ldap.yaml", "ldap:\n  urls: ['"+slapd.TLS+"']\n  bind_dn: cn=search,dc=corp\n  user_base: ou=people,dc=corp\n  group_base: ou=groups,dc=corp\n  ca: |\n    "+indent(ca.PEM)+
		"\ncreate_users: true\ngroup_mappings:\n- {provider_group: 'cn=admins,ou=groups,dc=corp', group: operators}\n")
	d.must("identity-provider create ldap --context admin --file " + filepath.Join(d.folder, "ldap.yaml"))
	if r := d.naru("identity-provider test ldap --context admin"); r.code == 0 || !strings.Contains(r.err, "naru identity-provider secret") {
		t.Errorf("test without a secret: %+v", r)
	}
	if r := naru(t.Context(), "identity-provider secret ldap --context admin", providertest.Secret+"\n"); r.code != 0 {
		t.Fatalf("secret: %+v", r)
	}
	if got := d.must("identity-provider test ldap --login lee --context admin"); !strings.Contains(got, "cn=admins,ou=groups,dc=corp") || !strings.Contains(got, "operators") {
		t.Errorf("test says %q", got)
	}
	if r := d.types("login --provider ldap", "lee", "lee's own password"); r.code != 0 || !strings.HasPrefix(r.err, "User: Password: ") || !strings.Contains(r.err, "You are logged in as lee") || strings.Contains(r.err, "own password") {
		t.Fatalf("login: %+v", r)
	}
	if r := d.types("session step-up", "lee's own password"); r.code != 0 {
		t.Errorf("step-up: %+v", r)
	}
	if r := d.types("login lee --provider ldap", "wrong"); r.code != problem.ExitNotAllowed {
		t.Errorf("with a wrong password: %+v", r)
	}
	if got := d.administers("user list"); !strings.Contains(got, "by ldap") {
		t.Errorf("user list says %q", got)
	}
	if got := d.administers("group members operators -o wide"); !strings.Contains(got, "ldap") {
		t.Errorf("group members says %q", got)
	}
}
