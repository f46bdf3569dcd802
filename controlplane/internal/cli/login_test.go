package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/sys/unix"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// real believes the administrator's word, and judges everybody else's credentials.
type real struct{ *auth.Authenticator }

func (r real) Authenticate(ctx context.Context, c auth.Credentials) (auth.Principal, error) {
	if c.Authorization == "Bearer admin" {
		return auth.Principal{Kind: auth.Admin, Name: "admin", Actor: "spiffe://naru.test/admin/admin", Expires: time.Now().Add(time.Hour)}, nil
	}
	return r.Authenticator.Authenticate(ctx, c)
}

const (
	own     = "correct horse battery staple"
	another = "wrong donkey fuse staple"
)

// newDoor is a desk at which kim, who has a password for one login, can log in; once is that password.
func newDoor(t *testing.T) (d *desk, once string) {
	t.Helper()
	d = &desk{World: servicetest.New(t), folder: t.TempDir()}
	url, ca := d.ServeWith(real{auth.New(d.Service, func() *x509.Certificate { return nil }, time.Now)})
	bare(t, d.folder)
	t.Setenv("XDG_STATE_HOME", filepath.Join(d.folder, "state"))
	d.write("ca.pem", string(ca))
	d.write("admin.yaml", "server: "+url+"\nca_file: ca.pem\ntoken: admin\n")
	d.write("kim.yaml", "server: "+url+"\nca_file: ca.pem\ntrust_pin: "+d.Pin()+"\n")
	t.Setenv("NARU_CONTEXT", "kim")
	d.must("user create kim --context admin")
	return d, strings.TrimSpace(d.must("user reset-password kim --context admin"))
}

// types runs a command line and answers what it asks, a line each.
func (d *desk) types(line string, answers ...string) result {
	return naru(d.Context(), line, strings.Join(answers, "\n")+"\n")
}

func TestWhoLogsInActsAsThemselvesUntilTheyLogOut(t *testing.T) {
	d, once := newDoor(t)
	if r := d.types("login kim", once, own, another, own, own); r.code != 0 || !strings.Contains(r.err, "The two are not the same.") ||
		!strings.Contains(r.err, "You are logged in as kim in the control network until") {
		t.Fatalf("login: %+v", r)
	}
	if got := d.must("whoami"); got != "user kim\n" {
		t.Errorf("whoami says %q", got)
	}
	kept := 0
	err := filepath.WalkDir(filepath.Join(d.folder, "state"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		kept++
		info, err := e.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		b, _ := os.ReadFile(path)
		if bytes.Contains(b, []byte(own)) || bytes.Contains(b, []byte(once)) {
			t.Errorf("%s has the password in it", path)
		}
		return err
	})
	if err != nil || kept != 2 {
		t.Errorf("%d files are kept (%v)", kept, err)
	}

	if r := d.types("passwd", "not my password", own+"x", own+"x"); r.code == 0 || !strings.Contains(r.err, "the name, the password or the code is wrong") {
		t.Errorf("passwd with a wrong password: %+v", r)
	}
	if r := d.types("passwd", own, "short", "short", another, another); r.code != 0 || !strings.Contains(r.err, "The request is not valid") {
		t.Errorf("passwd: %+v", r)
	}
	d.must("logout")
	if r := d.naru("whoami"); r.code != problem.ExitNotAllowed {
		t.Errorf("after logout: %+v", r)
	}
	if r := d.naru("logout"); r.code != problem.ExitNotAllowed || !strings.Contains(r.err, "you are not logged in at") {
		t.Errorf("logout again: %+v", r)
	}
	if r := d.types("login kim", own); r.code != problem.ExitNotAllowed || strings.Contains(r.err, own) {
		t.Errorf("with the former password: %+v", r)
	}
	if r := d.types("login", "kim", another); r.code != 0 || !strings.HasPrefix(r.err, "User: Password: ") || strings.Contains(r.err+r.out, another) {
		t.Errorf("with the new one, asked for the name: %+v", r)
	}
}

// TestACodeIsAskedForWhereItIsNeeded: not before the password was right, and once.
func TestACodeIsAskedForWhereItIsNeeded(t *testing.T) {
	d, once := newDoor(t)
	if r := d.types("login kim", once, own, own); r.code != 0 {
		t.Fatalf("login: %+v", r)
	}
	secret := d.enrol()
	d.must("logout")
	code, err := totp.GenerateCode(secret, time.Now().Add(30*time.Second)) // the one before has counted
	if err != nil {
		t.Fatal(err)
	}
	if r := d.types("login kim", own, code); r.code != 0 || !strings.HasPrefix(r.err, "Password: Code: You are logged in") || strings.Contains(r.err, code) {
		t.Errorf("%+v", r)
	}
	if r := d.types("login kim", own+"x", code); r.code != problem.ExitNotAllowed || strings.Contains(r.err, "Code: ") {
		t.Errorf("with a wrong password: %+v", r)
	}
}

// enrol gives kim, who is logged in, an authenticator, and returns its secret.
func (d *desk) enrol() string {
	d.Helper()
	check := func(err error) {
		d.Helper()
		if err != nil {
			d.Fatal(err)
		}
	}
	config, err := client.LoadConfig(client.ContextPath("kim"))
	check(err)
	s, err := client.LoadSession(config.Server)
	check(err)
	config.Token = s.Token()
	c, err := client.New(config)
	check(err)
	defer c.Close()
	private, public, err := sealed.NewKey()
	check(err)
	typed, err := c.Seal(d.Context(), s.For(apiv1.UserService_EnrollAuthenticator_FullMethodName), &apiv1.Secrets{Password: own, ReplyKey: public})
	check(err)
	r, err := c.Users.EnrollAuthenticator(d.Context(), &apiv1.EnrollAuthenticatorRequest{Secrets: typed})
	check(err)
	text, err := sealed.OpenReply(private, apiv1.UserService_EnrollAuthenticator_FullMethodName, r.GetSealedUri())
	check(err)
	uri, err := url.Parse(text)
	check(err)
	secret := uri.Query().Get("secret")
	code, err := totp.GenerateCode(secret, time.Now())
	check(err)
	typed, err = c.Seal(d.Context(), s.For(apiv1.UserService_ConfirmAuthenticator_FullMethodName), &apiv1.Secrets{Password: own, Code: code})
	check(err)
	_, err = c.Users.ConfirmAuthenticator(d.Context(), &apiv1.ConfirmAuthenticatorRequest{Secrets: typed})
	check(err)
	return secret
}

// TestNothingIsTypedForWhomTheFederationDoesNotVouch: a pin of another root, a pin that is none, and no pin.
func TestNothingIsTypedForWhomTheFederationDoesNotVouch(t *testing.T) {
	d, once := newDoor(t)
	t.Setenv("NARU_TRUST_PIN", pki.Pin(servicetest.New(t).Root().Certificate))
	if r := d.types("login kim", once); r.code == 0 || !strings.Contains(r.err, "is not shown to be the control plane's") || !strings.Contains(r.err, "is pinned here") {
		t.Errorf("another federation's: %+v", r)
	}
	t.Setenv("NARU_TRUST_PIN", "sha256:00")
	if r := d.types("login kim", once); r.code != problem.ExitUsage || !strings.Contains(r.err, "trust_pin") {
		t.Errorf("no pin at all: %+v", r)
	}
	t.Setenv("NARU_TRUST_PIN", "")
	d.write("kim.yaml", regexp.MustCompile("trust_pin.*").ReplaceAllString(string(d.read("kim.yaml")), ""))
	if r := d.types("login kim", once); r.code == 0 || !strings.Contains(r.err, "trust_pin is not set") {
		t.Errorf("without one: %+v", r)
	}
}

// terminal opens a terminal: what a person sees and types at, and what the program has.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine gives out no terminals: %v", err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = person.Close(), program.Close() })
	return person, program
}

// TestAPasswordIsNotShownWhereItIsTyped logs in at a terminal: the name is shown as it is typed, and no password.
func TestAPasswordIsNotShownWhereItIsTyped(t *testing.T) {
	_, once := newDoor(t)
	person, program := terminal(t)
	screen := make(chan byte, 1<<16)
	go func() {
		defer close(screen)
		b := make([]byte, 1)
		for {
			if _, err := person.Read(b); err != nil {
				return
			}
			screen <- b[0]
		}
	}()
	var out bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- Run(t.Context(), []string{"login"}, program, &out, program) }()

	var seen bytes.Buffer
	late := time.After(time.Minute)
	upTo := func(what string) {
		t.Helper()
		for !strings.HasSuffix(seen.String(), what) {
			select {
			case b := <-screen:
				seen.WriteByte(b)
			case <-late:
				t.Fatalf("%q does not come: %q", what, seen.String())
			}
		}
	}
	hidden := func() bool {
		state, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
		return err == nil && state.Lflag&unix.ECHO == 0
	}
	upTo("User: ")
	if hidden() {
		t.Error("a name is not shown as it is typed")
	}
	io.WriteString(person, "kim\n")
	for _, step := range [][2]string{{"Password: ", once}, {"New password: ", own}, {"The same again: ", own}} {
		upTo(step[0])
		for !hidden() { // the question stands there a moment before the terminal is told
			select {
			case <-late:
				t.Fatalf("what is typed behind %q would be shown", step[0])
			default:
			}
		}
		io.WriteString(person, step[1]+"\n")
	}
	upTo("You are logged in as kim in the control network")
	if got := <-code; got != 0 {
		t.Errorf("exit %d", got)
	}
	if text := seen.String(); !strings.Contains(text, "kim") || strings.Contains(text, once) || strings.Contains(text, own) {
		t.Errorf("the terminal shows %q", text)
	}
	if hidden() {
		t.Error("the terminal is left without an echo")
	}
}
