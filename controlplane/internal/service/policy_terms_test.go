package service_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// seoul and honolulu never set their clocks.
var seoul, honolulu = zoneOf("Asia/Seoul"), zoneOf("Pacific/Honolulu")

func zoneOf(name string) *time.Location {
	l, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return l
}

// at sets all clocks: of the server that is called, of the one that leads and of its work for requests.
func (o *office) at(t time.Time) {
	o.Off, o.now = time.Until(t), t
	o.Ahead = o.Off
}

// calendar makes one of so many hours from Monday to Friday.
func (o *office) calendar(name, zone, from, to string, holidays ...time.Time) {
	o.Helper()
	m := &apiv1.Calendar{Name: name, TimeZone: zone}
	for day := uint32(1); day <= 5; day++ {
		m.Hours = append(m.Hours, &apiv1.Hours{Weekday: day, From: from, To: to})
	}
	for _, h := range holidays {
		m.Holidays = append(m.Holidays, &apiv1.Holiday{Date: h.Format(time.DateOnly), Title: "a free day"})
	}
	if _, err := o.Admin().Calendars.CreateCalendar(o.Context(), &apiv1.CreateCalendarRequest{Calendar: m}); err != nil {
		o.Fatal(err)
	}
}

// is fails the test where a time is not what it should be, but for what the test itself takes.
func (o *office) is(what string, got *timestamppb.Timestamp, want time.Time) {
	o.Helper()
	if late := got.AsTime().Sub(want); got == nil || late < 0 || late > 5*time.Minute {
		o.Errorf("%s: %v, not %v", what, got.AsTime().In(want.Location()), want)
	}
}

// terms is an office whose policy has one stage, of everybody of group leads: bob, cho and dan.
func terms(t *testing.T, change func(*apiv1.StageTemplate)) *office {
	t.Helper()
	s := leads("review")
	change(s)
	o := newOffice(t, s)
	o.group("leads", "bob", "cho", "dan")
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	return o
}

func (o *office) asked() *apiv1.Request {
	o.Helper()
	m, err := o.submit("ann", ask())
	if err != nil {
		o.Fatal(err)
	}
	return m
}

// refuses fails the test unless somebody's approval is refused so.
func (o *office) refuses(code problem.Code, who string, change func(*apiv1.DecideRequestRequest)) {
	o.Helper()
	if err := o.decide(who, "r-1", apiv1.Decision_APPROVE, change); !problem.Is(err, code) {
		o.Errorf("%s decides: %v", who, err)
	}
}

func (o *office) approval(want apiv1.Request_Approval) {
	o.Helper()
	if is := o.show("ann", "r-1").GetApproval(); is != want {
		o.Errorf("it is %v, not %v", is, want)
	}
}

// TestARequestGoesByTheCalendarThatItWasSubmittedUnder, whatever becomes of that: nothing is due earlier for it.
func TestARequestGoesByTheCalendarThatItWasSubmittedUnder(t *testing.T) {
	for meanwhile, happens := range map[string]func(o *office){
		"nothing": func(*office) {},
		"it is edited": func(o *office) {
			if _, err := o.Admin().Calendars.UpdateCalendar(o.Context(), &apiv1.UpdateCalendarRequest{Calendar: &apiv1.Calendar{Id: "office", Hours: always()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"hours"}}}); err != nil {
				o.Fatal(err)
			}
		},
		"it is gone": func(o *office) { o.withoutCalendar() },
		"it is made anew": func(o *office) {
			o.withoutCalendar()
			if _, err := o.Admin().Calendars.CreateCalendar(o.Context(), &apiv1.CreateCalendarRequest{Calendar: &apiv1.Calendar{Name: "office", TimeZone: "UTC", Hours: always()}}); err != nil {
				o.Fatal(err)
			}
		},
		"it was not kept": func(o *office) {
			if err := o.DB.Update(func(tx *state.Tx) error {
				m, err := tx.Requests.ByName("r-1", nil)
				if err != nil {
					return err
				}
				m.GetStages()[1].Hours = nil
				return tx.Requests.Put(m)
			}); err != nil {
				o.Fatal(err)
			}
		},
	} {
		t.Run(meanwhile, func(t *testing.T) {
			o := newOffice(t, reviewOf("bob"), &apiv1.StageTemplate{Name: "approval", Sequence: 2, Eligible: &apiv1.Eligibility{Users: []string{"cho"}}, Rule: apiv1.StageTemplate_ANY,
				Calendar: "office", DueHours: 8, OnDue: apiv1.StageTemplate_EXPIRE})
			day := time.Now().UTC().AddDate(0, 0, 3) // an hour a week, so it is due in the eighth
			weekday := uint32(day.Weekday()+6)%7 + 1
			if _, err := o.Admin().Calendars.CreateCalendar(t.Context(), &apiv1.CreateCalendarRequest{Calendar: &apiv1.Calendar{
				Name: "office", TimeZone: "UTC", Hours: []*apiv1.Hours{{Weekday: weekday, From: "09:00", To: "10:00"}}}}); err != nil {
				t.Fatal(err)
			}
			o.asked()
			happens(o)
			o.approved("r-1", "bob")
			s := o.show("ann", "r-1").GetStages()[1]
			if meanwhile == "it was not kept" {
				if s.GetState() != apiv1.Stage_OPEN || s.GetDueAt() != nil {
					t.Errorf("%v", s)
				}
			} else {
				o.is("due", s.GetDueAt(), time.Date(day.Year(), day.Month(), day.Day(), 10, 0, 0, 0, time.UTC).AddDate(0, 0, 7*7))
			}
			if s.GetHours() != nil {
				t.Error("it is shown")
			}
			o.now = o.now.AddDate(0, 0, 45)
			o.turn()
			o.approval(apiv1.Request_IN_REVIEW)
		})
	}
}

func reviewOf(who ...string) *apiv1.StageTemplate {
	return &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: who}, Rule: apiv1.StageTemplate_ANY}
}

// always are all hours of a week.
func always() (all []*apiv1.Hours) {
	for day := uint32(1); day <= 7; day++ {
		all = append(all, &apiv1.Hours{Weekday: day, From: "00:00", To: "24:00"})
	}
	return all
}

// withoutCalendar has the policy name no calendar any more, and deletes it.
func (o *office) withoutCalendar() {
	o.Helper()
	o.Do(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{
		ApprovalPolicy: &apiv1.ApprovalPolicy{Id: "p-two-steps", Name: "two-steps", Enabled: true, Stages: []*apiv1.StageTemplate{reviewOf("bob")}}}}})
	if _, err := o.Admin().Calendars.DeleteCalendar(o.Context(), &apiv1.DeleteCalendarRequest{Calendar: "office"}); err != nil {
		o.Fatal(err)
	}
}
