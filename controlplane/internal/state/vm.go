package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// vmFreshness is the worse of the zone's link and the host's reach. It is reckoned when read: losing a link writes one
// row, the zone's, and not one for each of its VMs. Filters and orders reckon it in SQL, messages in deriveFreshness.
const vmFreshness = `max(vms.host_freshness, coalesce((SELECT zones.freshness FROM zones WHERE zones.id=vms.zone_id), 0))`

func vms() *spec[*apiv1.VM] {
	return &spec[*apiv1.VM]{
		noun: "vm", plural: "vms", named: true, scope: []string{"project_id"},
		zero:   func() *apiv1.VM { return &apiv1.VM{} },
		revise: func(m *apiv1.VM, r string) { m.Revision = r },
		derive: deriveFreshness, underive: func(m *apiv1.VM) { m.Freshness = 0 },
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
			text("flavor", (*apiv1.VM).GetFlavor).asFixed(),
			text("image", (*apiv1.VM).GetImage).asFixed(),
			text("address", (*apiv1.VM).GetAddress),
			enum("desired_state", (*apiv1.VM).GetDesiredState),
			enum("state", (*apiv1.VM).GetState),
			enum("task", (*apiv1.VM).GetTask),
			enum("power", (*apiv1.VM).GetPower),
			enum("host_freshness", (*apiv1.VM).GetHostFreshness),
			reckoned("freshness", vmFreshness, (*apiv1.VM).GetFreshness),
			moment("created_at", (*apiv1.VM).GetCreatedAt),
			hidden("generation", func(m *apiv1.VM) uint64 { return m.GetGeneration().GetIndex() }),
		},
		further: []string{"(zone_id, generation)"},
	}
}

func deriveFreshness(tx *Tx, m *apiv1.VM) error {
	zone, err := tx.zoneFreshness(m.GetZoneId())
	m.Freshness = max(m.GetHostFreshness(), zone)
	return err
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
