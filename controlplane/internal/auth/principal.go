// Package auth says who calls, and what they may do. There is one table of methods and one decision; a method that has no
// row is nobody's.
package auth

import (
	"context"
	"time"

	"github.com/naru-project/naru/pkg/problem"
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
	// Project is the one that a token acts in, by name and by id; empty for an administrator.
	Project, ProjectID string
	// Zone is the only one at whose edge a token may be used, by name and by id; empty where it is bound to none.
	Zone, ZoneID string
	// Expires is when the credential ends.
	Expires time.Time

	tokenID string
	// key is the fingerprint of the one that an administrator's certificate is for.
	key string
}

// Scope is what of the nouns that belong to projects a principal may see and touch.
type Scope struct {
	everything bool
	projectID  string
}

// Scope returns the principal's scope. That of nobody is empty.
func (p Principal) Scope() Scope {
	return Scope{everything: p.Kind == Admin, projectID: p.ProjectID}
}

// Everything reports whether all projects are in scope.
func (s Scope) Everything() bool { return s.everything }

// ProjectID returns the one project in scope; empty for Everything, and for none at all.
func (s Scope) ProjectID() string { return s.projectID }

// Sees reports whether what belongs to a project is in scope. What belongs to none is seen by Everything only.
func (s Scope) Sees(projectID string) bool {
	return s.everything || s.projectID != "" && s.projectID == projectID
}

type principalKey struct{}

// With returns a context that carries who calls.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns who calls; nobody where the context does not say.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// Authorize is the one decision: may p call the method (/naru.api.v1.VMService/CreateVM) at all? What it then sees is for
// its Scope. The default is no.
func Authorize(p Principal, method string) error {
	rule, known := rules[method]
	switch {
	case p.Kind != Admin && p.Kind != AccessToken:
		return problem.New(problem.Unauthenticated, "the call says nothing of who calls",
			"Show an administrator's certificate in the control network, or send an access token: Authorization: Bearer naru_….")
	case p.Kind == Admin && known && rule != nobody:
		return nil
	case p.Kind == AccessToken && (rule == anyone || rule == project && p.ProjectID != ""):
		return nil
	case p.Kind == AccessToken && rule == admin:
		return problem.New(problem.Forbidden, "only an administrator of the federation may do this; an access token cannot",
			"Ask an administrator, in the control network.")
	}
	return problem.New(problem.Forbidden, p.Name+" may not call "+method, "Ask an administrator.")
}
