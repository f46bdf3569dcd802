package fsm

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// What was granted for a time ends earlier by the word of whoever may grant it, and never later: for longer, it is asked for anew.

// earlier refuses an end that is past, or not earlier than the one that there is; nil is never.
func (c *command) earlier(what, field, remove string, was, end *timestamppb.Timestamp) error {
	switch {
	case end == nil || !later(end, c.clock):
		return problem.Newf(problem.Invalid, "Name a time to come; or end it now: "+remove+".", "%s does not end in the past", what).With(field, "must lie ahead")
	case was != nil && !later(was, c.clock):
		return problem.Newf(problem.WrongState, "Nothing is left to do.", "%s has ended, on %s", what, dayOf(was))
	case was != nil && !later(was, end):
		return problem.Newf(problem.Invalid, "Name an earlier time. For longer, it is asked for anew: naru request create.", "%s ends on %s, which is not later", what, dayOf(was)).With(field, "is not earlier")
	}
	return nil
}

func (c *command) shortenRoleBinding(in *commandv1.ShortenRoleBinding) (*commandv1.Result, error) {
	m, err := stored(c.tx.RoleBindings, "role binding", in.GetRoleBindingId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	what := "the role " + m.GetRole() + " of " + m.GetUser() + m.GetGroup()
	if err := c.earlier(what, "expires_at", "naru role-binding delete "+m.GetId(), m.GetExpiresAt(), in.GetExpiresAt()); err != nil {
		return nil, err
	}
	if err := c.staysAdministered(taken{binding: m.GetId()}); err != nil {
		return nil, err
	}
	m.ExpiresAt, m.Shortened = in.GetExpiresAt(), cut(in.GetReason())
	if err := c.tx.RoleBindings.Put(m); err != nil {
		return nil, err
	}
	if err := c.tellShortened("role.shortened", what, bindingReference(m), where(m), m.GetExpiresAt(), in.GetReason(), m.GetUserId()); err != nil {
		return nil, err
	}
	return made(m, nil)
}

func (c *command) shortenCrossing(in *commandv1.ShortenCrossing) (*commandv1.Result, error) {
	m, err := stored(c.tx.Crossings, "crossing", in.GetCrossingId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	what := "the crossing of project " + m.GetProject() + " from zone " + m.GetSourceZone() + " to zone " + m.GetZone()
	if err := c.earlier(what, "ends_at", "naru crossing delete "+m.GetId(), m.GetEndsAt(), in.GetEndsAt()); err != nil {
		return nil, err
	}
	m.EndsAt, m.Shortened = in.GetEndsAt(), cut(in.GetReason())
	if err := c.tx.Crossings.Put(m); err != nil {
		return nil, err
	}
	asked, err := c.tx.Requests.Get(m.GetRequestId())
	if err != nil && !missing(err) {
		return nil, err
	}
	if err := c.tellShortened("crossing.shortened", what, crossingReference(m), where(m), m.GetEndsAt(), in.GetReason(), asked.GetRequesterId(), asked.GetOnBehalfOfId()); err != nil {
		return nil, err
	}
	return made(m, nil)
}

// tellShortened stores an event, and tells those who had it.
func (c *command) tellShortened(kind, what string, about *apiv1.Reference, at whereabouts, end *timestamppb.Timestamp, why string, people ...string) error {
	if err := c.tell(apiv1.Event_WARNING, kind, at, about, cut(what+" ends earlier, on "+dayOf(end)+": "+why)); err != nil {
		return err
	}
	people = slices.DeleteFunc(people, func(id string) bool { return id == "" || id == c.by })
	return c.notify(news{topic: kind, about: about, at: at, parameters: []*apiv1.Notification_Parameter{parameter("until", stamp(end))}}, people...)
}
