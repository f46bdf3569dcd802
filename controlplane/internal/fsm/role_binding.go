package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createRoleBinding(in *commandv1.CreateRoleBinding) (*commandv1.Result, error) {
	m := in.GetRoleBinding()
	m.Request, m.RequestId = "", ""
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	op, err := c.bind(m)
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

// bind gives a role, by somebody's own right or by a request.
func (c *command) bind(m *apiv1.RoleBinding) (*apiv1.Operation, error) {
	if m.GetId() == "" {
		return nil, invalid("a role binding without id cannot be created")
	}
	if _, err := c.tx.RoleBindings.Get(m.GetId()); !missing(err) {
		if err == nil {
			err = problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the id %s is taken by another role binding", m.GetId())
		}
		return nil, err
	}
	if err := exists(c.tx.Roles, "role", m.GetRoleId(), m.GetRole()); err != nil {
		return nil, err
	}
	var err error
	switch {
	case (m.GetUserId() == "") == (m.GetGroupId() == ""):
		err = invalid("a role is bound to a user or to a group")
	case m.GetUserId() != "":
		err = exists(c.tx.Users, "user", m.GetUserId(), m.GetUser())
	default:
		err = exists(c.tx.Groups, "group", m.GetGroupId(), m.GetGroup())
	}
	if err != nil {
		return nil, err
	}
	if err := c.placeExists(m); err != nil {
		return nil, err
	}
	if end := m.GetExpiresAt(); end != nil && !later(end, c.clock) {
		return nil, problem.New(problem.Invalid, "the binding would have ended already", "Give a time that lies ahead.").With("expires_at", "must lie ahead")
	}
	same := state.Scope{"role_id": m.GetRoleId(), "user_id": m.GetUserId(), "group_id": m.GetGroupId(), "place_id": m.GetPlaceId()}
	for other, err := range c.tx.RoleBindings.All(same) {
		if err != nil {
			return nil, err
		}
		if other.GetScope() == m.GetScope() && (other.GetExpiresAt() == nil || later(other.GetExpiresAt(), c.clock)) && !outlives(m, other) {
			return nil, problem.Newf(problem.NameTaken, "Nothing is left to do; or give it for longer.",
				"%s has the role %s there already: binding %s", m.GetUser()+m.GetGroup(), m.GetRole(), other.GetId())
		}
	}
	m.CreatedBy, m.CreatedAt = c.actor, c.now
	if err := c.tellOfBinding("role.given", m, "has"); err != nil {
		return nil, err
	}
	if err := c.tx.RoleBindings.Put(m); err != nil {
		return nil, err
	}
	return c.done("role-binding.create", bindingReference(m), where(m))
}

// outlives reports whether one binding ends after another.
func outlives(m, other *apiv1.RoleBinding) bool {
	return other.GetExpiresAt() != nil && (m.GetExpiresAt() == nil || later(m.GetExpiresAt(), other.GetExpiresAt()))
}

// placeExists checks that the place of a binding is there, by id and name.
func (c *command) placeExists(m *apiv1.RoleBinding) error {
	switch m.GetScope() {
	case apiv1.RoleBinding_FEDERATION:
		if m.GetPlaceId() != "" || m.GetPlace() != "" {
			return invalid("there is one federation, which is not named")
		}
		return nil
	case apiv1.RoleBinding_ORGANIZATION:
		return exists(c.tx.Organizations, "organization", m.GetPlaceId(), m.GetPlace())
	case apiv1.RoleBinding_PROJECT:
		return exists(c.tx.Projects, "project", m.GetPlaceId(), m.GetPlace())
	case apiv1.RoleBinding_ZONE:
		return exists(c.tx.Zones, "zone", m.GetPlaceId(), m.GetPlace())
	}
	return invalid("a role is bound in a federation, an organization, a project or a zone")
}

// exists checks that something is there, by id and name.
func exists[M named](t state.Table[M], kind, id, name string) error {
	m, err := t.Get(id)
	if err != nil {
		return orNotFound(err, kind, name)
	}
	if m.GetName() != name {
		return invalid(kind + " " + id + " is " + m.GetName() + ", not " + name)
	}
	return nil
}

func (c *command) deleteRoleBinding(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.RoleBindings, "role binding", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.staysAdministered(state.Taken{BindingID: m.GetId()}); err != nil {
		return nil, err
	}
	if err := c.tellOfBinding("role.taken", m, "no longer has"); err != nil {
		return nil, err
	}
	return removeAs(c, c.tx.RoleBindings, "role-binding.delete", m, bindingReference(m))
}

// revisionOfBindings is that of all the bindings that somebody has.
func (c *command) revisionOfBindings(userID string) (string, error) {
	var all []*apiv1.RoleBinding
	for b, err := range c.tx.RoleBindingsOf(userID) {
		if err != nil {
			return "", err
		}
		all = append(all, b)
	}
	return state.RoleBindingsRevision(all), nil
}

// tellOfBinding tells of rights in the whole federation; those elsewhere are in the audit log only.
func (c *command) tellOfBinding(kind string, m *apiv1.RoleBinding, verb string) error {
	if m.GetScope() != apiv1.RoleBinding_FEDERATION {
		return nil
	}
	return c.tell(apiv1.Event_WARNING, kind, whereabouts{}, bindingReference(m), m.GetUser()+m.GetGroup()+" "+verb+" the role "+m.GetRole()+" in the federation, by the word of "+c.actor)
}

func bindingReference(m *apiv1.RoleBinding) *apiv1.Reference {
	return &apiv1.Reference{Kind: "role-binding", Id: m.GetId(), Name: m.GetUser() + m.GetGroup() + "/" + m.GetRole()}
}
