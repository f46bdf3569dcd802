package fsm

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// linkIdentity lets somebody whom a provider knows log in as a user. Whoever does that chooses who, and so could be it themselves, as long
// as the link stands.
func (c *command) linkIdentity(in *commandv1.LinkIdentity) (*commandv1.Result, error) {
	m := in.GetIdentity()
	p, err := stored(c.tx.IdentityProviders, "identity provider", m.GetIdentityProviderId(), "")
	if err != nil {
		return nil, err
	}
	user, _, err := c.credentials(m.GetUserId())
	if err != nil {
		return nil, err
	}
	if err := c.mayLink(m, p, user); err != nil {
		return nil, err
	}
	behind, err := hold.Behind(c.tx, c.by)
	if err != nil {
		return nil, err
	}
	m.SetBy = withHolders(nil, behind, user.GetId())
	if err := c.link(m, p, user); err != nil {
		return nil, err
	}
	if err := c.notifyUser("account.identity-linked", user, parameter("provider", p.GetName())); err != nil {
		return nil, err
	}
	return made(m, nil)
}

// mayLink refuses to link whom a provider knows already as somebody, and a user who is somebody else there.
func (c *command) mayLink(m *apiv1.Identity, p *apiv1.IdentityProvider, user *apiv1.User) error {
	if m.GetId() == "" || m.GetSubject() == "" {
		return invalid("an identity has an id and a subject")
	}
	if _, err := c.tx.Identities.Get(m.GetId()); !missing(err) {
		return invalid("the id " + m.GetId() + " is another identity's")
	}
	other, err := c.tx.IdentityOf(p.GetId(), m.GetSubject())
	switch {
	case err == nil:
		return problem.Newf(problem.InUse, "End that first: naru identity-provider unlink "+other.GetId()+".", "%s of identity provider %s is user %s already", m.GetSubject(), p.GetName(), other.GetUser())
	case !missing(err):
		return err
	case slices.Contains(user.GetIdentityProviders(), p.GetName()):
		return problem.Newf(problem.InUse, "End that first: naru identity-provider identities --filter user="+user.GetName()+" shows it.", "user %s is somebody else at identity provider %s already", user.GetName(), p.GetName())
	}
	return nil
}

func (c *command) link(m *apiv1.Identity, p *apiv1.IdentityProvider, user *apiv1.User) error {
	m.IdentityProvider, m.User, m.UserId, m.CreatedAt = p.GetName(), user.GetName(), user.GetId(), c.now
	user.GoneAt = nil
	user.IdentityProviders = append(user.GetIdentityProviders(), p.GetName())
	if err := c.tx.Users.Put(user); err != nil {
		return err
	}
	return c.tx.Identities.Put(m)
}

func (c *command) unlinkIdentity(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := c.tx.Identities.Get(in.GetId())
	if err != nil {
		return nil, orNotFound(err, "identity", in.GetId())
	}
	if err := c.keepingAdministered(func() error { return c.forgetIdentity(m) }); err != nil {
		return nil, err
	}
	return made(m, nil)
}

// by is the scope of what was begun by an identity.
func by(m *apiv1.Identity) state.Scope { return state.Scope{"identity_id": m.GetId()} }

// forgetIdentity ends that somebody is a user by a provider's word, with what that gave.
func (c *command) forgetIdentity(m *apiv1.Identity) error {
	if err := c.tx.Sessions.DeleteAll(by(m)); err != nil {
		return err
	}
	if err := c.placesBy(m, nil); err != nil {
		return err
	}
	if err := c.tx.Identities.Delete(m.GetId()); err != nil {
		return err
	}
	user, kept, err := c.credentials(m.GetUserId())
	if err != nil {
		return err
	}
	// One's own hand takes nobody away who may have been the user: what they did as the user stays.
	if c.by != "" && (c.by == user.GetId() || slices.Contains(m.GetSetBy(), c.by)) {
		kept.SetBy = withHolders(kept.GetSetBy(), m.GetSetBy(), user.GetId())
		if err := c.tx.PutCredentials(kept); err != nil {
			return err
		}
	}
	user.IdentityProviders = slices.DeleteFunc(user.GetIdentityProviders(), func(name string) bool { return name == m.GetIdentityProvider() })
	if err := c.comesIn(user, kept); err != nil {
		return err
	}
	return c.tx.Users.Put(user)
}

// waysIn returns the providers that would let a user in, were they enabled: directories that know them still. A provider of OpenID Connect
// only says that somebody has to log in again, and lets them.
func (c *command) waysIn(userID string) (providers []*apiv1.IdentityProvider, err error) {
	for m, err := range c.tx.Identities.All(state.Scope{"user_id": userID}) {
		if err != nil {
			return nil, err
		}
		p, err := c.tx.IdentityProviders.Get(m.GetIdentityProviderId())
		if err != nil && !missing(err) {
			return nil, err
		}
		if err == nil && (m.GetGoneAt() == nil || p.GetOidc() != nil) {
			providers = append(providers, p)
		}
	}
	return providers, nil
}

// comesIn notes since when a user has no way in any more: no provider by which they are linked lets them in, and no password is their own.
// It is asked where a link or a password changes, so that who was never given any is not gone.
func (c *command) comesIn(user *apiv1.User, kept *commandv1.Credentials) error {
	providers, err := c.waysIn(user.GetId())
	switch {
	case err != nil:
		return err
	case ownPassword(kept) || len(providers) > 0:
		user.GoneAt = nil
	case user.GoneAt == nil:
		user.GoneAt = c.now
	}
	return nil
}

// placesBy gives a user the places in groups that a provider gives them, and takes from them those that it gave and gives no longer. Where
// somebody put them, they stay.
func (c *command) placesBy(m *apiv1.Identity, groupIDs []string) error {
	had, err := c.tx.MembershipsBy(m.GetIdentityProviderId(), m.GetUserId())
	if err != nil {
		return err
	}
	for _, place := range had {
		if slices.Contains(groupIDs, place.GroupID) {
			continue
		}
		if err := c.tx.ForgetMembership(place.GroupID, place.UserID); err != nil {
			return err
		}
	}
	for _, id := range groupIDs {
		if _, err := stored(c.tx.Groups, "group", id, ""); err != nil {
			return err
		}
		if _, err := c.tx.Membership(id, m.GetUserId()); err == nil {
			continue
		} else if !missing(err) {
			return err
		}
		if err := c.tx.PutMembership(state.Membership{
			GroupID: id, UserID: m.GetUserId(), AddedBy: "identity-provider:" + m.GetIdentityProvider(), AddedAt: state.Micros(c.now), ProviderID: m.GetIdentityProviderId(),
		}); err != nil {
			return err
		}
	}
	return nil
}

// checkIdentity writes down what a provider says now of somebody. Who is gone there is out here, as far as they came in by it.
func (c *command) checkIdentity(in *commandv1.CheckIdentity) (*commandv1.Result, error) {
	m, err := c.tx.Identities.Get(in.GetIdentityId())
	if err != nil {
		return nil, orNotFound(err, "identity", in.GetIdentityId())
	}
	if m.GetRevision() != in.GetExpectedRevision() {
		return nil, problem.New(problem.Conflict, "the identity was changed meanwhile", "Ask the provider again.")
	}
	if _, err := c.providerAsked(m.GetIdentityProviderId(), in.GetProviderRevision()); err != nil {
		return nil, err
	}
	was := proto.CloneOf(m)
	if in.GetGone() {
		if m.GoneAt == nil {
			m.GoneAt = c.now
		}
		m.SealedRefreshToken = nil
		if err := c.tx.Sessions.DeleteAll(by(m)); err != nil {
			return nil, err
		}
		err = c.placesBy(m, nil)
	} else {
		m.GoneAt = nil
		if len(in.GetSealedRefreshToken()) > 0 {
			m.SealedRefreshToken = in.GetSealedRefreshToken()
		}
		if !in.GetGroupsUnknown() {
			err = c.placesBy(m, in.GetGroupIds())
		}
	}
	if err != nil {
		return nil, err
	}
	if !proto.Equal(was, m) {
		if err := c.tx.Identities.Put(m); err != nil {
			return nil, err
		}
	}
	if (was.GetGoneAt() == nil) != (m.GetGoneAt() == nil) {
		user, kept, err := c.credentials(m.GetUserId())
		if err != nil {
			return nil, err
		}
		if err := c.comesIn(user, kept); err != nil {
			return nil, err
		}
		if err := c.tx.Users.Put(user); err != nil {
			return nil, err
		}
	}
	return made(m, nil)
}
