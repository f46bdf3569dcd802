package schedule

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// standing places a VM of so many cores.
func (s *site) standing(cluster, id string, cores uint32) *apiv1.VM {
	s.t.Helper()
	vm := s.vm(cluster, id, sized(cores, 1024))
	s.zone.Want(vm)
	synctest.Wait()
	if s.zone.VM(id).GetHostId() == "" {
		s.t.Fatalf("%s is not placed: %v", id, s.zone.VM(id))
	}
	return vm
}

// forVM makes a reservation one for what a VM is to get in addition.
func forVM(id string, cores uint32) func(*apiv1.Reservation) {
	return func(m *apiv1.Reservation) {
		m.Vm, m.VmId, m.Size = id, id, &apiv1.Resources{Cores: cores}
	}
}

// resize wishes another size of a VM, in a reservation's room where it names one.
func (s *site) resize(vm *apiv1.VM, cores uint32, reservation string) *apiv1.VM {
	s.index++
	next := proto.CloneOf(vm)
	next.Size = &apiv1.Resources{Cores: cores, MemoryMib: 1024, DiskGib: 10}
	next.Errand = &apiv1.VM_Errand{Kind: apiv1.VM_Errand_RESIZE, Reservation: reservation}
	next.Generation = &apiv1.Generation{Epoch: 1, Index: s.index}
	s.zone.Want(next)
	return next
}

// resized is the worker's word that a VM has what was wished.
func (s *site) resized(vm *apiv1.VM) {
	is := proto.CloneOf(s.zone.VM(vm.GetId()))
	is.Actual, is.Reached = vm.GetSize(), vm.GetGeneration()
	s.zone.Put(etcdstore.Observed, "vm", vm.GetId(), is)
	synctest.Wait()
}

func (s *site) allocated(id string, cores uint32) {
	s.t.Helper()
	if is := s.zone.VM(id); is.GetAllocated().GetCores() != cores {
		s.fail("%s has %v of its host, want %d cores: %v", id, is.GetAllocated(), cores, is.GetError())
	}
	s.audit()
}

// TestRoomToGrowIsKeptOnTheVMsOwnHostUntilItGrows though others ask for the last room on the host in between: between the approval and
// the carrying out, too.
func TestRoomToGrowIsKeptOnTheVMsOwnHostUntilItGrows(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1) // of 8 cores
		s.own("kvm")
		web := s.standing("kvm", "web", 2)
		other := s.standing("kvm", "other", 2)
		s.reserve("kvm", "hold", 1, forVM("web", 3))
		synctest.Wait()
		s.is("hold", apiv1.Reservation_HELD, 1)
		if u := s.hold("hold").GetUnits(); len(u) != 1 || u[0].GetHostId() != s.zone.VM("web").GetHostId() || u[0].GetVmId() != "" {
			t.Errorf("it is kept at %v", u)
		}
		// One core is free: a new VM, another's growth and another reservation of it get no more.
		s.zone.Want(s.vm("kvm", "new", sized(2, 1024)))
		s.resize(other, 4, "")
		s.reserve("kvm", "theirs", 1, cores(2))
		synctest.Wait()
		if is := s.zone.VM("new"); is.GetError().GetCode() != string(problem.NoHostFits) {
			t.Errorf("a new VM was given what is kept: %v", is)
		}
		s.allocated("other", 2)
		s.is("theirs", apiv1.Reservation_REFUSED, 0)
		// All at once: who is to grow, and who would take its room.
		s.zone.Want(s.vm("kvm", "rival", sized(3, 1024)))
		web = s.resize(web, 5, "hold")
		synctest.Wait()
		s.allocated("web", 5)
		s.is("hold", apiv1.Reservation_CONSUMED, 0)
		if u := s.hold("hold").GetUnits(); len(u) != 1 || u[0].GetVmId() != "web" {
			t.Errorf("it was taken by %v", u)
		}
		if s.zone.VM("rival").GetHostId() != "" {
			t.Error("a rival has the room too")
		}
		s.resized(web)
		s.allocated("web", 5)
	})
}

func TestGrowthThatItsHostHasNoRoomForIsRefusedThereThoughAnotherHasIt(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.standing("kvm", "web", 2)
		s.standing("kvm", "full", 5)
		s.host("kvm", "kvm-2", 8, 32768)
		s.reserve("kvm", "hold", 1, forVM("web", 2))
		s.reserve("kvm", "nobodys", 1, forVM("none", 2))
		synctest.Wait()
		s.is("hold", apiv1.Reservation_REFUSED, 0)
		if why := s.hold("hold").GetError().GetDetail(); !strings.Contains(why, "Host kvm-1 of VM web lacks cores") || !strings.Contains(why, "It would fit on kvm-2") {
			t.Errorf("it says %q", why)
		}
		s.is("nobodys", apiv1.Reservation_REFUSED, 0)
		if why := s.hold("nobodys").GetError().GetDetail(); why != "VM none is on no host" {
			t.Errorf("it says %q", why)
		}
	})
}

func TestRoomToGrowIsFreeAgainOnceReleasedOrLapsed(t *testing.T) {
	for name, end := range map[string]func(s *site){
		"released": func(s *site) {
			s.reserve("kvm", "hold", 1, forVM("web", 6), func(m *apiv1.Reservation) { m.DesiredState = apiv1.Reservation_RELEASED })
		},
		"lapsed": func(*site) { time.Sleep(2 * time.Hour) }, // the bubble's time
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func(s *site) {
				s.cluster("kvm", 1)
				s.own("kvm")
				web := s.standing("kvm", "web", 2)
				s.reserve("kvm", "hold", 1, forVM("web", 6))
				synctest.Wait()
				s.is("hold", apiv1.Reservation_HELD, 1)
				end(s)
				s.settle()
				s.zone.Want(s.vm("kvm", "new", sized(6, 1024)))
				synctest.Wait()
				if s.zone.VM("new").GetHostId() == "" {
					t.Errorf("the room is kept on: %v", s.hold("hold"))
				}
				s.resize(web, 8, "hold")
				synctest.Wait()
				s.allocated("web", 2)
			})
		})
	}
}

// TestAGrowthThatTheStoreHasForgottenIsNotKeptTwice: the store was put back to before the reservation was answered, and the VM has grown,
// or is about to.
func TestAGrowthThatTheStoreHasForgottenIsNotKeptTwice(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		web := s.standing("kvm", "web", 2)
		s.reserve("kvm", "hold", 1, forVM("web", 3))
		synctest.Wait()
		web = s.resize(web, 5, "hold")
		synctest.Wait()
		s.leave("kvm")
		s.zone.Put(etcdstore.Observed, "reservation", "hold", nil)
		s.own("kvm")
		synctest.Wait()
		s.is("hold", apiv1.Reservation_CONSUMED, 0)
		s.resized(web)
		s.allocated("web", 5)
		s.zone.Want(s.vm("kvm", "new", sized(3, 1024)))
		synctest.Wait()
		if s.zone.VM("new").GetHostId() == "" {
			t.Errorf("room is kept for nobody: %v", s.hold("hold"))
		}
	})
}
