package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// current is the authority that issues now: the newest that has its key and whose time is now. One that a server made while
// its clock was ahead waits for its time. It is nil where there is none.
func current(ofRole []*pki.Authority, now time.Time) *pki.Authority {
	for _, a := range slices.Backward(ofRole) {
		if a.Key != nil && a.Valid(now) {
			return a
		}
	}
	return nil
}

// issuerOf is the authority that signed a certificate (DER), retired ones among them.
func issuerOf(certificate []byte, ofRole []*pki.Authority) (*pki.Authority, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", pki.ErrUntrusted, err)
	}
	for _, a := range slices.Backward(ofRole) {
		if cert.CheckSignatureFrom(a.Certificate) == nil {
			return a, nil
		}
	}
	return nil, fmt.Errorf("%w: none of the federation's authorities for its role signed it", pki.ErrUntrusted)
}

// Succession returns the next step that the keyring needs, as a command for the leader to propose; nil where it needs none.
// An intermediate gets a successor once two thirds of its life are over, and is retired once nothing that it issued can be
// valid any more. The key to which people's secrets are sealed is followed by another every day.
func (k *Keeper) Succession(ctx context.Context) (*commandv1.Command, error) {
	all, err := k.authorities(ctx)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, nil // not founded yet
	}
	now := k.Now()
	for _, role := range intermediates {
		ofRole := all[role]
		if len(ofRole) == 0 {
			return nil, fmt.Errorf("the keyring has no authority for %s", role)
		}
		issuing := current(ofRole, now)
		if issuing == nil || issuing.Due(now) {
			return k.successor(all[pki.AuthorityRoot][0], ofRole[len(ofRole)-1])
		}
		for _, a := range ofRole {
			if a == issuing {
				break
			}
			if a.Key != nil && a.Spent(issuing, now) {
				return &commandv1.Command{Body: &commandv1.Command_RetireAuthority{
					RetireAuthority: &commandv1.RetireAuthority{Certificate: a.Certificate.Raw},
				}}, nil
			}
		}
	}
	return k.nextSealingKey(ctx)
}

func (k *Keeper) successor(root, last *pki.Authority) (*commandv1.Command, error) {
	next, err := pki.NewAuthority(last.Role, last.Federation, root, k.Now())
	if err != nil {
		return nil, err
	}
	sealed, err := sealAuthority(next, k.sealingKey())
	if err != nil {
		return nil, err
	}
	return &commandv1.Command{Body: &commandv1.Command_AddAuthority{
		AddAuthority: &commandv1.AddAuthority{Authority: sealed, After: last.Certificate.Raw},
	}}, nil
}

// serversAuthority is what issues to servers now. Where the keyring has none, because the federation was switched off for so
// long that no leader made one in time, it is one of this moment, below the same root: without it servers could not find
// each other to elect the leader who makes the next.
func (k *Keeper) serversAuthority(ctx context.Context) (*pki.Authority, error) {
	all, err := k.authorities(ctx)
	if err != nil {
		return nil, err
	}
	if a := current(all[pki.AuthorityServers], k.Now()); a != nil {
		return a, nil
	}
	k.Log.Warn("no authority for servers is valid now: this server makes one for itself")
	root := all[pki.AuthorityRoot]
	if len(root) == 0 {
		return nil, fmt.Errorf("the keyring has no authority %q", pki.AuthorityRoot)
	}
	return pki.NewAuthority(pki.AuthorityServers, root[0].Federation, root[0], k.Now())
}
