// Package auth says who calls. What they may do, package rights says.
package auth

import (
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Kind is what sort of caller a principal is.
type Kind string

const (
	// Admin is an administrator of the federation, known by a certificate, in the control network only.
	Admin Kind = "admin"
	// AccessToken is whoever bears a token: it acts in one project.
	AccessToken Kind = "access-token"
	// User is a person, or a program, known by a session.
	User Kind = "user"
)

// Principal is who calls. The zero value is nobody.
type Principal struct {
	Kind Kind
	// Name is the administrator's, or the token's.
	Name string
	// Actor is what is written down of who did something: a SPIFFE id, or token:NAME.
	Actor string
	// UserID is that of the user who calls, or for whom a token acts; empty where there is none.
	UserID string
	// ID is the user's, the administrator's, or the token's: whoever Actor names.
	ID string
	// SessionID and Strength are those of the session in which a user acts, and how surely it is them.
	SessionID string
	Strength  apiv1.Session_Strength
	// SteppedUpUntil is until when a step-up lasts; MustChangePassword says that nothing else is allowed, see Restricted.
	SteppedUpUntil     time.Time
	MustChangePassword bool
	// Project is the one that a token acts in, by name and by id; empty for an administrator.
	Project, ProjectID string
	// Zone is the only one at whose edge a token may be used, by name and by id; empty where it is bound to none.
	Zone, ZoneID string
	// Expires is when the credential ends.
	Expires time.Time

	// Key is the fingerprint of the one that an administrator's certificate is for.
	Key string

	tokenID string
}
