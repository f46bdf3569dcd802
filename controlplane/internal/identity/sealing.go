package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// sealingTime is how long people's secrets are sealed to one key; for as long again it still opens them.
const sealingTime = 24 * time.Hour

// sealingRole is the sealing role of a key to which people's secrets are sealed.
func sealingRole(id string) string { return "sealing-key/" + id }

func newSealingKey(sealing []byte, now time.Time) (*commandv1.SealingKey, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	private, public, err := sealed.NewKey()
	if err != nil {
		return nil, err
	}
	kept, err := pki.Seal(sealing, sealingRole(id.String()), private)
	return &commandv1.SealingKey{Id: id.String(), PublicKey: public, SealedKey: kept, CreatedAt: timestamppb.New(now)}, err
}

func (k *Keeper) sealingKeys(ctx context.Context) ([]*commandv1.SealingKey, error) {
	k.mu.Lock()
	state := k.state
	k.mu.Unlock()
	if state == nil {
		return nil, errors.New("the replicated state is not open yet")
	}
	ring, err := state.Keyring(ctx)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return ring.GetSealingKeys(), nil
}

// SealingKey returns the public key to which people's secrets are sealed now, with this server's chain and its signature of the key:
// so whoever seals need believe nobody on the way.
func (k *Keeper) SealingKey(ctx context.Context) (key *sealed.Key, chain [][]byte, signature []byte, err error) {
	keys, err := k.sealingKeys(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(keys) == 0 {
		return nil, nil, nil, problem.New(problem.Unavailable, "there is no key to seal to yet; the leader makes one", "Try again in a minute.")
	}
	newest := keys[len(keys)-1]
	key = &sealed.Key{ID: newest.GetId(), Public: newest.GetPublicKey(), Until: newest.GetCreatedAt().AsTime().Add(2 * sealingTime).Truncate(time.Second)}
	signature, err = key.Vouch(k.holder.Key())
	return key, k.holder.Chain(), signature, err
}

// VouchWay signs that a way to log in is the control plane's: the chain of this server, and its signature.
func (k *Keeper) VouchWay(w sealed.Way) (chain [][]byte, signature []byte, err error) {
	signature, err = w.Vouch(k.holder.Key())
	return k.holder.Chain(), signature, err
}

// OpenSecrets opens what a person typed. Errors: problem CONFLICT where the key is no longer good, INVALID where it was sealed
// for something else.
func (k *Keeper) OpenSecrets(ctx context.Context, f sealed.For, s *apiv1.Sealed) (*apiv1.Secrets, error) {
	keys, err := k.sealingKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if key.GetId() != s.GetKeyId() {
			continue
		}
		private, err := k.Unseal(sealingRole(key.GetId()), key.GetSealedKey())
		if err != nil {
			return nil, fmt.Errorf("the key %s to seal to does not open: %w", key.GetId(), err)
		}
		out, err := sealed.OpenSecrets(private, f, s)
		if errors.Is(err, sealed.ErrSealed) {
			err = problem.New(problem.Invalid, "the secrets were sealed for another request, user or session", "Seal them anew, for this one.")
		}
		return out, err
	}
	return nil, problem.New(problem.Conflict, "the key to which it was sealed is no longer good", "Ask for the newest, and seal it anew.")
}

// nextSealingKey returns the command that makes the next key to seal to; nil while the newest is young.
func (k *Keeper) nextSealingKey(ctx context.Context) (*commandv1.Command, error) {
	keys, err := k.sealingKeys(ctx)
	if err != nil {
		return nil, err
	}
	after := ""
	if n := len(keys); n > 0 {
		if age := k.Now().Sub(keys[n-1].GetCreatedAt().AsTime()); age > -sealingTime && age < sealingTime {
			return nil, nil
		}
		after = keys[n-1].GetId()
	}
	key, err := newSealingKey(k.sealingKey(), k.Now())
	if err != nil {
		return nil, err
	}
	return &commandv1.Command{Body: &commandv1.Command_AddSealingKey{AddSealingKey: &commandv1.AddSealingKey{SealingKey: key, After: after}}}, nil
}
