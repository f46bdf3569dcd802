package fsm_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// providing is a plane with an identity provider corp, which makes users and maps a group of its own to group ops.
func providing(t tb) *plane {
	p := furnished(t)
	p.accept(sealingKey("key-1", ""))
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateGroup{CreateGroup: &commandv1.CreateGroup{Group: &apiv1.Group{Id: "g-ops", Name: "ops"}}}})
	var home *apiv1.Organization
	p.view(func(tx *state.Tx) { home, _ = tx.Organizations.ByName("default", nil) })
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateIdentityProvider{CreateIdentityProvider: &commandv1.CreateIdentityProvider{IdentityProvider: &apiv1.IdentityProvider{
		Id: "ip-corp", Name: "corp", CreateUsers: true, Organization: home.GetName(), OrganizationId: home.GetId(),
		Oidc: &apiv1.OpenIDConnect{Issuer: "https://corp.example", ClientId: "naru"}, GroupMappings: []*apiv1.GroupMapping{{ProviderGroup: "ops", Group: "ops", GroupId: "g-ops"}},
	}}}})
	return p
}

func (p *plane) corp() (m *apiv1.IdentityProvider) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if m, err = tx.IdentityProviders.Get("ip-corp"); err != nil {
			p.Fatal(err)
		}
	})
	return m
}

// comes is the login of whom corp knows by a subject, in a session; a user of the name is made where nobody is linked.
func (p *plane) comes(subject, name, session string) *commandv1.Command {
	in := &commandv1.BeginProviderSession{
		Session:  &apiv1.Session{Id: session, Strength: apiv1.Session_PASSWORD, SecretHash: digest("secret of " + session), ExpiresAt: timestamppb.New(start.Add(12 * time.Hour))},
		Identity: &apiv1.Identity{Id: "i-" + subject, IdentityProviderId: "ip-corp", Subject: subject, Login: name}, ProviderRevision: p.corp().GetRevision(),
		User:     &apiv1.User{Id: "u-" + name, Name: name, Kind: apiv1.User_PERSON, Organization: p.corp().GetOrganization(), OrganizationId: p.corp().GetOrganizationId()},
		GroupIds: []string{"g-ops"}, Shown: p.proof(name, "seal of "+session), TicketHash: digest("ticket of " + session),
	}
	return &commandv1.Command{Body: &commandv1.Command_BeginProviderSession{BeginProviderSession: in}}
}

func (p *plane) groups(user string) (ids []string) {
	p.Helper()
	p.view(func(tx *state.Tx) { ids, _ = tx.GroupsOf(user) })
	return ids
}

func TestALoginThroughAProviderCountsOnceAndByTheProviderThatWasAsked(t *testing.T) {
	p := providing(t)
	first := p.comes("7", "kim", "one")
	p.accept(first)
	if got := p.sessions("kim"); !slices.Equal(got, []string{"one"}) || !slices.Equal(p.groups("u-kim"), []string{"g-ops"}) {
		t.Errorf("sessions %v, groups %v", got, p.groups("u-kim"))
	}
	for about, x := range map[string]struct {
		code  problem.Code
		spoil func(in *commandv1.BeginProviderSession)
	}{
		"the same sealing":     {problem.Unauthenticated, func(in *commandv1.BeginProviderSession) { in.Shown.Seal = digest("seal of one") }},
		"the same ticket":      {problem.Unauthenticated, func(in *commandv1.BeginProviderSession) { in.TicketHash = digest("ticket of one") }},
		"a key that is gone":   {problem.Conflict, func(in *commandv1.BeginProviderSession) { in.Shown.KeyId = "key-0" }},
		"another provider now": {problem.Conflict, func(in *commandv1.BeginProviderSession) { in.ProviderRevision = "0-0" }},
		"another identity":     {problem.Conflict, func(in *commandv1.BeginProviderSession) { in.Identity.Id = "i-8" }},
		"the same secret":      {problem.Conflict, func(in *commandv1.BeginProviderSession) { in.Session.SecretHash = digest("secret of one") }},
		"a name that is taken": {problem.NameTaken, func(in *commandv1.BeginProviderSession) {
			in.Identity.Subject, in.Identity.Id, in.User.Id = "9", "i-9", "u-9"
		}},
		"a service": {problem.Invalid, func(in *commandv1.BeginProviderSession) {
			in.Identity.Subject, in.Identity.Id, in.User.Id, in.User.Name, in.User.Kind = "9", "i-9", "u-9", "bot", apiv1.User_SERVICE
		}},
	} {
		t.Run(about, func(t *testing.T) {
			c := p.comes("7", "kim", "two")
			x.spoil(c.GetBeginProviderSession())
			p.refuse(x.code, c)
		})
	}
	p.accept(p.comes("7", "kim", "two"))
	p.accept(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-kim", Reason: "left"}}})
	p.refuse(problem.Forbidden, p.comes("7", "kim", "three"))
}

// TestWhoeverHadAHandInAProviderIsBehindWhoeverComesInByIt: not before, and not only as long as it is as they left it.
func TestWhoeverHadAHandInAProviderIsBehindWhoeverComesInByIt(t *testing.T) {
	p := providing(t)
	p.accept(createUser("mallory"))
	held := func() (ids []string) {
		p.view(func(tx *state.Tx) {
			if kept, err := tx.Credentials("u-kim"); err == nil {
				ids = kept.GetSetBy()
			}
		})
		return ids
	}
	p.accept(p.comes("7", "kim", "one"))
	if slices.Contains(held(), "u-mallory") {
		t.Error("mallory is behind kim without having done anything")
	}
	p.accept(&commandv1.Command{Origin: &commandv1.Origin{ActorId: "u-mallory"}, Body: &commandv1.Command_SetIdentityProviderSecret{
		SetIdentityProviderSecret: &commandv1.SetIdentityProviderSecret{IdentityProviderId: "ip-corp", Sealed: []byte("sealed")}}})
	if slices.Contains(held(), "u-mallory") {
		t.Error("mallory is behind kim before anybody came in")
	}
	p.accept(p.comes("7", "kim", "two"))
	if !slices.Contains(held(), "u-mallory") {
		t.Errorf("behind kim are %v", held())
	}
}

func TestWhoIsGoneAtTheProviderLosesWhatItGave(t *testing.T) {
	p := providing(t)
	p.accept(p.comes("7", "kim", "one"))
	check := func(gone bool, revision string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_CheckIdentity{CheckIdentity: &commandv1.CheckIdentity{
			IdentityId: "i-7", Gone: gone, GroupIds: []string{"g-ops"}, ProviderRevision: p.corp().GetRevision(), ExpectedRevision: revision}}}
	}
	revision := func() (text string) {
		p.view(func(tx *state.Tx) {
			m, err := tx.Identities.Get("i-7")
			if err != nil {
				p.Fatal(err)
			}
			text = m.GetRevision()
		})
		return text
	}
	p.refuse(problem.Conflict, check(true, "0-0"))
	p.accept(check(true, revision()))
	if got := p.sessions("kim"); len(got) != 0 || len(p.groups("u-kim")) != 0 {
		t.Errorf("sessions %v, groups %v", got, p.groups("u-kim"))
	}
	p.accept(check(false, revision()))
	if got := p.groups("u-kim"); !slices.Equal(got, []string{"g-ops"}) {
		t.Errorf("who is there again is in %v", got)
	}
}
