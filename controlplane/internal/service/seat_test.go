package service_test

import (
	"slices"
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

// group makes a group with members.
func (o *office) group(name string, members ...string) {
	o.Helper()
	a := o.Admin().Groups
	if _, err := a.CreateGroup(o.Context(), &apiv1.CreateGroupRequest{Group: &apiv1.Group{Name: name}}); err != nil {
		o.Fatal(err)
	}
	for _, m := range members {
		if _, err := a.AddGroupMember(o.Context(), &apiv1.AddGroupMemberRequest{Group: name, User: m}); err != nil {
			o.Fatal(err)
		}
	}
}

func (o *office) role(name, condition string, permissions ...string) {
	o.Helper()
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateRole{CreateRole: &commandv1.CreateRole{Role: &apiv1.Role{
		Id: "role-" + name, Name: name, Permissions: permissions, Condition: condition, AtEdges: true}}}})
}

func leads(name string) *apiv1.StageTemplate {
	return &apiv1.StageTemplate{Name: name, Sequence: 1, Eligible: &apiv1.Eligibility{Groups: []string{"leads"}}, Rule: apiv1.StageTemplate_ANY}
}

// TestWhoAPolicyMeansDecidesOnlyWithARoleToDecide there: a place in a group gives no right by itself, so that whoever may put people
// into groups, or set their passwords, does not come by it to decisions that are not theirs to give.
func TestWhoAPolicyMeansDecidesOnlyWithARoleToDecide(t *testing.T) {
	o := newOffice(t, leads("review"))
	o.group("leads", "dan")
	if _, err := o.submit("ann", ask()); !problem.Is(err, problem.WrongState) || !strings.Contains(err.Error(), "nobody could give") {
		t.Fatalf("a request that only somebody without a right could approve: %v", err)
	}
	o.Bind("b-dan-db", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "db")
	o.Bind("b-dan-zone", "approver", o.users["dan"], apiv1.RoleBinding_ZONE, "internet")
	o.Bind("b-dan-user", "user", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.submit("ann", ask()); !problem.Is(err, problem.WrongState) {
		t.Fatalf("the right is elsewhere: %v", err)
	}
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	m, err := o.submit("ann", ask())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.GetStages()[0].GetApprovers(); !slices.Equal(got, []string{"dan"}) || !slices.Equal(o.waiting("dan"), []string{m.GetName()}) {
		t.Errorf("%v, dan has %v waiting", got, o.waiting("dan"))
	}
	if _, err := o.As(o.users["dan"]).Delegations.CreateDelegation(t.Context(), &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{
		ToUser: "cho", EndsAt: timestamppb.New(time.Now().Add(time.Hour)), Reason: "holiday"}}); err != nil {
		t.Fatal(err)
	}
	o.Unbind("b-dan")
	for _, who := range []string{"dan", "cho"} {
		if o.waiting(who) != nil {
			t.Errorf("it waits for %s", who)
		}
		if err := o.decide(who, m.GetName(), apiv1.Decision_APPROVE, nil); !problem.Is(err, problem.Forbidden) {
			t.Errorf("%s decided where dan has no right any more: %v", who, err)
		}
	}
	o.turn()
	if s := o.show("ann", m.GetName()).GetStages()[0]; s.GetStuck() == "" || s.GetApprovers() != nil {
		t.Errorf("%v", s)
	}
}

// TestWhoAStageIsEscalatedToDecidesOnlyWithARoleToDecide as well.
func TestWhoAStageIsEscalatedToDecidesOnlyWithARoleToDecide(t *testing.T) {
	s := leads("review")
	s.Eligible, s.EscalateTo = &apiv1.Eligibility{Users: []string{"bob"}}, s.GetEligible()
	s.DueHours, s.OnDue = 8, apiv1.StageTemplate_ESCALATE
	o := newOffice(t, s)
	o.group("leads", "dan", "cho")
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.now = o.now.Add(9 * time.Hour)
	o.turn()
	if got := o.show("ann", "r-1").GetStages()[0]; got.GetEscalatedAt() == nil || !slices.Equal(got.GetApprovers(), []string{"bob", "cho"}) {
		t.Errorf("%v", got)
	}
	if err := o.decide("dan", "r-1", apiv1.Decision_APPROVE, nil); !problem.Is(err, problem.Forbidden) && !problem.Is(err, problem.NotFound) {
		t.Errorf("%v", err)
	}
	if err := o.decide("cho", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Error(err)
	}
}

// TestARoleCountsInAStageWhereItsConditionHolds, whatever else its holder may do.
func TestARoleCountsInAStageWhereItsConditionHolds(t *testing.T) {
	for condition, sits := range map[string]bool{`resource.zone == "business"`: true, `resource.zone == "internet"`: false, `resource.project == "db"`: false,
		`context.edge != ""`: false, "resource.zone_grade >= 1": true} {
		t.Run(condition, func(t *testing.T) {
			o := newOffice(t, &apiv1.StageTemplate{Name: "review", Sequence: 1, Rule: apiv1.StageTemplate_ANY,
				Eligible: &apiv1.Eligibility{Roles: []string{"senior"}, At: apiv1.Eligibility_PROJECT}})
			o.role("senior", condition, "vm.read")
			o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
			o.Bind("b-senior", "senior", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
			if _, err := o.submit("ann", ask()); (err == nil) != sits {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestARightToDecideCountsWhereItsConditionHolds.
func TestARightToDecideCountsWhereItsConditionHolds(t *testing.T) {
	o := newOffice(t, leads("review"))
	o.role("elsewhere", `resource.zone == "internet"`, "request.decide")
	o.group("leads", "dan")
	o.Bind("b-dan", "elsewhere", o.users["dan"], apiv1.RoleBinding_FEDERATION, "")
	if _, err := o.submit("ann", ask()); !problem.Is(err, problem.WrongState) {
		t.Errorf("%v", err)
	}
}

// TestWhoAsksExcludesNobodyByDelegatingToThem: or whoever asks would choose who does not decide, and of a stage in which
// everybody has to, there would be left whom they like. In their place nobody decides.
func TestWhoAsksExcludesNobodyByDelegatingToThem(t *testing.T) {
	all := leads("review")
	all.Rule = apiv1.StageTemplate_ALL
	o := newOffice(t, all)
	o.group("leads", "bob", "dan")
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	o.Bind("b-ann-decides", "approver", o.users["ann"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.As(o.users["ann"]).Delegations.CreateDelegation(t.Context(), &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{
		ToUser: "bob", EndsAt: timestamppb.New(time.Now().Add(time.Hour)), Reason: "holiday"}}); err != nil {
		t.Fatal(err)
	}
	m, err := o.submit("ann", ask())
	if err != nil {
		t.Fatal(err)
	}
	if s := m.GetStages()[0]; s.GetNeeded() != 2 || !slices.Equal(s.GetApprovers(), []string{"bob", "dan"}) || !slices.Equal(o.waiting("bob"), []string{m.GetName()}) {
		t.Fatalf("%v, and bob has %v waiting", s, o.waiting("bob"))
	}
	if err := o.decide("bob", m.GetName(), apiv1.Decision_APPROVE, func(in *apiv1.DecideRequestRequest) { in.ActingFor = "ann" }); !problem.Is(err, problem.Forbidden) {
		t.Errorf("bob decided in ann's place: %v", err)
	}
	o.approved(m.GetName(), "bob", "dan")
	if m := o.show("ann", m.GetName()); m.GetApproval() != apiv1.Request_APPROVED || m.GetDecisions()[0].GetActingFor() != "" {
		t.Errorf("%v", m)
	}
}

// TestAPolicyLetsNothingThroughThatItsAuthorHasAPartIn, of the version that counts: people decide it.
func TestAPolicyLetsNothingThroughThatItsAuthorHasAPartIn(t *testing.T) {
	o := newOffice(t)
	o.Bind("b-dan", "user", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	write := func(who string, emergency bool) {
		t.Helper()
		m := &apiv1.ApprovalPolicy{Id: "p-two-steps", Name: "two-steps", Enabled: true, Emergency: emergency, Stages: []*apiv1.StageTemplate{
			{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY}}}
		if !emergency {
			m.Automatic = &apiv1.AutomaticApproval{When: "true", Reason: "small", MaxQuantity: 10}
		}
		o.Do(&commandv1.Command{Origin: &commandv1.Origin{ActorId: "u-" + who, SessionId: o.Session(o.users[who])}, Body: &commandv1.Command_UpdateApprovalPolicy{
			UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: m}}})
	}
	publish := func(who, policy string) {
		t.Helper()
		var m *apiv1.Offering
		o.View(func(tx *state.Tx) (err error) { m, err = tx.Offerings.ByName("web-server", nil); return err })
		m.ApprovalPolicy = policy
		o.Do(&commandv1.Command{Body: &commandv1.Command_UpdateOffering{UpdateOffering: &commandv1.UpdateOffering{Offering: m}}})
		o.Do(&commandv1.Command{Origin: &commandv1.Origin{ActorId: "u-" + who, SessionId: o.Session(o.users[who])}, Body: &commandv1.Command_PublishOffering{PublishOffering: &commandv1.PublishOffering{Offering: m}}})
	}
	asked := 0
	approval := func(change apiv1.ChangeType_Value, about func(*apiv1.Request)) apiv1.Request_Approval {
		t.Helper()
		asked++
		m := ask()
		m.ChangeType, m.Specification.GetCreate().NamePattern = change, strings.Repeat("x", asked)+"-##"
		if about != nil {
			about(m)
		}
		m, err := o.submit("ann", m)
		if err != nil {
			t.Fatal(err)
		}
		return m.GetApproval()
	}
	const waits, through = apiv1.Request_SUBMITTED, apiv1.Request_APPROVED
	for _, c := range []struct {
		author    string
		emergency bool
		before    func()
		about     func(*apiv1.Request)
		want      apiv1.Request_Approval
	}{
		{author: "dan", want: through},
		{author: "ann", want: waits},
		{author: "dan", emergency: true, want: through},
		{author: "ann", emergency: true, want: waits},
		{author: "dan", about: func(m *apiv1.Request) { m.OnBehalfOf = "dan" }, want: waits},
		{author: "dan", before: func() {
			o.Do(&commandv1.Command{Origin: &commandv1.Origin{ActorId: "u-ann", SessionId: o.Session(o.users["ann"])}, Body: &commandv1.Command_ResetPassword{ResetPassword: &commandv1.ResetPassword{
				UserId: "u-dan", Password: "$one-time$", Until: timestamppb.New(time.Now().Add(time.Hour))}}})
		}, want: waits},
		{author: "cho", before: func() { publish("ann", "two-steps") }, want: waits},
		{author: "cho", before: func() { publish("ann", "") }, want: through}, // the offering has no part in the choice
		{author: "cho", before: func() { publish("cho", "two-steps") }, want: through},
	} {
		if c.before != nil {
			c.before()
		}
		write(c.author, c.emergency)
		change := apiv1.ChangeType_NORMAL
		if c.emergency {
			change = apiv1.ChangeType_EMERGENCY
		}
		if got := approval(change, c.about); got != c.want {
			t.Errorf("written by %s, emergency %t: it is %v", c.author, c.emergency, got)
		}
	}
}

// TestWhatWaitsIsListedInPages: what is due first stands first, and each page is found without looking at those after it.
func TestWhatWaitsIsListedInPages(t *testing.T) {
	o := newOffice(t,
		&apiv1.StageTemplate{Name: "urgent", Sequence: 1, Condition: "request.quantity > 2u", Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY,
			DueHours: 8, OnDue: apiv1.StageTemplate_REMIND},
		&apiv1.StageTemplate{Name: "review", Sequence: 1, Condition: "request.quantity <= 2u", Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY})
	for i, quantity := range []uint32{1, 2, 3, 4} {
		m := ask()
		m.Specification.GetCreate().Quantity, m.Specification.GetCreate().NamePattern = quantity, strings.Repeat("x", i+1)+"-##"
		if _, err := o.submit("ann", m); err != nil {
			t.Fatal(err)
		}
	}
	bob := o.As(o.users["bob"]).Requests
	var pages []string
	for token := ""; ; {
		r, err := bob.ListApprovals(t.Context(), &apiv1.ListApprovalsRequest{PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range r.GetRequests() {
			names = append(names, m.GetName())
		}
		pages = append(pages, strings.Join(names, " "))
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if want := []string{"r-3 r-4 r-1", "r-2"}; !slices.Equal(pages, want) {
		t.Errorf("%q, want %q", pages, want)
	}
	if err := o.decide("bob", "r-3", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	if got := o.waiting("bob"); !slices.Equal(got, []string{"r-4", "r-1", "r-2"}) {
		t.Errorf("%v", got)
	}
	if _, err := bob.ListApprovals(t.Context(), &apiv1.ListApprovalsRequest{PageToken: "x"}); !problem.Is(err, problem.Invalid) {
		t.Errorf("%v", err)
	}
}

// TestWhatIsApprovedWaitsWhereWhoAskedIsNoLongerThere, and fails where they do not come back, so that it holds nothing for ever; it is not
// tried again by who has lost the project.
func TestWhatIsApprovedWaitsWhereWhoAskedIsNoLongerThere(t *testing.T) {
	one := &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY}
	for why, leave := range map[string]*commandv1.Command{
		"is disabled": {Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-ann", Reason: "left"}}},
		"is gone":     {Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-ann"}}},
	} {
		o := newOffice(t, one)
		if _, err := o.submit("ann", ask()); err != nil {
			t.Fatal(err)
		}
		if err := o.decide("bob", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
			t.Fatal(err)
		}
		o.Do(leave)
		o.turn()
		is := map[string]apiv1.Request_Fulfilment{"is disabled": apiv1.Request_NONE, "is gone": apiv1.Request_FAILED}[why]
		if m := o.show("bob", "r-1"); m.GetFulfilment() != is || !strings.Contains(m.GetFulfilmentReason(), "ann, who asked for it, "+why) || len(o.vms()) != 0 {
			t.Errorf("%v", m)
		}
	}
	o := newOffice(t, one)
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.Unbind("b-ann")
	if _, err := o.As(o.users["ann"]).Requests.RetryRequest(t.Context(), &apiv1.RetryRequestRequest{Request: "r-1"}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("%v", err)
	}
}

// TestWhatIsMadeAnewUnderTheNameThatAStageNamesIsSomethingElse: its people do not come by a request that was submitted before.
func TestWhatIsMadeAnewUnderTheNameThatAStageNamesIsSomethingElse(t *testing.T) {
	s := leads("review")
	s.Eligible.Users = []string{"bob"}
	o := newOffice(t, s)
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	o.group("leads", "dan")
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	// The policy asks somebody else meanwhile, or the group could not go; the request keeps the stage that it has.
	asks := func(s *apiv1.StageTemplate) {
		o.Do(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: &apiv1.ApprovalPolicy{
			Id: "p-two-steps", Name: "two-steps", Enabled: true, Stages: []*apiv1.StageTemplate{s}}}}})
	}
	asks(&apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY})
	if _, err := o.Admin().Groups.DeleteGroup(t.Context(), &apiv1.DeleteGroupRequest{Group: "leads"}); err != nil {
		t.Fatal(err)
	}
	o.group("leads", "dan")
	asks(s)
	o.Do(&commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-bob"}}})
	bob := &apiv1.User{Id: "u-bob2", Name: "bob", Kind: apiv1.User_PERSON, Organization: o.users["ann"].GetOrganization(), OrganizationId: o.users["ann"].GetOrganizationId()}
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: bob}}})
	o.Session(bob)
	o.Bind("b-bob2", "approver", bob, apiv1.RoleBinding_PROJECT, "web")
	o.users["bob"] = bob
	for _, who := range []string{"dan", "bob"} {
		if err := o.decide(who, "r-1", apiv1.Decision_APPROVE, nil); !problem.Is(err, problem.Forbidden) {
			t.Errorf("%s decided: %v", who, err)
		}
	}
	m := ask()
	m.Specification.GetCreate().NamePattern = "db-##"
	if m, err := o.submit("ann", m); err != nil || !slices.Equal(m.GetStages()[0].GetApprovers(), []string{"bob", "dan"}) {
		t.Errorf("of what is submitted now: %v, %v", m, err)
	}
}

// TestP14NobodyLearnsWhoThereIsByAskingForThem.
func TestP14NobodyLearnsWhoThereIsByAskingForThem(t *testing.T) {
	o := newOffice(t)
	refusal := func(name string) string {
		m := ask()
		m.OnBehalfOf = name
		_, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: m})
		if !problem.Is(err, problem.NotFound) {
			t.Fatalf("%s: %v", name, err)
		}
		return strings.ReplaceAll(err.Error(), name, "X")
	}
	if a, b := refusal("dan"), refusal("zzz"); a != b { // who has no role in the project, and who is nobody
		t.Errorf("%q and %q", a, b)
	}
	m := ask()
	m.OnBehalfOf = "bob"
	if _, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: m}); err != nil {
		t.Error(err)
	}
	// Who helps write has a right to, and no more: for them it can be where it could be carried out for them.
	o.Bind("b-eun", "federation-administrator", o.users["dan"], apiv1.RoleBinding_FEDERATION, "")
	mine, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()})
	if err != nil {
		t.Fatal(err)
	}
	forDan := &apiv1.UpdateRequestRequest{Request: &apiv1.Request{Id: mine.GetRequest().GetId(), OnBehalfOf: "dan"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"on_behalf_of"}}}
	if _, err := o.As(o.users["dan"]).Requests.UpdateRequest(t.Context(), forDan); !problem.Is(err, problem.NotFound) {
		t.Errorf("dan has no role in the project, and it is for dan: %v", err)
	}
	o.Bind("b-dan", "user", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.As(o.users["dan"]).Requests.UpdateRequest(t.Context(), forDan); err != nil {
		t.Error(err)
	}
	o.Unbind("b-dan")
	o.Bind("b-eve", "federation-administrator", o.User("eve", apiv1.User_PERSON), apiv1.RoleBinding_FEDERATION, "")
	o.Unbind("b-eun")
	far, err := o.Admin().Organizations.CreateOrganization(t.Context(), &apiv1.CreateOrganizationRequest{Organization: &apiv1.Organization{Name: "far"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Admin().Users.CreateUser(t.Context(), &apiv1.CreateUserRequest{User: &apiv1.User{Name: "fay", Organization: far.GetOperation().GetTarget().GetName()}}); err != nil {
		t.Fatal(err)
	}
	dan := o.As(o.users["dan"])
	for what, ask := range map[string]func(name string) error{
		"a delegate": func(name string) error {
			_, err := dan.Delegations.CreateDelegation(t.Context(), &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{
				ToUser: name, EndsAt: timestamppb.New(time.Now().Add(time.Hour)), Reason: "holiday"}})
			return err
		},
		"sessions": func(name string) error {
			_, err := dan.Sessions.ListSessions(t.Context(), &apiv1.ListSessionsRequest{User: name})
			return err
		},
		"an explanation": func(name string) error {
			_, err := dan.Roles.ExplainAccess(t.Context(), &apiv1.ExplainAccessRequest{Method: "VMService/CreateVM", User: name})
			return err
		},
	} {
		there, nobody := ask("fay"), ask("zzz")
		if there == nil || nobody == nil || strings.ReplaceAll(there.Error(), "fay", "X") != strings.ReplaceAll(nobody.Error(), "zzz", "X") {
			t.Errorf("%s: %v; of nobody %v", what, there, nobody)
		}
	}
	for _, d := range []*apiv1.Delegation{{Project: "db"}, {Zone: "business"}} { // which dan sees nothing of
		d.ToUser, d.EndsAt, d.Reason = "bob", timestamppb.New(time.Now().Add(time.Hour)), "holiday"
		if _, err := o.As(o.users["dan"]).Delegations.CreateDelegation(t.Context(), &apiv1.CreateDelegationRequest{Delegation: d}); !problem.Is(err, problem.NotFound) {
			t.Errorf("%v: %v", d, err)
		}
	}
}
