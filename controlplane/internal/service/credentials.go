package service

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/credential"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// oneTimeTime is how long a password for one login may wait for it.
	oneTimeTime = 24 * time.Hour
	// enrolTime is how long an authenticator may take to be confirmed.
	enrolTime = 10 * time.Minute
	// replyKeySize is that of an X25519 public key.
	replyKeySize = 32
)

// ResetPassword gives a person a password for one login, which only the caller can read.
func (s userService) ResetPassword(ctx context.Context, r *apiv1.ResetPasswordRequest) (*apiv1.ResetPasswordResponse, error) {
	password, kept := credential.OneTime()
	_, err := s.changeUser(ctx, nil, r.GetUser(), func(c *commandv1.Command, m *apiv1.User) {
		c.Body = &commandv1.Command_ResetPassword{ResetPassword: &commandv1.ResetPassword{
			UserId: m.GetId(), Password: kept, Until: timestamppb.New(time.Now().Add(oneTimeTime)),
		}}
	})
	if err != nil {
		return nil, err
	}
	reply, err := sealed.Reply(r.GetReplyKey(), apiv1.UserService_ResetPassword_FullMethodName, password)
	return &apiv1.ResetPasswordResponse{SealedPassword: reply}, err
}

// ChangePassword changes the caller's own password.
func (s userService) ChangePassword(ctx context.Context, r *apiv1.ChangePasswordRequest) (*apiv1.ChangePasswordResponse, error) {
	if by, err := s.providerOfCaller(ctx); err != nil || by != nil {
		if err == nil {
			err = problem.Newf(problem.WrongState, "Change it there.", "you are logged in through identity provider %s, whose password is not Naru's", by.GetName())
		}
		return nil, err
	}
	session, shown, err := s.showAgain(ctx, "user.change-password", apiv1.UserService_ChangePassword_FullMethodName, r.GetSecrets())
	if err != nil {
		return nil, err
	}
	next := shown.secrets.GetNewPassword()
	if next == shown.secrets.GetPassword() {
		return nil, problem.New(problem.Invalid, "the new password is the old one", "Choose another.").With("new_password", "is the old one")
	}
	if err := credential.Acceptable(next, shown.user.GetName()); err != nil {
		return nil, err
	}
	whose := credential.Whose{Known: shown.user.GetId()}
	kept, err := s.passwords.Hash(ctx, whose, next)
	if err != nil {
		return nil, err
	}
	salt, root, err := s.passwords.LocalRoot(ctx, whose, next)
	if err != nil {
		return nil, err
	}
	if root, err = s.Secrets.Seal(credential.LocalRootRole(shown.user.GetId()), root); err != nil {
		return nil, err
	}
	m, err := s.proposeShown(ctx, shown, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_ChangePassword{ChangePassword: &commandv1.ChangePassword{
			UserId: shown.user.GetId(), SessionId: session.GetId(), Shown: shown.proof, Password: kept, LocalSalt: salt, SealedLocalRoot: root,
		}}
	})
	return &apiv1.ChangePasswordResponse{User: m}, err
}

// EnrollAuthenticator makes the secret of an authenticator, which only the caller can read: the key to which it is sealed came with
// their password, which nobody on the way has.
func (s userService) EnrollAuthenticator(ctx context.Context, r *apiv1.EnrollAuthenticatorRequest) (*apiv1.EnrollAuthenticatorResponse, error) {
	if _, err := ownSession(ctx); err != nil {
		return nil, err
	}
	if by, err := s.providerOfCaller(ctx); err != nil || by.GetOidc() != nil {
		if err == nil {
			err = problem.Newf(problem.WrongState, "Add one there.", "you are logged in through identity provider %s, which asks for a second factor itself", by.GetName())
		}
		return nil, err
	}
	_, shown, err := s.showAgain(ctx, "user.enroll-authenticator", apiv1.UserService_EnrollAuthenticator_FullMethodName, r.GetSecrets())
	if err != nil {
		return nil, err
	}
	if len(shown.secrets.GetReplyKey()) != replyKeySize {
		return nil, problem.New(problem.Invalid, "the secrets have no key to which the answer could be sealed", "Update naru.").With("reply_key", "is required")
	}
	user := shown.user
	secret := credential.NewAuthenticator()
	kept, err := s.Secrets.Seal(authenticatorRole(user.GetId()), secret)
	if err != nil {
		return nil, err
	}
	_, err = s.propose(ctx, nil, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_EnrollAuthenticator{EnrollAuthenticator: &commandv1.EnrollAuthenticator{
			UserId: user.GetId(), SealedAuthenticator: kept, Until: timestamppb.New(time.Now().Add(enrolTime)), Shown: shown.proof,
		}}
	})
	if err != nil {
		return nil, err
	}
	s.doors.Open(shown.way)
	var federation string
	if err := s.view(ctx, func(tx *state.Tx) error { federation = tx.Meta().Federation; return nil }); err != nil {
		return nil, err
	}
	reply, err := sealed.Reply(shown.secrets.GetReplyKey(), apiv1.UserService_EnrollAuthenticator_FullMethodName, credential.AuthenticatorURI(secret, federation, user.GetName()))
	return &apiv1.EnrollAuthenticatorResponse{SealedUri: reply}, err
}

// ConfirmAuthenticator lets the authenticator count that the caller has shown a code of.
func (s userService) ConfirmAuthenticator(ctx context.Context, r *apiv1.ConfirmAuthenticatorRequest) (*apiv1.ConfirmAuthenticatorResponse, error) {
	_, shown, err := s.showAgain(ctx, "user.confirm-authenticator", apiv1.UserService_ConfirmAuthenticator_FullMethodName, r.GetSecrets())
	if err != nil {
		return nil, err
	}
	m, err := s.proposeShown(ctx, shown, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_ConfirmAuthenticator{ConfirmAuthenticator: &commandv1.ConfirmAuthenticator{UserId: shown.user.GetId(), Shown: shown.proof}}
	})
	return &apiv1.ConfirmAuthenticatorResponse{User: m}, err
}

// RemoveAuthenticator takes a second factor away: the caller's own, with password and code, or somebody else's who has lost it.
func (s userService) RemoveAuthenticator(ctx context.Context, r *apiv1.RemoveAuthenticatorRequest) (*apiv1.RemoveAuthenticatorResponse, error) {
	own := callOf(ctx).Principal
	if r.GetUser() == "" || r.GetUser() == own.UserID || own.UserID != "" && r.GetUser() == own.Name {
		callOf(ctx).Asked.Note() // on what is their own
		_, shown, err := s.showAgain(ctx, "user.remove-authenticator", apiv1.UserService_RemoveAuthenticator_FullMethodName, r.GetSecrets())
		if err != nil {
			return nil, err
		}
		m, err := s.proposeShown(ctx, shown, func(c *commandv1.Command) {
			c.Body = &commandv1.Command_RemoveAuthenticator{RemoveAuthenticator: &commandv1.RemoveAuthenticator{UserId: shown.user.GetId(), Shown: shown.proof}}
		})
		return &apiv1.RemoveAuthenticatorResponse{User: m}, err
	}
	m, err := s.changeUser(ctx, nil, r.GetUser(), func(c *commandv1.Command, m *apiv1.User) {
		c.Body = &commandv1.Command_RemoveAuthenticator{RemoveAuthenticator: &commandv1.RemoveAuthenticator{UserId: m.GetId()}}
	})
	return &apiv1.RemoveAuthenticatorResponse{User: m}, err
}

// proposeShown proposes what rests on what the caller has shown, and returns the user as they then are.
func (s userService) proposeShown(ctx context.Context, shown *shown, fill func(*commandv1.Command)) (*apiv1.User, error) {
	result, err := s.propose(ctx, nil, fill)
	if err != nil {
		return nil, err
	}
	s.doors.Open(shown.way)
	return s.users.shown(ctx, result)
}
