package fsm_test

import (
	"testing"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// TestWhatComesAgainUnderANumberIsTheSameACorrectionOrRefused, and never something else in silence.
func TestWhatComesAgainUnderANumberIsTheSameACorrectionOrRefused(t *testing.T) {
	p := withSystem(t)
	sent := func(body string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{Request: &apiv1.Request{
			Id: "r-" + body, Requester: "desk", RequesterId: "u-desk", Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-business", Title: body,
			Kind: apiv1.RequestKind_CREATE, Intake: apiv1.Intake_ITSM, ExternalRef: "INC-12", SentSha256: digest(body),
			Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{Offering: "web", Quantity: 2, NamePattern: "web-#"}}},
		}}}}
	}
	p.accept(sent("first"))
	p.refuse(problem.Contradiction, sent("other"))
	p.accept(p.external("r-first", "", nil))
	p.accept(sent("first"))
	p.refuse(problem.Contradiction, sent("other"))
	p.accept(p.said("r-first", "change", "itsm", func(c *commandv1.Command) { c.GetDecideRequest().GetDecision().Verdict = apiv1.Decision_RETURN }))
	p.accept(sent("first"))
	if m := p.request("r-first"); m.GetApproval() != apiv1.Request_RETURNED || m.GetSentRound() != 0 {
		t.Errorf("what was returned came again, and it is %v", m)
	}
	p.accept(sent("corrected"))
	m := p.request("r-first")
	if m.GetTitle() != "corrected" || m.GetSentRound() != 1 || m.GetRound() != 1 || m.GetName() != "r-1" || p.request("r-corrected") != nil {
		t.Errorf("%v", m)
	}
	p.accept(p.external("r-first", "", nil))
	p.accept(sent("corrected"))
	p.refuse(problem.Contradiction, sent("first"))
	p.accept(p.said("r-first", "change", "itsm", nil))
	p.refuse(problem.Contradiction, sent("other"))
}
