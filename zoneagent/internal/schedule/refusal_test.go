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

func TestAVMThatFitsNowhereIsRefusedHostByHost(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2)
		s.host("kvm", "kvm-3", 2, 1024)
		s.report("kvm-2", apiv1.Host_DOWN, 8, 32768)
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "big", sized(16, 2048)))
		synctest.Wait()
		vm := s.zone.VM("big")
		if vm.GetState() != apiv1.VM_ERROR || vm.GetHostId() != "" || vm.GetReached().GetIndex() != 1 {
			t.Fatalf("observed %v", vm)
		}
		if want := "3 hosts looked at: 1 is down, 1 lacks cores (nearest: kvm-1 has 8 cores free, 16 cores asked), 1 lacks cores and memory (nearest: kvm-3 has 2 cores and 1024 MiB free, 16 cores and 2048 MiB asked)."; vm.GetError().GetDetail() != want {
			t.Errorf("detail\n%s\nwant\n%s", vm.GetError().GetDetail(), want)
		}
		if vm.GetError().GetCode() != string(problem.NoHostFits) || vm.GetError().GetNext() == "" {
			t.Errorf("problem %v", vm.GetError())
		}
		reports := s.zone.Reports("op-big")
		if len(reports) != 1 || !reports[0].GetDone() || !proto.Equal(reports[0].GetError(), vm.GetError()) {
			t.Errorf("reports %v", reports)
		}
		if m, _ := s.zone.Get(etcdstore.Work, "", "big"); m != nil {
			t.Errorf("there is work for a VM without a host: %v", m)
		}

		// It is not tried again by itself, and is when the control plane asks again.
		s.host("kvm", "kvm-4", 16, 4096)
		s.settle()
		if vm := s.zone.VM("big"); vm.GetState() != apiv1.VM_ERROR {
			t.Errorf("a refusal was taken back without being asked: %v", vm)
		}
		s.zone.Want(s.vm("kvm", "big", sized(16, 2048)))
		synctest.Wait()
		if vm := s.zone.VM("big"); vm.GetHostId() != "kvm-4" || vm.GetError() != nil {
			t.Errorf("asked again, and observed %v", vm)
		}
		s.audit()
	})
}

// TestAVMAboveItsZonesGradeIsNotBegunWhoeverSentIt: the control plane places none there; an agent does not rely on that.
func TestAVMAboveItsZonesGradeIsNotBegunWhoeverSentIt(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		graded := func(g apiv1.Zone_Grade) func(*apiv1.VM) { return func(vm *apiv1.VM) { vm.Grade = g } }
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "early", graded(apiv1.Zone_SENSITIVE)))
		s.settle()
		if vm := s.zone.VM("early"); vm.GetHostId() != "" || vm.GetError() != nil {
			t.Errorf("before it is known what the zone is: %v", vm)
		}
		s.zone.Want(&apiv1.Zone{Id: "zone", Name: "business", Grade: apiv1.Zone_SENSITIVE})
		s.zone.Want(s.vm("kvm", "open"))
		s.zone.Want(s.vm("kvm", "same", graded(apiv1.Zone_SENSITIVE)))
		s.zone.Want(s.vm("kvm", "above", graded(apiv1.Zone_CLASSIFIED)))
		s.settle()
		for _, id := range []string{"early", "open", "same"} {
			if vm := s.zone.VM(id); vm.GetHostId() == "" {
				t.Errorf("%s was not placed: %v", id, vm)
			}
		}
		vm := s.zone.VM("above")
		if vm.GetState() != apiv1.VM_ERROR || vm.GetHostId() != "" || vm.GetError().GetCode() != string(problem.GradeForbids) ||
			!strings.Contains(vm.GetError().GetDetail(), "VM above is classified, and zone business, which is sensitive") {
			t.Errorf("observed %v", vm)
		}
		if m, _ := s.zone.Get(etcdstore.Work, "", "above"); m != nil {
			t.Errorf("there is work for it: %v", m)
		}
		reports := s.zone.Reports("op-above")
		if len(reports) != 1 || !reports[0].GetDone() || !proto.Equal(reports[0].GetError(), vm.GetError()) {
			t.Errorf("its operation is told %v", reports)
		}
	})
}

func TestAVMWaitsAWhileForHostsThatHaveNotReportedYet(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 0)
		s.zone.Want(&apiv1.Host{Id: "kvm-1", Name: "kvm-1", ClusterId: "kvm", Endpoint: "sim://"})
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "patient"))
		s.settle()
		if vm := s.zone.VM("patient"); vm != nil {
			t.Fatalf("it was answered at once: %v", vm)
		}
		s.report("kvm-1", apiv1.Host_AVAILABLE, 8, 32768)
		synctest.Wait()
		if vm := s.zone.VM("patient"); vm.GetHostId() != "kvm-1" {
			t.Errorf("the host has reported: %v", vm)
		}
		s.report("kvm-1", apiv1.Host_SUSPECT, 8, 32768)
		s.zone.Want(s.vm("kvm", "in-vain"))
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if vm := s.zone.VM("in-vain"); vm != nil {
			t.Errorf("it was answered too soon: %v", vm)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if d := s.zone.VM("in-vain").GetError().GetDetail(); d != "1 host looked at: 1 is suspect." {
			t.Errorf("detail %q", d)
		}
		s.audit()
	})
}

func TestAnEmptyPoolIsARefusalOfItsOwn(t *testing.T) {
	within(t, func(s *site) {
		s.network.First, s.network.Last = s.network.Gateway, s.network.Gateway.Next().Next()
		s.cluster("kvm", 2)
		s.own("kvm")
		for _, id := range []string{"a", "b", "c"} {
			s.zone.Want(s.vm("kvm", id))
		}
		synctest.Wait()
		if a, b := s.zone.VM("a").GetAddress(), s.zone.VM("b").GetAddress(); a != "10.91.2.2" || b != "10.91.2.3" {
			t.Errorf("addresses %s and %s, want the lowest but the gateway's", a, b)
		}
		c := s.zone.VM("c")
		if c.GetError().GetCode() != string(problem.NoAddress) || !strings.Contains(c.GetError().GetDetail(), "10.91.2.1 to 10.91.2.3") {
			t.Errorf("observed %v", c)
		}
		s.audit()

		// What is given back is given out again.
		if err := s.terms["kvm"].Depart(s.t.Context(), s.vm("kvm", "a")); err != nil {
			t.Fatal(err)
		}
		s.zone.Want(s.vm("kvm", "d"))
		synctest.Wait()
		if d := s.zone.VM("d").GetAddress(); d != "10.91.2.2" {
			t.Errorf("address %s, want the one that was given back", d)
		}
		s.audit()
	})
}
