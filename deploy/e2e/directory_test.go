package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// directory is OpenLDAP in the control network, in which yoon is in the group askers.
type directory struct {
	dir, url string
	in       string // its network namespace
}

const (
	yoons      = "yoon's own password"
	bindSecret = "heron in the reeds"
)

var entries = `dn: dc=corp
objectClass: dcObject
objectClass: organization
o: corp
dc: corp

dn: cn=search,dc=corp
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: search
userPassword: ` + bindSecret + `

dn: uid=yoon,dc=corp
objectClass: inetOrgPerson
uid: yoon
cn: Yoon
sn: Yoon
userPassword: ` + yoons + `
employeeType: active

dn: cn=askers,dc=corp
objectClass: groupOfNames
cn: askers
member: uid=yoon,dc=corp
`

// newDirectory starts one at the desk of the control network, with a certificate of the internet zone's CA, and ends it with the test.
func (s *standing) newDirectory(t *testing.T) *directory {
	t.Helper()
	const address = "10.90.0.200"
	d := &directory{dir: t.TempDir(), url: "ldaps://" + address, in: named(t, s.namespaces(t), "desk-control").Path}
	s.at(t, "agent-internet", "naru-zoneagent", "issue", "--host", "ldap", "--address", address, "--out", d.dir)
	// A copy, since Debian ties the program in its place to folders of its own (AppArmor).
	program := filepath.Join(d.dir, "slapd")
	installed, err := os.ReadFile("/usr/sbin/slapd")
	if err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile DIR/servercert.pem
TLSCertificateKeyFile DIR/serverkey.pem
TLSCACertificateFile DIR/cacert.pem
database mdb
suffix dc=corp
rootdn cn=root,dc=corp
rootpw root
directory DIR/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=cn=search,dc=corp read by * none
`, "DIR", d.dir)
	for name, text := range map[string]string{"slapd": string(installed), "slapd.conf": config, "entries.ldif": entries} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(d.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, exec.CommandContext(t.Context(), program, "-T", "add", "-f", filepath.Join(d.dir, "slapd.conf"), "-l", filepath.Join(d.dir, "entries.ldif")))
	slapd := d.command(context.Background(), program, "-d", "0", "-f", filepath.Join(d.dir, "slapd.conf"), "-h", d.url)
	slapd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := slapd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = slapd.Process.Kill()
		_ = slapd.Wait()
	})
	s.until(t, "the directory listens", func(ctx context.Context) (bool, error) {
		err := d.command(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+address+"/636").Run()
		return err == nil, nil
	})
	return d
}

// command is one where the directory is.
func (d *directory) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + d.in, "--", name}, args...)...)
}

// forget has it say that yoon has left.
func (d *directory) forget(t *testing.T) {
	t.Helper()
	cmd := d.command(t.Context(), "ldapmodify", "-x", "-H", d.url, "-D", "cn=root,dc=corp", "-w", "root")
	cmd.Env = append(os.Environ(), "LDAPTLS_CACERT="+filepath.Join(d.dir, "cacert.pem"))
	cmd.Stdin = strings.NewReader("dn: uid=yoon,dc=corp\nchangetype: modify\nreplace: employeeType\nemployeeType: left\n")
	run(t, cmd)
}

// byDirectory: somebody whom a directory knows logs in at a zone's edge and in the control network, asks for a VM, and is out in both, and
// can do nothing any more, once the directory says that they have left.
func byDirectory(t *testing.T, s *standing) {
	needs(t, "slapd", "ldapmodify", "nsenter")
	d := s.newDirectory(t)
	ca, err := os.ReadFile(filepath.Join(d.dir, "cacert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "corp.yaml")
	corp := fmt.Sprintf(`ldap:
  urls: [%q]
  ca: |
    %s
  bind_dn: cn=search,dc=corp
  user_base: dc=corp
  user_filter: "(&(objectClass=inetOrgPerson)(employeeType=active))"
  group_base: dc=corp
create_users: true
group_mappings:
- {provider_group: "cn=askers,dc=corp", group: askers}
`, d.url, strings.ReplaceAll(strings.TrimSpace(string(ca)), "\n", "\n    "))
	if err := os.WriteFile(file, []byte(corp), 0o600); err != nil {
		t.Fatal(err)
	}
	s.naru(t, "control", "group", "create", "askers")
	s.naru(t, "control", "role-binding", "create", "user", "--group", "askers", "--project", "web")
	s.naru(t, "control", "identity-provider", "create", "corp", "--file", file)
	secret := s.command(t.Context(), "control", "identity-provider", "secret", "corp")
	secret.Stdin = strings.NewReader(bindSecret + "\n")
	run(t, secret)
	s.askEverySecond(t)

	// In the control network a person has what the administrator has, but for the certificate.
	config, err := os.ReadFile(s.path("cli", "control.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config = regexp.MustCompile("(?m)^(certificate|key)_file:.*\n").ReplaceAll(config, nil)
	if err := os.WriteFile(s.path("cli", "centre.yaml"), append(config, "project: web\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	as := func(network string, args ...string) *exec.Cmd {
		cmd := s.command(t.Context(), network, args...)
		cmd.Env = append(cmd.Env, "XDG_STATE_HOME="+home)
		cmd.Stdin = strings.NewReader(yoons + "\n")
		return cmd
	}
	for network, who := range map[string]string{"internet": "user yoon, at zone internet\n", "centre": "user yoon\n"} {
		// In the state a zone is online until it is written down that the server which held its session is gone.
		s.until(t, "a login in "+network, func(context.Context) (bool, error) {
			out, err := as(network, "login", "--provider", "corp", "yoon").CombinedOutput()
			if err != nil && !strings.Contains(string(out), "no session with the control plane") {
				t.Fatalf("naru login: %v\n%s", err, out)
			}
			return err == nil, nil
		})
		if told := run(t, as(network, "whoami")); told != who {
			t.Errorf("whoami says %q", told)
		}
	}
	asked := strings.TrimSpace(run(t, as("internet", "request", "create", "--offering", "web-server", "--zone", "business", "--cluster", "test", "--name", "yoon-1",
		"--field", "service_name=minwon", "--reason", "it is needed", "-o", "name")))
	if told := run(t, as("centre", "request", "list", "--mine", "-o", "name")); strings.TrimSpace(told) != asked {
		t.Errorf("in the centre what was asked for at the edge, %s, is %q", asked, told)
	}

	d.forget(t)
	s.until(t, "yoon's sessions have ended", func(ctx context.Context) (bool, error) {
		r, err := s.admin.Sessions.ListSessions(ctx, &apiv1.ListSessionsRequest{User: "yoon"})
		return err == nil && len(r.GetSessions()) == 0, err
	})
	for _, network := range []string{"internet", "centre"} {
		if told, err := as(network, "request", "show", asked).CombinedOutput(); err == nil {
			t.Errorf("who has left still reads: %s", told)
		}
		if told, err := as(network, "login", "--provider", "corp", "yoon").CombinedOutput(); err == nil {
			t.Errorf("who has left gets in: %s", told)
		}
	}
	if told := s.naru(t, "control", "group", "members", "askers"); strings.Contains(told, "yoon") {
		t.Errorf("who has left is in the group that the directory gave: %s", told)
	}
	s.keepsQuiet(t, yoons, bindSecret)
}

// askEverySecond has the server ask directories more often than they are asked usually.
func (s *standing) askEverySecond(t *testing.T) {
	t.Helper()
	process := s.leader(t)
	for _, p := range s.status(t).Processes {
		if strings.HasPrefix(p.Name, "controlplane") {
			process = p.Name
		}
	}
	path := s.path("config", process+".yaml")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(config, "identity_providers: {ask_every: 1s}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.dev(t, "kill", process)
	s.dev(t, "start", process)
	s.leader(t)
	s.zone(t, "internet", "is online again", func(z *apiv1.Zone) bool { return z.GetState() == apiv1.Zone_ONLINE })
}
