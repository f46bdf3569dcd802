package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func roles() *spec[*apiv1.Role] {
	return &spec[*apiv1.Role]{
		noun: "role", plural: "roles", named: true,
		zero:   func() *apiv1.Role { return &apiv1.Role{} },
		revise: func(m *apiv1.Role, r string) { m.Revision = r },
		columns: []column[*apiv1.Role]{
			text("name", (*apiv1.Role).GetName).asFixed(),
			text("title", (*apiv1.Role).GetTitle),
			flag("at_edges", (*apiv1.Role).GetAtEdges),
			flag("built_in", (*apiv1.Role).GetBuiltIn),
			moment("created_at", (*apiv1.Role).GetCreatedAt),
		},
	}
}
