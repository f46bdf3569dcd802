package request

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Submission is what the proposer found for a request that is submitted.
type Submission struct {
	// Stages as the policy asks for them, with what each takes; none where the policy approves by itself.
	Stages []*apiv1.Stage
	// Automatic is why no person is asked; empty where people are.
	Automatic string
	// Hash is what approvers decide on.
	Hash []byte
	Now  *timestamppb.Timestamp
}

// Submit freezes r and begins its approval. An emergency is approved at once, and its stages review it afterwards.
func Submit(r *apiv1.Request, in Submission) error {
	if !Editable(r) {
		return wrongState(r, "Copy it: naru request copy "+r.GetName()+".", "submitted")
	}
	if len(in.Stages) == 0 && in.Automatic == "" {
		return problem.Newf(problem.Invalid, "Have an administrator add a policy for such requests.", "no policy says who approves request %s", r.GetName())
	}
	for _, s := range r.GetStages() {
		r.PastDecisions = append(r.PastDecisions, s.GetDecisions()...)
	}
	slices.SortStableFunc(r.PastDecisions, func(a, b *apiv1.Decision) int { return a.GetAt().AsTime().Compare(b.GetAt().AsTime()) })
	for _, d := range r.GetPastDecisions() {
		d.Void = true
	}
	r.Round++
	r.SpecificationHash, r.SubmittedAt, r.DecidedAt = in.Hash, in.Now, nil
	r.Approval, r.ApprovalReason = apiv1.Request_SUBMITTED, ""
	r.Fulfilment, r.FulfilmentReason, r.Reservation = apiv1.Request_NONE, "", nil
	r.Stages = in.Stages
	slices.SortStableFunc(r.Stages, func(a, b *apiv1.Stage) int { return cmp.Compare(a.GetSequence(), b.GetSequence()) })
	for _, s := range r.GetStages() {
		s.State, s.Decisions = apiv1.Stage_WAITING, nil
		s.Needed, s.Denials = max(1, s.GetNeeded()), max(1, s.GetDenials())
	}
	switch {
	case in.Automatic != "":
		for _, s := range r.GetStages() {
			s.State, s.StateReason = apiv1.Stage_AUTOMATIC, in.Automatic
		}
		approve(r, in.Automatic, in.Now)
	case r.GetChangeType() == apiv1.Request_EMERGENCY:
		approve(r, "an emergency change, which is reviewed afterwards", in.Now)
		open(r, in.Now)
	default:
		open(r, in.Now)
	}
	return nil
}

// open opens the first stages that wait. Room is asked for when the last ones are opened, so that they decide on something
// that is there.
func open(r *apiv1.Request, now *timestamppb.Timestamp) {
	first := slices.IndexFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetState() == apiv1.Stage_WAITING })
	if first < 0 {
		return
	}
	last := true
	for _, s := range r.GetStages()[first:] {
		if s.GetSequence() == r.GetStages()[first].GetSequence() {
			s.State, s.OpenedAt = apiv1.Stage_OPEN, now
		} else {
			last = false
		}
	}
	if last {
		reserve(r)
	}
}

// reserve asks for room where the request takes any.
func reserve(r *apiv1.Request) {
	if r.GetReservation() != nil || r.GetFulfilment() != apiv1.Request_NONE || !takesRoom(r) {
		return
	}
	r.Fulfilment, r.FulfilmentReason = apiv1.Request_RESERVING, ""
	r.Reservation = &apiv1.Reservation{State: apiv1.Reservation_ASKED}
}

func takesRoom(r *apiv1.Request) bool {
	return r.GetKind() == apiv1.Request_CREATE || r.GetKind() == apiv1.Request_RESIZE
}

// approve lets r be carried out.
func approve(r *apiv1.Request, why string, now *timestamppb.Timestamp) {
	r.Approval, r.ApprovalReason, r.DecidedAt = apiv1.Request_APPROVED, why, now
	reserve(r)
}

// Need is what a stage takes: so many of these people, by id.
type Need struct {
	Stage  string
	Needed int
	People []string
}

// Satisfiable reports whether all the needs can be met with distinct people of whom none is excluded. The error names the
// stages that cannot, and why.
func Satisfiable(needs []Need, excluded []string) error {
	places := make([][]string, 0, len(needs)) // one for each decision that is needed
	of := make([]int, 0, len(needs))
	for i, n := range needs {
		var people []string
		for _, p := range n.People {
			if !slices.Contains(excluded, p) {
				people = append(people, p)
			}
		}
		if len(people) < n.Needed {
			return problem.Newf(problem.WrongState, "Ask an administrator to name more people for it, or to change the policy.",
				"stage %s takes %s, and only %d could give them beside those who the request is of", n.Stage, approvals(n.Needed), len(people))
		}
		for range n.Needed {
			places, of = append(places, people), append(of, i)
		}
	}
	taken := map[string]int{} // person to place
	var short []string
	for i := range places {
		if !seat(places, i, taken, map[string]bool{}) {
			short = append(short, needs[of[i]].Stage)
		}
	}
	if len(short) == 0 {
		return nil
	}
	return problem.Newf(problem.WrongState, "Ask an administrator to name more people, or to change the policy.",
		"the same people would have to decide in several stages, and everybody decides once: %s cannot be met", strings.Join(slices.Compact(short), ", "))
}

// seat gives place i a person, and the one who had that person another, if it can be done.
func seat(places [][]string, i int, taken map[string]int, tried map[string]bool) bool {
	for _, p := range places[i] {
		if tried[p] {
			continue
		}
		tried[p] = true
		if at, ok := taken[p]; !ok || seat(places, at, taken, tried) {
			taken[p] = i
			return true
		}
	}
	return false
}

func approvals(n int) string {
	if n == 1 {
		return "one approval"
	}
	return fmt.Sprintf("%d approvals", n)
}

func lower(s fmt.Stringer) string { return strings.ToLower(strings.ReplaceAll(s.String(), "_", " ")) }
