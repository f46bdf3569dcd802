package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// automatically has the policy let through what its limits say.
func (o *office) automatically(a *apiv1.AutomaticApproval, stages ...*apiv1.StageTemplate) {
	o.Helper()
	a.When, a.Reason, a.MaxQuantity = "true", "small", 5
	o.Do(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: &apiv1.ApprovalPolicy{
		Id: "p-two-steps", Name: "two-steps", Enabled: true, Automatic: a, Stages: stages}}}})
}

func TestWhatIsLetThroughWithoutPeopleHasALimitOfTheDayAndThenPeopleDecide(t *testing.T) {
	o := newOffice(t)
	o.Bind("b-dan", "user", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	review := &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY}
	o.automatically(&apiv1.AutomaticApproval{RequesterDaily: &apiv1.DailyLimits{MaxQuantity: 5}, ProjectDaily: &apiv1.DailyLimits{MaxMonthlyCost: &apiv1.Money{Currency: "KRW", Amount: "90000"}}}, review)
	n := 0
	submit := func(who string) (*apiv1.Request, string) {
		t.Helper()
		n++
		m := ask()
		m.GetSpecification().GetCreate().NamePattern = fmt.Sprintf("w%d-##", n)
		m, err := o.submit(who, m)
		if err != nil {
			t.Fatal(err)
		}
		return m, strings.Join(m.GetPolicyTrace(), "; ")
	}
	for _, quantity := range []string{"2 of 5 in quantity", "4 of 5 in quantity"} {
		if m, trace := submit("ann"); m.GetApproval() != apiv1.Request_APPROVED || !strings.Contains(m.GetApprovalReason(), quantity) || strings.Contains(trace, quantity) || m.GetAutomaticAt() == nil {
			t.Errorf("%v", m)
		}
	}
	if m, trace := submit("ann"); m.GetApproval() != apiv1.Request_SUBMITTED || !strings.Contains(trace, "people decide first: it would be more than 5 in quantity, of what ann gets without people in 24 hours") || m.GetAutomaticAt() != nil {
		t.Errorf("%v", m)
	}
	if m, _ := submit("dan"); m.GetApproval() != apiv1.Request_APPROVED || !strings.Contains(m.GetApprovalReason(), "project web has got 90000 of 90000 KRW a month") {
		t.Errorf("%v", m)
	}
	if m, trace := submit("dan"); m.GetApproval() != apiv1.Request_SUBMITTED || !strings.Contains(trace, "it would be more than 90000 KRW a month") {
		t.Errorf("%v", m)
	}
	if f, err := o.As(o.users["ann"]).Requests.PreviewRequest(t.Context(), &apiv1.PreviewRequestRequest{Request: ask()}); err != nil ||
		!slices.ContainsFunc(f.GetRequest().GetPolicyTrace(), func(s string) bool { return strings.HasPrefix(s, "people decide first: it would be more than 5") }) {
		t.Errorf("%v, %v", f, err)
	}
	nobody := &apiv1.StageTemplate{Name: "review", Sequence: 1, Condition: "request.quantity > 3", Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY}
	o.automatically(&apiv1.AutomaticApproval{RequesterDaily: &apiv1.DailyLimits{MaxRequests: 1}}, nobody)
	m := ask()
	m.GetSpecification().GetCreate().NamePattern = "last-##"
	if _, err := o.submit("ann", m); !problem.Is(err, problem.TooMany) || !strings.Contains(err.Error(), "lets no more through in 24 hours") {
		t.Errorf("%v", err)
	}
}

func TestAFileThatIsNotKeptAnyMoreSaysWhatItWas(t *testing.T) {
	o := newOffice(t)
	ann := o.As(o.users["ann"]).Requests
	r, err := ann.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := ann.AttachToRequest(t.Context(), &apiv1.AttachToRequestRequest{Request: r.GetRequest().GetName(), File: "plan.txt", Content: []byte("plan")})
	if err != nil {
		t.Fatal(err)
	}
	fetch := func() (*apiv1.GetAttachmentResponse, error) {
		return ann.GetAttachment(t.Context(), &apiv1.GetAttachmentRequest{Request: "r-1", Comment: c.GetComment().GetId()})
	}
	if _, err := ann.SubmitRequest(t.Context(), &apiv1.SubmitRequestRequest{Request: "r-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ann.WithdrawRequest(t.Context(), &apiv1.WithdrawRequestRequest{Request: "r-1"}); err != nil {
		t.Fatal(err)
	}
	if got, err := fetch(); err != nil || string(got.GetContent()) != "plan" {
		t.Fatalf("%v, %v", got, err)
	}
	o.Do(&commandv1.Command{Stamp: timestamppb.New(time.Now().Add(91 * 24 * time.Hour)), Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{}}})
	if _, err := fetch(); !problem.Is(err, problem.WrongState) || !strings.Contains(err.Error(), fmt.Sprintf("%x", c.GetComment().GetSha256())) {
		t.Errorf("%v", err)
	}
	said, err := ann.ListComments(t.Context(), &apiv1.ListCommentsRequest{Request: "r-1"})
	if err != nil || len(said.GetComments()) != 1 || said.GetComments()[0].GetDroppedAt() == nil || said.GetComments()[0].GetSize() != 4 {
		t.Errorf("%v, %v", said, err)
	}
	if m := o.show("ann", "r-1"); m.GetFiles()[0].GetDroppedAt() == nil {
		t.Errorf("%v", m)
	}
}
