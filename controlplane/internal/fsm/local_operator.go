package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// setLocalOperators says who may log in in a zone while it is cut off. The proposer has found who that is; whoever was disabled or got
// another password since is left out, and found again.
func (c *command) setLocalOperators(in *commandv1.SetLocalOperators) (*commandv1.Result, error) {
	zone, err := stored(c.tx.Zones, "zone", in.GetZoneId(), "")
	if err != nil {
		return nil, err
	}
	if zone.GetState() == apiv1.Zone_RETIRED {
		return nil, retired(zone)
	}
	have, err := c.tx.LocalOperators(zone.GetId())
	if err != nil {
		return nil, err
	}
	is := map[string]bool{}
	for _, m := range have {
		is[m.GetUserId()] = true
	}
	for _, id := range in.GetRemoved() {
		if !is[id] {
			continue
		}
		delete(is, id)
		if err := c.tx.DropLocalOperator(zone.GetId(), id); err != nil {
			return nil, err
		}
	}
	for _, m := range in.GetOperators() {
		if m.GetUserId() == "" || len(m.GetSealed()) == 0 || len(m.GetFingerprint()) == 0 {
			return nil, invalid("an operator of a zone is a user, and sealed to it")
		}
		user, err := c.tx.Users.Get(m.GetUserId())
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		kept, err := c.tx.Credentials(user.GetId())
		if err != nil && !missing(err) {
			return nil, err
		}
		full := !is[user.GetId()] && len(is) >= state.MaxLocalOperators
		if user.GetDisabled() || full || len(kept.GetSealedLocalRoot()) == 0 || kept.GetRevision() != m.GetCredentials() {
			continue
		}
		m.ZoneId = zone.GetId()
		is[user.GetId()] = true
		if err := c.tx.PutLocalOperator(m); err != nil {
			return nil, err
		}
	}
	return &commandv1.Result{}, nil
}

// dropLocalOperator lets a user log in nowhere any more while a zone is cut off, until they are found anew.
func (c *command) dropLocalOperator(userID string) error {
	all, err := c.tx.LocalOperatorsOf(userID)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := c.tx.DropLocalOperator(m.GetZoneId(), userID); err != nil {
			return err
		}
	}
	return nil
}
