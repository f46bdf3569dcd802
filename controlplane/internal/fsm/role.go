package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// federationAdministrator is the role that somebody always has once anybody has had it.
const federationAdministrator = "federation-administrator"

func (c *command) createRole(in *commandv1.CreateRole) (*commandv1.Result, error) {
	m := in.GetRole()
	if err := mayCreate(c.tx.Roles, "role", m, nil); err != nil {
		return nil, err
	}
	m.BuiltIn, m.Edition, m.CreatedAt = false, 0, c.now
	return create(c, c.tx.Roles, "role", m, "", "")
}

func (c *command) updateRole(in *commandv1.UpdateRole) (*commandv1.Result, error) {
	m := in.GetRole()
	was, err := stored(c.tx.Roles, "role", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := ofOneself(was); err != nil {
		return nil, err
	}
	if err := mayRename("role", was, m); err != nil {
		return nil, err
	}
	m.BuiltIn, m.Edition, m.CreatedAt = false, 0, was.GetCreatedAt()
	return put(c.tx.Roles, m)
}

func (c *command) deleteRole(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Roles, "role", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := ofOneself(m); err != nil {
		return nil, err
	}
	bound, err := c.tx.RoleBindings.Count(state.Scope{"role_id": m.GetId()}, "")
	if err != nil {
		return nil, err
	}
	if bound > 0 {
		return nil, problem.Newf(problem.InUse, "Delete what binds it first: naru role-binding list --filter role="+m.GetName()+".",
			"role %s is bound %d times", m.GetName(), bound)
	}
	return remove(c, c.tx.Roles, "role", m, "", "")
}

// ofOneself refuses to touch a role that comes with Naru.
func ofOneself(m *apiv1.Role) error {
	if !m.GetBuiltIn() {
		return nil
	}
	return problem.Newf(problem.WrongState, "Make a role of your own: naru role create.", "role %s comes with Naru and cannot be changed", m.GetName())
}

// setBuiltInRoles puts the built-in roles of an edition in the place of older ones; those of a newer one stay. A role that
// somebody made under the name of a new one stays as well.
func (c *command) setBuiltInRoles(in *commandv1.SetBuiltInRoles) (*commandv1.Result, error) {
	for _, m := range in.GetRoles() {
		was, err := c.tx.Roles.ByName(m.GetName(), nil)
		switch {
		case err == nil && !was.GetBuiltIn():
			err := c.tell(apiv1.Event_WARNING, "role.name_taken", "", "", reference("role", was),
				"Naru has a role "+m.GetName()+" of its own now, which the role of this name here stands in the way of")
			if err != nil {
				return nil, err
			}
			continue
		case err == nil && was.GetEdition() >= in.GetEdition():
			continue
		case err == nil:
			m.Id, m.CreatedAt = was.GetId(), was.GetCreatedAt()
		case missing(err):
			m.CreatedAt = c.now
		default:
			return nil, err
		}
		m.BuiltIn, m.Edition = true, in.GetEdition()
		if err := c.tx.Roles.Put(m); err != nil {
			return nil, err
		}
	}
	return &commandv1.Result{}, nil
}
