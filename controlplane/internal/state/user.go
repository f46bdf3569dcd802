package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func users() *spec[*apiv1.User] {
	return &spec[*apiv1.User]{
		noun: "user", plural: "users", named: true,
		zero:   func() *apiv1.User { return &apiv1.User{} },
		revise: func(m *apiv1.User, r string) { m.Revision = r },
		columns: []column[*apiv1.User]{
			text("name", (*apiv1.User).GetName).asFixed(),
			enum("kind", (*apiv1.User).GetKind).asFixed(),
			text("title", (*apiv1.User).GetTitle),
			text("email", (*apiv1.User).GetEmail),
			text("organization", (*apiv1.User).GetOrganization),
			text("organization_id", (*apiv1.User).GetOrganizationId),
			flag("disabled", (*apiv1.User).GetDisabled),
			enum("second_factor", (*apiv1.User).GetSecondFactor),
			moment("created_at", (*apiv1.User).GetCreatedAt),
		},
		further: []string{"(organization_id)"},
	}
}
