package leavers_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/controller/leavers"
	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// world is a federation in which people have come in through a provider that answers what a test says.
type world struct {
	*servicetest.World
	leavers *leavers.Controller
	log     bytes.Buffer
	ahead   time.Duration

	// still and odd are what a directory says, by subject; refresh is what an OpenID Connect provider answers, with every token that it
	// was asked with in tokens.
	still   map[string]*provider.Person
	odd     map[string]error
	refresh func(subject string) (*provider.Person, error)
	tokens  []string
}

func (w *world) Still(_ context.Context, _ *apiv1.IdentityProvider, _ string, subjects []string) (map[string]*provider.Person, map[string]error, error) {
	return w.still, w.odd, nil
}

func (w *world) Refresh(_ context.Context, _ *apiv1.IdentityProvider, _, subject, token string) (*provider.Person, error) {
	w.tokens = append(w.tokens, subject+" with "+token)
	return w.refresh(subject)
}

func (w *world) now() time.Time { return time.Now().Add(w.ahead) }

func newWorld(t *testing.T, p *apiv1.IdentityProvider) *world {
	w := &world{World: servicetest.New(t)}
	w.leads()
	p.Id, p.Name, p.CreateUsers = "corp", "corp", true
	w.view(func(tx *state.Tx) error {
		home, err := tx.Organizations.ByName("default", nil)
		p.Organization, p.OrganizationId = home.GetName(), home.GetId()
		return err
	})
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateIdentityProvider{CreateIdentityProvider: &commandv1.CreateIdentityProvider{IdentityProvider: p}}})
	return w
}

// leads has a server lead that has not led before.
func (w *world) leads() {
	w.leavers = leavers.New(leavers.Config{Reader: w.DB, Proposer: w, Providers: w, Seal: w.Service.Secrets.Seal, Unseal: w.Service.Secrets.Unseal,
		Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: w.now})
}

func (w *world) view(f func(*state.Tx) error) {
	w.Helper()
	if err := w.DB.View(context.Background(), f); err != nil {
		w.Fatal(err)
	}
}

// comes has somebody come in, whom the provider knows by their name.
func (w *world) comes(name, token string) {
	w.Helper()
	var p *apiv1.IdentityProvider
	var ring *commandv1.Keyring
	w.view(func(tx *state.Tx) (err error) {
		if p, err = tx.IdentityProviders.Get("corp"); err == nil {
			ring, err = tx.Keyring()
		}
		return err
	})
	sealed, err := w.Service.Secrets.Seal(provider.RefreshRole("i-"+name), []byte(token))
	if err != nil {
		w.Fatal(err)
	}
	hash := sha256.Sum256([]byte(name + token))
	w.Do(&commandv1.Command{Body: &commandv1.Command_BeginProviderSession{BeginProviderSession: &commandv1.BeginProviderSession{
		Session:          &apiv1.Session{Id: "s-" + name, Strength: apiv1.Session_PASSWORD, SecretHash: hash[:], ExpiresAt: timestamppb.New(w.now().Add(time.Hour))},
		Identity:         &apiv1.Identity{Id: "i-" + name, IdentityProviderId: "corp", Subject: name, Login: name, SealedRefreshToken: sealed},
		ProviderRevision: p.GetRevision(), Shown: &commandv1.Shown{KeyId: ring.GetSealingKeys()[0].GetId(), Seal: hash[:]},
		User: &apiv1.User{Id: "u-" + name, Name: name, Kind: apiv1.User_PERSON, Organization: p.GetOrganization(), OrganizationId: p.GetOrganizationId()},
	}}})
}

func (w *world) round() {
	w.Helper()
	if err := w.leavers.Round(context.Background()); err != nil {
		w.Fatal(err)
	}
}

// in are those who are logged in, by name.
func (w *world) in() (names []string) {
	w.Helper()
	w.view(func(tx *state.Tx) error {
		names = nil
		for s, err := range tx.Sessions.All(nil) {
			if err != nil {
				return err
			}
			names = append(names, s.GetUser())
		}
		return nil
	})
	slices.Sort(names)
	return names
}

func there(name string) *provider.Person {
	return &provider.Person{Subject: name, Login: name, GroupsUnknown: true}
}

// TestWhoIsOddHidesNoLeaver: of a page of a directory one is there, one is odd, and one has left.
func TestWhoIsOddHidesNoLeaver(t *testing.T) {
	w := newWorld(t, &apiv1.IdentityProvider{Ldap: &apiv1.Directory{Urls: []string{"ldaps://ldap.example"}, UserBase: "dc=example"}})
	for _, name := range []string{"ann", "bob", "cho"} {
		w.comes(name, "")
	}
	w.still, w.odd = map[string]*provider.Person{"bob": there("bob")}, map[string]error{"ann": &provider.Refusal{Reason: "two have that id"}}
	w.round()
	if got := w.in(); !slices.Equal(got, []string{"ann", "bob"}) {
		t.Errorf("logged in are %v", got)
	}
	if !strings.Contains(w.log.String(), "ann") || !strings.Contains(w.log.String(), "two have that id") || strings.Contains(w.log.String(), "bob") {
		t.Errorf("of who is odd is said:\n%s", &w.log)
	}
}

// TestWhatIsNotSaidByTheProviderEndsNoSession: a token that does not count here, for the clock of this server for instance, says nothing.
func TestWhatIsNotSaidByTheProviderEndsNoSession(t *testing.T) {
	w := newWorld(t, &apiv1.IdentityProvider{Oidc: &apiv1.OpenIDConnect{Issuer: "https://corp.example", ClientId: "naru"}})
	all := []string{"ann", "bob", "cho", "dan", "eve"}
	for _, name := range all {
		w.comes(name, name+"'s first")
	}
	w.ahead = time.Hour / 2
	answers := map[string]error{
		"ann": &provider.Refusal{Reason: "its token does not count yet"}, "bob": &provider.Failure{Err: errors.New("400 invalid_scope"), Answered: true},
		"cho": &provider.Failure{Err: errors.New("500")}, "dan": fmt.Errorf("%w: it answers for somebody else", provider.ErrGone), "eve": provider.ErrGone,
	}
	w.refresh = func(subject string) (*provider.Person, error) {
		if subject == "ann" { // it took the token, and gave another
			return &provider.Person{Subject: subject, GroupsUnknown: true, RefreshToken: "ann's second"}, answers[subject]
		}
		return nil, answers[subject]
	}
	w.round() // as far as who gets no answer
	if got := w.in(); !slices.Equal(got, all) || len(w.tokens) != 3 {
		t.Errorf("after the first round %v are logged in, and asked about were %v", got, w.tokens)
	}
	w.round() // from there on
	if got := w.in(); !slices.Equal(got, []string{"ann", "bob", "cho"}) || len(w.tokens) != 5 {
		t.Errorf("after the second round %v are logged in, and asked about were %v", got, w.tokens)
	}
	w.ahead += 15 * time.Minute
	w.round()
	if w.tokens[5] != "ann with ann's second" {
		t.Errorf("the next time it is asked about %s", w.tokens[5])
	}
}

// TestATokenThatIsNotWrittenDownYetIsNotLost: the one before no longer counts at the provider.
func TestATokenThatIsNotWrittenDownYetIsNotLost(t *testing.T) {
	w := newWorld(t, &apiv1.IdentityProvider{Oidc: &apiv1.OpenIDConnect{Issuer: "https://corp.example", ClientId: "naru"}})
	w.comes("ann", "the first")
	w.ahead = time.Hour / 2
	given := 0
	w.refresh = func(subject string) (*provider.Person, error) {
		given++
		return &provider.Person{Subject: subject, GroupsUnknown: true, RefreshToken: fmt.Sprint("the next ", given)}, nil
	}
	lost := problem.New(problem.Unavailable, "leadership was lost", "Try again.")
	w.FailNext(lost, lost)
	w.round()
	w.round()
	if len(w.tokens) != 1 {
		t.Errorf("before it is written down it is asked again: %v", w.tokens)
	}
	w.round() // written down
	w.round()
	if !slices.Equal(w.tokens, []string{"ann with the first", "ann with the next 1"}) {
		t.Errorf("it was asked about %v", w.tokens)
	}
}

// TestATokenThatIsLostWithItsLeaderLocksNobodyOut: the one that is written down is asked with. A provider that has a grace takes it; by one
// that has none, whose it was has to log in again, and is neither gone nor without what others gave them.
func TestATokenThatIsLostWithItsLeaderLocksNobodyOut(t *testing.T) {
	for _, grace := range []bool{true, false} {
		w := newWorld(t, &apiv1.IdentityProvider{Oidc: &apiv1.OpenIDConnect{Issuer: "https://corp.example", ClientId: "naru"}})
		w.comes("ann", "the first")
		w.Do(&commandv1.Command{Body: &commandv1.Command_CreateGroup{CreateGroup: &commandv1.CreateGroup{Group: &apiv1.Group{Id: "g", Name: "ops"}}}})
		w.Do(&commandv1.Command{Actor: "admin", Body: &commandv1.Command_AddGroupMember{AddGroupMember: &commandv1.AddGroupMember{GroupId: "g", UserId: "u-ann"}}})
		w.ahead = time.Hour / 2
		w.refresh = func(subject string) (*provider.Person, error) {
			if len(w.tokens) > 1 && !grace {
				return nil, provider.ErrGone
			}
			return &provider.Person{Subject: subject, GroupsUnknown: true, RefreshToken: fmt.Sprint("the next ", len(w.tokens))}, nil
		}
		w.FailNext(problem.New(problem.Unavailable, "leadership was lost", "Try again."))
		w.round()
		w.leads()
		w.round()
		if !slices.Equal(w.tokens, []string{"ann with the first", "ann with the first"}) {
			t.Errorf("it was asked about %v", w.tokens)
		}
		w.view(func(tx *state.Tx) error {
			ann, err := tx.Users.Get("u-ann")
			if err == nil && request.Away(ann) != "" {
				t.Errorf("with a grace %t, ann is away: %s", grace, request.Away(ann))
			}
			if _, err := tx.Membership("g", "u-ann"); err != nil {
				t.Errorf("with a grace %t, ann is in the group no more: %v", grace, err)
			}
			return err
		})
		if in := len(w.in()); (in == 1) != grace {
			t.Errorf("with a grace %t, ann has %d sessions", grace, in)
		}
		if !grace {
			w.comes("ann", "after that")
		}
		if in := w.in(); !slices.Equal(in, []string{"ann"}) {
			t.Errorf("with a grace %t, at last %v are logged in", grace, in)
		}
	}
}

// TestAClockThatWasAheadPutsNothingOff: somebody logged in while the leader's clock was a day ahead.
func TestAClockThatWasAheadPutsNothingOff(t *testing.T) {
	w := newWorld(t, &apiv1.IdentityProvider{Oidc: &apiv1.OpenIDConnect{Issuer: "https://corp.example", ClientId: "naru"}})
	w.Do(&commandv1.Command{Stamp: timestamppb.New(time.Now().Add(24 * time.Hour)), Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
	w.comes("ann", "the first")
	w.refresh = func(string) (*provider.Person, error) { return nil, provider.ErrGone }
	w.ahead = time.Hour / 2
	if w.round(); len(w.in()) != 0 {
		t.Error("who has left is logged in until the clock has caught up")
	}
}
