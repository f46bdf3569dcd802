package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

// hostFreshness is the worse of the zone's link and the zone's word, which is what is stored. See vmFreshness.
const hostFreshness = `max(hosts.freshness, coalesce((SELECT zones.freshness FROM zones WHERE zones.id=hosts.zone_id), 0))`

func hosts() *spec[*apiv1.Host] {
	return &spec[*apiv1.Host]{
		noun: "host", plural: "hosts", named: true, scope: []string{"cluster_id"},
		zero:   func() *apiv1.Host { return &apiv1.Host{} },
		revise: func(m *apiv1.Host, r string) { m.Revision = r },
		derive: deriveHostFreshness,
		columns: []column[*apiv1.Host]{
			text("name", (*apiv1.Host).GetName).asFixed(),
			text("zone", (*apiv1.Host).GetZone).asFixed(),
			text("zone_id", (*apiv1.Host).GetZoneId).asFixed(),
			text("cluster", (*apiv1.Host).GetCluster).asFixed(),
			text("cluster_id", (*apiv1.Host).GetClusterId).asFixed(),
			text("endpoint", (*apiv1.Host).GetEndpoint),
			enum("admin_state", (*apiv1.Host).GetAdminState),
			enum("health", (*apiv1.Host).GetHealth),
			enum("freshness", (*apiv1.Host).GetFreshness).readAs(hostFreshness),
			number("vm_count", (*apiv1.Host).GetVmCount),
			text("hypervisor_version", (*apiv1.Host).GetHypervisorVersion),
			moment("health_changed_at", (*apiv1.Host).GetHealthChangedAt),
			moment("created_at", (*apiv1.Host).GetCreatedAt),
			hidden("generation", func(m *apiv1.Host) uint64 { return m.GetGeneration().GetIndex() }),
		},
		further: []string{"(zone_id, generation)"},
	}
}

// deriveHostFreshness leaves the zone's word alone where the host may be written again.
func deriveHostFreshness(tx *Tx, m *apiv1.Host) error {
	if tx.writable {
		return nil
	}
	zone, err := tx.zoneFreshness(m.GetZoneId())
	m.Freshness = max(m.GetFreshness(), zone)
	return err
}
