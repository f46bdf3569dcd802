package schedule

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// reserve wants room for VMs of one core, for an hour.
func (s *site) reserve(cluster, id string, quantity uint32, change ...func(*apiv1.Reservation)) *apiv1.Reservation {
	s.index++
	m := &apiv1.Reservation{
		Id: id, ClusterId: cluster, Cluster: cluster, Quantity: quantity, DesiredState: apiv1.Reservation_HELD,
		Size:      &apiv1.Resources{Cores: 1, MemoryMib: 1024, DiskGib: 10},
		HoldUntil: timestamppb.New(time.Now().Add(time.Hour)), Generation: &apiv1.Generation{Epoch: 1, Index: s.index},
	}
	for _, c := range change {
		c(m)
	}
	s.zone.Want(m)
	return m
}

func (s *site) hold(id string) *apiv1.Reservation {
	m, _ := s.zone.Get(etcdstore.Observed, "reservation", id)
	r, _ := m.(*apiv1.Reservation)
	return r
}

func (s *site) is(id string, state apiv1.Reservation_State, left uint32) {
	s.t.Helper()
	if r := s.hold(id); r.GetState() != state || r.GetLeft() != left {
		s.fail("%s is %v with %d left, want %v with %d: %v", id, r.GetState(), r.GetLeft(), state, left, r)
	}
	s.audit()
}

func cores(n uint32) func(*apiv1.Reservation) {
	return func(m *apiv1.Reservation) { m.Size = &apiv1.Resources{Cores: n, MemoryMib: 1024, DiskGib: 10} }
}

func in(reservation string) func(*apiv1.VM) {
	return func(vm *apiv1.VM) { vm.Reservation = reservation }
}

func TestRoomThatIsHeldIsGivenToNobodyElse(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.reserve("kvm", "hold", 3, cores(2))
		synctest.Wait()
		s.is("hold", apiv1.Reservation_HELD, 3)
		s.zone.Want(s.vm("kvm", "a-small", sized(2, 1024)))
		s.zone.Want(s.vm("kvm", "other", sized(1, 1024)))
		synctest.Wait()
		if at := s.zone.VM("a-small").GetHostId(); at != "kvm-1" {
			t.Errorf("what is free was not given: it is on %q", at)
		}
		if is := s.zone.VM("other"); is.GetError().GetCode() != string(problem.NoHostFits) {
			t.Errorf("a VM was given what is held: %v", is)
		}
		s.audit()
	})
}

func TestAReservationIsHeldWholeOrRefusedHostByHost(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2)
		s.own("kvm")
		s.reserve("kvm", "hold", 5, cores(4))
		synctest.Wait()
		s.is("hold", apiv1.Reservation_REFUSED, 0)
		const want = "There is room for 4 of 5. For the next one: 2 hosts looked at: 2 lack cores (nearest: kvm-1 has 0 cores free, 4 cores asked)."
		if why := s.hold("hold").GetError(); why.GetDetail() != want || why.GetCode() != string(problem.NoHostFits) || len(why.GetClusters()) != 1 {
			t.Errorf("it says %v", why)
		}
		s.zone.Want(s.vm("kvm", "vm", sized(8, 1024)))
		synctest.Wait()
		if s.zone.VM("vm").GetHostId() == "" {
			t.Error("something is held of what was refused")
		}
	})
}

func TestAReservationThatIsSpreadHasEachUnitOnAHostOfItsOwn(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 3)
		s.own("kvm")
		apart := func(m *apiv1.Reservation) { m.Spread = true }
		s.reserve("kvm", "three", 3, apart)
		s.reserve("kvm", "four", 4, apart)
		synctest.Wait()
		s.is("three", apiv1.Reservation_HELD, 3)
		hosts := map[string]bool{}
		for _, u := range s.hold("three").GetUnits() {
			hosts[u.GetHost()] = true
		}
		if len(hosts) != 3 {
			t.Errorf("its units are on %v", hosts)
		}
		s.is("four", apiv1.Reservation_REFUSED, 0)
	})
}

func TestAVMTakesTheRoomOfTheReservationThatItNamesInOneTransaction(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.reserve("kvm", "hold", 2, cores(4))
		synctest.Wait()
		before := s.zone.Commits()
		s.zone.Want(s.vm("kvm", "one", sized(4, 1024), in("hold")))
		synctest.Wait()
		if n := s.zone.Commits() - before; n != 1 {
			t.Errorf("%d transactions, want 1", n)
		}
		s.is("hold", apiv1.Reservation_HELD, 1)
		s.zone.Want(s.vm("kvm", "two", sized(4, 1024), in("hold")))
		s.zone.Want(s.vm("kvm", "two-more", sized(4, 1024), in("hold")))
		synctest.Wait()
		s.is("hold", apiv1.Reservation_CONSUMED, 0)
		if s.zone.VM("one").GetHostId() == "" || s.zone.VM("two").GetHostId() == "" || s.zone.VM("two-more").GetState() != apiv1.VM_ERROR {
			t.Errorf("placed: %v, %v, %v", s.zone.VM("one"), s.zone.VM("two"), s.zone.VM("two-more"))
		}
	})
}

// A host can be cordoned, or be silent, when its room is wanted: then the VM takes other room, and what was held is free.
func TestAVMWhoseHostDoesNotTakeItExchangesItsRoom(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2)
		s.own("kvm")
		s.reserve("kvm", "hold", 1, cores(4))
		synctest.Wait()
		at := s.hold("hold").GetUnits()[0].GetHostId()
		s.report(at, apiv1.Host_DOWN, 8, 32768)
		s.zone.Want(s.vm("kvm", "vm", sized(4, 1024), in("hold")))
		synctest.Wait()
		s.is("hold", apiv1.Reservation_CONSUMED, 0)
		if on := s.zone.VM("vm").GetHostId(); on == "" || on == at {
			t.Errorf("it is on %q, its room was on %s", on, at)
		}
		m, _ := s.zone.Get(etcdstore.Allocation, "", at)
		if m.(*zonev1.Allocation).GetUsed().GetCores() != 0 {
			t.Errorf("on %s is still taken %v", at, m)
		}
	})
}

func TestWhatIsLeftOfAReservationIsFreedAtTheControlPlanesWord(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		was := s.reserve("kvm", "hold", 2, cores(4))
		s.zone.Want(s.vm("kvm", "one", sized(4, 1024), in("hold")))
		synctest.Wait()
		release := func(m *apiv1.Reservation) { m.DesiredState, m.Size = apiv1.Reservation_RELEASED, was.Size }
		s.reserve("kvm", "hold", 2, release)
		synctest.Wait()
		s.is("hold", apiv1.Reservation_RELEASED, 0)
		if units := s.hold("hold").GetUnits(); len(units) != 1 || units[0].GetVmId() != "one" {
			t.Errorf("of the VM that took its room is known %v", units)
		}
		s.zone.Want(s.vm("kvm", "two", sized(4, 1024)))
		synctest.Wait()
		if s.zone.VM("two").GetHostId() == "" {
			t.Error("what was released is not free")
		}
		s.zone.Put(etcdstore.Desired, "reservation", "hold", nil)
		synctest.Wait()
		if s.hold("hold") != nil || s.zone.Tombstones("reservation", "hold") != 1 {
			t.Errorf("what nobody names any more is kept: %v", s.hold("hold"))
		}
	})
}

// Nothing comes from the control plane here: the zone may be cut off.
func TestAReservationLapsesByItself(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.reserve("kvm", "hold", 1, cores(8))
		synctest.Wait()
		s.is("hold", apiv1.Reservation_HELD, 1)
		time.Sleep(time.Hour - time.Second)
		synctest.Wait()
		s.is("hold", apiv1.Reservation_HELD, 1)
		time.Sleep(time.Second)
		synctest.Wait()
		s.is("hold", apiv1.Reservation_LAPSED, 0)
		s.zone.Want(s.vm("kvm", "late", sized(8, 1024), in("hold")))
		synctest.Wait()
		if s.zone.VM("late").GetHostId() == "" {
			t.Error("who comes late does not get what is free")
		}
		s.audit()
	})
}

func TestAReservationThatComesTooLateHoldsNothing(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.reserve("kvm", "hold", 1, func(m *apiv1.Reservation) { m.HoldUntil = timestamppb.Now() })
		synctest.Wait()
		s.is("hold", apiv1.Reservation_LAPSED, 0)
	})
}

func TestAHoldCanBeMadeToLastLonger(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.reserve("kvm", "hold", 1)
		synctest.Wait()
		units := s.hold("hold").GetUnits()
		s.reserve("kvm", "hold", 1, func(m *apiv1.Reservation) { m.HoldUntil = timestamppb.New(time.Now().Add(3 * time.Hour)) })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		s.is("hold", apiv1.Reservation_HELD, 1)
		if now := s.hold("hold").GetUnits(); len(now) != 1 || now[0].GetHostId() != units[0].GetHostId() {
			t.Errorf("it was held on %v and is on %v", units, now)
		}
	})
}

// P17: the next owner of the cluster knows what is held, and holds it.
func TestANewOwnerKeepsWhatIsHeld(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.reserve("kvm", "hold", 2, cores(4))
		s.zone.Want(s.vm("kvm", "one", sized(4, 1024), in("hold")))
		synctest.Wait()
		s.leave("kvm")
		s.zone.Want(s.vm("kvm", "stranger", sized(1, 1024)))
		s.zone.Want(s.vm("kvm", "two", sized(4, 1024), in("hold")))
		s.own("kvm")
		s.settle()
		s.is("hold", apiv1.Reservation_CONSUMED, 0)
		if s.zone.VM("stranger").GetHostId() != "" || s.zone.VM("two").GetHostId() == "" {
			t.Errorf("placed: %v, %v", s.zone.VM("stranger"), s.zone.VM("two"))
		}
	})
}

// A store that was put back has forgotten who took what. The VMs say which reservation they name, and their host has them.
func TestAStoreThatWasPutBackHoldsWhatIsLeftOnly(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		term := s.own("kvm")
		s.reserve("kvm", "hold", 2, cores(4))
		s.zone.Want(s.vm("kvm", "one", sized(4, 1024), in("hold")))
		synctest.Wait()
		s.is("hold", apiv1.Reservation_HELD, 1)
		s.zone.PutBack()
		synctest.Wait()
		s.report("kvm-1", apiv1.Host_AVAILABLE, 8, 32768)
		term.Survey("life-1'", "kvm-1", having("one"))
		s.settle()
		s.is("hold", apiv1.Reservation_HELD, 1)
		if at := s.zone.VM("one").GetHostId(); at != "kvm-1" {
			t.Errorf("it was found on kvm-1 and is on %q", at)
		}
	})
}

// A thousand VMs ask for a hundred rooms each in its own transaction order; each room is taken once.
func TestManyVMsTakeManyRoomsOnceEach(t *testing.T) {
	within(t, func(s *site) {
		s.network = nil
		s.cluster("kvm", 40)
		s.own("kvm")
		for i := range 30 {
			s.reserve("kvm", fmt.Sprintf("hold-%02d", i), 10)
		}
		synctest.Wait()
		for i := range 400 {
			s.zone.Want(s.vm("kvm", fmt.Sprintf("vm-%04d", i), in(fmt.Sprintf("hold-%02d", i%40))))
		}
		s.settle()
		for i := range 30 {
			s.is(fmt.Sprintf("hold-%02d", i), apiv1.Reservation_CONSUMED, 0)
		}
		placed := 0
		for i := range 400 {
			if vm := s.zone.VM(fmt.Sprintf("vm-%04d", i)); vm.GetHostId() != "" {
				placed++
			} else if !strings.Contains(vm.GetError().GetDetail(), "40 hosts looked at") {
				t.Errorf("refused: %v", vm)
			}
		}
		if placed != 320 {
			t.Errorf("%d of 400 were placed on 40 hosts of 8 cores", placed)
		}
	})
}
