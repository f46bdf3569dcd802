package fsm

import (
	"slices"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Types of conditions.
const (
	conditionNoSession = "NO_SESSION"
	conditionSlowed    = "SLOWED"
)

// setZoneCondition notes that something holds of a zone, or no longer, and tells of the change.
func (c *command) setZoneCondition(in *commandv1.SetZoneCondition) (*commandv1.Result, error) {
	zone, err := c.tx.Zones.Get(in.GetZoneId())
	if err != nil {
		return nil, orNotFound(err, "zone", in.GetZoneId())
	}
	is := in.GetCondition()
	if is.GetType() != conditionSlowed {
		return nil, invalid("a condition of a zone that is set by itself is " + conditionSlowed)
	}
	c.cause = zone.GetId()
	if in.GetOver() {
		if !clearCondition(zone, is.GetType()) {
			return made(zone, nil)
		}
	} else if !c.setCondition(zone, is) {
		return made(zone, nil)
	}
	if err := c.tx.Zones.Put(zone); err != nil {
		return nil, err
	}
	severity, kind, message := apiv1.Event_WARNING, "zone.slowed", is.GetMessage()
	if in.GetOver() {
		severity, kind, message = apiv1.Event_INFO, "zone.slowed_no_more", "zone "+zone.GetName()+" is not made to wait any more"
	}
	return &commandv1.Result{}, c.tell(severity, kind, where(zone), reference("zone", zone), message)
}

// setCondition writes a condition, and reports whether that changes anything. Its time is that of the change.
func (c *command) setCondition(zone *apiv1.Zone, is *apiv1.Zone_Condition) (changed bool) {
	next := &apiv1.Zone_Condition{Type: is.GetType(), Reason: is.GetReason(), Message: is.GetMessage(), Since: c.now}
	i := slices.IndexFunc(zone.GetConditions(), func(was *apiv1.Zone_Condition) bool { return was.GetType() == is.GetType() })
	if i < 0 {
		zone.Conditions = append(zone.Conditions, next)
		return true
	}
	if was := zone.GetConditions()[i]; was.GetReason() == is.GetReason() {
		next.Since = was.GetSince()
		if proto.Equal(was, next) {
			return false
		}
	}
	zone.Conditions[i] = next
	return true
}

// clearCondition takes a condition away, and reports whether it was there.
func clearCondition(zone *apiv1.Zone, kind string) (changed bool) {
	before := len(zone.GetConditions())
	zone.Conditions = slices.DeleteFunc(zone.GetConditions(), func(was *apiv1.Zone_Condition) bool { return was.GetType() == kind })
	return len(zone.GetConditions()) != before
}
