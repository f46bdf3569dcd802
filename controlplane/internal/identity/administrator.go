package identity

import (
	"context"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
)

// KeyOfRequest returns the fingerprint of the key that a certificate request proves.
func (k *Keeper) KeyOfRequest(csr []byte) (fingerprint string, err error) {
	pub, err := pki.KeyOfCSR(csr)
	if err != nil {
		return "", problem.Newf(problem.Invalid, "Make it with naru admin request, or with openssl for an ECDSA P-256 key, in DER.",
			"the certificate request: %w", err).With("csr", "is no certificate request of an ECDSA P-256 key")
	}
	return pki.Fingerprint(pub), nil
}

// IssueAdministrator issues an administrator's certificate for the key of a request, good until a time.
func (k *Keeper) IssueAdministrator(ctx context.Context, name string, csr []byte, until time.Time) ([][]byte, error) {
	pub, err := pki.KeyOfCSR(csr)
	if err != nil {
		return nil, err
	}
	people, err := k.authority(ctx, pki.AuthorityPeople)
	if err != nil {
		return nil, err
	}
	id, err := pki.AdminID(people.Federation, name)
	if err != nil {
		return nil, err
	}
	now := k.Now()
	return people.Issue(pub, id, pki.IssueOptions{TTL: until.Sub(now), Now: now})
}
