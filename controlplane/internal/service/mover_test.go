package service_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func byBob() *apiv1.StageTemplate {
	return &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY}
}

func (o *office) disable(who string) {
	o.Helper()
	o.Do(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-" + who, Reason: "left"}}})
}

func (o *office) enable(who string) {
	o.Helper()
	o.Do(&commandv1.Command{Body: &commandv1.Command_EnableUser{EnableUser: &commandv1.EnableUser{UserId: "u-" + who, Reason: "came back"}}})
}

func (o *office) withdraw(who, name string) error {
	_, err := o.As(o.users[who]).Requests.WithdrawRequest(o.Context(), &apiv1.WithdrawRequestRequest{Request: name, Reason: "nobody needs it"})
	return err
}

// left is an office in which ann has asked for all that project web may have, it was approved, and she is disabled.
func left(t *testing.T) *office {
	o := newOffice(t, byBob())
	o.Bind("b-dan", "user", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	limit(t, o.World, &apiv1.Quota{Project: "web", Limit: mostVMs(2)})
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	if err := o.withdraw("dan", "r-1"); !problem.Is(err, problem.Forbidden) {
		t.Errorf("dan ends what ann asks for, who is there: %v", err)
	}
	o.approved("r-1", "bob")
	o.disable("ann")
	o.turn()
	m := o.show("dan", "r-1")
	if m.GetOrphanedAt() == nil || !strings.Contains(m.GetFulfilmentReason(), "ann, who asked for it, is disabled; after seven days") || !strings.Contains(m.GetFulfilmentReason(), "naru request withdraw r-1") {
		t.Fatalf("%v", m)
	}
	if _, err := o.submit("dan", ask()); !problem.Is(err, problem.QuotaExceeded) {
		t.Fatalf("the first request holds no quota: %v", err)
	}
	return o
}

// TestWhatALeaverAskedForIsEndedByWhoeverMayAskThere: not by who may only look or decide, and with it ends what it held.
func TestWhatALeaverAskedForIsEndedByWhoeverMayAskThere(t *testing.T) {
	o := left(t)
	if err := o.withdraw("bob", "r-1"); !problem.Is(err, problem.Forbidden) || slices.Contains(o.show("bob", "r-1").GetActions(), "withdraw") {
		t.Errorf("bob may ask for nothing in the project, and withdraws: %v", err)
	}
	if !slices.Contains(o.show("dan", "r-1").GetActions(), "withdraw") {
		t.Errorf("dan is not told that he may end it: %v", o.show("dan", "r-1").GetActions())
	}
	if err := o.withdraw("dan", "r-1"); err != nil {
		t.Fatal(err)
	}
	if m := o.show("dan", "r-1"); m.GetApproval() != apiv1.Request_CANCELLED || m.GetApprovalReason() != "withdrawn by dan, since ann, who asked for it, is disabled: nobody needs it" {
		t.Errorf("%v", m)
	}
	if _, err := o.submit("dan", ask()); err != nil {
		t.Errorf("what was withdrawn holds quota: %v", err)
	}
}

func TestWhatALeaverAskedForFailsAfterSevenDaysAndHoldsNothingThen(t *testing.T) {
	o := left(t)
	o.now = o.now.Add(7*24*time.Hour - time.Minute)
	o.turn()
	if m := o.show("dan", "r-1"); m.GetFulfilment() != apiv1.Request_NONE {
		t.Fatalf("before seven days: %v", m)
	}
	o.now = o.now.Add(2 * time.Minute)
	o.turn()
	if m := o.show("dan", "r-1"); m.GetFulfilment() != apiv1.Request_FAILED || !strings.Contains(m.GetFulfilmentReason(), "naru request copy r-1") || len(o.vms()) != 0 {
		t.Fatalf("%v", m)
	}
	copied, err := o.As(o.users["dan"]).Requests.CopyRequest(t.Context(), &apiv1.CopyRequestRequest{Request: "r-1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.As(o.users["dan"]).Requests.SubmitRequest(t.Context(), &apiv1.SubmitRequestRequest{Request: copied.GetRequest().GetName()}); err != nil {
		t.Errorf("what the reason says to do is refused: %v", err)
	}
}

func TestWhoComesBackGetsWhatWasApproved(t *testing.T) {
	o := left(t)
	o.enable("ann")
	o.now = o.now.Add(24 * time.Hour)
	for range 3 {
		o.turn()
	}
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_EXECUTING || m.GetOrphanedAt() != nil || len(o.vms()) != 2 {
		t.Errorf("%v", m)
	}
}

// TestWhatWaitsForPeopleIsEndedByOthersTooWhereWhoAskedHasLeft: before anybody has decided.
func TestWhatWaitsForPeopleIsEndedByOthersTooWhereWhoAskedHasLeft(t *testing.T) {
	o := newOffice(t, byBob())
	o.Bind("b-dan", "user", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.Do(&commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-ann"}}})
	if err := o.withdraw("dan", "r-1"); err != nil {
		t.Fatal(err)
	}
	if m := o.show("dan", "r-1"); m.GetApproval() != apiv1.Request_CANCELLED || !strings.Contains(m.GetApprovalReason(), "since ann, who asked for it, is gone") {
		t.Errorf("%v", m)
	}
}

// TestAMoverGetsNothingAnyMoreThatWasApprovedWhereTheyWere, until they may ask for it there again.
func TestAMoverGetsNothingAnyMoreThatWasApprovedWhereTheyWere(t *testing.T) {
	o := bossed(t)
	m := access("project-operator", 0, 30)
	m.DesiredStart = timestamppb.New(o.now.Add(72 * time.Hour))
	if _, err := o.submit("ann", m); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob", "dan")
	o.turn()
	o.Unbind("b-ann")
	o.now = o.now.Add(96 * time.Hour)
	o.turn()
	if m := o.show("dan", "r-1"); len(o.bindings("ann")) != 0 || m.GetFulfilment() != apiv1.Request_NONE || !strings.HasPrefix(m.GetFulfilmentReason(), "ann, who asked for it, may not ask for it in project web any more") {
		t.Fatalf("%v; ann has %v", m, o.bindings("ann"))
	}
	o.Bind("b-ann2", "user", o.users["ann"], apiv1.RoleBinding_PROJECT, "web")
	for range 3 {
		o.turn()
	}
	if len(o.bindings("ann")) != 2 {
		t.Errorf("ann is back, and has %v: %v", o.bindings("ann"), o.show("dan", "r-1"))
	}
}

// TestNothingIsDoneForWhomItIsNotAnyMore: neither a role is given to somebody who is disabled or has lost the project, nor a VM made for them.
func TestNothingIsDoneForWhomItIsNotAnyMore(t *testing.T) {
	for kind, what := range map[string]func() *apiv1.Request{"access": func() *apiv1.Request { return access("project-operator", 0, 30) }, "create": ask} {
		for why, leave := range map[string]func(*office){
			"is disabled":                   func(o *office) { o.disable("eve") },
			"has no role in project web":    func(o *office) { o.Unbind("b-eve") },
			"has no way to log in any more": func(o *office) { o.linked("eve"); o.corpSays("eve", true) },
		} {
			t.Run(kind+", who "+why, func(t *testing.T) {
				o := bossed(t)
				o.users["eve"] = o.User("eve", apiv1.User_PERSON)
				o.Bind("b-eve", "user", o.users["eve"], apiv1.RoleBinding_PROJECT, "web")
				m := what()
				m.OnBehalfOf = "eve"
				if _, err := o.submit("ann", m); err != nil {
					t.Fatal(err)
				}
				o.approved("r-1", "bob", "dan")
				leave(o)
				had := len(o.bindings("eve"))
				o.turn()
				if m := o.show("ann", "r-1"); !strings.HasPrefix(m.GetFulfilmentReason(), "eve, for whom it is, "+why) || !strings.Contains(m.GetFulfilmentReason(), "until then ann can end it") || len(o.bindings("eve")) != had || len(o.vms()) != 0 {
					t.Errorf("%v", m)
				}
				if err := o.withdraw("dan", "r-1"); !problem.Is(err, problem.Forbidden) {
					t.Errorf("ann is there and could end it, but dan did: %v", err)
				}
				if err := o.withdraw("ann", "r-1"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// linked lets a user log in through a provider, and by nothing else.
func (o *office) linked(who string) {
	o.Helper()
	home := o.users[who]
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateIdentityProvider{CreateIdentityProvider: &commandv1.CreateIdentityProvider{IdentityProvider: &apiv1.IdentityProvider{
		Id: "ip-corp", Name: "corp", Organization: home.GetOrganization(), OrganizationId: home.GetOrganizationId(), Ldap: &apiv1.Directory{Urls: []string{"ldaps://corp.example"}}}}}})
	o.Do(&commandv1.Command{Body: &commandv1.Command_LinkIdentity{LinkIdentity: &commandv1.LinkIdentity{Identity: &apiv1.Identity{
		Id: "i-" + who, IdentityProviderId: "ip-corp", Subject: who, UserId: "u-" + who}}}})
}

// corpSays takes down what the provider says of somebody.
func (o *office) corpSays(who string, gone bool) {
	o.Helper()
	in := &commandv1.CheckIdentity{IdentityId: "i-" + who, Gone: gone}
	o.View(func(tx *state.Tx) error {
		p, err := tx.IdentityProviders.Get("ip-corp")
		if err != nil {
			return err
		}
		m, err := tx.Identities.Get(in.GetIdentityId())
		in.ProviderRevision, in.ExpectedRevision = p.GetRevision(), m.GetRevision()
		return err
	})
	o.Do(&commandv1.Command{Body: &commandv1.Command_CheckIdentity{CheckIdentity: in}})
}

// TestWhoHasLeftTheDirectoryDecidesNothingAndIsToldNothing, nor does anybody in their place; and all is as it was when the directory knows
// them again.
func TestWhoHasLeftTheDirectoryDecidesNothingAndIsToldNothing(t *testing.T) {
	stage := byBob()
	stage.DueHours, stage.OnDue, stage.EscalateTo = 8, apiv1.StageTemplate_ESCALATE, &apiv1.Eligibility{Users: []string{"dan"}}
	p := &post{office: newOffice(t, stage)}
	p.now = p.now.Add(time.Minute)
	p.notify = p.leader(clocked{p.office})
	p.Bind("b-dan", "approver", p.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	p.linked("bob")
	bob := p.As(p.users["bob"]).Delegations
	if _, err := bob.CreateDelegation(t.Context(), &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{
		ToUser: "cho", EndsAt: timestamppb.New(time.Now().Add(100 * time.Hour)), Reason: "for a while"}}); err != nil {
		t.Fatal(err)
	}
	p.corpSays("bob", true)
	if _, err := p.submit("ann", ask()); !problem.Is(err, problem.WrongState) {
		t.Fatalf("nobody could decide, and it was submitted: %v", err)
	}
	p.corpSays("bob", false)
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	name := p.show("ann", "r-1").GetName()
	p.corpSays("bob", true)
	p.tell()
	p.turn()
	p.tell()
	if s := p.show("ann", name).GetStages()[0]; s.GetEscalatedAt() == nil || !slices.Equal(s.GetApprovers(), []string{"dan"}) {
		t.Errorf("%v", s)
	}
	for _, who := range []string{"bob", "cho"} {
		if err := p.decide(who, name, apiv1.Decision_APPROVE, nil); !problem.Is(err, problem.Forbidden) && !problem.Is(err, problem.NotFound) {
			t.Errorf("%s decided for one who is gone: %v", who, err)
		}
	}
	asked := func(who string) bool {
		return slices.ContainsFunc(p.news(who), func(s string) bool {
			return strings.HasPrefix(s, "request.waiting") || strings.HasPrefix(s, "request.escalated")
		})
	}
	if asked("cho") || asked("bob") || !asked("dan") {
		t.Errorf("told: bob %q, cho %q, dan %q", p.news("bob"), p.news("cho"), p.news("dan"))
	}
	p.corpSays("bob", false)
	if s := p.show("ann", name).GetStages()[0]; !slices.Equal(s.GetApprovers(), []string{"bob", "dan"}) {
		t.Errorf("the directory knows bob again, and it may be decided by %v", s.GetApprovers())
	}
	if err := p.decide("cho", name, apiv1.Decision_APPROVE, nil); err != nil {
		t.Errorf("what bob delegated was not kept: %v", err)
	}
}

// moved is a world in which kim is of bureau, and has all that one can have by it.
func moved(t *testing.T) *servicetest.World {
	w := servicetest.New(t)
	w.NewSite(1)
	w.Roles()
	a := w.Admin()
	for _, name := range []string{"ministry", "bureau", "section", "other"} {
		m := &apiv1.Organization{Name: name, Parent: map[string]string{"bureau": "ministry", "section": "bureau"}[name]}
		if _, err := a.Organizations.CreateOrganization(t.Context(), &apiv1.CreateOrganizationRequest{Organization: m}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Projects.CreateProject(t.Context(), &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: "shop", Organization: "section"}}); err != nil {
		t.Fatal(err)
	}
	kim, lee := w.User("kim", apiv1.User_PERSON), w.User("lee", apiv1.User_PERSON)
	if _, err := a.Users.UpdateUser(t.Context(), into("bureau", false)); err != nil {
		t.Fatal(err)
	}
	w.Bind("b-shop", "project-operator", kim, apiv1.RoleBinding_PROJECT, "shop")
	w.Bind("b-bureau", "reviewer", kim, apiv1.RoleBinding_ORGANIZATION, "bureau")
	w.Bind("b-web", "user", kim, apiv1.RoleBinding_PROJECT, "web")
	w.Bind("b-zone", "zone-operator", kim, apiv1.RoleBinding_ZONE, "business")
	for group, places := range map[string][]string{"leads": {"shop"}, "ops": {"shop", "web"}, "club": nil} {
		if _, err := a.Groups.CreateGroup(t.Context(), &apiv1.CreateGroupRequest{Group: &apiv1.Group{Name: group}}); err != nil {
			t.Fatal(err)
		}
		for _, place := range places {
			if _, err := a.RoleBindings.CreateRoleBinding(t.Context(), &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{Role: "user", Group: group, Scope: apiv1.RoleBinding_PROJECT, Place: place}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Groups.AddGroupMember(t.Context(), &apiv1.AddGroupMemberRequest{Group: group, User: "kim"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range [][2]*apiv1.User{{kim, lee}, {lee, kim}} {
		w.Do(&commandv1.Command{Origin: &commandv1.Origin{ActorId: d[0].GetId(), SessionId: "s-" + d[0].GetId()}, Body: &commandv1.Command_CreateDelegation{CreateDelegation: &commandv1.CreateDelegation{Delegation: &apiv1.Delegation{
			Id: "d-" + d[0].GetName(), FromUser: d[0].GetName(), FromUserId: d[0].GetId(), ToUser: d[1].GetName(), ToUserId: d[1].GetId(), EndsAt: timestamppb.New(time.Now().Add(time.Hour))}}}})
	}
	var shop *apiv1.Project
	w.View(func(tx *state.Tx) (err error) { shop, err = tx.Projects.ByName("shop", nil); return err })
	r, err := w.Propose(t.Context(), &commandv1.Command{Id: make([]byte, 16), Actor: "user:kim", Origin: &commandv1.Origin{ActorId: "u-kim", SessionId: "s-u-kim"}, Body: &commandv1.Command_CreateAccessToken{CreateAccessToken: &commandv1.CreateAccessToken{
		AccessToken: &apiv1.AccessToken{Id: "t-nightly", Name: "nightly", Project: "shop", ProjectId: shop.GetId(), SecretHash: make([]byte, 32), ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))}}}})
	if err != nil || r.GetProblem() != nil {
		t.Fatal(r, err)
	}
	return w
}

func into(organization string, drop bool) *apiv1.UpdateUserRequest {
	return &apiv1.UpdateUserRequest{User: &apiv1.User{Id: "kim", Organization: organization}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"organization"}}, DropRights: drop}
}

// said are references as kind and name, in order.
func said(all []*apiv1.Reference) (out []string) {
	for _, r := range all {
		out = append(out, r.GetKind()+" "+r.GetName())
	}
	slices.Sort(out)
	return out
}

var (
	ofBureau = []string{"delegation to lee", "group leads", "role-binding project-operator in project shop", "role-binding reviewer in organization bureau"}
	ofOthers = []string{"delegation from lee", "group ops, which has roles elsewhere too", "token nightly of project shop"}
)

func TestAMoverIsShownWithWhatTheyHaveByTheFormerOrganization(t *testing.T) {
	w := moved(t)
	r, err := w.Admin().Users.UpdateUser(t.Context(), into("other", false))
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(ofBureau, ofOthers)
	slices.Sort(want)
	if got := said(r.GetUser().GetKeeps()); !slices.Equal(got, want) || r.GetUser().GetDropped() != nil {
		t.Errorf("kept %q\nwant %q, dropped %v", got, want, r.GetUser().GetDropped())
	}
	shown, err := w.Admin().Users.GetUser(t.Context(), &apiv1.GetUserRequest{User: "kim"})
	if err != nil || shown.GetUser().GetKeeps() != nil || shown.GetUser().GetOrganization() != "other" {
		t.Errorf("%v, %v", shown, err)
	}
	if _, err := w.Admin().Users.UpdateUser(t.Context(), into("other", true)); !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetNext(), "naru role-binding delete") {
		t.Errorf("nobody moves, and what is by which organization is dropped: %v", err)
	}
}

// TestAMoverLeavesTheWholeOfTheFormerOrganizationOnTheWayUpAndWhatStandsAboveOnTheWayDown.
func TestAMoverLeavesTheWholeOfTheFormerOrganizationOnTheWayUpAndWhatStandsAboveOnTheWayDown(t *testing.T) {
	for to, want := range map[string][]string{"ministry": ofBureau, "section": {"delegation to lee", "role-binding reviewer in organization bureau"}} {
		r, err := moved(t).Admin().Users.UpdateUser(t.Context(), into(to, true))
		if got := said(r.GetUser().GetDropped()); err != nil || !slices.Equal(got, want) {
			t.Errorf("to %s: dropped %q, not %q; %v", to, got, want, err)
		}
	}
}

func TestAMoverLosesWhatTheyHaveByTheFormerOrganizationWhereThatIsAsked(t *testing.T) {
	w := moved(t)
	r, err := w.Admin().Users.UpdateUser(t.Context(), into("other", true))
	if err != nil {
		t.Fatal(err)
	}
	if got := said(r.GetUser().GetDropped()); !slices.Equal(got, ofBureau) {
		t.Errorf("dropped %q", got)
	}
	if got := said(r.GetUser().GetKeeps()); !slices.Equal(got, ofOthers) {
		t.Errorf("kept %q", got)
	}
	var bindings, groups []string
	w.View(func(tx *state.Tx) error {
		for b, err := range tx.RoleBindings.All(state.Scope{"user_id": "u-kim"}) {
			if err != nil {
				return err
			}
			bindings = append(bindings, b.GetId())
		}
		ids, err := tx.GroupsOf("u-kim")
		for _, id := range ids {
			g, err := tx.Groups.Get(id)
			if err != nil {
				return err
			}
			groups = append(groups, g.GetName())
		}
		return err
	})
	slices.Sort(groups)
	if !slices.Equal(bindings, []string{"b-web", "b-zone"}) || !slices.Equal(groups, []string{"club", "ops"}) {
		t.Errorf("kim has %v and is in %v", bindings, groups)
	}
	log, err := w.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{PageSize: 6})
	if err != nil {
		t.Fatal(err)
	}
	var entries []string
	for _, e := range log.GetAuditEntries() {
		if e.GetAction() != "audit.list-entries" {
			entries = append(entries, e.GetAction()+" "+e.GetTarget().GetName())
		}
		if project := map[string]string{"project-operator in project shop": "shop"}[e.GetTarget().GetName()]; e.GetProject() != project || (e.GetProjectId() == "") != (project == "") {
			t.Errorf("who looks into the log of a project finds %v", e)
		}
	}
	slices.Sort(entries)
	if want := []string{"delegation.delete to lee", "group.remove-member leads", "role-binding.delete project-operator in project shop", "role-binding.delete reviewer in organization bureau", "user.update kim"}; !slices.Equal(entries, want) {
		t.Errorf("the record says %q", entries)
	}
	ops, err := w.Admin().Operations.ListOperations(t.Context(), &apiv1.ListOperationsRequest{Filter: "kind=role-binding.delete"})
	if err != nil || len(ops.GetOperations()) != 2 {
		t.Errorf("%v, %v", ops, err)
	}
	told, err := w.As(&apiv1.User{Name: "lee", Id: "u-lee"}).Notifications.ListNotifications(t.Context(), &apiv1.ListNotificationsRequest{Filter: "topic=delegation.deleted"})
	if err != nil || len(told.GetNotifications()) != 1 {
		t.Errorf("lee was told %v, %v", told, err)
	}
}

// TestNobodyDropsWithAMoveWhatTheyCouldNotEndByItself.
func TestNobodyDropsWithAMoveWhatTheyCouldNotEndByItself(t *testing.T) {
	w := moved(t)
	hr := w.User("hr", apiv1.User_PERSON)
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateRole{CreateRole: &commandv1.CreateRole{Role: &apiv1.Role{Id: "role-hr", Name: "hr",
		Permissions: []string{"*.read", "user.*", "vm.*", "host.*", "cluster.*", "snapshot.*", "operation.*", "request.*", "lease.*", "group.*", "delegation.*"}}}}})
	w.Bind("b-hr", "hr", hr, apiv1.RoleBinding_FEDERATION, "")
	if _, err := w.As(hr).Users.UpdateUser(t.Context(), into("other", true)); !problem.Is(err, problem.Forbidden) || !strings.Contains(err.Error(), "role-binding.delete") {
		t.Errorf("%v", err)
	}
	if r, err := w.As(hr).Users.UpdateUser(t.Context(), into("other", false)); err != nil || len(r.GetUser().GetKeeps()) != len(ofBureau)+len(ofOthers) {
		t.Errorf("%v, %v", r, err)
	}
}
