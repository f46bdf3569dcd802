package intake

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Possible refuses what cannot be done to a VM as it is, alike where it is done at once, asked for by a request, and carried out for
// one. What passes by itself refuses nothing here: that the VM is being built, or that something else is being done to it. What
// quotas and hosts leave is asked elsewhere. Fields are named as the act has them: flavor, may_stop. It returns on what it rests.
func Possible(tx *state.Tx, what *apiv1.RequestSpecification, vm *apiv1.VM) ([]*commandv1.Read, error) {
	if err := there(tx, what, vm); err != nil {
		return nil, err
	}
	switch ask := what.GetWhat().(type) {
	case *apiv1.RequestSpecification_Power:
		return nil, mayTurn(tx, ask.Power, vm)
	case *apiv1.RequestSpecification_Resize:
		return mayResize(tx, ask.Resize, vm)
	case *apiv1.RequestSpecification_Snapshot:
		if vm.GetPower() == apiv1.VM_ON && !ask.Snapshot.GetMayStop() {
			return nil, isOn(vm, "a snapshot is taken")
		}
		return nil, quota.AnotherSnapshot(tx, vm)
	case *apiv1.RequestSpecification_Restore:
		return nil, mayRestore(tx, ask.Restore, vm)
	}
	return nil, nil
}

// there refuses a VM that is not to stay, or of which its zone knows too little or does nothing more.
func there(tx *state.Tx, what *apiv1.RequestSpecification, vm *apiv1.VM) error {
	zone, err := tx.Zones.Get(vm.GetZoneId())
	if err != nil {
		return gone(err, "zone", vm.GetZone())
	}
	untrash, reclaim := what.GetRestore() != nil && what.GetRestore().GetSnapshotId() == "", what.GetReclaim() != nil
	trashed := vm.GetDesiredState() == apiv1.VM_TRASHED
	switch {
	case zone.GetState() == apiv1.Zone_RETIRED:
		return problem.Newf(problem.WrongState, "Use another zone.", "zone %s is retired", zone.GetName())
	case vm.GetDesiredState() == apiv1.VM_DELETED:
		return problem.Newf(problem.WrongState, "Make a new one.", "VM %s is being deleted", vm.GetName())
	case untrash && !trashed:
		return problem.Newf(problem.WrongState, "Nothing is to be done. To have its disk put back, name a snapshot: naru snapshot list --vm "+vm.GetName()+".", "VM %s is not in the trash", vm.GetName())
	case trashed && !untrash && !reclaim:
		return problem.Newf(problem.WrongState, "Take it out first: naru vm untrash "+vm.GetName()+"; or ask for that: naru request create --untrash --vm "+vm.GetName()+".", "VM %s is in the trash", vm.GetName())
	case !request.Whole(vm):
		return request.NotWhole(vm)
	case reclaim && !trashed && vm.GetState() == apiv1.VM_ERROR:
		return problem.Newf(problem.WrongState, "Delete it: naru vm delete "+vm.GetName()+".", "VM %s is neither running nor stopped, and has nothing to be kept", vm.GetName())
	case (what.GetResize() != nil || what.GetSnapshot() != nil || what.GetRestore().GetSnapshotId() != "") && vm.GetState() == apiv1.VM_ERROR:
		return problem.Newf(problem.WrongState, "Wait until it is running or stopped.", "VM %s is error", vm.GetName())
	case untrash, reclaim, what.GetExtend() != nil:
		return nil
	}
	return onLostHost(tx, vm)
}

// onLostHost refuses what cannot be done on a host that was declared lost; its zone would refuse it later.
func onLostHost(tx *state.Tx, vm *apiv1.VM) error {
	if vm.GetHostId() == "" {
		return nil
	}
	host, err := tx.Hosts.Get(vm.GetHostId())
	if errors.Is(err, state.ErrNotFound) || err == nil && host.GetLoss() == nil {
		return nil
	}
	if err != nil {
		return err
	}
	return problem.Newf(problem.WrongState,
		"Delete the VM and make it anew: naru vm delete "+vm.GetName()+". Or, where the host is found, an administrator says so: naru host found "+host.GetName()+" --zone "+host.GetZone()+" --reason TEXT.",
		"host %s of VM %s was declared lost (%s); nothing on it is started or stopped", host.GetName(), vm.GetName(), host.GetLoss().GetReason())
}

// mayTurn refuses to start a VM whose lease is over, and a reboot of what does not run, or is not to run, with what is wanted of it
// and how far that is.
func mayTurn(tx *state.Tx, ask *apiv1.PowerVM, vm *apiv1.VM) error {
	switch ask.GetVerb() {
	case apiv1.PowerVM_START:
		m, err := tx.LeaseOf(vm.GetId())
		if err == nil && m.GetState() == apiv1.Lease_EXPIRED {
			return problem.Newf(problem.WrongState, "Ask for more time: naru lease extend "+vm.GetName()+".", "the lease of VM %s ended on %s",
				vm.GetName(), m.GetExpiresAt().AsTime().UTC().Format(time.DateOnly))
		}
		return absent(err)
	case apiv1.PowerVM_REBOOT:
		return mayReboot(tx, vm)
	}
	return nil
}

func mayReboot(tx *state.Tx, vm *apiv1.VM) error {
	const only = "only a VM that runs, and is to run, is rebooted"
	name, wanted := vm.GetName(), vm.GetDesiredState()
	if wanted == apiv1.VM_RUNNING && vm.GetState() == apiv1.VM_RUNNING {
		return nil
	}
	op, err := tx.Operations.Get(vm.GetOperation())
	if absent(err) != nil {
		return err
	}
	is := "VM " + name + " is " + lower(vm.GetState())
	if err == nil && !op.GetDone() {
		next := "Wait for it: naru operation wait " + op.GetId() + "."
		if wanted != apiv1.VM_RUNNING {
			next = "Start it, which takes the other's place: naru vm start " + name + "."
		}
		return problem.Newf(problem.WrongState, next, "%s, and its %s is under way; %s", is, strings.TrimPrefix(op.GetKind(), "vm."), only)
	}
	if wanted != vm.GetState() {
		is += " and wanted " + lower(wanted)
	}
	return problem.Newf(problem.WrongState, "Start it: naru vm start "+name+".", "%s; %s", is, only)
}

// mayResize refuses a size that the VM's image cannot run in, or a disk that would become smaller.
func mayResize(tx *state.Tx, ask *apiv1.ResizeVM, vm *apiv1.VM) ([]*commandv1.Read, error) {
	if ask.GetSize().GetDiskGib() < vm.GetSize().GetDiskGib() {
		return nil, problem.Newf(problem.Invalid, "Choose a flavor whose disk is as large.", "VM %s has a disk of %d GiB, which cannot become smaller, and flavor %s has %d",
			vm.GetName(), vm.GetSize().GetDiskGib(), ask.GetFlavor(), ask.GetSize().GetDiskGib()).With("flavor", "has a smaller disk than the VM")
	}
	image, err := tx.Images.ByName(vm.GetImage(), nil)
	if errors.Is(err, state.ErrNotFound) || err == nil && image.GetSha256() != vm.GetImageSha256() {
		return nil, nil // what the VM was made of is there no more
	}
	if err != nil {
		return nil, err
	}
	return []*commandv1.Read{read("image", image)}, catalog.Fits(ask.GetFlavor(), ask.GetSize(), image)
}

// HasSize reports whether a resize would change nothing.
func HasSize(ask *apiv1.ResizeVM, vm *apiv1.VM) bool {
	return ask.GetFlavor() == vm.GetFlavor() && proto.Equal(ask.GetSize(), vm.GetSize())
}

func mayRestore(tx *state.Tx, ask *apiv1.RestoreVM, vm *apiv1.VM) error {
	if ask.GetSnapshotId() == "" {
		return nil
	}
	if vm.GetPower() == apiv1.VM_ON && !ask.GetMayStop() {
		return isOn(vm, "its disk is put back")
	}
	m, err := tx.Snapshots.Get(ask.GetSnapshotId())
	if err == nil && (m.GetState() == apiv1.Snapshot_DELETING || m.GetState() == apiv1.Snapshot_ERROR) {
		return problem.Newf(problem.WrongState, "Restore one that is ready: naru snapshot list --vm "+vm.GetName()+".", "snapshot %s of VM %s is not ready", m.GetName(), vm.GetName())
	}
	return gone(err, "snapshot", ask.GetSnapshot())
}

func isOn(vm *apiv1.VM, what string) error {
	return problem.Newf(problem.WrongState, "Allow that it is stopped for that (may_stop; --may-stop), or stop it first: naru vm stop "+vm.GetName()+".",
		"VM %s is on, and %s while it is off", vm.GetName(), what)
}

// absent takes away the error of what is not there.
func absent(err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// lower writes a state as people do.
func lower(s interface{ String() string }) string {
	return strings.ToLower(strings.ReplaceAll(s.String(), "_", " "))
}
