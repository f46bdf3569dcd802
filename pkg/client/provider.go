package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// ErrWayNotVouched says that where somebody is to log in is not shown to be what the control plane said.
var ErrWayNotVouched = errors.New("where to log in is not shown to be the control plane's word")

// Errand is a login at an identity provider that has begun.
type Errand struct {
	*apiv1.BeginProviderLoginResponse
	session *Session
}

// BeginProviderLogin begins a login through an identity provider. redirect is where the provider is to send the person back; without one
// they type a code elsewhere. Whoever ends the connection, a zone's edge, is not believed in where that is: it could lead people to
// where they type a password into its hands. Errors: ErrWayNotVouched.
func (s *Services) BeginProviderLogin(ctx context.Context, provider, redirect string) (*Errand, error) {
	return s.beginAt(ctx, newSession(""), &apiv1.BeginProviderLoginRequest{IdentityProvider: provider, RedirectUri: redirect, Device: redirect == ""})
}

// BeginProviderStepUp begins to show anew who the user of a session is, at the provider through which it was begun.
func (s *Services) BeginProviderStepUp(ctx context.Context, session *Session, redirect string) (*Errand, error) {
	return s.beginAt(ctx, session, &apiv1.BeginProviderLoginRequest{IdentityProvider: session.Provider, RedirectUri: redirect, StepUp: true})
}

func (s *Services) beginAt(ctx context.Context, session *Session, r *apiv1.BeginProviderLoginRequest) (*Errand, error) {
	r.SecretHash = session.For("").SecretHash
	answer, err := s.Sessions.BeginProviderLogin(ctx, r)
	if err != nil {
		return nil, err
	}
	way := sealed.Way{Provider: r.GetIdentityProvider(), SecretHash: r.GetSecretHash(), URL: answer.GetUrl(), UserCode: answer.GetUserCode(), State: answer.GetState()}
	server, err := s.server(answer.GetChain(), time.Now())
	if err == nil && !way.VouchedBy(server.Key, answer.GetSignature()) {
		err = fmt.Errorf(": %s has not signed it", server.ID)
	}
	if err != nil {
		return nil, problem.Newf(problem.CertificateInvalid,
			"An administrator tells you trust_pin: naru-controlplane pin. Where it is right, somebody between here and the control plane is lying: tell them.", "%w",
			fmt.Errorf("%w%w", ErrWayNotVouched, err))
	}
	return &Errand{answer, session}, nil
}

// FinishProviderLogin begins the session with what the provider sent back: state and code, or neither where the person typed a code
// elsewhere. Where they have not been there yet the session is nil, and wait says when to ask again.
func (s *Services) FinishProviderLogin(ctx context.Context, e *Errand, state, code string, device []byte, client string) (_ *Session, wait time.Duration, err error) {
	is := e.session.For(apiv1.SessionService_FinishProviderLogin_FullMethodName)
	secrets, err := s.Seal(ctx, is, e.Secrets(state, code, device))
	if err != nil {
		return nil, 0, err
	}
	r, err := s.Sessions.FinishProviderLogin(ctx, &apiv1.FinishProviderLoginRequest{Secrets: secrets, SecretHash: is.SecretHash, Client: client})
	if err != nil || r.GetSession() == nil {
		return nil, time.Duration(r.GetWaitSeconds()) * time.Second, err
	}
	e.session.is(r.GetSession())
	return e.session, 0, nil
}

// Secrets are those that show that somebody came back from a provider.
func (e *Errand) Secrets(state, code string, device []byte) *apiv1.Secrets {
	return &apiv1.Secrets{Ticket: e.GetTicket(), State: state, AuthorizationCode: code, Device: device}
}
