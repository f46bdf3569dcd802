package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func flavors() *spec[*apiv1.Flavor] {
	return &spec[*apiv1.Flavor]{
		noun: "flavor", plural: "flavors", named: true,
		zero:   func() *apiv1.Flavor { return &apiv1.Flavor{} },
		revise: func(m *apiv1.Flavor, r string) { m.Revision = r },
		columns: []column[*apiv1.Flavor]{
			text("name", (*apiv1.Flavor).GetName).asFixed(),
			number("cores", (*apiv1.Flavor).GetCores),
			number("memory_mib", (*apiv1.Flavor).GetMemoryMib),
			number("disk_gib", (*apiv1.Flavor).GetDiskGib),
			moment("created_at", (*apiv1.Flavor).GetCreatedAt),
		},
	}
}
