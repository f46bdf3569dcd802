package request_test

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func over(a apiv1.Request_Approval) bool {
	return a == apiv1.Request_REJECTED || a == apiv1.Request_CANCELLED || a == apiv1.Request_EXPIRED
}

// check holds the invariants of approvals, by what can be seen from outside.
func (l *life) check(t *rapid.T, what string, before *apiv1.Request) {
	r := l.r
	if err := request.Verify(r); err != nil {
		t.Fatal(err)
	}
	if l.ended != 0 && r.GetApproval() != l.ended {
		t.Fatalf("it ended %v, and %s made it %v", l.ended, what, r.GetApproval())
	}
	if over(r.GetApproval()) {
		l.ended = r.GetApproval()
		for _, s := range r.GetStages() { // 10: what is decided leaves every queue
			if s.GetState() == apiv1.Stage_OPEN || s.GetState() == apiv1.Stage_WAITING {
				t.Fatalf("it is %v, and stage %s is %v", r.GetApproval(), s.GetName(), s.GetState())
			}
		}
	}
	if r.GetApproval() == apiv1.Request_APPROVED && before.GetApproval() != apiv1.Request_APPROVED {
		l.approved(t, what)
	}
	l.checkStages(t)
	l.checkFulfilment(t, what, before)
	l.checkEnd(t, what, before)
	if len(r.GetDecisions()) < len(before.GetDecisions()) {
		t.Fatal("a decision has vanished")
	}
	for i, d := range before.GetDecisions() { // append-only, but for the mark
		d.Void = r.GetDecisions()[i].GetVoid()
		if !proto.Equal(d, r.GetDecisions()[i]) {
			t.Fatalf("%s changed a decision", what)
		}
	}
	for _, d := range r.GetDecisions() { // 3
		if !d.GetVoid() && d.GetRound() != r.GetRound() {
			t.Fatalf("a decision of an earlier round is not void: %v", d)
		}
	}
}

// approved holds that only people, the policy's own word, or an emergency that is reviewed let a request through: never time (5).
func (l *life) approved(t *rapid.T, what string) {
	r := l.r
	crosses := r.GetSourceZoneId() != "" && r.GetSourceZoneId() != r.GetZoneId()
	sides := map[apiv1.Eligibility_At]bool{}
	for _, s := range r.GetStages() {
		if !s.GetExternal() {
			sides[s.GetEligible().GetAt()] = true
		}
	}
	switch {
	case what != "decide" && what != "submit":
		t.Fatalf("%s approved it", what)
	case what == "submit" && crosses:
		t.Fatal("what crosses was let through without people")
	case what == "submit" && !r.GetReviewedAfterwards() && r.GetAuthority() > apiv1.Authority_LOCAL:
		t.Fatal("the word of another system was asked for, and it was let through without")
	case what == "submit" && r.GetReviewedAfterwards() != (r.GetChangeType() == apiv1.ChangeType_EMERGENCY && r.GetApprovalReason() != "automatic: small"):
		t.Fatal("it was let through as an emergency, and is none")
	case what == "submit":
		return
	case crosses && !(sides[apiv1.Eligibility_SOURCE] && sides[apiv1.Eligibility_DESTINATION]):
		t.Fatal("one side was not asked")
	case len(r.GetStages()) == 0:
		t.Fatal("it is approved by nobody")
	}
	for _, s := range r.GetStages() {
		if s.GetState() != apiv1.Stage_APPROVED {
			t.Fatalf("it is approved, and stage %s is %v", s.GetName(), s.GetState())
		}
	}
}

// checkEnd: there is a time of the end of what has ended, and of nothing else.
func (l *life) checkEnd(t *rapid.T, what string, before *apiv1.Request) {
	ended := func(r *apiv1.Request) bool {
		return over(r.GetApproval()) || r.GetApproval() == apiv1.Request_APPROVED && r.GetFulfilment() > apiv1.Request_EXECUTING
	}
	switch {
	case ended(l.r) != (l.r.GetEndedAt() != nil):
		t.Fatalf("%s made it %v, %v; it ended at %v", what, l.r.GetApproval(), l.r.GetFulfilment(), l.r.GetEndedAt())
	case ended(l.r) && !ended(before) && !proto.Equal(l.r.GetEndedAt(), l.stamp()):
		t.Fatalf("%s ended it at %v, and it is %v", what, l.r.GetEndedAt(), l.stamp())
	}
}

func (l *life) checkStages(t *rapid.T) {
	r := l.r
	used := map[string]bool{}
	yes, no := map[string]int{}, map[string]int{}
	for _, d := range r.GetDecisions() {
		if d.GetVoid() {
			continue
		}
		if string(d.GetSeenHash()) != string(l.seen[len(l.seen)-1]) {
			t.Fatalf("a decision counts that was of something else: %v", d)
		}
		stage := request.StageOf(r, d.GetStage())
		program := l.programs[d.GetId()]
		switch { // 8: who decides is of the kind that the stage asks
		case stage.GetExternal() != program:
			t.Fatalf("%s decided in stage %v", d.GetActor(), stage)
		case program && d.GetActorId() == "change" && stage.GetEscalatedAt() == nil:
			t.Fatalf("a service decided that the stage did not name: %v", d)
		case program != (d.GetExternalApprover() != "") || program != (d.GetExternalRef() != ""):
			t.Fatalf("it is not said who decided, and where: %v", d)
		case program && d.GetActingForId() != "":
			t.Fatalf("a service decided in somebody's place: %v", d)
		}
		for _, id := range []string{d.GetActorId(), d.GetActingForId(), strings.ToLower(strings.TrimSpace(d.GetExternalApprover()))} {
			switch {
			case id == "":
			case l.wrote[id]: // 1
				t.Fatalf("%s asked, gained or wrote, and decided", id)
			case used[id]: // 2
				t.Fatalf("%s decided twice", id)
			default:
				used[id] = true
			}
		}
		switch d.GetVerdict() {
		case apiv1.Decision_APPROVE:
			yes[d.GetStage()]++
		case apiv1.Decision_DENY:
			no[d.GetStage()]++
		default:
			t.Fatalf("a decision counts that is none: %v", d)
		}
	}
	if r.GetReviewOverdue() && !(r.GetReviewedAfterwards() && request.Deciding(r)) {
		t.Fatalf("it is %v, and said to be reviewed yet", r.GetApproval())
	}
	lowest := uint32(1 << 30)
	for _, s := range r.GetStages() {
		if s.GetState() == apiv1.Stage_OPEN {
			lowest = min(lowest, s.GetSequence())
		}
	}
	for _, s := range r.GetStages() {
		switch s.GetState() {
		case apiv1.Stage_APPROVED:
			if yes[s.GetName()] < int(s.GetNeeded()) {
				t.Fatalf("stage %s is approved with %d of %d", s.GetName(), yes[s.GetName()], s.GetNeeded())
			}
		case apiv1.Stage_DENIED:
			if r.GetApproval() != apiv1.Request_REJECTED { // 12
				t.Fatalf("stage %s denied it, and it is %v", s.GetName(), r.GetApproval())
			}
			if no[s.GetName()] < int(s.GetDenials()) {
				t.Fatalf("denied with %d of %d", no[s.GetName()], s.GetDenials())
			}
		case apiv1.Stage_OPEN:
			if yes[s.GetName()] >= int(s.GetNeeded()) || no[s.GetName()] >= int(s.GetDenials()) {
				t.Fatalf("stage %s has been decided, and still waits", s.GetName())
			}
			if s.GetSequence() != lowest {
				t.Fatalf("stage %s is open before its turn", s.GetName())
			}
		case apiv1.Stage_WAITING:
			if s.GetSequence() < lowest {
				t.Fatalf("stage %s was passed over", s.GetName())
			}
			if lowest == 1<<30 && request.Deciding(r) {
				t.Fatal("it waits, and no stage is open")
			}
		}
	}
}

// checkFulfilment holds that a request is begun once, and again only after a failure (7).
func (l *life) checkFulfilment(t *rapid.T, what string, before *apiv1.Request) {
	r := l.r
	if r.GetFulfilment() == apiv1.Request_FAILED && before.GetFulfilment() != apiv1.Request_FAILED {
		l.failures++
	}
	if l.began > l.failures+1 {
		t.Fatalf("it was begun %d times, and failed %d times", l.began, l.failures)
	}
	l.checkRoom(t, what, before)
	deniedAfterwards := r.GetReviewedAfterwards() && r.GetApproval() == apiv1.Request_REJECTED
	if len(r.GetOperations()) > 0 && r.GetApproval() != apiv1.Request_APPROVED && !deniedAfterwards {
		t.Fatalf("something was made for it, and it is %v", r.GetApproval())
	}
	if what == "begin" && before.GetApproval() != apiv1.Request_APPROVED {
		t.Fatalf("it was %v, and was carried out", before.GetApproval())
	}
	for i, p := range before.GetParts() {
		if p.GetDone() && !proto.Equal(p, r.GetParts()[i]) {
			t.Fatalf("%s did part %d again", what, i)
		}
	}
	done := true
	for _, p := range r.GetParts() {
		done = done && p.GetDone()
	}
	if (r.GetFulfilment() == apiv1.Request_DONE) != (done && l.began > 0) {
		t.Fatalf("it is %v, and its parts are %v", r.GetFulfilment(), r.GetParts())
	}
	if r.GetFulfilment() == apiv1.Request_LAPSED && r.GetApproval() != apiv1.Request_APPROVED {
		t.Fatal("what was not approved lapsed")
	}
}

// checkRoom holds that room is kept for what may still be carried out, for all of it, and that no room decides anything.
func (l *life) checkRoom(t *rapid.T, what string, before *apiv1.Request) {
	r := l.r
	pending := r.GetApproval() == apiv1.Request_SUBMITTED || r.GetApproval() == apiv1.Request_IN_REVIEW || r.GetApproval() == apiv1.Request_APPROVED
	if request.KeepsRoom(r) && !pending {
		t.Fatalf("%s: it is %v, and room is kept for it", what, r.GetApproval())
	}
	lacks := slices.ContainsFunc(r.GetParts(), func(p *apiv1.Part) bool { return p.GetReservation() == "" })
	if r.GetFulfilment() == apiv1.Request_RESERVED && lacks {
		t.Fatalf("%s: room is said to be kept for all of it: %v", what, r.GetParts())
	}
	if r.GetFulfilment() == apiv1.Request_EXECUTING && before.GetFulfilment() == apiv1.Request_RESERVING {
		t.Fatal("it was begun while its zone had not said whether it has room")
	}
	switch what {
	case "reserve", "hold", "miss", "wait":
		if r.GetApproval() != before.GetApproval() || len(r.GetDecisions()) != len(before.GetDecisions()) {
			t.Fatalf("%s decided something", what)
		}
	}
}
