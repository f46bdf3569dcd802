package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

func administrators() *spec[*apiv1.Administrator] {
	return &spec[*apiv1.Administrator]{
		noun: "administrator", plural: "administrators", named: true,
		zero:   func() *apiv1.Administrator { return &apiv1.Administrator{} },
		revise: func(m *apiv1.Administrator, r string) { m.Revision = r },
		columns: []column[*apiv1.Administrator]{
			text("name", (*apiv1.Administrator).GetName).asFixed(),
			text("fingerprint", (*apiv1.Administrator).GetFingerprint),
			text("user", (*apiv1.Administrator).GetUser),
			text("user_id", (*apiv1.Administrator).GetUserId),
			text("created_by", (*apiv1.Administrator).GetCreatedBy).asFixed(),
			moment("expires_at", (*apiv1.Administrator).GetExpiresAt),
			moment("created_at", (*apiv1.Administrator).GetCreatedAt),
			moment("renewed_at", (*apiv1.Administrator).GetRenewedAt),
		},
	}
}
