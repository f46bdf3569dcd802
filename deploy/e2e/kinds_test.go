package e2e

import (
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// guest is what a hypervisor itself has of a VM.
type guest struct {
	There, On bool
	Cores     uint32
	MemoryMiB uint32
	Snapshots []string // by id
	Word      string   // a letter on its disk, behind what its image has there; of a VM that is off
}

// hosts looks at hypervisors past all programs of the site, and writes on disks as a guest might have.
type hosts interface {
	look(t *testing.T, vm string) guest
	write(t *testing.T, vm, word string)
}

// simulated are the simulated hosts of a zone.
type simulated struct {
	*standing
	zone string
}

func (h simulated) look(t *testing.T, vm string) (g guest) {
	t.Helper()
	found := h.machines(t, h.zone)[vm]
	if len(found) != 1 {
		return g
	}
	m := found[0]
	g = guest{There: m.Defined, On: !m.StartedAt.IsZero(), Cores: m.Cores, MemoryMiB: m.MemoryMiB, Word: m.Content}
	for _, s := range m.Snapshots {
		g.Snapshots = append(g.Snapshots, s.ID)
	}
	return g
}

func (h simulated) write(t *testing.T, vm, word string) {
	t.Helper()
	h.behindBacks(t, h.zone, vm, func(m map[string]any) { m["Content"] = word })
}

// real is the libvirt host of a zone.
type real struct {
	*standing
	zone string
}

func (h real) virsh(t *testing.T, args ...string) string {
	t.Helper()
	socket := h.path("data", "host-"+h.zone, "run", "libvirt-sock")
	return run(t, exec.CommandContext(t.Context(), "virsh", append([]string{"-q", "-c", "qemu+unix:///system?socket=" + socket}, args...)...))
}

func (h real) look(t *testing.T, vm string) (g guest) {
	t.Helper()
	if g.There = slices.Contains(h.domains(t, h.zone), vm); !g.There {
		return g
	}
	var domain struct {
		VCPU   uint32 `xml:"vcpu"`
		Memory uint32 `xml:"memory"` // KiB
	}
	if err := xml.Unmarshal([]byte(h.virsh(t, "dumpxml", vm)), &domain); err != nil {
		t.Fatal(err)
	}
	g.Cores, g.MemoryMiB = domain.VCPU, domain.Memory>>10
	g.On = strings.TrimSpace(h.virsh(t, "domstate", vm)) == "running"
	g.Snapshots = strings.Fields(h.virsh(t, "snapshot-list", vm, "--name"))
	if !g.On {
		read := strings.Fields(h.qemuIO(t, vm, fmt.Sprintf("read -v %d 16", behind), "-r")) // an address, then bytes in hexadecimal
		if b, err := strconv.ParseUint(read[1], 16, 8); err == nil && b != 0 {
			g.Word = string(rune(b))
		}
	}
	return g
}

func (h real) write(t *testing.T, vm, word string) {
	t.Helper()
	h.qemuIO(t, vm, fmt.Sprintf("write -P %d %d 16", word[0], behind))
}

// behind is where on a guest's disk nothing of the tiny guest's is.
const behind = 512 << 20

// qemuIO reads or writes a guest's disk, from where the host sees its files.
func (h real) qemuIO(t *testing.T, vm, what string, flags ...string) string {
	t.Helper()
	pid := 0
	for _, p := range h.status(t).Processes {
		if p.Name == "host-"+h.zone {
			pid = p.PID
		}
	}
	var domain struct {
		Disks []struct {
			Source struct {
				File string `xml:"file,attr"`
			} `xml:"source"`
		} `xml:"devices>disk"`
	}
	if err := xml.Unmarshal([]byte(h.virsh(t, "dumpxml", vm)), &domain); err != nil || len(domain.Disks) == 0 {
		t.Fatalf("the disks of %s: %v", vm, err)
	}
	return run(t, exec.CommandContext(t.Context(), "nsenter", append(append([]string{"-m", "-t", strconv.Itoa(pid), "qemu-io"}, flags...),
		"-f", "qcow2", "-c", what, domain.Disks[0].Source.File)...))
}

// by is a command of one of the site's people, who is logged in where they work.
func (s *standing) by(t testing.TB, who string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), program("naru"), args...)
	cmd.Env = append(os.Environ(), "NARU_CONFIG="+s.path("cli", who+".yaml"), "XDG_STATE_HOME="+s.path("cli", who))
	return cmd
}

// granted has kim ask for something at the edge of the internet zone, everybody decide whom it takes, and waits until it is done.
func (s *standing) granted(t *testing.T, args ...string) *apiv1.Request {
	t.Helper()
	name := strings.TrimSpace(run(t, s.by(t, "kim", append(args, "--reason", "it is needed", "-o", "name")...)))
	for _, who := range []string{"lee", "park"} {
		run(t, s.by(t, who, "approve", name, "--yes", "--comment", "seen"))
	}
	s.until(t, "room is kept for what takes some", func(ctx context.Context) (bool, error) { // who is quick may decide before it was asked for
		r, err := s.admin.Requests.GetRequest(ctx, &apiv1.GetRequestRequest{Request: name})
		return !takesRoom(r.GetRequest()) || r.GetRequest().GetFulfilment() == apiv1.Request_RESERVED, err
	})
	run(t, s.by(t, "choi", "approve", name, "--yes", "--comment", "seen"))
	return s.done(t, name)
}

func takesRoom(m *apiv1.Request) bool {
	return m.GetKind() == apiv1.RequestKind_CREATE || m.GetKind() == apiv1.RequestKind_RESIZE
}

func (s *standing) done(t *testing.T, name string) *apiv1.Request {
	t.Helper()
	over := func(m *apiv1.Request) bool {
		return m.GetFulfilment() == apiv1.Request_DONE || m.GetFulfilment() == apiv1.Request_FAILED || m.GetFulfilment() == apiv1.Request_LAPSED
	}
	m := await(s, t, "the end of request "+name, func(ctx context.Context) (grpc.ServerStreamingClient[apiv1.WatchRequestsResponse], error) {
		return s.admin.Requests.WatchRequests(ctx, &apiv1.WatchRequestsRequest{Filter: "name=" + name})
	}, (*apiv1.WatchRequestsResponse).GetRequest, over)
	if m.GetFulfilment() != apiv1.Request_DONE {
		t.Fatalf("request %s: %v: %s", name, m.GetFulfilment(), m.GetFulfilmentReason())
	}
	return m
}

// counted is what the project's quota says is used; nothing is held where nothing is under way.
type counted struct{ vms, cores, memory, disk, snapshots uint32 }

func (s *standing) counted(t *testing.T) (c counted) {
	t.Helper()
	s.until(t, "nothing is held any more", func(ctx context.Context) (bool, error) {
		r, err := s.admin.Quotas.GetQuota(ctx, &apiv1.GetQuotaRequest{Quota: "project.web"})
		u, h := r.GetQuota().GetUsed(), r.GetQuota().GetHeld()
		c = counted{u.GetVms(), u.GetCores(), u.GetMemoryMib(), u.GetDiskGib(), u.GetSnapshots()}
		return h.GetVms()+h.GetCores()+h.GetMemoryMib()+h.GetDiskGib()+h.GetSnapshots() == 0, err
	})
	return c
}

func (c counted) plus(o counted) counted {
	return counted{c.vms + o.vms, c.cores + o.cores, c.memory + o.memory, c.disk + o.disk, c.snapshots + o.snapshots}
}

// subject is a VM to which all kinds of requests are done, one after the other.
type subject struct {
	*standing
	hosts
	name, id string
	before   *apiv1.VM
}

// kinds of requests, in an order in which each finds what it needs; the guest boots once. What a kind adds to what is used is in
// counts; the usage record that it leaves is of kind metered.
var kinds = []struct {
	kind    apiv1.RequestKind_Value
	args    func(s *subject) []string // nil: carried out already
	counts  counted
	metered apiv1.UsageRecord_Kind
	first   func(t *testing.T, s *subject)
	is      func(s *subject, g guest, m *apiv1.Request, vm *apiv1.VM) bool
}{
	{
		kind: apiv1.RequestKind_POWER, metered: apiv1.UsageRecord_STOPPED,
		args: func(s *subject) []string { return []string{"request", "create", "--power", "stop", "--vm", s.name} },
		is:   func(_ *subject, g guest, _ *apiv1.Request, _ *apiv1.VM) bool { return g.There && !g.On },
	}, {
		kind: apiv1.RequestKind_SNAPSHOT, counts: counted{snapshots: 1},
		first: func(t *testing.T, s *subject) { s.write(t, s.id, "b") },
		args: func(s *subject) []string {
			return []string{"request", "create", "--snapshot", "before", "--vm", s.name}
		},
		is: func(_ *subject, g guest, m *apiv1.Request, _ *apiv1.VM) bool {
			return slices.Equal(g.Snapshots, []string{m.GetSpecification().GetSnapshot().GetSnapshotId()}) && g.Word == "b"
		},
	}, {
		kind: apiv1.RequestKind_RESIZE, counts: counted{cores: 1, memory: 32, disk: 1}, metered: apiv1.UsageRecord_RESIZED,
		args: func(s *subject) []string {
			return []string{"request", "create", "--resize", "--flavor", "s2", "--vm", s.name}
		},
		is: func(_ *subject, g guest, _ *apiv1.Request, vm *apiv1.VM) bool {
			return g.Cores == 2 && g.MemoryMiB == 128 && vm.GetActual().GetDiskGib() == 2
		},
	}, {
		kind:  apiv1.RequestKind_RESTORE,
		first: func(t *testing.T, s *subject) { s.write(t, s.id, "a") },
		args:  func(s *subject) []string { return []string{"request", "create", "--restore", "before", "--vm", s.name} },
		is: func(_ *subject, g guest, _ *apiv1.Request, _ *apiv1.VM) bool {
			return g.Word == "b" && g.Cores == 2 && !g.On
		},
	}, {
		kind: apiv1.RequestKind_ACCESS,
		first: func(t *testing.T, s *subject) {
			if said, err := s.by(t, "kim", "vm", "start", s.name).CombinedOutput(); err == nil {
				t.Fatalf("kim starts VMs without having asked: %s", said)
			}
		},
		args: func(*subject) []string {
			return []string{"request", "create", "--access", "zone-operator", "--in-zone", "--zone", "business", "--days", "1"}
		},
		is: func(_ *subject, _ guest, m *apiv1.Request, _ *apiv1.VM) bool {
			return m.GetResults()[0].GetKind() == "role-binding"
		},
	}, {
		kind: apiv1.RequestKind_CROSS_ZONE,
		args: func(*subject) []string {
			return []string{"request", "create", "--crossing", "--zone", "business", "--permission", "vm.start", "--days", "1"}
		},
		is: func(_ *subject, _ guest, m *apiv1.Request, _ *apiv1.VM) bool {
			return m.GetResults()[0].GetKind() == "crossing"
		},
	}, {
		kind: apiv1.RequestKind_EXTEND,
		// With the role and the crossing, and with nothing else, kim starts the VM from the other zone; so what follows finds it on.
		first: func(t *testing.T, s *subject) { run(t, s.by(t, "kim", "vm", "start", s.name, "--wait")) },
		args:  func(s *subject) []string { return []string{"lease", "extend", s.name, "--days", "7"} },
		is: func(s *subject, g guest, _ *apiv1.Request, vm *apiv1.VM) bool {
			return g.On && vm.GetExpiresAt().AsTime().Equal(s.before.GetExpiresAt().AsTime().AddDate(0, 0, 7))
		},
		metered: apiv1.UsageRecord_STARTED,
	}, {
		kind: apiv1.RequestKind_RECLAIM, metered: apiv1.UsageRecord_TRASHED,
		args: func(s *subject) []string { return []string{"request", "create", "--reclaim", "--vm", s.name} },
		is: func(_ *subject, g guest, _ *apiv1.Request, vm *apiv1.VM) bool {
			return g.There && !g.On && len(g.Snapshots) == 1 && vm.GetState() == apiv1.VM_TRASHED && vm.GetDeleteAt() != nil
		},
	}, {
		kind: apiv1.RequestKind_RESTORE, metered: apiv1.UsageRecord_STOPPED, // out of the trash
		args: func(s *subject) []string { return []string{"request", "create", "--untrash", "--vm", s.name} },
		is: func(_ *subject, g guest, _ *apiv1.Request, vm *apiv1.VM) bool {
			return g.There && !g.On && len(g.Snapshots) == 1 && vm.GetState() == apiv1.VM_STOPPED && vm.GetDeleteAt() == nil
		},
	},
}

// everyKind has each kind of request go from its submission through all who decide to the hypervisor, and looks there whether it is
// done; the first has made the VM.
func everyKind(t *testing.T, made *apiv1.Request, s *subject) {
	created := s.vm(t, s.name, "can be used", func(vm *apiv1.VM) bool {
		return running(vm) && vm.GetPower() == apiv1.VM_ON && vm.GetExpiresAt() != nil
	})
	s.id = created.GetId()
	if g := s.look(t, s.id); !g.There || !g.On || g.Cores != 1 || g.MemoryMiB != 96 {
		t.Fatalf("what was created is %+v", g)
	}
	s.meteredLast(t, s.id, apiv1.UsageRecord_BEGUN)
	s.recorded(t, made)
	var given []*apiv1.Reference
	for _, k := range kinds {
		began := time.Now()
		counts := s.counted(t)
		s.before = s.vm(t, s.name, "is there", func(*apiv1.VM) bool { return true })
		if k.first != nil {
			k.first(t, s)
		}
		m := s.granted(t, k.args(s)...)
		vm := s.vm(t, s.name, "is answered", func(vm *apiv1.VM) bool { return vm.GetTask() == 0 })
		if g := s.look(t, s.id); m.GetKind() != k.kind || !k.is(s, g, m, vm) {
			t.Errorf("%v: the host has %+v of %v\n%v", k.kind, g, vm, m)
		}
		if is, want := s.counted(t), counts.plus(k.counts); is != want {
			t.Errorf("%v: of the quota %+v is used, want %+v", k.kind, is, want)
		}
		if k.metered != 0 {
			s.meteredLast(t, s.id, k.metered)
		}
		s.recorded(t, m)
		given = append(given, m.GetResults()...)
		t.Logf("%v: %.1f s", k.kind, time.Since(began).Seconds())
	}
	for _, r := range given { // what is for people, not for this VM alone
		switch r.GetKind() {
		case "role-binding":
			s.naru(t, "control", "role-binding", "delete", r.GetId())
		case "crossing":
			s.naru(t, "control", "crossing", "delete", r.GetId())
		}
	}
}

// meteredLast waits until the newest record of a VM's use is of a kind, which nobody had to correct.
func (s *standing) meteredLast(t *testing.T, vm string, kind apiv1.UsageRecord_Kind) {
	t.Helper()
	s.until(t, "its use is metered as "+kind.String(), func(ctx context.Context) (bool, error) {
		r, err := s.admin.Usage.ListUsageRecords(ctx, &apiv1.ListUsageRecordsRequest{Vm: vm, PageSize: 1})
		if err != nil || len(r.GetUsageRecords()) == 0 {
			return false, err
		}
		last := r.GetUsageRecords()[0]
		return last.GetKind() == kind && len(last.GetMarks()) == 0, nil
	})
}

// recorded demands that the audit log says who asked, who decided and that it was carried out.
func (s *standing) recorded(t *testing.T, m *apiv1.Request) {
	t.Helper()
	r, err := s.admin.Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Filter: "target_id=" + m.GetId(), PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range r.GetAuditEntries() {
		if e.GetOutcome() == apiv1.AuditEntry_DONE {
			said = append(said, e.GetActor()+" "+e.GetAction())
		}
	}
	wanted := []string{"user:kim request.create", "user:lee request.decide", "user:park request.decide", "user:choi request.decide", "controller:request request.carry-out"}
	if takesRoom(m) {
		wanted = append(wanted, "controller:request request.reserve")
	}
	for _, want := range wanted {
		if !slices.Contains(said, want) {
			t.Errorf("%v: the audit log does not say %q, but %q", m.GetKind(), want, said)
		}
	}
}

// prepareKinds makes what the kinds need of a site: a larger flavor, and a quota by which it is seen what counts.
func (s *standing) prepareKinds(t *testing.T) {
	t.Helper()
	s.naru(t, "control", "flavor", "create", "s2", "--cores", "2", "--memory-mib", "128", "--disk-gib", "2")
	s.naru(t, "control", "quota", "set", "--project", "web", "--vms", "100", "--cores", "100", "--memory-mib", "100000", "--disk-gib", "1000", "--snapshots", "100")
}

func everyKindOnBoth(t *testing.T, s *standing) {
	s.prepareKinds(t)
	t.Run("on libvirt", func(t *testing.T) {
		everyKind(t, s.done(t, "r-1"), &subject{standing: s, hosts: real{s, "business"}, name: "web-1"}) // the walk's
	})
	t.Run("simulated", func(t *testing.T) {
		m := s.granted(t, "request", "create", "--offering", "web-server", "--zone", "business", "--cluster", "test", "--name", "sim-1", "--field", "service_name=minwon")
		everyKind(t, m, &subject{standing: s, hosts: simulated{s, "business"}, name: "sim-1"})
	})
}
