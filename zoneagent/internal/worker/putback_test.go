package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

// creations is how often a VM was made, on all hosts of a cluster.
func (s *site) creations(cluster, vm string, hosts int) (n int) {
	for i := range hosts {
		n += s.fleet.Knobs(fmt.Sprintf("%s-%d", cluster, i+1)).Creations(vm)
	}
	return n
}

// P3: the store is put back to a backup that knows nothing of VMs that run. They are taken over where they are; none is
// made a second time, by this owner or the next.
func TestAStoreThatWasPutBackFindsItsVMsWhereTheyAre(t *testing.T) {
	for _, sameOwner := range []bool{true, false} {
		within(t, func(s *site) {
			s.cluster("kvm", 3, "")
			s.own("kvm")
			for _, id := range []string{"a", "b", "c", "d"} {
				s.running("kvm", id)
			}
			s.want(s.vm("kvm", "c", wanting(apiv1.VM_STOPPED)))
			s.pass(10 * time.Second)
			where, addresses := map[string]string{}, map[string]string{}
			for _, id := range []string{"a", "b", "c", "d"} {
				where[id], addresses[id] = s.zone.VM(id).GetHostId(), s.zone.VM(id).GetAddress()
			}
			s.want(s.vm("kvm", "d", wanting(apiv1.VM_DELETED)))
			s.zone.PutBack()
			if !sameOwner {
				s.own("kvm")
			}
			s.pass(time.Minute)
			for _, id := range []string{"a", "b"} {
				vm := s.zone.VM(id)
				if vm.GetHostId() != where[id] || vm.GetState() != apiv1.VM_RUNNING {
					t.Errorf("%s was on %s, observed %v", id, where[id], vm)
				}
				s.equal(id+" runs on", s.fleet.Running(id), "["+where[id]+"]")
			}
			if vm := s.zone.VM("c"); vm.GetHostId() != where["c"] || vm.GetState() != apiv1.VM_STOPPED {
				t.Errorf("c was on %s, observed %v", where["c"], vm)
			}
			for _, id := range []string{"a", "b", "c"} {
				s.equal("address of "+id, s.zone.VM(id).GetAddress(), addresses[id])
			}
			s.equal("d was wanted away", s.zone.Tombstones("vm", "d"), 1)
			s.equal("d runs on", s.fleet.Running("d"), "[]")
			for _, id := range []string{"a", "b", "c", "d"} {
				s.equal("creations of "+id, s.creations("kvm", id, 3), 1)
			}
		})
	}
}

// While a host is silent that may have them, VMs that are older than the store wait; newer ones do not.
func TestAVMThatMayBeOnASilentHostIsNotMadeAgain(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2, "")
		s.own("kvm")
		s.running("kvm", "a")
		home := s.zone.VM("a").GetHostId()
		s.silence(home, (*sim.Knobs).Cut)
		s.pass(20 * time.Second)
		s.zone.PutBack()
		s.pass(6 * time.Minute)
		if vm := s.zone.VM("a"); vm != nil {
			t.Errorf("observed %v", vm)
		}
		s.running("kvm", "new")
		s.pass(5 * time.Minute)
		if vm := s.zone.VM("a"); vm.GetError().GetCode() != string(problem.Unavailable) {
			t.Errorf("when it has waited long enough: %v", vm)
		}
		s.restore(home)
		s.want(s.vm("kvm", "a", func(vm *apiv1.VM) { vm.CreatedAt = nil }))
		s.pass(30 * time.Second)
		if vm := s.zone.VM("a"); vm.GetHostId() != home || vm.GetState() != apiv1.VM_RUNNING {
			t.Errorf("its host is back: %v", vm)
		}
		s.equal("creations", s.creations("kvm", "a", 2), 1)
	})
}

// P24: what a store remembers that was put back is old: a VM that it would start was stopped since, or is gone.
func TestAZoneThatIsBehindDoesNothingToVMs(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "latency=100ms")
		s.own("kvm")
		s.running("kvm", "idle")
		s.want(s.vm("kvm", "begun"))
		s.pass(300 * time.Millisecond)
		s.zone.Put(etcdstore.Cursor, "", "", &zonev1.Cursor{Syncing: true, Behind: true})
		s.pass(time.Second)
		steps := s.count("disk", "begun") + s.count("seed", "begun") + s.count("define", "begun") + s.count("start", "begun")
		s.want(s.vm("kvm", "idle", wanting(apiv1.VM_STOPPED), forced))
		order := s.order("kvm", "idle")
		s.fleet.Knobs("kvm-1").PowerOff("idle")
		s.pass(time.Minute)
		if now := s.count("disk", "begun") + s.count("seed", "begun") + s.count("define", "begun") + s.count("start", "begun"); now > steps || s.count("start", "begun") > 0 {
			t.Errorf("%d steps were made when it was behind, %d of them start", now-steps, s.count("start", "begun"))
		}
		s.equal("acts on the other", s.count("cut", "idle")+s.count("reboot", "idle"), 0)
		if vm := s.zone.VM("idle"); vm.GetPower() != apiv1.VM_OFF {
			t.Errorf("what is seen is written all the same: %v", vm)
		}
		s.zone.Put(etcdstore.Cursor, "", "", &zonev1.Cursor{})
		s.pass(10 * time.Second)
		if vm := s.zone.VM("begun"); vm.GetState() != apiv1.VM_RUNNING {
			t.Errorf("when it knows all again: %v", vm)
		}
		s.equal("the order", s.outcome(order), "WRONG_STATE")
	})
}

// P24: a VM that a store remembers which was put back, and that nobody else has any more, was deleted since. It is no loss to
// tell of, unless the control plane has forgotten too.
func TestAVMThatWasDeletedAfterTheBackupIsForgottenAgain(t *testing.T) {
	cursor := func(epoch uint64, behind bool) *zonev1.Cursor {
		return &zonev1.Cursor{Point: &linkv1.StateAckPoint{Epoch: epoch}, Syncing: behind, Behind: behind}
	}
	ended := func(s *site) { s.zone.Put(etcdstore.Desired, "vm", "a", nil) }
	unnamed := func(s *site) {
		s.zone.Put(etcdstore.Unclaimed, "vm", "a", &apiv1.Reference{Kind: "vm", Id: "a"})
	}
	for name, c := range map[string]struct {
		told  func(s *site)
		epoch uint64
		goes  bool
	}{
		"the control plane says so":                    {ended, 1, true},
		"it does not name it":                          {unnamed, 1, true},
		"it does not name it, and was itself put back": {unnamed, 2, false},
		"it names it":                                  {func(*site) {}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func(s *site) {
				s.cluster("kvm", 1, "")
				s.own("kvm")
				s.zone.Put(etcdstore.Cursor, "", "", cursor(1, false))
				s.running("kvm", "a")
				s.running("kvm", "b")
				s.zone.Put(etcdstore.Cursor, "", "", cursor(1, true))
				s.fleet.Knobs("kvm-1").Lose("a")
				s.pass(time.Minute)
				s.equal("told before the control plane has told all", s.zone.Events("a"), "[vm.usable]")
				c.told(s)
				s.zone.Put(etcdstore.Cursor, "", "", cursor(c.epoch, false))
				s.pass(time.Minute)
				if c.goes {
					s.equal("events", s.zone.Events("a"), "[vm.usable]")
					s.equal("tombstones", s.zone.Tombstones("vm", "a"), 1)
				} else {
					s.equal("events", s.zone.Events("a"), "[vm.usable vm.missing]")
					s.equal("power", s.zone.VM("a").GetPower(), apiv1.VM_MISSING)
				}
				s.equal("the other's state", s.zone.VM("b").GetState(), apiv1.VM_RUNNING)
			})
		})
	}
}

func TestAnOrderForAVMThatIsNotNamedIsRefused(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "a")
		s.zone.Put(etcdstore.Cursor, "", "", &zonev1.Cursor{Syncing: true})
		order := s.order("kvm", "a")
		s.pass(time.Minute)
		s.equal("before the sync has ended", s.outcome(order), "")
		s.zone.Put(etcdstore.Unclaimed, "vm", "a", &apiv1.Reference{Kind: "vm", Id: "a"})
		s.zone.Put(etcdstore.Cursor, "", "", &zonev1.Cursor{})
		s.pass(10 * time.Second)
		s.equal("the order", s.outcome(order), "CONFLICT")
		s.equal("reboots", s.count("reboot", "a"), 0)
	})
}

// P2: a call that was under way when the store was put back takes effect after its host was looked at.
func TestAHostIsNotAskedWhatItHasWhileAnEarlierCallIsUnderWay(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 3, "")
		s.own("kvm")
		s.pass(time.Second)
		s.stall["define"] = 20 * time.Second
		s.want(s.vm("kvm", "a"))
		s.pass(time.Second)
		home := s.zone.VM("a").GetHostId()
		s.zone.PutBack()
		s.zone.Want(&apiv1.Host{Id: home, Name: home, ClusterId: "kvm", Cluster: "kvm", Endpoint: "sim://?", AdminState: apiv1.Host_CORDONED})
		s.pass(2 * time.Minute)
		if vm := s.zone.VM("a"); vm.GetHostId() != home || vm.GetState() != apiv1.VM_RUNNING {
			t.Errorf("it was made on %s, observed %v", home, vm)
		}
		s.equal("creations", s.creations("kvm", "a", 3), 1)
	})
}

// P2: the store is put back in the middle of every step of a VM's making, calls under way included.
func TestAStoreThatIsPutBackWhileAVMIsBuiltMakesNoSecondOne(t *testing.T) {
	for at := time.Duration(0); at < 900*time.Millisecond; at += 20 * time.Millisecond {
		within(t, func(s *site) {
			s.cluster("kvm", 3, "latency=40ms")
			s.own("kvm")
			s.pass(time.Second)
			s.want(s.vm("kvm", "a"))
			s.pass(at)
			s.zone.PutBack()
			s.pass(2 * time.Minute)
			if vm := s.zone.VM("a"); vm.GetState() != apiv1.VM_RUNNING {
				t.Errorf("after %s: %v", at, vm)
			}
			if on := s.fleet.Running("a"); len(on) != 1 {
				t.Errorf("after %s: it runs on %v", at, on)
			}
			s.equal("creations when the store was put back after "+at.String(), s.creations("kvm", "a", 3), 1)
		})
	}
}
