package fsm_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/hold"
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
	held := func() []string { return p.behind("kim") }
	p.accept(p.comes("7", "kim", "one"))
	if slices.Contains(held(), "u-mallory") {
		t.Error("mallory is behind kim without having done anything")
	}
	p.accept(p.by("u-mallory", &commandv1.Command{Body: &commandv1.Command_SetIdentityProviderSecret{
		SetIdentityProviderSecret: &commandv1.SetIdentityProviderSecret{IdentityProviderId: "ip-corp", Sealed: []byte("sealed")}}}))
	if slices.Contains(held(), "u-mallory") {
		t.Error("mallory is behind kim before anybody came in")
	}
	p.accept(p.comes("7", "kim", "two"))
	if !slices.Contains(held(), "u-mallory") {
		t.Errorf("behind kim are %v", held())
	}
}

// behind are those who could have acted as a user.
func (p *plane) behind(user string) (ids []string) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if ids, err = hold.Behind(tx, "u-"+user); err != nil {
			p.Fatal(err)
		}
	})
	return ids
}

// TestWhoLinkedAPersonIsBehindThemAsLongAsTheLinkStands: a password from somebody else takes them away no more than it takes the link; who
// ends the link does, where it is not they who made it.
func TestWhoLinkedAPersonIsBehindThemAsLongAsTheLinkStands(t *testing.T) {
	p := providing(t)
	for _, name := range []string{"kim", "mallory", "lee"} {
		p.accept(createUser(name))
	}
	link := func() *commandv1.Command {
		return p.by("u-mallory", &commandv1.Command{Body: &commandv1.Command_LinkIdentity{LinkIdentity: &commandv1.LinkIdentity{
			Identity: &apiv1.Identity{Id: "i-7", IdentityProviderId: "ip-corp", Subject: "7", UserId: "u-kim"}}}})
	}
	end := func(name string) *commandv1.Command {
		return p.by("u-"+name, &commandv1.Command{Body: &commandv1.Command_UnlinkIdentity{UnlinkIdentity: &commandv1.DeleteNoun{Id: "i-7"}}})
	}
	p.accept(link())
	p.accept(p.reset("lee", "kim"))
	if got := p.behind("kim"); !slices.Equal(got, []string{"u-kim", "u-lee", "u-mallory"}) {
		t.Errorf("linked, and with a password of lee's, behind kim are %v", got)
	}
	p.accept(end("lee"))
	if got := p.behind("kim"); !slices.Equal(got, []string{"u-kim", "u-lee"}) {
		t.Errorf("once lee has ended it, behind kim are %v", got)
	}
	p.accept(link())
	p.accept(end("mallory"))
	if got := p.behind("kim"); !slices.Contains(got, "u-mallory") {
		t.Errorf("once mallory has ended it herself, behind kim are %v", got)
	}
	p.accept(p.reset("lee", "kim"))
	if got := p.behind("kim"); slices.Contains(got, "u-mallory") {
		t.Errorf("after that, and with a password of lee's, behind kim are %v", got)
	}
}

// TestATicketCountsOnceToWhicheverKeyItCameSealed: of the keys to which one may seal there are two.
func TestATicketCountsOnceToWhicheverKeyItCameSealed(t *testing.T) {
	p := providing(t)
	first := p.comes("7", "kim", "one")
	p.accept(first)
	p.accept(sealingKey("key-2", "key-1"))
	again := p.comes("7", "kim", "two")
	in := again.GetBeginProviderSession()
	in.Shown.KeyId, in.TicketHash = "key-2", first.GetBeginProviderSession().GetTicketHash()
	p.refuse(problem.Unauthenticated, again)
	// One that came to the older key is remembered as long as the newest.
	third := p.comes("7", "kim", "three")
	p.accept(third)
	p.accept(sealingKey("key-3", "key-2"))
	again = p.comes("7", "kim", "four")
	in = again.GetBeginProviderSession()
	in.Shown.KeyId, in.TicketHash = "key-3", third.GetBeginProviderSession().GetTicketHash()
	p.refuse(problem.Unauthenticated, again)
}

// TestNobodyTakesTheLastAdministratorAwayThroughAProvider: kim administers the federation by a group of corp's. That corp no longer knows
// them is not anybody's doing here.
func TestNobodyTakesTheLastAdministratorAwayThroughAProvider(t *testing.T) {
	update := func(p *plane, change func(*apiv1.IdentityProvider)) *commandv1.Command {
		m := p.corp()
		change(m)
		return &commandv1.Command{Body: &commandv1.Command_UpdateIdentityProvider{UpdateIdentityProvider: &commandv1.UpdateIdentityProvider{IdentityProvider: m}}}
	}
	for about, take := range map[string]func(*plane) *commandv1.Command{
		"the provider is disabled": func(p *plane) *commandv1.Command {
			return update(p, func(m *apiv1.IdentityProvider) { m.Disabled = true })
		},
		"the group is mapped no more": func(p *plane) *commandv1.Command {
			return update(p, func(m *apiv1.IdentityProvider) { m.GroupMappings = nil })
		},
		"the provider is deleted": func(*plane) *commandv1.Command {
			return &commandv1.Command{Body: &commandv1.Command_DeleteIdentityProvider{DeleteIdentityProvider: &commandv1.DeleteNoun{Id: "ip-corp"}}}
		},
		"the link is ended": func(*plane) *commandv1.Command {
			return &commandv1.Command{Body: &commandv1.Command_UnlinkIdentity{UnlinkIdentity: &commandv1.DeleteNoun{Id: "i-7"}}}
		},
	} {
		t.Run(about, func(t *testing.T) {
			p := providing(t)
			p.accept(builtInRoles(1, "federation-administrator"))
			p.accept(p.comes("7", "kim", "one"))
			p.accept(give("b", "federation-administrator", "group:ops", "", never))
			if got := p.refuse(problem.InUse, take(p)).GetDetail(); !strings.Contains(got, "would administer the federation") {
				t.Errorf("%q", got)
			}
			if len(p.groups("u-kim")) != 1 || len(p.sessions("kim")) != 1 || p.corp().GetDisabled() {
				t.Error("what was refused was done")
			}
			p.accept(createUser("park"))
			p.chosen("park")
			p.accept(give("b-park", "federation-administrator", "park", "", never))
			p.accept(take(p))
		})
	}
	p := providing(t)
	p.accept(builtInRoles(1, "federation-administrator"))
	p.accept(p.comes("7", "kim", "one"))
	p.accept(give("b", "federation-administrator", "group:ops", "", never))
	var revision string
	p.view(func(tx *state.Tx) {
		m, err := tx.Identities.Get("i-7")
		if revision = m.GetRevision(); err != nil {
			t.Fatal(err)
		}
	})
	p.accept(&commandv1.Command{Body: &commandv1.Command_CheckIdentity{CheckIdentity: &commandv1.CheckIdentity{
		IdentityId: "i-7", Gone: true, ProviderRevision: p.corp().GetRevision(), ExpectedRevision: revision}}})
	if len(p.groups("u-kim")) != 0 {
		t.Error("who has left administers the federation")
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

// checked is what corp says of the identity of a subject.
func (p *plane) checked(subject string, gone bool) *commandv1.Command {
	p.Helper()
	in := &commandv1.CheckIdentity{IdentityId: "i-" + subject, Gone: gone, ProviderRevision: p.corp().GetRevision()}
	p.view(func(tx *state.Tx) { in.ExpectedRevision = get(p, tx.Identities, in.GetIdentityId()).GetRevision() })
	return &commandv1.Command{Body: &commandv1.Command_CheckIdentity{CheckIdentity: in}}
}

// toDirectory makes corp one that says of everybody whether they are there; what it is never changes by a command.
func (p *plane) toDirectory() {
	p.Helper()
	p.write(func(tx *state.Tx) error {
		m, err := tx.IdentityProviders.Get("ip-corp")
		if err != nil {
			return err
		}
		m.Oidc, m.Ldap = nil, &apiv1.Directory{Urls: []string{"ldaps://corp.example"}}
		return tx.IdentityProviders.Put(m)
	})
}

// TestWhoHasToLogInAgainIsNotGone: that is all that a provider says which takes a refresh token no more.
func TestWhoHasToLogInAgainIsNotGone(t *testing.T) {
	p := providing(t)
	p.accept(p.comes("7", "kim", "one"))
	p.accept(p.checked("7", true))
	if p.view(func(tx *state.Tx) {
		if m := get(p, tx.Users, "u-kim"); m.GetGoneAt() != nil {
			t.Errorf("kim is gone since %v", m.GetGoneAt().AsTime())
		}
	}); len(p.sessions("kim")) != 0 {
		t.Errorf("kim has the sessions %v", p.sessions("kim"))
	}
}

// TestWhoHasNoWayInAnyMoreIsGoneUntilTheyHaveOne: a link that counts, or a password of their own. Whom nobody has let in yet is not gone.
func TestWhoHasNoWayInAnyMoreIsGoneUntilTheyHaveOne(t *testing.T) {
	p := providing(t)
	p.toDirectory()
	p.accept(createUser("lee"))
	p.accept(p.comes("7", "kim", "one"))
	gone := func(name string) (out bool) {
		p.view(func(tx *state.Tx) { out = get(p, tx.Users, "u-"+name).GetGoneAt() != nil })
		return out
	}
	expect := func(want bool, when string) {
		t.Helper()
		if gone("kim") != want || gone("lee") {
			t.Errorf("%s: kim is gone: %v, lee: %v", when, gone("kim"), gone("lee"))
		}
	}
	expect(false, "at first")
	p.accept(p.checked("7", true))
	expect(true, "the provider does not know them")
	p.accept(p.checked("7", true))
	expect(true, "nor when it is asked again")
	p.accept(p.checked("7", false))
	expect(false, "the provider knows them again")
	p.accept(p.checked("7", true))
	p.accept(p.comes("7", "kim", "two"))
	expect(false, "they have logged in again")
	p.accept(p.checked("7", true))
	p.accept(resetPassword("kim"))
	expect(true, "somebody has given them a password for one login")
	p.accept(p.logIn("kim", "three"))
	p.accept(p.changePassword("kim", "three"))
	expect(false, "they have a password of their own")
	p.accept(p.checked("7", false))
	p.accept(p.checked("7", true))
	expect(false, "the provider does not know them, and the password is theirs")
	p.accept(resetPassword("kim"))
	expect(true, "the password is theirs no more")
	p.accept(p.checked("7", false))
	expect(false, "the provider knows them")
	p.accept(&commandv1.Command{Body: &commandv1.Command_UnlinkIdentity{UnlinkIdentity: &commandv1.DeleteNoun{Id: "i-7"}}})
	expect(true, "nothing is left")
	p.accept(&commandv1.Command{Body: &commandv1.Command_LinkIdentity{LinkIdentity: &commandv1.LinkIdentity{
		Identity: &apiv1.Identity{Id: "i-8", IdentityProviderId: "ip-corp", Subject: "8", UserId: "u-kim"}}}})
	expect(false, "they are linked anew")
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteIdentityProvider{DeleteIdentityProvider: &commandv1.DeleteNoun{Id: "ip-corp"}}})
	expect(true, "their only provider is deleted")
}
