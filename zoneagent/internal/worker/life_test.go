package worker

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

func TestAWantedVMIsBuiltStepByStepUntilItCanBeUsed(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "boot=6s")
		s.own("kvm")
		op := s.want(s.vm("kvm", "web-1"))
		s.pass(4 * time.Second)
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_BUILDING || vm.GetPower() != apiv1.VM_ON || vm.GetTask() != apiv1.VM_STARTING || vm.GetUsableAt() != nil {
			t.Errorf("while the guest boots: %v", vm)
		}
		s.equal("steps while it boots", s.steps(op), "[placed image disk seed define start]")
		s.pass(6 * time.Second)
		vm := s.zone.VM("web-1")
		want := &apiv1.VM{
			Id: "web-1", Name: "web-1", State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, Host: "kvm-1", HostId: "kvm-1",
			Address: "10.91.2.2", HostFreshness: apiv1.Freshness_LIVE, Reached: &apiv1.Generation{Epoch: 1, Index: 1},
			UsableAt: vm.GetUsableAt(), PowerChangedAt: vm.GetPowerChangedAt(),
			Actual: s.vm("kvm", "web-1").Size, Allocated: s.vm("kvm", "web-1").Size, Snapshots: &apiv1.VM_Snapshots{},
			Usage: &apiv1.VM_Usage{Number: 1, IncarnationId: "life-1", ClockId: "machine", State: apiv1.VM_RUNNING, Size: s.vm("kvm", "web-1").Size, At: vm.GetUsage().GetAt()},
		}
		if !proto.Equal(vm, want) || vm.UsableAt == nil || vm.PowerChangedAt == nil {
			t.Errorf("observed %v", vm)
		}
		s.equal("steps", s.steps(op), "[placed image disk seed define start usable]")
		s.equal("outcome", s.outcome(op), "done")
		s.equal("usage", s.usage("web-1"), "[RUNNING]")
		s.equal("events", s.zone.Events("web-1"), "[vm.usable]")
		if m, _ := s.zone.Get(etcdstore.Work, "", "web-1"); m != nil {
			t.Errorf("there is still work: %v", m)
		}
		progress := uint32(0)
		for _, r := range s.zone.Reports(op) {
			if r.GetProgress() < progress {
				t.Errorf("progress went from %d back to %d", progress, r.GetProgress())
			}
			progress = r.GetProgress()
		}
		s.equal("progress", progress, 100)
	})
}

func TestAVMIsStoppedStartedAndDeletedAsWanted(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")

		stop := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
		s.pass(5 * time.Second)
		vm := s.zone.VM("web-1")
		if vm.GetState() != apiv1.VM_STOPPED || vm.GetPower() != apiv1.VM_OFF || vm.GetTask() != 0 || vm.GetReached().GetIndex() != 2 {
			t.Errorf("stopped: %v", vm)
		}
		s.equal("stop", s.outcome(stop), "done")
		s.equal("guest asked", s.count("stop", "web-1"), 1)
		s.equal("power cut", s.count("cut", "web-1"), 0)

		start := s.want(s.vm("kvm", "web-1"))
		s.pass(5 * time.Second)
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING || vm.GetPower() != apiv1.VM_ON {
			t.Errorf("started: %v", vm)
		}
		s.equal("start", s.outcome(start), "done")
		s.equal("steps of the start", s.steps(start), "[start usable]")

		gone := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.pass(5 * time.Second)
		s.equal("delete", s.outcome(gone), "done")
		if vm := s.zone.VM("web-1"); vm != nil {
			t.Errorf("deleted: %v", vm)
		}
		s.equal("tombstones", s.zone.Tombstones("vm", "web-1"), 1)
		s.equal("left on the host", s.fleet.Knobs("kvm-1").VMs(), "[]")
		s.equal("usage", s.usage("web-1"), "[RUNNING STOPPED RUNNING DELETED]")
		s.equal("events", s.zone.Events("web-1"), "[vm.usable vm.stopped vm.started]")
		for _, space := range []etcdstore.Space{etcdstore.Work, etcdstore.Address} {
			s.zone.Each(space, func(_, id string, m proto.Message) { t.Errorf("%s %s is left", space, id) })
		}
		m, _ := s.zone.Get(etcdstore.Allocation, "", "kvm-1")
		s.equal("VMs allocated", m.(*zonev1.Allocation).GetVmCount(), 0)

		s.pass(time.Minute) // the control plane has not forgotten it yet
		s.equal("tombstones", s.zone.Tombstones("vm", "web-1"), 1)
	})
}

func TestAGuestThatDoesNotListenHasItsPowerCutAfterTheGrace(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "shutdown=-1s")
		s.own("kvm")
		s.running("kvm", "web-1")
		op := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
		s.pass(50 * time.Second)
		s.equal("power cut within the grace", s.count("cut", "web-1"), 0)
		s.pass(15 * time.Second)
		s.equal("power cut", s.count("cut", "web-1"), 1)
		s.equal("outcome", s.outcome(op), "done")

		s.want(s.vm("kvm", "web-1"))
		s.pass(5 * time.Second)
		op = s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED), forced))
		s.pass(2 * time.Second)
		s.equal("forced", s.outcome(op), "done")
		s.equal("guest asked", s.count("stop", "web-1"), 1)
	})
}

func TestAVMThatIsWantedStoppedFromTheStartIsBuiltAndStaysOff(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		op := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
		s.pass(5 * time.Second)
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_STOPPED || vm.GetPower() != apiv1.VM_OFF {
			t.Errorf("observed %v", vm)
		}
		s.equal("outcome", s.outcome(op), "done")
		s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 0)
	})
}

// A newer generation redirects the next step; its predecessor's operation ends, and says by what.
func TestWhatIsNewlyWantedRedirectsWhatIsUnderWay(t *testing.T) {
	for name, c := range map[string]struct {
		state apiv1.VM_State
		at    time.Duration
	}{
		"deleted while it is built": {apiv1.VM_DELETED, 150 * time.Millisecond},
		"deleted while it boots":    {apiv1.VM_DELETED, 2 * time.Second},
		"stopped while it is built": {apiv1.VM_STOPPED, 150 * time.Millisecond},
		"stopped while it boots":    {apiv1.VM_STOPPED, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func(s *site) {
				s.cluster("kvm", 1, "latency=50ms&boot=1m")
				s.own("kvm")
				s.pass(time.Second)
				first := s.want(s.vm("kvm", "web-1"))
				s.pass(c.at)
				second := s.want(s.vm("kvm", "web-1", wanting(c.state)))
				s.pass(70 * time.Second)
				s.equal("first", s.outcome(first), problem.Cancelled)
				s.equal("second", s.outcome(second), "done")
				if c.state == apiv1.VM_DELETED {
					s.equal("left on the host", s.fleet.Knobs("kvm-1").VMs(), "[]")
					s.equal("tombstones", s.zone.Tombstones("vm", "web-1"), 1)
				} else if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_STOPPED || vm.GetPower() != apiv1.VM_OFF {
					t.Errorf("observed %v", vm)
				}
			})
		})
	}
}

func TestAnOlderGenerationNeverUndoesANewerOne(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		older := s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED))
		s.running("kvm", "web-1")
		s.want(older)
		s.pass(time.Minute)
		s.own("kvm")
		s.pass(time.Minute)
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING {
			t.Errorf("observed %v", vm)
		}
		s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)
	})
}

func TestATemporaryFailureIsTriedAgainAndTold(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.pass(time.Second)
		op := s.want(s.vm("kvm", "web-1"))
		s.fleet.Knobs("kvm-1").FailNext(3)
		s.pass(30 * time.Second)
		s.equal("outcome", s.outcome(op), "done")
		s.equal("creations", s.fleet.Knobs("kvm-1").Creations("web-1"), 1)
	})
}

// P2: lost replies, at every call there is, make no second VM.
func TestLostRepliesMakeNoSecondVM(t *testing.T) {
	for skip := range 14 {
		within(t, func(s *site) {
			s.cluster("kvm", 1, "latency=10ms")
			s.own("kvm")
			s.pass(time.Second)
			op := s.want(s.vm("kvm", "web-1"))
			s.pass(time.Duration(skip) * 10 * time.Millisecond)
			s.fleet.Knobs("kvm-1").LoseNext(2)
			s.pass(time.Minute)
			s.equal("outcome", s.outcome(op), "done")
			s.equal("creations", s.fleet.Knobs("kvm-1").Creations("web-1"), 1)
			s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)
			s.equal("usage", s.usage("web-1"), "[RUNNING]")
		})
	}
}

func TestAFatalErrorEndsTheWorkWithItsReason(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		op := s.want(s.vm("kvm", "web-1", func(vm *apiv1.VM) { vm.ImageSha256 = "not a digest"; vm.ImageFormat = 99 }))
		s.pass(11 * time.Minute)
		vm := s.zone.VM("web-1")
		if vm.GetState() != apiv1.VM_ERROR || vm.GetError().GetDetail() == "" || vm.GetReached().GetIndex() != 1 {
			t.Errorf("observed %v", vm)
		}
		if out := s.outcome(op); out != string(problem.DriverFailed) && out != string(problem.Timeout) {
			t.Errorf("outcome %q", out)
		}

		// Asked again with what is right, it is built in its place.
		s.zone.Want(s.vm("kvm", "web-1"))
		s.pass(10 * time.Second)
		if vm := s.zone.VM("web-1"); vm.GetState() != apiv1.VM_RUNNING || vm.GetError() != nil {
			t.Errorf("after it was asked again: %v", vm)
		}
	})
}

// A guest that gives no sign of life is not an error: it may be an image without cloud-init.
func TestAGuestThatNeverSaysThatItIsReadyRunsWithAWarning(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "boot=100h")
		s.own("kvm")
		op := s.want(s.vm("kvm", "web-1"))
		s.pass(9 * time.Minute)
		s.equal("before the deadline", s.outcome(op), "")
		s.pass(2 * time.Minute)
		s.equal("outcome", s.outcome(op), "done")
		vm := s.zone.VM("web-1")
		if vm.GetState() != apiv1.VM_RUNNING || vm.GetUsableAt() != nil {
			t.Errorf("observed %v", vm)
		}
		s.equal("events", s.zone.Events("web-1"), "[vm.silent]")
	})
}

func TestAHostBuildsOnlySoManyAtOnce(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "latency=100ms&boot=5s&cores=64")
		s.own("kvm")
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			s.want(s.vm("kvm", id))
		}
		s.pass(2 * time.Second)
		building := 0
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			if s.zone.VM(id).GetPower() == apiv1.VM_ON {
				building++
			}
		}
		s.equal("on at once", building, 2)
		s.pass(30 * time.Second)
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			s.equal(id, s.zone.VM(id).GetState(), apiv1.VM_RUNNING)
		}
		s.equal("disks made at once", s.slow["disk"], 2)
	})
}

// A VM that does not come up keeps its place on the host for a while only.
func TestAGuestThatDoesNotComeUpDoesNotKeepOthersFromBeingBuilt(t *testing.T) {
	within(t, func(s *site) {
		s.limits.BuildsPerHost = 1
		s.cluster("kvm", 1, "boot=100h")
		s.own("kvm")
		s.want(s.vm("kvm", "a"))
		s.want(s.vm("kvm", "b"))
		s.pass(20 * time.Second)
		s.equal("b while a has the place", s.zone.VM("b").GetPower(), apiv1.VM_POWER_UNSPECIFIED)
		s.pass(20 * time.Second)
		s.equal("b", s.zone.VM("b").GetPower(), apiv1.VM_ON)
	})
}

// Whenever the agent dies, the next carries on: one VM is created, started once, and told once (P2, P17).
func TestTheNextOwnerCarriesOnWhereverTheLastOneDied(t *testing.T) {
	for at := time.Duration(0); at < 1300*time.Millisecond; at += 45 * time.Millisecond {
		within(t, func(s *site) {
			s.cluster("kvm", 1, "latency=40ms&boot=500ms")
			s.own("kvm")
			s.pass(500 * time.Millisecond)
			op := s.want(s.vm("kvm", "web-1"))
			s.pass(at)
			s.own("kvm")
			s.pass(10 * time.Second)
			s.equal("outcome", s.outcome(op), "done")
			s.equal("creations", s.fleet.Knobs("kvm-1").Creations("web-1"), 1)
			s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)
			s.equal("usage", s.usage("web-1"), "[RUNNING]")
			s.equal("events", s.zone.Events("web-1"), "[vm.usable]")

			op = s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
			s.pass(at)
			s.own("kvm")
			s.pass(10 * time.Second)
			s.equal("deletion", s.outcome(op), "done")
			s.equal("left on the host", s.fleet.Knobs("kvm-1").VMs(), "[]")
		})
	}
}

// The store tells late what this owner wrote itself: it goes on with what it knows, and does nothing twice.
func TestOldNewsOfItsOwnWritesIsPassedOver(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "latency=20ms")
		s.own("kvm")
		s.pass(time.Second)
		op := s.want(s.vm("kvm", "web-1"))
		s.pass(25 * time.Millisecond)
		s.zone.Silence(true)
		s.pass(10 * time.Second)
		s.equal("outcome", s.outcome(op), "done")
		calls := s.total()
		s.zone.Silence(false)
		s.pass(10 * time.Second)
		s.equal("steps", s.steps(op), "[placed image disk seed define start usable]")
		s.equal("calls when the news came", s.total()-calls, 0)

		op = s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.pass(25 * time.Millisecond)
		s.zone.Silence(true)
		s.pass(10 * time.Second)
		s.equal("deletion", s.outcome(op), "done")
		calls = s.total()
		s.zone.Silence(false)
		s.pass(10 * time.Second)
		s.equal("tombstones", s.zone.Tombstones("vm", "web-1"), 1)
		s.equal("calls when the news came", s.total()-calls, 0)
		s.equal("usage", s.usage("web-1"), "[RUNNING DELETED]")
	})
}

func TestAGuestThatPowersItselfOffEachTimeIsNotStartedForEver(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "boot=100h")
		s.own("kvm")
		op := s.want(s.vm("kvm", "web-1"))
		for range 20 {
			s.pass(time.Second)
			s.fleet.Knobs("kvm-1").PowerOff("web-1")
		}
		s.pass(2 * time.Second)
		s.equal("outcome", s.outcome(op), problem.DriverFailed)
		s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), startsAllowed)
	})
}

func TestAStoreThatFailsForAWhileDelaysWorkAndLosesNothing(t *testing.T) {
	within(t, func(s *site) {
		var n atomic.Int64
		s.zone.Fault = func() error {
			if n.Add(1)%2 == 0 {
				return sim.ErrInjected
			}
			return nil
		}
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.pass(time.Second)
		op := s.want(s.vm("kvm", "web-1"))
		s.pass(time.Minute)
		s.equal("outcome", s.outcome(op), "done")
		s.equal("steps", s.steps(op), "[placed image disk seed define start usable]")
		s.equal("usage", s.usage("web-1"), "[RUNNING]")
	})
}

// What quick steps leave behind is one record; slow ones are told of one by one. Either way each of them is told.
func TestStepsThatAreMadeInAMomentAreRecordedTogether(t *testing.T) {
	commits := map[string]int{}
	for _, latency := range []string{"0ms", "80ms"} {
		within(t, func(s *site) {
			s.cluster("kvm", 1, "latency="+latency)
			s.own("kvm")
			s.pass(10 * time.Second)
			before := s.zone.Commits()
			op := s.want(s.vm("kvm", "web-1"))
			s.pass(30 * time.Second)
			s.equal("outcome", s.outcome(op), "done")
			commits[latency] = s.zone.Commits() - before
			for _, step := range chain {
				if !slices.Contains(s.steps(op), step.name) {
					t.Errorf("with a latency of %s the operation tells of %v, not of %s", latency, s.steps(op), step.name)
				}
			}
		})
	}
	if commits["0ms"]+len(chain)-1 != commits["80ms"] {
		t.Errorf("transactions by the hosts' latency: %v", commits)
	}
}
