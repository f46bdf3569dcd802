package fsm

import (
	"slices"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// The federation stays administered by people: nothing takes away the last one who is bound to the role, nor the last one who can log in.

// standing is by whom the federation is administered.
type standing int

const (
	byNobody standing = iota
	byWhoIsBound
	byWhoLogsIn
)

// administration is by whom the federation is administered now, and by whom without an end: what will be when all has ended that ends.
type administration struct{ now, lasting standing }

// staysAdministered refuses to take away the last one who administers the federation, and the last one who can log in, of those who do
// now and of those who do without end. Where nobody does but by certificate, there is nobody to be taken away.
func (c *command) staysAdministered(without state.Taken) error {
	before, err := c.administered(state.Taken{})
	if err != nil {
		return err
	}
	return c.administeredAfter(without, before)
}

// keepingAdministered does what takes people's places away, and refuses it where nobody would administer the federation any more: after
// the writes, which a refusal undoes.
func (c *command) keepingAdministered(take func() error) error {
	before, err := c.administered(state.Taken{})
	if err != nil {
		return err
	}
	if err := take(); err != nil {
		return err
	}
	return c.administeredAfter(state.Taken{}, before)
}

func (c *command) administeredAfter(without state.Taken, before administration) error {
	still, err := c.administered(without)
	switch {
	case err != nil:
		return err
	case still.now < before.now:
		return problem.New(problem.InUse, "after this nobody who can log in would administer the federation",
			"Make another federation administrator first, and have them log in and choose a password: naru role-binding create "+federationAdministrator+" --user NAME.")
	case still.lasting < before.lasting:
		return problem.New(problem.InUse, "after this all who would administer the federation and can log in do so for a time",
			"Make another federation administrator first, without an end: naru role-binding create "+federationAdministrator+" --user NAME.")
	}
	return nil
}

// administered says by whom the federation is administered without what is taken away. It looks no further than the first who does without
// end and can log in.
func (c *command) administered(without state.Taken) (is administration, err error) {
	role, err := c.tx.Roles.ByName(federationAdministrator, nil)
	if missing(err) {
		return is, nil
	}
	if err != nil {
		return is, err
	}
	certified, err := c.certified()
	if err != nil {
		return is, err
	}
	for holder, err := range c.tx.HoldersEverywhere(role.GetId(), c.clock, without) {
		if err != nil {
			return is, err
		}
		how := byWhoIsBound
		if is.now < byWhoLogsIn || holder.Lasting {
			in, err := c.logsIn(holder.UserID, certified)
			if err != nil {
				return is, err
			}
			if in {
				how = byWhoLogsIn
			}
		}
		is.now = max(is.now, how)
		if holder.Lasting {
			is.lasting = max(is.lasting, how)
		}
		if is.lasting == byWhoLogsIn {
			return is, nil
		}
	}
	return is, nil
}

// certified returns the ids of users whose certificate as an administrator is good now.
func (c *command) certified() (userIDs []string, err error) {
	for m, err := range c.tx.Administrators.All(nil) {
		if err != nil {
			return nil, err
		}
		if m.GetUserId() != "" && later(m.GetExpiresAt(), c.clock) {
			userIDs = append(userIDs, m.GetUserId())
		}
	}
	return userIDs, nil
}

// logsIn reports whether a user could log in now: by a password of their own, by a provider that is enabled and would let them in, or by
// a certificate of theirs. Who was only given a password for one login may never come.
func (c *command) logsIn(userID string, certified []string) (bool, error) {
	user, err := c.tx.Users.Get(userID)
	if err != nil || user.GetKind() != apiv1.User_PERSON || request.Away(user) != "" {
		return false, err
	}
	kept, err := c.tx.Credentials(userID)
	if err != nil && !missing(err) {
		return false, err
	}
	if ownPassword(kept) || slices.Contains(certified, userID) {
		return true, nil
	}
	providers, err := c.waysIn(userID)
	return slices.ContainsFunc(providers, func(p *apiv1.IdentityProvider) bool { return !p.GetDisabled() }), err
}
