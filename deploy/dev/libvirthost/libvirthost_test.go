//go:build linux

package libvirthost_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/naru-project/naru/deploy/dev/libvirthost"
)

const namespace = "libvirthost-test"

// needs skips a test with its reason, and fails it where nothing may be skipped.
func needs(t *testing.T, there bool, what string) {
	t.Helper()
	if there {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

func run(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	out, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, arguments, err, out)
	}
	return string(out)
}

func config(t *testing.T) libvirthost.Config {
	t.Helper()
	needs(t, os.Geteuid() == 0, "root")
	for _, program := range []string{"libvirtd", "qemu-system-x86_64", "virsh", "ip", "nsenter"} {
		_, err := exec.LookPath(program)
		needs(t, err == nil, program)
	}
	exec.Command("ip", "netns", "del", namespace).Run()
	run(t, "ip", "netns", "add", namespace)
	t.Cleanup(func() { run(t, "ip", "netns", "del", namespace) })
	folder, err := os.MkdirTemp("", "host") // t.TempDir's path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return libvirthost.Config{
		Dir: folder, Name: "kvm-1", UUID: "0b1e0d9a-1111-4000-8000-000000000001",
		NetNS: "/run/netns/" + namespace, Bridge: "guests", Bound: true,
	}
}

func start(t *testing.T, c libvirthost.Config) *libvirthost.Host {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	h, err := libvirthost.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %v", time.Since(began))
	t.Cleanup(func() {
		if err := h.Kill(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func hostname(t *testing.T, h *libvirthost.Host) string {
	t.Helper()
	return strings.TrimSpace(run(t, "virsh", "-q", "-c", h.Endpoint(), "hostname"))
}

func TestAHostIsItsOwnMachine(t *testing.T) {
	h := start(t, config(t))
	if got := hostname(t, h); got != "kvm-1" {
		t.Errorf("it calls itself %q", got)
	}
	out, err := h.Command(t.Context(), "ip", "-o", "link", "show", "type", "bridge").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "guests") {
		t.Errorf("bridge: %s, %v", out, err)
	}
	out, err = h.Command(t.Context(), "ps", "-e", "-o", "comm=").CombinedOutput()
	if err != nil || strings.Contains(string(out), "systemd") || strings.Count(string(out), "\n") > 6 {
		t.Errorf("it sees processes of others: %s, %v", out, err)
	}
	if out, err := h.Command(t.Context(), "test", "-c", "/dev/kvm").CombinedOutput(); err == nil {
		t.Errorf("it sees /dev/kvm: %s", out)
	}
}

func TestAPowerCutEndsEverythingAndTheNextStartIsTheSameHost(t *testing.T) {
	c := config(t)
	h := start(t, c)
	run(t, "virsh", "-q", "-c", h.Endpoint(), "pool-define-as", "kept", "dir", "--target", libvirthost.PoolPath)
	inside := strings.Fields(run(t, "pgrep", "--ns", strconv.Itoa(h.PID()), "--nslist", "pid"))
	if len(inside) < 2 {
		t.Fatalf("only %v run", inside)
	}
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range inside {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s survived", pid)
		}
	}
	h = start(t, c)
	if out := run(t, "virsh", "-q", "-c", h.Endpoint(), "pool-list", "--all", "--name"); !strings.Contains(out, "kept") {
		t.Errorf("after the power cut it knows %q", out)
	}
}

func TestAKilledDaemonComesBackByItself(t *testing.T) {
	h := start(t, config(t))
	if err := h.KillDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if got := hostname(t, h); got != "kvm-1" {
		t.Errorf("it calls itself %q", got)
	}
	select {
	case <-h.Ended():
		t.Error("the host ended with its daemon")
	default:
	}
}

// The test binary starts a host as another process would, says so, and is killed.
func TestABoundHostEndsWithItsStarter(t *testing.T) {
	if folder := os.Getenv("BOUND_HOST"); folder != "" {
		h, err := libvirthost.Start(t.Context(), libvirthost.Config{Dir: folder, Name: "kvm-2", UUID: "0b1e0d9a-1111-4000-8000-000000000002", NetNS: "/run/netns/" + namespace, Bound: true})
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString(strconv.Itoa(h.PID()) + "\n")
		select {}
	}
	c := config(t)
	starter := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	starter.Env = append(os.Environ(), "BOUND_HOST="+c.Dir)
	out, err := starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	ended, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ended)
	if err := starter.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	starter.Wait()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(ended), Events: unix.POLLIN}}, 10_000); n != 1 {
		t.Errorf("the host runs on: %v", err)
	}
}

func TestAStopIsOrderly(t *testing.T) {
	h := start(t, config(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Error("it had to be killed")
	}
	if err := h.Stop(ctx); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
}

func TestWhatIsWrongWithAHostIsSaid(t *testing.T) {
	c := config(t)
	for name, test := range map[string]struct {
		spoil func(*libvirthost.Config)
		word  string
	}{
		"long folder":     {func(c *libvirthost.Config) { c.Dir += strings.Repeat("/folder", 20) }, "shorter"},
		"relative folder": {func(c *libvirthost.Config) { c.Dir = "host" }, "absolute"},
		"no name":         {func(c *libvirthost.Config) { c.Name = "" }, "name"},
		"no namespace":    {func(c *libvirthost.Config) { c.NetNS = "/run/netns/no-such" }, "no-such"},
		"no certificate": {func(c *libvirthost.Config) {
			c.TLS = &libvirthost.TLS{Certificate: "/no/such", Key: "/no/such", Authorities: "/no/such"}
		}, "/no/such"},
	} {
		spoiled := c
		test.spoil(&spoiled)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		h, err := libvirthost.Start(ctx, spoiled)
		cancel()
		if err == nil {
			h.Kill()
		}
		if err == nil || !strings.Contains(err.Error(), test.word) {
			t.Errorf("%s: got %v, want an error that says %q", name, err, test.word)
		}
	}
}
