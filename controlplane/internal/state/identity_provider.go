package state

import (
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func identityProviders() *spec[*apiv1.IdentityProvider] {
	return &spec[*apiv1.IdentityProvider]{
		noun: "identity_provider", plural: "identity_providers", named: true,
		zero:   func() *apiv1.IdentityProvider { return &apiv1.IdentityProvider{} },
		revise: func(m *apiv1.IdentityProvider, r string) { m.Revision = r },
		columns: []column[*apiv1.IdentityProvider]{
			text("name", (*apiv1.IdentityProvider).GetName).asFixed(),
			text("title", (*apiv1.IdentityProvider).GetTitle),
			flag("disabled", (*apiv1.IdentityProvider).GetDisabled),
			text("organization_id", (*apiv1.IdentityProvider).GetOrganizationId),
			moment("created_at", (*apiv1.IdentityProvider).GetCreatedAt).asFixed(),
		},
	}
}

func identities() *spec[*apiv1.Identity] {
	return &spec[*apiv1.Identity]{
		noun: "identity", plural: "identities", usual: "user",
		zero:   func() *apiv1.Identity { return &apiv1.Identity{} },
		revise: func(m *apiv1.Identity, r string) { m.Revision = r },
		columns: []column[*apiv1.Identity]{
			text("identity_provider", (*apiv1.Identity).GetIdentityProvider).asFixed(),
			text("identity_provider_id", (*apiv1.Identity).GetIdentityProviderId).asFixed(),
			text("subject", (*apiv1.Identity).GetSubject).asFixed(),
			text("login", (*apiv1.Identity).GetLogin),
			text("user", (*apiv1.Identity).GetUser).asFixed(),
			text("user_id", (*apiv1.Identity).GetUserId).asFixed(),
			moment("last_login_at", (*apiv1.Identity).GetLastLoginAt),
			moment("gone_at", (*apiv1.Identity).GetGoneAt),
			moment("created_at", (*apiv1.Identity).GetCreatedAt).asFixed(),
		},
		further: []string{"(identity_provider_id, subject)", "(user_id)"},
	}
}

// IdentityOf returns the identity of whom a provider knows by a subject. Errors: ErrNotFound.
func (tx *Tx) IdentityOf(providerID, subject string) (*apiv1.Identity, error) {
	return tx.Identities.one(tx.Identities.spec.text.all+" WHERE identity_provider_id=? AND subject=?", providerID, subject)
}

// IdentitiesOf returns at most limit identities of a provider behind an id, in the order of their ids.
func (tx *Tx) IdentitiesOf(providerID, after string, limit int) ([]*apiv1.Identity, error) {
	t := tx.Identities
	return t.collect(t.spec.text.all+" WHERE identity_provider_id=? AND id>? ORDER BY id"+atMost, providerID, after, limit)
}

// SessionsBy returns the sessions that were begun by an identity, the oldest first.
func (tx *Tx) SessionsBy(identityID string) ([]*apiv1.Session, error) {
	t := tx.Sessions
	return t.collect(t.spec.text.all+" WHERE identity_id=? ORDER BY created_at, id", identityID)
}

// ProviderSecret returns what is kept of a provider, sealed. Errors: ErrNotFound.
func (tx *Tx) ProviderSecret(providerID string) (*commandv1.ProviderSecret, error) {
	m := &commandv1.ProviderSecret{}
	return m, tx.message(m, "SELECT message, crc FROM provider_secrets WHERE provider_id=?", providerID)
}

// PutProviderSecret stores it.
func (tx *Tx) PutProviderSecret(m *commandv1.ProviderSecret) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	return tx.write("INSERT INTO provider_secrets (provider_id, crc, message) VALUES (?, ?, ?) ON CONFLICT (provider_id) DO UPDATE SET crc=excluded.crc, message=excluded.message",
		m.GetIdentityProviderId(), checksum(b), b)
}

// ForgetProviderSecret removes it.
func (tx *Tx) ForgetProviderSecret(providerID string) error {
	return tx.write("DELETE FROM provider_secrets WHERE provider_id=?", providerID)
}
