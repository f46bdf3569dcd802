package schedule

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

func made(at time.Time) func(*apiv1.VM) {
	return func(vm *apiv1.VM) { vm.CreatedAt = timestamppb.New(at) }
}

// In a store that began anew, a VM that is older than it gets a host only when every host has told what it has.
func TestAnOldVMInAYoungStoreWaitsForEveryHostsWord(t *testing.T) {
	within(t, func(s *site) {
		s.zone.PutBack()
		s.cluster("kvm", 2)
		term := s.own("kvm")
		s.zone.Want(s.vm("kvm", "old", made(time.Now().Add(-time.Hour))))
		s.zone.Want(s.vm("kvm", "new", made(time.Now().Add(time.Hour))))
		s.settle()
		if s.zone.VM("new").GetHostId() == "" || s.zone.VM("old") != nil {
			t.Fatalf("before a host was asked: new %v, old %v", s.zone.VM("new"), s.zone.VM("old"))
		}
		term.Survey("life-1'", "kvm-1", nil)
		term.Survey("another life", "kvm-2", nil)
		s.settle()
		if vm := s.zone.VM("old"); vm != nil {
			t.Errorf("kvm-2 has not told in this life: %v", vm)
		}
		term.Survey("life-1'", "kvm-2", nil)
		synctest.Wait()
		if vm := s.zone.VM("old"); vm.GetHostId() == "" || vm.GetState() != apiv1.VM_BUILDING {
			t.Errorf("when all have told: %v", vm)
		}
		s.audit()
	})
}

func TestAVMThatIsFoundOnAHostIsTakenOverThere(t *testing.T) {
	within(t, func(s *site) {
		s.zone.PutBack()
		s.cluster("kvm", 2)
		term := s.own("kvm")
		term.Survey("life-1'", "kvm-1", nil)
		term.Survey("life-1'", "kvm-2", []string{"old", "dying", "unknown"})
		s.zone.Want(s.vm("kvm", "old", sized(6, 1024)))
		s.zone.Want(s.vm("kvm", "dying", wanting(apiv1.VM_DELETED)))
		s.zone.Want(s.vm("kvm", "next", sized(6, 1024)))
		s.settle()
		for _, id := range []string{"old", "dying"} {
			vm := s.zone.VM(id)
			if vm.GetHostId() != "kvm-2" || vm.GetState() != apiv1.VM_STOPPED || vm.GetAddress() != "" {
				t.Errorf("%s: %v", id, vm)
			}
			if m, _ := s.zone.Get(etcdstore.Work, "", id); m.(*zonev1.Work).GetLastStep() != "placed" {
				t.Errorf("%s: work %v", id, m)
			}
		}
		if r := s.zone.Reports("op-old"); r[0].GetStep().GetMessage() != "found on kvm-2 of kvm" {
			t.Errorf("reports %v", r)
		}
		if vm := s.zone.VM("next"); vm.GetHostId() != "kvm-1" {
			t.Errorf("the room it takes was given away: %v", vm)
		}
		s.audit()
	})
}

func TestAnOldVMIsRefusedWhenAHostStaysSilentTooLong(t *testing.T) {
	within(t, func(s *site) {
		s.zone.PutBack()
		s.cluster("kvm", 2)
		term := s.own("kvm")
		term.Survey("life-1'", "kvm-1", nil)
		s.zone.Want(s.vm("kvm", "old"))
		time.Sleep(9 * time.Minute)
		s.settle()
		if vm := s.zone.VM("old"); vm != nil {
			t.Errorf("answered too soon: %v", vm)
		}
		time.Sleep(2 * time.Minute)
		s.settle()
		why := s.zone.VM("old").GetError()
		if why.GetCode() != string(problem.Unavailable) || why.GetDetail() != "VM old is older than the zone's store, which was put back or began anew, and may be on host kvm-2, which has not answered since." {
			t.Errorf("problem %v", why)
		}
	})
}
