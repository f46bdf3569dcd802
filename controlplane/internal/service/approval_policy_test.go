package service_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func usualPolicy() *apiv1.ApprovalPolicy {
	return &apiv1.ApprovalPolicy{
		Name: "usual", Enabled: true, Condition: "zone.grade >= SENSITIVE",
		Stages: []*apiv1.StageTemplate{{
			Name: "review", Rule: apiv1.StageTemplate_ANY, Eligible: &apiv1.Eligibility{Condition: `person.name != "choi"`}, Calendar: "office", DueHours: 8, OnDue: apiv1.StageTemplate_REMIND,
		}},
	}
}

func officeCalendar() *apiv1.Calendar {
	m := &apiv1.Calendar{Name: "office", TimeZone: "Asia/Seoul", Holidays: []*apiv1.Holiday{{Date: "2026-12-25"}}}
	for day := uint32(1); day <= 5; day++ {
		m.Hours = append(m.Hours, &apiv1.Hours{Weekday: day, From: "09:00", To: "18:00"})
	}
	return m
}

func approved(t *testing.T, a *client.Services) {
	t.Helper()
	if _, err := a.Calendars.CreateCalendar(t.Context(), &apiv1.CreateCalendarRequest{Calendar: officeCalendar()}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ApprovalPolicies.CreateApprovalPolicy(t.Context(), &apiv1.CreateApprovalPolicyRequest{ApprovalPolicy: usualPolicy()}); err != nil {
		t.Fatal(err)
	}
}

func TestAPolicyIsTestedOnAnExampleWithWhatIsStored(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	approved(t, a)
	if _, err := a.Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Grade: apiv1.Zone_SENSITIVE}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"grade"}}}); err != nil {
		t.Fatal(err)
	}
	example := &apiv1.TestApprovalPolicyRequest{
		ApprovalPolicy: "usual",
		Case:           &apiv1.PolicyCase{Requester: &apiv1.User{Name: "kim"}, Zone: &apiv1.Zone{Name: "business"}},
		People:         []*apiv1.PolicyPerson{{User: &apiv1.User{Name: "kim"}}, {User: &apiv1.User{Name: "lee"}}, {User: &apiv1.User{Name: "choi"}}},
		At:             timestamppb.New(time.Date(2026, 12, 24, 8, 0, 0, 0, time.UTC)), // a Thursday, 17:00 in Seoul; the next day is free
	}
	r, err := a.ApprovalPolicies.TestApprovalPolicy(t.Context(), example)
	if err != nil {
		t.Fatal(err)
	}
	if !r.GetApplies() || len(r.GetStages()) != 1 {
		t.Fatalf("the stored zone was not looked up: %v", r)
	}
	review := r.GetStages()[0]
	if strings.Join(review.GetEligible(), " ") != "lee" || strings.Join(review.GetNotEligible(), "; ") != "kim: asks for it; choi: the condition does not hold of them" {
		t.Errorf("%v may, %v may not", review.GetEligible(), review.GetNotEligible())
	}
	if want := time.Date(2026, 12, 28, 7, 0, 0, 0, time.UTC); !review.GetDueAt().AsTime().Equal(want) {
		t.Errorf("due %v, not %v", review.GetDueAt().AsTime(), want)
	}
	example.Case.Zone = &apiv1.Zone{Name: "internet"}
	if r, err := a.ApprovalPolicies.TestApprovalPolicy(t.Context(), example); err != nil || r.GetApplies() {
		t.Errorf("in an open zone: %v, %v", r, err)
	}
	example.Policy = usualPolicy()
	if _, err := a.ApprovalPolicies.TestApprovalPolicy(t.Context(), example); !problem.Is(err, problem.Invalid) {
		t.Errorf("two policies at once: %v", err)
	}
}

func TestAPolicyThatNamesWhatIsNotThereIsRefusedWithItsField(t *testing.T) {
	w := servicetest.New(t)
	a := w.Admin()
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateGroup{CreateGroup: &commandv1.CreateGroup{Group: &apiv1.Group{Id: "g-ops", Name: "ops"}}}})
	w.User("kim", apiv1.User_PERSON)
	for field, change := range map[string]func(*apiv1.StageTemplate){
		"stages[0].calendar": func(*apiv1.StageTemplate) {},
		"stages[0].eligible.roles[0]": func(s *apiv1.StageTemplate) {
			s.Calendar = ""
			s.Eligible.Roles, s.Eligible.At = []string{"nope"}, apiv1.Eligibility_PROJECT
		},
		"stages[0].eligible.groups[1]": func(s *apiv1.StageTemplate) { s.Calendar = ""; s.Eligible.Groups = []string{"ops", "nope"} },
		"stages[0].excluded[0]":        func(s *apiv1.StageTemplate) { s.Calendar = ""; s.Excluded = []string{"nobody"} },
		"stages[0].eligible.users[0]": func(s *apiv1.StageTemplate) { // a person is no service
			s.Calendar, s.External, s.Eligible = "", true, &apiv1.Eligibility{Users: []string{"kim"}}
		},
		"stages[0].eligible.condition": func(s *apiv1.StageTemplate) { s.Calendar = ""; s.Eligible.Condition = "persn" },
	} {
		p := usualPolicy()
		if change(p.Stages[0]); p.Stages[0].GetExternal() {
			p.Authority = apiv1.Authority_ITSM
		}
		_, err := a.ApprovalPolicies.CreateApprovalPolicy(t.Context(), &apiv1.CreateApprovalPolicyRequest{ApprovalPolicy: p})
		if e := problem.Of(err).GetErrors(); err == nil || len(e) != 1 || e[0].GetField() != field {
			t.Errorf("%s is not named: %v", field, problem.Of(err))
		}
	}
}

func TestAnEditOfAPolicyIsItsNextVersion(t *testing.T) {
	w := servicetest.New(t)
	a := w.Admin()
	approved(t, a)
	if r, err := a.ApprovalPolicies.GetApprovalPolicy(t.Context(), &apiv1.GetApprovalPolicyRequest{ApprovalPolicy: "usual"}); err != nil || r.GetApprovalPolicy().GetAuthority() != apiv1.Authority_LOCAL {
		t.Errorf("it does not say whose word it asks for: %v, %v", r, err)
	}
	r, err := a.ApprovalPolicies.UpdateApprovalPolicy(t.Context(), &apiv1.UpdateApprovalPolicyRequest{ApprovalPolicy: &apiv1.ApprovalPolicy{Id: "usual"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"enabled"}}})
	if err != nil || r.GetApprovalPolicy().GetVersion() != 2 || r.GetApprovalPolicy().GetEnabled() {
		t.Fatalf("%v, %v", r, err)
	}
	first, err := a.ApprovalPolicies.GetApprovalPolicy(t.Context(), &apiv1.GetApprovalPolicyRequest{ApprovalPolicy: "usual", Version: 1})
	if err != nil || !first.GetApprovalPolicy().GetEnabled() {
		t.Errorf("version 1: %v, %v", first, err)
	}
	all, err := a.ApprovalPolicies.ListApprovalPolicyVersions(t.Context(), &apiv1.ListApprovalPolicyVersionsRequest{ApprovalPolicy: "usual"})
	if err != nil || len(all.GetApprovalPolicies()) != 2 || all.GetApprovalPolicies()[0].GetVersion() != 2 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := a.Calendars.DeleteCalendar(t.Context(), &apiv1.DeleteCalendarRequest{Calendar: "office"}); !problem.Is(err, problem.InUse) {
		t.Errorf("its calendar: %v", err)
	}
	if _, err := a.Calendars.UpdateCalendar(t.Context(), &apiv1.UpdateCalendarRequest{Calendar: &apiv1.Calendar{Id: "office", TimeZone: "Asia/Nowhere"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"time_zone"}}}); !problem.Is(err, problem.Invalid) {
		t.Errorf("a time zone that is none: %v", err)
	}
}
