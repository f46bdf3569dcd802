package request_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestWhatAnotherSystemDecidedIsBoundIntoTheDecision: who decided there, and the number, are part of what is hashed; where there are
// none, the hash is that of before there were any.
func TestWhatAnotherSystemDecidedIsBoundIntoTheDecision(t *testing.T) {
	r := &apiv1.Request{Id: "r", Name: "r-1", RequesterId: "ann", Approval: apiv1.Request_DRAFT, Authority: apiv1.Authority_BOTH}
	if err := request.Freeze(r); err != nil {
		t.Fatal(err)
	}
	now := &timestamppb.Timestamp{Seconds: 1}
	if err := request.Submit(r, request.Submission{By: person("ann"), Now: now, Stages: []*apiv1.Stage{
		{Name: "review"}, {Name: "itsm", External: true, Eligible: &apiv1.Eligibility{Users: []string{"desk"}}}}}); err != nil {
		t.Fatal(err)
	}
	for _, v := range []request.Vote{
		{Person: true, Decision: &apiv1.Decision{Id: "d1", Stage: "review", ActorId: "bob", Actor: "bob"}},
		{Decision: &apiv1.Decision{Id: "d2", Stage: "itsm", ActorId: "desk", Actor: "desk", ExternalApprover: "Hong", ExternalRef: "CHG-7"}},
	} {
		v.Now, v.Clock, v.Decision.Verdict, v.Decision.SeenHash = now, now, apiv1.Decision_APPROVE, r.GetFrozenHash()
		if err := request.Decide(r, v); err != nil {
			t.Fatal(err)
		}
	}
	if r.GetApproval() != apiv1.Request_APPROVED {
		t.Fatal(r)
	}
	for about, alter := range map[string]func(first, second *apiv1.Decision){
		"another approver":           func(_, d *apiv1.Decision) { d.ExternalApprover = "Kim" },
		"another number":             func(_, d *apiv1.Decision) { d.ExternalRef = "CHG-8" },
		"neither":                    func(_, d *apiv1.Decision) { d.ExternalApprover, d.ExternalRef = "", "" },
		"the one in the other":       func(_, d *apiv1.Decision) { d.ExternalApprover, d.ExternalRef = "HongC", "HG-7" },
		"one where there was none":   func(d, _ *apiv1.Decision) { d.ExternalRef = "CHG-7" },
		"an approver who was not so": func(d, _ *apiv1.Decision) { d.ExternalApprover = "Hong" },
	} {
		altered := proto.CloneOf(r)
		alter(altered.Decisions[0], altered.Decisions[1])
		if request.Verify(altered) == nil {
			t.Errorf("%s was not found", about)
		}
	}
}
