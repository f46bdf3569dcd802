package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func projects() *spec[*apiv1.Project] {
	return &spec[*apiv1.Project]{
		noun: "project", plural: "projects", named: true,
		zero:     func() *apiv1.Project { return &apiv1.Project{} },
		revise:   func(m *apiv1.Project, r string) { m.Revision = r },
		underive: func(m *apiv1.Project) { m.Quotas = nil },
		columns: []column[*apiv1.Project]{
			text("name", (*apiv1.Project).GetName).asFixed(),
			text("organization", (*apiv1.Project).GetOrganization),
			text("organization_id", (*apiv1.Project).GetOrganizationId),
			enum("grade", (*apiv1.Project).GetGrade),
			moment("created_at", (*apiv1.Project).GetCreatedAt),
		},
		further: []string{"(organization_id)"},
	}
}
