// Package leavers asks identity providers whether those are still there who log in through them, and which groups they are in now: a
// directory about everybody who is linked with it, an OpenID Connect provider about those with whom it gave something to ask with, while
// they are logged in. Only the leader does. A provider that does not answer changes nothing: sessions then last until their end.
//
// Each provider is asked by itself: one that hangs holds up no other.
package leavers

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// freshEvery is how often a provider is asked about a session that goes on.
	freshEvery = 10 * time.Minute
	// page is how many people a directory is asked about over one connection: no more than it answers within its time.
	page  = 100
	actor = "leavers"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Providers asks identity providers.
type Providers interface {
	Still(ctx context.Context, p *apiv1.IdentityProvider, secret string, subjects []string) (map[string]*provider.Person, error)
	Refresh(ctx context.Context, p *apiv1.IdentityProvider, secret, subject, refreshToken string) (*provider.Person, error)
}

// Config is what the controller is made of. Every field must be set.
type Config struct {
	Reader    Reader
	Proposer  Proposer
	Providers Providers
	Seal      func(role string, plain []byte) ([]byte, error)
	Unseal    func(role string, sealed []byte) ([]byte, error)
	Log       *slog.Logger
	Now       func() time.Time
	// Every is how long lies between two rounds.
	Every time.Duration
}

// Controller runs on the leader only.
type Controller struct {
	Config

	mu sync.Mutex
	// asked is when a provider was last asked about an identity, by its id; of this leader alone.
	asked map[string]time.Time
}

// New returns a controller that does nothing yet.
func New(c Config) *Controller { return &Controller{Config: c, asked: map[string]time.Time{}} }

// Run goes on until ctx ends. What fails is tried again.
func (c *Controller) Run(ctx context.Context) error {
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := c.Round(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("identity providers were not asked who is still there", "error", err)
		}
	}
}

// Round asks every provider once.
func (c *Controller) Round(ctx context.Context) error {
	c.mu.Lock()
	maps.DeleteFunc(c.asked, func(_ string, at time.Time) bool { return c.Now().Sub(at) > freshEvery })
	c.mu.Unlock()
	var all []*apiv1.IdentityProvider
	err := c.Reader.View(ctx, func(tx *state.Tx) error {
		all = nil
		for p, err := range tx.IdentityProviders.All(nil) {
			if err != nil {
				return err
			}
			if !p.GetDisabled() {
				all = append(all, p)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var asking sync.WaitGroup
	for _, p := range all {
		asking.Go(func() {
			if err := c.ask(ctx, p); err != nil && ctx.Err() == nil {
				c.Log.Warn("an identity provider was not asked who is still there", "provider", p.GetName(), "error", err)
			}
		})
	}
	asking.Wait()
	return nil
}

// known is an identity with what the state has of it.
type known struct {
	*apiv1.Identity
	// groups are those that they are in by the provider's word, own those that they are in otherwise.
	groups, own []string
	here        bool // with a session
}

// ask asks one provider about all whom it is asked about.
func (c *Controller) ask(ctx context.Context, p *apiv1.IdentityProvider) error {
	for after := ""; ; {
		var some []known
		var secret *commandv1.ProviderSecret
		err := c.Reader.View(ctx, func(tx *state.Tx) (err error) {
			some = nil
			if secret, err = tx.ProviderSecret(p.GetId()); err != nil && !errors.Is(err, state.ErrNotFound) {
				return err
			}
			identities, err := tx.IdentitiesOf(p.GetId(), after, page)
			if err != nil {
				return err
			}
			for _, m := range identities {
				k, err := read(tx, m)
				if err != nil {
					return err
				}
				some = append(some, k)
			}
			return nil
		})
		if err != nil || len(some) == 0 || ctx.Err() != nil {
			return err
		}
		after = some[len(some)-1].GetId()
		opened := ""
		if len(secret.GetSealed()) > 0 {
			b, err := c.Unseal(provider.SealingRole(p.GetId()), secret.GetSealed())
			if err != nil {
				return err
			}
			opened = string(b)
		}
		if p.GetLdap() != nil {
			err = c.askDirectory(ctx, p, opened, some)
		} else {
			err = c.askOIDC(ctx, p, opened, some)
		}
		if err != nil {
			return err
		}
	}
}

func read(tx *state.Tx, m *apiv1.Identity) (known, error) {
	k := known{Identity: m}
	places, err := tx.MembershipsBy(m.GetIdentityProviderId(), m.GetUserId())
	if err != nil {
		return k, err
	}
	for _, place := range places {
		k.groups = append(k.groups, place.GroupID)
	}
	if k.own, err = tx.GroupsOf(m.GetUserId()); err != nil {
		return k, err
	}
	k.own = slices.DeleteFunc(k.own, func(id string) bool { return slices.Contains(k.groups, id) })
	sessions, err := tx.SessionsBy(m.GetId())
	k.here = len(sessions) > 0
	return k, err
}

func (c *Controller) askDirectory(ctx context.Context, p *apiv1.IdentityProvider, secret string, some []known) error {
	var subjects []string
	for _, k := range some {
		subjects = append(subjects, k.GetSubject())
	}
	still, err := c.Providers.Still(ctx, p, secret, subjects)
	if err != nil {
		return err
	}
	for _, k := range some {
		if err := c.check(ctx, p, k, still[k.GetSubject()]); err != nil {
			return err
		}
	}
	return nil
}

// askOIDC asks about those who are logged in, each now and then.
func (c *Controller) askOIDC(ctx context.Context, p *apiv1.IdentityProvider, secret string, some []known) error {
	for _, k := range some {
		if !k.here || len(k.GetSealedRefreshToken()) == 0 || !c.due(k) {
			continue
		}
		token, err := c.Unseal(provider.RefreshRole(k.GetId()), k.GetSealedRefreshToken())
		if err != nil {
			return err
		}
		person, err := c.Providers.Refresh(ctx, p, secret, k.GetSubject(), string(token))
		refusal := (*provider.Refusal)(nil)
		switch {
		case errors.Is(err, provider.ErrGone) || errors.As(err, &refusal):
			person = nil
		case err != nil:
			return err
		}
		c.mu.Lock()
		c.asked[k.GetId()] = c.Now()
		c.mu.Unlock()
		if err := c.check(ctx, p, k, person); err != nil {
			return err
		}
	}
	return nil
}

// due reports whether it is time to ask about an identity: freshEvery after its last login, or after it was last asked about.
func (c *Controller) due(k known) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.asked[k.GetId()]
	if at := k.GetLastLoginAt().AsTime(); at.After(last) {
		last = at
	}
	return c.Now().Sub(last) >= freshEvery
}

// check writes down what a provider says of somebody where that is something else than before; nil is that they are gone.
func (c *Controller) check(ctx context.Context, p *apiv1.IdentityProvider, k known, person *provider.Person) error {
	in := &commandv1.CheckIdentity{IdentityId: k.GetId(), ProviderRevision: p.GetRevision(), ExpectedRevision: k.GetRevision()}
	switch {
	case person == nil && k.GetGoneAt() != nil && !k.here && len(k.groups) == 0:
		return nil
	case person == nil:
		in.Gone, in.Reason = true, "identity provider "+p.GetName()+" no longer knows them, or lets them in no more"
	default:
		in.GroupIds = slices.DeleteFunc(provider.Mapped(p, person), func(id string) bool { return slices.Contains(k.own, id) })
		if person.GroupsUnknown || slices.Equal(in.GetGroupIds(), k.groups) {
			in.GroupIds, in.GroupsUnknown = nil, true
		}
		if person.RefreshToken != "" {
			sealed, err := c.Seal(provider.RefreshRole(k.GetId()), []byte(person.RefreshToken))
			if err != nil {
				return err
			}
			in.SealedRefreshToken = sealed
		}
		if in.GroupsUnknown && in.SealedRefreshToken == nil && k.GetGoneAt() == nil {
			return nil
		}
		in.Reason = "identity provider " + p.GetName() + " was asked again"
	}
	id := uuid.Must(uuid.NewV7())
	r, err := c.Proposer.Propose(ctx, &commandv1.Command{Id: id[:], Actor: actor, Body: &commandv1.Command_CheckIdentity{CheckIdentity: in}})
	if err == nil {
		err = problem.FromProto(r.GetProblem())
	}
	if problem.Is(err, problem.Conflict) || problem.Is(err, problem.NotFound) || problem.Is(err, problem.Forbidden) {
		err = nil // it was changed meanwhile, and is asked about in the next round
	}
	return err
}
