package fsm

import (
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createJoinToken(in *commandv1.CreateJoinToken) (*commandv1.Result, error) {
	t := in.GetJoinToken()
	if t.GetId() == "" || len(t.GetSealedSecret()) == 0 || t.GetExpiresAt() == nil || len(t.GetUsedBy()) > 0 {
		return nil, invalid("a join token needs an id, a sealed secret and an end, and nobody has used it")
	}
	if _, err := c.tx.JoinToken(t.GetId()); err == nil {
		return nil, problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the join token %s exists", t.GetId())
	} else if !missing(err) {
		return nil, err
	}
	switch t.GetRole() {
	case "server":
	case "zone":
		zone, err := c.tx.Zones.Get(t.GetZoneId())
		if err != nil {
			return nil, orNotFound(err, "zone", t.GetZoneId())
		}
		if zone.GetState() == apiv1.Zone_RETIRED {
			return nil, retired(zone)
		}
	default:
		return nil, invalid("a join token is for a zone or a server")
	}
	if err := c.tx.PutJoinToken(t); err != nil {
		return nil, err
	}
	return &commandv1.Result{}, nil
}

// askToJoin ties the token to the asking key, and records the agent for an administrator. The same key may ask again: an agent
// also after the token's end, since it waits for an administrator; a server, which is let in at once, not.
func (c *command) askToJoin(in *commandv1.AskToJoin) (*commandv1.Result, error) {
	t, err := c.tx.JoinToken(in.GetTokenId())
	if missing(err) {
		return nil, problem.New(problem.TokenInvalid, "there is no such join token", "Ask an administrator for a new one.")
	}
	if err != nil {
		return nil, err
	}
	switch {
	case len(in.GetKey()) == 0 || in.GetAgent() == "":
		return nil, invalid("who asks to join has a name and a key")
	case len(t.GetUsedBy()) > 0 && string(t.GetUsedBy()) != string(in.GetKey()):
		return nil, problem.New(problem.TokenUsed, "the join token was used by another key", "Ask an administrator for a new one; if you did not use it, say so.")
	case (len(t.GetUsedBy()) == 0 || t.GetRole() == "server") && !later(t.GetExpiresAt(), c.clock):
		return nil, problem.New(problem.TokenExpired, "the join token has expired", "Ask an administrator for a new one.")
	}
	member, err := c.askingMember(t, in)
	if err != nil {
		return nil, err
	}
	if len(t.GetUsedBy()) == 0 {
		t.UsedBy = in.GetKey()
		if err := c.tx.PutJoinToken(t); err != nil {
			return nil, err
		}
	}
	if member == nil {
		return &commandv1.Result{}, nil
	}
	if member.GetAskedAt() == nil {
		member.AskedAt = c.now
		if err := c.tx.PutMember(member); err != nil {
			return nil, err
		}
	}
	return made(member, nil)
}

// askingMember returns the member that asks: the one that has asked before, or a new one that has not been stored. It is
// nil for a server's token.
func (c *command) askingMember(t *commandv1.JoinToken, in *commandv1.AskToJoin) (*commandv1.Member, error) {
	if t.GetRole() != "zone" {
		return nil, nil
	}
	if err := c.notRevoked(t.GetZoneId(), in.GetAgent()); err != nil {
		return nil, err
	}
	if _, err := c.tx.Zones.Get(t.GetZoneId()); err != nil {
		return nil, orNotFound(err, "zone", t.GetZoneId())
	}
	was, err := c.tx.Member(t.GetZoneId(), in.GetAgent())
	switch {
	case missing(err):
	case err != nil:
		return nil, err
	case string(was.GetKey()) == string(in.GetKey()):
		return was, nil
	case was.GetAccepted():
		return nil, problem.Newf(problem.NameTaken, "Give the agent another name, or revoke the one that has it.",
			"agent %s is in the zone with another key", in.GetAgent())
	}
	if err := c.oneName(t.GetZoneId(), in.GetKey()); err != nil {
		return nil, err
	}
	return &commandv1.Member{ZoneId: t.GetZoneId(), Agent: in.GetAgent(), Key: in.GetKey()}, nil
}

// oneName sees to it that a key asks under one name: what it asked before under another, and nobody has accepted, is dropped.
func (c *command) oneName(zoneID string, key []byte) error {
	members, err := c.tx.Members(zoneID)
	if err != nil {
		return err
	}
	for _, m := range members {
		switch {
		case string(m.GetKey()) != string(key) || m.GetRevoked():
		case m.GetAccepted():
			return problem.Newf(problem.NameTaken, "Keep its name, or give the agent an empty data folder.",
				"the key is that of agent %s, which is in the zone", m.GetAgent())
		default:
			if err := c.tx.ForgetMember(zoneID, m.GetAgent()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *command) notRevoked(zoneID, agent string) error {
	revoked, err := c.tx.IsRevoked(zoneID, agent)
	if err != nil || !revoked {
		return err
	}
	return problem.Newf(problem.Revoked, "A revoked name does not come back: use another.", "agent %s of the zone is revoked", agent)
}

// acceptJoin lets in the agent that has asked with this key.
func (c *command) acceptJoin(in *commandv1.AcceptJoin) (*commandv1.Result, error) {
	zone, err := stored(c.tx.Zones, "zone", in.GetZoneId(), "")
	if err != nil {
		return nil, err
	}
	if err := c.notRevoked(in.GetZoneId(), in.GetAgent()); err != nil {
		return nil, err
	}
	member, err := c.tx.Member(in.GetZoneId(), in.GetAgent())
	if missing(err) {
		return nil, problem.Newf(problem.NotFound, "List the join requests.", "no agent %s of zone %s has asked to join", in.GetAgent(), zone.GetName())
	}
	if err != nil {
		return nil, err
	}
	if string(member.GetKey()) != string(in.GetKey()) {
		return nil, problem.Newf(problem.Conflict, "Compare the fingerprint with what the agent prints.",
			"agent %s of zone %s asks with another key", in.GetAgent(), zone.GetName())
	}
	if !member.GetAccepted() {
		member.Accepted = true
		if err := c.tx.PutMember(member); err != nil {
			return nil, err
		}
		if zone.GetState() == apiv1.Zone_JOINING {
			setZoneState(c, zone, apiv1.Zone_DISCONNECTED, "no session yet")
			zone.Freshness = apiv1.Freshness_STALE
			if err := c.tx.Zones.Put(zone); err != nil {
				return nil, err
			}
		}
		if err := c.tell(apiv1.Event_INFO, "zone.agent-accepted", where(zone), reference("zone", zone),
			"agent "+in.GetAgent()+" was let in by "+c.actor); err != nil {
			return nil, err
		}
	}
	op, err := c.done("zone.accept", reference("zone", zone), where(zone))
	if err != nil {
		return nil, err
	}
	return made(member, op)
}

// revoke refuses a zone, or one agent of it, from now on and for ever. Without an agent the zone is retired.
func (c *command) revoke(in *commandv1.Revoke) (*commandv1.Result, error) {
	zone, err := stored(c.tx.Zones, "zone", in.GetZoneId(), "")
	if err != nil {
		return nil, err
	}
	members, err := c.tx.Members(zone.GetId())
	if err != nil {
		return nil, err
	}
	found := in.GetAgent() == ""
	for _, m := range members {
		found = found || m.GetAgent() == in.GetAgent()
	}
	if !found {
		return nil, problem.Newf(problem.NotFound, "List the join requests.", "zone %s has no agent %s", zone.GetName(), in.GetAgent())
	}
	for _, m := range members {
		if in.GetAgent() == "" || m.GetAgent() == in.GetAgent() {
			m.Revoked, m.Accepted = true, false
			if err := c.tx.PutMember(m); err != nil {
				return nil, err
			}
		}
	}
	if err := c.tx.Revoke(zone.GetId(), in.GetAgent()); err != nil {
		return nil, err
	}
	who := "zone " + zone.GetName()
	if in.GetAgent() != "" {
		who = "agent " + in.GetAgent() + " of " + who
	} else {
		setZoneState(c, zone, apiv1.Zone_RETIRED, "revoked by "+c.actor)
		zone.Freshness = apiv1.Freshness_STALE
		if err := c.tx.Zones.Put(zone); err != nil {
			return nil, err
		}
	}
	if err := c.tell(apiv1.Event_WARNING, "zone.revoked", where(zone), reference("zone", zone), who+" was revoked by "+c.actor); err != nil {
		return nil, err
	}
	op, err := c.done("zone.revoke", reference("zone", zone), where(zone))
	if err != nil {
		return nil, err
	}
	return &commandv1.Result{Operation: op}, nil
}
