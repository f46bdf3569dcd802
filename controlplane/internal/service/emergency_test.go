package service_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// letThrough has ann ask for an emergency change under a policy whose stages review it afterwards, and has it carried out.
func (o *office) letThrough(stages ...*apiv1.StageTemplate) *apiv1.Request {
	o.Helper()
	o.Do(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{
		ApprovalPolicy: &apiv1.ApprovalPolicy{Id: "p-two-steps", Name: "two-steps", Enabled: true, Emergency: true, Stages: stages}}}})
	in := ask()
	in.ChangeType = apiv1.ChangeType_EMERGENCY
	m, err := o.submit("ann", in)
	if err != nil || m.GetApproval() != apiv1.Request_APPROVED || !m.GetReviewedAfterwards() {
		o.Fatalf("%v, %v", m, err)
	}
	o.turn()
	o.says(apiv1.Reservation_HELD)
	o.turn()
	o.turn()
	for _, vm := range o.vms() {
		o.Do(&commandv1.Command{Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
			OperationId: vm.GetOperation(), Outcome: apiv1.ResolveOperationRequest_SUCCEED, Reason: "usable"}}})
	}
	m = o.show("ann", m.GetName())
	if m.GetFulfilment() != apiv1.Request_DONE || m.GetReviewOverdue() || len(o.vms()) != 2 {
		o.Fatalf("%v", m)
	}
	return m
}

// overdue are the requests whose review is.
func (o *office) overdue() (names []string) {
	o.Helper()
	r, err := o.Admin().Requests.ListRequests(o.Context(), &apiv1.ListRequestsRequest{Filter: "review_overdue=true"})
	if err != nil {
		o.Fatal(err)
	}
	for _, m := range r.GetRequests() {
		names = append(names, m.GetName())
	}
	return names
}

// told counts what ann was told of a topic, and the events of it.
func (o *office) told(topic string) (n, events int) {
	o.Helper()
	told, err := o.As(o.users["ann"]).Notifications.ListNotifications(o.Context(), &apiv1.ListNotificationsRequest{})
	if err != nil {
		o.Fatal(err)
	}
	for _, m := range told.GetNotifications() {
		if m.GetTopic() == topic {
			n++
		}
	}
	all, err := o.Admin().Events.ListEvents(o.Context(), &apiv1.ListEventsRequest{Filter: "type=" + topic})
	if err != nil {
		o.Fatal(err)
	}
	return n, len(all.GetEvents())
}

// TestTheReviewOfAnEmergencyIsNeverForgotten, whatever its policy says to happen when nobody decides, until it approves or denies what was
// carried out.
func TestTheReviewOfAnEmergencyIsNeverForgotten(t *testing.T) {
	expires, escalates, last := reviewOf("bob"), reviewOf("bob"), reviewOf("cho")
	expires.DueHours, expires.OnDue = 8, apiv1.StageTemplate_EXPIRE
	escalates.DueHours, escalates.OnDue, escalates.EscalateTo = 8, apiv1.StageTemplate_ESCALATE, &apiv1.Eligibility{Users: []string{"cho"}}
	last.Name, last.Sequence = "last", 2
	for about, stages := range map[string][]*apiv1.StageTemplate{
		"one that would expire, and one that is never due": {expires, last},
		"one that is escalated":                            {escalates},
	} {
		for _, verdict := range []apiv1.Decision_Verdict{apiv1.Decision_APPROVE, apiv1.Decision_DENY} {
			t.Run(about+", "+verdict.String(), func(t *testing.T) {
				o := newOffice(t)
				name := o.letThrough(stages...).GetName()
				stage := func(i int) *apiv1.Stage { return o.show("ann", name).GetStages()[i] }
				for i, s := range stages {
					if is := stage(i); is.GetState() != apiv1.Stage_OPEN || is.GetDueAt() == nil || is.GetOnDue() == apiv1.StageTemplate_EXPIRE || o.overdue() != nil {
						t.Fatalf("%v; overdue: %v", is, o.overdue())
					}
					o.at(stage(i).GetDueAt().AsTime().Add(time.Hour))
					o.turn()
					o.turn()
					if (stage(i).GetEscalatedAt() != nil) != (s.GetOnDue() == apiv1.StageTemplate_ESCALATE) {
						t.Errorf("%v", stage(i))
					}
					if n, events := o.told("request.review-overdue"); n != i+1 || events != i+1 || !slices.Equal(o.overdue(), []string{name}) {
						t.Errorf("stage %d: told %d times, and %d events; overdue is %v", i, n, events, o.overdue())
					}
					for day := range uint32(3) {
						if n := stage(i).GetReminders(); n != day+1 {
							t.Errorf("reminded %d times in %d days", n, day)
						}
						o.at(o.now.Add(25 * time.Hour))
						o.turn()
					}
					says := apiv1.Decision_APPROVE
					if i == len(stages)-1 {
						says = verdict
					}
					if err := o.decide(s.GetEligible().GetUsers()[0], name, says, nil); err != nil {
						t.Fatal(err)
					}
				}
				m := o.show("ann", name)
				is, why := apiv1.Request_APPROVED, "approved by the review"
				if verdict == apiv1.Decision_DENY {
					is, why = apiv1.Request_REJECTED, "denied by the review"
				}
				if m.GetApproval() != is || !strings.Contains(m.GetApprovalReason(), why) || m.GetFulfilment() != apiv1.Request_DONE || len(o.vms()) != 2 {
					t.Errorf("%v", m)
				}
				o.at(o.now.Add(25 * time.Hour))
				o.turn()
				if n, _ := o.told("request.review-overdue"); n != len(stages) || o.overdue() != nil {
					t.Errorf("told %d times; overdue is %v", n, o.overdue())
				}
			})
		}
	}
}
