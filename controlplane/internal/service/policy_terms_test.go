package service_test

import (
	"slices"
	"strconv"
	"strings"
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

// TestAStageIsDueInWorkingHoursWhereItsPeopleAre: the first from the submission on, with a holiday in between, and the next, in another
// time zone, from when it opens on.
func TestAStageIsDueInWorkingHoursWhereItsPeopleAre(t *testing.T) {
	review, approval := reviewOf("bob"), reviewOf("cho")
	review.Calendar, review.DueHours, review.RemindHours, review.OnDue = "seoul", 9, 2, apiv1.StageTemplate_REMIND
	approval.Name, approval.Sequence, approval.Calendar, approval.DueHours, approval.RemindHours, approval.OnDue = "approval", 2, "honolulu", 4, 1, apiv1.StageTemplate_EXPIRE
	o := newOffice(t, review, approval)
	now := time.Now().In(seoul)
	thursday := time.Date(now.Year(), now.Month(), now.Day()+1+int(time.Thursday+6-now.Weekday())%7, 17, 0, 0, 0, seoul)
	at := func(days, hour, minute int) time.Time {
		return time.Date(thursday.Year(), thursday.Month(), thursday.Day()+days, hour, minute, 0, 0, seoul)
	}
	o.calendar("seoul", "Asia/Seoul", "09:00", "18:00", at(1, 0, 0))
	o.calendar("honolulu", "Pacific/Honolulu", "08:00", "17:00")
	o.at(thursday)
	stages := o.asked().GetStages()
	o.is("the first is due", stages[0].GetDueAt(), at(4, 17, 0)) // an hour was left of Thursday, and Friday is free
	o.is("reminded of the first", stages[0].GetRemindAt(), at(4, 15, 0))
	if stages[1].GetDueAt() != nil || stages[1].GetRemindAt() != nil {
		t.Errorf("what has not begun is due: %v", stages[1])
	}
	first := func() *apiv1.Stage { return o.show("ann", "r-1").GetStages()[0] }
	o.at(at(4, 14, 30))
	o.turn()
	if n := first().GetReminders(); n != 0 {
		t.Errorf("reminded %d times before", n)
	}
	o.at(at(4, 15, 30))
	o.turn()
	if n := first().GetReminders(); n != 1 {
		t.Errorf("reminded %d times", n)
	}
	o.is("the next reminder", first().GetRemindAt(), at(5, 14, 30)) // eight hours of work later
	o.approved("r-1", "bob")
	second := o.show("ann", "r-1").GetStages()[1]
	monday := func(hour int) time.Time {
		return time.Date(thursday.Year(), thursday.Month(), thursday.Day()+4, hour, 0, 0, 0, honolulu)
	}
	o.is("the second is due", second.GetDueAt(), monday(12)) // it is Sunday there yet
	o.is("reminded of the second", second.GetRemindAt(), monday(11))
	o.at(monday(11).Add(30 * time.Minute))
	o.turn()
	o.approval(apiv1.Request_IN_REVIEW)
	o.at(monday(12).Add(10 * time.Minute))
	o.refuses(problem.WrongState, "cho", nil)
	o.turn()
	o.approval(apiv1.Request_EXPIRED)
}

// TestWhoMayDecideIsOfWhomTheConditionHolds: cho is in no such group, and eun of another organization.
func TestWhoMayDecideIsOfWhomTheConditionHolds(t *testing.T) {
	o := newOffice(t, &apiv1.StageTemplate{Name: "review", Sequence: 1, Rule: apiv1.StageTemplate_ANY,
		Eligible: &apiv1.Eligibility{Condition: `"leads" in groups && person.organization == organization.name`}})
	other := &apiv1.Organization{Id: "o-other", Name: "other"}
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateOrganization{CreateOrganization: &commandv1.CreateOrganization{Organization: other}}})
	eun := &apiv1.User{Id: "u-eun", Name: "eun", Kind: apiv1.User_PERSON, Organization: other.GetName(), OrganizationId: other.GetId()}
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: eun}}})
	o.Session(eun)
	o.users["eun"] = eun
	o.Bind("b-eun", "approver", eun, apiv1.RoleBinding_PROJECT, "web")
	o.group("leads", "bob", "eun")
	if got := o.asked().GetStages()[0].GetApprovers(); !slices.Equal(got, []string{"bob"}) || o.waiting("cho") != nil || o.waiting("eun") != nil {
		t.Errorf("%v may decide, and it waits for cho %v and eun %v", got, o.waiting("cho"), o.waiting("eun"))
	}
	o.refuses(problem.Forbidden, "cho", nil)
	o.refuses(problem.Forbidden, "eun", nil)
	o.approved("r-1", "bob")
	o.approval(apiv1.Request_APPROVED)
}

func TestAStageTakesSoManyOfThoseWhoMayDecide(t *testing.T) {
	for _, c := range []struct {
		rule          apiv1.StageTemplate_Rule
		needed, takes uint32
	}{{apiv1.StageTemplate_PERCENT, 50, 2}, {apiv1.StageTemplate_PERCENT, 67, 3}, {apiv1.StageTemplate_ALL, 0, 3}, {apiv1.StageTemplate_COUNT, 2, 2}, {apiv1.StageTemplate_ANY, 0, 1}} {
		t.Run(c.rule.String(), func(t *testing.T) {
			o := terms(t, func(s *apiv1.StageTemplate) { s.Rule, s.Needed = c.rule, c.needed })
			if n := o.asked().GetStages()[0].GetNeeded(); n != c.takes {
				t.Errorf("%d of three", n)
			}
			for i, who := range []string{"bob", "cho", "dan"}[:c.takes] {
				if i > 0 {
					o.approval(apiv1.Request_IN_REVIEW)
				}
				o.approved("r-1", who)
			}
			o.approval(apiv1.Request_APPROVED)
		})
	}
}

// TestAHighGradeTakesAFreshProofOfWhoDecides, which is over after its time; a low one takes none.
func TestAHighGradeTakesAFreshProofOfWhoDecides(t *testing.T) {
	for grade, asks := range map[apiv1.Zone_Grade]bool{apiv1.Zone_OPEN: false, apiv1.Zone_SENSITIVE: true} {
		o := terms(t, func(s *apiv1.StageTemplate) { s.StepUpFrom = apiv1.Zone_SENSITIVE })
		if _, err := o.Admin().Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Grade: grade}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"grade"}}}); err != nil {
			t.Fatal(err)
		}
		if s := o.asked().GetStages()[0]; s.GetStepUp() != asks {
			t.Errorf("%v: %v", grade, s)
		}
		if asks {
			o.refuses(problem.Forbidden, "bob", nil)
			o.steppedUp("bob", time.Now().Add(-time.Second))
			o.refuses(problem.Forbidden, "bob", nil)
			o.steppedUp("bob", time.Now().Add(10*time.Minute))
		}
		o.approved("r-1", "bob")
		o.approval(apiv1.Request_APPROVED)
	}
}

// steppedUp writes until when somebody has proved in their session who they are.
func (o *office) steppedUp(who string, until time.Time) {
	o.Helper()
	if err := o.DB.Update(func(tx *state.Tx) error {
		s, err := tx.Sessions.Get("s-u-" + who)
		if err != nil {
			return err
		}
		s.SteppedUpUntil = timestamppb.New(until)
		return tx.Sessions.Put(s)
	}); err != nil {
		o.Fatal(err)
	}
}

func TestADecisionTakesACommentWhereTheStageSaysSo(t *testing.T) {
	without := func(in *apiv1.DecideRequestRequest) { in.Comment = "" }
	for _, required := range []bool{false, true} {
		o := terms(t, func(s *apiv1.StageTemplate) { s.CommentRequired = required })
		if s := o.asked().GetStages()[0]; s.GetCommentRequired() != required {
			t.Errorf("%v", s)
		}
		if required {
			o.refuses(problem.Invalid, "bob", without)
			without = nil
		}
		if err := o.decide("bob", "r-1", apiv1.Decision_APPROVE, without); err != nil {
			t.Error(err)
		}
	}
}

// TestWhoIsExcludedFromAStageDoesNotDecideThere, nor in another's place, and nothing waits for them.
func TestWhoIsExcludedFromAStageDoesNotDecideThere(t *testing.T) {
	o := terms(t, func(s *apiv1.StageTemplate) { s.Excluded = []string{"bob"} })
	if got := o.asked().GetStages()[0].GetApprovers(); !slices.Equal(got, []string{"cho", "dan"}) || o.waiting("bob") != nil {
		t.Errorf("%v may decide, and bob has %v waiting", got, o.waiting("bob"))
	}
	o.refuses(problem.Forbidden, "bob", nil)
	if _, err := o.As(o.users["dan"]).Delegations.CreateDelegation(t.Context(), &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{
		ToUser: "bob", EndsAt: timestamppb.New(time.Now().Add(time.Hour)), Reason: "holiday"}}); err != nil {
		t.Fatal(err)
	}
	if o.waiting("bob") != nil || slices.Contains(o.show("bob", "r-1").GetActions(), "decide") {
		t.Errorf("bob has %v waiting in dan's place", o.waiting("bob"))
	}
	o.refuses(problem.Forbidden, "bob", func(in *apiv1.DecideRequestRequest) { in.ActingFor = "dan" })
	o.approved("r-1", "cho")
}

func TestSoManyDenialsEndARequestAsTheStageSays(t *testing.T) {
	o := terms(t, func(s *apiv1.StageTemplate) { s.Denials = 2 })
	o.asked()
	for i, who := range []string{"bob", "cho"} {
		if err := o.decide(who, "r-1", apiv1.Decision_DENY, nil); err != nil {
			t.Fatal(err)
		}
		o.approval([]apiv1.Request_Approval{apiv1.Request_IN_REVIEW, apiv1.Request_REJECTED}[i])
	}
}

// TestWhomAChangeConcernsIsAFactThatPoliciesGoBy, at the submission and where a policy is tried.
func TestWhomAChangeConcernsIsAFactThatPoliciesGoBy(t *testing.T) {
	security := reviewOf("dan")
	security.Name, security.Condition = "security", `request.role_cluster == "security"`
	o := newOffice(t, reviewOf("bob"), security)
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	for concerns, stages := range map[apiv1.Request_RoleCluster]int{apiv1.Request_SECURITY: 2, apiv1.Request_OPERATIONS: 1, apiv1.Request_ROLE_CLUSTER_UNSPECIFIED: 1} {
		in, word := ask(), ""
		in.Specification.GetCreate().NamePattern = "x" + strconv.Itoa(int(concerns)) + "-##"
		if in.RoleCluster = concerns; concerns != 0 {
			word = strings.ToLower(concerns.String())
		}
		m, err := o.submit("ann", in)
		if err != nil || len(m.GetStages()) != stages {
			t.Errorf("%v: %v, %v", concerns, m.GetStages(), err)
		}
		r, err := o.Admin().ApprovalPolicies.TestApprovalPolicy(t.Context(), &apiv1.TestApprovalPolicyRequest{
			ApprovalPolicy: "two-steps", Case: &apiv1.PolicyCase{Request: &apiv1.RequestFacts{RoleCluster: word}}})
		if err != nil || len(r.GetStages()) != stages {
			t.Errorf("tried with %q: %v, %v", word, r, err)
		}
	}
	if _, err := o.Admin().ApprovalPolicies.TestApprovalPolicy(t.Context(), &apiv1.TestApprovalPolicyRequest{
		ApprovalPolicy: "two-steps", Case: &apiv1.PolicyCase{Request: &apiv1.RequestFacts{RoleCluster: "securty"}}}); !problem.Is(err, problem.Invalid) {
		t.Errorf("a word that is none: %v", err)
	}
}

// TestWhatAPolicyIsTriedWithIsWhatASubmissionComesTo: of one policy, at one time.
func TestWhatAPolicyIsTriedWithIsWhatASubmissionComesTo(t *testing.T) {
	o := terms(t, func(s *apiv1.StageTemplate) {
		s.Rule, s.Needed, s.Denials, s.CommentRequired, s.StepUpFrom, s.Excluded = apiv1.StageTemplate_PERCENT, 50, 2, true, apiv1.Zone_OPEN, []string{"dan"}
		s.Calendar, s.DueHours, s.OnDue = "seoul", 9, apiv1.StageTemplate_REMIND
	})
	o.calendar("seoul", "Asia/Seoul", "09:00", "18:00")
	is := o.asked().GetStages()[0]
	r, err := o.Admin().ApprovalPolicies.TestApprovalPolicy(t.Context(), &apiv1.TestApprovalPolicyRequest{
		ApprovalPolicy: "two-steps", At: is.GetOpenedAt(), Case: &apiv1.PolicyCase{Requester: &apiv1.User{Name: "ann"}, Request: &apiv1.RequestFacts{Grade: apiv1.Zone_OPEN}},
		People: []*apiv1.PolicyPerson{{User: &apiv1.User{Name: "bob"}}, {User: &apiv1.User{Name: "cho"}}, {User: &apiv1.User{Name: "dan"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := r.GetStages()[0]
	o.is("due", is.GetDueAt(), p.GetDueAt().AsTime().Add(-time.Minute))
	o.is("reminded", is.GetRemindAt(), p.GetRemindAt().AsTime().Add(-time.Minute))
	if !slices.Equal(p.GetEligible(), is.GetApprovers()) || p.GetNeeded() != is.GetNeeded() || p.GetDenials() != is.GetDenials() || p.GetStepUp() != is.GetStepUp() ||
		p.GetCommentRequired() != is.GetCommentRequired() || p.GetOnDue() != is.GetOnDue() || p.GetRule() != is.GetRule() {
		t.Errorf("tried it is %v, and submitted %v", p, is)
	}
}
