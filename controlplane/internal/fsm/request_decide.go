package fsm

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// mostOff is how far the clock by which a proposer reckons may be from that by which what it reckoned passes; a command may
// wait as long.
const (
	second  = 1_000_000_000 // nanoseconds
	mostOff = 60 * second
)

// openings are when stages would be due. The proposer has reckoned that by its own clock, and time passes them by the
// leader's: where the two are far from one another, a request would be over before anybody could decide, or never be.
func (c *command) openings(in []*commandv1.DecideRequest_Opening, reckoned *timestamppb.Timestamp) ([]request.Opening, error) {
	if len(in) == 0 {
		return nil, nil
	}
	if reckoned == nil {
		return nil, invalid("when stages are due was reckoned at a time")
	}
	if off := reckoned.AsTime().Sub(c.clock.AsTime()); off.Abs() > mostOff {
		is := "ahead of"
		if off < 0 {
			is = "behind"
		}
		return nil, problem.Newf(problem.Conflict, "Try it at another server, and have an administrator set the clocks of the control plane's servers right.",
			"the clock of the server that was called is %v %s that of the server that leads, and by which the time to decide passes", off.Abs().Round(second), is)
	}
	var out []request.Opening
	for _, o := range in {
		out = append(out, request.Opening{Stage: o.GetStage(), RemindAt: o.GetRemindAt(), DueAt: o.GetDueAt()})
	}
	return out, nil
}

// decideRequest writes a decision down. The proposer has found that the one whose place it is, is eligible; here it is checked that
// what this rests on still holds, and what must never be wrong: who it is, that they have no part in the request and decide once,
// that they saw what is decided on, and that a delegation holds.
func (c *command) decideRequest(in *commandv1.DecideRequest, origin *commandv1.Origin) (*commandv1.Result, error) {
	m, err := stored(c.tx.Requests, "request", in.GetRequestId(), "")
	if err != nil {
		return nil, err
	}
	d := in.GetDecision()
	actor, err := c.actingUser(&commandv1.Person{Id: d.GetActorId(), Name: d.GetActor()})
	if err != nil {
		return nil, err
	}
	var session *apiv1.Session
	if service := actor.GetKind() == apiv1.User_SERVICE; d.GetId() == "" || !service && origin.GetActorId() != d.GetActorId() {
		return nil, problem.New(problem.Forbidden, "a decision is made by whoever calls, in a session of their own", "Log in as yourself: naru login.")
	} else if service {
		err = c.ownToken(actor, m, origin.GetZoneId())
	} else {
		session, err = c.ownSession()
	}
	if err != nil {
		return nil, err
	}
	principal := actor
	if d.GetActingForId() != "" || d.GetActingFor() != "" || d.GetDelegation() != "" {
		if principal, err = c.actingUser(&commandv1.Person{Id: d.GetActingForId(), Name: d.GetActingFor()}); err != nil {
			return nil, err
		}
		if err := c.delegated(m, d); err != nil {
			return nil, err
		}
	}
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	for _, group := range in.GetGroupIds() {
		if _, err := c.tx.Membership(group, principal.GetId()); missing(err) {
			return nil, problem.Newf(problem.Conflict, "Try again.", "%s was taken out of a group meanwhile", principal.GetName())
		} else if err != nil {
			return nil, err
		}
	}
	parties, err := hold.In(c.tx, m)
	if err != nil {
		return nil, err
	}
	if err := parties.Impartial(d); err != nil {
		return nil, err
	}
	due, err := c.openings(in.GetOpenings(), in.GetReckonedAt())
	if err != nil {
		return nil, err
	}
	d.Strength = origin.GetStrength()
	if err := request.Decide(m, request.Vote{
		Decision: d, Person: actor.GetKind() == apiv1.User_PERSON && principal.GetKind() == apiv1.User_PERSON, SteppedUp: session.GetSteppedUpUntil() != nil && later(session.GetSteppedUpUntil(), c.clock),
		Openings: due, Now: c.now, Clock: c.clock,
	}); err != nil {
		return nil, err
	}
	return c.putRequest(m)
}

// ownToken refuses what a service does otherwise than by a token of its own that is good for the request then and there.
func (c *command) ownToken(service *apiv1.User, m *apiv1.Request, edge string) error {
	switch t := c.token; {
	case t.GetUserId() != service.GetId():
		return problem.Newf(problem.TokenInvalid, "Ask an administrator for one: naru token create.", "service %s decides by a token of its own, and there is none", service.GetName())
	case t.GetProjectId() != "" && t.GetProjectId() != m.GetProjectId(), t.GetZoneId() != "" && t.GetZoneId() != edge:
		return problem.Newf(problem.Forbidden, "Ask an administrator for one of this place.", "token %s is good in another project, or at the edge of another zone", t.GetName())
	}
	return nil
}

// delegated refuses a decision in another's place for which no delegation holds now.
func (c *command) delegated(m *apiv1.Request, d *apiv1.Decision) error {
	g, err := c.tx.Delegations.Get(d.GetDelegation())
	if err != nil && !missing(err) {
		return err
	}
	holds := err == nil && g.GetFromUserId() == d.GetActingForId() && g.GetToUserId() == d.GetActorId() &&
		!later(g.GetStartsAt(), c.clock) && later(g.GetEndsAt(), c.clock) &&
		(g.GetProjectId() == "" || g.GetProjectId() == m.GetProjectId()) && (g.GetZoneId() == "" || g.GetZoneId() == m.GetZoneId())
	if !holds {
		return problem.Newf(problem.Forbidden, "naru delegation list shows which hold.", "%s has not delegated this decision to %s now", d.GetActingFor(), d.GetActor())
	}
	return nil
}
