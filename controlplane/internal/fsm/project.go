package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createProject(in *commandv1.CreateProject) (*commandv1.Result, error) {
	m := in.GetProject()
	if err := mayCreate(c.tx.Projects, "project", m, nil); err != nil {
		return nil, err
	}
	if err := c.organizationExists(m.GetOrganizationId(), m.GetOrganization()); err != nil {
		return nil, err
	}
	m.CreatedAt = c.now
	return create(c, c.tx.Projects, "project", m)
}

func (c *command) updateProject(in *commandv1.UpdateProject) (*commandv1.Result, error) {
	m := in.GetProject()
	was, err := stored(c.tx.Projects, "project", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("project", was, m); err != nil {
		return nil, err
	}
	if err := c.organizationExists(m.GetOrganizationId(), m.GetOrganization()); err != nil {
		return nil, err
	}
	if err := c.mayGrade("project", m.GetName(), m.GetGrade(), state.Scope{"project_id": m.GetId()}); err != nil {
		return nil, err
	}
	m.CreatedAt = was.GetCreatedAt()
	if err := c.tx.MoveSums(m.GetId(), was.GetOrganizationId(), m.GetOrganizationId()); err != nil {
		return nil, err
	}
	r, err := put(c.tx.Projects, m)
	if err != nil || m.GetGrade() == was.GetGrade() {
		return r, err
	}
	return r, c.tx.Regrade(m.GetId(), "")
}

func (c *command) deleteProject(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Projects, "project", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(dependents(c.tx.VMs, "VM", state.Scope{"project_id": m.GetId()}))
	u.add(dependents(c.tx.AccessTokens, "access token", state.Scope{"project_id": m.GetId()}))
	u.add(c.holding(m.GetId()))
	if err := u.refuse("project", m.GetName()); err != nil {
		return nil, err
	}
	if err := c.tx.Quotas.DeleteAll(state.Scope{"project_id": m.GetId()}); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetCrossingsOf(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.RoleBindings.DeleteAll(state.Scope{"place_id": m.GetId()}); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Projects, "project", m)
}
