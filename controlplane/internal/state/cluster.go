package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

// clusterFreshness is that of the zone's link: what a cluster has is as current as the last word of its zone. See vmFreshness.
const clusterFreshness = `coalesce((SELECT zones.freshness FROM zones WHERE zones.id=clusters.zone_id), 0)`

func clusters() *spec[*apiv1.Cluster] {
	return &spec[*apiv1.Cluster]{
		noun: "cluster", plural: "clusters", named: true, scope: []string{"zone_id"},
		zero:   func() *apiv1.Cluster { return &apiv1.Cluster{} },
		revise: func(m *apiv1.Cluster, r string) { m.Revision = r },
		derive: deriveClusterFreshness, underive: func(m *apiv1.Cluster) { m.Freshness = 0 },
		columns: []column[*apiv1.Cluster]{
			text("name", (*apiv1.Cluster).GetName).asFixed(),
			text("zone", (*apiv1.Cluster).GetZone).asFixed(),
			text("zone_id", (*apiv1.Cluster).GetZoneId).asFixed(),
			text("purpose", (*apiv1.Cluster).GetPurpose),
			text("hypervisor", (*apiv1.Cluster).GetHypervisor),
			enum("strategy", (*apiv1.Cluster).GetStrategy),
			flag("cordoned", (*apiv1.Cluster).GetCordoned),
			text("owner", (*apiv1.Cluster).GetOwner),
			number("host_count", (*apiv1.Cluster).GetHostCount),
			reckoned("freshness", clusterFreshness, (*apiv1.Cluster).GetFreshness),
			moment("created_at", (*apiv1.Cluster).GetCreatedAt),
			hidden("generation", func(m *apiv1.Cluster) uint64 { return m.GetGeneration().GetIndex() }),
		},
		further: []string{"(zone_id, generation)"},
	}
}

func deriveClusterFreshness(tx *Tx, m *apiv1.Cluster) (err error) {
	m.Freshness, err = tx.zoneFreshness(m.GetZoneId())
	return err
}
