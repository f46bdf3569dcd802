package state

import (
	"encoding/hex"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func accessTokens() *spec[*apiv1.AccessToken] {
	return &spec[*apiv1.AccessToken]{
		noun: "access_token", plural: "access_tokens", named: true,
		zero:   func() *apiv1.AccessToken { return &apiv1.AccessToken{} },
		revise: func(m *apiv1.AccessToken, r string) { m.Revision = r },
		columns: []column[*apiv1.AccessToken]{
			text("name", (*apiv1.AccessToken).GetName).asFixed(),
			text("project", (*apiv1.AccessToken).GetProject).asFixed(),
			text("project_id", (*apiv1.AccessToken).GetProjectId).asFixed(),
			text("zone", (*apiv1.AccessToken).GetZone).asFixed(),
			text("zone_id", (*apiv1.AccessToken).GetZoneId).asFixed(),
			text("user", (*apiv1.AccessToken).GetUser).asFixed(),
			text("user_id", (*apiv1.AccessToken).GetUserId).asFixed(),
			text("created_by", (*apiv1.AccessToken).GetCreatedBy).asFixed(),
			moment("expires_at", (*apiv1.AccessToken).GetExpiresAt),
			moment("created_at", (*apiv1.AccessToken).GetCreatedAt),
			text("secret_hash", func(m *apiv1.AccessToken) string { return hex.EncodeToString(m.GetSecretHash()) }).asHidden(),
		},
		further: []string{"(secret_hash)", "(user_id)"},
	}
}

// AccessTokenByHash returns the token whose secret has the SHA-256. Whether it has expired is for the caller to see.
// Errors: ErrNotFound.
func (tx *Tx) AccessTokenByHash(hash []byte) (*apiv1.AccessToken, error) {
	if len(hash) == 0 {
		return nil, ErrNotFound
	}
	t := tx.AccessTokens
	return t.one(t.spec.text.all+" WHERE secret_hash=? ORDER BY id LIMIT 2", hex.EncodeToString(hash))
}
