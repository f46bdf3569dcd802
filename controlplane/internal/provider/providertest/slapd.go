package providertest

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Secret is the password with which the directory is searched.
const Secret = "search me"

// Slapd is OpenLDAP with a few people: kim and lee, who have one mail address, in ou=people,dc=corp; ops, with kim in it, in
// ou=groups,dc=corp.
type Slapd struct {
	t       testing.TB
	Plain   string // ldap://…, for StartTLS
	TLS     string // ldaps://…
	dir, ca string
	program string
	running *exec.Cmd
}

const people = `dn: dc=corp
objectClass: dcObject
objectClass: organization
o: corp
dc: corp

dn: ou=people,dc=corp
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=corp
objectClass: organizationalUnit
ou: groups

dn: cn=search,dc=corp
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: search
userPassword: ` + Secret + `

dn: uid=kim,ou=people,dc=corp
objectClass: inetOrgPerson
uid: kim
cn:: 6rmA66+87IiY
sn: Kim
mail: shared@corp.example
userPassword: kim's own password
employeeType: active

dn: uid=lee,ou=people,dc=corp
objectClass: inetOrgPerson
uid: lee
cn: Lee
sn: Lee
mail: shared@corp.example
userPassword: lee's own password
employeeType: active

dn: uid=former,ou=people,dc=corp
objectClass: inetOrgPerson
uid: former
cn: Former
sn: Former
userPassword: former's own password
employeeType: left

dn: uid=stranger,ou=people,dc=corp
objectClass: referral
objectClass: extensibleObject
uid: stranger
ref: ldap://127.0.0.1:1/uid=stranger,dc=elsewhere

dn: cn=ops,ou=groups,dc=corp
objectClass: groupOfNames
cn: ops
member: uid=kim,ou=people,dc=corp

dn: cn=admins,ou=groups,dc=corp
objectClass: groupOfNames
cn: admins
member: uid=lee,ou=people,dc=corp
`

// NewSlapd starts one, and ends it with the test. Without slapd the test is skipped.
func NewSlapd(t testing.TB, ca *CA) *Slapd {
	t.Helper()
	const installed = "/usr/sbin/slapd"
	if _, err := os.Stat(installed); err != nil {
		t.Skip("slapd is not installed: make setup")
	}
	s := &Slapd{t: t, dir: t.TempDir()}
	certificate, key, caFile := ca.issue(t, s.dir)
	s.ca = caFile
	// A copy, since Debian ties the program in its place to folders of its own (AppArmor).
	s.program = filepath.Join(s.dir, "slapd")
	text, err := os.ReadFile(installed)
	if err == nil {
		err = os.WriteFile(s.program, text, 0o700)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(s.dir, "db"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.write("slapd.conf", `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile `+s.dir+`/pid
TLSCertificateFile `+certificate+`
TLSCertificateKeyFile `+key+`
TLSCACertificateFile `+caFile+`
security simple_bind=128
database mdb
suffix dc=corp
rootdn cn=root,dc=corp
rootpw root
directory `+s.dir+`/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=cn=search,dc=corp read by * none
`)
	s.write("people.ldif", people)
	out, err := exec.Command(s.program, "-T", "add", "-f", filepath.Join(s.dir, "slapd.conf"), "-l", filepath.Join(s.dir, "people.ldif")).CombinedOutput()
	if err != nil {
		t.Fatalf("slapd -T add: %v\n%s", err, out)
	}
	s.Plain, s.TLS = "ldap://127.0.0.1:"+freePort(t), "ldaps://127.0.0.1:"+freePort(t)
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

func (s *Slapd) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Start lets it answer, and returns when it does.
func (s *Slapd) Start() {
	s.t.Helper()
	s.running = exec.Command(s.program, "-d", "0", "-f", filepath.Join(s.dir, "slapd.conf"), "-h", s.Plain+" "+s.TLS)
	s.running.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.running.Start(); err != nil {
		s.t.Fatal(err)
	}
	await(s.t, strings.TrimPrefix(s.TLS, "ldaps://"))
}

// Stop ends it.
func (s *Slapd) Stop() {
	if s.running == nil {
		return
	}
	_ = s.running.Process.Kill()
	_ = s.running.Wait()
	s.running = nil
}

// Change changes what is in it, as LDIF says.
func (s *Slapd) Change(ldif string) {
	s.t.Helper()
	cmd := exec.Command("ldapmodify", "-x", "-H", s.TLS, "-D", "cn=root,dc=corp", "-w", "root")
	cmd.Env = append(os.Environ(), "LDAPTLS_CACERT="+s.ca)
	cmd.Stdin = strings.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("ldapmodify: %v\n%s", err, out)
	}
}

// Provider is a provider for it, named corp; its secret is Secret.
func (s *Slapd) Provider(ca *CA, urls ...string) *apiv1.IdentityProvider {
	if urls == nil {
		urls = []string{s.TLS}
	}
	return &apiv1.IdentityProvider{Name: "corp", Ldap: &apiv1.Directory{
		Urls: urls, Ca: ca.PEM, BindDn: "cn=search,dc=corp", UserBase: "ou=people,dc=corp", UserFilter: "(&(objectClass=inetOrgPerson)(employeeType=active))",
		GroupBase: "ou=groups,dc=corp",
	}}
}

// await returns when something listens.
func await(t testing.TB, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nothing listens at %s: %v", address, err)
		case <-tick.C:
		}
	}
}

// Hanging listens and never answers.
func Hanging(t testing.TB) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
	}()
	return l.Addr().String()
}

// Folder is the root of the repository.
func folder(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(string(bytes.TrimSpace(out)))
}
