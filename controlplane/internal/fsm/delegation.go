package fsm

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// longestDelegation is in seconds: a year. maxDelegations is how many a user may have made, those that have ended included.
	longestDelegation = 366 * 24 * 3600
	maxDelegations    = 200
)

// createDelegation lets another person decide in the caller's place, and in nobody else's.
func (c *command) createDelegation(in *commandv1.CreateDelegation, origin *commandv1.Origin) (*commandv1.Result, error) {
	m := in.GetDelegation()
	if m.GetId() == "" || m.GetFromUserId() == "" || origin.GetActorId() != m.GetFromUserId() {
		return nil, problem.New(problem.Forbidden, "everybody delegates their own decisions only, in a session of their own", "Log in as yourself: naru login.")
	}
	if _, err := c.ownSession(); err != nil {
		return nil, err
	}
	if _, err := c.tx.Delegations.Get(m.GetId()); !missing(err) {
		if err == nil {
			err = problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the id %s is taken by another delegation", m.GetId())
		}
		return nil, err
	}
	for _, who := range []*commandv1.Person{{Id: m.GetFromUserId(), Name: m.GetFromUser()}, {Id: m.GetToUserId(), Name: m.GetToUser()}} {
		u, err := c.actingUser(who)
		if err != nil {
			return nil, err
		}
		if u.GetKind() != apiv1.User_PERSON {
			return nil, problem.Newf(problem.Invalid, "Name a person.", "%s is a program, and decides nothing", u.GetName()).With("to_user", "is a program")
		}
	}
	if m.GetFromUserId() == m.GetToUserId() {
		return nil, problem.New(problem.Invalid, "nobody delegates to themselves", "Name somebody else.").With("to_user", "is the caller")
	}
	if m.GetStartsAt() == nil {
		m.StartsAt = c.clock // at once, though a clock was ahead before
	}
	switch {
	case !later(m.GetEndsAt(), c.clock) || !later(m.GetEndsAt(), m.GetStartsAt()):
		return nil, problem.New(problem.Invalid, "the delegation would have ended before it began", "Give an end that lies ahead, after its start.").With("ends_at", "lies before its start, or before now")
	case later(m.GetEndsAt(), &timestamppb.Timestamp{Seconds: m.GetStartsAt().GetSeconds() + longestDelegation}):
		return nil, problem.New(problem.Invalid, "a delegation lasts a year at most", "Give an earlier end.").With("ends_at", "is more than a year after its start")
	}
	if err := c.delegationPlace(m); err != nil {
		return nil, err
	}
	n, err := c.tx.Delegations.Count(state.Scope{"from_user_id": m.GetFromUserId()}, "")
	if err != nil {
		return nil, err
	}
	if n >= maxDelegations {
		return nil, problem.Newf(problem.TooMany, "Delete some that have ended: naru delegation delete ID.", "%s has made %d delegations", m.GetFromUser(), n)
	}
	m.CreatedAt = c.now
	if err := c.tx.Delegations.Put(m); err != nil {
		return nil, err
	}
	if err := c.notifyOfDelegation("delegation.created", m); err != nil {
		return nil, err
	}
	op, err := c.done("delegation.create", delegationReference(m), where(m))
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

func (c *command) delegationPlace(m *apiv1.Delegation) error {
	if m.GetProjectId() != "" || m.GetProject() != "" {
		if err := exists(c.tx.Projects, "project", m.GetProjectId(), m.GetProject()); err != nil {
			return err
		}
	}
	if m.GetZoneId() != "" || m.GetZone() != "" {
		return exists(c.tx.Zones, "zone", m.GetZoneId(), m.GetZone())
	}
	return nil
}

func (c *command) deleteDelegation(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Delegations, "delegation", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.notifyOfDelegation("delegation.deleted", m); err != nil {
		return nil, err
	}
	return removeAs(c, c.tx.Delegations, "delegation.delete", m, delegationReference(m))
}

func delegationReference(m *apiv1.Delegation) *apiv1.Reference {
	return &apiv1.Reference{Kind: "delegation", Id: m.GetId(), Name: m.GetFromUser() + "/" + m.GetToUser()}
}
