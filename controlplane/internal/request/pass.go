package request

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Withdraw ends r by the wish of who asked or for whom it is, while nothing is under way; since says why who asked cannot, where it is by
// that of another. Of what has begun, only what is not done ends: what was made stands because it was approved, and a review of that goes on.
func Withdraw(r *apiv1.Request, by Person, since, reason string, now *timestamppb.Timestamp) error {
	own := by.ID == r.GetRequesterId() || by.ID == r.GetOnBehalfOfId()
	if by.ID == "" || !own && since == "" {
		return problem.Newf(problem.Forbidden, "Ask "+r.GetRequester()+", or have it denied.", "only who asked for request %s, or for whom it is, withdraws it", r.GetName())
	}
	switch {
	case Editable(r), r.GetApproval() == apiv1.Request_SUBMITTED, r.GetApproval() == apiv1.Request_IN_REVIEW:
	case r.GetApproval() == apiv1.Request_APPROVED && !Recorded(r) && (waits(r) || r.GetFulfilment() == apiv1.Request_FAILED):
	default:
		return wrongState(r, left(r), "withdrawn")
	}
	why := "withdrawn by " + by.Name
	if !own {
		why += ", since " + since
	}
	if reason != "" {
		why += ": " + reason
	}
	if len(r.GetOperations()) > 0 {
		finish(r, apiv1.Request_LAPSED, "what is not done was "+why, now)
		return nil
	}
	end(r, apiv1.Request_CANCELLED, why, now)
	return nil
}

// left is what can be done where nothing of r is left to withdraw.
func left(r *apiv1.Request) string {
	switch {
	case underReview(r):
		return "Those who review it end it, by denying it."
	case r.GetFulfilment() == apiv1.Request_EXECUTING || r.GetFulfilment() == apiv1.Request_DONE:
		return "What is done by it is undone by another request: naru request create."
	}
	return "Nothing is to be done: it is over. To ask for the same again: naru request copy " + r.GetName() + "."
}

// Expire ends r because nobody decided in time: by the time that it names, or in a stage whose policy says that it then
// ends. Whether that is over, the clock says; now is when it ends.
func Expire(r *apiv1.Request, clock, now *timestamppb.Timestamp) error {
	switch r.GetApproval() {
	case apiv1.Request_SUBMITTED, apiv1.Request_IN_REVIEW, apiv1.Request_RETURNED:
	default:
		return wrongState(r, "", "expired")
	}
	if passed(r.GetDecideBy(), clock) {
		end(r, apiv1.Request_EXPIRED, "nobody had decided by the time that it names", now)
		return nil
	}
	for _, s := range r.GetStages() {
		if s.GetState() == apiv1.Stage_OPEN && s.GetOnDue() == apiv1.StageTemplate_EXPIRE && passed(s.GetDueAt(), clock) {
			s.State, s.StateReason, s.Stuck = apiv1.Stage_EXPIRED, "nobody decided in time", ""
			end(r, apiv1.Request_EXPIRED, "stage "+s.GetName()+" was not decided in time", now)
			return nil
		}
	}
	return problem.Newf(problem.WrongState, "", "request %s is not due", r.GetName())
}

// Escalate lets those decide too whom the stage names for that: because it is due, or because too few can decide.
func Escalate(r *apiv1.Request, stage, why string, now *timestamppb.Timestamp) error {
	s, err := waiting(r, stage)
	if err != nil {
		return err
	}
	if s.GetEscalatedAt() != nil {
		return problem.Newf(problem.WrongState, "", "stage %s of request %s is escalated already", stage, r.GetName())
	}
	s.EscalatedAt, s.StateReason = now, shortened(why)
	return nil
}

// Remind notes that people were reminded, and when they will be next; nil for never.
func Remind(r *apiv1.Request, stage string, next, clock *timestamppb.Timestamp) error {
	s, err := waiting(r, stage)
	if err != nil {
		return err
	}
	if !passed(s.GetRemindAt(), clock) {
		return problem.Newf(problem.WrongState, "", "nobody is to be reminded yet of stage %s of request %s", stage, r.GetName())
	}
	s.RemindAt, s.Reminders = next, s.GetReminders()+1
	r.ReviewOverdue = overdue(r, clock)
	return nil
}

// overdue reports whether r was let through at once, and a stage that reviews it is open after it was due.
func overdue(r *apiv1.Request, clock *timestamppb.Timestamp) bool {
	return underReview(r) && slices.ContainsFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetState() == apiv1.Stage_OPEN && passed(s.GetDueAt(), clock) })
}

// Stick notes why fewer people can decide in a stage than have to, or with an empty reason that enough can again.
func Stick(r *apiv1.Request, stage, why string) error {
	s, err := waiting(r, stage)
	if err != nil {
		return err
	}
	s.Stuck = shortened(why)
	return nil
}

// waiting returns an open stage in which decisions are taken.
func waiting(r *apiv1.Request, name string) (*apiv1.Stage, error) {
	s := StageOf(r, name)
	if s.GetState() != apiv1.Stage_OPEN || !Deciding(r) {
		return nil, problem.Newf(problem.WrongState, "", "request %s has no open stage %q", r.GetName(), name)
	}
	return s, nil
}

// Ready refuses to carry out what is not approved, or is carried out already, or not yet to be. A round is begun once: only
// this function and Retry, which needs a failure, lead there.
func Ready(r *apiv1.Request, clock *timestamppb.Timestamp) error {
	if r.GetApproval() != apiv1.Request_APPROVED || r.GetFulfilment() != apiv1.Request_NONE && r.GetFulfilment() != apiv1.Request_RESERVED {
		return wrongState(r, "", "carried out")
	}
	if r.GetDesiredStart() != nil && !passed(r.GetDesiredStart(), clock) {
		return problem.Newf(problem.WrongState, "", "request %s is not to be carried out yet", r.GetName())
	}
	if passed(r.GetCarryOutBy(), clock) {
		return problem.Newf(problem.WrongState, "", "the time to carry out request %s is over", r.GetName())
	}
	return nil
}

// Begin notes that r is carried out: for each part that is not done an operation was opened.
func Begin(r *apiv1.Request, clock *timestamppb.Timestamp) error {
	if err := Ready(r, clock); err != nil {
		return err
	}
	r.Fulfilment, r.FulfilmentReason = apiv1.Request_EXECUTING, ""
	return nil
}

// Ended takes in that the operation of one of r's parts has ended, with an error where it failed, and reports whether that
// changed r. When none goes on any more, r is done or has failed.
func Ended(r *apiv1.Request, operation string, failed *apiv1.Problem, now *timestamppb.Timestamp) bool {
	var at *apiv1.Part
	for _, p := range r.GetParts() {
		if p.GetOperation() == operation && operation != "" {
			at = p
		}
	}
	if at == nil || at.GetDone() || at.GetError() != nil {
		return false
	}
	if at.Error = failed; failed == nil {
		at.Done = true
	}
	var bad *apiv1.Part
	for _, p := range r.GetParts() {
		switch {
		case p.GetDone():
		case p.GetError() == nil:
			return true // it goes on
		case bad == nil:
			bad = p
		}
	}
	if r.GetFulfilment() != apiv1.Request_EXECUTING {
		return true
	}
	if bad != nil {
		finish(r, apiv1.Request_FAILED, bad.GetName()+": "+bad.GetError().GetDetail(), now)
		return true
	}
	finish(r, apiv1.Request_DONE, "", now)
	r.FulfilledAt = now
	return true
}

// Wait notes what r waits for that is approved, or wants room; empty for nothing. It is not orphaned then.
func Wait(r *apiv1.Request, why string, clock *timestamppb.Timestamp) error {
	switch wants := WantsRoom(r, clock); {
	case wants && r.GetFulfilment() == apiv1.Request_NONE:
		r.Fulfilment = apiv1.Request_RESERVING
	case wants, r.GetApproval() == apiv1.Request_APPROVED && waits(r):
	default:
		return wrongState(r, "", "kept waiting")
	}
	r.FulfilmentReason, r.OrphanedAt = shortened(why), nil
	return nil
}

// Retry lets a failed r be carried out again. What was approved stands, so no approval is asked for; what is done is not done
// again.
func Retry(r *apiv1.Request) error {
	if r.GetApproval() != apiv1.Request_APPROVED || r.GetFulfilment() != apiv1.Request_FAILED || Recorded(r) {
		return wrongState(r, "Only one that failed is carried out again.", "carried out again")
	}
	r.Fulfilment, r.FulfilmentReason, r.OrphanedAt, r.EndedAt = apiv1.Request_NONE, "", nil, nil
	for _, p := range r.GetParts() {
		if !p.GetDone() {
			p.Operation, p.Error = "", nil
		}
	}
	return nil
}

// Lapse ends an approved r that was not carried out in time: whether that is over, the clock says; now is when it ends.
func Lapse(r *apiv1.Request, clock, now *timestamppb.Timestamp) error {
	if r.GetApproval() != apiv1.Request_APPROVED || !waits(r) && r.GetFulfilment() != apiv1.Request_FAILED || !passed(r.GetCarryOutBy(), clock) {
		return wrongState(r, "", "lapsed")
	}
	finish(r, apiv1.Request_LAPSED, "it was approved, and not carried out by the time that it names", now)
	return nil
}
