package libvirt_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/hypervisortest"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/libvirt"
)

// patience is what an emulated guest may take on a machine that is busy with other things.
const patience = 2 * time.Minute

// Each transport has a host of its own, and their guests are waited for together.
func TestConformance(t *testing.T) {
	socket, tls := newLab(t), newLabAt(t, 2)
	for name, c := range map[string]struct {
		*lab
		endpoint string
	}{
		"over a unix socket": {socket, socket.host.Endpoint()},
		"over TLS":           {tls, tls.tlsEndpoint()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hypervisortest.Run(t, func(t *testing.T) hypervisortest.Bench {
				driver := &lossy{Driver: libvirt.New(c.tls)}
				return hypervisortest.Bench{
					Driver: driver, Host: c.noun(c.endpoint), Image: c.image(), ImageBits: c.bits,
					Machine: c.machine, LoseReply: driver.lose, Patience: patience,
					Write: c.write, Read: c.read,
				}
			})
			c.bare(t)
		})
	}
}

// bare finds what is left on a host after its VMs are gone.
func (l *lab) bare(t *testing.T) {
	t.Helper()
	if left := strings.Fields(run(t, "virsh", "-q", "-c", l.host.Endpoint(), "list", "--all", "--name")); len(left) != 0 {
		t.Errorf("domains are left: %v", left)
	}
	for _, folder := range []string{"disks", "serial"} {
		entries, err := os.ReadDir(filepath.Join(l.config.Dir, "pool", folder))
		ok(t, err)
		for _, entry := range entries {
			if filepath.Ext(entry.Name()) != ".img" && filepath.Ext(entry.Name()) != ".ok" {
				t.Errorf("%s/%s is left", folder, entry.Name())
			}
		}
	}
}

// station is a lab with one handle on its host.
type station struct {
	*lab
	host hypervisor.Host
}

func newStation(t *testing.T) *station {
	t.Helper()
	l := newLab(t)
	host, err := libvirt.New(libvirt.Options{}).Open(t.Context(), l.noun(l.host.Endpoint()))
	ok(t, err)
	t.Cleanup(func() { host.Close() })
	return &station{l, host}
}

func (s *station) define(t *testing.T, m hypervisor.Machine) {
	t.Helper()
	ctx := t.Context()
	ok(t, s.host.EnsureImage(ctx, s.image(), s.open))
	ok(t, s.host.EnsureDisk(ctx, m))
	ok(t, s.host.EnsureSeed(ctx, m))
	ok(t, s.host.EnsureDefined(ctx, m))
}

func (s *station) await(t *testing.T, m hypervisor.Machine, wish string, is func(hypervisor.Observation) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		o, err := s.host.Observe(ctx, m.VM.Id)
		if err == nil && is(o) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not %s: %+v, %v\n%s", wish, o, err, s.console(m))
		}
	}
}

// console returns what the guest printed.
func (l *lab) console(m hypervisor.Machine) string {
	text, _ := os.ReadFile(filepath.Join(l.config.Dir, "pool", "serial", m.VM.Id+".log"))
	return strings.Trim(string(text), "\x00")
}

func ready(o hypervisor.Observation) bool { return o.Power == apiv1.VM_ON && o.Ready }

// dial opens an SSH connection to a guest, as its owner would from the guest network.
func (l *lab) dial(t *testing.T, m hypervisor.Machine) *ssh.Client {
	t.Helper()
	client, err := l.tryDial(t, m)
	ok(t, err)
	return client
}

// tryDial is one attempt; a connection is closed with the test.
func (l *lab) tryDial(t *testing.T, m hypervisor.Machine) (*ssh.Client, error) {
	client, err := ssh.Dial("tcp", net.JoinHostPort(m.Address.Addr().String(), "22"), &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(l.key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the guest makes its key as it starts
		Timeout:         patience,
	})
	if err == nil {
		t.Cleanup(func() { client.Close() })
	}
	return client, err
}

// redial dials a guest whose host was just disturbed, until it answers. On a busy machine such a guest was once silent for longer than
// the three seconds after which the kernel says that there is no route; a guest that stays so has lost its network.
func (l *lab) redial(t *testing.T, m hypervisor.Machine) *ssh.Client {
	t.Helper()
	for began := time.Now(); ; {
		client, err := l.tryDial(t, m)
		switch {
		case err == nil:
			return client
		case !errors.Is(err, syscall.EHOSTUNREACH) || time.Since(began) > patience:
			t.Fatalf("%v, after %v\n%s\n%s%s", err, time.Since(began), l.console(m), run(t, "ip", "-d", "link"), run(t, "ip", "neighbour"))
		}
	}
}

func hostname(t *testing.T, client *ssh.Client) string {
	t.Helper()
	session, err := client.NewSession()
	ok(t, err)
	defer session.Close()
	out, err := session.Output("hostname")
	ok(t, err)
	return strings.TrimSpace(string(out))
}

// A guest that is ready is usable at once: its name, its address and its owner's key are those of its seed.
func TestAReadyGuestIsUsableOverSSH(t *testing.T) {
	s := newStation(t)
	m := s.machine(t)
	began := time.Now()
	s.define(t, m)
	defined := time.Now()
	ok(t, s.host.EnsureStarted(t.Context(), m.VM.Id))
	started := time.Now()
	s.await(t, m, "ready", ready)
	boot := time.Since(defined)
	if got := hostname(t, s.dial(t, m)); got != m.VM.Name {
		t.Errorf("the guest calls itself %q, its seed says %q", got, m.VM.Name)
	}
	t.Logf("prepared in %v (first image, first look at QEMU), started in %v, ready %v after the start began, name over SSH after %v",
		defined.Sub(began), started.Sub(defined), boot, time.Since(defined))

	t.Logf("bare boot of the same guest, by hand with virsh: %v", s.bareBoot(t, m))
}

// bareBoot starts the machine's domain by hand and returns the time to its ready line in the log file.
func (s *station) bareBoot(t *testing.T, m hypervisor.Machine) time.Duration {
	t.Helper()
	ok(t, s.host.EnsureStopped(t.Context(), m.VM.Id, true))
	ok(t, os.WriteFile(filepath.Join(s.config.Dir, "pool", "serial", m.VM.Id+".log"), nil, 0o600))
	began := time.Now()
	run(t, "virsh", "-q", "-c", s.lab.host.Endpoint(), "start", m.VM.Id)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if strings.Contains(s.console(m), hypervisor.ReadyMarker(m.VM.Id)) {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			t.Fatalf("it does not come up:\n%s", s.console(m))
		}
	}
	return 0
}

// P17, P4: the daemon dies and comes back while a guest boots. The guest does not notice, the handle reconnects.
func TestAGuestOutlivesItsDaemon(t *testing.T) {
	s := newStation(t)
	m := s.machine(t)
	s.define(t, m)
	ok(t, s.host.EnsureStarted(t.Context(), m.VM.Id))
	ok(t, s.lab.host.KillDaemon(t.Context()))
	s.await(t, m, "ready", ready)
	ok(t, s.host.EnsureStarted(t.Context(), m.VM.Id))
	if got := hostname(t, s.redial(t, m)); got != m.VM.Name {
		t.Errorf("the guest calls itself %q", got)
	}
}

// P17: the host loses power while a guest boots, and comes back. Nothing runs, nothing is lost, the same VM starts again.
func TestAHostComesBackFromAPowerCutWithItsVMsOff(t *testing.T) {
	s := newStation(t)
	m := s.machine(t)
	s.define(t, m)
	ok(t, s.host.EnsureStarted(t.Context(), m.VM.Id))
	ok(t, s.lab.host.Kill())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if o, err := s.host.Observe(ctx, m.VM.Id); err == nil || hypervisor.IsFatal(err) {
		t.Fatalf("a host without power says %+v, %v", o, err)
	}
	s.power(t)
	o, err := s.host.Observe(t.Context(), m.VM.Id)
	if err != nil || o.Power != apiv1.VM_OFF || o.Ready {
		t.Fatalf("after the power came back: %+v, %v", o, err)
	}
	s.define(t, m) // as an agent does that begins at the beginning
	ok(t, s.host.EnsureStarted(t.Context(), m.VM.Id))
	s.await(t, m, "ready", ready)
	if out := strings.Fields(run(t, "virsh", "-q", "-c", s.lab.host.Endpoint(), "list", "--all", "--uuid")); len(out) != 1 {
		t.Errorf("domains: %v", out)
	}
}

// A host that lost power while it made a disk leaves the disk's name and nothing in it.
func TestAStumpOfADiskIsMadeAnewAndADefinedOneIsKept(t *testing.T) {
	s := newStation(t)
	m := s.machine(t)
	ctx := t.Context()
	ok(t, s.host.EnsureImage(ctx, s.image(), s.open))
	ok(t, s.host.EnsureDisk(ctx, m))
	file := filepath.Join(s.config.Dir, "pool", "disks", m.VM.Id+".qcow2")
	ok(t, os.Truncate(file, 0))
	ok(t, s.host.EnsureDisk(ctx, m))
	made, err := os.ReadFile(file)
	ok(t, err)
	if !strings.HasPrefix(string(made), "QFI\xfb") {
		t.Fatal("the stump was taken for a disk")
	}
	info := run(t, "qemu-img", "info", file)
	for _, want := range []string{s.image().SHA256, "backing file format: qcow2", "virtual size: 1 GiB"} {
		if !strings.Contains(info, want) {
			t.Errorf("%q is not in\n%s", want, info)
		}
	}
	ok(t, s.host.EnsureSeed(ctx, m))
	ok(t, s.host.EnsureDefined(ctx, m))
	ok(t, os.WriteFile(file, []byte("a guest's own"), 0o600))
	ok(t, s.host.EnsureDisk(ctx, m))
	if kept, _ := os.ReadFile(file); string(kept) != "a guest's own" {
		t.Fatal("a defined vm was robbed of its disk")
	}
}

// A volume that lies in the folder and not on libvirt's list would be made anew, over a guest's data.
func TestADiskThatLibvirtDoesNotListIsNotOverwritten(t *testing.T) {
	s := newStation(t)
	m := s.machine(t)
	ok(t, s.host.EnsureImage(t.Context(), s.image(), s.open))
	file := filepath.Join(s.config.Dir, "pool", "disks", m.VM.Id+".qcow2")
	const content = "QFI\xfb and a guest's data"
	ok(t, os.WriteFile(file, []byte(content), 0o600))
	ok(t, s.host.EnsureDisk(t.Context(), m))
	if kept, err := os.ReadFile(file); err != nil || string(kept) != content {
		t.Fatalf("it holds %.40q, %v", kept, err)
	}
}

func TestADiskSmallerThanItsImageIsRefusedForGood(t *testing.T) {
	s := newStation(t)
	ok(t, s.host.EnsureImage(t.Context(), s.image(), s.open))
	m := s.machine(t)
	m.VM.Size.DiskGib = 0
	if err := s.host.EnsureDisk(t.Context(), m); !hypervisor.IsFatal(err) {
		t.Fatalf("got %v", err)
	}
}

func TestWhatLibvirtCanNeverDoIsFatal(t *testing.T) {
	s := newStation(t)
	for name, spoil := range map[string]func(*hypervisor.Machine){
		"a network card address that is none": func(m *hypervisor.Machine) { m.MAC = "01:00:5e:00:00:01" }, // multicast
		"no bridge":                           func(m *hypervisor.Machine) { m.Bridge = "" },
	} {
		m := s.machine(t)
		s.define(t, m)
		spoil(&m)
		if err := s.host.EnsureDefined(t.Context(), m); !hypervisor.IsFatal(err) {
			t.Errorf("%s: got %v, want a fatal error", name, err)
		}
	}
	m := s.machine(t)
	m.Bridge = "no-such-bridge"
	s.define(t, m)
	if err := s.host.EnsureStarted(t.Context(), m.VM.Id); err == nil || !strings.Contains(err.Error(), "no-such-bridge") || hypervisor.IsFatal(err) {
		t.Errorf("a bridge that may come yet: got %v", err)
	}
}

// A domain that is not the driver's is neither seen nor counted.
func TestDomainsOfOthersAreLeftAlone(t *testing.T) {
	s := newStation(t)
	foreign := filepath.Join(t.TempDir(), "foreign.xml")
	ok(t, os.WriteFile(foreign, []byte(`<domain type='qemu'><name>foreign</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>`), 0o600))
	run(t, "virsh", "-q", "-c", s.lab.host.Endpoint(), "define", foreign)
	all, err := s.host.ObserveAll(t.Context())
	if err != nil || len(all) != 0 {
		t.Fatalf("got %+v, %v", all, err)
	}
}

// What a guest prints is no disk format to libvirt, wherever it prints it.
func TestASerialLogNeverPassesForADisk(t *testing.T) {
	s := newStation(t)
	m := s.machine(t)
	s.define(t, m)
	ok(t, s.host.EnsureStarted(t.Context(), m.VM.Id))
	s.await(t, m, "ready", ready)
	file := filepath.Join(s.config.Dir, "pool", "serial", m.VM.Id+".log")
	text, err := os.ReadFile(file)
	ok(t, err)
	if len(text) < 4096 || strings.Trim(string(text[:4096]), "\x00") != "" {
		t.Fatalf("the log does not begin with a page of zeros: %q", text[:min(len(text), 100)])
	}
	run(t, "virsh", "-q", "-c", s.lab.host.Endpoint(), "pool-refresh", "naru-serial")
	dump := run(t, "virsh", "-q", "-c", s.lab.host.Endpoint(), "vol-dumpxml", "--pool", "naru-serial", m.VM.Id+".log")
	if !strings.Contains(dump, "<format type='raw'/>") {
		t.Errorf("libvirt takes it for\n%s", dump)
	}
}

// The deadline is the owner's fence: a host that hangs holds nobody beyond it.
func TestAHostThatHangsHoldsNobodyBeyondTheDeadline(t *testing.T) {
	s := newStation(t)
	m := s.machine(t)
	s.define(t, m)
	freeze := func(signal string) {
		out, err := s.lab.host.Command(t.Context(), "/bin/sh", "-c", "kill -"+signal+" $(cat /run/libvirt/libvirtd.pid)").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	freeze("STOP")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := s.host.EnsureStarted(ctx, m.VM.Id)
	if !errors.Is(err, context.DeadlineExceeded) || hypervisor.IsFatal(err) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it returned after %v", took)
	}
	freeze("CONT")
	o, err := s.host.Observe(t.Context(), m.VM.Id)
	if err != nil || o.Power != apiv1.VM_OFF {
		t.Errorf("afterwards: %+v, %v", o, err)
	}
}

func TestStreamsLeaveNothingOpenOnTheHost(t *testing.T) {
	s := newStation(t)
	m := s.machine(t)
	s.define(t, m)
	open := func() int {
		out, err := s.lab.host.Command(t.Context(), "/bin/sh", "-c", "ls /proc/$(cat /run/libvirt/libvirtd.pid)/fd | wc -l").Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		ok(t, err)
		count, err := strconv.Atoi(strings.TrimSpace(string(out)))
		ok(t, err)
		return count
	}
	before := open()
	for range 50 {
		ok(t, s.host.EnsureSeed(t.Context(), m))
		ok(t, s.host.EnsureDisk(t.Context(), m))
	}
	if after := open(); after > before+10 {
		t.Errorf("libvirtd had %d files open, and has %d", before, after)
	}
}

func TestOverTLSItIsKnownWhenTheHostsCertificateEnds(t *testing.T) {
	l := newLab(t)
	for endpoint, known := range map[string]bool{l.tlsEndpoint(): true, l.host.Endpoint(): false} {
		h, err := libvirt.New(l.tls).Open(t.Context(), l.noun(endpoint))
		ok(t, err)
		i, err := h.Inventory(t.Context())
		ok(t, err)
		ok(t, h.Close())
		if i.CertificateEnds.After(time.Now()) != known {
			t.Errorf("%s: its certificate ends at %v", endpoint, i.CertificateEnds)
		}
	}
}
