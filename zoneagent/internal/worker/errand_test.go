package worker

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

func size(cores, memoryMiB, diskGiB uint32) *apiv1.Resources {
	return &apiv1.Resources{Cores: cores, MemoryMib: memoryMiB, DiskGib: diskGiB}
}

// resizing wishes another size; a VM that is on may be stopped for it.
func resizing(to *apiv1.Resources) func(*apiv1.VM) {
	return func(vm *apiv1.VM) {
		vm.Size, vm.Errand = to, &apiv1.VM_Errand{Kind: apiv1.VM_Errand_RESIZE, MayStop: true}
	}
}

func withSnapshot(kind apiv1.VM_Errand_Kind, id string) func(*apiv1.VM) {
	return func(vm *apiv1.VM) {
		vm.Errand = &apiv1.VM_Errand{Kind: kind, SnapshotId: id, Snapshot: "name-of-" + id, MayStop: true}
	}
}

func mayNotStop(vm *apiv1.VM) { vm.Errand.MayStop = false }

func (s *site) allocated(host string) *apiv1.Resources {
	m, _ := s.zone.Get(etcdstore.Allocation, "", host)
	a, _ := m.(*zonev1.Allocation)
	return a.GetUsed()
}

func (s *site) has(vm, host string, size *apiv1.Resources) {
	s.t.Helper()
	is := s.zone.VM(vm)
	if !proto.Equal(is.GetActual(), size) || !proto.Equal(is.GetAllocated(), size) {
		s.t.Errorf("%s has %v and takes %v, want %v", vm, is.GetActual(), is.GetAllocated(), size)
	}
	if on := s.fleet.Knobs(host).Size(vm); !proto.Equal(on, size) {
		s.t.Errorf("on its host %s has %v, want %v", vm, on, size)
	}
}

// snapshots are those that are known of a VM.
func (s *site) snapshots(vm string) (ids []string) {
	for _, item := range s.zone.VM(vm).GetSnapshots().GetItems() {
		ids = append(ids, item.GetId())
	}
	return ids
}

func TestARunningVMIsStoppedResizedAndStartedAgain(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		op := s.want(s.vm("kvm", "web-1", resizing(size(2, 2048, 20))))
		s.pass(10 * time.Second)
		s.equal("outcome", s.outcome(op), "done")
		s.equal("steps", s.steps(op), "[room resize start resize]")
		s.has("web-1", "kvm-1", size(2, 2048, 20))
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING || vm.GetTask() != 0 {
			t.Errorf("afterwards it is %v", vm)
		}
		s.equal("asked to power off", s.count("stop", "web-1"), 1)
		s.equal("usage", s.usage("web-1"), "[RUNNING RUNNING]")
		entries := s.zone.Journal()
		for _, e := range entries {
			if u := e.GetUsage(); u != nil && e == entries[len(entries)-1] && !proto.Equal(u.GetSize(), size(2, 2048, 20)) {
				t.Errorf("metered with %v", u.GetSize())
			}
		}
		if used := s.allocated("kvm-1"); !proto.Equal(used, size(2, 2048, 20)) {
			t.Errorf("allocated %v", used)
		}

		op = s.want(s.vm("kvm", "web-1", resizing(size(1, 1024, 20))))
		s.pass(10 * time.Second)
		s.equal("a smaller size", s.outcome(op), "done")
		s.has("web-1", "kvm-1", size(1, 1024, 20))
	})
}

func TestAStoppedVMIsResizedAndStaysOff(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
		s.pass(10 * time.Second)
		op := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED), resizing(size(2, 512, 10)), mayNotStop))
		s.pass(10 * time.Second)
		s.equal("outcome", s.outcome(op), "done")
		s.has("web-1", "kvm-1", size(2, 512, 10))
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_STOPPED || s.count("start", "web-1") != 1 {
			t.Errorf("afterwards it is %v, started %d times", vm, s.count("start", "web-1"))
		}
	})
}

func TestAGuestThatPermitsItIsResizedLive(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "live=true")
		s.own("kvm")
		s.running("kvm", "web-1")
		op := s.want(s.vm("kvm", "web-1", resizing(size(2, 2048, 20)), mayNotStop))
		s.pass(10 * time.Second)
		s.equal("outcome", s.outcome(op), "done")
		s.has("web-1", "kvm-1", size(2, 2048, 20))
		s.equal("asked to power off", s.count("stop", "web-1")+s.count("cut", "web-1"), 0)
	})
}

func TestAVMThatMayNotBeStoppedForItIsLeftAsItIs(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		op := s.want(s.vm("kvm", "web-1", resizing(size(2, 2048, 20)), mayNotStop))
		s.pass(10 * time.Second)
		s.equal("outcome", s.outcome(op), problem.WrongState)
		s.has("web-1", "kvm-1", size(1, 1024, 10))
		op = s.want(s.vm("kvm", "web-1", withSnapshot(apiv1.VM_Errand_SNAPSHOT, "s1"), mayNotStop))
		s.pass(10 * time.Second)
		s.equal("a snapshot", s.outcome(op), problem.WrongState)
		s.equal("snapshots", s.snapshots("web-1"), "[]")
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING || s.count("stop", "web-1") != 0 {
			t.Errorf("it is %v", vm)
		}
		if used := s.allocated("kvm-1"); !proto.Equal(used, size(1, 1024, 10)) {
			t.Errorf("allocated %v", used)
		}
	})
}

func TestAVMWhoseHostHasNoRoomIsNotResizedAndTheRefusalSaysWhoHas(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2, "cores=4")
		s.own("kvm")
		for _, id := range []string{"a", "b"} { // one on each
			s.running("kvm", id)
		}
		on := s.zone.VM("a").GetHost()
		s.want(s.vm("kvm", "c", func(vm *apiv1.VM) { vm.Size.Cores = 3 })) // fills the first
		s.pass(10 * time.Second)
		full := s.zone.VM("c").GetHost()
		victim := map[bool]string{true: "a", false: "b"}[on == full]
		op := s.want(s.vm("kvm", victim, resizing(size(2, 1024, 10))))
		s.pass(10 * time.Second)
		s.equal("outcome", s.outcome(op), problem.NoHostFits)
		reports := s.zone.Reports(op)
		why := reports[len(reports)-1].GetError().GetDetail()
		if !strings.HasPrefix(why, "Host "+full+" of VM "+victim+" lacks cores: 1 core free for it, 2 cores asked. It would fit on kvm-") {
			t.Errorf("it says %q", why)
		}
		s.has(victim, full, size(1, 1024, 10))
		s.equal("asked to power off", s.count("stop", victim), 0)
		if vm := s.zone.VM(victim); vm.GetState() != apiv1.VM_RUNNING || vm.GetTask() != 0 {
			t.Errorf("it is %v", vm)
		}

		// A wish after it has nothing to do with the size that was refused.
		s.want(s.vm("kvm", victim, wanting(apiv1.VM_STOPPED), func(vm *apiv1.VM) { vm.Size = size(2, 1024, 10) }))
		s.pass(5 * time.Second)
		s.want(s.vm("kvm", victim, func(vm *apiv1.VM) { vm.Size = size(2, 1024, 10) }))
		s.pass(10 * time.Second)
		s.has(victim, full, size(1, 1024, 10))
	})
}

func TestASnapshotIsTakenRestoredAndRemoved(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		disk := s.fleet.Knobs("kvm-1")
		disk.Write("web-1", "before")
		op := s.want(s.vm("kvm", "web-1", withSnapshot(apiv1.VM_Errand_SNAPSHOT, "s1")))
		s.pass(10 * time.Second)
		s.equal("taking it", s.outcome(op), "done")
		s.equal("steps", s.steps(op), "[snapshot start snapshot]")
		s.equal("snapshots", s.snapshots("web-1"), "[s1]")
		item := s.zone.VM("web-1").GetSnapshots().GetItems()[0]
		if item.GetName() != "name-of-s1" || item.GetTakenAt() == nil || item.GetDiskGib() != 10 {
			t.Errorf("told of it: %v", item)
		}
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING {
			t.Errorf("afterwards it is %v", vm)
		}

		disk.Write("web-1", "after")
		op = s.want(s.vm("kvm", "web-1", withSnapshot(apiv1.VM_Errand_RESTORE, "s1")))
		s.pass(10 * time.Second)
		s.equal("restoring it", s.outcome(op), "done")
		s.equal("its disk", disk.Read("web-1"), "before")
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING || vm.GetTask() != 0 {
			t.Errorf("afterwards it is %v", vm)
		}

		stops := s.count("stop", "web-1")
		op = s.want(s.vm("kvm", "web-1", withSnapshot(apiv1.VM_Errand_DROP, "s1")))
		s.pass(10 * time.Second)
		s.equal("removing it", s.outcome(op), "done")
		s.equal("snapshots", s.snapshots("web-1"), "[]")
		s.equal("it was stopped for that", s.count("stop", "web-1"), stops)

		op = s.want(s.vm("kvm", "web-1", withSnapshot(apiv1.VM_Errand_RESTORE, "s1")))
		s.pass(10 * time.Second)
		s.equal("restoring what is gone", s.outcome(op), problem.NotFound)
		s.equal("its disk", disk.Read("web-1"), "before")
	})
}

// What a guest has written since is not lost, whoever comes and goes: a restore is done once.
func TestARestoreIsNotDoneAgainByWhoComesAfter(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		disk := s.fleet.Knobs("kvm-1")
		disk.Write("web-1", "before")
		s.want(s.vm("kvm", "web-1", withSnapshot(apiv1.VM_Errand_SNAPSHOT, "s1")))
		s.pass(10 * time.Second)
		op := s.want(s.vm("kvm", "web-1", withSnapshot(apiv1.VM_Errand_RESTORE, "s1")))
		s.pass(10 * time.Second)
		s.equal("restoring it", s.outcome(op), "done")
		disk.Write("web-1", "since")
		done := s.count("restore", "web-1")
		s.own("kvm")
		s.zone.Reset()
		s.pass(10 * time.Second)
		s.equal("restored", s.count("restore", "web-1"), done)

		// Even a store that has forgotten that it was done does not have it done again.
		s.zone.PutBack()
		s.pass(30 * time.Second)
		s.equal("restored", s.count("restore", "web-1"), done)
		s.equal("its disk", disk.Read("web-1"), "since")
		s.equal("snapshots", s.snapshots("web-1"), "[s1]") // its host remembers
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING || vm.GetReached().GetIndex() != s.index {
			t.Errorf("it is %v", vm)
		}
	})
}

func TestAVMInTheTrashIsOffAndKeepsWhatItHas(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		disk := s.fleet.Knobs("kvm-1")
		disk.Write("web-1", "mine")
		address := s.zone.VM("web-1").GetAddress()
		op := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_TRASHED)))
		s.pass(10 * time.Second)
		s.equal("outcome", s.outcome(op), "done")
		vm := s.zone.VM("web-1")
		if vm.GetState() != apiv1.VM_TRASHED || vm.GetPower() != apiv1.VM_OFF || vm.GetAddress() != address || vm.GetHostId() != "kvm-1" {
			t.Errorf("in the trash it is %v", vm)
		}
		s.own("kvm")
		s.pass(30 * time.Second)
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_TRASHED {
			t.Errorf("to the next owner it is %v", vm)
		}
		op = s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
		s.pass(10 * time.Second)
		s.equal("out of it", s.outcome(op), "done")
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_STOPPED || s.count("start", "web-1") != 1 {
			t.Errorf("out of the trash it is %v", vm)
		}
		s.equal("its disk", disk.Read("web-1"), "mine")
		s.equal("events", s.zone.Events("web-1"), "[vm.usable vm.trashed vm.untrashed]")
		s.equal("usage", s.usage("web-1"), "[RUNNING TRASHED STOPPED]")

		s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_TRASHED)))
		s.pass(10 * time.Second)
		s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.pass(10 * time.Second)
		s.equal("left on the host", disk.VMs(), "[]")
	})
}

func TestAWishThatTakesAnErrandsPlaceLeavesTheSizeThatIsThere(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "shutdown=20s")
		s.own("kvm")
		s.running("kvm", "web-1")
		first := s.want(s.vm("kvm", "web-1", resizing(size(2, 2048, 20))))
		s.pass(5 * time.Second) // its guest is on its way down
		second := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED), func(vm *apiv1.VM) { vm.Size = size(2, 2048, 20) }))
		s.pass(time.Minute)
		s.equal("outcomes", fmt.Sprint(s.outcome(first), " ", s.outcome(second)), fmt.Sprint(problem.Cancelled, " done"))
		s.has("web-1", "kvm-1", size(1, 1024, 10))
		if used := s.allocated("kvm-1"); !proto.Equal(used, size(1, 1024, 10)) {
			t.Errorf("allocated %v", used)
		}
	})
}

// P17: whatever is lost, failing, cut off or killed in the middle, what is asked of a VM once is done once or not at all, the books
// say what its host has, and nothing that a guest wrote is lost without that having been asked.
func TestWhateverHappensAnErrandIsDoneOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bubble(t, func(t testing.TB) {
			e := &errandChaos{chaos: chaos{site: newSite(t), rt: rt, wanted: map[string]*apiv1.VM{}, lost: map[string]bool{}, dead: map[string]bool{}}}
			defer e.stopAll()
			e.run()
		})
	})
}

type errandChaos struct {
	chaos
	kept map[string]string // what the disk held when a snapshot was taken
	disk string            // what it holds
	size *apiv1.Resources
}

func (e *errandChaos) run() {
	var failures atomic.Int64
	e.zone.Fault = func() error {
		if failures.Add(-1) >= 0 {
			return errors.New("etcd is away")
		}
		return nil
	}
	e.cluster("kvm", 1, fmt.Sprintf("latency=%dms&boot=%dms&shutdown=%s&live=%v",
		rapid.IntRange(0, 50).Draw(e.rt, "latency"), rapid.IntRange(0, 3000).Draw(e.rt, "boot"),
		rapid.SampledFrom([]string{"100ms", "5s", "-1s"}).Draw(e.rt, "shutdown"), rapid.Bool().Draw(e.rt, "live")))
	e.own("kvm")
	e.running("kvm", "vm")
	disk := e.fleet.Knobs("kvm-1")
	e.kept, e.size = map[string]string{}, size(1, 1024, 10)
	for n := range rapid.IntRange(1, 8).Draw(e.rt, "errands") {
		e.disk = fmt.Sprint("written ", n)
		disk.Write("vm", e.disk)
		desired := rapid.SampledFrom([]apiv1.VM_State{apiv1.VM_RUNNING, apiv1.VM_STOPPED}).Draw(e.rt, "desired")
		vm := e.vm("kvm", "vm", wanting(desired), func(vm *apiv1.VM) { vm.Size = proto.CloneOf(e.size) })
		snapshot := fmt.Sprintf("s%d", rapid.IntRange(0, 3).Draw(e.rt, "snapshot"))
		kind := apiv1.VM_Errand_Kind(rapid.IntRange(1, 4).Draw(e.rt, "kind"))
		withSnapshot(kind, snapshot)(vm)
		if kind == apiv1.VM_Errand_RESIZE {
			vm.Size = size(rapid.Uint32Range(1, 10).Draw(e.rt, "cores"), rapid.Uint32Range(1, 4).Draw(e.rt, "memory")*512, e.size.DiskGib+rapid.Uint32Range(0, 5).Draw(e.rt, "disk"))
		}
		vm.Errand.MayStop = rapid.IntRange(0, 4).Draw(e.rt, "may stop") > 0
		op := e.want(vm)
		for range rapid.IntRange(0, 6).Draw(e.rt, "faults") {
			switch rapid.SampledFrom([]string{"fail", "lose reply", "store", "kill agent", "cut", "watch", "late owner"}).Draw(e.rt, "fault") {
			case "fail":
				disk.FailNext(rapid.IntRange(1, 4).Draw(e.rt, "calls"))
			case "lose reply":
				disk.LoseNext(rapid.IntRange(1, 3).Draw(e.rt, "calls"))
			case "store":
				failures.Store(rapid.Int64Range(1, 4).Draw(e.rt, "failures"))
			case "kill agent":
				e.own("kvm")
			case "cut":
				e.silenceOnce("kvm-1", (*sim.Knobs).Cut)
			case "late owner":
				left := time.Duration(rapid.IntRange(0, 300).Draw(e.rt, "left")) * time.Millisecond
				e.agents["kvm"].owner.Extend(left)
				e.pass(left + time.Millisecond)
				e.own("kvm")
			case "watch":
				e.zone.Reset()
			}
			e.pass(time.Duration(rapid.SampledFrom([]int{0, 10, 60, 300, 3000}).Draw(e.rt, "pause")) * time.Millisecond)
			if e.dead["kvm-1"] && rapid.Bool().Draw(e.rt, "restore") {
				e.restore("kvm-1")
				delete(e.dead, "kvm-1")
			}
		}
		e.restore("kvm-1")
		delete(e.dead, "kvm-1")
		e.pass(15 * time.Minute)
		e.judge(op, vm)
	}
}

// judge compares what came of an errand with what may have.
func (e *errandChaos) judge(op string, vm *apiv1.VM) {
	for _, w := range e.wrong {
		e.rt.Fatal(w)
	}
	is, disk, outcome := e.zone.VM("vm"), e.fleet.Knobs("kvm-1"), e.outcome(op)
	done, id := outcome == "done", vm.Errand.SnapshotId
	if outcome == "" {
		e.rt.Fatalf("%v has not ended: %v", vm.Errand, is)
	}
	if m, _ := e.zone.Get(etcdstore.Work, "", "vm"); m != nil {
		e.rt.Fatalf("work is left: %v", m)
	}
	if done && (is.GetState() != vm.DesiredState || is.GetTask() != 0) {
		e.rt.Fatalf("%v is done, and it is %v", vm.Errand, is)
	}
	on := disk.Size("vm")
	if !proto.Equal(is.GetActual(), on) || !proto.Equal(is.GetAllocated(), on) || !proto.Equal(e.allocated("kvm-1"), on) {
		e.rt.Fatalf("the books say %v, %v and %v, and it has %v", is.GetActual(), is.GetAllocated(), e.allocated("kvm-1"), on)
	}
	has, before := map[string]bool{}, len(e.kept)
	for _, s := range e.snapshots("vm") {
		has[s] = true
	}
	holds := disk.Read("vm")
	switch vm.Errand.Kind {
	case apiv1.VM_Errand_RESIZE:
		if done && !proto.Equal(on, vm.Size) {
			e.rt.Fatalf("it was resized to %v, and has %v", vm.Size, on)
		}
		if on.GetCores() > 8 {
			e.rt.Fatalf("it has %d of 8 cores", on.GetCores())
		}
	case apiv1.VM_Errand_SNAPSHOT:
		if done && !has[id] {
			e.rt.Fatalf("%s was taken and is not there", id)
		}
		if _, known := e.kept[id]; has[id] && !known {
			e.kept[id] = e.disk
		}
	case apiv1.VM_Errand_RESTORE:
		if want, known := e.kept[id]; known && (done && holds != want || holds != want && holds != e.disk) {
			e.rt.Fatalf("%s kept %q; restoring it ended with %s, and the disk holds %q", id, want, outcome, holds)
		} else if known {
			e.disk = holds
		} else if outcome == "done" {
			e.rt.Fatalf("%s was restored, and never taken", id)
		}
	case apiv1.VM_Errand_DROP:
		if done && has[id] {
			e.rt.Fatalf("%s was removed and is there", id)
		}
		if !has[id] {
			delete(e.kept, id)
			before = len(e.kept)
		}
	}
	if holds != e.disk {
		e.rt.Fatalf("the disk holds %q, want %q", holds, e.disk)
	}
	if !proto.Equal(on, e.size) && vm.Errand.Kind != apiv1.VM_Errand_RESIZE {
		e.rt.Fatalf("it had %v, and has %v", e.size, on)
	}
	e.size = on
	if len(has) != len(e.kept) || len(e.kept) < before {
		e.rt.Fatalf("it has snapshots %v, want %v", has, e.kept)
	}
	// A minute later, and to another owner, all is as it was.
	e.disk = "later"
	disk.Write("vm", e.disk)
	e.own("kvm")
	e.pass(time.Minute)
	if holds := disk.Read("vm"); holds != e.disk {
		e.rt.Fatalf("what was written since %v is gone: the disk holds %q", vm.Errand, holds)
	}
}
