package fsm

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// longestCrossing is in seconds: a year. maxCrossings is how many a project may have, those that have ended included.
	longestCrossing = 366 * 24 * 3600
	maxCrossings    = 200
)

// createCrossing makes one by an administrator's word, without a request.
func (c *command) createCrossing(in *commandv1.CreateCrossing) (*commandv1.Result, error) {
	m := in.GetCrossing()
	m.Request, m.RequestId = "", ""
	op, err := c.openCrossing(m)
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

func (c *command) openCrossing(m *apiv1.Crossing) (*apiv1.Operation, error) {
	if m.GetId() == "" || len(m.GetPermissions()) == 0 {
		return nil, invalid("a crossing has an id, and permits something")
	}
	if _, err := c.tx.Crossings.Get(m.GetId()); !missing(err) {
		if err == nil {
			err = problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the id %s is taken by another crossing", m.GetId())
		}
		return nil, err
	}
	if err := c.projectExists(m.GetProjectId(), m.GetProject()); err != nil {
		return nil, err
	}
	if err := exists(c.tx.Zones, "zone", m.GetSourceZoneId(), m.GetSourceZone()); err != nil {
		return nil, err
	}
	if err := exists(c.tx.Zones, "zone", m.GetZoneId(), m.GetZone()); err != nil {
		return nil, err
	}
	switch {
	case m.GetSourceZoneId() == m.GetZoneId():
		return nil, problem.Newf(problem.Invalid, "Name two zones.", "nothing crosses from zone %s into itself", m.GetZone()).With("source_zone", "is the zone")
	case !later(m.GetEndsAt(), c.clock):
		return nil, problem.New(problem.Invalid, "the crossing would have ended already", "Give an end that lies ahead.").With("ends_at", "must lie ahead")
	case later(m.GetEndsAt(), &timestamppb.Timestamp{Seconds: c.clock.GetSeconds() + longestCrossing, Nanos: c.clock.GetNanos()}):
		return nil, problem.New(problem.Invalid, "a crossing lasts a year at most", "Give an earlier end.").With("ends_at", "is more than a year ahead")
	}
	n, err := c.tx.Crossings.Count(state.Scope{"project_id": m.GetProjectId()}, "")
	if err != nil {
		return nil, err
	}
	if n >= maxCrossings {
		return nil, problem.Newf(problem.TooMany, "Delete some that are not needed: naru crossing list.", "project %s has %d crossings", m.GetProject(), n)
	}
	m.CreatedBy, m.CreatedAt = c.actor, c.now
	if err := c.tx.Crossings.Put(m); err != nil {
		return nil, err
	}
	return c.done("crossing.create", crossingReference(m), where(m))
}

func (c *command) deleteCrossing(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Crossings, "crossing", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	return removeAs(c, c.tx.Crossings, "crossing.delete", m, crossingReference(m))
}

func crossingReference(m *apiv1.Crossing) *apiv1.Reference {
	return &apiv1.Reference{Kind: "crossing", Id: m.GetId(), Name: m.GetProject() + "/" + m.GetSourceZone() + "/" + m.GetZone()}
}

// beginAccess gives whom a request is for the role that was approved, for as long from now.
func (c *command) beginAccess(m *apiv1.Request, ask *apiv1.AccessForTime) (*apiv1.Operation, error) {
	role, err := c.tx.Roles.Get(ask.GetRoleId())
	if err != nil {
		return nil, orNotFound(err, "role", ask.GetRole())
	}
	b := &apiv1.RoleBinding{
		Id: c.nextID(), Role: role.GetName(), RoleId: role.GetId(), Scope: ask.GetScope(), Place: m.GetProject(), PlaceId: m.GetProjectId(),
		User: m.GetRequester(), UserId: m.GetRequesterId(), ExpiresAt: after(c.clock, int64(ask.GetDays())*day), Reason: "request " + m.GetName(),
		Request: m.GetName(), RequestId: m.GetId(),
	}
	if ask.GetScope() == apiv1.RoleBinding_ZONE {
		b.Place, b.PlaceId = m.GetZone(), m.GetZoneId()
	}
	if m.GetOnBehalfOfId() != "" {
		b.User, b.UserId = m.GetOnBehalfOf(), m.GetOnBehalfOfId()
	}
	return c.bind(b)
}

// beginCrossing opens the crossing that was approved, for as long from now.
func (c *command) beginCrossing(m *apiv1.Request, ask *apiv1.CrossZone) (*apiv1.Operation, error) {
	return c.openCrossing(&apiv1.Crossing{
		Id: c.nextID(), Project: m.GetProject(), ProjectId: m.GetProjectId(), SourceZone: m.GetSourceZone(), SourceZoneId: m.GetSourceZoneId(),
		Zone: m.GetZone(), ZoneId: m.GetZoneId(), Permissions: slices.Clone(ask.GetPermissions()), EndsAt: after(c.clock, int64(ask.GetDays())*day),
		Request: m.GetName(), RequestId: m.GetId(),
	})
}
