package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/naru-project/naru/pkg/audit"
	"github.com/naru-project/naru/pkg/pki"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// auditSealRole is the sealing role of the keys that sign checkpoints.
const auditSealRole = "audit"

// AuditKey returns the newest key that signs checkpoints of the audit log, opened; empty where there is none.
func (k *Keeper) AuditKey(ctx context.Context) (private, public string, err error) {
	k.mu.Lock()
	state := k.state
	k.mu.Unlock()
	if state == nil {
		return "", "", errors.New("the replicated state is not open yet")
	}
	ring, err := state.Keyring(ctx)
	if err != nil || len(ring.GetAuditKeys()) == 0 {
		return "", "", err
	}
	newest := ring.GetAuditKeys()[len(ring.GetAuditKeys())-1]
	plain, err := pki.Open(k.sealingKey(), auditSealRole, newest.GetSealedKey())
	if err != nil {
		return "", "", fmt.Errorf("the key of the audit log does not open: %w", err)
	}
	return string(plain), newest.GetPublicKey(), nil
}

// NewAuditKey makes a key that is to follow on after; empty: the first.
func (k *Keeper) NewAuditKey(federation, after string) (*commandv1.AddAuditKey, error) {
	private, public, err := audit.NewKey(audit.Origin(federation))
	if err != nil {
		return nil, err
	}
	sealed, err := pki.Seal(k.sealingKey(), auditSealRole, []byte(private))
	if err != nil {
		return nil, err
	}
	return &commandv1.AddAuditKey{Key: &commandv1.AuditKey{PublicKey: public, SealedKey: sealed}, After: after}, nil
}
