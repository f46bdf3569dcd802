package fsm

import (
	"slices"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// firstOrganization is there from the bootstrap on: projects and users that name no other belong to it.
	firstOrganization = "default"
	// maxLevels is how high a tree of organizations may be.
	maxLevels = 16
)

func (c *command) createOrganization(in *commandv1.CreateOrganization) (*commandv1.Result, error) {
	m := in.GetOrganization()
	if err := mayCreate(c.tx.Organizations, "organization", m, nil); err != nil {
		return nil, err
	}
	if err := c.mayStandBelow(m, nil); err != nil {
		return nil, err
	}
	m.CreatedAt = c.now
	return create(c, c.tx.Organizations, "organization", m)
}

func (c *command) updateOrganization(in *commandv1.UpdateOrganization) (*commandv1.Result, error) {
	m := in.GetOrganization()
	was, err := stored(c.tx.Organizations, "organization", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("organization", was, m); err != nil {
		return nil, err
	}
	below, err := c.tx.OrganizationsBelow(m.GetId())
	if err != nil {
		return nil, err
	}
	if err := c.mayStandBelow(m, below); err != nil {
		return nil, err
	}
	m.CreatedAt = was.GetCreatedAt()
	if err := c.tx.MoveSums(m.GetId(), was.GetParentId(), m.GetParentId()); err != nil {
		return nil, err
	}
	return put(c.tx.Organizations, m)
}

// mayStandBelow checks the parent that an organization names: it is there, it is none of those below, and the tree does not
// grow too high.
func (c *command) mayStandBelow(m *apiv1.Organization, below []string) error {
	if m.GetParentId() == "" && m.GetParent() == "" {
		return nil
	}
	if err := c.organizationExists(m.GetParentId(), m.GetParent()); err != nil {
		return err
	}
	if slices.Contains(below, m.GetParentId()) {
		return problem.Newf(problem.WrongState, "Move "+m.GetParent()+" out of it first.",
			"organization %s cannot stand below %s, which is itself or stands below it", m.GetName(), m.GetParent())
	}
	above, err := c.tx.OrganizationsAbove(m.GetParentId())
	if err != nil {
		return err
	}
	levels, err := c.tx.OrganizationLevels(m.GetId())
	if err != nil {
		return err
	}
	if len(above)+levels > maxLevels {
		return problem.Newf(problem.Invalid, "Put it higher up.", "below %s the tree would have %d levels, and may have %d", m.GetParent(), len(above)+levels, maxLevels)
	}
	return nil
}

func (c *command) deleteOrganization(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Organizations, "organization", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(dependents(c.tx.Organizations, "organization", state.Scope{"parent_id": m.GetId()}))
	u.add(dependents(c.tx.Projects, "project", state.Scope{"organization_id": m.GetId()}))
	u.add(dependents(c.tx.Users, "user", state.Scope{"organization_id": m.GetId()}))
	u.add(dependents(c.tx.IdentityProviders, "identity provider", state.Scope{"organization_id": m.GetId()}))
	if err := u.refuse("organization", m.GetName()); err != nil {
		return nil, err
	}
	if err := c.tx.Quotas.DeleteAll(state.Scope{"organization_id": m.GetId()}); err != nil {
		return nil, err
	}
	if err := c.tx.RoleBindings.DeleteAll(state.Scope{"place_id": m.GetId()}); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Organizations, "organization", m)
}

// organizationExists checks that a noun names an organization that exists, by id and name.
func (c *command) organizationExists(id, name string) error {
	m, err := c.tx.Organizations.Get(id)
	if err != nil {
		return orNotFound(err, "organization", name)
	}
	if m.GetName() != name {
		return invalid("organization " + id + " is " + m.GetName() + ", not " + name)
	}
	return nil
}
