package fsm

import (
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// setZoneSession notes that a zone's session began or ended. A session that begins takes the place of the one before; the
// end of any but the newest changes nothing. Freshness and state are all that changes: a cut link is no instruction.
func (c *command) setZoneSession(in *commandv1.SetZoneSession) (*commandv1.Result, error) {
	if len(in.GetSession()) == 0 {
		return nil, invalid("a session has an id")
	}
	if in.GetConnected() {
		return c.beginZoneSession(in)
	}
	return c.endZoneSession(in)
}

func (c *command) beginZoneSession(in *commandv1.SetZoneSession) (*commandv1.Result, error) {
	was, err := c.linkedZone(in.GetZoneId())
	if err != nil {
		return nil, err
	}
	c.cause = was.GetId()
	err = c.tx.PutZoneSession(was.GetId(), state.ZoneSession{
		ID: in.GetSession(), Agent: in.GetAgent(), ServerID: in.GetServerId(), Incarnation: in.GetIncarnation(), Connected: true,
	})
	if err != nil {
		return nil, err
	}
	zone := proto.CloneOf(was)
	if zone.GetState() == apiv1.Zone_JOINING || zone.GetState() == apiv1.Zone_DISCONNECTED {
		setZoneState(c, zone, apiv1.Zone_ONLINE, "")
	}
	zone.Freshness = apiv1.Freshness_LIVE
	clearCondition(zone, conditionNoSession)
	clearCondition(zone, conditionSlowed) // whoever holds the session now says so anew
	if err := c.meetIncarnation(zone, in.GetIncarnation()); err != nil {
		return nil, err
	}
	return c.changedSession(was, zone, in.GetEvent(), apiv1.Event_INFO, "zone.online",
		"zone "+zone.GetName()+" is connected by agent "+in.GetAgent())
}

func (c *command) endZoneSession(in *commandv1.SetZoneSession) (*commandv1.Result, error) {
	was, err := c.tx.Zones.Get(in.GetZoneId())
	if err != nil {
		return nil, orNotFound(err, "zone", in.GetZoneId())
	}
	c.cause = was.GetId()
	session, err := c.tx.ZoneSession(was.GetId())
	if err != nil && !missing(err) {
		return nil, err
	}
	if missing(err) || !session.Connected || string(session.ID) != string(in.GetSession()) {
		return made(was, nil)
	}
	session.Connected = false
	if err := c.tx.PutZoneSession(was.GetId(), session); err != nil {
		return nil, err
	}
	zone := proto.CloneOf(was)
	zone.Freshness = apiv1.Freshness_STALE
	clearCondition(zone, conditionSlowed)
	if in.GetCause() != "" {
		c.setCondition(zone, &apiv1.Zone_Condition{Type: conditionNoSession, Reason: in.GetCause(), Message: in.GetEvent().GetMessage()})
	}
	if zone.GetState() == apiv1.Zone_ONLINE || zone.GetState() == apiv1.Zone_DEGRADED {
		setZoneState(c, zone, apiv1.Zone_DISCONNECTED, in.GetEvent().GetMessage())
	}
	return c.changedSession(was, zone, in.GetEvent(), apiv1.Event_WARNING, "zone.disconnected", "zone "+zone.GetName()+" is disconnected")
}

// changedSession stores the zone and tells of it, if anything has changed.
func (c *command) changedSession(was, zone *apiv1.Zone, given *apiv1.Event, severity apiv1.Event_Severity, kind, message string) (*commandv1.Result, error) {
	if proto.Equal(was, zone) {
		return made(zone, nil)
	}
	if err := c.tx.Zones.Put(zone); err != nil {
		return nil, err
	}
	if was.GetFreshness() != zone.GetFreshness() || was.GetState() != zone.GetState() {
		if given.GetSeverity() != apiv1.Event_SEVERITY_UNSPECIFIED {
			severity = given.GetSeverity()
		}
		if given.GetType() != "" {
			kind = given.GetType()
		}
		if given.GetMessage() != "" {
			message = given.GetMessage()
		}
		if err := c.tell(severity, kind, zone.GetName(), "", reference("zone", zone), message); err != nil {
			return nil, err
		}
	}
	return made(zone, nil)
}

// meetIncarnation writes which life of the zone's store is known, and tells when it is a new one.
func (c *command) meetIncarnation(zone *apiv1.Zone, incarnation string) error {
	if incarnation == "" || incarnation == zone.GetIncarnation() {
		return nil
	}
	was := zone.GetIncarnation()
	zone.Incarnation = incarnation
	if was == "" {
		return nil
	}
	return c.tell(apiv1.Event_WARNING, "zone.incarnation", zone.GetName(), "", reference("zone", zone),
		"the store of zone "+zone.GetName()+" began a new life; the zone reports all it has")
}
