package fsm_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// chosen lets people have chosen a password of their own.
func (p *plane) chosen(names ...string) {
	p.Helper()
	for _, name := range names {
		p.credentialsOf(name, &commandv1.Credentials{Password: "argon2id of " + name})
	}
}

func (p *plane) credentialsOf(name string, kept *commandv1.Credentials) {
	p.Helper()
	kept.UserId = "u-" + name
	if err := p.db.Update(func(tx *state.Tx) error { return tx.PutCredentials(kept) }); err != nil {
		p.Fatal(err)
	}
}

// TestOneWhoCanLogInAlwaysAdministersTheFederation: whoever is bound to the role and has no way in, or none yet, is nobody who is left.
func TestOneWhoCanLogInAlwaysAdministersTheFederation(t *testing.T) {
	linked := func(p *plane, provider *apiv1.IdentityProvider, m *apiv1.Identity) {
		p.Helper()
		m.Id, m.Subject, m.User, m.UserId, m.IdentityProvider, m.IdentityProviderId = "i-lee", "7", "lee", "u-lee", "corp", "ip-corp"
		provider.Id, provider.Name = "ip-corp", "corp"
		if err := p.db.Update(func(tx *state.Tx) error {
			if err := tx.IdentityProviders.Put(provider); err != nil {
				return err
			}
			return tx.Identities.Put(m)
		}); err != nil {
			p.Fatal(err)
		}
	}
	ldap := func(disabled bool) *apiv1.IdentityProvider {
		return &apiv1.IdentityProvider{Disabled: disabled, Ldap: &apiv1.Directory{}}
	}
	for about, c := range map[string]struct {
		give func(*plane)
		in   bool
	}{
		"nothing":            {func(*plane) {}, false},
		"their own password": {func(p *plane) { p.chosen("lee") }, true},
		"a password for one login": {func(p *plane) {
			p.credentialsOf("lee", &commandv1.Credentials{Password: "x", OneTimeUntil: timestamppb.New(p.now.Add(time.Hour))})
		}, false},
		"a link": {func(p *plane) { linked(p, ldap(false), &apiv1.Identity{}) }, true},
		"a link with a provider that is disabled": {func(p *plane) { linked(p, ldap(true), &apiv1.Identity{}) }, false},
		"a link with a directory that knows them no more": {func(p *plane) {
			linked(p, ldap(false), &apiv1.Identity{GoneAt: timestamppb.New(p.now)})
		}, false},
		"a certificate": {func(p *plane) {
			a := createAdministrator("lee", p.now.Add(time.Hour))
			a.GetCreateAdministrator().Administrator.User, a.GetCreateAdministrator().Administrator.UserId = "lee", "u-lee"
			p.accept(a)
		}, true},
		"a certificate that has ended": {func(p *plane) {
			a := createAdministrator("lee", p.now.Add(time.Minute))
			a.GetCreateAdministrator().Administrator.User, a.GetCreateAdministrator().Administrator.UserId = "lee", "u-lee"
			p.accept(a)
			p.now = p.now.Add(time.Hour)
		}, false},
	} {
		t.Run(about, func(t *testing.T) {
			p := peopled(t)
			p.chosen("kim")
			p.accept(give("b-kim", "federation-administrator", "kim", "", never))
			p.accept(give("b-lee", "federation-administrator", "lee", "", never))
			c.give(p)
			for _, take := range []*commandv1.Command{disableUser("kim"), deletion("user", "u-kim", ""), take("b-kim")} {
				if c.in {
					p.accept(take)
					return
				}
				p.refuse(problem.InUse, take)
			}
		})
	}
}
