package intake

import (
	"errors"
	"time"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// extendable refuses more time for a VM that has no lease which runs or has its grace, and more than its longest allows.
func extendable(tx *state.Tx, ask *apiv1.ExtendLease, vm *apiv1.VM) error {
	m, err := tx.LeaseOf(vm.GetId())
	if errors.Is(err, state.ErrNotFound) {
		return problem.Newf(problem.WrongState, "It has no end, and needs no more time.", "VM %s has no lease", vm.GetName()).With("specification.extend.vm", "has no lease")
	}
	if err != nil {
		return err
	}
	switch m.GetState() {
	case apiv1.Lease_ACTIVE, apiv1.Lease_WARNED, apiv1.Lease_EXPIRED:
	case apiv1.Lease_TRASHED:
		return problem.Newf(problem.WrongState, "Ask that the VM is restored first.", "VM %s is in the trash", vm.GetName())
	default:
		return problem.Newf(problem.WrongState, "Wait until the VM can be used.", "the lease of VM %s has not begun, or is over", vm.GetName())
	}
	if ask.GetDays() == 0 {
		return problem.New(problem.Invalid, "the request does not say how much more time", "Name some days.").With("specification.extend.days", "is required")
	}
	from := m.GetExpiresAt().AsTime()
	if now := time.Now(); now.After(from) {
		from = now
	}
	if m.GetLongestUntil() == nil || !from.AddDate(0, 0, int(ask.GetDays())).After(m.GetLongestUntil().AsTime()) {
		return nil
	}
	most := max(0, int(m.GetLongestUntil().AsTime().Sub(from)/(24*time.Hour)))
	return problem.Newf(problem.Invalid, "Ask for fewer days, or for another VM.", "the lease of VM %s lasts until %s at most, and so %d days more",
		vm.GetName(), m.GetLongestUntil().AsTime().Format(time.DateOnly), most).With("specification.extend.days", "is too many")
}
