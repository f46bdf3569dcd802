package fsm

import (
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createAccessToken(in *commandv1.CreateAccessToken) (*commandv1.Result, error) {
	m := in.GetAccessToken()
	if err := mayCreate(c.tx.AccessTokens, "access token", m, nil); err != nil {
		return nil, err
	}
	if len(m.GetSecretHash()) != 32 {
		return nil, invalid("an access token needs the SHA-256 of its secret")
	}
	if m.GetUserId() == "" && m.GetProjectId() == "" {
		return nil, invalid("an access token is of a service or of a project")
	}
	if m.GetProjectId() != "" || m.GetProject() != "" {
		if err := c.projectExists(m.GetProjectId(), m.GetProject()); err != nil {
			return nil, err
		}
	}
	if m.GetUserId() != "" {
		user, err := stored(c.tx.Users, "user", m.GetUserId(), "")
		if err != nil {
			return nil, err
		}
		if user.GetKind() != apiv1.User_SERVICE || user.GetDisabled() {
			return nil, problem.Newf(problem.WrongState, "Name a service that is enabled; a person logs in: naru login.",
				"user %s is a person or disabled, and gets no access token", user.GetName())
		}
	}
	if m.GetZoneId() != "" || m.GetZone() != "" {
		if _, err := c.zoneOf(m.GetZoneId(), m.GetZone()); err != nil {
			return nil, err
		}
	}
	m.CreatedBy, m.CreatedById, m.CreatedByUserId, m.CreatedAt = c.actor, c.by, c.person, c.now
	return put(c.tx.AccessTokens, m)
}

func (c *command) deleteAccessToken(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.AccessTokens, "access token", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.tx.ForgetKeys(m.GetId()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.AccessTokens, "access-token", m)
}

// endAccessTokens ends those of a service, and those that a user made; by are the ids under which the user called: a token that was made with
// one that ends goes with it.
func (c *command) endAccessTokens(m *apiv1.User, by map[string]bool) (ended []*apiv1.Reference, err error) {
	var all []*apiv1.AccessToken
	for t, err := range c.tx.AccessTokens.All(nil) {
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	for more := true; more; {
		more = false
		for _, t := range all {
			if by[t.GetId()] || t.GetUserId() != m.GetId() && t.GetCreatedByUserId() != m.GetId() && !by[t.GetCreatedById()] {
				continue
			}
			by[t.GetId()], more = true, true
			ended = append(ended, reference("access-token", t))
			if err := c.tell(apiv1.Event_WARNING, accessTokenDeleted, where(t), reference("access-token", t),
				"access token "+t.GetName()+" ended with user "+m.GetName()+", whose it was or who made it; whoever needs it makes another: naru token create"); err != nil {
				return nil, err
			}
			if err := c.tx.ForgetKeys(t.GetId()); err != nil {
				return nil, err
			}
			if err := c.tx.AccessTokens.Delete(t.GetId()); err != nil {
				return nil, err
			}
		}
	}
	return ended, nil
}

// projectExists checks that a noun names a project that exists, by id and name.
func (c *command) projectExists(id, name string) error {
	p, err := c.tx.Projects.Get(id)
	if err != nil {
		return orNotFound(err, "project", name)
	}
	if p.GetName() != name {
		return invalid("project " + id + " is " + p.GetName() + ", not " + name)
	}
	return nil
}
