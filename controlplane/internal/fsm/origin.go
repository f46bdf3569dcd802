package fsm

import (
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// lives refuses a command whose caller's session, access token or certificate has ended, whatever the server knew that was called: that may
// be behind. It authorises nothing, which is for the proposer. What nobody called for has no credential that could end, whoever logs in has
// not begun the session yet, and that somebody was refused is written down of anybody.
func (c *command) lives(in *commandv1.Command) error {
	switch b := in.GetBody().(type) {
	case *commandv1.Command_BeginSession, *commandv1.Command_BeginProviderSession:
		return nil
	case *commandv1.Command_RecordAudit:
		if b.RecordAudit.GetEntry().GetOutcome() == apiv1.AuditEntry_REFUSED {
			return nil
		}
	}
	switch o := in.GetOrigin(); {
	case o.GetSessionId() != "":
		return c.sessionLives(o)
	case o.GetActorId() == "":
		return nil
	case o.GetStrength() == apiv1.Session_CERTIFICATE:
		return c.certificateLives(o)
	default:
		return c.tokenLives(o)
	}
}

func (c *command) sessionLives(o *commandv1.Origin) error {
	s, err := c.tx.Sessions.Get(o.GetSessionId())
	switch {
	case err != nil && !missing(err):
		return err
	case err != nil || s.GetUserId() != o.GetActorId():
		return problem.New(problem.TokenInvalid, "there is no such session, or it has been ended", "Log in again: naru login.")
	case !later(s.GetExpiresAt(), c.clock):
		return problem.Newf(problem.TokenExpired, "Log in again: naru login.", "the session of %s has ended", s.GetUser())
	}
	c.session, c.person = s, s.GetUserId()
	return c.enabled(s.GetUserId())
}

func (c *command) tokenLives(o *commandv1.Origin) error {
	t, err := c.tx.AccessTokens.Get(o.GetActorId())
	switch {
	case err != nil && !missing(err):
		return err
	case err != nil:
		return problem.New(problem.TokenInvalid, "there is no such access token, or it has been deleted", "Ask an administrator for a new one: naru token create.")
	case !later(t.GetExpiresAt(), c.clock):
		return problem.Newf(problem.TokenExpired, "Ask an administrator for a new one: naru token create.", "access token %s has expired", t.GetName())
	}
	c.token, c.person = t, t.GetCreatedByUserId()
	if c.person == "" { // made before that was written down: by a user themselves, or nobody knows by whom
		u, err := c.tx.Users.Get(t.GetCreatedById())
		if err != nil && !missing(err) {
			return err
		}
		c.person = u.GetId()
	}
	return c.enabled(t.GetUserId())
}

// certificateLives asks for the record alone: when a certificate ends stands in it, and the server that is called has seen that.
func (c *command) certificateLives(o *commandv1.Origin) error {
	m, err := c.tx.Administrators.Get(o.GetActorId())
	switch {
	case err != nil && !missing(err):
		return err
	case err != nil || m.GetFingerprint() != o.GetKey():
		return problem.Newf(problem.Revoked, "Ask an administrator: naru admin create, or naru admin renew.",
			"the certificate for the key %s is not, or no longer, one of an administrator", o.GetKey())
	}
	c.person = m.GetUserId()
	return c.enabled(m.GetUserId())
}

// enabled refuses who acts as a user who is disabled; as nobody, anybody may.
func (c *command) enabled(userID string) error {
	if userID == "" {
		return nil
	}
	u, err := c.tx.Users.Get(userID)
	switch {
	case err != nil && !missing(err):
		return err
	case err != nil || u.GetDisabled():
		return problem.New(problem.Revoked, "the user is disabled, or no longer there", "Ask an administrator: naru user enable.")
	}
	return nil
}

// ownSession returns the session in which somebody does what is done in one alone: not with a token or a certificate, and not before they
// have chosen a password of their own.
func (c *command) ownSession() (*apiv1.Session, error) {
	if c.session == nil || c.session.GetMustChangePassword() {
		return nil, problem.New(problem.Forbidden, "this is done by a person, in a session of their own", "Log in as yourself: naru login.")
	}
	return c.session, nil
}
