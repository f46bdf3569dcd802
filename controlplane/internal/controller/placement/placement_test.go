package placement_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func now(w *servicetest.World) (revision uint64) {
	w.View(func(tx *state.Tx) error {
		revision = tx.Meta().Revision
		return nil
	})
	return revision
}

// ask asks where a VM of some cores could go.
func ask(w *servicetest.World, site *servicetest.Site, clusterID string, cores uint32) (string, error) {
	return w.Chooser.Choose(context.Background(), &apiv1.VM{
		Id: "asked", Zone: "business", ZoneId: site.Business.GetId(), ClusterId: clusterID, Size: &apiv1.Resources{Cores: cores, MemoryMib: 64, DiskGib: 1},
	}, now(w))
}

func TestTheClusterIsChosenWhereNoneIsNamed(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(2)
	for _, named := range []string{"", site.Kvm.GetId()} {
		if id, err := ask(w, site, named, 2); err != nil || id != site.Kvm.GetId() {
			t.Fatalf("%q: %q, %v", named, id, err)
		}
	}
}

func TestARefusalExplainsItself(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(3)
	_, err := w.Admin().Hosts.UpdateHost(t.Context(), &apiv1.UpdateHostRequest{
		Host: &apiv1.Host{Id: "kvm-1", AdminState: apiv1.Host_CORDONED}, Zone: "business", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"admin_state"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, named := range []string{"", site.Kvm.GetId()} {
		_, err := ask(w, site, named, 9)
		for _, said := range []string{"3 hosts looked at", "2 lack cores", "1 is cordoned"} {
			if !problem.Is(err, problem.NoHostFits) || !strings.Contains(err.Error(), said) || problem.Of(err).GetNext() == "" {
				t.Errorf("%q: %v does not say %q", named, err, said)
			}
		}
	}
	if _, err := ask(w, site, "no-such-cluster", 1); !problem.Is(err, problem.NoHostFits) {
		t.Fatal(err)
	}
}

// TestARefusalRestsOnEverythingThatWasDone: room that was made just now is seen, though the picture follows behind.
func TestARefusalRestsOnEverythingThatWasDone(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	for i := range 20 {
		cores := uint32(10 + i)
		if _, err := ask(w, site, "", cores); !problem.Is(err, problem.NoHostFits) {
			t.Fatalf("%d cores before: %v", cores, err)
		}
		w.Observe(site.Business.GetId(), &apiv1.Host{
			Id: site.Hosts[0].GetId(), Name: "kvm-1", Health: apiv1.Host_AVAILABLE, Total: &apiv1.Resources{Cores: cores, MemoryMib: 1024, DiskGib: 10},
		})
		if _, err := ask(w, site, "", cores); err != nil {
			t.Fatalf("%d cores: %v", cores, err)
		}
	}
}

// TestARefusalDoesNotWaitForWhatIsNoneOfItsBusiness: the revision moves on with every command, the picture with few.
func TestARefusalDoesNotWaitForWhatIsNoneOfItsBusiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := servicetest.New(t)
		site := w.NewSite(1)
		w.Do(&commandv1.Command{Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
		if _, err := ask(w, site, "", 9); !problem.Is(err, problem.NoHostFits) {
			t.Fatal(err)
		}
	})
}

func TestANewEpochIsDrawnAnew(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	if _, err := ask(w, site, "", 8); err != nil {
		t.Fatal(err)
	}
	w.Do(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: 8, EpochId: slices.Repeat([]byte{1}, 16), Reason: "restored"}}})
	if _, err := ask(w, site, "", 9); !problem.Is(err, problem.NoHostFits) {
		t.Fatal(err)
	}
	if _, err := ask(w, site, "", 8); err != nil {
		t.Fatal(err)
	}
}

// TestNoRoomIsPromisedThatIsNotThere, whatever happens to VMs and hosts.
func TestNoRoomIsPromisedThatIsNotThere(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(3)
	a, ctx := w.Admin(), t.Context()
	made := 0
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"create", "run", "fail", "delete", "cordon", "open"}).Draw(rt, "step") {
			case "create":
				made++
				if _, err := a.VMs.CreateVM(ctx, &apiv1.CreateVMRequest{Vm: w.VM(fmt.Sprintf("vm-%d", made), "web")}); err != nil && !problem.Is(err, problem.NoHostFits) {
					rt.Fatal(err)
				}
			case "run":
				observe(rt, w, site, apiv1.VM_RUNNING)
			case "fail":
				observe(rt, w, site, apiv1.VM_ERROR)
			case "delete":
				if vm := anyVM(rt, w); vm != nil {
					if _, err := a.VMs.DeleteVM(ctx, &apiv1.DeleteVMRequest{Vm: vm.GetId()}); err != nil {
						rt.Fatal(err)
					}
				}
			case "cordon":
				cordon(rt, w, apiv1.Host_CORDONED)
			case "open":
				cordon(rt, w, apiv1.Host_ENABLED)
			}
		}
		w.Settle() // a promise may rest on a little less than everything
		// A VM that waits to be placed may wait at one host or another; what is placed, and what can be, is certain.
		for cores := uint32(1); cores <= 9; cores++ {
			_, followed := ask(w, site, "", cores)
			if fits := room(rt, w, cores); followed == nil && !fits {
				rt.Fatalf("%d cores are promised, and no host has them", cores)
			}
		}
	})
}

// room reports whether some host that is open has cores free beside the VMs that are on it.
func room(t *rapid.T, w *servicetest.World, cores uint32) bool {
	vms, err := w.Admin().VMs.ListVMs(context.Background(), &apiv1.ListVMsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := w.Admin().Hosts.ListHosts(context.Background(), &apiv1.ListHostsRequest{Zone: "business"})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts.GetHosts() {
		used := uint32(0)
		for _, vm := range vms.GetVms() {
			if vm.GetHostId() == h.GetId() {
				used += vm.GetSize().GetCores()
			}
		}
		if h.GetAdminState() != apiv1.Host_CORDONED && used+cores <= 8 {
			return true
		}
	}
	return false
}

func anyVM(t *rapid.T, w *servicetest.World) *apiv1.VM {
	all, err := w.Admin().VMs.ListVMs(context.Background(), &apiv1.ListVMsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if len(all.GetVms()) == 0 {
		return nil
	}
	return rapid.SampledFrom(all.GetVms()).Draw(t, "vm")
}

func observe(t *rapid.T, w *servicetest.World, site *servicetest.Site, s apiv1.VM_State) {
	vm := anyVM(t, w)
	if vm == nil {
		return
	}
	h := rapid.SampledFrom(site.Hosts).Draw(t, "host")
	seen := &apiv1.VM{Id: vm.GetId(), Name: vm.GetName(), State: s, Host: h.GetName(), HostId: h.GetId()}
	if s == apiv1.VM_ERROR {
		seen.Host, seen.HostId = "", ""
	}
	w.Observe(site.Business.GetId(), seen)
}

func cordon(t *rapid.T, w *servicetest.World, s apiv1.Host_AdminState) {
	name := fmt.Sprintf("kvm-%d", rapid.IntRange(1, 3).Draw(t, "host"))
	_, err := w.Admin().Hosts.UpdateHost(context.Background(), &apiv1.UpdateHostRequest{
		Host: &apiv1.Host{Id: name, AdminState: s}, Zone: "business", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"admin_state"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}
