package fsm

import (
	"slices"

	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// maxProviders bounds what whoever logs in is offered.
const maxProviders = 32

func (c *command) createIdentityProvider(in *commandv1.CreateIdentityProvider) (*commandv1.Result, error) {
	m := in.GetIdentityProvider()
	if err := mayCreate(c.tx.IdentityProviders, "identity provider", m, nil); err != nil {
		return nil, err
	}
	if (m.GetOidc() == nil) == (m.GetLdap() == nil) {
		return nil, invalid("an identity provider is oidc or ldap")
	}
	n, err := c.tx.IdentityProviders.Count(nil, "")
	if err != nil {
		return nil, err
	}
	if n >= maxProviders {
		return nil, problem.Newf(problem.TooMany, "Delete one that is not needed: naru identity-provider list.", "there are %d identity providers, and no more can be made", n)
	}
	if err := c.providerRefers(m); err != nil {
		return nil, err
	}
	m.CreatedAt, m.SetBy = c.now, nil
	if err := c.handIn(m); err != nil {
		return nil, err
	}
	return create(c, c.tx.IdentityProviders, "identity-provider", m)
}

// providerRefers refuses a provider that refers to what is not there.
func (c *command) providerRefers(m *apiv1.IdentityProvider) error {
	for _, g := range m.GetGroupMappings() {
		if _, err := stored(c.tx.Groups, "group", g.GetGroupId(), ""); err != nil {
			return err
		}
	}
	return c.organizationExists(m.GetOrganizationId(), m.GetOrganization())
}

// handIn notes that whoever acts could log in through the provider as whoever is linked with it, and so could those who could have acted
// as them.
func (c *command) handIn(m *apiv1.IdentityProvider) error {
	behind, err := hold.Behind(c.tx, c.by)
	if err == nil {
		m.SetBy = withHolders(m.GetSetBy(), behind, "")
	}
	return err
}

// updateIdentityProvider changes a provider. Who somebody is by it, its issuer says, or the attribute by which a directory knows people:
// these stay while anybody is linked. Its secret was given for one client, or for one directory: it is forgotten where it would go to
// another.
func (c *command) updateIdentityProvider(in *commandv1.UpdateIdentityProvider) (*commandv1.Result, error) {
	m := in.GetIdentityProvider()
	was, err := stored(c.tx.IdentityProviders, "identity provider", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("identity provider", was, m); err != nil {
		return nil, err
	}
	if (was.GetOidc() == nil) != (m.GetOidc() == nil) || (was.GetLdap() == nil) != (m.GetLdap() == nil) {
		return nil, problem.Newf(problem.Invalid, "Make another identity provider.", "identity provider %s is %s for ever", was.GetName(), providerKind(was))
	}
	if err := c.providerRefers(m); err != nil {
		return nil, err
	}
	if was.GetOidc().GetIssuer() != m.GetOidc().GetIssuer() || was.GetLdap().GetIdAttribute() != m.GetLdap().GetIdAttribute() {
		linked, err := c.tx.IdentitiesOf(was.GetId(), "", 1)
		if err != nil {
			return nil, err
		}
		if len(linked) > 0 {
			return nil, problem.Newf(problem.InUse, "Make another identity provider, and link people anew.", "people are linked by what identity provider %s calls them, and another would call others so", was.GetName())
		}
	}
	elsewhere := was.GetOidc().GetIssuer() != m.GetOidc().GetIssuer() || was.GetOidc().GetClientId() != m.GetOidc().GetClientId() || was.GetOidc().GetCa() != m.GetOidc().GetCa() ||
		was.GetLdap().GetCa() != m.GetLdap().GetCa() || was.GetLdap().GetBindDn() != m.GetLdap().GetBindDn() || !slices.Equal(was.GetLdap().GetUrls(), m.GetLdap().GetUrls())
	if elsewhere && was.GetSecretSetAt() != nil {
		was.SecretSetAt = nil
		if err := c.tx.ForgetProviderSecret(was.GetId()); err != nil {
			return nil, err
		}
	}
	was.Title, was.Disabled, was.Oidc, was.Ldap, was.CreateUsers = m.GetTitle(), m.GetDisabled(), m.GetOidc(), m.GetLdap(), m.GetCreateUsers()
	was.Organization, was.OrganizationId, was.GroupMappings, was.SessionMinutes = m.GetOrganization(), m.GetOrganizationId(), m.GetGroupMappings(), m.GetSessionMinutes()
	if err := c.handIn(was); err != nil {
		return nil, err
	}
	if err := c.keepingAdministered(func() error {
		if err := c.withdraw(was); err != nil {
			return err
		}
		return c.tx.IdentityProviders.Put(was)
	}); err != nil {
		return nil, err
	}
	return made(was, nil)
}

func providerKind(m *apiv1.IdentityProvider) string {
	if m.GetOidc() != nil {
		return "oidc"
	}
	return "ldap"
}

// withdraw takes away what a provider has given and does not give as it is now: places in groups that it maps to nothing, and of one that
// is disabled everything.
func (c *command) withdraw(p *apiv1.IdentityProvider) error {
	places, err := c.tx.MembershipsBy(p.GetId(), "")
	if err != nil {
		return err
	}
	for _, m := range places {
		mapped := slices.ContainsFunc(p.GetGroupMappings(), func(g *apiv1.GroupMapping) bool { return g.GetGroupId() == m.GroupID })
		if mapped && !p.GetDisabled() {
			continue
		}
		if err := c.tx.ForgetMembership(m.GroupID, m.UserID); err != nil {
			return err
		}
	}
	if !p.GetDisabled() {
		return nil
	}
	return c.eachIdentity(p.GetId(), func(m *apiv1.Identity) error { return c.tx.Sessions.DeleteAll(by(m)) })
}

// eachIdentity calls f with every identity of a provider, some at a time: what is being read is not written.
func (c *command) eachIdentity(providerID string, f func(*apiv1.Identity) error) error {
	for after := ""; ; {
		some, err := c.tx.IdentitiesOf(providerID, after, 500)
		if err != nil || len(some) == 0 {
			return err
		}
		for _, m := range some {
			after = m.GetId()
			if err := f(m); err != nil {
				return err
			}
		}
	}
}

func (c *command) deleteIdentityProvider(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.IdentityProviders, "identity provider", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.keepingAdministered(func() error { return c.eachIdentity(m.GetId(), c.forgetIdentity) }); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetProviderSecret(m.GetId()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.IdentityProviders, "identity-provider", m)
}

func (c *command) setIdentityProviderSecret(in *commandv1.SetIdentityProviderSecret) (*commandv1.Result, error) {
	m, err := stored(c.tx.IdentityProviders, "identity provider", in.GetIdentityProviderId(), "")
	if err != nil {
		return nil, err
	}
	if len(in.GetSealed()) == 0 {
		return nil, invalid("a secret is not empty")
	}
	if err := c.tx.PutProviderSecret(&commandv1.ProviderSecret{IdentityProviderId: m.GetId(), Sealed: in.GetSealed()}); err != nil {
		return nil, err
	}
	m.SecretSetAt = c.now
	if err := c.handIn(m); err != nil {
		return nil, err
	}
	return put(c.tx.IdentityProviders, m)
}

// beginProviderSession lets in whom a provider has let in. By which provider the proposer asked, who that is here, and that what was shown
// counts for the first time, is judged here.
func (c *command) beginProviderSession(in *commandv1.BeginProviderSession) (*commandv1.Result, error) {
	m, session := in.GetIdentity(), in.GetSession()
	p, err := c.providerAsked(m.GetIdentityProviderId(), in.GetProviderRevision())
	if err != nil {
		return nil, err
	}
	known, err := c.tx.IdentityOf(p.GetId(), m.GetSubject())
	if err != nil && !missing(err) {
		return nil, err
	}
	user := in.GetUser()
	kept := &commandv1.Credentials{UserId: user.GetId()}
	switch first := missing(err); {
	case !first && known.GetId() != m.GetId():
		return nil, problem.New(problem.Conflict, "they were linked meanwhile", "Try again.")
	case !first:
		if user, kept, err = c.credentials(known.GetUserId()); err != nil {
			return nil, err
		}
		if known.GetMadeUser() {
			user.Title, user.Email = in.GetUser().GetTitle(), in.GetUser().GetEmail()
		}
	case !p.GetCreateUsers():
		return nil, problem.New(problem.Conflict, "they are no longer linked with anybody", "Try again.")
	default:
		if err := c.mayBeMade(user, p); err != nil {
			return nil, err
		}
		if err := c.mayLink(m, p, user); err != nil {
			return nil, err
		}
	}
	if err := c.counts(user, kept, in.GetShown()); err != nil {
		return nil, err
	}
	if err := c.mayBegin(session); err != nil {
		return nil, err
	}
	first := known == nil
	if first {
		known, m.MadeUser, m.SetBy, user.CreatedAt = m, true, nil, c.now
	}
	// From now on it may have been any of those who have had a hand in the provider.
	known.SetBy = withHolders(known.GetSetBy(), p.GetSetBy(), user.GetId())
	user.GoneAt = nil
	known.Login, known.LastLoginAt, known.GoneAt, known.SealedRefreshToken = m.GetLogin(), c.now, nil, m.GetSealedRefreshToken()
	if first {
		err = c.link(known, p, user)
	} else if err = c.tx.Users.Put(user); err == nil {
		err = c.tx.Identities.Put(known)
	}
	if err != nil {
		return nil, err
	}
	if err := c.placesBy(known, in.GetGroupIds()); err != nil {
		return nil, err
	}
	if err := c.useTicket(in.GetTicketHash()); err != nil {
		return nil, err
	}
	session.UserId, session.IdentityProvider, session.IdentityProviderId, session.IdentityId = user.GetId(), p.GetName(), p.GetId(), known.GetId()
	return c.letIn(session, user, kept, in.GetShown(), in.GetDeviceHash())
}

// providerAsked is a provider as the proposer asked it.
func (c *command) providerAsked(id, revision string) (*apiv1.IdentityProvider, error) {
	p, err := stored(c.tx.IdentityProviders, "identity provider", id, revision)
	if err != nil {
		return nil, err
	}
	if p.GetDisabled() {
		return nil, problem.Newf(problem.Forbidden, "Log in another way, or ask an administrator.", "identity provider %s is disabled", p.GetName())
	}
	return p, nil
}

// mayBeMade refuses a user whom a first login would make.
func (c *command) mayBeMade(user *apiv1.User, p *apiv1.IdentityProvider) error {
	if user.GetKind() != apiv1.User_PERSON || user.GetOrganizationId() != p.GetOrganizationId() || len(user.GetIdentityProviders()) > 0 {
		return invalid("a first login makes a person, in the organization of the identity provider")
	}
	if err := mayCreate(c.tx.Users, "user", user, nil); err != nil {
		return err
	}
	return c.organizationExists(user.GetOrganizationId(), user.GetOrganization())
}

// useTicket notes that a ticket of BeginProviderLogin has counted: to whichever key what came with it was sealed. It is forgotten with the
// newest key, long after the ticket itself counts no more.
func (c *command) useTicket(hash []byte) error {
	if len(hash) == 0 {
		return nil
	}
	ring, err := c.tx.Keyring()
	if err != nil {
		return err
	}
	newest := ""
	for _, k := range ring.GetSealingKeys() {
		newest = k.GetId()
		if err := c.unused(newest, hash); err != nil {
			return err
		}
	}
	return c.tx.UseSeal(newest, hash)
}
