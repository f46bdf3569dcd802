package fsm

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// maxSessions is how many sessions a user may have; the oldest ends for a new one.
	maxSessions = 32
	// maxDevices is how many machines of a user are known.
	maxDevices = 16
	// For so many seconds at most what was shown counts, whatever a proposer says: a session, a step-up, a password for one login, and an
	// authenticator that is being enrolled.
	sessionLasts, stepUpLasts, oneTimeLasts, enrolmentLasts = 12 * 3600, 600, 24 * 3600, 600
)

// within is an end, or the one that lies so many seconds ahead where that is earlier.
func (c *command) within(end *timestamppb.Timestamp, seconds int64) *timestamppb.Timestamp {
	if last := after(c.clock, seconds); later(end, last) {
		return last
	}
	return end
}

// beginSession lets a user in. The proposer has judged what was shown; that it was judged by what is kept now, and counts for
// the first time, is judged here.
func (c *command) beginSession(in *commandv1.BeginSession) (*commandv1.Result, error) {
	m := in.GetSession()
	user, kept, err := c.shown(m.GetUserId(), in.GetShown())
	if err != nil {
		return nil, err
	}
	switch {
	case kept.GetPassword() == "":
		return nil, problem.Newf(problem.Conflict, "Ask an administrator: naru user reset-password.", "user %s has no password", user.GetName())
	case kept.GetSpent() || kept.GetOneTimeUntil() != nil && !later(kept.GetOneTimeUntil(), c.clock):
		return nil, problem.New(problem.Unauthenticated, "the password was for one login, and that has been or has come too late", "Ask an administrator for another: naru user reset-password.")
	}
	if err := c.mayBegin(m); err != nil {
		return nil, err
	}
	kept.Spent = kept.GetOneTimeUntil() != nil
	m.MustChangePassword = user.GetMustChangePassword()
	return c.letIn(m, user, kept, in.GetShown(), in.GetDeviceHash())
}

// mayBegin refuses a session that cannot be one.
func (c *command) mayBegin(m *apiv1.Session) error {
	if m.GetId() == "" || len(m.GetSecretHash()) != 32 || m.GetStrength() == apiv1.Session_STRENGTH_UNSPECIFIED || !later(m.GetExpiresAt(), c.clock) {
		return invalid("a session has an id, the SHA-256 of a secret, a strength and an end")
	}
	if _, err := c.tx.Sessions.Get(m.GetId()); !missing(err) {
		return invalid("the id " + m.GetId() + " is another session's")
	}
	if has, err := c.tx.HasSessionOf(m.GetSecretHash()); err != nil || has {
		if err == nil {
			err = problem.New(problem.Conflict, "there is a session with this secret already", "Make another secret.")
		}
		return err
	}
	if m.GetZoneId() != "" {
		if _, err := c.zoneOf(m.GetZoneId(), m.GetZone()); err != nil {
			return err
		}
	}
	return nil
}

// letIn begins a session of a user who has shown who they are.
func (c *command) letIn(m *apiv1.Session, user *apiv1.User, kept *commandv1.Credentials, shown *commandv1.Shown, device []byte) (*commandv1.Result, error) {
	all, err := c.tx.SessionsOf(user.GetId())
	if err != nil {
		return nil, err
	}
	for _, old := range all[:max(0, len(all)-maxSessions+1)] {
		if err := c.tx.Sessions.Delete(old.GetId()); err != nil {
			return nil, err
		}
	}
	if err := c.count(kept, shown); err != nil {
		return nil, err
	}
	if !knows(kept, device) {
		if err := c.notifyUser("account.new-device", user, parameter("zone", m.GetZone())); err != nil {
			return nil, err
		}
	}
	c.remember(kept, device)
	if err := c.tx.PutCredentials(kept); err != nil {
		return nil, err
	}
	m.User, m.CreatedAt, m.ExpiresAt = user.GetName(), c.now, c.within(m.GetExpiresAt(), sessionLasts)
	if err := c.tx.Sessions.Put(m); err != nil {
		return nil, err
	}
	return made(m, nil)
}

// knows reports whether a user has come from a machine before, or from none yet.
func knows(kept *commandv1.Credentials, hash []byte) bool {
	return len(kept.GetDevices()) == 0 || slices.ContainsFunc(kept.GetDevices(), func(d *commandv1.Credentials_Device) bool { return string(d.GetHash()) == string(hash) })
}

// remember notes the machine that a user came with.
func (c *command) remember(kept *commandv1.Credentials, hash []byte) {
	if len(hash) == 0 {
		return
	}
	kept.Devices = slices.DeleteFunc(kept.GetDevices(), func(d *commandv1.Credentials_Device) bool { return string(d.GetHash()) == string(hash) })
	if over := len(kept.Devices) - maxDevices + 1; over > 0 {
		kept.Devices = kept.Devices[over:]
	}
	kept.Devices = append(kept.Devices, &commandv1.Credentials_Device{Hash: hash, UsedAt: c.now})
}

// shown checks what a user has shown once more: it was held against what is kept now, and has not counted before. Who goes on
// with it calls count.
func (c *command) shown(userID string, in *commandv1.Shown) (*apiv1.User, *commandv1.Credentials, error) {
	user, kept, err := c.credentials(userID)
	if err != nil {
		return nil, nil, err
	}
	return user, kept, c.counts(user, kept, in)
}

// counts refuses what a user has shown where it does not count, or no longer.
func (c *command) counts(user *apiv1.User, kept *commandv1.Credentials, in *commandv1.Shown) error {
	switch {
	case user.GetDisabled():
		return problem.Newf(problem.Forbidden, "Ask an administrator: naru user enable.", "user %s is disabled", user.GetName())
	case kept.GetRevision() != in.GetRevision():
		return problem.Newf(problem.Conflict, "Try again.", "the password or authenticator of %s was changed meanwhile", user.GetName())
	case len(in.GetSeal()) != 32:
		return invalid("what was shown has the SHA-256 of what was sealed")
	case in.GetStep() != 0 && in.GetStep() <= kept.GetStep():
		return problem.New(problem.Unauthenticated, "this code has been used", "Wait for the authenticator's next code.")
	}
	return c.unused(in.GetKeyId(), in.GetSeal())
}

// unused refuses what has counted under a key before, and whatever was sealed to one that is no longer good.
func (c *command) unused(keyID string, seal []byte) error {
	if ring, err := c.tx.Keyring(); err != nil || !slices.ContainsFunc(ring.GetSealingKeys(), func(k *commandv1.SealingKey) bool { return k.GetId() == keyID }) {
		if err == nil {
			err = problem.New(problem.Conflict, "the key to which it was sealed is no longer good", "Ask for the newest, and seal it anew.")
		}
		return err
	}
	used, err := c.tx.SealUsed(keyID, seal)
	if used && err == nil {
		err = problem.New(problem.Unauthenticated, "what was sealed has counted before", "Seal it anew.")
	}
	return err
}

// count notes that what a user has shown has counted; the caller writes what is kept.
func (c *command) count(kept *commandv1.Credentials, in *commandv1.Shown) error {
	kept.Step = max(kept.GetStep(), in.GetStep())
	return c.tx.UseSeal(in.GetKeyId(), in.GetSeal())
}

func (c *command) stepUpSession(in *commandv1.StepUpSession) (*commandv1.Result, error) {
	m, err := c.tx.Sessions.Get(in.GetSessionId())
	if err != nil {
		return nil, orNotFound(err, "session", in.GetSessionId())
	}
	_, kept, err := c.shown(m.GetUserId(), in.GetShown())
	if err != nil {
		return nil, err
	}
	if err := c.count(kept, in.GetShown()); err != nil {
		return nil, err
	}
	if err := c.useTicket(in.GetTicketHash()); err != nil {
		return nil, err
	}
	if err := c.tx.PutCredentials(kept); err != nil {
		return nil, err
	}
	m.Strength, m.SteppedUpUntil = max(m.GetStrength(), in.GetStrength()), c.within(in.GetUntil(), stepUpLasts)
	if err := c.tx.Sessions.Put(m); err != nil {
		return nil, err
	}
	return made(m, nil)
}

// deleteSession ends a session: everywhere, from the moment that the servers have this.
func (c *command) deleteSession(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := c.tx.Sessions.Get(in.GetId())
	if err != nil {
		return nil, orNotFound(err, "session", in.GetId())
	}
	if err := c.tx.Sessions.Delete(m.GetId()); err != nil {
		return nil, err
	}
	return made(m, nil)
}

func (c *command) revokeSessions(in *commandv1.RevokeSessions) (*commandv1.Result, error) {
	user, err := stored(c.tx.Users, "user", in.GetUserId(), "")
	if err != nil {
		return nil, err
	}
	n, err := c.endSessions(user.GetId(), "")
	if err != nil {
		return nil, err
	}
	if err := c.notifyUser("account.sessions-revoked", user); err != nil {
		return nil, err
	}
	return made(&apiv1.RevokeSessionsResponse{Sessions: n}, nil)
}

// endSessions ends a user's sessions but one.
func (c *command) endSessions(userID, but string) (ended uint32, err error) {
	all, err := c.tx.SessionsOf(userID)
	if err != nil {
		return 0, err
	}
	for _, m := range all {
		if m.GetId() == but {
			continue
		}
		if err := c.tx.Sessions.Delete(m.GetId()); err != nil {
			return 0, err
		}
		ended++
	}
	return ended, nil
}
