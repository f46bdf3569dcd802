package fsm

import (
	"crypto/sha256"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// What one command brings about besides what it is called, each an entry of its own.

// submitted writes that a request was submitted as it was made: an entry besides that of its creation.
func (a *auditRecord) submitted(made *apiv1.AuditEntry, r *commandv1.Result) error {
	in := a.in.GetCreateRequest()
	if in.GetSubmit() == nil {
		return nil
	}
	m := &apiv1.Request{}
	if err := proto.Unmarshal(r.GetNoun(), m); err != nil || m.GetId() != in.GetRequest().GetId() || request.Editable(m) {
		return err // another is known under its number, or was corrected
	}
	e := proto.CloneOf(made)
	e.Action, e.Zone, e.ZoneId = "request.submit", m.GetZone(), m.GetZoneId()
	return a.write(a.tx, e)
}

// dropped writes what a user has lost with their former organization: an entry of each, as where it is ended by itself.
func (a *auditRecord) dropped(e *apiv1.AuditEntry, r *commandv1.Result) error {
	if !a.in.GetUpdateUser().GetDropRights() {
		return nil
	}
	user := &apiv1.User{}
	if err := proto.Unmarshal(r.GetNoun(), user); err != nil {
		return err
	}
	ops, err := a.tx.OperationsNow()
	if err != nil {
		return err
	}
	for _, what := range user.GetDropped() {
		of := proto.CloneOf(e)
		for _, op := range ops {
			if op.GetTarget().GetId() == what.GetId() {
				of.Project, of.ProjectId, of.Zone, of.ZoneId = op.GetProject(), op.GetProjectId(), op.GetZone(), op.GetZoneId()
			}
		}
		of.Action, of.Target, of.Message = what.GetKind()+".delete", what, "with the former organization of "+user.GetName()
		if what.GetKind() == "group" {
			of.Action = "group.remove-member"
		}
		if err := a.write(a.tx, of); err != nil {
			return err
		}
	}
	return nil
}

// broughtAbout writes what a zone's journal brought about besides reports: a key with which it countersigns that is new, what the log does not
// hold, and what was done in it while it was cut off. Those come once each.
func (a *auditRecord) broughtAbout(zoneID string, data []byte, refused bool) error {
	if refused {
		return nil
	}
	told, err := a.tx.EventsNow("audit.")
	if err != nil {
		return err
	}
	overrides, err := a.tx.EventsNow("vm.overrid")
	if told = append(told, overrides...); err != nil || len(told) == 0 {
		return err
	}
	name, err := a.zoneName(zoneID)
	if err != nil {
		return err
	}
	digest, made := sha256.Sum256(data), uuidText(a.in.GetId())[:28] // as nextID begins
	for _, m := range told {
		if !strings.HasPrefix(m.GetId(), made) {
			continue // the zone reports it: under whatever type, and an id of its own
		}
		if err := a.write(a.tx, &apiv1.AuditEntry{
			Time: a.at, Actor: "zone:" + name, ActorId: zoneID, Action: m.GetType(), Target: m.GetTarget(), Zone: m.GetZone(), ZoneId: m.GetZoneId(),
			Project: m.GetProject(), ProjectId: m.GetProjectId(),
			Outcome: apiv1.AuditEntry_DONE, Message: cut(m.GetMessage()), Digest: digest[:],
		}); err != nil {
			return err
		}
	}
	return nil
}

// What ends with a user is told by these events, and the record says of each what it says where that is ended by hand.
const administratorDeleted, accessTokenDeleted = "administrator.deleted", "access-token.deleted"

// endedWith writes of each certificate and access token that ended with a user an entry of its own; user is the entry of what was done to
// the user.
func (a *auditRecord) endedWith(user *apiv1.AuditEntry) error {
	switch a.in.GetBody().(type) {
	case *commandv1.Command_DisableUser, *commandv1.Command_DeleteUser:
	default:
		return nil
	}
	for _, kind := range []string{administratorDeleted, accessTokenDeleted} {
		told, err := a.tx.EventsNow(kind)
		if err != nil {
			return err
		}
		for _, m := range told {
			e := proto.CloneOf(user)
			e.Action, e.Target, e.Message = strings.TrimSuffix(kind, "d"), m.GetTarget(), cut(m.GetMessage())
			e.Project, e.ProjectId, e.Zone, e.ZoneId = m.GetProject(), m.GetProjectId(), m.GetZone(), m.GetZoneId()
			if err := a.write(a.tx, e); err != nil {
				return err
			}
		}
	}
	return nil
}
