package upkeep

import (
	"context"
	"fmt"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// checkSums compares what quotas count with the things themselves, and tells people where that differs, once for each difference that
// a leader sees. It mends nothing: a sum that is wrong says that something else is.
func (u *Upkeep) checkSums(ctx context.Context) error {
	var drift []state.Drift
	names := map[string]string{}
	if err := u.Reader.View(ctx, func(tx *state.Tx) (err error) {
		if drift, err = tx.Recount(); err != nil {
			return err
		}
		for _, d := range drift {
			if p, err := tx.Projects.Get(d.OwnerID); err == nil {
				names[d.OwnerID] = "project " + p.GetName()
			} else if o, err := tx.Organizations.Get(d.OwnerID); err == nil {
				names[d.OwnerID] = "organization " + o.GetName()
			} else {
				names[d.OwnerID] = d.OwnerID + ", which is gone"
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if len(drift) == 0 {
		u.drifted = ""
		return nil
	}
	d := drift[0]
	message := fmt.Sprintf("what quotas count differs from what there is in %d places; nothing was changed. The first: %s in zone %s, grade %s: held %v, not %v; used %v, not %v",
		len(drift), names[d.OwnerID], d.ZoneID, d.Grade, d.Kept.Held.Each(), d.Real.Held.Each(), d.Kept.Used.Each(), d.Real.Used.Each())
	if message == u.drifted {
		return nil
	}
	if err := u.propose(ctx, &commandv1.Command{Body: &commandv1.Command_RecordEvent{RecordEvent: &commandv1.RecordEvent{Event: &apiv1.Event{
		Severity: apiv1.Event_ERROR, Type: "quota.drifted", Message: message}}}}); err != nil {
		return err
	}
	u.drifted = message
	return nil
}
