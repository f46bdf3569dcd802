package fsm_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func createRole(name string, permissions ...string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateRole{CreateRole: &commandv1.CreateRole{Role: &apiv1.Role{
		Id: "r-" + name, Name: name, Permissions: permissions, BuiltIn: true, Edition: 99}}}}
}

func builtInRoles(edition uint32, names ...string) *commandv1.Command {
	set := &commandv1.SetBuiltInRoles{Edition: edition}
	for _, name := range names {
		set.Roles = append(set.Roles, &apiv1.Role{Id: "r-" + name, Name: name, Permissions: []string{"vm.read"}})
	}
	return &commandv1.Command{Body: &commandv1.Command_SetBuiltInRoles{SetBuiltInRoles: set}}
}

// give binds a role to a user, or to group:NAME, in the federation, or in project:NAME, zone:NAME, organization:NAME.
func give(id, role, who, where string, until time.Time) *commandv1.Command {
	m := &apiv1.RoleBinding{Id: id, Role: role, RoleId: "r-" + role, Scope: apiv1.RoleBinding_FEDERATION}
	if group, ok := strings.CutPrefix(who, "group:"); ok {
		m.Group, m.GroupId = group, "g-"+group
	} else {
		m.User, m.UserId = who, "u-"+who
	}
	kind, name, _ := strings.Cut(where, ":")
	switch kind {
	case "project":
		m.Scope, m.Place, m.PlaceId = apiv1.RoleBinding_PROJECT, name, "p-"+name
	case "zone":
		m.Scope, m.Place, m.PlaceId = apiv1.RoleBinding_ZONE, name, "z-"+name
	case "organization":
		m.Scope, m.Place, m.PlaceId = apiv1.RoleBinding_ORGANIZATION, name, "o-"+name
	}
	if !until.IsZero() {
		m.ExpiresAt = timestamppb.New(until)
	}
	return &commandv1.Command{Actor: "user:lee", Body: &commandv1.Command_CreateRoleBinding{CreateRoleBinding: &commandv1.CreateRoleBinding{RoleBinding: m}}}
}

func take(id string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_DeleteRoleBinding{DeleteRoleBinding: &commandv1.DeleteNoun{Id: id}}}
}

var never time.Time

// peopled is a furnished plane with users kim and lee, a group ops, and some roles that come with Naru.
func peopled(t tb) *plane {
	p := furnished(t)
	for _, c := range []*commandv1.Command{
		builtInRoles(1, "federation-administrator", "user"), createUser("kim"), createUser("lee"), createGroup("ops"),
	} {
		p.accept(c)
	}
	return p
}

func TestARoleThatComesWithNaruCannotBeChanged(t *testing.T) {
	p := peopled(t)
	change := func(name string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_UpdateRole{UpdateRole: &commandv1.UpdateRole{Role: &apiv1.Role{
			Id: "r-" + name, Name: name, Permissions: []string{"*"}, BuiltIn: true}}}}
	}
	remove := func(name string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_DeleteRole{DeleteRole: &commandv1.DeleteNoun{Id: "r-" + name}}}
	}
	p.refuse(problem.WrongState, change("user"))
	p.refuse(problem.WrongState, remove("user"))
	p.accept(createRole("mine", "vm.read"))
	p.accept(change("mine"))
	p.view(func(tx *state.Tx) {
		m, err := tx.Roles.Get("r-mine")
		if err != nil || m.GetBuiltIn() || m.GetEdition() != 0 || m.GetPermissions()[0] != "*" {
			t.Errorf("a role of one's own is %v (%v)", m, err)
		}
	})
	p.accept(give("b-1", "mine", "kim", "project:shop", never))
	p.refuse(problem.InUse, remove("mine"))
	p.accept(take("b-1"))
	p.accept(remove("mine"))
}

func TestBuiltInRolesAreReplacedByNewerEditionsOnly(t *testing.T) {
	p := furnished(t)
	p.accept(createRole("auditor", "vm.read"))
	p.accept(builtInRoles(2, "user", "auditor"))
	older := builtInRoles(1, "user")
	older.GetSetBuiltInRoles().Roles[0].Permissions = []string{"old"}
	newer := builtInRoles(3, "user")
	newer.GetSetBuiltInRoles().Roles[0].Id, newer.GetSetBuiltInRoles().Roles[0].Permissions = "another", []string{"new"}
	p.accept(older)
	look := func() (user, auditor *apiv1.Role) {
		p.view(func(tx *state.Tx) {
			user, _ = tx.Roles.ByName("user", nil)
			auditor, _ = tx.Roles.ByName("auditor", nil)
		})
		return user, auditor
	}
	if user, auditor := look(); user.GetEdition() != 2 || user.GetPermissions()[0] == "old" || auditor.GetBuiltIn() {
		t.Errorf("after an older edition: %v, %v", user, auditor)
	}
	p.accept(newer)
	if user, _ := look(); user.GetEdition() != 3 || user.GetPermissions()[0] != "new" || user.GetId() != "r-user" {
		t.Errorf("after a newer edition: %v", user)
	}
}

func TestABindingNamesWhatIsThere(t *testing.T) {
	p := peopled(t)
	for about, c := range map[string]*commandv1.Command{
		"no such role":         give("b", "nothing", "kim", "", never),
		"no such user":         give("b", "user", "choi", "", never),
		"no such group":        give("b", "user", "group:devs", "", never),
		"no such project":      give("b", "user", "kim", "project:bank", never),
		"no such zone":         give("b", "user", "kim", "zone:moon", never),
		"no such organization": give("b", "user", "kim", "organization:moon", never),
	} {
		t.Run(about, func(t *testing.T) { p.refuse(problem.NotFound, c) })
	}
	both := give("b", "user", "kim", "", never)
	both.GetCreateRoleBinding().RoleBinding.GroupId = "g-ops"
	p.refuse(problem.Invalid, both)
	p.refuse(problem.Invalid, give("b", "user", "kim", "", p.now.Add(-time.Hour)))
	p.accept(give("b", "user", "kim", "project:shop", p.now.Add(time.Hour)))
	p.refuse(problem.NameTaken, give("b-2", "user", "kim", "project:shop", p.now.Add(time.Minute)))
	p.accept(give("b-2", "user", "kim", "project:shop", never))
	p.accept(give("b-3", "user", "kim", "zone:business", never))
}

func TestARightEndsWithWhatItIsBoundTo(t *testing.T) {
	p := peopled(t)
	p.accept(give("b-user", "user", "kim", "zone:business", never))
	p.accept(give("b-group", "user", "group:ops", "zone:business", never))
	p.accept(give("b-project", "user", "lee", "project:shop", never))
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-kim"}}})
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteGroup{DeleteGroup: &commandv1.DeleteNoun{Id: "g-ops"}}})
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteProject{DeleteProject: &commandv1.DeleteNoun{Id: "p-shop"}}})
	p.view(func(tx *state.Tx) {
		if n, err := tx.RoleBindings.Count(nil, ""); n != 0 || err != nil {
			t.Errorf("%d bindings are left (%v)", n, err)
		}
	})
}

// TestTheLastFederationAdministratorCannotBeTakenAway on any path.
func TestTheLastFederationAdministratorCannotBeTakenAway(t *testing.T) {
	const role = "federation-administrator"
	paths := map[string]struct {
		have []*commandv1.Command
		take *commandv1.Command
	}{
		"the binding":           {[]*commandv1.Command{give("b", role, "kim", "", never)}, take("b")},
		"the user, disabled":    {[]*commandv1.Command{give("b", role, "kim", "", never)}, disableUser("kim")},
		"the user, deleted":     {[]*commandv1.Command{give("b", role, "kim", "", never)}, &commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-kim"}}}},
		"the place in a group":  {[]*commandv1.Command{enter("ops", "kim"), give("b", role, "group:ops", "", never)}, leave("ops", "kim")},
		"the group's binding":   {[]*commandv1.Command{enter("ops", "kim"), give("b", role, "group:ops", "", never)}, take("b")},
		"the group":             {[]*commandv1.Command{enter("ops", "kim"), give("b", role, "group:ops", "", never)}, &commandv1.Command{Body: &commandv1.Command_DeleteGroup{DeleteGroup: &commandv1.DeleteNoun{Id: "g-ops"}}}},
		"beside a disabled one": {[]*commandv1.Command{give("b", role, "kim", "", never), give("b-lee", role, "lee", "", never), disableUser("lee")}, take("b")},
		"beside an empty group": {[]*commandv1.Command{give("b", role, "kim", "", never), give("b-ops", role, "group:ops", "", never)}, take("b")},
		"beside one that ended": {[]*commandv1.Command{give("b", role, "kim", "", never), give("b-lee", role, "lee", "", start.Add(30*time.Minute))}, take("b")},
		"beside one in a zone":  {[]*commandv1.Command{give("b", role, "kim", "", never), give("b-lee", role, "lee", "zone:business", never)}, take("b")},
	}
	for about, path := range paths {
		t.Run(about, func(t *testing.T) {
			p := peopled(t)
			p.chosen("kim", "lee")
			p.now = start
			for _, c := range path.have {
				p.accept(c)
			}
			p.now = start.Add(time.Hour)
			p.refuse(problem.InUse, path.take)
			p.accept(createUser("park"))
			p.chosen("park")
			p.accept(give("b-park", role, "park", "", never))
			p.accept(path.take)
		})
	}
}
