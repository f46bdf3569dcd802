package fsm

import (
	"slices"

	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// credentials returns what is kept of a person; new where that is nothing yet.
func (c *command) credentials(userID string) (*apiv1.User, *commandv1.Credentials, error) {
	user, err := stored(c.tx.Users, "user", userID, "")
	if err != nil {
		return nil, nil, err
	}
	if user.GetKind() != apiv1.User_PERSON {
		return nil, nil, problem.Newf(problem.WrongState, "Give it an access token: naru token create.", "user %s is a service, which has no password", user.GetName())
	}
	kept, err := c.tx.Credentials(userID)
	if missing(err) {
		return user, &commandv1.Credentials{UserId: userID}, nil
	}
	return user, kept, err
}

// putCredentials stores what is kept of a user, and what the user's record says of it.
func (c *command) putCredentials(user *apiv1.User, kept *commandv1.Credentials) (*commandv1.Result, error) {
	kept.Revision = c.tx.Meta().Text()
	if err := c.dropLocalOperator(user.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.PutCredentials(kept); err != nil {
		return nil, err
	}
	if ownPassword(kept) || len(user.GetIdentityProviders()) > 0 {
		if err := c.comesIn(user, kept); err != nil {
			return nil, err
		}
	}
	user.MustChangePassword, user.PasswordChangedAt = kept.GetOneTimeUntil() != nil, kept.GetChangedAt()
	user.SecondFactor = apiv1.User_NONE
	if len(kept.GetSealedAuthenticator()) > 0 {
		user.SecondFactor = apiv1.User_TOTP
	}
	return put(c.tx.Users, user)
}

// ownPassword reports whether a user has a password that they have chosen themselves.
func ownPassword(kept *commandv1.Credentials) bool {
	return kept.GetPassword() != "" && kept.GetOneTimeUntil() == nil
}

// resetPassword gives a person a password for one login. Who is logged in as them no longer is.
func (c *command) resetPassword(in *commandv1.ResetPassword) (*commandv1.Result, error) {
	user, kept, err := c.credentials(in.GetUserId())
	if err != nil {
		return nil, err
	}
	if in.GetPassword() == "" || in.GetUntil() == nil {
		return nil, invalid("a password for one login has an end")
	}
	if _, err := c.endSessions(user.GetId(), ""); err != nil {
		return nil, err
	}
	kept.Password, kept.ChangedAt, kept.OneTimeUntil, kept.Spent = in.GetPassword(), c.now, c.within(in.GetUntil(), oneTimeLasts), false
	kept.Devices, kept.LocalSalt, kept.SealedLocalRoot = nil, nil, nil
	// One's own hand takes nobody else's away.
	if c.by != user.GetId() {
		kept.SetBy = nil
	}
	if err := c.heldBy(kept); err != nil {
		return nil, err
	}
	if err := c.notifyUser("account.password-reset", user); err != nil {
		return nil, err
	}
	return c.putCredentials(user, kept)
}

// maxHolders bounds what is kept of who could be behind somebody, the newest; so many cannot be by chance.
const maxHolders = 256

// heldBy notes that whoever acts could log in as the user from now on, and so could those who could have acted as them.
func (c *command) heldBy(kept *commandv1.Credentials) error {
	behind, err := hold.Behind(c.tx, c.by)
	if err == nil {
		kept.SetBy = withHolders(kept.GetSetBy(), behind, kept.GetUserId())
	}
	return err
}

// withHolders adds ids but one to those of who has had hold of something.
func withHolders(held, ids []string, but string) []string {
	for _, id := range ids {
		if id != but && !slices.Contains(held, id) {
			held = append(held, id)
		}
	}
	return held[max(0, len(held)-maxHolders):]
}

// changePassword gives a person a password of their own; their other sessions end.
func (c *command) changePassword(in *commandv1.ChangePassword) (*commandv1.Result, error) {
	session, err := c.tx.Sessions.Get(in.GetSessionId())
	if err != nil {
		return nil, orNotFound(err, "session", in.GetSessionId())
	}
	if session.GetUserId() != in.GetUserId() || in.GetPassword() == "" || session.GetIdentityId() != "" {
		return nil, invalid("a session's user changes their own password, in a session that they began with one")
	}
	user, kept, err := c.shown(in.GetUserId(), in.GetShown())
	if err != nil {
		return nil, err
	}
	if kept.GetPassword() == "" {
		return nil, problem.Newf(problem.Conflict, "Ask an administrator: naru user reset-password.", "user %s has no password", user.GetName())
	}
	if err := c.count(kept, in.GetShown()); err != nil {
		return nil, err
	}
	if _, err := c.endSessions(user.GetId(), session.GetId()); err != nil {
		return nil, err
	}
	if session.GetMustChangePassword() {
		session.MustChangePassword = false
		if err := c.tx.Sessions.Put(session); err != nil {
			return nil, err
		}
	}
	kept.Password, kept.ChangedAt, kept.OneTimeUntil, kept.Spent = in.GetPassword(), c.now, nil, false
	kept.LocalSalt, kept.SealedLocalRoot = in.GetLocalSalt(), in.GetSealedLocalRoot()
	if err := c.notifyUser("account.password-changed", user); err != nil {
		return nil, err
	}
	return c.putCredentials(user, kept)
}

// enrollAuthenticator keeps the secret of an authenticator until it is confirmed.
func (c *command) enrollAuthenticator(in *commandv1.EnrollAuthenticator) (*commandv1.Result, error) {
	user, kept, err := c.shown(in.GetUserId(), in.GetShown())
	if err != nil {
		return nil, err
	}
	if len(kept.GetSealedAuthenticator()) > 0 {
		return nil, problem.Newf(problem.WrongState, "Remove it first: naru user remove-authenticator.", "user %s has an authenticator", user.GetName())
	}
	if len(in.GetSealedAuthenticator()) == 0 || !later(in.GetUntil(), c.clock) {
		return nil, invalid("an authenticator has a secret, and an end of its enrolment")
	}
	if err := c.count(kept, in.GetShown()); err != nil {
		return nil, err
	}
	kept.SealedNewAuthenticator, kept.NewAuthenticatorUntil = in.GetSealedAuthenticator(), c.within(in.GetUntil(), enrolmentLasts)
	return &commandv1.Result{}, c.tx.PutCredentials(kept)
}

// confirmAuthenticator lets the authenticator count that is being enrolled.
func (c *command) confirmAuthenticator(in *commandv1.ConfirmAuthenticator) (*commandv1.Result, error) {
	user, kept, err := c.shown(in.GetUserId(), in.GetShown())
	if err != nil {
		return nil, err
	}
	if len(kept.GetSealedNewAuthenticator()) == 0 || !later(kept.GetNewAuthenticatorUntil(), c.clock) {
		return nil, problem.New(problem.WrongState, "no authenticator is being enrolled, or it took longer than ten minutes", "Begin again: naru user enroll.")
	}
	if err := c.count(kept, in.GetShown()); err != nil {
		return nil, err
	}
	kept.SealedAuthenticator, kept.SealedNewAuthenticator, kept.NewAuthenticatorUntil = kept.GetSealedNewAuthenticator(), nil, nil
	if err := c.notifyUser("account.authenticator-added", user); err != nil {
		return nil, err
	}
	return c.putCredentials(user, kept)
}

// removeAuthenticator takes a second factor away: the user's own hand shows password and code, another's shows nothing.
func (c *command) removeAuthenticator(in *commandv1.RemoveAuthenticator) (*commandv1.Result, error) {
	var user *apiv1.User
	var kept *commandv1.Credentials
	var err error
	if in.GetShown() != nil {
		user, kept, err = c.shown(in.GetUserId(), in.GetShown())
	} else {
		user, kept, err = c.credentials(in.GetUserId())
	}
	if err != nil {
		return nil, err
	}
	if len(kept.GetSealedAuthenticator()) == 0 {
		return nil, problem.Newf(problem.WrongState, "", "user %s has no authenticator", user.GetName())
	}
	if in.GetShown() != nil {
		err = c.count(kept, in.GetShown())
	} else {
		err = c.heldBy(kept)
	}
	if err != nil {
		return nil, err
	}
	kept.SealedAuthenticator, kept.SealedNewAuthenticator, kept.NewAuthenticatorUntil, kept.Step = nil, nil, nil, 0
	if err := c.notifyUser("account.authenticator-removed", user); err != nil {
		return nil, err
	}
	return c.putCredentials(user, kept)
}

// addSealingKey makes a key the one to which people's secrets are sealed from now on; the one before still opens.
func (c *command) addSealingKey(in *commandv1.AddSealingKey) (*commandv1.Result, error) {
	ring, err := c.tx.Keyring()
	if err != nil {
		return nil, err
	}
	next, newest := in.GetSealingKey(), ""
	if keys := ring.GetSealingKeys(); len(keys) > 0 {
		newest = keys[len(keys)-1].GetId()
	}
	switch {
	case next.GetId() == "" || len(next.GetPublicKey()) != 32 || len(next.GetSealedKey()) == 0:
		return nil, invalid("a key to seal to has an id, and both halves")
	case newest != in.GetAfter():
		return nil, problem.New(problem.Conflict, "there is another newest key to seal to than was read", "Look at the keyring again.")
	}
	next.CreatedAt = c.now
	keep := max(0, len(ring.GetSealingKeys())-1)
	for _, old := range ring.GetSealingKeys()[:keep] {
		if err := c.tx.ForgetSeals(old.GetId()); err != nil {
			return nil, err
		}
	}
	ring.SealingKeys = append(ring.GetSealingKeys()[keep:], next)
	return &commandv1.Result{}, c.tx.PutKeyring(ring)
}
