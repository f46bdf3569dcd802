package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func brokers() *spec[*apiv1.Broker] {
	return &spec[*apiv1.Broker]{
		noun: "broker", plural: "brokers", named: true,
		zero:   func() *apiv1.Broker { return &apiv1.Broker{} },
		revise: func(m *apiv1.Broker, r string) { m.Revision = r },
		columns: []column[*apiv1.Broker]{
			text("name", (*apiv1.Broker).GetName).asFixed(),
			text("hub_address", (*apiv1.Broker).GetHubAddress),
			text("fingerprint", (*apiv1.Broker).GetFingerprint),
			flag("enrolled", (*apiv1.Broker).GetEnrolled),
			moment("created_at", (*apiv1.Broker).GetCreatedAt),
		},
	}
}
