package api_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/controller/leavers"
	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// let lets people log in through a provider, which has a secret and makes users.
func (f *federation) let(p *apiv1.IdentityProvider, mapped map[string]string) {
	f.Helper()
	for theirs, group := range mapped {
		if _, err := f.Admin().Groups.GetGroup(f.Context(), &apiv1.GetGroupRequest{Group: group}); problem.Is(err, problem.NotFound) {
			f.check(f.Admin().Groups.CreateGroup(f.Context(), &apiv1.CreateGroupRequest{Group: &apiv1.Group{Name: group}}))
		}
		p.GroupMappings = append(p.GroupMappings, &apiv1.GroupMapping{ProviderGroup: theirs, Group: group})
	}
	f.check(f.Admin().IdentityProviders.CreateIdentityProvider(f.Context(), &apiv1.CreateIdentityProviderRequest{IdentityProvider: p}))
	f.check(f.Admin().IdentityProviders.SetIdentityProviderSecret(f.Context(), &apiv1.SetIdentityProviderSecretRequest{IdentityProvider: p.GetName(), Secret: providertest.Secret}))
}

func (f *federation) check(_ any, err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// change changes fields of the provider corp.
func (f *federation) changeProvider(p *apiv1.IdentityProvider, paths ...string) {
	f.Helper()
	p.Id = "corp"
	f.check(f.Admin().IdentityProviders.UpdateIdentityProvider(f.Context(), &apiv1.UpdateIdentityProviderRequest{IdentityProvider: p, UpdateMask: mask(paths...)}))
}

func (f *federation) user(name string) *apiv1.User {
	f.Helper()
	r, err := f.Admin().Users.GetUser(f.Context(), &apiv1.GetUserRequest{User: name})
	if err != nil {
		f.Fatal(err)
	}
	return r.GetUser()
}

func (f *federation) in(group string) (names []string) {
	f.Helper()
	r, err := f.Admin().Groups.ListGroupMembers(f.Context(), &apiv1.ListGroupMembersRequest{Group: group})
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range r.GetMembers() {
		names = append(names, m.GetUser()+" by "+m.GetIdentityProvider())
	}
	return names
}

// byDirectory logs in with the password of the directory corp.
func byDirectory(ctx context.Context, c *client.Services, name, password string) (*client.Session, error) {
	s, _, err := c.LogIn(ctx, name, &apiv1.Secrets{Password: password, IdentityProvider: "corp"}, "test")
	return s, err
}

const (
	kims = "kim's own password"
	lees = "lee's own password"
)

func TestSomebodyLogsInWithTheirDirectorysPassword(t *testing.T) {
	f := newFederation(t, 1)
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	p := d.Provider(ca)
	p.SessionMinutes = 60
	f.let(p, map[string]string{"cn=ops,ou=groups,dc=corp": "operators", "cn=admins,ou=groups,dc=corp": "administrators"})
	internet := f.zoneID("internet")

	// Until the provider makes users, nobody is one.
	if _, err := byDirectory(t.Context(), f.at(internet, nil), "kim", kims); !problem.Is(err, problem.Forbidden) || !strings.Contains(problem.Of(err).GetNext(), "naru identity-provider link corp ") {
		t.Errorf("before anybody is linked: %v", err)
	}
	f.changeProvider(&apiv1.IdentityProvider{CreateUsers: true}, "create_users")

	var seen [][]byte
	edge := client.NewServices(edge{f: f, zone: internet, passes: func(b []byte) { seen = append(seen, b) }}).Trusting(f.Pin())
	s, err := byDirectory(t.Context(), edge, "Kim", kims)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range seen {
		if bytes.Contains(b, []byte(kims)) || bytes.Contains(b, s.Secret) {
			t.Error("a secret passes in the clear")
		}
	}
	if s.User != "kim" || s.Provider != "corp" || s.Zone != "internet" || time.Until(s.ExpiresAt) > time.Hour {
		t.Errorf("the session is %+v", s)
	}
	kim := f.user("kim")
	if kim.GetTitle() != "김민수" || kim.GetEmail() != "shared@corp.example" || kim.GetOrganization() != "default" || kim.GetPasswordChangedAt() != nil || !slices.Equal(kim.GetIdentityProviders(), []string{"corp"}) {
		t.Errorf("kim is %v", kim)
	}
	if got := f.in("operators"); !slices.Equal(got, []string{"kim by corp"}) {
		t.Errorf("operators are %v", got)
	}
	// Who has the same mail is somebody else; who comes again is the same.
	lee, err := byDirectory(t.Context(), f.at("", nil), "lee", lees)
	if err != nil || lee.User != "lee" || f.user("lee").GetEmail() != kim.GetEmail() || f.user("lee").GetId() == kim.GetId() {
		t.Errorf("lee is %+v (%v)", lee, err)
	}
	if _, err := byDirectory(t.Context(), f.at("", nil), "kim", kims); err != nil || f.user("kim").GetId() != kim.GetId() {
		t.Errorf("the second time: %v", err)
	}
	// Naru has no password of theirs, and gives none unasked.
	if _, _, err := f.at("", nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: kims}, ""); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("with the directory's password as Naru's: %v", err)
	}
	if err := f.change(lee, lees, ownPassword); !problem.Is(err, problem.WrongState) {
		t.Errorf("a password of Naru's for the directory's: %v", err)
	}
	// What the user shows again, they show to the directory.
	again := func(password string) error {
		c := f.at(internet, s)
		secrets, err := c.Seal(t.Context(), s.For(apiv1.SessionService_StepUp_FullMethodName), &apiv1.Secrets{Password: password})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Sessions.StepUp(t.Context(), &apiv1.StepUpRequest{Secrets: secrets})
		return err
	}
	if err := again(lees); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("stepping up with another password: %v", err)
	}
	if err := again(kims); err != nil {
		t.Errorf("stepping up: %v", err)
	}
	listed, err := f.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Filter: "action=session.log-in AND actor=user:kim", PageSize: 1000})
	if err != nil || !slices.ContainsFunc(listed.GetAuditEntries(), func(e *apiv1.AuditEntry) bool {
		return e.GetMessage() == "through identity provider corp" && e.GetViaZone() == "internet"
	}) {
		t.Errorf("the record has %v (%v)", listed.GetAuditEntries(), err)
	}
}

// TestAWrongPasswordOfADirectoryIsWaitedForAsOneOfNarus: nobody guesses faster there, nor with another spelling of the name, nor from
// elsewhere at the expense of whom the machine is known.
func TestAWrongPasswordOfADirectoryIsWaitedForAsOneOfNarus(t *testing.T) {
	f := newFederation(t, 1)
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	p := d.Provider(ca)
	p.CreateUsers = true
	f.let(p, nil)
	internet := f.zoneID("internet")
	device := bytes.Repeat([]byte{7}, 32)
	known := func() error {
		_, _, err := f.at(internet, nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: kims, IdentityProvider: "corp", Device: device}, "")
		return err
	}
	f.check(nil, known())
	for i, name := range []string{"kim", "KIM", " kim", "Kim", "kim"} {
		if _, err := byDirectory(t.Context(), f.at(internet, nil), name, lees); !problem.Is(err, problem.Unauthenticated) {
			t.Errorf("try %d: %v", i+1, err)
		}
	}
	if _, err := byDirectory(t.Context(), f.at(internet, nil), "kim", kims); !problem.Is(err, problem.TooMany) {
		t.Errorf("the sixth: %v", err)
	}
	if err := known(); err != nil {
		t.Errorf("from a machine that is known: %v", err)
	}
	if _, err := byDirectory(t.Context(), f.at(f.zoneID("business"), nil), "kim", kims); err != nil {
		t.Errorf("from another zone: %v", err)
	}
	if _, err := byDirectory(t.Context(), f.at(internet, nil), "lee", ""); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("without a password: %v", err)
	}
	// A directory that is down is said to be, and nobody is made to wait for what was not judged.
	d.Stop()
	for range 8 {
		if _, err := byDirectory(t.Context(), f.at(internet, nil), "lee", lees); !problem.Is(err, problem.Unavailable) || strings.Contains(err.Error(), "127.0.0.1") {
			t.Fatalf("while it is down: %v", err)
		}
	}
	listed, err := f.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Filter: "problem_code=UNAVAILABLE", PageSize: 10})
	if err != nil || len(listed.GetAuditEntries()) == 0 || !strings.Contains(listed.GetAuditEntries()[0].GetMessage(), "corp does not answer: ldaps://127.0.0.1") {
		t.Errorf("the record has %v (%v)", listed.GetAuditEntries(), err)
	}
}

// TestOnlyALinkSaysWhoSomebodyIs: neither a name nor a mail does, and who gives the link has had hold of the account, as has whoever had a
// hand in the provider.
func TestOnlyALinkSaysWhoSomebodyIs(t *testing.T) {
	f := newFederation(t, 1)
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	f.Roles()
	mallory := f.User("mallory", apiv1.User_PERSON)
	f.Bind("b-mallory", "federation-administrator", mallory, apiv1.RoleBinding_FEDERATION, "")
	p := d.Provider(ca)
	p.CreateUsers = true
	f.check(f.As(mallory).IdentityProviders.CreateIdentityProvider(t.Context(), &apiv1.CreateIdentityProviderRequest{IdentityProvider: p}))
	f.check(f.Admin().IdentityProviders.SetIdentityProviderSecret(t.Context(), &apiv1.SetIdentityProviderSecretRequest{IdentityProvider: "corp", Secret: providertest.Secret}))
	f.check(f.Admin().Users.CreateUser(t.Context(), &apiv1.CreateUserRequest{User: &apiv1.User{Name: "kim", Email: "shared@corp.example"}}))
	kim := f.user("kim")
	if _, err := byDirectory(t.Context(), f.at("", nil), "kim", kims); !problem.Is(err, problem.NameTaken) {
		t.Fatalf("whose name is taken: %v", err)
	}
	behind := func() (ids []string) {
		if err := f.DB.View(t.Context(), func(tx *state.Tx) (err error) { ids, err = hold.Behind(tx, kim.GetId()); return err }); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	if slices.Contains(behind(), mallory.GetId()) {
		t.Error("mallory is behind kim before anybody is linked")
	}
	found, err := f.Admin().IdentityProviders.TestIdentityProvider(t.Context(), &apiv1.TestIdentityProviderRequest{IdentityProvider: "corp", Login: "kim"})
	if err != nil {
		t.Fatal(err)
	}
	link := func(as *client.Services, subject, user string) (*apiv1.Identity, error) {
		r, err := as.IdentityProviders.LinkIdentity(t.Context(), &apiv1.LinkIdentityRequest{IdentityProvider: "corp", Subject: subject, User: user})
		return r.GetIdentity(), err
	}
	identity, err := link(f.Admin(), found.GetSubject(), "kim")
	if err != nil {
		t.Fatal(err)
	}
	for about, try := range map[string][2]string{"whom the provider knows as somebody else": {"another", "kim"}, "who is linked already": {found.GetSubject(), "mallory"}} {
		if _, err := link(f.Admin(), try[0], try[1]); !problem.Is(err, problem.InUse) {
			t.Errorf("%s: %v", about, err)
		}
	}
	s, err := byDirectory(t.Context(), f.at("", nil), "kim", kims)
	if err != nil || s.User != "kim" || f.user("kim").GetTitle() != "" {
		t.Fatalf("linked: %+v, %v", s, err)
	}
	if !slices.Contains(behind(), mallory.GetId()) {
		t.Error("mallory, who set the provider up, is not behind kim, who has come in by it")
	}
	f.check(f.Admin().Users.DisableUser(t.Context(), &apiv1.DisableUserRequest{User: "kim", Reason: "left"}))
	if _, err := whoAmI(t, f.at("", s)); !problem.Is(err, problem.TokenInvalid) {
		t.Errorf("the session of a disabled user: %v", err)
	}
	if _, err := byDirectory(t.Context(), f.at("", nil), "kim", kims); !problem.Is(err, problem.Forbidden) {
		t.Errorf("who is disabled here: %v", err)
	}
	f.check(f.Admin().Users.EnableUser(t.Context(), &apiv1.EnableUserRequest{User: "kim", Reason: "back"}))
	s, err = byDirectory(t.Context(), f.at("", nil), "kim", kims)
	f.check(s, err)
	f.check(f.Admin().IdentityProviders.UnlinkIdentity(t.Context(), &apiv1.UnlinkIdentityRequest{Identity: identity.GetId()}))
	if _, err := whoAmI(t, f.at("", s)); !problem.Is(err, problem.TokenInvalid) {
		t.Errorf("the session of who is no longer linked: %v", err)
	}
	if _, err := byDirectory(t.Context(), f.at("", nil), "kim", kims); !problem.Is(err, problem.NameTaken) {
		t.Errorf("who is no longer linked: %v", err)
	}
}

// TestWhatAProviderGaveGoesWithIt disables, unmaps and deletes one.
func TestWhatAProviderGaveGoesWithIt(t *testing.T) {
	f := newFederation(t, 1)
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	p := d.Provider(ca)
	p.CreateUsers = true
	f.let(p, map[string]string{"cn=ops,ou=groups,dc=corp": "operators"})
	enter := func() *client.Session {
		t.Helper()
		s, err := byDirectory(t.Context(), f.at("", nil), "kim", kims)
		f.check(s, err)
		return s
	}
	gone := func(about string, s *client.Session) {
		t.Helper()
		if _, err := whoAmI(t, f.at("", s)); !problem.Is(err, problem.TokenInvalid) {
			t.Errorf("%s: the session: %v", about, err)
		}
		if got := f.in("operators"); len(got) != 0 {
			t.Errorf("%s: operators are %v", about, got)
		}
	}
	s := enter()
	f.changeProvider(&apiv1.IdentityProvider{Disabled: true}, "disabled")
	gone("disabled", s)
	if _, err := byDirectory(t.Context(), f.at("", nil), "kim", kims); !problem.Is(err, problem.Forbidden) {
		t.Errorf("through one that is disabled: %v", err)
	}
	f.changeProvider(&apiv1.IdentityProvider{}, "disabled")
	if enter(); len(f.in("operators")) != 1 {
		t.Error("enabled again it gives nothing")
	}
	f.changeProvider(&apiv1.IdentityProvider{}, "group_mappings")
	if got := f.in("operators"); len(got) != 0 {
		t.Errorf("no longer mapped: operators are %v", got)
	}
	// Where somebody put them they stay.
	f.check(f.Admin().Groups.AddGroupMember(t.Context(), &apiv1.AddGroupMemberRequest{Group: "operators", User: "kim"}))
	f.changeProvider(&apiv1.IdentityProvider{GroupMappings: []*apiv1.GroupMapping{{ProviderGroup: "cn=ops,ou=groups,dc=corp", Group: "operators"}}}, "group_mappings")
	if enter(); !slices.Equal(f.in("operators"), []string{"kim by "}) {
		t.Errorf("whom an administrator put there: %v", f.in("operators"))
	}
	if _, err := f.Admin().Groups.DeleteGroup(t.Context(), &apiv1.DeleteGroupRequest{Group: "operators"}); !problem.Is(err, problem.InUse) {
		t.Errorf("a group that is mapped is deleted: %v", err)
	}
	f.check(f.Admin().Groups.RemoveGroupMember(t.Context(), &apiv1.RemoveGroupMemberRequest{Group: "operators", User: "kim"}))
	s = enter()
	other := d.Provider(ca)
	other.Ldap.IdAttribute = "uid"
	if _, err := f.Admin().IdentityProviders.UpdateIdentityProvider(t.Context(), &apiv1.UpdateIdentityProviderRequest{
		IdentityProvider: &apiv1.IdentityProvider{Id: "corp", Ldap: other.GetLdap()}, UpdateMask: mask("ldap")}); !problem.Is(err, problem.InUse) {
		t.Errorf("people are known by something else from now on: %v", err)
	}
	f.check(f.Admin().IdentityProviders.DeleteIdentityProvider(t.Context(), &apiv1.DeleteIdentityProviderRequest{IdentityProvider: "corp"}))
	gone("deleted", s)
	if kim := f.user("kim"); len(kim.GetIdentityProviders()) != 0 {
		t.Errorf("kim is %v", kim)
	}
}

// errand is a login at dex, begun by a client and not yet finished.
func (f *federation) errand(c *client.Services, d *providertest.Dex, mail string) (e *client.Errand, state, code string) {
	f.Helper()
	e, err := c.BeginProviderLogin(f.Context(), "corp", "http://127.0.0.1:7777/callback")
	if err != nil {
		f.Fatal(err)
	}
	away := d.Visit(e.GetUrl(), mail, providertest.Password)
	return e, away.Query().Get("state"), away.Query().Get("code")
}

func TestSomebodyLogsInAtAProvider(t *testing.T) {
	f := newFederation(t, 1)
	d := providertest.NewDex(t, providertest.NewCA(t), 600)
	p := d.Provider()
	p.CreateUsers = true
	f.let(p, map[string]string{"ops": "operators", "admins": "administrators"})
	internet := f.zoneID("internet")
	var seen [][]byte
	edge := client.NewServices(edge{f: f, zone: internet, passes: func(b []byte) { seen = append(seen, b) }}).Trusting(f.Pin())
	e, state, code := f.errand(edge, d, "kim@corp.example")
	s, _, err := edge.FinishProviderLogin(t.Context(), e, state, code, nil, "test")
	if err != nil {
		t.Fatal(err)
	}
	if s.User != "kim" || s.Zone != "internet" || s.Provider != "corp" {
		t.Errorf("the session is %+v", s)
	}
	me, err := whoAmI(t, f.at(internet, s))
	if err != nil || me.GetUser() != "kim" || me.GetStrength() != apiv1.Session_PASSWORD {
		t.Errorf("it is %v (%v)", me, err)
	}
	if got := f.in("operators"); !slices.Equal(got, []string{"kim by corp"}) {
		t.Errorf("operators are %v", got)
	}
	for _, b := range seen {
		if bytes.Contains(b, []byte(code)) || bytes.Contains(b, s.Secret) {
			t.Error("a secret passes in the clear")
		}
	}
	// The same name is another's; a name that is none is told.
	e, state, code = f.errand(f.at("", nil), d, "other@corp.example")
	if _, _, err := f.at("", nil).FinishProviderLogin(t.Context(), e, state, code, nil, ""); !problem.Is(err, problem.NameTaken) {
		t.Errorf("another kim: %v", err)
	}
	e, state, code = f.errand(f.at("", nil), d, "odd@corp.example")
	if _, _, err := f.at("", nil).FinishProviderLogin(t.Context(), e, state, code, nil, ""); !problem.Is(err, problem.Forbidden) || !strings.Contains(err.Error(), "Odd Name!") {
		t.Errorf("an odd name: %v", err)
	}
	// On another machine.
	away, err := f.at("", nil).BeginProviderLogin(t.Context(), "corp", "")
	if err != nil {
		t.Fatal(err)
	}
	if s, wait, err := f.at("", nil).FinishProviderLogin(t.Context(), away, "", "", nil, ""); s != nil || wait == 0 || err != nil {
		t.Errorf("before they were there: %v, %s, %v", s, wait, err)
	}
	d.Type(away.GetUrl(), "kim@corp.example")
	for s = nil; s == nil && err == nil; {
		s, _, err = f.at("", nil).FinishProviderLogin(t.Context(), away, "", "", nil, "")
	}
	if err != nil || s.User != "kim" {
		t.Errorf("with a code that was typed elsewhere: %v, %v", s, err)
	}
}

// TestASessionIsSteppedUpByALoginThatIsMadeAnew at the provider through which it was begun, and by nothing older.
func TestASessionIsSteppedUpByALoginThatIsMadeAnew(t *testing.T) {
	f := newFederation(t, 1)
	i := providertest.NewIssuer(t, providertest.NewCA(t))
	p := i.Provider()
	p.CreateUsers = true
	f.let(p, nil)
	internet := f.zoneID("internet")
	const back = "http://127.0.0.1:7777/callback"
	e, err := f.at(internet, nil).BeginProviderLogin(t.Context(), "corp", back)
	f.check(e, err)
	away := i.Visit(e.GetUrl()).Query()
	s, _, err := f.at(internet, nil).FinishProviderLogin(t.Context(), e, away.Get("state"), away.Get("code"), nil, "")
	f.check(s, err)
	c := f.at(internet, s)
	secrets := func(e *client.Errand, state, code string) *apiv1.Sealed {
		t.Helper()
		out, err := c.Seal(t.Context(), s.For(apiv1.SessionService_StepUp_FullMethodName), e.Secrets(state, code, nil))
		f.check(out, err)
		return out
	}
	stepUp := func() (*apiv1.Session, error) {
		t.Helper()
		e, err := c.BeginProviderStepUp(t.Context(), s, back)
		f.check(e, err)
		away := i.Visit(e.GetUrl()).Query()
		r, err := c.Sessions.StepUp(t.Context(), &apiv1.StepUpRequest{Secrets: secrets(e, away.Get("state"), away.Get("code"))})
		return r.GetSession(), err
	}
	i.TakesNoNotice(true)
	if m, err := stepUp(); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("by a login of an hour ago: %v, %v", m, err)
	}
	i.TakesNoNotice(false)
	// What came back from an ordinary login is no step-up, however new.
	e, err = f.at(internet, nil).BeginProviderLogin(t.Context(), "corp", back)
	f.check(e, err)
	away = i.Visit(e.GetUrl()).Query()
	if r, err := c.Sessions.StepUp(t.Context(), &apiv1.StepUpRequest{Secrets: secrets(e, away.Get("state"), away.Get("code"))}); err == nil {
		t.Errorf("by a login that was begun for something else: %v", r)
	}
	m, err := stepUp()
	if err != nil || time.Until(m.GetSteppedUpUntil().AsTime()) < 9*time.Minute || m.GetId() != s.ID {
		t.Errorf("by one that was made anew: %v, %v", m, err)
	}
	listed, err := f.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Filter: "action=session.step-up", PageSize: 10})
	if err != nil || !slices.ContainsFunc(listed.GetAuditEntries(), func(e *apiv1.AuditEntry) bool {
		return e.GetOutcome() == apiv1.AuditEntry_REFUSED && strings.Contains(e.GetMessage(), "just shown who they are")
	}) || !slices.ContainsFunc(listed.GetAuditEntries(), func(e *apiv1.AuditEntry) bool { return e.GetOutcome() == apiv1.AuditEntry_DONE }) {
		t.Errorf("the record has %v (%v)", listed.GetAuditEntries(), err)
	}
}

// TestALoginAtAProviderCountsOnceAndForWhoeverBeganIt replays it, mixes it up with another, and has an edge lie about where it is.
func TestALoginAtAProviderCountsOnceAndForWhoeverBeganIt(t *testing.T) {
	f := newFederation(t, 1)
	d := providertest.NewDex(t, providertest.NewCA(t), 600)
	p := d.Provider()
	p.CreateUsers = true
	f.let(p, nil)
	c := f.at("", nil)
	finish := func(e *client.Errand, state, code string) error {
		_, _, err := c.FinishProviderLogin(t.Context(), e, state, code, nil, "")
		return err
	}
	mine, state, code := f.errand(c, d, "kim@corp.example")
	other, otherState, otherCode := f.errand(c, d, "lee@corp.example")
	for about, err := range map[string]error{
		"another's state": finish(mine, otherState, code), "no state": finish(mine, "", code), "no code": finish(mine, state, ""),
	} {
		if !problem.Is(err, problem.Unauthenticated) {
			t.Errorf("%s: %v", about, err)
		}
	}
	// Somebody's code, put into another's login by whoever knows how: PKCE and the nonce tell.
	if err := finish(mine, state, otherCode); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("another's code: %v", err)
	}
	stolen, _, _ := f.errand(c, d, "kim@corp.example")
	stolen.Ticket = other.GetTicket()
	if err := finish(stolen, otherState, otherCode); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("another's ticket: %v", err)
	}
	stolen.Ticket = bytes.Repeat([]byte{1}, 100)
	if err := finish(stolen, "", "x"); !problem.Is(err, problem.Invalid) {
		t.Errorf("a ticket of one's own: %v", err)
	}
	if err := finish(mine, state, code); err != nil {
		t.Fatal(err)
	}
	if err := finish(mine, state, code); err == nil {
		t.Error("a login counts twice")
	}
	for about, uri := range map[string]string{"elsewhere": "https://evil.example/callback", "another path": "http://127.0.0.1:7777/other", "another name of this machine": "http://localhost:7777/callback",
		"a user in it": "http://x@127.0.0.1:7777/callback", "a question in it": "http://127.0.0.1:7777/callback?x=1"} {
		if _, err := c.BeginProviderLogin(t.Context(), "corp", uri); !problem.Is(err, problem.Invalid) {
			t.Errorf("sent back %s: %v", about, err)
		}
	}
	if _, err := c.BeginProviderLogin(t.Context(), "corp", "https://portal.example.org/back"); err != nil {
		t.Errorf("sent back to a portal: %v", err)
	}

	lying := client.NewServices(edge{f: f, zone: f.zoneID("internet"), passes: func([]byte) {}, lies: func(_ string, answer any) {
		if r, ok := answer.(*apiv1.BeginProviderLoginResponse); ok {
			u, _ := url.Parse(r.GetUrl())
			u.Host = "evil.example"
			r.Url = u.String()
		}
	}}).Trusting(f.Pin())
	if _, err := lying.BeginProviderLogin(t.Context(), "corp", "http://127.0.0.1:7777/callback"); !errors.Is(err, client.ErrWayNotVouched) {
		t.Errorf("an edge sends people elsewhere: %v", err)
	}
	// Down in the middle.
	e, state, code := f.errand(c, d, "kim@corp.example")
	d.Stop()
	if err := finish(e, state, code); !problem.Is(err, problem.Unavailable) {
		t.Errorf("down in the middle: %v", err)
	}
}

// TestWhoLeavesIsOutAndWhoMovesIsMoved asks both kinds of providers again, as the leader does.
func TestWhoLeavesIsOutAndWhoMovesIsMoved(t *testing.T) {
	f := newFederation(t, 1)
	ca := providertest.NewCA(t)
	slapd, dex := providertest.NewSlapd(t, ca), providertest.NewDex(t, ca, 600)
	ldap, oidc := slapd.Provider(ca), dex.Provider()
	ldap.CreateUsers, oidc.CreateUsers, ldap.Name = true, true, "directory"
	f.let(ldap, map[string]string{"cn=ops,ou=groups,dc=corp": "operators"})
	f.let(oidc, map[string]string{"ops": "operators"})
	later := time.Duration(0)
	c := leavers.New(leavers.Config{
		Reader: f.DB, Proposer: f, Providers: f.Asker, Seal: f.Service.Secrets.Seal, Unseal: f.Service.Secrets.Unseal, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(later) },
	})
	round := func() {
		t.Helper()
		f.check(nil, c.Round(t.Context()))
	}
	revision := func() (n uint64) {
		f.check(nil, f.DB.View(t.Context(), func(tx *state.Tx) error { n = tx.Meta().Revision; return nil }))
		return n
	}
	s, _, err := f.at("", nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: kims, IdentityProvider: "directory"}, "")
	f.check(s, err)
	round()
	if _, err := whoAmI(t, f.at("", s)); err != nil || len(f.in("operators")) != 1 {
		t.Errorf("who is still there: %v, in %v", err, f.in("operators"))
	}
	before := revision()
	if round(); revision() != before {
		t.Error("a round in which nothing is new writes something down")
	}
	slapd.Stop()
	round()
	if _, err := whoAmI(t, f.at("", s)); err != nil {
		t.Errorf("while the directory does not answer: %v", err)
	}
	slapd.Start()
	slapd.Change("dn: cn=ops,ou=groups,dc=corp\nchangetype: modify\nreplace: member\nmember: uid=lee,ou=people,dc=corp\n")
	round()
	if _, err := whoAmI(t, f.at("", s)); err != nil || len(f.in("operators")) != 0 {
		t.Errorf("who is in no group any more: %v, in %v", err, f.in("operators"))
	}
	slapd.Change("dn: uid=kim,ou=people,dc=corp\nchangetype: modify\nreplace: employeeType\nemployeeType: left\n")
	round()
	if _, err := whoAmI(t, f.at("", s)); !problem.Is(err, problem.TokenInvalid) {
		t.Errorf("who has left: %v", err)
	}

	e, state, code := f.errand(f.at("", nil), dex, "kim@corp.example")
	if _, _, err := f.at("", nil).FinishProviderLogin(t.Context(), e, state, code, nil, ""); !problem.Is(err, problem.NameTaken) {
		t.Fatalf("dex's kim: %v", err)
	}
	e, state, code = f.errand(f.at("", nil), dex, "lee@corp.example")
	s, _, err = f.at("", nil).FinishProviderLogin(t.Context(), e, state, code, nil, "")
	f.check(s, err)
	dex.Order("groups lee@corp.example ops")
	round()
	if got := f.in("operators"); len(got) != 0 {
		t.Errorf("before it is time to ask: operators are %v", got)
	}
	later = 15 * time.Minute
	round()
	if got := f.in("operators"); !slices.Equal(got, []string{"lee by corp"}) {
		t.Errorf("who has moved: operators are %v", got)
	}
	dex.Order("forget lee@corp.example")
	later = 30 * time.Minute
	round()
	if _, err := whoAmI(t, f.at("", s)); !problem.Is(err, problem.TokenInvalid) || len(f.in("operators")) != 0 {
		t.Errorf("who has left: %v, in %v", err, f.in("operators"))
	}
}
