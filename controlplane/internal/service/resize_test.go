package service_test

import (
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// inUse is a site on whose first host VM web-1 runs, with what is stored of it.
func inUse(t *testing.T) (*servicetest.World, *servicetest.Site, *apiv1.VM) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	create(t, w.In("web"), w.VM("web-1", "web"))
	var vm *apiv1.VM
	w.View(func(tx *state.Tx) (err error) {
		vm, err = tx.VMs.ByName("web-1", nil)
		return err
	})
	run(w, site, vm, apiv1.VM_RUNNING, apiv1.VM_ON)
	w.Settle()
	return w, site, vm
}

func flavor(w *servicetest.World, name string, cores, memoryMiB, diskGiB uint32) {
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{
		Id: "f-" + name, Name: name, Cores: cores, MemoryMib: memoryMiB, DiskGib: diskGiB}}}})
}

func TestAVMIsResizedToAnotherFlavorOrTheRefusalSaysWhy(t *testing.T) {
	w, _, vm := inUse(t)
	size := vm.GetSize()
	flavor(w, "larger", size.GetCores()+1, size.GetMemoryMib()+512, size.GetDiskGib()+1)
	flavor(w, "flat", size.GetCores(), size.GetMemoryMib(), size.GetDiskGib()-1)
	flavor(w, "vast", 4096, size.GetMemoryMib(), size.GetDiskGib())
	ask := func(name string) (*apiv1.Operation, error) {
		r, err := w.In("web").VMs.ResizeVM(t.Context(), &apiv1.ResizeVMRequest{Vm: "web-1", Flavor: name, MayStop: true})
		return r.GetOperation(), err
	}
	if op, err := ask(vm.GetFlavor()); err != nil || !op.GetDone() || op.GetId() != "" {
		t.Errorf("the size that it has: %v, %v", op, err)
	}
	_, err := ask("vast")
	refuses(t, err, problem.NoHostFits, "Host kvm-1 of VM web-1 lacks cores")
	_, err = ask("flat")
	refuses(t, err, problem.Invalid, "cannot become smaller")
	_, err = ask("none")
	refuses(t, err, problem.NotFound, "flavor none")
	op, err := ask("larger")
	if err != nil || op.GetDone() || op.GetKind() != "vm.resize" || op.GetTarget().GetName() != "web-1" {
		t.Fatalf("operation %v, %v", op, err)
	}
	if m := show(t, w.In("web"), "web-1", ""); m.GetFlavor() != "larger" || m.GetSize().GetCores() != size.GetCores()+1 {
		t.Errorf("VM %v", m)
	}
	_, err = w.In("web").VMs.StopVM(t.Context(), &apiv1.StopVMRequest{Vm: "web-1"})
	refuses(t, err, problem.WrongState, "resize of VM web-1 is under way")
}

func TestASnapshotOfAVMThatIsOnNeedsLeaveToStopIt(t *testing.T) {
	w, site, vm := inUse(t)
	c := w.In("web")
	take := func(mayStop bool) (*apiv1.Operation, error) {
		r, err := c.Snapshots.CreateSnapshot(t.Context(), &apiv1.CreateSnapshotRequest{Snapshot: &apiv1.Snapshot{Name: "before", Vm: "web-1"}, MayStop: mayStop})
		return r.GetOperation(), err
	}
	_, err := take(false)
	refuses(t, err, problem.WrongState, "web-1 is on")
	op, err := take(true)
	if err != nil || op.GetKind() != "vm.snapshot" || op.GetDone() {
		t.Fatalf("operation %v, %v", op, err)
	}
	_, err = take(true)
	refuses(t, err, problem.NameTaken, "before")
	all, err := c.Snapshots.ListSnapshots(t.Context(), &apiv1.ListSnapshotsRequest{Vm: "web-1"})
	if err != nil || len(all.GetSnapshots()) != 1 || all.GetSnapshots()[0].GetState() != apiv1.Snapshot_PENDING {
		t.Fatalf("snapshots %v, %v", all, err)
	}
	s := all.GetSnapshots()[0]
	if other, err := w.In("db").Snapshots.ListSnapshots(t.Context(), &apiv1.ListSnapshotsRequest{}); err != nil || len(other.GetSnapshots()) != 0 {
		t.Errorf("P14: another project sees %v, %v", other, err)
	}
	w.View(func(tx *state.Tx) (err error) {
		vm, err = tx.VMs.Get(vm.GetId())
		return err
	})
	w.Observe(site.Business.GetId(), &apiv1.VM{
		Id: vm.GetId(), Name: vm.GetName(), State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, Host: "kvm-1", HostId: site.Hosts[0].GetId(), Reached: vm.GetGeneration(),
		Snapshots: &apiv1.VM_Snapshots{Items: []*apiv1.VM_Snapshots_Item{{Id: s.GetId(), Name: "before"}}},
	})
	w.Do(&commandv1.Command{Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
		OperationId: op.GetId(), Outcome: apiv1.ResolveOperationRequest_SUCCEED, Reason: "test"}}})
	_, err = c.Snapshots.RestoreSnapshot(t.Context(), &apiv1.RestoreSnapshotRequest{Snapshot: "before", Vm: "web-1"})
	refuses(t, err, problem.WrongState, "its disk is put back while it is off")
	for range 2 { // what is under way answers
		r, err := c.Snapshots.RestoreSnapshot(t.Context(), &apiv1.RestoreSnapshotRequest{Snapshot: "before", MayStop: true})
		if err != nil || r.GetOperation().GetKind() != "vm.restore" {
			t.Fatalf("operation %v, %v", r, err)
		}
	}
	_, err = c.Snapshots.GetSnapshot(t.Context(), &apiv1.GetSnapshotRequest{Snapshot: "none", Vm: "web-1"})
	refuses(t, err, problem.NotFound, "no snapshot none")
}

func TestAVMGoesIntoTheTrashForSoManyDaysAndComesOut(t *testing.T) {
	w, site, vm := inUse(t)
	c := w.In("web")
	put := func(days uint32) *apiv1.Operation {
		t.Helper()
		r, err := c.VMs.TrashVM(t.Context(), &apiv1.TrashVMRequest{Vm: "web-1", KeepDays: days})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetOperation()
	}
	if op := put(0); op.GetKind() != "vm.trash" || op.GetDone() {
		t.Errorf("operation %v", op)
	}
	m := show(t, c, "web-1", "")
	if left := time.Until(m.GetDeleteAt().AsTime()).Hours() / 24; m.GetDesiredState() != apiv1.VM_TRASHED || left < 6.9 || left > 7.1 {
		t.Errorf("it is kept for %v days: %v", left, m)
	}
	if op := put(0); !op.GetDone() {
		t.Errorf("again: %v", op)
	}
	put(30)
	if left := time.Until(show(t, c, "web-1", "").GetDeleteAt().AsTime()).Hours() / 24; left < 29.9 {
		t.Errorf("it is kept for %v days", left)
	}
	_, err := c.VMs.StartVM(t.Context(), &apiv1.StartVMRequest{Vm: "web-1"})
	refuses(t, err, problem.WrongState, "in the trash")
	w.View(func(tx *state.Tx) (err error) {
		vm, err = tx.VMs.Get(vm.GetId())
		return err
	})
	run(w, site, vm, apiv1.VM_TRASHED, apiv1.VM_OFF)
	r, err := c.VMs.UntrashVM(t.Context(), &apiv1.UntrashVMRequest{Vm: "web-1"})
	if err != nil || r.GetOperation().GetKind() != "vm.untrash" || show(t, c, "web-1", "").GetDesiredState() != apiv1.VM_STOPPED {
		t.Fatalf("operation %v, %v", r, err)
	}
	if !strings.Contains(r.GetOperation().GetTarget().GetName(), "web-1") {
		t.Errorf("target %v", r.GetOperation().GetTarget())
	}
}
