package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func zones() *spec[*apiv1.Zone] {
	return &spec[*apiv1.Zone]{
		noun: "zone", plural: "zones", named: true,
		zero:   func() *apiv1.Zone { return &apiv1.Zone{} },
		revise: func(m *apiv1.Zone, r string) { m.Revision = r },
		columns: []column[*apiv1.Zone]{
			text("name", (*apiv1.Zone).GetName).asFixed(),
			text("kind", (*apiv1.Zone).GetKind),
			enum("grade", (*apiv1.Zone).GetGrade),
			text("parent", (*apiv1.Zone).GetParent),
			text("broker", (*apiv1.Zone).GetBroker),
			enum("state", (*apiv1.Zone).GetState),
			enum("freshness", (*apiv1.Zone).GetFreshness),
			text("incarnation", (*apiv1.Zone).GetIncarnation),
			moment("state_changed_at", (*apiv1.Zone).GetStateChangedAt),
			moment("created_at", (*apiv1.Zone).GetCreatedAt),
		},
	}
}
