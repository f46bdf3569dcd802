package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/naru-project/naru/deploy/dev"
)

// somebody is a user who is not root, with the built programs and a folder of their own.
type somebody struct {
	home string
	uid  int
}

const nobody = 65534

func newSomebody(t *testing.T) *somebody {
	t.Helper()
	s := &somebody{home: t.TempDir(), uid: os.Geteuid()}
	if s.uid == 0 {
		s.uid = nobody
		for dir := s.home; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(os.Mkdir(s.path("bin"), 0o755), os.Mkdir(s.path("own"), 0o755), os.Chown(s.path("own"), s.uid, -1)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"naru", "naru-dev", "naru-controlplane", "naru-broker", "naru-zoneagent"} {
		b, err := os.ReadFile(program(name))
		if err != nil {
			t.Fatalf("%v: build first, with make build", err)
		}
		if err := os.WriteFile(s.path("bin", name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *somebody) path(elem ...string) string {
	return filepath.Join(append([]string{s.home}, elem...)...)
}

// does is a command of this user's.
func (s *somebody) does(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.path("own")
	cmd.Env = append(os.Environ(), "HOME="+s.path("own"), "XDG_CACHE_HOME=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(s.uid), Gid: nobody}
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd
}

// dev is naru-dev on a site of this user's.
func (s *somebody) dev(ctx context.Context, site string, args ...string) *exec.Cmd {
	return s.does(ctx, s.path("bin", "naru-dev"), append([]string{"--state", s.path("own", site)}, args...)...)
}

func TestASiteThatCannotBeIsRefusedWithTheWayOut(t *testing.T) {
	s := newSomebody(t)
	refused := func(what string, cmd *exec.Cmd, words ...string) {
		t.Helper()
		t.Run(what, func(t *testing.T) { answer(t, cmd, ended, words...) })
	}
	refused("an unknown mode", s.dev(t.Context(), "a", "run", "--mode", "chroot"), `no mode "chroot"`, "namespaces, user-namespaces, loopback")
	refused("namespaces without root", s.dev(t.Context(), "a", "run", "--mode", "namespaces"), "--mode namespaces takes root", "sudo", "leave --mode out")
	bare := s.dev(t.Context(), "a", "run", "--mode", "loopback")
	bare.Env = append(bare.Env, "PATH=/nowhere")
	refused("missing tools", bare, "mode loopback needs ssh-keygen", "make setup")
	bare = s.dev(t.Context(), "a", "run", "--mode", "user-namespaces")
	bare.Env = append(bare.Env, "PATH=/nowhere")
	refused("missing tools for namespaces", bare, "needs ip, nsenter, unshare, mount, ssh-keygen", "make setup")
	if err := errors.Join(os.Mkdir(s.path("alone"), 0o755), os.Link(s.path("bin", "naru-dev"), s.path("alone", "naru-dev"))); err != nil {
		t.Fatal(err)
	}
	refused("programs that are not built", s.does(t.Context(), s.path("alone", "naru-dev"), "run", "--mode", "loopback", "--state", s.path("own", "a")),
		"naru is not beside naru-dev in "+s.path("alone"), "make build")
	if entries, err := os.ReadDir(s.path("own")); err != nil || len(entries) != 0 {
		t.Errorf("what was refused left %v, %v", entries, err)
	}
	if err := errors.Join(os.Mkdir(s.path("own", "photos"), 0o755), os.WriteFile(s.path("own", "photos", "cat.jpg"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	refused("a folder of other things", s.dev(t.Context(), "photos", "run", "--mode", "loopback"), "is not a site's folder: it holds cat.jpg", "--state")
	refused("a site that is not up", s.dev(t.Context(), "none", "status"), "no site is up in", "naru-dev run")
	refused("a folder that is no site's", s.dev(t.Context(), "none", "down"), "is no folder of a site")
}

// stands runs a site as this user until the test ends, and returns what it prints of itself. Where naru-dev cannot, told has
// why, and ok is false.
func (s *somebody) stands(t *testing.T, folder string, args ...string) (up site, told string, ok bool) {
	t.Helper()
	cmd := s.dev(context.Background(), folder, append([]string{"run", "--servers", "1", "--without-libvirt"}, args...)...)
	var story bytes.Buffer
	cmd.Stderr = &story
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(out).Decode(&up); err != nil {
		cmd.Wait()
		return up, story.String(), false
	}
	go io.Copy(io.Discard, out)
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("naru-dev: %v\n%s", err, story.String())
		}
	})
	b, err := os.ReadFile(s.path("own", folder, "site.json"))
	if err != nil || !bytes.Contains(b, []byte(up.Mode)) {
		t.Errorf("site.json: %v, %s", err, b)
	}
	return up, story.String(), true
}

func TestAUserWithoutRootHasTheSiteInAUserNamespace(t *testing.T) {
	s := newSomebody(t)
	up, told, ok := s.stands(t, "site", "--mode", "user-namespaces")
	if !ok {
		if !strings.Contains(told, "mode user-namespaces is not to be had here") || !strings.Contains(told, "--mode loopback") {
			t.Errorf("where the kernel lets nobody make user namespaces it has to say so:\n%s", told)
		}
		return
	}
	if up.Mode != dev.UserNamespaces || !up.Walk.OK || up.Walk.Zone != "business" {
		t.Errorf("the site: %+v", up)
	}
	run(t, s.dev(t.Context(), "site", "cut", "business"))
	run(t, s.dev(t.Context(), "site", "heal", "business"))
	if got := run(t, s.dev(t.Context(), "site", "exec", "business", "--", "ip", "-brief", "address")); !strings.Contains(got, "10.90.2.200") || strings.Contains(got, "10.90.1.") {
		t.Errorf("at the business zone's desk:\n%s", got)
	}
}

func TestUserNamespacesThatTheKernelForbidsAreSaidToBe(t *testing.T) {
	s := newSomebody(t)
	in := s.does(t.Context(), "unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces && exec "+
		s.path("bin", "naru-dev")+" run --mode user-namespaces --state "+s.path("own", "site"))
	if err := s.does(t.Context(), "unshare", "--user", "--map-root-user", "true").Run(); err != nil {
		in = s.dev(t.Context(), "site", "run", "--mode", "user-namespaces") // it is forbidden already
	}
	answer(t, in, ended, "mode user-namespaces is not to be had here", "as root", "--mode loopback, which separates nothing")
}

func TestOnLoopbackASiteStandsAndSaysThatNothingIsSeparated(t *testing.T) {
	s := newSomebody(t)
	up, told, ok := s.stands(t, "site", "--mode", "loopback")
	if !ok || up.Mode != dev.Loopback || !up.Walk.OK {
		t.Fatalf("the site: %+v\n%s", up, told)
	}
	if first, _, _ := strings.Cut(told, "\n"); !strings.Contains(first, "NOTHING IS SEPARATED") {
		t.Errorf("its first line: %s", first)
	}
	answer(t, s.dev(t.Context(), "site", "run", "--mode", "loopback"), ended, "a site is up in", "naru-dev down --state")
	answer(t, s.dev(t.Context(), "other", "run", "--mode", "loopback"), ended, "room for one site", "127.90.0.11:8443", "naru-dev down")
	answer(t, s.dev(t.Context(), "site", "cut", "business"), ended, "loopback")
}
