package request

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Vote is one person's decision, as proposed.
type Vote struct {
	ID string
	// Stage by name.
	Stage string
	// Actor decides; ActingFor is whose place they take by a delegation that holds now, empty for their own.
	Actor, ActorID         string
	ActingFor, ActingForID string
	// Person is false for a program.
	Person    bool
	Verdict   apiv1.Decision_Verdict
	Comment   string
	Seen      []byte
	Strength  apiv1.Session_Strength
	SteppedUp bool
	Now       *timestamppb.Timestamp
}

// Decide writes a decision down and draws what follows. That the one whose place it is, is eligible, the proposer has found.
func Decide(r *apiv1.Request, v Vote) error {
	s, err := stageFor(r, v)
	if err != nil {
		return err
	}
	if err := may(r, s, v); err != nil {
		return err
	}
	d := &apiv1.Decision{
		Id: v.ID, Actor: v.Actor, ActorId: v.ActorID, ActingFor: v.ActingFor, ActingForId: v.ActingForID, Verdict: v.Verdict, Comment: v.Comment,
		SeenHash: v.Seen, Strength: v.Strength, At: v.Now, Round: r.GetRound(),
	}
	if before := Decisions(r); len(before) > 0 {
		last := before[len(before)-1]
		d.PreviousHash = last.GetHash()
		if !d.GetAt().AsTime().After(last.GetAt().AsTime()) { // their order in time is their order in the chain
			d.At = timestamppb.New(last.GetAt().AsTime().Add(1))
		}
	}
	chain(r, d)
	s.Decisions = append(s.Decisions, d)
	follow(r, s, d)
	return nil
}

// stageFor returns the stage that a vote is for.
func stageFor(r *apiv1.Request, v Vote) (*apiv1.Stage, error) {
	if !deciding(r) {
		return nil, wrongState(r, "Nothing is left to decide.", "decided on")
	}
	i := slices.IndexFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetName() == v.Stage })
	if i < 0 {
		return nil, problem.Newf(problem.NotFound, "naru request show "+r.GetName()+" lists its stages.", "request %s has no stage %q", r.GetName(), v.Stage)
	}
	s := r.GetStages()[i]
	if s.GetState() != apiv1.Stage_OPEN {
		return nil, problem.Newf(problem.WrongState, "naru request show "+r.GetName()+" shows which stage is open.", "stage %s of request %s is %s", s.GetName(), r.GetName(), lower(s.GetState()))
	}
	return s, nil
}

// may refuses a vote that must not count, whoever proposed it.
func may(r *apiv1.Request, s *apiv1.Stage, v Vote) error {
	switch {
	case v.ActorID == "" || !v.Person:
		return problem.New(problem.Forbidden, "only a person decides on a request", "Log in as one: naru login.")
	case v.ActorID == v.ActingForID:
		return problem.New(problem.Invalid, "nobody takes their own place", "Leave out for whom.")
	case v.Verdict != apiv1.Decision_APPROVE && v.Verdict != apiv1.Decision_DENY && v.Verdict != apiv1.Decision_RETURN:
		return problem.New(problem.Invalid, "a decision approves, denies or returns", "Say one of these.")
	case v.Verdict == apiv1.Decision_RETURN && underReview(r):
		return problem.New(problem.WrongState, "what was carried out cannot be returned", "Approve it, or deny it, which tells those who have to undo it.")
	case string(v.Seen) != string(r.GetSpecificationHash()):
		return problem.Newf(problem.Conflict, "Look at it again, and decide again.", "request %s is another than the one that was decided on", r.GetName())
	case v.Comment == "" && (s.GetCommentRequired() || v.Verdict != apiv1.Decision_APPROVE):
		return problem.New(problem.Invalid, "this decision takes a comment", "Say why.").With("comment", "is empty")
	case s.GetStepUp() && !v.SteppedUp:
		return problem.Newf(problem.Forbidden, "Confirm that it is you: naru login --step-up; then decide again.", "a decision on a request of grade %s takes a fresh proof of who decides", lower(r.GetGrade()))
	}
	concerned := Concerned(r)
	for _, who := range []struct{ id, name string }{{v.ActorID, v.Actor}, {v.ActingForID, v.ActingFor}} {
		if who.id == "" {
			continue
		}
		if slices.Contains(concerned, who.id) {
			return problem.Newf(problem.Forbidden, "Somebody else has to decide.", "%s asked for request %s, gains from it or helped write it, and nobody decides on their own", who.name, r.GetName())
		}
		if by := decided(r, who.id); by != nil {
			return problem.Newf(problem.WrongState, "Somebody else has to decide.", "%s has decided on request %s already, at %s", who.name, r.GetName(), by.GetAt().AsTime().UTC().Format("2006-01-02T15:04:05Z"))
		}
	}
	return nil
}

// decided returns what a person, or somebody in their place, decided in this round.
func decided(r *apiv1.Request, id string) *apiv1.Decision {
	for _, s := range r.GetStages() {
		for _, d := range s.GetDecisions() {
			if d.GetActorId() == id || d.GetActingForId() == id {
				return d
			}
		}
	}
	return nil
}

// follow draws what comes of a decision.
func follow(r *apiv1.Request, s *apiv1.Stage, d *apiv1.Decision) {
	if r.GetApproval() == apiv1.Request_SUBMITTED {
		r.Approval = apiv1.Request_IN_REVIEW
	}
	said := by(d)
	switch d.GetVerdict() {
	case apiv1.Decision_RETURN:
		for _, s := range r.GetStages() { // what was approved so far was approved of something else
			s.State, s.StateReason, s.Stuck = apiv1.Stage_VOID, "the request was returned for correction", false
			for _, d := range s.GetDecisions() {
				d.Void = true
			}
		}
		release(r)
		r.Approval, r.ApprovalReason, r.Reservation = apiv1.Request_RETURNED, said, nil
		return
	case apiv1.Decision_DENY:
		if count(s, apiv1.Decision_DENY) < s.GetDenials() {
			return
		}
		s.State, s.StateReason, s.Stuck = apiv1.Stage_DENIED, said, false
		if begun(r) || r.GetFulfilment() == apiv1.Request_DONE {
			void(r, "the review denied the change")
			r.ApprovalReason = deniedAfterwards + said
			return
		}
		end(r, apiv1.Request_REJECTED, said, d.GetAt())
		return
	}
	if count(s, apiv1.Decision_APPROVE) < s.GetNeeded() {
		return
	}
	s.State, s.StateReason, s.Stuck = apiv1.Stage_APPROVED, said, false
	if slices.ContainsFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetState() == apiv1.Stage_OPEN }) {
		return
	}
	if slices.ContainsFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetState() == apiv1.Stage_WAITING }) {
		open(r, d.GetAt())
		return
	}
	if r.GetApproval() == apiv1.Request_APPROVED {
		r.ApprovalReason = "carried out as an emergency, and approved by the review"
		return
	}
	approve(r, said, d.GetAt())
}

const deniedAfterwards = "carried out as an emergency, and denied by the review: "

// denied returns the stage that denied r; nil where none did.
func denied(r *apiv1.Request) *apiv1.Stage {
	for _, s := range r.GetStages() {
		if s.GetState() == apiv1.Stage_DENIED {
			return s
		}
	}
	return nil
}

func count(s *apiv1.Stage, v apiv1.Decision_Verdict) (n uint32) {
	for _, d := range s.GetDecisions() {
		if d.GetVerdict() == v {
			n++
		}
	}
	return n
}

// by says who decided.
func by(d *apiv1.Decision) string {
	said := d.GetActor()
	if d.GetActingFor() != "" {
		said = fmt.Sprintf("%s for %s", d.GetActor(), d.GetActingFor())
	}
	if d.GetComment() != "" {
		said += ": " + d.GetComment()
	}
	if len(said) > 1000 {
		said = said[:1000]
	}
	return said
}
