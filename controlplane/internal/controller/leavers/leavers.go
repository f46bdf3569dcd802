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
	Still(ctx context.Context, p *apiv1.IdentityProvider, secret string, subjects []string) (still map[string]*provider.Person, odd map[string]error, err error)
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
	// unstored are tokens that providers gave for those with which they were asked, and that are not written down yet.
	unstored map[string]token
}

// token is with what a provider can be asked about an identity that has a revision: the one before no longer counts.
type token struct {
	revision string
	sealed   []byte
}

// New returns a controller that does nothing yet.
func New(c Config) *Controller {
	return &Controller{Config: c, asked: map[string]time.Time{}, unstored: map[string]token{}}
}

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
	maps.DeleteFunc(c.asked, func(_ string, at time.Time) bool { return c.Now().Sub(at).Abs() > freshEvery })
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

// ask asks one provider about all whom it is asked about. What fails for some of them keeps nobody from asking about the others.
func (c *Controller) ask(ctx context.Context, p *apiv1.IdentityProvider) error {
	var failed error
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
			return errors.Join(failed, err)
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
		switch silence := (*provider.Failure)(nil); {
		case errors.As(err, &silence) && p.GetOidc() != nil:
			return errors.Join(failed, err) // who was asked about last is not for a while: the next round begins behind them
		case failed == nil: // one says enough
			failed = err
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
	still, odd, err := c.Providers.Still(ctx, p, secret, subjects)
	if err != nil {
		return err
	}
	var failed error
	said := oddities{}
	defer func() { said.log(c.Log, p) }()
	for _, k := range some {
		if err := odd[k.GetSubject()]; err != nil {
			said.add(k, err)
			continue
		}
		if err := c.check(ctx, p, k, still[k.GetSubject()]); err != nil {
			failed = err
		}
	}
	return failed
}

// oddities are those of a page about whom a provider answers what does not say whether they are still there.
type oddities struct {
	users []string
	first error
}

func (o *oddities) add(k known, err error) {
	if o.users = append(o.users, k.GetUser()); o.first == nil {
		o.first = err
	}
}

func (o *oddities) log(to *slog.Logger, p *apiv1.IdentityProvider) {
	if len(o.users) > 0 {
		to.Warn("what an identity provider answers about people does not say whether they are still there", "provider", p.GetName(), "users", o.users, "first", o.first)
	}
}

// askOIDC asks about those who are logged in, each now and then. Only a provider that says so says that somebody is gone: a token that does
// not count here may be for the clock of this server.
func (c *Controller) askOIDC(ctx context.Context, p *apiv1.IdentityProvider, secret string, some []known) error {
	var failed error
	said := oddities{}
	defer func() { said.log(c.Log, p) }()
	for _, k := range some {
		if kept := c.kept(k); kept != nil {
			if err := c.check(ctx, p, k, &provider.Person{GroupsUnknown: true, RefreshToken: string(kept)}); err != nil {
				failed = err
			}
			continue // what was read of them is old
		}
		if !k.here || len(k.GetSealedRefreshToken()) == 0 || !c.due(k) {
			continue
		}
		with, err := c.Unseal(provider.RefreshRole(k.GetId()), k.GetSealedRefreshToken())
		if err != nil {
			failed = err
			continue
		}
		person, err := c.Providers.Refresh(ctx, p, secret, k.GetSubject(), string(with))
		c.mu.Lock()
		c.asked[k.GetId()] = c.Now()
		c.mu.Unlock()
		switch {
		case err == nil:
		case errors.Is(err, provider.ErrGone):
			person = nil
		case person != nil || provider.OfOne(err):
			if said.add(k, err); person == nil {
				continue
			}
		default:
			return err
		}
		if err := c.check(ctx, p, k, person); err != nil {
			failed = err
		}
	}
	return failed
}

// keep remembers the token that a provider gave for the one that is written down, until it is written down itself.
func (c *Controller) keep(k known, sealed []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unstored[k.GetId()] = token{k.GetRevision(), sealed}
}

// kept is what was remembered of an identity, opened; nil where that is nothing, or is written down by now.
func (c *Controller) kept(k known) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, has := c.unstored[k.GetId()]
	if !has {
		return nil
	}
	if t.revision == k.GetRevision() {
		if opened, err := c.Unseal(provider.RefreshRole(k.GetId()), t.sealed); err == nil {
			return opened
		}
	}
	delete(c.unstored, k.GetId())
	return nil
}

// due reports whether it is time to ask about an identity: freshEvery after its last login, or after it was last asked about.
func (c *Controller) due(k known) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, last := c.Now(), c.asked[k.GetId()]
	if at := k.GetLastLoginAt().AsTime(); at.After(last) && !at.After(now) { // a clock that was ahead puts nothing off
		last = at
	}
	return now.Sub(last) >= freshEvery || now.Before(last)
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
			c.keep(k, sealed)
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.unstored, k.GetId())
		return nil
	}
	delete(c.asked, k.GetId())
	if problem.Is(err, problem.Conflict) || problem.Is(err, problem.NotFound) || problem.Is(err, problem.Forbidden) {
		return nil // it was changed meanwhile, and is asked about in the next round
	}
	return err
}
