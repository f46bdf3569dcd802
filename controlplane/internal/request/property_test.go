package request_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// life is a request and what an onlooker has noted of it.
type life struct {
	r    *apiv1.Request
	now  time.Time
	next int
	// approvals that counted, by what was seen and round.
	spec int
	// terminal is what it ended as; nothing may change that.
	terminal apiv1.Request_Approval
	written  map[string]bool // everybody who ever wrote on it, or asked
}

var people = []string{"ann", "bob", "cho", "dan", "eun", "fay"}

func (l *life) stamp() *timestamppb.Timestamp { return timestamppb.New(l.now) }

func (l *life) step(t *rapid.T) {
	l.now = l.now.Add(time.Duration(rapid.IntRange(-3600, 7200).Draw(t, "seconds")) * time.Second) // clocks jump
	before := proto.CloneOf(l.r)
	what := rapid.SampledFrom([]string{"submit", "decide", "decide", "decide", "decide", "edit", "withdraw", "expire", "escalate", "reserved", "dispatch", "progress", "retry", "lapse"}).Draw(t, "what")
	var err error
	switch what {
	case "submit":
		err = l.submit(t)
	case "decide":
		err = l.decide(t)
	case "edit":
		by := rapid.SampledFrom(people).Draw(t, "editor")
		if err = request.Edit(l.r, by, by); err == nil {
			l.written[by] = true
			l.spec++
			l.r.Specification.GetCreate().Description = fmt.Sprint(l.spec)
		}
	case "withdraw":
		err = request.Withdraw(l.r, l.r.GetRequester(), "", l.stamp())
	case "expire":
		err = request.Expire(l.r, l.stamp())
	case "escalate":
		err = request.Escalate(l.r, rapid.SampledFrom([]string{"s0", "s1", "s2"}).Draw(t, "stage"), "due", l.stamp())
	case "reserved":
		err = request.Reserved(l.r, &apiv1.Reservation{State: rapid.SampledFrom([]apiv1.Reservation_State{apiv1.Reservation_HELD, apiv1.Reservation_REFUSED, apiv1.Reservation_LAPSED}).Draw(t, "answer")})
	case "dispatch":
		err = request.Dispatch(l.r)
	case "progress":
		err = request.Progress(l.r, apiv1.Request_Fulfilment(rapid.IntRange(0, 8).Draw(t, "to")), "", l.stamp())
	case "retry":
		err = request.Retry(l.r)
	case "lapse":
		err = request.Lapse(l.r, l.stamp())
	}
	if err != nil && !proto.Equal(before, l.r) {
		t.Fatalf("%s was refused (%v) and changed the request", what, err)
	}
	if err == nil {
		l.check(t, what, before)
	}
}

func (l *life) submit(t *rapid.T) error {
	in := request.Submission{Now: l.stamp(), Hash: fmt.Appendf(nil, "%032d", l.spec)}
	for i := range rapid.IntRange(0, 3).Draw(t, "stages") {
		in.Stages = append(in.Stages, &apiv1.Stage{
			Name: fmt.Sprint("s", i), Sequence: uint32(rapid.IntRange(0, 2).Draw(t, "sequence")), Needed: uint32(rapid.IntRange(0, 3).Draw(t, "needed")),
			Denials: uint32(rapid.IntRange(0, 2).Draw(t, "denials")), CommentRequired: rapid.Bool().Draw(t, "comments"), StepUp: rapid.Bool().Draw(t, "step up"),
			OnDue: apiv1.StageTemplate_OnDue(rapid.IntRange(0, 3).Draw(t, "on due")), DueAt: timestamppb.New(l.now.Add(time.Hour)),
		})
	}
	if rapid.IntRange(0, 9).Draw(t, "automatic") == 0 {
		in.Automatic = "small"
	}
	return request.Submit(l.r, in)
}

func (l *life) decide(t *rapid.T) error {
	l.next++
	v := request.Vote{
		ID: fmt.Sprint("d", l.next), Stage: rapid.SampledFrom([]string{"s0", "s1", "s2"}).Draw(t, "stage"),
		ActorID: rapid.SampledFrom(append(people, "")).Draw(t, "actor"), Person: rapid.IntRange(0, 9).Draw(t, "program") > 0,
		Verdict: apiv1.Decision_Verdict(rapid.SampledFrom([]int{1, 1, 1, 1, 2, 3, 0, 9}).Draw(t, "verdict")),
		Comment: rapid.SampledFrom([]string{"", "why"}).Draw(t, "comment"), SteppedUp: rapid.Bool().Draw(t, "stepped up"), Now: l.stamp(),
		Seen: fmt.Appendf(nil, "%032d", max(0, l.spec-rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "old"))),
	}
	v.Actor = v.ActorID
	if rapid.IntRange(0, 2).Draw(t, "delegate") == 0 {
		v.ActingForID = rapid.SampledFrom(people).Draw(t, "for")
		v.ActingFor = v.ActingForID
	}
	return request.Decide(l.r, v)
}

// check holds the invariants of approvals, by what can be seen from outside.
func (l *life) check(t *rapid.T, what string, before *apiv1.Request) {
	r := l.r
	if err := request.VerifyDecisions(r); err != nil {
		t.Fatal(err)
	}
	if l.terminal != 0 && r.GetApproval() != l.terminal {
		t.Fatalf("it ended %v, and %s made it %v", l.terminal, what, r.GetApproval())
	}
	switch r.GetApproval() {
	case apiv1.Request_REJECTED, apiv1.Request_CANCELLED, apiv1.Request_EXPIRED:
		l.terminal = r.GetApproval()
		if request.Holds(r) || !request.Ended(r) || r.GetReservation().GetState() == apiv1.Reservation_HELD {
			t.Fatalf("it ended %v and still holds something", r.GetApproval())
		}
	case apiv1.Request_APPROVED:
		if before.GetApproval() == apiv1.Request_APPROVED {
			break
		}
		if what != "decide" && what != "submit" {
			t.Fatalf("%s approved it", what)
		}
		automatic := what == "submit" && (r.GetApprovalReason() == "small" || r.GetChangeType() == apiv1.Request_EMERGENCY)
		for _, s := range r.GetStages() {
			if !automatic && s.GetState() != apiv1.Stage_APPROVED {
				t.Fatalf("it is approved, and stage %s is %v", s.GetName(), s.GetState())
			}
		}
		if !automatic && len(r.GetStages()) == 0 {
			t.Fatal("it is approved by nobody")
		}
	}
	people := map[string]bool{}
	for _, s := range r.GetStages() {
		yes, no := 0, 0
		for _, d := range s.GetDecisions() {
			if d.GetVoid() {
				if s.GetState() != apiv1.Stage_VOID {
					t.Fatalf("stage %s is %v with a void decision", s.GetName(), s.GetState())
				}
				continue
			}
			if d.GetRound() != r.GetRound() || string(d.GetSeenHash()) != string(r.GetSpecificationHash()) {
				t.Fatalf("a decision counts that is void, or was of something else: %v", d)
			}
			for _, id := range []string{d.GetActorId(), d.GetActingForId()} {
				if id == "" {
					continue
				}
				if l.written[id] {
					t.Fatalf("%s asked, gained or wrote, and decided", id)
				}
				if people[id] {
					t.Fatalf("%s decided twice", id)
				}
				people[id] = true
			}
			switch d.GetVerdict() {
			case apiv1.Decision_APPROVE:
				yes++
			case apiv1.Decision_DENY:
				no++
			}
		}
		if s.GetState() == apiv1.Stage_APPROVED && yes < int(s.GetNeeded()) {
			t.Fatalf("stage %s is approved with %d of %d", s.GetName(), yes, s.GetNeeded())
		}
		carriedOut := r.GetFulfilment() >= apiv1.Request_DISPATCHED && r.GetFulfilment() <= apiv1.Request_DONE
		if s.GetState() == apiv1.Stage_DENIED && r.GetApproval() != apiv1.Request_REJECTED && !carriedOut {
			t.Fatalf("stage %s denied it, and it is %v", s.GetName(), r.GetApproval())
		}
		if s.GetState() == apiv1.Stage_DENIED && no == 0 {
			t.Fatal("denied by nobody")
		}
	}
	for _, d := range r.GetPastDecisions() {
		if !d.GetVoid() {
			t.Fatalf("a decision of an earlier round is not void: %v", d)
		}
	}
	if f := r.GetFulfilment(); f >= apiv1.Request_DISPATCHED && f <= apiv1.Request_DONE && r.GetApproval() != apiv1.Request_APPROVED {
		t.Fatalf("it is %v and was carried out", r.GetApproval())
	}
	if what == "dispatch" && before.GetFulfilment() != apiv1.Request_RESERVED {
		t.Fatalf("it was dispatched from %v", before.GetFulfilment())
	}
	if len(request.Decisions(r)) < len(request.Decisions(before)) {
		t.Fatal("a decision has vanished")
	}
}

// TestP6 holds the invariants over random lives: any order of everything, wrong people, old hashes, clocks that jump.
func TestP6NobodyGetsPastTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &life{now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), written: map[string]bool{"ann": true}}
		l.r = &apiv1.Request{
			Id: "r", Name: "r-1", Kind: apiv1.Request_CREATE, Requester: "ann", RequesterId: "ann", Approval: apiv1.Request_DRAFT, Fulfilment: apiv1.Request_NONE,
			Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{}}},
		}
		if rapid.Bool().Draw(t, "on behalf") {
			l.r.OnBehalfOfId = "bob"
			l.written["bob"] = true
		}
		if rapid.IntRange(0, 4).Draw(t, "emergency") == 0 {
			l.r.ChangeType = apiv1.Request_EMERGENCY
		}
		if rapid.Bool().Draw(t, "bounded") {
			l.r.DecideBy, l.r.CarryOutBy = timestamppb.New(l.now.Add(6*time.Hour)), timestamppb.New(l.now.Add(12*time.Hour))
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			l.step(t)
		}
	})
}

// TestSatisfiable compares with trying every assignment.
func TestARequestIsSatisfiableWhenSomeAssignmentOfPeopleIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var needs []request.Need
		for i := range rapid.IntRange(1, 3).Draw(t, "stages") {
			needs = append(needs, request.Need{
				Stage: fmt.Sprint("s", i), Needed: rapid.IntRange(1, 2).Draw(t, "needed"),
				People: rapid.SliceOfNDistinct(rapid.SampledFrom(people), 0, 4, rapid.ID[string]).Draw(t, "people"),
			})
		}
		excluded := rapid.SliceOfNDistinct(rapid.SampledFrom(people), 0, 2, rapid.ID[string]).Draw(t, "excluded")
		if err := request.Satisfiable(needs, excluded); (err == nil) != assignable(needs, excluded) {
			t.Fatalf("%v, excluded %v: %v", needs, excluded, err)
		}
	})
}

func assignable(needs []request.Need, used []string) bool {
	if len(needs) == 0 {
		return true
	}
	n := needs[0]
	if n.Needed == 0 {
		return assignable(needs[1:], used)
	}
	for i, p := range n.People {
		if slices.Contains(used, p) {
			continue
		}
		rest := append([]request.Need{{Stage: n.Stage, Needed: n.Needed - 1, People: n.People[i+1:]}}, needs[1:]...)
		if assignable(rest, append(slices.Clone(used), p)) {
			return true
		}
	}
	return false
}
