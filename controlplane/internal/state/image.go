package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func images() *spec[*apiv1.Image] {
	return &spec[*apiv1.Image]{
		noun: "image", plural: "images", named: true,
		zero:   func() *apiv1.Image { return &apiv1.Image{} },
		revise: func(m *apiv1.Image, r string) { m.Revision = r },
		columns: []column[*apiv1.Image]{
			text("name", (*apiv1.Image).GetName).asFixed(),
			text("sha256", (*apiv1.Image).GetSha256),
			enum("format", (*apiv1.Image).GetFormat),
			text("os", (*apiv1.Image).GetOs),
			enum("grade", (*apiv1.Image).GetGrade),
			number("min_memory_mib", (*apiv1.Image).GetMinMemoryMib),
			number("min_disk_gib", (*apiv1.Image).GetMinDiskGib),
			moment("created_at", (*apiv1.Image).GetCreatedAt),
		},
	}
}
