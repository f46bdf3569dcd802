package schedule

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

func TestAWantedVMGetsAHostAnAddressAndWorkInOneTransaction(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2)
		s.own("kvm")
		synctest.Wait()
		before := s.zone.Commits()
		s.zone.Want(s.vm("kvm", "web-1"))
		synctest.Wait() // no time passes: an idle scheduler places at once

		if n := s.zone.Commits() - before; n != 1 {
			t.Fatalf("%d transactions, want 1", n)
		}
		vm := s.zone.VM("web-1")
		want := &apiv1.VM{
			Id: "web-1", Name: "web-1", State: apiv1.VM_BUILDING, Task: apiv1.VM_STARTING, Host: "kvm-1", HostId: "kvm-1",
			Address: "10.91.2.2", HostFreshness: apiv1.Freshness_LIVE,
			Actual: s.vm("kvm", "web-1").Size, Allocated: s.vm("kvm", "web-1").Size, Snapshots: &apiv1.VM_Snapshots{},
		}
		if !proto.Equal(vm, want) {
			t.Errorf("observed %v, want %v", vm, want)
		}
		m, _ := s.zone.Get(etcdstore.Work, "", "web-1")
		work := m.(*zonev1.Work)
		if work.GetOperationId() != "op-web-1" || work.GetLastStep() != "placed" || work.GetGeneration().GetIndex() != 1 {
			t.Errorf("work %v", work)
		}
		if left := time.Until(work.GetDeadline().AsTime()); left != 10*time.Minute {
			t.Errorf("%v for the work, want 10 minutes", left)
		}
		reports := s.zone.Reports("op-web-1")
		if len(reports) != 1 || reports[0].GetStep().GetName() != "placed" || reports[0].GetStep().GetMessage() != "on kvm-1 of kvm" || reports[0].GetDone() {
			t.Errorf("reports %v", reports)
		}
		s.audit()
	})
}

func TestAThousandVMsGoInFewTransactions(t *testing.T) {
	within(t, func(s *site) {
		s.network = nil
		s.cluster("kvm", 130)
		for i := range 1000 {
			s.zone.Want(s.vm("kvm", fmt.Sprintf("vm-%04d", i)))
		}
		s.own("kvm")
		s.settle()
		if n := s.zone.Commits(); n > 10 {
			t.Errorf("%d transactions for 1,000 VMs of 100 each", n)
		}
		if vm := s.zone.VM("vm-0999"); vm.GetHostId() == "" {
			t.Errorf("the last VM is %v", vm)
		}
		s.audit()
	})
}

func TestTransactionsShrinkToWhatTheStoreTakes(t *testing.T) {
	within(t, func(s *site) {
		s.zone.MaxObserved = 7
		s.cluster("kvm", 10)
		for i := range 40 {
			s.zone.Want(s.vm("kvm", fmt.Sprintf("vm-%04d", i)))
		}
		s.own("kvm")
		s.settle()
		if vm := s.zone.VM("vm-0039"); vm.GetHostId() == "" {
			t.Errorf("the last VM is %v", vm)
		}
		s.audit()
	})
}

func TestADepartureGivesEverythingBackAtOnce(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		term := s.own("kvm")
		s.zone.Want(s.vm("kvm", "web-1"))
		synctest.Wait()
		away := s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED))
		s.zone.Want(away)
		synctest.Wait()
		if s.zone.VM("web-1").GetHostId() == "" {
			t.Fatal("the scheduler ended a VM that is on a host: that is the worker's to say")
		}
		entry := &linkv1.JournalEntry{Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{VmId: "web-1", State: apiv1.VM_DELETED}}}
		before := s.zone.Commits()
		if err := term.Depart(s.t.Context(), away, entry); err != nil {
			t.Fatal(err)
		}
		if n := s.zone.Commits() - before; n != 1 {
			t.Errorf("%d transactions, want 1", n)
		}
		if s.zone.VM("web-1") != nil || s.zone.Tombstones("vm", "web-1") != 1 {
			t.Errorf("observed %v, %d tombstones", s.zone.VM("web-1"), s.zone.Tombstones("vm", "web-1"))
		}
		for _, space := range []etcdstore.Space{etcdstore.Work, etcdstore.Address} {
			s.zone.Each(space, func(_, id string, m proto.Message) { t.Errorf("%s %s is left: %v", space, id, m) })
		}
		s.audit()
		journal := s.zone.Journal()
		if last := journal[len(journal)-1]; last.GetUsage().GetState() != apiv1.VM_DELETED || last.Stream != "kvm" {
			t.Errorf("last entry %v", last)
		}
		s.settle()
		if n := s.zone.Tombstones("vm", "web-1"); n != 1 {
			t.Errorf("%d tombstones while the control plane has not forgotten the VM", n)
		}
	})
}

func TestAVMWantedAwayBeforeItHadAHostIsEndedHere(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.settle()
		if n := s.zone.Tombstones("vm", "web-1"); n != 1 {
			t.Errorf("%d tombstones, want 1", n)
		}
		if r := s.zone.Reports("op-web-1"); len(r) != 1 || !r[0].GetDone() || r[0].GetError() != nil {
			t.Errorf("reports %v", r)
		}
		s.zone.Reset() // the watch is lost
		s.settle()
		if n := s.zone.Tombstones("vm", "web-1"); n != 1 {
			t.Errorf("%d tombstones after the store was read again, want 1", n)
		}
	})
}

// Two clusters of a zone share a guest network: who comes second takes the next address.
func TestAddressesAreUniqueAcrossTheClustersOfAZone(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("web", 5)
		s.cluster("db", 5)
		for i := range 30 {
			s.zone.Want(s.vm("web", fmt.Sprintf("web-%02d", i)))
			s.zone.Want(s.vm("db", fmt.Sprintf("db-%02d", i)))
		}
		s.own("web", func(c *Config) { c.Batch = 3 })
		s.own("db", func(c *Config) { c.Batch = 5 })
		s.settle()
		for _, id := range []string{"web-29", "db-29"} {
			if s.zone.VM(id).GetAddress() == "" {
				t.Errorf("%s has no address", id)
			}
		}
		s.audit()
	})
}

func TestAnOwnerThatWasDeposedStopsAndHasWrittenNothing(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		late := s.own("kvm")
		synctest.Wait()
		s.zone.Depose("kvm")
		s.zone.Want(s.vm("kvm", "web-1"))
		if err := <-late.ended; !errors.Is(err, etcdstore.ErrFenced) {
			t.Fatalf("ended with %v, want ErrFenced", err)
		}
		if err := late.Depart(s.t.Context(), s.vm("kvm", "web-1")); err == nil {
			t.Error("a departure was taken by a term that has ended")
		}
		if s.zone.Commits() != 0 {
			t.Error("a deposed owner wrote")
		}
		delete(s.terms, "kvm")
		s.own("kvm")
		synctest.Wait()
		if s.zone.VM("web-1").GetHostId() != "kvm-1" {
			t.Errorf("the next owner left it %v", s.zone.VM("web-1"))
		}
		s.audit()
	})
}

func TestAStoreThatFailsForAWhileDelaysAndLosesNothing(t *testing.T) {
	within(t, func(s *site) {
		failures := 5
		s.zone.Fault = func() error {
			if failures > 0 {
				failures--
				return errors.New("etcd is away")
			}
			return nil
		}
		s.cluster("kvm", 1)
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "web-1"))
		s.settle()
		if vm := s.zone.VM("web-1"); vm.GetAddress() != "10.91.2.2" {
			t.Errorf("observed %v", vm)
		}
		s.audit()
	})
}

func TestNothingNewIsPlacedWhileTheStoreIsNearlyFull(t *testing.T) {
	within(t, func(s *site) {
		s.zone.Press(true)
		s.cluster("kvm", 1)
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "new"))
		s.zone.Want(s.vm("kvm", "old", wanting(apiv1.VM_DELETED)))
		s.settle()
		if vm := s.zone.VM("new"); vm != nil {
			t.Errorf("observed %v", vm)
		}
		if s.zone.Tombstones("vm", "old") != 1 {
			t.Error("what makes room was held back too")
		}
		s.zone.Press(false)
		s.settle()
		if vm := s.zone.VM("new"); vm.GetHostId() == "" {
			t.Error("the VM was forgotten when there was room again")
		}
	})
}

// A zone under maintenance is sent no new VMs. One that reaches it was accepted before, and who asked for it was told so.
func TestAVMThatWasAcceptedBeforeMaintenanceIsPlacedAndACordonedHostGetsNothing(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 2)
		s.zone.Want(&apiv1.Host{Id: "kvm-1", Name: "kvm-1", ClusterId: "kvm", Cluster: "kvm", Endpoint: "sim://", AdminState: apiv1.Host_CORDONED})
		s.zone.Want(&apiv1.Zone{Id: "zone", Name: "business", AdminState: apiv1.Zone_UNDER_MAINTENANCE, AdminReason: "the cooling is mended"})
		s.own("kvm")
		for i := range 4 {
			s.zone.Want(s.vm("kvm", fmt.Sprintf("vm-%d", i)))
		}
		s.settle()
		for i := range 4 {
			if vm := s.zone.VM(fmt.Sprintf("vm-%d", i)); vm.GetHost() != "kvm-2" {
				t.Errorf("%s is %v on host %q", vm.GetName(), vm.GetState(), vm.GetHost())
			}
		}
		s.audit()
	})
}

func TestAHostThatIsNotNamedAnyMoreGetsNothingNew(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.zone.Put(etcdstore.Unclaimed, "host", "kvm-1", &apiv1.Reference{Kind: "host", Id: "kvm-1"})
		s.zone.Want(s.vm("kvm", "a"))
		s.settle()
		if vm := s.zone.VM("a"); vm.GetHostId() != "" || vm.GetError().GetCode() != "NO_HOST_FITS" {
			t.Errorf("observed %v", vm)
		}
		s.zone.Put(etcdstore.Unclaimed, "host", "kvm-1", nil)
		s.zone.Want(s.vm("kvm", "a"))
		s.settle()
		if vm := s.zone.VM("a"); vm.GetHostId() != "kvm-1" {
			t.Errorf("named again: %v", vm)
		}
	})
}

func TestNothingIsBegunDuringAFullSyncOrForWhatItDidNotName(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.zone.Put(etcdstore.Cursor, "", "", &zonev1.Cursor{Syncing: true})
		s.zone.Put(etcdstore.Unclaimed, "vm", "b", &apiv1.Reference{Kind: "vm", Id: "b"})
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "a"))
		s.zone.Want(s.vm("kvm", "b"))
		s.settle()
		if s.zone.Commits() != 0 {
			t.Fatal("something was placed during a full sync")
		}
		s.zone.Put(etcdstore.Cursor, "", "", &zonev1.Cursor{})
		s.settle()
		if s.zone.VM("a").GetHostId() == "" || s.zone.VM("b") != nil {
			t.Errorf("after the sync: a %v, b %v", s.zone.VM("a"), s.zone.VM("b"))
		}
		s.zone.Put(etcdstore.Unclaimed, "vm", "b", nil)
		s.settle()
		if s.zone.VM("b").GetHostId() == "" {
			t.Error("b was named again and got no host")
		}
	})
}

// Absence is never an instruction: what a VM takes stays taken when nobody names it any more, also for an owner that
// never saw what it was.
func TestAVMThatIsNotNamedAnyMoreKeepsItsRoom(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1)
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "kept", sized(6, 1024)))
		synctest.Wait()
		s.zone.Put(etcdstore.Desired, "vm", "kept", nil)
		check := func(when, id string) {
			s.zone.Want(s.vm("kvm", id, sized(3, 1024)))
			s.settle()
			if vm := s.zone.VM(id); vm.GetError().GetCode() != string(problem.NoHostFits) {
				t.Errorf("%s, its room was given to another: %v", when, vm)
			}
			s.zone.Want(s.vm("kvm", id+"-small"))
			s.settle()
			if vm := s.zone.VM(id + "-small"); vm.GetHostId() != "kvm-1" {
				t.Errorf("%s, the room beside it was lost: %v", when, vm)
			}
		}
		check("by the same owner", "a")
		s.leave("kvm")
		s.own("kvm")
		check("by the next owner", "b")
		if vm := s.zone.VM("kept"); vm.GetAddress() == "" || s.zone.Tombstones("vm", "kept") != 0 {
			t.Errorf("it was touched: %v", vm)
		}
		m, _ := s.zone.Get(etcdstore.Allocation, "", "kvm-1")
		if a := m.(*zonev1.Allocation); a.GetUsed().GetCores() != 8 || a.GetVmCount() != 3 {
			t.Errorf("allocation %v, want 8 cores of 3 VMs", a)
		}
	})
}

func TestGroupsHoldAcrossBatchesAndOwners(t *testing.T) {
	within(t, func(s *site) {
		apart := func(vm *apiv1.VM) {
			vm.Affinities = []*apiv1.VM_Affinity{{Group: "web", Rule: apiv1.VM_Affinity_APART}}
		}
		s.cluster("kvm", 3)
		s.own("kvm")
		s.zone.Want(s.vm("kvm", "a", apart))
		s.settle()
		s.leave("kvm")
		s.own("kvm")
		for _, id := range []string{"b", "c", "d"} {
			s.zone.Want(s.vm("kvm", id, apart))
		}
		s.settle()
		hosts := map[string]bool{}
		for _, id := range []string{"a", "b", "c"} {
			hosts[s.zone.VM(id).GetHostId()] = true
		}
		if len(hosts) != 3 || hosts[""] {
			t.Errorf("the group is on %v", hosts)
		}
		if d := s.zone.VM("d").GetError().GetDetail(); d != "3 hosts looked at: 3 have a VM of affinity group web." {
			t.Errorf("the fourth: %s", d)
		}
	})
}

func TestATermNeedsAClusterAStoreAndANetworkThatMakesSense(t *testing.T) {
	if _, err := NewTerm(Config{}); err == nil {
		t.Error("a term without a cluster was made")
	}
	bad := &Network{}
	if _, err := NewTerm(Config{Cluster: "c", Store: fakeStore{}, Network: bad}); err == nil || !strings.Contains(err.Error(), "guest network") {
		t.Errorf("error %v", err)
	}
}

func TestATermEndsWithItsContext(t *testing.T) {
	within(t, func(s *site) {
		r := s.own("kvm")
		synctest.Wait()
		r.stop()
		if err := <-r.ended; err != nil {
			t.Errorf("ended with %v", err)
		}
		delete(s.terms, "kvm")
		ctx, cancel := context.WithCancel(s.t.Context())
		cancel()
		if err := r.Depart(ctx, s.vm("kvm", "x")); err == nil {
			t.Error("a departure was taken by a term that has ended")
		}
	})
}
