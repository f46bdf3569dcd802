package providertest

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Dex is dex with the people kim and lee, who have one name, and a client naru, whose secret is Secret.
type Dex struct {
	t       testing.TB
	Issuer  string
	config  string
	ca      *CA
	running *exec.Cmd
	orders  io.WriteCloser
	obeyed  *bufio.Scanner
}

// Password is that of everybody there.
const Password = "their own password there"

type dexPerson struct {
	Mail, Password, Login, Name, ID string
	Groups                          []string
	Unverified                      bool
}

// NewDex starts one, whose ID tokens last so many seconds, and ends it with the test. Where it is not built the test is skipped.
func NewDex(t testing.TB, ca *CA, tokenSeconds int) *Dex {
	t.Helper()
	program := filepath.Join(folder(t), "bin", "tools", "dex")
	if _, err := os.Stat(program); err != nil {
		t.Skip("bin/tools/dex is not built: make bin/tools/dex")
	}
	d := &Dex{t: t, ca: ca}
	dir := t.TempDir()
	certificate, key, _ := ca.issue(t, dir)
	port := freePort(t)
	d.Issuer = "https://127.0.0.1:" + port
	b, err := json.Marshal(map[string]any{
		"Address": "127.0.0.1:" + port, "Issuer": d.Issuer, "Certificate": certificate, "Key": key, "TokenSeconds": tokenSeconds,
		"Client": map[string]any{"id": "naru", "secret": Secret, "public": true, "name": "Naru"},
		"People": []dexPerson{
			{Mail: "kim@corp.example", Password: Password, Login: "kim", Name: "김민수", ID: "kim-1", Groups: []string{"ops"}},
			{Mail: "lee@corp.example", Password: Password, Login: "lee", Name: "Lee", ID: "lee-1", Groups: []string{"admins"}, Unverified: true},
			{Mail: "other@corp.example", Password: Password, Login: "kim", Name: "Another Kim", ID: "kim-2"},
			{Mail: "odd@corp.example", Password: Password, Login: "Odd Name!", Name: "Odd", ID: "odd-1"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.config = filepath.Join(dir, "dex.json")
	if err := os.WriteFile(d.config, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d.running = exec.Command(program, d.config)
	d.running.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := d.running.StdoutPipe()
	if err == nil {
		d.orders, err = d.running.StdinPipe()
	}
	if err == nil {
		err = d.running.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	d.obeyed = bufio.NewScanner(said)
	t.Cleanup(d.Stop)
	if !d.obeyed.Scan() || d.obeyed.Text() != "listening" {
		t.Fatalf("dex says %q", d.obeyed.Text())
	}
	return d
}

// Stop ends it.
func (d *Dex) Stop() {
	if d.running != nil {
		_ = d.running.Process.Kill()
		_ = d.running.Wait()
		d.running = nil
	}
}

// Order has it do something: forget MAIL, or groups MAIL GROUP….
func (d *Dex) Order(line string) {
	d.t.Helper()
	if _, err := io.WriteString(d.orders, line+"\n"); err != nil {
		d.t.Fatal(err)
	}
	if !d.obeyed.Scan() || d.obeyed.Text() != "done" {
		d.t.Fatalf("dex does not %s: %q", line, d.obeyed.Text())
	}
}

// Provider is a provider for it, named corp.
func (d *Dex) Provider() *apiv1.IdentityProvider {
	return &apiv1.IdentityProvider{Name: "corp", Oidc: &apiv1.OpenIDConnect{
		Issuer: d.Issuer, Ca: d.ca.PEM, ClientId: "naru", Scopes: []string{"profile", "email", "groups", "offline_access"}, RedirectUris: []string{"https://portal.example.org/back"},
	}}
}

// Browser is somebody's browser, which trusts the CA and keeps cookies.
func (d *Dex) Browser() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(d.ca.PEM))
	jar, err := cookiejar.New(nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

var form = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"`)

// Visit goes to a page of dex's and logs in there as a person does, until it is sent away; it returns where to.
func (d *Dex) Visit(page, mail, password string) *url.URL {
	d.t.Helper()
	var away *url.URL
	b := d.Browser()
	own, err := url.Parse(d.Issuer)
	if err != nil {
		d.t.Fatal(err)
	}
	b.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host != own.Host {
			away = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}
	d.fill(b, page, url.Values{"login": {mail}, "password": {password}})
	return away
}

// Type goes where a device's code is typed, and logs in there.
func (d *Dex) Type(page, mail string) {
	d.t.Helper()
	b := d.Browser()
	last := d.fill(b, page, nil) // the code stands in the address
	d.fillForm(b, last, url.Values{"login": {mail}, "password": {Password}})
}

type shown struct {
	at   *url.URL
	text string
}

// fill opens a page, and sends its form.
func (d *Dex) fill(b *http.Client, page string, values url.Values) shown {
	d.t.Helper()
	r, err := b.Get(page)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.fillForm(b, d.read(r), values)
}

func (d *Dex) fillForm(b *http.Client, s shown, values url.Values) shown {
	d.t.Helper()
	found := form.FindStringSubmatch(s.text)
	if found == nil {
		d.t.Fatalf("%s has no form:\n%s", s.at, s.text)
	}
	to, err := s.at.Parse(html.UnescapeString(found[1]))
	if err != nil {
		d.t.Fatal(err)
	}
	send := url.Values{}
	for _, f := range inputs.FindAllStringSubmatch(s.text, -1) {
		if name, value := attribute(f[0], "name"), attribute(f[0], "value"); name != "" {
			send.Set(name, value)
		}
	}
	for name, value := range values {
		send[name] = value
	}
	r, err := b.PostForm(to.String(), send)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.read(r)
}

var inputs = regexp.MustCompile(`(?s)<input[^>]*>`)

func attribute(tag, name string) string {
	_, rest, ok := strings.Cut(tag, " "+name+`="`)
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, `"`)
	return html.UnescapeString(value)
}

func (d *Dex) read(r *http.Response) shown {
	d.t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return shown{r.Request.URL, string(b)}
}
