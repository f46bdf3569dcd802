package fsm

import (
	"slices"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/controlplane/internal/tie"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createUser(in *commandv1.CreateUser) (*commandv1.Result, error) {
	m := in.GetUser()
	if err := mayCreate(c.tx.Users, "user", m, nil); err != nil {
		return nil, err
	}
	if m.GetKind() == apiv1.User_KIND_UNSPECIFIED {
		return nil, invalid("a user is a person or a service")
	}
	if err := c.organizationExists(m.GetOrganizationId(), m.GetOrganization()); err != nil {
		return nil, err
	}
	m.CreatedAt = c.now
	return create(c, c.tx.Users, "user", m)
}

func (c *command) updateUser(in *commandv1.UpdateUser) (*commandv1.Result, error) {
	m := in.GetUser()
	was, err := stored(c.tx.Users, "user", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("user", was, m); err != nil {
		return nil, err
	}
	if err := c.organizationExists(m.GetOrganizationId(), m.GetOrganization()); err != nil {
		return nil, err
	}
	var ties *tie.Ties
	if was.GetOrganizationId() != m.GetOrganizationId() {
		if ties, err = tie.Of(c.tx, was, m.GetOrganizationId(), c.clock); err != nil {
			return nil, err
		}
		if in.GetDropRights() && !slices.Equal(ties.IDs(), in.GetEnds()) {
			return nil, problem.Newf(problem.Conflict, "Try again.", "what %s has by organization %s was changed meanwhile", was.GetName(), was.GetOrganization())
		}
	}
	was.Title, was.Email, was.Language = m.GetTitle(), m.GetEmail(), m.GetLanguage()
	was.Organization, was.OrganizationId = m.GetOrganization(), m.GetOrganizationId()
	if err := c.tx.Users.Put(was); err != nil {
		return nil, err
	}
	switch {
	case ties == nil:
	case in.GetDropRights():
		was.Dropped, was.Keeps = ties.Ending(), ties.Rest
		err = c.untie(was, ties)
	default:
		was.Keeps = ties.All()
	}
	if err != nil {
		return nil, err
	}
	return made(was, nil)
}

// untie ends what ties a user to the organization that they have left, each as it is ended by itself.
func (c *command) untie(user *apiv1.User, ties *tie.Ties) error {
	ended := func(kind string, target *apiv1.Reference, at whereabouts) error {
		return c.finish(c.accepted(c.nextID(), kind, target, at, nil), nil)
	}
	for _, b := range ties.Bindings {
		if err := c.tx.RoleBindings.Delete(b.GetId()); err != nil {
			return err
		}
		if err := ended("role-binding.delete", bindingReference(b), where(b)); err != nil {
			return err
		}
	}
	for _, g := range ties.Groups {
		if err := c.tx.ForgetMembership(g.GetId(), user.GetId()); err != nil {
			return err
		}
	}
	for _, d := range ties.Delegations {
		if err := c.notifyOfDelegation("delegation.deleted", d); err != nil {
			return err
		}
		if err := c.tx.Delegations.Delete(d.GetId()); err != nil {
			return err
		}
		if err := ended("delegation.delete", delegationReference(d), where(d)); err != nil {
			return err
		}
	}
	return nil
}

// mayGo refuses to disable or delete who does it themselves, and who is the last one to administer the federation.
func (c *command) mayGo(m *apiv1.User) error {
	if c.person == m.GetId() {
		return problem.Newf(problem.WrongState, "Another administrator does it.", "%s is the one who asks, and nobody shuts themselves out", m.GetName())
	}
	return c.staysAdministered(state.Taken{UserID: m.GetId()})
}

// disableUser refuses the user from now on, everywhere: nobody can log in or act as a disabled user.
func (c *command) disableUser(in *commandv1.DisableUser) (*commandv1.Result, error) {
	m, err := stored(c.tx.Users, "user", in.GetUserId(), "")
	if err != nil {
		return nil, err
	}
	if err := c.mayGo(m); err != nil {
		return nil, err
	}
	ended, err := c.endCredentials(m)
	if err != nil {
		return nil, err
	}
	m.Disabled, m.DisabledReason = true, in.GetReason()
	if err := c.notifyUser("account.disabled", m); err != nil {
		return nil, err
	}
	if err := c.tx.Users.Put(m); err != nil {
		return nil, err
	}
	return made(&apiv1.DisableUserResponse{User: m, Ended: ended}, nil)
}

// endCredentials ends all by which a user could go on: sessions, what a zone knows them by, the administrators' certificates that say that
// they are theirs, the tokens of a service, and those that the user made and so has seen. It returns which certificates and tokens.
func (c *command) endCredentials(m *apiv1.User) (ended []*apiv1.Reference, err error) {
	administrators, err := c.endAdministrators(func(a *apiv1.Administrator) bool { return a.GetUserId() == m.GetId() })
	if err != nil {
		return nil, err
	}
	by := map[string]bool{m.GetId(): true}
	for _, a := range administrators {
		by[a.GetId()] = true
		ended = append(ended, reference("administrator", a))
	}
	tokens, err := c.endAccessTokens(m, by)
	if err != nil {
		return nil, err
	}
	if _, err := c.endSessions(m.GetId(), ""); err != nil {
		return nil, err
	}
	return append(ended, tokens...), c.dropLocalOperator(m.GetId())
}

func (c *command) enableUser(in *commandv1.EnableUser) (*commandv1.Result, error) {
	m, err := stored(c.tx.Users, "user", in.GetUserId(), "")
	if err != nil {
		return nil, err
	}
	if !m.GetDisabled() {
		return nil, problem.Newf(problem.WrongState, "", "user %s is not disabled", m.GetName())
	}
	m.Disabled, m.DisabledReason = false, ""
	if err := c.notifyUser("account.enabled", m); err != nil {
		return nil, err
	}
	return put(c.tx.Users, m)
}

// deleteUser deletes a user, with memberships, rights, and whatever showed that it was them.
func (c *command) deleteUser(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Users, "user", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.mayGo(m); err != nil {
		return nil, err
	}
	ended, err := c.endCredentials(m)
	if err != nil {
		return nil, err
	}
	if err := c.tx.ForgetKeys(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetCredentials(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.Identities.DeleteAll(state.Scope{"user_id": m.GetId()}); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetMembershipsOf(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetNotificationsOf(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.RoleBindings.DeleteAll(state.Scope{"user_id": m.GetId()}); err != nil {
		return nil, err
	}
	if err := c.tx.Users.Delete(m.GetId()); err != nil {
		return nil, err
	}
	op, err := c.done("user.delete", reference("user", m), whereabouts{})
	if err != nil {
		return nil, err
	}
	return made(&apiv1.DeleteUserResponse{Operation: op, Ended: ended}, op)
}
