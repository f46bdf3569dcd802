package fsm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func organization(name, parent string) *apiv1.Organization {
	m := &apiv1.Organization{Id: "o-" + name, Name: name, Parent: parent}
	if parent != "" {
		m.ParentId = "o-" + parent
	}
	return m
}

func createOrganization(name, parent string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateOrganization{CreateOrganization: &commandv1.CreateOrganization{
		Organization: organization(name, parent)}}}
}

func moveOrganization(name, parent string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_UpdateOrganization{UpdateOrganization: &commandv1.UpdateOrganization{
		Organization: organization(name, parent)}}}
}

func createUser(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: &apiv1.User{
		Id: "u-" + name, Name: name, Kind: apiv1.User_PERSON, Organization: "home", OrganizationId: "o-home"}}}}
}

func disableUser(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-" + name, Reason: "left"}}}
}

func enableUser(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_EnableUser{EnableUser: &commandv1.EnableUser{UserId: "u-" + name, Reason: "came back"}}}
}

func createGroup(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateGroup{CreateGroup: &commandv1.CreateGroup{Group: &apiv1.Group{Id: "g-" + name, Name: name}}}}
}

func enter(group, user string) *commandv1.Command {
	return &commandv1.Command{Actor: "admin", Body: &commandv1.Command_AddGroupMember{AddGroupMember: &commandv1.AddGroupMember{GroupId: "g-" + group, UserId: "u-" + user}}}
}

func leave(group, user string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_RemoveGroupMember{RemoveGroupMember: &commandv1.RemoveGroupMember{GroupId: "g-" + group, UserId: "u-" + user}}}
}

func TestAFederationBeginsWithAnOrganization(t *testing.T) {
	p := bootstrapped(t)
	p.view(func(tx *state.Tx) {
		m, err := tx.Organizations.ByName("default", nil)
		if err != nil || m.GetId() == "" || m.GetParent() != "" || m.GetRevision() == "" {
			t.Errorf("the first organization is %v (%v)", m, err)
		}
	})
}

func TestAnOrganizationStandsBelowOneThatExistsAndNeverBelowItself(t *testing.T) {
	p := furnished(t)
	p.accept(createOrganization("ministry", ""))
	p.accept(createOrganization("bureau", "ministry"))
	p.accept(createOrganization("division", "bureau"))
	p.refuse(problem.NotFound, createOrganization("lost", "nowhere"))
	for _, below := range []string{"ministry", "bureau", "division"} {
		if got := p.refuse(problem.WrongState, moveOrganization("ministry", below)).GetDetail(); !strings.Contains(got, below) {
			t.Errorf("the refusal to put ministry below %s says %q", below, got)
		}
	}
	p.accept(moveOrganization("division", "ministry"))
	p.accept(moveOrganization("bureau", "division"))
	p.view(func(tx *state.Tx) {
		above, err := tx.OrganizationsAbove("o-bureau")
		if err != nil || !slices.Equal(above, []string{"o-bureau", "o-division", "o-ministry"}) {
			t.Errorf("above bureau stand %v (%v)", above, err)
		}
		below, err := tx.OrganizationsBelow("o-ministry")
		if err != nil || !slices.Equal(below, []string{"o-ministry", "o-division", "o-bureau"}) {
			t.Errorf("below ministry stand %v (%v)", below, err)
		}
	})
}

func TestATreeOfOrganizationsHasSixteenLevels(t *testing.T) {
	p := furnished(t)
	parent := ""
	for n := range 16 {
		name := fmt.Sprintf("level-%d", n)
		p.accept(createOrganization(name, parent))
		parent = name
	}
	p.refuse(problem.Invalid, createOrganization("deeper", parent))
	p.accept(createOrganization("top", ""))
	p.refuse(problem.Invalid, moveOrganization("level-0", "top")) // all that stands below it comes along
	p.accept(moveOrganization("level-1", "top"))
}

// TestAnyMovesLeaveTheOrganizationsATree moves organizations at random; whatever is accepted, nobody stands below themselves.
func TestAnyMovesLeaveTheOrganizationsATree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := furnished(rt)
		names := []string{"a", "b", "c", "d", "e"}
		parents := map[string]string{}
		for _, n := range names {
			p.accept(createOrganization(n, ""))
		}
		for range rapid.IntRange(1, 20).Draw(rt, "moves") {
			who, to := rapid.SampledFrom(names).Draw(rt, "who"), rapid.SampledFrom(names).Draw(rt, "to")
			cycle := false
			for at := to; at != ""; at = parents[at] {
				cycle = cycle || at == who
			}
			if cycle {
				p.refuse(problem.WrongState, moveOrganization(who, to))
				continue
			}
			p.accept(moveOrganization(who, to))
			parents[who] = to
		}
	})
}

func TestAnOrganizationIsDeletedOnlyWhenNothingBelongsToIt(t *testing.T) {
	p := furnished(t)
	p.accept(createOrganization("bureau", "home"))
	p.accept(createUser("kim"))
	if got := p.refuse(problem.InUse, deletion("organization", "o-home", "")).GetDetail(); !strings.Contains(got, "1 organization (bureau) and 1 project (shop) and 1 user (kim)") {
		t.Errorf("%q", got)
	}
	for _, c := range [][2]string{{"user", "u-kim"}, {"project", "p-shop"}, {"organization", "o-bureau"}, {"organization", "o-home"}} {
		p.accept(deletion(c[0], c[1], ""))
	}
}

func TestAProjectBelongsToAnOrganizationThatExists(t *testing.T) {
	p := furnished(t)
	homeless := createProject("homeless")
	homeless.GetCreateProject().Project.OrganizationId = "o-nowhere"
	p.refuse(problem.NotFound, homeless)
	misnamed := createProject("misnamed")
	misnamed.GetCreateProject().Project.Organization = "other"
	p.refuse(problem.Invalid, misnamed)
}

func TestADisabledUserSaysWhyAndCanBeEnabled(t *testing.T) {
	p := furnished(t)
	p.accept(createUser("kim"))
	p.refuse(problem.WrongState, enableUser("kim"))
	p.accept(disableUser("kim"))
	p.view(func(tx *state.Tx) {
		m, err := tx.Users.Get("u-kim")
		if err != nil || !m.GetDisabled() || m.GetDisabledReason() != "left" {
			t.Errorf("kim is %v (%v)", m, err)
		}
	})
	p.accept(enableUser("kim"))
	p.refuse(problem.NotFound, disableUser("lee"))
}

func TestAChangeOfAUserLeavesWhatIsNotTheClients(t *testing.T) {
	p := furnished(t)
	p.accept(createUser("kim"))
	p.accept(disableUser("kim"))
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateUser{UpdateUser: &commandv1.UpdateUser{User: &apiv1.User{
		Id: "u-kim", Name: "kim", Title: "김민수", Kind: apiv1.User_SERVICE, Organization: "home", OrganizationId: "o-home"}}}})
	p.view(func(tx *state.Tx) {
		m, err := tx.Users.Get("u-kim")
		if err != nil || m.GetTitle() != "김민수" || !m.GetDisabled() || m.GetKind() != apiv1.User_PERSON || m.GetCreatedAt() == nil {
			t.Errorf("kim is %v (%v)", m, err)
		}
	})
}

func TestGroupsHaveMembersUntilOneOfTheTwoIsGone(t *testing.T) {
	p := furnished(t)
	for _, c := range []*commandv1.Command{createUser("kim"), createUser("lee"), createGroup("ops"), createGroup("dev")} {
		p.accept(c)
	}
	p.refuse(problem.NotFound, enter("ops", "park"))
	p.refuse(problem.NotFound, enter("hr", "kim"))
	first := p.accept(enter("ops", "kim"))
	if again := p.accept(enter("ops", "kim")); string(again.GetNoun()) != string(first.GetNoun()) {
		t.Errorf("who is in a group already is told %q, not %q", again.GetNoun(), first.GetNoun())
	}
	p.accept(enter("ops", "lee"))
	p.accept(enter("dev", "kim"))
	in := func(user string, want ...string) {
		t.Helper()
		p.view(func(tx *state.Tx) {
			if got, err := tx.GroupsOf("u-" + user); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s is in %v (%v), not in %v", user, got, err, want)
			}
		})
	}
	in("kim", "g-dev", "g-ops")
	p.accept(leave("dev", "kim"))
	p.accept(leave("dev", "kim"))
	in("kim", "g-ops")
	p.view(func(tx *state.Tx) {
		members, names, err := tx.MembersOf("g-ops", "kim", 10)
		if err != nil || !slices.Equal(names, []string{"lee"}) || members[0].UserID != "u-lee" || members[0].AddedBy != "admin" {
			t.Errorf("behind kim come %v %v (%v)", names, members, err)
		}
	})
	p.accept(deletion("user", "u-kim", ""))
	p.accept(createUser("kim"))
	in("kim")
	policy := usualPolicy()
	policy.Stages[0].EscalateTo = &apiv1.Eligibility{Groups: []string{"ops"}}
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{ApprovalPolicy: policy}}})
	p.refuse(problem.InUse, deletion("group", "g-ops", ""))
	inWords := proto.CloneOf(policy)
	inWords.Stages[0].EscalateTo = &apiv1.Eligibility{Condition: `'ops' in groups || "leads" in groups`}
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: inWords}}})
	p.refuse(problem.InUse, deletion("group", "g-ops", ""))
	p.accept(deletion("group", "g-dev", ""))
	p.accept(deletion("approval-policy", policy.GetId(), ""))
	p.accept(deletion("group", "g-ops", ""))
	p.accept(createGroup("ops"))
	in("lee")
}

// TestWhatEndsWithAMoveIsWhatWasJudged: a role that somebody was given meanwhile ends by nobody's word who may not end it.
func TestWhatEndsWithAMoveIsWhatWasJudged(t *testing.T) {
	p := peopled(t)
	p.accept(createOrganization("other", ""))
	move := func(ends ...string) *commandv1.Command {
		var m *apiv1.User
		p.view(func(tx *state.Tx) { m = get(p, tx.Users, "u-kim") })
		m.Organization, m.OrganizationId = "other", "o-other"
		return &commandv1.Command{Body: &commandv1.Command_UpdateUser{UpdateUser: &commandv1.UpdateUser{User: m, DropRights: true, Ends: ends}}}
	}
	p.accept(give("b-1", "user", "kim", "project:shop", never))
	seen := move("b-1")
	p.accept(give("b-2", "user", "kim", "organization:home", never))
	p.refuse(problem.Conflict, seen)
	p.refuse(problem.Conflict, move())
	p.accept(move("b-1", "b-2"))
	p.view(func(tx *state.Tx) {
		if n, err := tx.RoleBindings.Count(nil, ""); n != 0 || err != nil {
			t.Errorf("%d bindings are left (%v)", n, err)
		}
	})
}
