package service

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Providers asks identity providers who somebody is. secret is what is kept of the provider, opened; place is where the question comes
// from. The errors are those of package provider.
type Providers interface {
	// Password asks a directory whether a password is somebody's, once before has let it; Find only who somebody is.
	Password(ctx context.Context, place string, p *apiv1.IdentityProvider, secret, login, password string, before func(subject string) error) (*provider.Person, error)
	Find(ctx context.Context, place string, p *apiv1.IdentityProvider, secret, login string) (*provider.Person, error)
	// Begin returns where somebody's browser goes; BeginDevice has a code made that they type on another machine; Finish asks who it was.
	Begin(ctx context.Context, place string, p *apiv1.IdentityProvider, in provider.Errand) (url string, err error)
	BeginDevice(ctx context.Context, place string, p *apiv1.IdentityProvider, secret string) (*provider.DeviceLogin, error)
	Finish(ctx context.Context, place string, p *apiv1.IdentityProvider, secret, code string, in provider.Errand) (*provider.Person, error)
	// Try asks what a provider says of itself.
	Try(ctx context.Context, place string, p *apiv1.IdentityProvider, secret string) (findings []string, err error)
}

type identityProviderService struct {
	apiv1.UnimplementedIdentityProviderServiceServer
	*Service
}

func identityProviderChange(kind apiv1.WatchType_Value, revision string, m *apiv1.IdentityProvider) proto.Message {
	return &apiv1.WatchIdentityProvidersResponse{Type: kind, Revision: revision, IdentityProvider: m}
}

// mayMindProviders refuses to have a hand in a provider to whoever may not do everything: it says who anybody is.
func (s *Service) mayMindProviders(ctx context.Context, tx *state.Tx, _ *apiv1.IdentityProvider) error {
	return s.mayLetAdminister(ctx, tx, endOf(nil))
}

func (s identityProviderService) ListIdentityProviders(ctx context.Context, r *apiv1.ListIdentityProvidersRequest) (*apiv1.ListIdentityProvidersResponse, error) {
	items, next, err := s.identityProviders.list(ctx, r, place{})
	return &apiv1.ListIdentityProvidersResponse{IdentityProviders: items, NextPageToken: next}, err
}

func (s identityProviderService) GetIdentityProvider(ctx context.Context, r *apiv1.GetIdentityProviderRequest) (*apiv1.GetIdentityProviderResponse, error) {
	m, err := s.identityProviders.get(ctx, r.GetIdentityProvider(), place{})
	return &apiv1.GetIdentityProviderResponse{IdentityProvider: m}, err
}

func (s identityProviderService) WatchIdentityProviders(r *apiv1.WatchIdentityProvidersRequest, stream grpc.ServerStreamingServer[apiv1.WatchIdentityProvidersResponse]) error {
	return s.identityProviders.watch(r, place{}, stream)
}

func (s identityProviderService) CreateIdentityProvider(ctx context.Context, r *apiv1.CreateIdentityProviderRequest) (*apiv1.CreateIdentityProviderResponse, error) {
	result, err := s.identityProviders.create(ctx, r, r.GetIdentityProvider(), func(tx *state.Tx, m *apiv1.IdentityProvider) (state.Scope, error) {
		if (m.GetOidc() == nil) == (m.GetLdap() == nil) {
			return nil, problem.New(problem.Invalid, "an identity provider is oidc or ldap", "Send one of the two.").With("oidc", "or ldap is required, and not both")
		}
		if err := s.mayMindProviders(ctx, tx, m); err != nil {
			return nil, err
		}
		return nil, s.resolve(tx, m)
	}, func(c *commandv1.Command, m *apiv1.IdentityProvider) {
		c.Body = &commandv1.Command_CreateIdentityProvider{CreateIdentityProvider: &commandv1.CreateIdentityProvider{IdentityProvider: m}}
	})
	op, err := s.identityProviders.made(ctx, result, err)
	return &apiv1.CreateIdentityProviderResponse{Operation: op}, err
}

// resolve finds the organization and the groups that a provider names.
func (s identityProviderService) resolve(tx *state.Tx, m *apiv1.IdentityProvider) error {
	o, err := s.organization(tx, m.GetOrganization())
	if err != nil {
		return err
	}
	m.Organization, m.OrganizationId = o.GetName(), o.GetId()
	for _, g := range m.GetGroupMappings() {
		group, err := s.groups.within(tx, g.GetGroup(), nil)
		if err != nil {
			return inField(err, "group_mappings.group")
		}
		g.Group, g.GroupId = group.GetName(), group.GetId()
	}
	return provider.Check(m)
}

func (s identityProviderService) UpdateIdentityProvider(ctx context.Context, r *apiv1.UpdateIdentityProviderRequest) (*apiv1.UpdateIdentityProviderResponse, error) {
	m, err := s.identityProviders.update(ctx, r, r.GetIdentityProvider(), r.GetUpdateMask(), place{}, s.resolve,
		func(c *commandv1.Command, m *apiv1.IdentityProvider, expected string) {
			c.Body = &commandv1.Command_UpdateIdentityProvider{UpdateIdentityProvider: &commandv1.UpdateIdentityProvider{IdentityProvider: m, ExpectedRevision: expected}}
		})
	return &apiv1.UpdateIdentityProviderResponse{IdentityProvider: m}, err
}

func (s identityProviderService) DeleteIdentityProvider(ctx context.Context, r *apiv1.DeleteIdentityProviderRequest) (*apiv1.DeleteIdentityProviderResponse, error) {
	op, err := s.identityProviders.remove(ctx, r, r.GetIdentityProvider(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteIdentityProvider{DeleteIdentityProvider: d}
	})
	return &apiv1.DeleteIdentityProviderResponse{Operation: op}, err
}

// SetIdentityProviderSecret seals a secret for a provider. It is proposed without the call's idempotency key: with that the state would
// keep a hash of the request, by which whoever has the state could try secrets.
func (s identityProviderService) SetIdentityProviderSecret(ctx context.Context, r *apiv1.SetIdentityProviderSecretRequest) (*apiv1.SetIdentityProviderSecretResponse, error) {
	result, err := s.decide(ctx, nil, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.identityProviders.find(ctx, tx, r.GetIdentityProvider(), place{})
		if err != nil {
			return nil, err
		}
		if err := s.mayMindProviders(ctx, tx, m); err != nil {
			return nil, err
		}
		sealed, err := s.Secrets.Seal(provider.SealingRole(m.GetId()), []byte(r.GetSecret()))
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_SetIdentityProviderSecret{SetIdentityProviderSecret: &commandv1.SetIdentityProviderSecret{IdentityProviderId: m.GetId(), Sealed: sealed}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m, err := s.identityProviders.shown(ctx, result)
	return &apiv1.SetIdentityProviderSecretResponse{IdentityProvider: m}, err
}

// TestIdentityProvider asks a provider now, from this server. That it does is recorded before.
func (s identityProviderService) TestIdentityProvider(ctx context.Context, r *apiv1.TestIdentityProviderRequest) (*apiv1.TestIdentityProviderResponse, error) {
	var p *apiv1.IdentityProvider
	var secret string
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if p, err = s.identityProviders.find(ctx, tx, r.GetIdentityProvider(), place{}); err != nil {
			return err
		}
		secret, err = s.secretOf(tx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if r.GetLogin() != "" && p.GetLdap() == nil {
		return nil, problem.New(problem.Invalid, "of an oidc provider nobody can ask who somebody is but themselves", "Log in through it: naru login --provider "+p.GetName()+".").With("login", "is for ldap")
	}
	_, asked := askedFor("identity-provider.test", r)
	if err := s.Record(ctx, Deed{Action: "identity-provider.test", Outcome: apiv1.AuditEntry_DONE, Target: reference("identity-provider", p), Message: asked}); err != nil {
		return nil, err
	}
	failed := func(err error) error {
		if problem.Is(err, problem.TooMany) {
			return err
		}
		return problem.Newf(problem.NotDelivered, "Look at the identity provider, and at what it leads to.", "the test of identity provider %s failed: %v", p.GetName(), err)
	}
	out := &apiv1.TestIdentityProviderResponse{}
	if out.Findings, err = s.Providers.Try(ctx, callOf(ctx).Place, p, secret); err != nil {
		return nil, failed(err)
	}
	if p.GetSecretSetAt() == nil && (p.GetOidc() != nil || p.GetLdap().GetBindDn() != "") {
		out.Findings = append(out.Findings, "It has no secret: naru identity-provider secret "+p.GetName()+".")
	}
	if r.GetLogin() == "" {
		return out, nil
	}
	person, err := s.Providers.Find(ctx, callOf(ctx).Place, p, secret, r.GetLogin())
	if errors.Is(err, provider.ErrWrong) {
		err = errors.New("nobody who may log in has that name")
	}
	if err != nil {
		return nil, failed(err)
	}
	out.Subject, out.Login, out.Title, out.Email, out.ProviderGroups = person.Subject, person.Login, person.Title, person.Email, person.Groups
	mapped := provider.Mapped(p, person)
	for _, g := range p.GetGroupMappings() {
		for _, id := range mapped {
			if g.GetGroupId() == id {
				out.Groups = append(out.Groups, g.GetGroup())
			}
		}
	}
	return out, nil
}

// secretOf opens what is kept of a provider; empty where that is nothing.
func (s *Service) secretOf(tx *state.Tx, p *apiv1.IdentityProvider) (string, error) {
	kept, err := tx.ProviderSecret(p.GetId())
	if errors.Is(err, state.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b, err := s.Secrets.Unseal(provider.SealingRole(p.GetId()), kept.GetSealed())
	if err != nil {
		return "", problem.Newf(problem.WrongState, "Set it again: naru identity-provider secret "+p.GetName()+".", "the secret of identity provider %s does not open", p.GetName())
	}
	return string(b), nil
}

// namesOfProviders are those of all providers, by id.
func namesOfProviders(tx *state.Tx) (map[string]string, error) {
	out := map[string]string{}
	for p, err := range tx.IdentityProviders.All(nil) {
		if err != nil {
			return nil, err
		}
		out[p.GetId()] = p.GetName()
	}
	return out, nil
}

func (s identityProviderService) ListIdentities(ctx context.Context, r *apiv1.ListIdentitiesRequest) (*apiv1.ListIdentitiesResponse, error) {
	items, next, err := s.identities.list(ctx, r, place{})
	return &apiv1.ListIdentitiesResponse{Identities: items, NextPageToken: next}, err
}

// LinkIdentity lets somebody whom a provider knows log in as a user. Nobody does that with one who has rights that they do not have.
func (s identityProviderService) LinkIdentity(ctx context.Context, r *apiv1.LinkIdentityRequest) (*apiv1.LinkIdentityResponse, error) {
	id := newID()
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		if err := s.everywhere(ctx); err != nil {
			return nil, err
		}
		p, err := s.identityProviders.within(tx, r.GetIdentityProvider(), nil)
		if err != nil {
			return nil, inField(err, "identity_provider")
		}
		user, err := s.users.within(tx, r.GetUser(), nil)
		if err != nil {
			return nil, inField(err, "user")
		}
		if err := s.mayActAs(ctx, tx, user); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_LinkIdentity{LinkIdentity: &commandv1.LinkIdentity{Identity: &apiv1.Identity{
			Id: id, IdentityProviderId: p.GetId(), IdentityProvider: p.GetName(), Subject: r.GetSubject(), UserId: user.GetId(), User: user.GetName(),
		}}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m, err := s.identities.decode(result)
	return &apiv1.LinkIdentityResponse{Identity: m}, err
}

func (s identityProviderService) UnlinkIdentity(ctx context.Context, r *apiv1.UnlinkIdentityRequest) (*apiv1.UnlinkIdentityResponse, error) {
	_, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.identities.find(ctx, tx, r.GetIdentity(), place{})
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_UnlinkIdentity{UnlinkIdentity: &commandv1.DeleteNoun{Id: m.GetId()}}
		return nil, nil
	})
	return &apiv1.UnlinkIdentityResponse{}, err
}
