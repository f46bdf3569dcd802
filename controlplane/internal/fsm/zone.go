package fsm

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createZone(in *commandv1.CreateZone) (*commandv1.Result, error) {
	m := in.GetZone()
	if err := mayCreate(c.tx.Zones, "zone", m, nil); err != nil {
		return nil, err
	}
	if err := c.zoneReferences(m); err != nil {
		return nil, err
	}
	m.State, m.StateReason, m.StateChangedAt = apiv1.Zone_JOINING, "", c.now
	m.Freshness, m.Incarnation, m.Agents, m.CreatedAt = apiv1.Freshness_LEVEL_UNSPECIFIED, "", nil, c.now
	m.ReportedEpoch = c.tx.Meta().Epoch // it has nothing that could have been forgotten
	if err := c.maintain(&apiv1.Zone{}, m); err != nil {
		return nil, err
	}
	result, err := create(c, c.tx.Zones, "zone", m)
	if err != nil {
		return nil, err
	}
	return result, c.tx.Desire(m.GetId(), reference("zone", m))
}

// updateZone writes what clients write. What the plane and the zone write stays as stored, but for the state, which follows
// what an administrator wants of the zone.
func (c *command) updateZone(in *commandv1.UpdateZone) (*commandv1.Result, error) {
	m := in.GetZone()
	was, err := stored(c.tx.Zones, "zone", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("zone", was, m); err != nil {
		return nil, err
	}
	if was.GetState() == apiv1.Zone_RETIRED {
		return nil, retired(was)
	}
	if m.GetParent() != was.GetParent() {
		return nil, invalid("the parent of zone " + was.GetName() + " cannot change")
	}
	if err := c.zoneReferences(m); err != nil {
		return nil, err
	}
	if err := c.mayGradeZone(was, m.GetGrade()); err != nil {
		return nil, err
	}
	next := proto.CloneOf(was)
	next.Kind, next.Grade, next.Description, next.Broker = m.GetKind(), m.GetGrade(), m.GetDescription(), m.GetBroker()
	next.AdminState, next.AdminReason, next.Policy = m.GetAdminState(), m.GetAdminReason(), m.GetPolicy()
	if err := c.maintain(was, next); err != nil {
		return nil, err
	}
	result, err := put(c.tx.Zones, next)
	if err != nil {
		return nil, err
	}
	return result, c.tx.Desire(next.GetId(), reference("zone", next))
}

// maintain moves a zone into maintenance and out of it, as an administrator wants. A quarantine goes before it.
func (c *command) maintain(was, next *apiv1.Zone) error {
	wanted := next.GetAdminState() == apiv1.Zone_UNDER_MAINTENANCE
	switch {
	case next.GetState() == apiv1.Zone_QUARANTINED:
	case wanted:
		setZoneState(c, next, apiv1.Zone_MAINTENANCE, next.GetAdminReason())
	case next.GetState() == apiv1.Zone_MAINTENANCE:
		if err := c.settleZone(next); err != nil {
			return err
		}
	}
	if wanted == (was.GetAdminState() == apiv1.Zone_UNDER_MAINTENANCE) {
		return nil
	}
	kind, said := "zone.maintenance_ended", "takes VMs again, by the word of "
	if wanted {
		kind, said = "zone.maintenance", "takes no new VMs, by the word of "
	}
	said = "zone " + next.GetName() + " " + said + c.actor
	if next.GetAdminReason() != "" {
		said += ": " + next.GetAdminReason()
	}
	return c.tell(apiv1.Event_WARNING, kind, where(next), reference("zone", next), said)
}

// settleZone gives a zone the state that follows from its members, its session and what an administrator wants.
func (c *command) settleZone(m *apiv1.Zone) error {
	if m.GetAdminState() == apiv1.Zone_UNDER_MAINTENANCE {
		setZoneState(c, m, apiv1.Zone_MAINTENANCE, m.GetAdminReason())
		return nil
	}
	members, err := c.tx.Members(m.GetId())
	if err != nil {
		return err
	}
	joined := slices.ContainsFunc(members, func(a *commandv1.Member) bool { return a.GetAccepted() })
	session, err := c.tx.ZoneSession(m.GetId())
	switch {
	case err != nil && !missing(err):
		return err
	case err == nil && session.Connected && m.GetFreshness() == apiv1.Freshness_LIVE:
		setZoneState(c, m, apiv1.Zone_ONLINE, "")
	case joined || err == nil:
		setZoneState(c, m, apiv1.Zone_DISCONNECTED, "no session yet")
		for _, why := range m.GetConditions() {
			if why.GetType() == conditionNoSession { // it has been so all along, whatever was shown meanwhile
				m.StateChangedAt, m.StateReason = why.GetSince(), why.GetMessage()
			}
		}
	default:
		setZoneState(c, m, apiv1.Zone_JOINING, "")
	}
	return nil
}

// liftQuarantine lets a zone exchange again. It comes back by itself.
func (c *command) liftQuarantine(in *commandv1.LiftQuarantine) (*commandv1.Result, error) {
	m, err := stored(c.tx.Zones, "zone", in.GetZoneId(), "")
	if err != nil {
		return nil, err
	}
	if m.GetState() != apiv1.Zone_QUARANTINED {
		return nil, problem.Newf(problem.WrongState, "There is nothing to be lifted.", "zone %s is not quarantined", m.GetName())
	}
	was := m.GetStateReason()
	if err := c.settleZone(m); err != nil {
		return nil, err
	}
	if err := c.tell(apiv1.Event_WARNING, "zone.quarantine_lifted", where(m), reference("zone", m),
		"the quarantine of zone "+m.GetName()+" ("+was+") was lifted by "+c.actor+": "+in.GetReason()); err != nil {
		return nil, err
	}
	return put(c.tx.Zones, m)
}

// zoneReferences checks that the zones and brokers that a zone names exist.
func (c *command) zoneReferences(m *apiv1.Zone) error {
	if m.GetParent() != "" {
		if m.GetParent() == m.GetName() {
			return invalid("zone " + m.GetName() + " cannot stand below itself")
		}
		if _, err := c.tx.Zones.ByName(m.GetParent(), nil); err != nil {
			return orNotFound(err, "zone", m.GetParent())
		}
	}
	if m.GetBroker() != "" {
		if _, err := c.tx.Brokers.ByName(m.GetBroker(), nil); err != nil {
			return orNotFound(err, "broker", m.GetBroker())
		}
	}
	return nil
}

// deleteZone forgets the zone and refuses its certificates for ever: its agents still hold them.
func (c *command) deleteZone(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Zones, "zone", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(dependents(c.tx.VMs, "VM", state.Scope{"zone_id": m.GetId()}))
	u.add(dependents(c.tx.Clusters, "cluster", state.Scope{"zone_id": m.GetId()}))
	u.add(dependents(c.tx.AccessTokens, "access token", state.Scope{"zone_id": m.GetId()}))
	u.add(dependents(c.tx.Zones, "zone", state.Scope{"parent": m.GetName()}))
	u.add(c.offeringsThat(func(o *apiv1.Offering) bool { return slices.Contains(o.GetZones(), m.GetName()) }))
	if err := u.refuse("zone", m.GetName()); err != nil {
		return nil, err
	}
	if err := c.tx.Quotas.DeleteAll(state.Scope{"zone_id": m.GetId()}); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetZone(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.Revoke(m.GetId(), ""); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetCrossingsOf(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.RoleBindings.DeleteAll(state.Scope{"place_id": m.GetId()}); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Zones, "zone", m)
}

// quarantineZone stops the exchange with a zone until an administrator has looked.
func (c *command) quarantineZone(in *commandv1.QuarantineZone) (*commandv1.Result, error) {
	m, err := stored(c.tx.Zones, "zone", in.GetZoneId(), "")
	if err != nil {
		return nil, err
	}
	switch m.GetState() {
	case apiv1.Zone_RETIRED:
		return nil, retired(m)
	case apiv1.Zone_QUARANTINED:
		return made(m, nil)
	}
	setZoneState(c, m, apiv1.Zone_QUARANTINED, in.GetReason())
	m.Freshness = apiv1.Freshness_STALE
	if session, err := c.tx.ZoneSession(m.GetId()); err == nil && session.Connected {
		session.Connected = false
		if err := c.tx.PutZoneSession(m.GetId(), session); err != nil {
			return nil, err
		}
	} else if err != nil && !missing(err) {
		return nil, err
	}
	result, err := put(c.tx.Zones, m)
	if err != nil {
		return nil, err
	}
	return result, c.tell(apiv1.Event_ERROR, "zone.quarantined", where(m), reference("zone", m), "zone "+m.GetName()+" was quarantined by "+c.actor+": "+in.GetReason())
}

// setZoneState moves a zone; the time is that of the change, not of its repetition.
func setZoneState(c *command, m *apiv1.Zone, to apiv1.Zone_State, reason string) {
	if m.GetState() != to {
		m.State, m.StateChangedAt = to, c.now
	}
	m.StateReason = reason
}

// zoneOf returns the zone that a noun names by id and name.
func (c *command) zoneOf(id, name string) (*apiv1.Zone, error) {
	m, err := c.tx.Zones.Get(id)
	if err != nil {
		return nil, orNotFound(err, "zone", name)
	}
	if m.GetName() != name {
		return nil, invalid("zone " + id + " is " + m.GetName() + ", not " + name)
	}
	return m, nil
}

// openZone returns a zone in which something may be made.
func (c *command) openZone(id, name string) (*apiv1.Zone, error) {
	m, err := c.zoneOf(id, name)
	if err == nil && m.GetState() == apiv1.Zone_RETIRED {
		return nil, retired(m)
	}
	return m, err
}

// takesVMs returns a zone in which a new VM may be made.
func (c *command) takesVMs(id, name string) (*apiv1.Zone, error) {
	m, err := c.openZone(id, name)
	if err != nil {
		return nil, err
	}
	if s := m.GetState(); s == apiv1.Zone_MAINTENANCE || s == apiv1.Zone_QUARANTINED {
		return nil, problem.Newf(problem.ZoneUnavailable, "Choose another zone, or ask an administrator when this one takes VMs again.",
			"zone %s is in the state %s: %s", m.GetName(), s, m.GetStateReason())
	}
	return m, nil
}

// linkedZone returns a zone that may exchange with the plane.
func (c *command) linkedZone(id string) (*apiv1.Zone, error) {
	m, err := c.tx.Zones.Get(id)
	if err != nil {
		return nil, orNotFound(err, "zone", id)
	}
	switch m.GetState() {
	case apiv1.Zone_RETIRED:
		return nil, retired(m)
	case apiv1.Zone_QUARANTINED:
		return nil, problem.Newf(problem.ZoneUnavailable, "Look into the zone, then lift the quarantine.",
			"zone %s is quarantined: %s", m.GetName(), m.GetStateReason())
	}
	return m, nil
}

func retired(m *apiv1.Zone) *problem.Error {
	return problem.Newf(problem.WrongState, "Use another zone.", "zone %s is retired", m.GetName())
}

// mergeZone takes over what a zone reports of itself. An agent that is not alive degrades the zone.
func (c *command) mergeZone(m, reported *apiv1.Zone) {
	schema.MergeObserved(m, reported)
	if m.GetState() != apiv1.Zone_ONLINE && m.GetState() != apiv1.Zone_DEGRADED {
		return
	}
	for _, a := range m.GetAgents() {
		if !a.GetAlive() {
			setZoneState(c, m, apiv1.Zone_DEGRADED, "agent "+a.GetName()+" is not alive")
			return
		}
	}
	setZoneState(c, m, apiv1.Zone_ONLINE, "")
}
