package request

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Edit notes that somebody changed what r asks for. Whoever it is, beside the requester, has helped write it from now on.
func Edit(r *apiv1.Request, by, byID string) error {
	if !Editable(r) {
		return wrongState(r, "Withdraw it, or have it returned, first.", "changed")
	}
	if byID != r.GetRequesterId() && !slices.Contains(r.GetContributorIds(), byID) {
		r.Contributors, r.ContributorIds = append(r.GetContributors(), by), append(r.GetContributorIds(), byID)
	}
	return nil
}

// Withdraw ends r by its requester's wish, while nothing has begun.
func Withdraw(r *apiv1.Request, by, reason string, now *timestamppb.Timestamp) error {
	open := Editable(r) || r.GetApproval() == apiv1.Request_SUBMITTED || r.GetApproval() == apiv1.Request_IN_REVIEW ||
		r.GetApproval() == apiv1.Request_APPROVED && (r.GetFulfilment() <= apiv1.Request_RESERVED || r.GetFulfilment() == apiv1.Request_FAILED)
	if !open {
		return wrongState(r, "Ask to take back what came of it.", "withdrawn")
	}
	why := "withdrawn by " + by
	if reason != "" {
		why += ": " + reason
	}
	end(r, apiv1.Request_CANCELLED, why, now)
	return nil
}

// Expire ends r because nobody decided in time; a stage that is due ends it only where its policy says so. Time never
// approves.
func Expire(r *apiv1.Request, now *timestamppb.Timestamp) error {
	if r.GetApproval() != apiv1.Request_SUBMITTED && r.GetApproval() != apiv1.Request_IN_REVIEW && r.GetApproval() != apiv1.Request_RETURNED {
		return wrongState(r, "", "expired")
	}
	due := func(t *timestamppb.Timestamp) bool { return t != nil && !t.AsTime().After(now.AsTime()) }
	if due(r.GetDecideBy()) {
		end(r, apiv1.Request_EXPIRED, "nobody had decided by the time that it names", now)
		return nil
	}
	for _, s := range r.GetStages() {
		if s.GetState() == apiv1.Stage_OPEN && s.GetOnDue() == apiv1.StageTemplate_EXPIRE && due(s.GetDueAt()) {
			s.State, s.StateReason = apiv1.Stage_EXPIRED, "nobody decided in time"
			end(r, apiv1.Request_EXPIRED, "stage "+s.GetName()+" was not decided in time", now)
			return nil
		}
	}
	return problem.Newf(problem.WrongState, "", "request %s is not due", r.GetName())
}

// Escalate lets those decide too whom the stage names for that.
func Escalate(r *apiv1.Request, stage, why string, now *timestamppb.Timestamp) error {
	i := slices.IndexFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetName() == stage })
	if i < 0 || r.GetStages()[i].GetState() != apiv1.Stage_OPEN || !deciding(r) {
		return problem.Newf(problem.WrongState, "", "request %s has no open stage %q", r.GetName(), stage)
	}
	s := r.GetStages()[i]
	if s.GetEscalatedAt() == nil {
		s.EscalatedAt, s.StateReason = now, why
	}
	return nil
}

// Reserved takes in what the zone said of the room that was asked for. It is shown; it decides nothing.
func Reserved(r *apiv1.Request, answer *apiv1.Reservation) error {
	v := r.GetReservation()
	if v == nil || r.GetFulfilment() != apiv1.Request_RESERVING && r.GetFulfilment() != apiv1.Request_RESERVED {
		return wrongState(r, "", "reserved")
	}
	answer.Id = v.GetId()
	r.Reservation = answer
	if r.Fulfilment = apiv1.Request_RESERVING; answer.GetState() == apiv1.Reservation_HELD {
		r.Fulfilment = apiv1.Request_RESERVED
	}
	r.FulfilmentReason = answer.GetMessage()
	return nil
}

// Dispatch begins to carry r out, once.
func Dispatch(r *apiv1.Request) error {
	ready := r.GetFulfilment() == apiv1.Request_RESERVED || r.GetFulfilment() == apiv1.Request_NONE && !takesRoom(r)
	if r.GetApproval() != apiv1.Request_APPROVED || !ready {
		return wrongState(r, "", "carried out")
	}
	r.Fulfilment, r.FulfilmentReason = apiv1.Request_DISPATCHED, ""
	return nil
}

// Progress notes how far carrying r out has come: executing, done, failed.
func Progress(r *apiv1.Request, to apiv1.Request_Fulfilment, why string, now *timestamppb.Timestamp) error {
	if !begun(r) || to != apiv1.Request_EXECUTING && to != apiv1.Request_DONE && to != apiv1.Request_FAILED {
		return wrongState(r, "", lower(to))
	}
	r.Fulfilment, r.FulfilmentReason = to, why
	if s := denied(r); s != nil && to == apiv1.Request_FAILED {
		end(r, apiv1.Request_REJECTED, s.GetStateReason(), now) // what the review denied is not tried again
	}
	if to == apiv1.Request_DONE {
		r.FulfilledAt = now
		if r.GetReservation() != nil {
			r.Reservation.State = apiv1.Reservation_CONSUMED
		}
	}
	return nil
}

// begun reports whether r is being carried out.
func begun(r *apiv1.Request) bool {
	return r.GetFulfilment() == apiv1.Request_DISPATCHED || r.GetFulfilment() == apiv1.Request_EXECUTING
}

// Retry carries a failed r out again. What was approved stands, so no approval is asked for; room is.
func Retry(r *apiv1.Request) error {
	if r.GetApproval() != apiv1.Request_APPROVED || r.GetFulfilment() != apiv1.Request_FAILED {
		return wrongState(r, "Only one that failed is carried out again.", "carried out again")
	}
	r.Fulfilment, r.FulfilmentReason, r.Reservation = apiv1.Request_NONE, "", nil
	reserve(r)
	return nil
}

// Lapse ends an approved r that was not carried out in time.
func Lapse(r *apiv1.Request, now *timestamppb.Timestamp) error {
	waits := r.GetFulfilment() <= apiv1.Request_RESERVED || r.GetFulfilment() == apiv1.Request_FAILED
	if r.GetApproval() != apiv1.Request_APPROVED || !waits || r.GetCarryOutBy() == nil || r.GetCarryOutBy().AsTime().After(now.AsTime()) {
		return wrongState(r, "", "lapsed")
	}
	release(r)
	r.Fulfilment, r.FulfilmentReason = apiv1.Request_LAPSED, "it was approved, and not carried out by the time that it names"
	return nil
}
