package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

func TestHostsAndClusterAreReportedOnChangeOnly(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2, "cores=8&memory_mib=4096&disk_gib=100")
		s.zone.Want(&apiv1.Cluster{Id: "kvm", Name: "kvm", ZoneId: "zone", Hypervisor: "sim", CpuOvercommitPercent: 200})
		s.own("kvm")
		s.pass(3 * time.Second)
		host := s.zone.Host("kvm-1")
		if host.GetHealth() != apiv1.Host_AVAILABLE || host.GetFreshness() != apiv1.Freshness_LIVE || host.GetTotal().GetCores() != 8 ||
			host.GetHypervisorVersion() == "" || host.GetHealthChangedAt() == nil {
			t.Errorf("observed %v", host)
		}
		m, _ := s.zone.Get(etcdstore.Observed, "cluster", "kvm")
		want := &apiv1.Cluster{
			Id: "kvm", Name: "kvm", Owner: "agent-1", HostCount: 2, Allocated: &apiv1.Resources{},
			Total: &apiv1.Resources{Cores: 32, MemoryMib: 8192, DiskGib: 200},
		}
		if !proto.Equal(m, want) {
			t.Errorf("observed %v, want %v", m, want)
		}
		s.running("kvm", "web-1")
		if h := s.zone.Host("kvm-1"); h.GetVmCount() != 1 || h.GetAllocated().GetMemoryMib() != 1024 {
			t.Errorf("with a VM: %v", h)
		}
		m, _ = s.zone.Get(etcdstore.Observed, "cluster", "kvm")
		s.equal("allocated in the cluster", m.(*apiv1.Cluster).GetAllocated().GetCores(), 1)

		before := s.zone.Commits()
		s.pass(10 * time.Minute)
		s.equal("commits while nothing changes", s.zone.Commits()-before, 0)
		before = s.zone.Commits()
		s.own("kvm")
		s.pass(10 * time.Minute)
		s.equal("commits of the next owner, while nothing changes", s.zone.Commits()-before, 0)
	})
}

func TestAPowerThatChangedBehindOurBackIsReportedAndNotActedUpon(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.fleet.Knobs("kvm-1").PowerOff("web-1")
		s.pass(time.Minute)
		vm := s.zone.VM("web-1")
		if vm.GetState() != apiv1.VM_STOPPED || vm.GetPower() != apiv1.VM_OFF || vm.GetHostFreshness() != apiv1.Freshness_LIVE {
			t.Errorf("observed %v", vm)
		}
		s.equal("usage", s.usage("web-1"), "[RUNNING STOPPED]")
		s.equal("events", s.zone.Events("web-1"), "[vm.usable vm.stopped]")
		s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)

		// A start is the control plane's to ask.
		op := s.want(s.vm("kvm", "web-1"))
		s.pass(10 * time.Second)
		s.equal("start", s.outcome(op), "done")
		s.equal("usage", s.usage("web-1"), "[RUNNING STOPPED RUNNING]")
	})
}

func TestARoundThatMissesAVMOnceIsNotBelieved(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		for range 5 {
			s.mu.Lock()
			s.hide["web-1"] = 1
			s.mu.Unlock()
			s.pass(20 * time.Second)
		}
		s.equal("state", s.zone.VM("web-1").GetState(), apiv1.VM_RUNNING)
		s.equal("events", s.zone.Events("web-1"), "[vm.usable]")
	})
}

// A round that saw the VM before a step changed it says nothing about it any more.
func TestWhatARoundSawBeforeAStepIsNotBelievedAfterIt(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "boot=100ms")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.mu.Lock()
		s.lag = 4 * time.Second
		s.mu.Unlock()
		for i := range 10 {
			s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
			s.pass(11*time.Second + time.Duration(i)*800*time.Millisecond)
			s.want(s.vm("kvm", "web-1"))
			s.pass(11*time.Second + time.Duration(i)*300*time.Millisecond)
		}
		for _, e := range s.zone.Journal() {
			if e.GetEvent().GetSeverity() > apiv1.Event_INFO {
				t.Errorf("told: %v", e.GetEvent())
			}
		}
		s.equal("state", s.zone.VM("web-1").GetState(), apiv1.VM_RUNNING)
	})
}

func TestAVMThatItsHostLostIsAnErrorAndIsNotBuiltAnew(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.fleet.Knobs("kvm-1").Lose("web-1")
		s.pass(time.Minute)
		vm := s.zone.VM("web-1")
		if vm.GetState() != apiv1.VM_ERROR || vm.GetPower() != apiv1.VM_MISSING || !strings.Contains(vm.GetError().GetDetail(), "kvm-1 does not know VM web-1") {
			t.Errorf("observed %v", vm)
		}
		s.equal("events", s.zone.Events("web-1"), "[vm.usable vm.missing]")
		op := s.want(s.vm("kvm", "web-1"))
		s.pass(time.Minute)
		s.equal("a start", s.outcome(op), problem.WrongState)
		s.equal("creations", s.fleet.Knobs("kvm-1").Creations("web-1"), 1)
		op = s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.pass(time.Minute)
		s.equal("deletion", s.outcome(op), "done")
		s.equal("tombstones", s.zone.Tombstones("vm", "web-1"), 1)
	})
}

// A dead host is never answered with an action on VMs: it is suspect, then down, its VMs unreachable; when it is back
// they are what they are.
func TestADeadHostIsReportedAndItsVMsAreNotTouched(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.running("kvm", "web-2")
		dead := s.zone.VM("web-1").GetHost() // whichever was seen first
		s.silence(dead, (*sim.Knobs).Kill)
		for s.zone.Host(dead).GetHealth() == apiv1.Host_AVAILABLE {
			s.pass(50 * time.Millisecond)
		}
		s.equal("health at first", s.zone.Host(dead).GetHealth(), apiv1.Host_SUSPECT)
		s.equal("its VM", s.zone.VM("web-1").GetHostFreshness(), apiv1.Freshness_LIVE)
		s.pass(10 * time.Second)
		down := s.zone.Host(dead)
		if down.GetHealth() != apiv1.Host_DOWN || down.GetFreshness() != apiv1.Freshness_UNREACHABLE || down.GetHealthReason() == "" {
			t.Errorf("observed %v", down)
		}
		vm := s.zone.VM("web-1")
		if vm.GetHostFreshness() != apiv1.Freshness_UNREACHABLE || vm.GetState() != apiv1.VM_RUNNING || vm.GetPower() != apiv1.VM_ON {
			t.Errorf("its VM: %v", vm)
		}
		s.equal("the other host's VM", s.zone.VM("web-2").GetHostFreshness(), apiv1.Freshness_LIVE)
		s.equal("events", s.zone.Events(dead), "[host.available host.down]")

		before := s.zone.Commits()
		s.pass(24 * time.Hour)
		s.equal("commits in a day of silence", s.zone.Commits()-before, 0)

		s.restore(dead)
		s.pass(20 * time.Second)
		if h := s.zone.Host(dead); h.GetHealth() != apiv1.Host_AVAILABLE || h.GetFreshness() != apiv1.Freshness_LIVE || h.GetHealthReason() != "" {
			t.Errorf("back: %v", h)
		}
		vm = s.zone.VM("web-1")
		if vm.GetHostFreshness() != apiv1.Freshness_LIVE || vm.GetState() != apiv1.VM_STOPPED || vm.GetPower() != apiv1.VM_OFF {
			t.Errorf("its VM, back: %v", vm)
		}
		s.equal("creations", s.fleet.Knobs("kvm-1").Creations("web-1")+s.fleet.Knobs("kvm-2").Creations("web-1"), 1)
	})
}

func TestACutHostKeepsItsVMsRunning(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.silence("kvm-1", (*sim.Knobs).Cut)
		s.pass(time.Hour)
		s.restore("kvm-1")
		s.pass(20 * time.Second)
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING || vm.GetHostFreshness() != apiv1.Freshness_LIVE {
			t.Errorf("observed %v", vm)
		}
		s.equal("usage", s.usage("web-1"), "[RUNNING]")
		s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)
	})
}

func TestAHostThatAnotherAgentReachesIsDegraded(t *testing.T) {
	for _, c := range []struct {
		others Others
		health apiv1.Host_Health
		says   string
	}{
		{reach{"agent-2", "agent-3"}, apiv1.Host_DEGRADED, "agent-1 cannot reach it (host does not answer); agent-2, agent-3 can"},
		{reach{}, apiv1.Host_DOWN, "host does not answer"},
		{reach{"nobody answers"}, apiv1.Host_DOWN, "no other agent could be asked"},
	} {
		within(t, func(s *site) {
			s.others = c.others
			s.cluster("kvm", 1, "")
			s.own("kvm")
			s.running("kvm", "web-1")
			s.silence("kvm-1", (*sim.Knobs).Cut)
			s.pass(30 * time.Second)
			h := s.zone.Host("kvm-1")
			if h.GetHealth() != c.health || !strings.Contains(strings.ReplaceAll(h.GetHealthReason(), sim.ErrUnreachable.Error(), "host does not answer"), c.says) {
				t.Errorf("observed %v %q, want %v %q", h.GetHealth(), h.GetHealthReason(), c.health, c.says)
			}
			s.equal("its VM", s.zone.VM("web-1").GetHostFreshness(), apiv1.Freshness_UNREACHABLE)
		})
	}
}

// One lost answer makes nobody suspect.
func TestASingleFailureOfARoundIsNotBelieved(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.pass(3 * time.Second)
		before := s.zone.Commits()
		for range 20 {
			s.fleet.Knobs("kvm-1").FailNext(1)
			s.pass(6 * time.Second)
		}
		s.equal("commits", s.zone.Commits()-before, 0)
	})
}

func TestWorkOnASilentHostWaitsForItAndGivesUpAtTheDeadline(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.silence("kvm-1", (*sim.Knobs).Cut)
		s.pass(20 * time.Second)
		op := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
		s.pass(5 * time.Minute)
		s.equal("while it is silent", s.outcome(op), "")
		s.equal("told while it is silent", s.delays(op), []string{"host kvm-1 is down (simulated host does not answer); it is carried out when the host is back"})
		s.restore("kvm-1")
		s.pass(20 * time.Second)
		s.equal("when it is back", s.outcome(op), "done")

		s.silence("kvm-1", (*sim.Knobs).Cut)
		s.pass(20 * time.Second)
		op = s.want(s.vm("kvm", "web-1"))
		s.pass(11 * time.Minute)
		s.equal("when it stays silent", s.outcome(op), problem.Unavailable)
		vm := s.zone.VM("web-1")
		if vm.GetState() != apiv1.VM_STOPPED || vm.GetTask() != 0 || vm.GetReached().GetIndex() != 3 {
			t.Errorf("observed %v", vm)
		}
		s.restore("kvm-1")
		s.pass(time.Minute)
		s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)
	})
}

func TestAnOperationThatIsUnderWayWhenItsHostGoesDownTellsThatItWaits(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "latency=1s")
		s.own("kvm")
		s.pass(20 * time.Second) // the host has answered
		op := s.want(s.vm("kvm", "web-1"))
		s.pass(2 * time.Second)
		s.silence("kvm-1", (*sim.Knobs).Cut)
		s.pass(3 * time.Second)
		s.equal("while the host may merely be slow", s.delays(op), []string(nil))
		s.pass(time.Minute)
		s.equal("when it is known to be down", len(s.delays(op)), 1)
		s.restore("kvm-1")
		s.pass(time.Minute)
		s.equal("when it is back", s.outcome(op), "done")
		s.equal("then", len(s.delays(op)), 1)
	})
}

func TestAVMThatNobodyKnowsIsToldOnceAndNotTouched(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.cluster("old", 1, "")
		s.own("old")
		s.running("old", "stranger")
		s.kill("old")
		// The same machine turns up in another cluster.
		s.zone.Want(&apiv1.Host{Id: "old-1", Name: "old-1", ClusterId: "kvm", Endpoint: "sim://?"})
		s.zone.Put(etcdstore.Observed, "vm", "stranger", nil)
		s.zone.Put(etcdstore.Desired, "vm", "stranger", nil)
		s.own("kvm")
		s.pass(10 * time.Minute)
		s.equal("events", s.zone.Events("old-1"), "[host.available host.unknown_vm]")
		s.equal("it runs on", s.fleet.Running("stranger"), "[old-1]")
	})
}

func TestSamplesAreRatesOfWhatGrewBetweenTwoRounds(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.pass(time.Minute)
		s.sink.mu.Lock()
		defer s.sink.mu.Unlock()
		if len(s.sink.hosts) < 10 || len(s.sink.vms) < 9 {
			t.Fatalf("%d samples of the host, %d of the VM", len(s.sink.hosts), len(s.sink.vms))
		}
		h, v := s.sink.hosts[len(s.sink.hosts)-1], s.sink.vms[len(s.sink.vms)-1]
		if h.Host != "kvm-1" || h.Cluster != "kvm" || h.Zone != "business" || h.CpuRatio < 0 || h.CpuRatio > 1 || h.VmCount != 1 || h.Cores != 8 {
			t.Errorf("host sample %v", h)
		}
		if v.Vm != "web-1" || v.Project != "web" || v.Host != "kvm-1" || v.CpuRatio < 0 || v.CpuRatio > 1 || v.MemoryUsedMib == 0 {
			t.Errorf("VM sample %v", v)
		}
	})
}

func TestAClusterThatLosesItsLastHostSaysSo(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.pass(3 * time.Second)
		s.zone.Put(etcdstore.Desired, "host", "kvm-1", nil)
		s.pass(3 * time.Second)
		m, _ := s.zone.Get(etcdstore.Observed, "cluster", "kvm")
		if c := m.(*apiv1.Cluster); c.GetHostCount() != 0 || c.GetTotal().GetCores() != 0 {
			t.Errorf("observed %v", c)
		}
		if s.zone.Host("kvm-1") != nil || s.zone.Tombstones("host", "kvm-1") != 1 {
			t.Errorf("its host: %v", s.zone.Host("kvm-1"))
		}
		op := s.want(s.vm("kvm", "web-1"))
		s.pass(time.Minute)
		s.equal("a VM", s.outcome(op), problem.NoHostFits)
		s.equal("because", s.zone.VM("web-1").GetError().GetDetail(), "Cluster kvm has no hosts.")
	})
}

// A host that is not named any more while it has VMs is kept, with the reason, and no VM is touched.
func TestAHostThatIsRemovedWithVMsOnItIsKept(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.zone.Put(etcdstore.Desired, "host", "kvm-1", nil)
		s.pass(time.Minute)
		h := s.zone.Host("kvm-1")
		if h == nil || !strings.Contains(h.GetHealthReason(), "does not name it any more") || s.zone.Tombstones("host", "kvm-1") != 0 {
			t.Errorf("observed %v", h)
		}
		s.equal("its VM runs on", s.fleet.Running("web-1"), "[kvm-1]")
		s.fleet.Knobs("kvm-1").PowerOff("web-1")
		s.pass(time.Minute)
		s.equal("its VM is seen", s.zone.VM("web-1").GetState(), apiv1.VM_STOPPED)

		op := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.pass(time.Minute)
		s.equal("deletion", s.outcome(op), "done")
		s.equal("tombstones of the host", s.zone.Tombstones("host", "kvm-1"), 1)
		if m, _ := s.zone.Get(etcdstore.Allocation, "", "kvm-1"); m != nil {
			t.Errorf("its allocation is left: %v", m)
		}
	})
}

// Absence is not an instruction: a VM that the control plane does not name is seen and left alone.
func TestAVMThatIsNotNamedAnyMoreIsLeftAlone(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.zone.Put(etcdstore.Desired, "vm", "web-1", nil)
		s.pass(time.Minute)
		s.own("kvm")
		s.pass(time.Minute)
		s.equal("it runs on", s.fleet.Running("web-1"), "[kvm-1]")
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING {
			t.Errorf("observed %v", vm)
		}
		s.fleet.Knobs("kvm-1").PowerOff("web-1")
		s.pass(time.Minute)
		s.equal("and is seen", s.zone.VM("web-1").GetPower(), apiv1.VM_OFF)
	})
}

func TestAnEndpointThatTheDriverCannotReadMakesTheHostDownWithTheReason(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 0, "")
		s.host("kvm", "kvm-1", "cores=many")
		s.zone.Want(&apiv1.Cluster{Id: "xen", Name: "xen", ZoneId: "zone", Hypervisor: "xen"})
		s.host("xen", "xen-1", "")
		s.own("kvm")
		s.own("xen")
		s.pass(3 * time.Second)
		if h := s.zone.Host("kvm-1"); h.GetHealth() != apiv1.Host_DOWN || !strings.Contains(h.GetHealthReason(), "cores") {
			t.Errorf("observed %v", h)
		}
		if h := s.zone.Host("xen-1"); h.GetHealth() != apiv1.Host_DOWN || !strings.Contains(h.GetHealthReason(), `"xen"`) {
			t.Errorf("observed %v", h)
		}
		s.host("kvm", "kvm-1", "cores=4")
		s.pass(3 * time.Second)
		if h := s.zone.Host("kvm-1"); h.GetHealth() != apiv1.Host_AVAILABLE || h.GetTotal().GetCores() != 4 {
			t.Errorf("corrected: %v", h)
		}
	})
}

func TestSamplesOfManyHostsGoTogether(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 50, "")
		s.own("kvm")
		s.pass(time.Minute)
		s.sink.mu.Lock()
		defer s.sink.mu.Unlock()
		if n := len(s.sink.hosts); n < 50*10 || s.sink.given > 61 {
			t.Errorf("in a minute %d samples were given at %d times", n, s.sink.given)
		}
	})
}

// What a cluster of any size reports passes the rules by which brokers judge: a noun that they refuse holds up all that goes
// up beside it.
func TestWhatALargeClusterReportsIsWithinTheRules(t *testing.T) {
	rules, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, hosts := range []int{1, 10_000, 100_000, 10_000_000} {
		var all sum
		for range min(hosts, 10) {
			all.add(&apiv1.Resources{Cores: uint32(hosts * 256 / min(hosts, 10)), MemoryMib: 1 << 31, DiskGib: 1 << 31}, 400, 0)
		}
		if err := rules.Validate(&apiv1.Cluster{Id: "kvm", Total: all.resources()}); err != nil {
			t.Errorf("%d hosts: %v", hosts, err)
		}
		if hosts == 10_000 && all.resources().GetCores() != 10_000*256*4 {
			t.Errorf("10,000 hosts have %v", all.resources())
		}
	}
}

func TestAFleetIsFirstSeenInFewTransactions(t *testing.T) {
	within(t, func(s *site) {
		const hosts = 1000
		s.cluster("kvm", hosts, "latency=20ms")
		before := s.zone.Commits()
		s.own("kvm")
		s.pass(10 * time.Second)
		for i := range hosts {
			if h := s.zone.Host(fmt.Sprintf("kvm-%d", i+1)); h.GetHealth() != apiv1.Host_AVAILABLE {
				t.Fatalf("host %d of the fleet is %v", i+1, h)
			}
		}
		if n := s.zone.Commits() - before; n > hosts/10 {
			t.Errorf("%d transactions for %d hosts", n, hosts)
		}
	})
}
