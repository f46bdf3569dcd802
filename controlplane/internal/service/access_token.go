package service

import (
	"bytes"
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// maxTokenLife is how long an access token may be valid.
const maxTokenLife = 366 * 24 * time.Hour

type accessTokenService struct {
	apiv1.UnimplementedAccessTokenServiceServer
	*Service
}

// AccessToken returns a token by its id, with its internal fields, for whoever checks bearers. It is shared and read-only.
func (s *Service) AccessToken(ctx context.Context, id string) (*apiv1.AccessToken, error) {
	t, age := s.tokens.get(id)
	if t != nil {
		return t, nil
	}
	err := s.view(ctx, func(tx *state.Tx) (err error) {
		t, err = tx.AccessTokens.Get(id)
		return err
	})
	if errors.Is(err, state.ErrNotFound) {
		return nil, problem.New(problem.NotFound, "there is no access token "+id, "naru token list shows which there are.")
	}
	if err != nil {
		return nil, err
	}
	s.tokens.put(id, t, age)
	return t, nil
}

func (s accessTokenService) ListAccessTokens(ctx context.Context, r *apiv1.ListAccessTokensRequest) (*apiv1.ListAccessTokensResponse, error) {
	items, next, err := s.accessTokens.list(ctx, r, place{})
	return &apiv1.ListAccessTokensResponse{AccessTokens: items, NextPageToken: next}, err
}

func (s accessTokenService) GetAccessToken(ctx context.Context, r *apiv1.GetAccessTokenRequest) (*apiv1.GetAccessTokenResponse, error) {
	m, err := s.accessTokens.get(ctx, r.GetAccessToken(), place{})
	return &apiv1.GetAccessTokenResponse{AccessToken: m}, err
}

// CreateAccessToken makes a token. Only the hash of its secret is kept, so a repeated request cannot be answered as the
// first one was; it says so.
func (s accessTokenService) CreateAccessToken(ctx context.Context, r *apiv1.CreateAccessTokenRequest) (*apiv1.CreateAccessTokenResponse, error) {
	var text string
	var hash []byte
	result, err := s.accessTokens.create(ctx, r, r.GetAccessToken(), func(tx *state.Tx, t *apiv1.AccessToken) (state.Scope, error) {
		left := time.Until(t.GetExpiresAt().AsTime())
		if left <= 0 || left > maxTokenLife {
			return nil, problem.New(problem.Invalid, "expires_at must lie ahead, at most 366 days", "Give another time.").With("expires_at", "must lie ahead, at most 366 days")
		}
		if t.GetProject() == "" && t.GetUser() == "" {
			return nil, problem.New(problem.Invalid, "an access token is of a service or of a project", "Name a user that is a service, a project, or both.").
				With("project", "or user is required")
		}
		if t.GetProject() != "" {
			p, err := s.projects.find(ctx, tx, t.GetProject(), place{})
			if err != nil {
				return nil, inField(err, "project")
			}
			t.Project, t.ProjectId = p.GetName(), p.GetId()
		}
		var as *apiv1.User
		if t.GetUser() != "" {
			var err error
			if as, err = s.service(ctx, tx, t.GetUser()); err != nil {
				return nil, inField(err, "user")
			}
			t.User, t.UserId = as.GetName(), as.GetId()
		}
		if t.GetZone() != "" {
			z, err := s.zones.find(ctx, tx, t.GetZone(), place{})
			if err != nil {
				return nil, inField(err, "zone")
			}
			t.Zone, t.ZoneId = z.GetName(), z.GetId()
		}
		if err := s.mayMakeToken(ctx, tx, t, as); err != nil {
			return nil, err
		}
		t.CreatedBy = callOf(ctx).Principal.Actor
		var err error
		text, hash, err = auth.NewToken(t.GetId())
		t.SecretHash = hash
		return nil, err
	}, func(c *commandv1.Command, t *apiv1.AccessToken) {
		c.Body = &commandv1.Command_CreateAccessToken{CreateAccessToken: &commandv1.CreateAccessToken{AccessToken: t}}
	})
	if err != nil {
		return nil, err
	}
	made, err := s.accessTokens.decode(result)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(made.GetSecretHash(), hash) {
		return nil, problem.Newf(problem.NameTaken, "Delete it, and make another with a new Idempotency-Key.",
			"the first request with this Idempotency-Key made access token %s; its secret was shown then and is not kept", made.GetName())
	}
	return &apiv1.CreateAccessTokenResponse{AccessToken: proto.CloneOf(made), Secret: text}, nil
}

func (s accessTokenService) DeleteAccessToken(ctx context.Context, r *apiv1.DeleteAccessTokenRequest) (*apiv1.DeleteAccessTokenResponse, error) {
	op, err := s.accessTokens.remove(ctx, r, r.GetAccessToken(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteAccessToken{DeleteAccessToken: d}
	})
	return &apiv1.DeleteAccessTokenResponse{Operation: op}, err
}

// WhoAmI says who the caller is taken for.
func (s accessTokenService) WhoAmI(ctx context.Context, _ *apiv1.WhoAmIRequest) (*apiv1.WhoAmIResponse, error) {
	p := callOf(ctx).Principal
	out := &apiv1.WhoAmIResponse{
		Kind: string(p.Kind), Name: p.Name, Project: p.Project, Zone: p.Zone, ExpiresAt: timestamppb.New(p.Expires),
		SessionId: p.SessionID, Strength: p.Strength, MustChangePassword: p.MustChangePassword,
	}
	if p.SteppedUpUntil.After(s.Now()) {
		out.SteppedUpUntil = timestamppb.New(p.SteppedUpUntil)
	}
	if p.UserID == "" {
		return out, nil
	}
	return out, s.view(ctx, func(tx *state.Tx) error {
		u, err := tx.Users.Get(p.UserID)
		out.User = u.GetName()
		return err
	})
}

// service finds the user as whom a token acts: one that the caller may change.
func (s accessTokenService) service(ctx context.Context, tx *state.Tx, name string) (*apiv1.User, error) {
	table, err := s.users.narrowedTo(ctx, tx, "user.update")
	if err != nil {
		return nil, err
	}
	u, err := s.users.found(table, name, nil)
	if err == nil && u.GetKind() != apiv1.User_SERVICE {
		err = problem.Newf(problem.Invalid, "Name a service; a person logs in: naru login.", "user %s is a person", u.GetName()).With("user", "is a person")
	}
	return u, err
}
