package identity

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// zoneSecrets is the purpose under which the zone's secrets pass to an agent that enters.
const zoneSecrets = "zone secrets"

// AskToEnter makes this agent's request to another of its zone, and a function that takes the answer in. pin is that of
// the zone's authority, which the operator read at the other agent.
func (i *Identity) AskToEnter(pin string) (*zonev1.EnterRequest, func(*zonev1.EnterResponse) error, error) {
	if err := pki.CheckPin(pin); err != nil {
		return nil, nil, fmt.Errorf("zone_pin: %w", err)
	}
	csr, err := i.Member.CSR()
	if err != nil {
		return nil, nil, err
	}
	handover, err := pki.NewHandover()
	if err != nil {
		return nil, nil, err
	}
	r := &zonev1.EnterRequest{Agent: i.Agent, Csr: csr, HpkeKey: handover.PublicKey()}
	return r, func(answer *zonev1.EnterResponse) error {
		root, err := pki.RootByPin(answer.GetChain(), pin)
		if err != nil {
			return err
		}
		if _, err := pki.Verify(answer.GetChain(), root, i.Now(), pki.RoleMember); err != nil {
			return err
		}
		b, err := handover.Open(zoneSecrets, csr, answer.GetSealedSecrets())
		if err != nil {
			return err
		}
		secrets := &zonev1.Secrets{}
		if err := proto.Unmarshal(b, secrets); err != nil {
			return fmt.Errorf("%s: %w", zoneSecrets, err)
		}
		z, err := zoneOf(secrets, root.Raw)
		if err != nil {
			return fmt.Errorf("%s: %w", zoneSecrets, err)
		}
		return i.hold(z)
	}, nil
}

// LetIn answers an agent that enters the zone. who is what its link certificate proved.
func (i *Identity) LetIn(who *pki.Peer, r *zonev1.EnterRequest) (*zonev1.EnterResponse, error) {
	z := i.zone.Load()
	if z == nil {
		return nil, errNotInZone(i.Dir)
	}
	if who.Role != pki.RoleAgent || who.ZoneID != i.ZoneID() || who.Agent != r.GetAgent() {
		return nil, problem.Newf(problem.Forbidden, "Let it join this zone with a token: naru zone token", "%s is not agent %s of this zone", who.ID, r.GetAgent())
	}
	if r.GetAgent() == i.Agent {
		return nil, problem.Newf(problem.NameTaken, "Give it another name in its configuration.", "agent %s is this one", i.Agent)
	}
	chain, err := i.memberChain(i.issuing(), r.GetAgent(), r.GetCsr())
	if err != nil {
		return nil, err
	}
	sealed, err := z.sealTo(r.GetHpkeKey(), zoneSecrets, r.GetCsr())
	return &zonev1.EnterResponse{Chain: chain, SealedSecrets: sealed}, err
}

// sealTo encrypts the zone's secrets to a handover's key.
func (z *zone) sealTo(key []byte, purpose string, bound []byte) ([]byte, error) {
	secrets, err := z.secrets()
	if err != nil {
		return nil, err
	}
	plain, err := proto.Marshal(secrets)
	if err != nil {
		return nil, err
	}
	sealed, err := pki.SealTo(key, purpose, bound, plain)
	if err != nil {
		return nil, errors.Join(problem.New(problem.Invalid, "hpke_key is not a key", ""), err)
	}
	return sealed, nil
}
