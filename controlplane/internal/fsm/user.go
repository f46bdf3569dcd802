package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
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
	was.Title, was.Email, was.Language = m.GetTitle(), m.GetEmail(), m.GetLanguage()
	was.Organization, was.OrganizationId = m.GetOrganization(), m.GetOrganizationId()
	return put(c.tx.Users, was)
}

// disableUser refuses the user from now on, everywhere: nobody can log in or act as a disabled user.
func (c *command) disableUser(in *commandv1.DisableUser) (*commandv1.Result, error) {
	m, err := stored(c.tx.Users, "user", in.GetUserId(), "")
	if err != nil {
		return nil, err
	}
	if err := c.staysAdministered(taken{user: m.GetId()}); err != nil {
		return nil, err
	}
	if _, err := c.endSessions(m.GetId(), ""); err != nil {
		return nil, err
	}
	if err := c.tx.AccessTokens.DeleteAll(state.Scope{"user_id": m.GetId()}); err != nil {
		return nil, err
	}
	if err := c.dropLocalOperator(m.GetId()); err != nil {
		return nil, err
	}
	m.Disabled, m.DisabledReason = true, in.GetReason()
	if err := c.notifyUser("account.disabled", m); err != nil {
		return nil, err
	}
	return put(c.tx.Users, m)
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

// deleteUser deletes a user, with sessions, memberships, rights, and what showed that it was them.
func (c *command) deleteUser(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Users, "user", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.staysAdministered(taken{user: m.GetId()}); err != nil {
		return nil, err
	}
	if _, err := c.endSessions(m.GetId(), ""); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetKeys(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.AccessTokens.DeleteAll(state.Scope{"user_id": m.GetId()}); err != nil {
		return nil, err
	}
	if err := c.dropLocalOperator(m.GetId()); err != nil {
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
	return remove(c, c.tx.Users, "user", m)
}
