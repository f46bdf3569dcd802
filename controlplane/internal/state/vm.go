package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// vmFreshness is the worse of the zone's link and the host's reach. It is reckoned when read: losing a link writes one
// row, the zone's, and not one for each of its VMs. Filters and orders reckon it in SQL, messages in deriveVM.
const vmFreshness = `max(vms.host_freshness, coalesce((SELECT zones.freshness FROM zones WHERE zones.id=vms.zone_id), 0))`

// vmGrade is the highest of what was asked for, the project's and the image's. It is reckoned when read: a project that is
// graded anew writes its own row, and none of its VMs. Filters and orders reckon it in SQL, messages in deriveGrade.
const vmGrade = `max(1, vms.grade, coalesce((SELECT projects.grade FROM projects WHERE projects.id=vms.project_id), 0),
	coalesce((SELECT images.grade FROM images WHERE images.name=vms.image), 0))`

func vms() *spec[*apiv1.VM] {
	return &spec[*apiv1.VM]{
		noun: "vm", plural: "vms", named: true, scope: []string{"project_id"},
		zero:   func() *apiv1.VM { return &apiv1.VM{} },
		revise: func(m *apiv1.VM, r string) { m.Revision = r },
		derive: deriveVM, underive: func(m *apiv1.VM) { m.Freshness = 0 }, charge: (*Tx).chargeVM,
		columns: []column[*apiv1.VM]{
			text("name", (*apiv1.VM).GetName).asFixed(),
			text("project", (*apiv1.VM).GetProject).asFixed(),
			text("project_id", (*apiv1.VM).GetProjectId).asFixed(),
			text("zone", (*apiv1.VM).GetZone).asFixed(),
			text("zone_id", (*apiv1.VM).GetZoneId).asFixed(),
			text("cluster", (*apiv1.VM).GetCluster),
			text("cluster_id", (*apiv1.VM).GetClusterId),
			text("host", (*apiv1.VM).GetHost),
			text("host_id", (*apiv1.VM).GetHostId),
			text("flavor", (*apiv1.VM).GetFlavor),
			text("image", (*apiv1.VM).GetImage).asFixed(),
			text("address", (*apiv1.VM).GetAddress),
			enum("desired_state", (*apiv1.VM).GetDesiredState),
			enum("state", (*apiv1.VM).GetState),
			enum("task", (*apiv1.VM).GetTask),
			enum("power", (*apiv1.VM).GetPower),
			enum("grade", (*apiv1.VM).GetGrade).readAs(vmGrade),
			enum("host_freshness", (*apiv1.VM).GetHostFreshness),
			reckoned("freshness", vmFreshness, (*apiv1.VM).GetFreshness),
			moment("created_at", (*apiv1.VM).GetCreatedAt),
			moment("delete_at", (*apiv1.VM).GetDeleteAt),
			moment("expires_at", (*apiv1.VM).GetExpiresAt),
			hidden("generation", func(m *apiv1.VM) uint64 { return m.GetGeneration().GetIndex() }),
		},
		further: []string{"(zone_id, generation)", "(delete_at) WHERE delete_at>0"},
	}
}

// DueTrash returns the ids of up to limit VMs whose time in the trash is over at the time in microseconds, earliest first.
func (tx *Tx) DueTrash(micros int64, limit int) (ids []string, err error) {
	err = tx.query("SELECT id FROM vms WHERE delete_at>0 AND delete_at<=? AND desired_state<>? ORDER BY delete_at, id"+atMost, func(s *sqlite.Stmt) error {
		ids = append(ids, s.ColumnText(0))
		return nil
	}, micros, int64(apiv1.VM_DELETED), limit)
	return ids, err
}

func deriveVM(tx *Tx, m *apiv1.VM) error {
	zone, err := tx.zoneFreshness(m.GetZoneId())
	m.Freshness = max(m.GetHostFreshness(), zone)
	if err != nil {
		return err
	}
	return deriveGrade(tx, m)
}

// deriveGrade leaves what was asked for alone where the VM may be written again.
func deriveGrade(tx *Tx, m *apiv1.VM) error {
	if tx.writable {
		return nil
	}
	project, err := tx.gradeOf(owner{"projects", m.GetProjectId()}, "SELECT grade FROM projects WHERE id=?")
	if err != nil {
		return err
	}
	image, err := tx.gradeOf(owner{"images", m.GetImage()}, "SELECT grade FROM images WHERE name=?")
	m.Grade = max(apiv1.Zone_OPEN, m.GetGrade(), project, image)
	return err
}

// owner is a row that has a grade: its table, and its id or name.
type owner struct{ table, key string }

// gradeOf returns a row's grade; none where there is no such row. A read asks once for each: its snapshot does not change.
func (tx *Tx) gradeOf(of owner, sql string) (grade apiv1.Zone_Grade, err error) {
	if grade, ok := tx.graded[of]; ok {
		return grade, nil
	}
	err = tx.query(sql, func(s *sqlite.Stmt) error {
		grade = apiv1.Zone_Grade(s.ColumnInt64(0))
		return nil
	}, of.key)
	if err != nil {
		return 0, err
	}
	if tx.graded == nil {
		tx.graded = map[owner]apiv1.Zone_Grade{}
	}
	tx.graded[of] = grade
	return grade, nil
}

// zoneFreshness returns how fresh a zone is. A read asks once for each zone: its snapshot does not change.
func (tx *Tx) zoneFreshness(zoneID string) (level apiv1.Freshness_Level, err error) {
	if level, ok := tx.fresh[zoneID]; ok {
		return level, nil
	}
	err = tx.query("SELECT freshness FROM zones WHERE id=?", func(s *sqlite.Stmt) error {
		level = apiv1.Freshness_Level(s.ColumnInt64(0))
		return nil
	}, zoneID)
	if err == nil && !tx.writable {
		tx.fresh[zoneID] = level
	}
	return level, err
}
