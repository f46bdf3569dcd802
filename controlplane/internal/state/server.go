package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func servers() *spec[*apiv1.Server] {
	return &spec[*apiv1.Server]{
		noun: "server", plural: "servers", named: true,
		zero:   func() *apiv1.Server { return &apiv1.Server{} },
		revise: func(m *apiv1.Server, r string) { m.Revision = r },
		columns: []column[*apiv1.Server]{
			text("name", (*apiv1.Server).GetName).asFixed(),
			text("peer_address", (*apiv1.Server).GetPeerAddress),
			text("api_address", (*apiv1.Server).GetApiAddress),
			text("version", (*apiv1.Server).GetVersion),
			moment("created_at", (*apiv1.Server).GetCreatedAt),
		},
	}
}
