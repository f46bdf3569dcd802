package state

import (
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func leases() *spec[*apiv1.Lease] {
	return &spec[*apiv1.Lease]{
		noun: "lease", plural: "leases", usual: "expires_at",
		zero:   func() *apiv1.Lease { return &apiv1.Lease{} },
		revise: func(m *apiv1.Lease, r string) { m.Revision = r },
		columns: []column[*apiv1.Lease]{
			text("vm", (*apiv1.Lease).GetVm).asFixed(),
			text("vm_id", (*apiv1.Lease).GetVmId).asFixed(),
			text("project", (*apiv1.Lease).GetProject).asFixed(),
			text("project_id", (*apiv1.Lease).GetProjectId).asFixed(),
			text("zone", (*apiv1.Lease).GetZone).asFixed(),
			text("zone_id", (*apiv1.Lease).GetZoneId).asFixed(),
			text("request", (*apiv1.Lease).GetRequest).asFixed(),
			enum("state", (*apiv1.Lease).GetState),
			moment("starts_at", (*apiv1.Lease).GetStartsAt),
			moment("expires_at", (*apiv1.Lease).GetExpiresAt),
			moment("reclaim_at", (*apiv1.Lease).GetReclaimAt),
			moment("ended_at", (*apiv1.Lease).GetEndedAt),
			moment("created_at", (*apiv1.Lease).GetCreatedAt),
			hidden("due", leaseDue),
		},
		further: []string{"(vm_id)", "(due, id) WHERE due>0", "(ended_at) WHERE ended_at>0", "(project_id)"},
	}
}

// leaseDue is when the next step of a lease is to be taken, in microseconds; 1 for one that waits for its VM, 0 where none is left to the
// clock.
func leaseDue(m *apiv1.Lease) uint64 {
	switch m.GetState() {
	case apiv1.Lease_PENDING:
		return 1
	case apiv1.Lease_ACTIVE:
		return uint64(Micros(m.GetWarnAt()))
	case apiv1.Lease_WARNED:
		return uint64(Micros(m.GetExpiresAt()))
	case apiv1.Lease_EXPIRED:
		return uint64(Micros(m.GetReclaimAt()))
	}
	return 0
}

// DueLeases returns up to limit leases behind an id of which a step may be due at the time in microseconds, by id.
func (tx *Tx) DueLeases(micros int64, after string, limit int) ([]*apiv1.Lease, error) {
	t := tx.Leases
	return t.collect(t.spec.text.all+" WHERE due>0 AND due<=? AND id>? ORDER BY id"+atMost, micros, after, limit)
}

// LeaseOf returns the lease of a VM. Errors: ErrNotFound.
func (tx *Tx) LeaseOf(vmID string) (*apiv1.Lease, error) {
	t := tx.Leases
	return t.one(t.spec.text.all+" WHERE vm_id=? ORDER BY id DESC LIMIT 1", vmID)
}

// LeaseByVM returns the newest lease of a VM of a name within a project; of any where none is named. Errors: ErrNotFound.
func (tx *Tx) LeaseByVM(name, projectID string) (*apiv1.Lease, error) {
	t := tx.Leases
	return t.one(t.spec.text.all+" WHERE vm=?1 AND (?2='' OR project_id=?2) ORDER BY id DESC LIMIT 1", name, projectID)
}

// ForgetLeases forgets up to limit leases that ended before the time in microseconds.
func (tx *Tx) ForgetLeases(before int64, limit int) error {
	t := tx.Leases
	old, err := t.collect(t.spec.text.all+" WHERE ended_at>0 AND ended_at<? ORDER BY ended_at, id"+atMost, before, limit)
	for _, m := range old {
		if err == nil {
			err = t.Forget(m.GetId())
		}
	}
	return err
}
