package service_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// registrar is a role with all that concerns who is who and who may do what, and nothing else: whoever has it tries to get hold of
// what others may do.
var registrar = []string{"user.*", "group.*", "role.*", "role-binding.*", "access-token.*", "administrator.*", "server.*", "session.*", "organization.*", "project.*", "zone.*",
	"identity-provider.*", "identity.*"}

// harmless are the methods that change something and by which nobody gets hold of another's rights, by permission, each with the
// reason. A permission of *.read gives none.
var harmless = map[string]string{
	"user.create": "who is new has no rights", "user.disable": "takes rights away", "user.delete": "takes rights away", "group.create": "nobody is in it, and it has no rights",
	"group.update": "its name stays", "group.delete": "takes rights away", "group.remove-member": "takes rights away", "role.delete": "takes rights away",
	"role.explain": "tells", "role-binding.delete": "takes rights away", "role-binding.shorten": "takes rights away", "access-token.delete": "takes rights away", "administrator.delete": "takes rights away",
	"server.delete": "takes a server away", "server.back-up": "what is in it is sealed or hashed, and is no credential",
	"identity.unlink": "takes rights away", "identity-provider.test": "tells",
	"session.delete": "takes rights away", "session.revoke": "takes rights away", "organization.create": "nothing is in it", "organization.delete": "nothing is in it",
	"project.create": "nothing is in it", "project.delete": "nothing is in it", "zone.create": "nothing is in it", "zone.delete": "nothing is in it",
	"zone.quarantine": "stops an exchange", "zone.lift-quarantine": "goes on as before", "zone.revoke": "takes a zone's certificates away",
	"zone.create-join-token": "an agent's certificate gives no rights in the API", "zone.accept-agent": "an agent's certificate gives no rights in the API",
	"zone.list-join-requests": "tells",
	"audit.list":              "tells", "audit.export": "tells",
}

// things are nouns that are no principals: whoever changes one changes that, where they may.
var things = []string{"vm", "snapshot", "host", "cluster", "flavor", "image", "offering", "calendar", "approval-policy", "broker", "operation", "event", "audit",
	"request", "quota", "lease", "notification", "notification-channel", "delivery", "reservation", "delegation", "crossing"}

// prize is a site in which there is something to get hold of: root administers the federation, bot operates project web for ever, ops
// is a group of zone operators, and half is a role that its holders have on a condition.
type prize struct {
	*servicetest.World
	site          *servicetest.Site
	mallory, boss *apiv1.User // deputy decides in boss's place
	bot           *apiv1.User
}

func newPrize(t *testing.T) *prize {
	w := servicetest.New(t)
	p := &prize{World: w, site: w.NewSite(1)}
	w.Roles()
	ctx := t.Context()
	role := func(name, condition string, permissions ...string) {
		w.Do(&commandv1.Command{Body: &commandv1.Command_CreateRole{CreateRole: &commandv1.CreateRole{Role: &apiv1.Role{
			Id: "r-" + name, Name: name, Permissions: permissions, Condition: condition, AtEdges: true}}}})
	}
	role("registrar", "", registrar...)
	role("half", "resource.zone_grade <= 1", "vm.*")
	p.mallory, p.boss = w.User("mallory", apiv1.User_PERSON), w.User("boss", apiv1.User_PERSON)
	w.Bind("b-mallory", "registrar", p.mallory, apiv1.RoleBinding_FEDERATION, "")
	w.Bind("b-half", "half", p.mallory, apiv1.RoleBinding_FEDERATION, "")
	w.Bind("b-boss", rights.FederationAdministrator, p.boss, apiv1.RoleBinding_FEDERATION, "")
	w.Bind("b-root", rights.FederationAdministrator, w.User("root", apiv1.User_PERSON), apiv1.RoleBinding_FEDERATION, "")
	w.Bind("b-lost", rights.FederationAdministrator, w.User("lost", apiv1.User_PERSON), apiv1.RoleBinding_FEDERATION, "")
	w.Do(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-lost", Reason: "left"}}})
	if _, err := w.Admin().IdentityProviders.CreateIdentityProvider(ctx, &apiv1.CreateIdentityProviderRequest{IdentityProvider: directory("corp")}); err != nil {
		t.Fatal(err)
	}
	p.bot = w.User("bot", apiv1.User_SERVICE)
	w.Bind("b-bot", rights.ProjectOperator, p.bot, apiv1.RoleBinding_PROJECT, "web")
	a := w.Admin()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(a.Groups.CreateGroup(ctx, &apiv1.CreateGroupRequest{Group: &apiv1.Group{Name: "ops"}}))
	check(a.RoleBindings.CreateRoleBinding(ctx, &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{Role: "zone-operator", Group: "ops", Scope: apiv1.RoleBinding_ZONE, Place: "business"}}))
	check(a.Users.CreateUser(ctx, &apiv1.CreateUserRequest{User: &apiv1.User{Name: "member"}}))
	check(a.Groups.AddGroupMember(ctx, &apiv1.AddGroupMemberRequest{Group: "ops", User: "member"}))
	check(a.Administrators.CreateAdministrator(ctx, &apiv1.CreateAdministratorRequest{Administrator: &apiv1.Administrator{Name: "cert"}, Csr: []byte("cert")}))
	for _, name := range []string{"mine", "theirs"} {
		check(a.Organizations.CreateOrganization(ctx, &apiv1.CreateOrganizationRequest{Organization: &apiv1.Organization{Name: name}}))
	}
	check(a.Organizations.CreateOrganization(ctx, &apiv1.CreateOrganizationRequest{Organization: &apiv1.Organization{Name: "bureau", Parent: "theirs"}}))
	w.User("deputy", apiv1.User_PERSON)
	check(w.As(p.boss).Delegations.CreateDelegation(ctx, &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{
		ToUser: "deputy", EndsAt: timestamppb.New(time.Now().Add(time.Hour)), Reason: "holiday"}}))
	w.Bind("b-mine", rights.ProjectOperator, p.mallory, apiv1.RoleBinding_ORGANIZATION, "mine")
	return p
}

func directory(name string) *apiv1.IdentityProvider {
	return &apiv1.IdentityProvider{Name: name, Ldap: &apiv1.Directory{Urls: []string{"ldaps://" + name + ".example.org"}, UserBase: "dc=example"}}
}

// attempt is one way to get hold of what others may do.
type attempt struct {
	permission string
	try        func(ctx context.Context, c *client.Services, p *prize) error
}

func attempts(t *testing.T) map[string]attempt {
	_, reply, err := sealed.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	soon := timestamppb.New(time.Now().Add(time.Hour))
	of := func(_ any, err error) error { return err }
	return map[string]attempt{
		"a token of a service that may do more": {"access-token.create", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.AccessTokens.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{Name: "t", User: "bot", ExpiresAt: soon}}))
		}},
		"one that is narrower than the service": {"access-token.create", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.AccessTokens.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{Name: "t", User: "bot", Project: "db", ExpiresAt: soon}}))
		}},
		"a token of a project": {"access-token.create", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.AccessTokens.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{Name: "t", Project: "web", ExpiresAt: soon}}))
		}},
		"a password of somebody who may do more": {"user.reset-password", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Users.ResetPassword(ctx, &apiv1.ResetPasswordRequest{User: "root", ReplyKey: reply}))
		}},
		"a password of a member of a group that may do more": {"user.reset-password", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Users.ResetPassword(ctx, &apiv1.ResetPasswordRequest{User: "member", ReplyKey: reply}))
		}},
		"a password of somebody who decides in the place of one who may do more": {"user.reset-password", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Users.ResetPassword(ctx, &apiv1.ResetPasswordRequest{User: "deputy", ReplyKey: reply}))
		}},
		"a word on who anybody is": {"identity-provider.create", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.IdentityProviders.CreateIdentityProvider(ctx, &apiv1.CreateIdentityProviderRequest{IdentityProvider: directory("mine")}))
		}},
		"another's word on who anybody is": {"identity-provider.update", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.IdentityProviders.UpdateIdentityProvider(ctx, &apiv1.UpdateIdentityProviderRequest{
				IdentityProvider: &apiv1.IdentityProvider{Id: "corp", Ldap: directory("mine").GetLdap()}, UpdateMask: paths("ldap")}))
		}},
		"an identity provider's secret": {"identity-provider.set-secret", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.IdentityProviders.SetIdentityProviderSecret(ctx, &apiv1.SetIdentityProviderSecretRequest{IdentityProvider: "corp", Secret: "mine"}))
		}},
		"an identity provider": {"identity-provider.delete", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.IdentityProviders.DeleteIdentityProvider(ctx, &apiv1.DeleteIdentityProviderRequest{IdentityProvider: "corp"}))
		}},
		"to be root at an identity provider": {"identity.link", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.IdentityProviders.LinkIdentity(ctx, &apiv1.LinkIdentityRequest{IdentityProvider: "corp", Subject: "mallory", User: "root"}))
		}},
		"somebody who was put out": {"user.enable", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Users.EnableUser(ctx, &apiv1.EnableUserRequest{User: "lost", Reason: "x"}))
		}},
		"where somebody's mail goes": {"user.update", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Users.UpdateUser(ctx, &apiv1.UpdateUserRequest{User: &apiv1.User{Id: "root", Email: "mallory@example.org"}, UpdateMask: paths("email")}))
		}},
		"somebody's second factor": {"user.remove-authenticator", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Users.RemoveAuthenticator(ctx, &apiv1.RemoveAuthenticatorRequest{User: "root"}))
		}},
		"a place in a group": {"group.add-member", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Groups.AddGroupMember(ctx, &apiv1.AddGroupMemberRequest{Group: "ops", User: "mallory"}))
		}},
		"a role": {"role-binding.create", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.RoleBindings.CreateRoleBinding(ctx, &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{Role: "auditor", User: "mallory", Scope: apiv1.RoleBinding_FEDERATION}}))
		}},
		"a role of one's own making": {"role.create", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Roles.CreateRole(ctx, &apiv1.CreateRoleRequest{Role: &apiv1.Role{Name: "all", Permissions: []string{"*"}}}))
		}},
		"more in a role that one has": {"role.update", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Roles.UpdateRole(ctx, &apiv1.UpdateRoleRequest{Role: &apiv1.Role{Id: "registrar", Permissions: append([]string{"vm.*"}, registrar...)}, UpdateMask: paths("permissions")}))
		}},
		"a wider condition of a role that one has": {"role.update", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Roles.UpdateRole(ctx, &apiv1.UpdateRoleRequest{Role: &apiv1.Role{Id: "half", Condition: "resource.zone_grade <= 3"}, UpdateMask: paths("condition")}))
		}},
		"an administrator's certificate": {"administrator.create", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Administrators.CreateAdministrator(ctx, &apiv1.CreateAdministratorRequest{Administrator: &apiv1.Administrator{Name: "mallory"}, Csr: []byte("mallory")}))
		}},
		"an administrator's certificate for another key": {"administrator.renew", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Administrators.RenewAdministrator(ctx, &apiv1.RenewAdministratorRequest{Administrator: "cert", Csr: []byte("mallory")}))
		}},
		"a server": {"server.create-token", func(ctx context.Context, c *client.Services, _ *prize) error {
			return of(c.Servers.CreateServerToken(ctx, &apiv1.CreateServerTokenRequest{}))
		}},
		"a project, into one's own organization": {"project.update", func(ctx context.Context, c *client.Services, p *prize) error {
			return of(c.Projects.UpdateProject(ctx, &apiv1.UpdateProjectRequest{Project: &apiv1.Project{Id: "web", Organization: "mine"}, UpdateMask: paths("organization")}))
		}},
		"an organization, below one's own": {"organization.update", func(ctx context.Context, c *client.Services, p *prize) error {
			return of(c.Organizations.UpdateOrganization(ctx, &apiv1.UpdateOrganizationRequest{Organization: &apiv1.Organization{Id: "bureau", Parent: "mine"}, UpdateMask: paths("parent")}))
		}},
	}
}

func paths(p ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: p} }

// TestNobodyGetsHoldOfAnothersRights tries every way there is, as somebody who may do all that concerns people and rights and nothing
// else; who has everything is let in by each, so that it is for want of rights that the other is refused.
func TestNobodyGetsHoldOfAnothersRights(t *testing.T) {
	for what, a := range attempts(t) {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := newPrize(t)
			err := a.try(t.Context(), p.As(p.mallory), p)
			if !problem.Is(err, problem.Forbidden) || problem.Of(err).GetNext() == "" || !strings.Contains(err.Error(), "without having") {
				t.Errorf("mallory: %v", err)
			}
			if err := a.try(t.Context(), p.As(p.boss), p); problem.Is(err, problem.Forbidden) {
				t.Errorf("who has everything: %v", err)
			}
		})
	}
}

// TestEveryMethodIsTriedOrSaidToGiveNothing so that a new one is thought about.
func TestEveryMethodIsTriedOrSaidToGiveNothing(t *testing.T) {
	tried := map[string]bool{"zone.update": true} // TestAZonesAdministratorDoesNotGradeIt
	for _, a := range attempts(t) {
		tried[a.permission] = true
	}
	for _, name := range rights.Methods() {
		m, _ := rights.MethodOf(name)
		noun, verb, _ := strings.Cut(m.Permission, ".")
		switch {
		case verb == "" || verb == "read": // on one's own; tells
		case tried[m.Permission] || harmless[m.Permission] != "" || slices.Contains(things, noun):
		default:
			t.Errorf("%s (%s): can somebody get hold of another's rights by it? Try it above, or say why not", m.Short(), m.Permission)
		}
	}
}

func TestWhoIsAsMuchMayGiveAndTakeOver(t *testing.T) {
	p := newPrize(t)
	p.Bind("b-web", rights.ProjectOperator, p.mallory, apiv1.RoleBinding_PROJECT, "web")
	c, soon := p.As(p.mallory), timestamppb.New(time.Now().Add(time.Hour))
	for _, token := range []*apiv1.AccessToken{{Name: "as-bot", User: "bot", ExpiresAt: soon}, {Name: "of-web", Project: "web", ExpiresAt: soon}} {
		if _, err := c.AccessTokens.CreateAccessToken(t.Context(), &apiv1.CreateAccessTokenRequest{AccessToken: token}); err != nil {
			t.Errorf("%s: %v", token.GetName(), err)
		}
	}
	if _, err := c.Users.DisableUser(t.Context(), &apiv1.DisableUserRequest{User: "bot", Reason: "x"}); err != nil {
		t.Error(err)
	}
	if _, err := c.Users.UpdateUser(t.Context(), &apiv1.UpdateUserRequest{User: &apiv1.User{Id: "mallory", Title: "M"}, UpdateMask: paths("title")}); err != nil {
		t.Errorf("on oneself: %v", err)
	}
}

// TestATokenMakesNoneThatIsGoodForMoreThanItself: a program's token for an hour in one zone does not become one for a year anywhere.
func TestATokenMakesNoneThatIsGoodForMoreThanItself(t *testing.T) {
	p := newPrize(t)
	p.Bind("b-bots", "registrar", p.bot, apiv1.RoleBinding_FEDERATION, "")
	c := p.WithTokenOf(p.bot, p.site.Internet)
	in := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(d)) }
	for about, token := range map[string]*apiv1.AccessToken{
		"for longer": {Name: "t", User: "bot", Zone: "internet", ExpiresAt: in(2 * time.Hour)},
		"anywhere":   {Name: "t", User: "bot", ExpiresAt: in(time.Minute)},
		"elsewhere":  {Name: "t", User: "bot", Zone: "business", ExpiresAt: in(time.Minute)},
	} {
		if _, err := c.AccessTokens.CreateAccessToken(t.Context(), &apiv1.CreateAccessTokenRequest{AccessToken: token}); !problem.Is(err, problem.Forbidden) {
			t.Errorf("%s: %v", about, err)
		}
	}
	if _, err := c.AccessTokens.CreateAccessToken(t.Context(), &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{Name: "t", User: "bot", Zone: "internet", ExpiresAt: in(time.Minute)}}); err != nil {
		t.Errorf("no more than itself: %v", err)
	}
}

// TestAZonesAdministratorDoesNotGradeIt: what may stand in a zone, what crosses, and roles elsewhere rest on its grade and kind.
func TestAZonesAdministratorDoesNotGradeIt(t *testing.T) {
	p := newPrize(t)
	lee := p.User("lee", apiv1.User_PERSON)
	p.Bind("b-lee", "zone-administrator", lee, apiv1.RoleBinding_ZONE, "business")
	for path, zone := range map[string]*apiv1.Zone{"grade": {Id: "business", Grade: apiv1.Zone_CLASSIFIED}, "kind": {Id: "business", Kind: "vault"}} {
		r := &apiv1.UpdateZoneRequest{Zone: zone, UpdateMask: paths(path)}
		if _, err := p.As(lee).Zones.UpdateZone(t.Context(), r); !problem.Is(err, problem.Forbidden) {
			t.Errorf("its %s: %v", path, err)
		}
		if _, err := p.As(p.boss).Zones.UpdateZone(t.Context(), r); err != nil {
			t.Errorf("its %s, as who has everything: %v", path, err)
		}
	}
	r := &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Description: "x"}, UpdateMask: paths("description")}
	if _, err := p.As(lee).Zones.UpdateZone(t.Context(), r); err != nil {
		t.Errorf("its description: %v", err)
	}
}
