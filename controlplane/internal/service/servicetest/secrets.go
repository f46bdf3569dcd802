package servicetest

import (
	"context"

	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// secrets stands for the keeper of the federation's keys. What it keeps for the state it keeps as it is.
type secrets struct{ private, public []byte }

func newSecrets() (secrets, error) {
	private, public, err := sealed.NewKey()
	return secrets{private, public}, err
}

func (s secrets) keyring() *commandv1.Keyring {
	return &commandv1.Keyring{SealingKeys: []*commandv1.SealingKey{{Id: "key-1", PublicKey: s.public, SealedKey: []byte("sealed")}}}
}

func (s secrets) SealingKey(context.Context) (string, []byte, error) { return "key-1", s.public, nil }

func (s secrets) OpenSecrets(_ context.Context, f sealed.For, in *apiv1.Sealed) (*apiv1.Secrets, error) {
	if in.GetKeyId() != "key-1" {
		return nil, problem.New(problem.Conflict, "the key to which it was sealed is no longer good", "")
	}
	out, err := sealed.OpenSecrets(s.private, f, in)
	if err != nil {
		return nil, problem.New(problem.Invalid, "the secrets were sealed for another request, user or session", "")
	}
	return out, nil
}

func (s secrets) Seal(role string, plain []byte) ([]byte, error) {
	return append([]byte(role+"\x00"), plain...), nil
}

func (s secrets) Unseal(role string, sealed []byte) ([]byte, error) {
	return sealed[len(role)+1:], nil
}
