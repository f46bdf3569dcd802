package request

import (
	"bytes"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Vote is one decision, as proposed.
type Vote struct {
	// Decision as it was made, without round, time and hashes.
	Decision *apiv1.Decision
	// Person is false for a program: a service of another system, whose word counts in external stages alone.
	Person bool
	// SteppedUp says that the actor has just proved again who they are.
	SteppedUp bool
	Openings  []Opening
	// Now is when it is made, and Clock what the clock shows, by which the time to decide is over or not: Now never goes
	// back.
	Now, Clock *timestamppb.Timestamp
}

// Decide writes a decision down and draws what follows. That the one whose place it is, is eligible, the proposer has found.
func Decide(r *apiv1.Request, v Vote) error {
	if err := Verify(r); err != nil {
		return err
	}
	s, err := openStage(r, v.Decision.GetStage(), v.Clock)
	if err != nil {
		return err
	}
	if err := may(r, s, v); err != nil {
		return err
	}
	if err := Impartial(r, v.Decision); err != nil {
		return err
	}
	d := proto.CloneOf(v.Decision)
	d.Round, d.At, d.Void, d.PreviousHash = r.GetRound(), v.Now, false, nil
	if n := len(r.GetDecisions()); n > 0 {
		d.PreviousHash = r.GetDecisions()[n-1].GetHash()
	}
	chain(r, d)
	r.Decisions = append(r.Decisions, d)
	follow(r, s, d, v.Openings)
	r.ReviewOverdue = overdue(r, v.Clock)
	return nil
}

// openStage returns the stage that a vote is for.
func openStage(r *apiv1.Request, name string, clock *timestamppb.Timestamp) (*apiv1.Stage, error) {
	if !Deciding(r) {
		return nil, wrongState(r, "Nothing is left to decide.", "decided on")
	}
	s := StageOf(r, name)
	switch {
	case s == nil:
		return nil, problem.Newf(problem.NotFound, "naru request show "+r.GetName()+" lists its stages.", "request %s has no stage %q", r.GetName(), name)
	case s.GetState() != apiv1.Stage_OPEN:
		return nil, problem.Newf(problem.WrongState, "naru request show "+r.GetName()+" shows which stage is open.", "stage %s of request %s is %s", s.GetName(), r.GetName(), lower(s.GetState()))
	case len(r.GetDecisions()) >= maxDecisions:
		return nil, problem.Newf(problem.WrongState, "Withdraw it and copy it: naru request copy "+r.GetName()+".", "nothing more fits into the record of request %s", r.GetName())
	case !underReview(r) && (passed(r.GetDecideBy(), clock) || s.GetOnDue() == apiv1.StageTemplate_EXPIRE && passed(s.GetDueAt(), clock)):
		return nil, problem.Newf(problem.WrongState, "Ask the requester to copy it: naru request copy "+r.GetName()+".", "the time to decide on request %s is over", r.GetName())
	}
	return s, nil
}

// may refuses a vote that must not count, whoever proposed it.
func may(r *apiv1.Request, s *apiv1.Stage, v Vote) error {
	d := v.Decision
	if err := voiced(s, v); err != nil {
		return err
	}
	switch {
	case d.GetActorId() == d.GetActingForId():
		return problem.New(problem.Invalid, "nobody takes their own place", "Leave out for whom.")
	case d.GetActingForId() != "" && d.GetDelegation() == "":
		return problem.New(problem.Forbidden, "nobody decides for another without a delegation", "Ask them for one: naru delegation create.")
	case d.GetVerdict() != apiv1.Decision_APPROVE && d.GetVerdict() != apiv1.Decision_DENY && d.GetVerdict() != apiv1.Decision_RETURN:
		return problem.New(problem.Invalid, "a decision approves, denies or returns", "Say one of these.")
	case d.GetVerdict() == apiv1.Decision_RETURN && underReview(r):
		return problem.New(problem.WrongState, "what was let through cannot be returned", "Approve it, or deny it; a denial is shown to whoever looks at it.")
	case len(d.GetSeenHash()) == 0 || !bytes.Equal(d.GetSeenHash(), r.GetFrozenHash()):
		return problem.Newf(problem.Conflict, "Look at it again, and decide again: naru approve "+r.GetName()+".", "request %s is not what was shown any more", r.GetName())
	case d.GetComment() == "" && (s.GetCommentRequired() || d.GetVerdict() != apiv1.Decision_APPROVE):
		return problem.New(problem.Invalid, "this decision takes a comment", "Say why.").With("comment", "is empty")
	case slices.Contains(s.GetExcluded(), d.GetActor()), slices.Contains(s.GetExcluded(), d.GetActingFor()):
		return problem.Newf(problem.Forbidden, "Somebody else has to decide.", "the policy excludes who decides here, or in whose place, from stage %s", s.GetName())
	case slices.ContainsFunc(s.GetExcluded(), func(name string) bool { return same(name, d.GetExternalApprover()) }):
		return problem.Newf(problem.Forbidden, "Somebody else has to decide there.", "the policy excludes %s from stage %s", d.GetExternalApprover(), s.GetName())
	case s.GetStepUp() && !v.SteppedUp:
		return problem.Newf(problem.Forbidden, "Confirm that it is you: naru session step-up; then decide again.", "a decision on a request of grade %s takes a fresh proof of who decides", lower(r.GetGrade()))
	}
	return nil
}

// voiced refuses who is not of the kind that a stage asks: people, and in an external stage the services of another system,
// which say who decided there, and under which number.
func voiced(s *apiv1.Stage, v Vote) error {
	d := v.Decision
	named := d.GetExternalApprover() != "" || d.GetExternalRef() != ""
	switch {
	case !s.GetExternal() && (d.GetActorId() == "" || !v.Person):
		return problem.Newf(problem.Forbidden, "Log in as one: naru login.", "only a person decides on a request in stage %s", s.GetName())
	case !s.GetExternal() && named:
		return problem.Newf(problem.Invalid, "Leave out external_approver and external_ref.", "stage %s is decided by people here", s.GetName()).With("external_approver", "goes with an external stage only")
	case !s.GetExternal():
		return nil
	case d.GetActorId() == "" || v.Person || d.GetActingForId() != "" || !says(s, d.GetActor()):
		return problem.Newf(problem.Forbidden, "It is decided there.", "stage %s is decided in another system, and only a service that the policy names says how", s.GetName())
	case strings.TrimSpace(d.GetExternalApprover()) == "":
		return problem.Newf(problem.Invalid, "Send external_approver.", "a decision in stage %s says who decided in the other system", s.GetName()).With("external_approver", "is required")
	case strings.TrimSpace(d.GetExternalRef()) == "":
		return problem.Newf(problem.Invalid, "Send external_ref.", "a decision in stage %s has a number in the other system", s.GetName()).With("external_ref", "is required")
	}
	return nil
}

// says reports whether the word of a service counts in an external stage.
func says(s *apiv1.Stage, service string) bool {
	return slices.Contains(s.GetEligible().GetUsers(), service) || s.GetEscalatedAt() != nil && slices.Contains(s.GetEscalateTo().GetUsers(), service)
}

// Impartial refuses a decision of somebody who has a part in r, or has decided on it already, whether for themselves, in
// another's place or in another system.
func Impartial(r *apiv1.Request, d *apiv1.Decision) error {
	concerned := parties(r)
	for _, who := range deciders(d) {
		if who == (Person{}) {
			continue
		}
		if slices.ContainsFunc(concerned, who.is) {
			return problem.Newf(problem.Forbidden, "Somebody else has to decide.", "%s asked for request %s, gains from it or helped write it, and nobody decides on their own", who.Name, r.GetName())
		}
		if by := Decided(r, who); by != nil {
			return Again(r, who.Name, by)
		}
	}
	return nil
}

// Again refuses who has decided already.
func Again(r *apiv1.Request, name string, by *apiv1.Decision) error {
	return problem.Newf(problem.WrongState, "Somebody else has to decide.", "%s has decided on request %s already, in stage %s; everybody counts once", name, r.GetName(), by.GetStage())
}

// follow draws what comes of a decision.
func follow(r *apiv1.Request, s *apiv1.Stage, d *apiv1.Decision, openings []Opening) {
	if r.GetApproval() == apiv1.Request_SUBMITTED {
		r.Approval = apiv1.Request_IN_REVIEW
	}
	said := by(d)
	switch d.GetVerdict() {
	case apiv1.Decision_RETURN:
		for _, s := range r.GetStages() { // what was approved so far was approved of something else
			s.State, s.StateReason, s.Stuck = apiv1.Stage_VOID, "the request was returned for correction", ""
		}
		voidDecisions(r)
		unreserve(r)
		r.Approval, r.ApprovalReason = apiv1.Request_RETURNED, said
		return
	case apiv1.Decision_DENY:
		if count(r, s, apiv1.Decision_DENY) < s.GetDenials() {
			return
		}
		s.State, s.StateReason, s.Stuck = apiv1.Stage_DENIED, said, ""
		if r.GetReviewedAfterwards() {
			said = "let through as an emergency, and denied by the review: " + said
		}
		end(r, apiv1.Request_REJECTED, said, d.GetAt())
		return
	}
	if Lacks(r, s) > 0 {
		return
	}
	s.State, s.StateReason, s.Stuck = apiv1.Stage_APPROVED, said, ""
	switch {
	case slices.ContainsFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetState() == apiv1.Stage_OPEN }):
	case slices.ContainsFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetState() == apiv1.Stage_WAITING }):
		open(r, openings, d.GetAt())
	case r.GetReviewedAfterwards():
		r.ApprovalReason = shortened("let through as an emergency, and approved by the review: " + said)
	default:
		approve(r, said, d.GetAt())
	}
}

// by says who decided, and for whom.
func by(d *apiv1.Decision) string {
	said := d.GetActor()
	if d.GetActingFor() != "" {
		said += " for " + d.GetActingFor()
	}
	if d.GetExternalRef() != "" {
		said += " (" + d.GetExternalApprover() + ", " + d.GetExternalRef() + ")"
	}
	if d.GetComment() != "" {
		said += ": " + d.GetComment()
	}
	return shortened(said)
}
