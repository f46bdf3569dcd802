package fsm

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// What was granted for a time ends earlier by the word of whoever may grant it, and never later: for longer, it is asked for anew.

// grant is what was granted for a time. field is what its end is called.
type grant struct {
	what, field string
	ends        *timestamppb.Timestamp // nil: never
	// remove ends it now, and prolong has it last longer: what one types.
	remove, prolong string
}

// earlier refuses an end that is past, or not earlier than the one that there is; nil is never.
func (c *command) earlier(g grant, end *timestamppb.Timestamp) error {
	switch {
	case end == nil || !later(end, c.clock):
		return problem.Newf(problem.Invalid, "Name a time to come; or end it now: "+g.remove+".", "%s does not end in the past", g.what).With(g.field, "must lie ahead")
	case g.ends != nil && !later(g.ends, c.clock):
		return problem.Newf(problem.WrongState, "Nothing is left to do.", "%s has ended, on %s", g.what, dayOf(g.ends))
	case g.ends != nil && !later(g.ends, end):
		return problem.Newf(problem.Invalid, "Name an earlier time. For longer, it is asked for anew: "+g.prolong+".", "%s ends on %s, which is not later", g.what, dayOf(g.ends)).With(g.field, "is not earlier")
	}
	return nil
}

func (c *command) shortenRoleBinding(in *commandv1.ShortenRoleBinding) (*commandv1.Result, error) {
	m, err := stored(c.tx.RoleBindings, "role binding", in.GetRoleBindingId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	what := "the role " + m.GetRole() + " of " + m.GetUser() + m.GetGroup()
	g := grant{what, "expires_at", m.GetExpiresAt(), "naru role-binding delete " + m.GetId(), "naru request create"}
	if err := c.earlier(g, in.GetExpiresAt()); err != nil {
		return nil, err
	}
	if err := c.staysAdministered(state.Taken{BindingID: m.GetId()}); err != nil {
		return nil, err
	}
	m.ExpiresAt, m.Shortened = in.GetExpiresAt(), cut(in.GetReason())
	if err := c.tx.RoleBindings.Put(m); err != nil {
		return nil, err
	}
	people := []string{m.GetUserId()}
	if m.GetGroupId() != "" {
		members, _, err := c.tx.MembersOf(m.GetGroupId(), "", maxTold+1) // one of them may be who does it
		if err != nil {
			return nil, err
		}
		for _, member := range members {
			people = append(people, member.UserID)
		}
	}
	if err := c.tellShortened("role.shortened", what, bindingReference(m), where(m), m.GetExpiresAt(), in.GetReason(), people...); err != nil {
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
	g := grant{what, "ends_at", m.GetEndsAt(), "naru crossing delete " + m.GetId(), "naru request create"}
	if err := c.earlier(g, in.GetEndsAt()); err != nil {
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

// shortenLease makes a lease end earlier. People are warned of what is left.
func (c *command) shortenLease(in *commandv1.ShortenLease) (*commandv1.Result, error) {
	m, err := c.tx.Leases.Get(in.GetLeaseId())
	if err != nil {
		return nil, orNotFound(err, "lease", in.GetLeaseId())
	}
	switch m.GetState() {
	case apiv1.Lease_ACTIVE, apiv1.Lease_WARNED:
	case apiv1.Lease_PENDING:
		return nil, problem.Newf(problem.WrongState, "It begins when the VM can be used: try again in a moment.", "the lease of VM %s has not begun", m.GetVm())
	default:
		return nil, problem.Newf(problem.WrongState, "naru lease show "+m.GetVm()+" says how far it is.", "the lease of VM %s does not run, and cannot be shortened", m.GetVm())
	}
	g := grant{"the lease of VM " + m.GetVm(), "expires_at", m.GetExpiresAt(), "naru vm trash " + m.GetVm(), "naru lease extend " + m.GetVm()}
	if err := c.earlier(g, in.GetExpiresAt()); err != nil {
		return nil, err
	}
	m.ExpiresAt, m.Shortened = in.GetExpiresAt(), cut(in.GetReason())
	goesOn(m, c.clock)
	if err := c.tellOfLease(apiv1.Event_WARNING, "lease.shortened", m, m.GetExpiresAt(), "ends earlier, on "+dayOf(m.GetExpiresAt())+": "+in.GetReason()); err != nil {
		return nil, err
	}
	if err := c.keepLease(m); err != nil {
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
