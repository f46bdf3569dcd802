package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func vmSnapshots() *spec[*apiv1.Snapshot] {
	return &spec[*apiv1.Snapshot]{
		noun: "snapshot", plural: "snapshots", named: true, scope: []string{"vm_id"},
		zero:   func() *apiv1.Snapshot { return &apiv1.Snapshot{} },
		revise: func(m *apiv1.Snapshot, r string) { m.Revision = r },
		charge: (*Tx).chargeSnapshot,
		columns: []column[*apiv1.Snapshot]{
			text("name", (*apiv1.Snapshot).GetName).asFixed(),
			text("project", (*apiv1.Snapshot).GetProject).asFixed(),
			text("project_id", (*apiv1.Snapshot).GetProjectId).asFixed(),
			text("vm", (*apiv1.Snapshot).GetVm).asFixed(),
			text("vm_id", (*apiv1.Snapshot).GetVmId).asFixed(),
			text("zone", (*apiv1.Snapshot).GetZone).asFixed(),
			text("zone_id", (*apiv1.Snapshot).GetZoneId).asFixed(),
			enum("state", (*apiv1.Snapshot).GetState),
			text("operation", (*apiv1.Snapshot).GetOperation),
			moment("taken_at", (*apiv1.Snapshot).GetTakenAt),
			moment("created_at", (*apiv1.Snapshot).GetCreatedAt),
		},
		further: []string{"(vm_id)", "(operation)"},
	}
}

// SnapshotsOf returns the snapshots of a VM, oldest first.
func (tx *Tx) SnapshotsOf(vmID string) ([]*apiv1.Snapshot, error) {
	t := tx.Snapshots
	return t.collect(t.spec.text.all+" WHERE vm_id=? ORDER BY id", vmID)
}

// SnapshotOfOperation returns the snapshot that an operation takes or deletes. Errors: ErrNotFound.
func (tx *Tx) SnapshotOfOperation(id string) (*apiv1.Snapshot, error) {
	t := tx.Snapshots
	return t.one(t.spec.text.all+" WHERE operation=? ORDER BY id LIMIT 1", id)
}
