package intake

import (
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// UsualKeep is how many days a VM stays in the trash where nobody says otherwise.
const UsualKeep = 7

// resolveVMs resolves what is asked of VMs that are there, all of one zone; each is a part.
func resolveVMs(tx *state.Tx, r *apiv1.Request, project *apiv1.Project) ([]*commandv1.Read, error) {
	var names []string
	what := r.GetSpecification()
	switch {
	case what.GetReclaim() != nil:
		names = what.GetReclaim().GetVms()
	case what.GetResize() != nil:
		names = []string{what.GetResize().GetVm()}
	case what.GetExtend() != nil:
		names = []string{what.GetExtend().GetVm()}
	case what.GetPower() != nil:
		names = []string{what.GetPower().GetVm()}
	case what.GetSnapshot() != nil:
		names = []string{what.GetSnapshot().GetVm()}
	case what.GetRestore() != nil:
		names = []string{what.GetRestore().GetVm()}
	}
	vms := make([]*apiv1.VM, 0, len(names))
	for _, name := range names {
		vm, err := tx.VMs.Find(name, state.Scope{"project_id": project.GetId()})
		if err != nil {
			return nil, gone(err, "vm", name)
		}
		if slices.ContainsFunc(vms, func(other *apiv1.VM) bool { return other.GetId() == vm.GetId() }) {
			return nil, problem.Newf(problem.Invalid, "Name each once.", "VM %s is named twice", vm.GetName()).With("specification.reclaim.vms", "has "+vm.GetName()+" twice")
		}
		if len(vms) > 0 && vm.GetZoneId() != vms[0].GetZoneId() {
			return nil, problem.Newf(problem.Invalid, "Make a request for each zone.", "VM %s is in zone %s, and VM %s in zone %s", vms[0].GetName(), vms[0].GetZone(), vm.GetName(), vm.GetZone()).
				With("specification.reclaim.vms", "are of several zones")
		}
		vms = append(vms, vm)
		r.Parts = append(r.Parts, &apiv1.Part{Name: vm.GetName(), VmId: vm.GetId()})
	}
	if len(vms) == 0 {
		return nil, problem.New(problem.Invalid, "the request names no VM", "Name one.").With("specification", "names no VM")
	}
	zone, err := tx.Zones.Get(vms[0].GetZoneId())
	if err != nil {
		return nil, gone(err, "zone", vms[0].GetZone())
	}
	r.Zone, r.ZoneId, r.LeaseDays = zone.GetName(), zone.GetId(), 0
	r.Grade = grade.Highest(project.GetGrade(), zone.GetGrade())
	for _, vm := range vms {
		r.Grade = grade.Highest(r.GetGrade(), vm.GetGrade())
	}
	reads := []*commandv1.Read{read("project", project)}
	more, err := resolveVM(tx, r, vms)
	return append(reads, more...), err
}

func resolveVM(tx *state.Tx, r *apiv1.Request, vms []*apiv1.VM) (reads []*commandv1.Read, err error) {
	vm := vms[0]
	switch ask := r.GetSpecification().GetWhat().(type) {
	case *apiv1.RequestSpecification_Power:
		ask.Power.Vm, ask.Power.VmId = vm.GetName(), vm.GetId()
	case *apiv1.RequestSpecification_Reclaim:
		ask.Reclaim.Vms, ask.Reclaim.VmIds = nil, nil
		for _, vm := range vms {
			ask.Reclaim.Vms, ask.Reclaim.VmIds = append(ask.Reclaim.GetVms(), vm.GetName()), append(ask.Reclaim.GetVmIds(), vm.GetId())
		}
		if ask.Reclaim.GetKeepDays() == 0 {
			ask.Reclaim.KeepDays = UsualKeep
		}
	case *apiv1.RequestSpecification_Extend:
		ask.Extend.Vm, ask.Extend.VmId, r.LeaseDays = vm.GetName(), vm.GetId(), ask.Extend.GetDays()
		if err := extendable(tx, ask.Extend, vm); err != nil {
			return nil, err
		}
	case *apiv1.RequestSpecification_Resize:
		ask.Resize.Vm, ask.Resize.VmId = vm.GetName(), vm.GetId()
		flavor, err := resolveResize(tx, r, ask.Resize, vm)
		if err != nil {
			return nil, err
		}
		reads = append(reads, flavor)
	case *apiv1.RequestSpecification_Snapshot:
		ask.Snapshot.Vm, ask.Snapshot.VmId, ask.Snapshot.SnapshotId = vm.GetName(), vm.GetId(), uuid.Must(uuid.NewV7()).String()
		if ask.Snapshot.GetName() == "" {
			return nil, problem.New(problem.Invalid, "a snapshot has a name", "Give it one.").With("specification.snapshot.name", "is required")
		}
		_, err := tx.Snapshots.ByName(ask.Snapshot.GetName(), state.Scope{"vm_id": vm.GetId()})
		if err == nil {
			return nil, problem.Newf(problem.NameTaken, "Choose another name.", "VM %s has a snapshot %s already", vm.GetName(), ask.Snapshot.GetName()).With("specification.snapshot.name", "is taken")
		}
		if !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
	case *apiv1.RequestSpecification_Restore:
		ask.Restore.Vm, ask.Restore.VmId = vm.GetName(), vm.GetId()
		if err := resolveRestore(tx, ask.Restore, vm); err != nil {
			return nil, err
		}
	}
	for _, vm := range vms {
		more, err := Possible(tx, r.GetSpecification(), vm)
		if err != nil {
			return nil, underKind(err, r)
		}
		reads = append(reads, more...)
	}
	return reads, costs(tx, r, vm)
}

// underKind names fields of an act as a request has them.
func underKind(err error, r *apiv1.Request) error {
	var e *problem.Error
	if errors.As(err, &e) {
		for _, f := range e.Problem.GetErrors() {
			f.Field = "specification." + strings.ToLower(r.GetKind().String()) + "." + f.GetField()
		}
	}
	return err
}

func resolveResize(tx *state.Tx, r *apiv1.Request, ask *apiv1.ResizeVM, vm *apiv1.VM) (*commandv1.Read, error) {
	flavor, err := tx.Flavors.Find(ask.GetFlavor(), nil)
	if err != nil {
		return nil, gone(err, "flavor", ask.GetFlavor())
	}
	ask.Flavor, ask.SizeBefore = flavor.GetName(), vm.GetSize()
	ask.Size = &apiv1.Resources{Cores: flavor.GetCores(), MemoryMib: flavor.GetMemoryMib(), DiskGib: flavor.GetDiskGib()}
	r.Amount = ask.GetSize()
	if HasSize(ask, vm) {
		return nil, problem.Newf(problem.WrongState, "Choose another flavor.", "VM %s has the size of flavor %s already", vm.GetName(), flavor.GetName()).With("specification.resize.flavor", "changes nothing")
	}
	return read("flavor", flavor), nil
}

func resolveRestore(tx *state.Tx, ask *apiv1.RestoreVM, vm *apiv1.VM) error {
	if ask.SnapshotId = ""; ask.GetSnapshot() == "" {
		return nil
	}
	all, err := tx.SnapshotsOf(vm.GetId())
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.GetId() == ask.GetSnapshot() || s.GetName() == ask.GetSnapshot() {
			ask.Snapshot, ask.SnapshotId = s.GetName(), s.GetId()
			return nil
		}
	}
	return problem.Newf(problem.NotFound, "naru snapshot list --vm "+vm.GetName()+" shows which there are.", "VM %s has no snapshot %s", vm.GetName(), ask.GetSnapshot())
}
