package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

// offerings holds of each the version that can be asked for, or was last; the one that is being written while there is no
// other. The rest are among the versions.
func offerings() *spec[*apiv1.Offering] {
	return &spec[*apiv1.Offering]{
		noun: "offering", plural: "offerings", named: true,
		zero:   func() *apiv1.Offering { return &apiv1.Offering{} },
		revise: func(m *apiv1.Offering, r string) { m.Revision = r },
		columns: []column[*apiv1.Offering]{
			text("name", (*apiv1.Offering).GetName).asFixed(),
			text("category", (*apiv1.Offering).GetCategory),
			enum("state", (*apiv1.Offering).GetState),
			number("version", (*apiv1.Offering).GetVersion),
			text("image", (*apiv1.Offering).GetImage),
			text("approval_policy", (*apiv1.Offering).GetApprovalPolicy),
			text("created_by", (*apiv1.Offering).GetCreatedBy),
			moment("created_at", (*apiv1.Offering).GetCreatedAt),
			moment("published_at", (*apiv1.Offering).GetPublishedAt),
		},
	}
}
