package rights

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestP14EveryMethodSaysWhoMayCallIt: a permission of the form noun.verb, or that it is anybody's or one's own.
func TestP14EveryMethodSaysWhoMayCallIt(t *testing.T) {
	if len(Methods()) < 70 {
		t.Fatalf("only %d methods were found", len(Methods()))
	}
	for _, name := range Methods() {
		m, _ := MethodOf(name)
		noun, verb, dotted := strings.Cut(m.Permission, ".")
		switch {
		case m.Permission == Public || m.Permission == Self:
			if m.Own {
				t.Errorf("%s is %s, and says besides that it is for one's own", name, m.Permission)
			}
		case !dotted || noun == "" || verb == "" || strings.ToLower(m.Permission) != m.Permission:
			t.Errorf("%s has the permission %q: write public, self, or noun.verb", name, m.Permission)
		}
		call := name[strings.LastIndexByte(name, '/')+1:]
		reads := strings.HasPrefix(call, "Get") || strings.HasPrefix(call, "List") || strings.HasPrefix(call, "Watch")
		if !reads && verb == "read" && !strings.HasPrefix(call, "Top") && !strings.HasPrefix(call, "Preview") && !strings.HasPrefix(call, "Summarize") {
			t.Errorf("%s changes something and has the permission %s", name, m.Permission)
		}
	}
}

// later are nouns that built-in roles speak of and that are not served yet.
var later = []string{"snapshot", "offering", "calendar"}

func TestBuiltInRolesNamePermissionsThatExist(t *testing.T) {
	for _, role := range BuiltIn() {
		for _, p := range role.GetPermissions() {
			noun, _, _ := strings.Cut(p, ".")
			if len(Expand([]string{p})) == 0 && !slices.Contains(later, noun) {
				t.Errorf("role %s has the permission %s, which no method needs", role.GetName(), p)
			}
		}
		if _, err := compile(role); err != nil {
			t.Error(err)
		}
		if whole := slices.ContainsFunc(role.GetPermissions(), func(p string) bool { return strings.HasPrefix(p, "*") }); whole && role.GetAtEdges() {
			t.Errorf("role %s is of the whole federation and counts at edges", role.GetName())
		}
	}
}

// TestANewEditionIsCountedWithEachChange of the built-in roles: else servers would keep the old ones.
func TestANewEditionIsCountedWithEachChange(t *testing.T) {
	h := sha256.New()
	for _, role := range BuiltIn() {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(role)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(b)
	}
	const edition, sum = 5, "e6444f030a659e7c"
	if got := hex.EncodeToString(h.Sum(nil))[:16]; Edition != edition || got != sum {
		t.Fatalf("the built-in roles are edition %d with the sum %s: count Edition up, and write both here", Edition, got)
	}
}

func method(t tb, name string) Method {
	m, ok := MethodOf(name)
	if !ok {
		t.Fatalf("there is no method %s", name)
	}
	return m
}

type tb interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

var (
	web   = Project{Ref{"p-web", "web"}, "bureau"}
	db    = Project{Ref{"p-db", "db"}, "ministry"}
	zones = []Zone{{Ref{"z-in", "internet"}, "internet", apiv1.Zone_OPEN}, {Ref{"z-biz", "business"}, "business", apiv1.Zone_SENSITIVE},
		{Ref{"z-top", "vault"}, "vault", apiv1.Zone_CLASSIFIED}}
	bureau, ministry = Ref{"o-bureau", "bureau"}, Ref{"o-ministry", "ministry"}
)

func bound(role *apiv1.Role, scope apiv1.RoleBinding_Scope, place string) Grant {
	g := Grant{Role: role, Scope: scope, Binding: &apiv1.RoleBinding{Id: "b-" + role.GetName(), Scope: scope, Place: place}}
	switch scope {
	case apiv1.RoleBinding_PROJECT:
		g.Projects = []Project{map[string]Project{"web": web, "db": db}[place]}
	case apiv1.RoleBinding_ORGANIZATION:
		g.Organizations, g.Projects = []Ref{bureau}, []Project{web}
		if place == "ministry" {
			g.Organizations, g.Projects = []Ref{ministry, bureau}, []Project{db, web}
		}
	case apiv1.RoleBinding_ZONE:
		g.Zone = zones[slices.IndexFunc(zones, func(z Zone) bool { return z.Name == place })].Ref
		g.Organizations, g.Projects = []Ref{ministry, bureau}, []Project{db, web}
	case apiv1.RoleBinding_FEDERATION:
		g.Organizations, g.Projects = []Ref{ministry, bureau}, []Project{db, web}
	}
	return g
}

func role(name string, condition string, permissions ...string) *apiv1.Role {
	return &apiv1.Role{Id: "r-" + name, Name: name, Condition: condition, Permissions: permissions, AtEdges: true}
}

func kim(grants ...Grant) Subject {
	return Subject{Kind: Person, ID: "u-kim", Name: "kim", Organization: "bureau", Grants: grants, Zones: zones}
}

const (
	inFederation   = apiv1.RoleBinding_FEDERATION
	inOrganization = apiv1.RoleBinding_ORGANIZATION
	inProject      = apiv1.RoleBinding_PROJECT
	inZone         = apiv1.RoleBinding_ZONE
)

func TestNothingIsPermittedByDefault(t *testing.T) {
	for _, name := range Methods() {
		m := method(t, name)
		err := New(kim()).Admit(m)
		if m.Permission == Public || m.Permission == Self || m.Own {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !problem.Is(err, problem.Forbidden) || problem.Of(err).GetNext() == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := New(Subject{}).Admit(m); !problem.Is(err, problem.Unauthenticated) {
			t.Errorf("%s, as nobody: %v", name, err)
		}
	}
	unknown := Method{Name: "/naru.api.v1.VMService/FormatAllDisks"}
	if err := New(kim(bound(builtIn(FederationAdministrator), inFederation, ""))).Admit(unknown); !problem.Is(err, problem.Forbidden) {
		t.Errorf("a method without a permission: %v", err)
	}
}

func TestABindingReachesItsPlaceAndNoOther(t *testing.T) {
	all := []Place{{ProjectID: "p-web", ZoneID: "z-in"}, {ProjectID: "p-web", ZoneID: "z-biz"}, {ProjectID: "p-web"}, {ProjectID: "p-db", ZoneID: "z-biz"},
		{ProjectID: "p-db"}, {ZoneID: "z-in"}, {ZoneID: "z-biz"}, {}, {OrganizationID: "o-bureau"}, {OrganizationID: "o-ministry"}}
	for where, c := range map[string]struct {
		grant Grant
		in    []int
	}{
		"the federation":      {bound(role("r", "", "vm.start"), inFederation, ""), []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"an organization":     {bound(role("r", "", "vm.start"), inOrganization, "bureau"), []int{0, 1, 2, 8}},
		"one that is above":   {bound(role("r", "", "vm.start"), inOrganization, "ministry"), []int{0, 1, 2, 3, 4, 8, 9}},
		"a project":           {bound(role("r", "", "vm.start"), inProject, "db"), []int{3, 4}},
		"a zone":              {bound(role("r", "", "vm.start"), inZone, "business"), []int{1, 3, 6}},
		"another permission":  {bound(role("r", "", "vm.stop"), inFederation, ""), nil},
		"up to a grade":       {bound(role("r", "resource.zone_grade <= 1", "vm.start"), inFederation, ""), []int{0, 2, 4, 5, 7, 8, 9}},
		"one kind of zone":    {bound(role("r", `resource.zone_kind == "business"`, "vm.start"), inProject, "web"), []int{1}},
		"other zones":         {bound(role("r", `resource.zone_grade == 3`, "vm.start"), inZone, "business"), nil},
		"an owner":            {bound(role("r", `resource.organization == "ministry"`, "vm.start"), inFederation, ""), []int{3, 4, 9}},
		"an owner and a zone": {bound(role("r", `resource.project == "web" && resource.zone == "business"`, "vm.start"), inFederation, ""), []int{1}},
		"another person":      {bound(role("r", `principal.name == "lee"`, "vm.start"), inFederation, ""), nil},
		"oneself":             {bound(role("r", `principal.name == "kim" && context.edge == ""`, "vm.start"), inProject, "db"), []int{3, 4}},
	} {
		reach := New(kim(c.grant)).Reach("vm.start", method(t, "VMService/StartVM"))
		for i, p := range all {
			if got, want := reach.Contains(p, "vm.start"), slices.Contains(c.in, i); got != want {
				t.Errorf("bound to %s, %+v is in reach: %v", where, p, got)
			}
		}
	}
}

func TestWhatBelongsToNobodyIsReadWithARoleAnywhere(t *testing.T) {
	m := method(t, "FlavorService/ListFlavors")
	project := New(kim(bound(builtIn("user"), inProject, "web"))).Reach("flavor.read", m)
	zone := New(kim(bound(builtIn("zone-operator"), inZone, "business"))).Reach("zone.read", method(t, "ZoneService/ListZones"))
	if !project.Contains(Place{}, "flavor.read") || project.Contains(Place{}, "broker.read") {
		t.Error("a user of a project sees no flavors, or brokers")
	}
	if !zone.Contains(Place{ZoneID: "z-biz"}, "zone.read") || zone.Contains(Place{ZoneID: "z-in"}, "zone.read") {
		t.Error("an operator of a zone sees others, or not this one")
	}
}

func TestNarusOwnRulesGoBeforeAllRoles(t *testing.T) {
	all := bound(builtIn(FederationAdministrator), inFederation, "")
	everything := bound(role("everything", "", "*"), inFederation, "")
	disabled := kim(all)
	disabled.Disabled = true
	edge := kim(all)
	edge.Edge = Edge{Zone: "internet", ZoneID: "z-in"}
	narrow := kim(everything)
	narrow.Edge = Edge{Zone: "internet", ZoneID: "z-in", Methods: []string{"VMService/ListVMs", "FlavorService/*"}}
	list, get, whoami := method(t, "VMService/ListVMs"), method(t, "VMService/GetVM"), method(t, "AccessTokenService/WhoAmI")
	for about, c := range map[string]struct {
		subject Subject
		method  Method
		says    string
	}{
		"a disabled user":                   {disabled, list, "disabled"},
		"a disabled user, about themselves": {disabled, whoami, "disabled"},
		"a federation's role at an edge":    {edge, list, "vm.read at this edge"},
		"a method the zone does not show":   {narrow, get, "does not let its edge call"},
		"one's own, which it does not show": {narrow, whoami, "does not let its edge call"},
	} {
		err := New(c.subject).Admit(c.method)
		if !problem.Is(err, problem.Forbidden) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", about, err)
		}
		if reach := New(c.subject).Reach(c.method.Permission, c.method); len(reach) > 0 {
			t.Errorf("%s reaches %v", about, reach)
		}
	}
	for _, m := range []Method{list, method(t, "FlavorService/GetFlavor")} {
		if err := New(narrow).Admit(m); err != nil {
			t.Errorf("what the zone shows: %v", err)
		}
	}
	if err := New(kim(all)).Admit(get); err != nil {
		t.Errorf("a federation administrator in the control network: %v", err)
	}
}

func TestATokenReachesItsProjectOnly(t *testing.T) {
	s := kim(bound(role("r", "", "vm.*", "flavor.read"), inOrganization, "ministry"), bound(role("z", "", "vm.*", "host.read"), inZone, "business"))
	s.Only = &web
	m := method(t, "VMService/StartVM")
	reach := New(s).Reach("vm.start", m)
	if !reach.Contains(Place{ProjectID: "p-web", ZoneID: "z-in"}, "vm.start") || reach.Contains(Place{ProjectID: "p-db", ZoneID: "z-biz"}, "vm.start") {
		t.Errorf("its reach is %v", reach)
	}
	if hosts := New(s).Reach("host.read", method(t, "HostService/ListHosts")); hosts.Contains(Place{ZoneID: "z-biz"}, "host.read") {
		t.Errorf("it reaches hosts: %v", hosts)
	}
	if !New(s).Reach("flavor.read", method(t, "FlavorService/ListFlavors")).Contains(Place{}, "flavor.read") {
		t.Error("it sees no flavors")
	}
}

func TestNobodyGivesMoreThanTheyHave(t *testing.T) {
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	ending := bound(role("a", "", "vm.*", "role-binding.*"), inProject, "web")
	ending.Binding.ExpiresAt = timestamppb.New(end)
	has := kim(bound(role("a", "", "vm.*", "role-binding.*"), inOrganization, "bureau"), bound(role("b", "", "host.read"), inZone, "business"),
		bound(role("c", "resource.zone_grade <= 1", "snapshot.*", "image.update"), inFederation, ""))
	short := kim(ending)
	token := kim(bound(role("c", "resource.zone_grade <= 1", "image.update"), inFederation, ""))
	token.Only = &web
	m := method(t, "RoleBindingService/CreateRoleBinding")
	for about, c := range map[string]struct {
		giver Subject
		role  *apiv1.Role
		scope apiv1.RoleBinding_Scope
		place string
		until time.Time
		may   bool
	}{
		"what one has, where one has it":       {has, role("x", "", "vm.read", "vm.stop"), inProject, "p-web", time.Time{}, true},
		"in the organization":                  {has, role("x", "", "vm.read"), inOrganization, "o-bureau", time.Time{}, true},
		"in the one above":                     {has, role("x", "", "vm.read"), inOrganization, "o-ministry", time.Time{}, false},
		"in another project":                   {has, role("x", "", "vm.read"), inProject, "p-db", time.Time{}, false},
		"in a zone":                            {has, role("x", "", "vm.read"), inZone, "z-biz", time.Time{}, false},
		"in the federation":                    {has, role("x", "", "vm.read"), inFederation, "", time.Time{}, false},
		"in one's zone":                        {has, role("x", "", "host.read"), inZone, "z-biz", time.Time{}, true},
		"one permission more":                  {has, role("x", "", "vm.read", "project.delete"), inProject, "p-web", time.Time{}, false},
		"all":                                  {has, role("x", "", "*"), inProject, "p-web", time.Time{}, false},
		"what one has on a condition":          {has, role("x", "", "image.update"), inZone, "z-in", time.Time{}, false},
		"the same role, on the same condition": {has, role("c", "resource.zone_grade <= 1", "image.update"), inFederation, "", time.Time{}, true},
		"the same role, on a wider condition":  {has, role("c", "resource.zone_grade <= 3", "image.update"), inFederation, "", time.Time{}, false},
		"it, with a token of one project":      {token, role("c", "resource.zone_grade <= 1", "image.update"), inProject, "p-db", time.Time{}, false},
		"and in that project":                  {token, role("c", "resource.zone_grade <= 1", "image.update"), inProject, "p-web", time.Time{}, true},
		"for ever, what one has for a while":   {short, role("x", "", "vm.read"), inProject, "p-web", time.Time{}, false},
		"for longer":                           {short, role("x", "", "vm.read"), inProject, "p-web", end.Add(time.Second), false},
		"for as long":                          {short, role("x", "", "vm.read"), inProject, "p-web", end, true},
	} {
		err := New(c.giver).MayGive(c.role, c.scope, c.place, "there", c.until, m)
		if (err == nil) != c.may || err != nil && (!problem.Is(err, problem.Forbidden) || problem.Of(err).GetNext() == "") {
			t.Errorf("%s: %v", about, err)
		}
	}
}

func TestAConditionAsksForPlacesOnly(t *testing.T) {
	for condition, says := range map[string]string{
		"resource.zone_grade <= 2":                                  "",
		`["a", "b"].contains(resource.project)`:                     "",
		`!(resource.zone_kind == "x") // a remark`:                  "",
		"resource.zone_grade <=":                                    "no Cedar expression",
		"true }; permit (principal,action,resource":                 "no Cedar expression",
		"true\n}; permit (principal, action, resource) when { true": "more than one",
		"true } unless { false":                                     "more than one",
		"resource.owner == principal.name":                          "resource.owner cannot be asked for",
		"resource has secret":                                       "resource.secret cannot be asked for",
		`principal == User::"kim"`:                                  "principal cannot be asked for",
		`action == Action::"vm.read"`:                               "action cannot be asked for",
		"context.shown":                                             "context.shown cannot be asked for",
		"principal.disabled":                                        "principal.disabled cannot be asked for",
		`resource["owner"] == "x"`:                                  "resource.owner cannot be asked for",
		`resource == resource`:                                      "resource cannot be asked for",
	} {
		err := CheckRole(role("r", condition, "vm.read"))
		if says == "" && err != nil || says != "" && (!problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v", condition, err)
		}
	}
	if err := CheckRole(role("r", "", "vm.read", "vm.fly")); !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), "vm.fly") {
		t.Error(err)
	}
}

func TestAConditionThatCannotBeEvaluatedPermitsNothing(t *testing.T) {
	r := role("r", `resource.zone_grade.lessThan(decimal("1.0"))`, "vm.read")
	if reach := New(kim(bound(r, inFederation, ""))).Reach("vm.read", method(t, "VMService/ListVMs")); len(reach) > 0 {
		t.Errorf("it reaches %v", reach)
	}
}

// TestP14AReachIsWhatTheEngineSaysOfEachPlace compares the reach of random grants with what the policy engine says of each place
// by itself: a list that is narrowed to a reach shows exactly what a look at each object would.
func TestP14AReachIsWhatTheEngineSaysOfEachPlace(t *testing.T) {
	conditions := []string{"", "", "resource.zone_grade <= 1", `resource.zone != "vault"`, `resource.organization == "bureau"`,
		`resource.project != "db" || resource.zone_grade < 2`, `principal.organization == "bureau"`, `context.edge != ""`}
	m := method(t, "VMService/StartVM")
	rapid.Check(t, func(rt *rapid.T) {
		var grants []Grant
		for i := range rapid.IntRange(0, 4).Draw(rt, "grants") {
			r := role(fmt.Sprintf("r%d", i), rapid.SampledFrom(conditions).Draw(rt, "condition"), rapid.SampledFrom([]string{"vm.start", "vm.*", "vm.read", "*"}).Draw(rt, "permission"))
			r.AtEdges = rapid.Bool().Draw(rt, "at edges")
			scope := apiv1.RoleBinding_Scope(rapid.IntRange(1, 4).Draw(rt, "scope"))
			place := map[apiv1.RoleBinding_Scope][]string{inFederation: {""}, inOrganization: {"bureau", "ministry"}, inProject: {"web", "db"}, inZone: {"internet", "business", "vault"}}[scope]
			grants = append(grants, bound(r, scope, rapid.SampledFrom(place).Draw(rt, "place")))
		}
		s := kim(grants...)
		s.Disabled = rapid.IntRange(0, 9).Draw(rt, "disabled") == 0
		if rapid.Bool().Draw(rt, "edge") {
			s.Edge = Edge{Zone: "internet", ZoneID: "z-in"}
			for i := range rapid.IntRange(0, 2).Draw(rt, "crossings") {
				s.Crossings = append(s.Crossings, Crossing{Project: []Ref{web.Ref, db.Ref}[i], Zone: rapid.SampledFrom(zones).Draw(rt, "into").Ref,
					Permissions: []string{rapid.SampledFrom([]string{"vm.start", "vm.stop"}).Draw(rt, "crosses")}})
			}
		}
		reach := New(s).Reach("vm.start", m)
		for _, p := range []Project{web, db} {
			for _, z := range append([]Zone{{}}, zones...) {
				want := false
				for _, g := range grants {
					there := g.Scope == inFederation || g.Scope == inZone && g.Zone.ID == z.ID ||
						g.Scope != inZone && slices.ContainsFunc(g.Projects, func(o Project) bool { return o.ID == p.ID })
					policy, err := compile(g.Role)
					if err != nil {
						rt.Fatal(err)
					}
					a := policy.ask(question{who: &s, permission: "vm.start", shown: true,
						of: attributes{project: p.Name, organization: p.Organization, zone: z.Name, zoneKind: z.Kind, zoneGrade: int64(z.Grade)}})
					want = want || there && a.permitted && a.forbids == ""
				}
				if s.Edge.ZoneID != "" && z.ID != s.Edge.ZoneID {
					want = want && slices.ContainsFunc(s.Crossings, func(c Crossing) bool {
						return c.Project.ID == p.ID && c.Zone.ID == z.ID && c.Permissions[0] == "vm.start"
					})
				}
				if got := reach.Contains(Place{ProjectID: p.ID, ZoneID: z.ID}, "vm.start"); got != want {
					rt.Fatalf("%s in %s: the reach %v says %v, the engine %v", p.Name, z.Name, reach, got, want)
				}
			}
		}
	})
}

func TestAnExplanationSaysWhatDecidedAndWhatIsMissing(t *testing.T) {
	s := kim(bound(builtIn("user"), inProject, "web"), bound(builtIn("zone-operator"), inZone, "business"), bound(role("low", "resource.zone_grade <= 1", "vm.start"), inFederation, ""))
	start := method(t, "VMService/StartVM")
	allowed, reasons := New(s).Explain(start, Place{ProjectID: "p-web", ZoneID: "z-biz"}, "vm/web-1")
	if !allowed || len(reasons) != 3 || reasons[0].GetRole() != "zone-operator" || !reasons[0].GetPermits() || reasons[0].GetScope() != "zone/business" {
		t.Errorf("%v %v", allowed, reasons)
	}
	allowed, reasons = New(s).Explain(start, Place{ProjectID: "p-web", ZoneID: "z-top"}, "vm/web-1")
	var said []string
	for _, r := range reasons {
		said = append(said, r.GetRole()+": "+r.GetMessage())
	}
	text := strings.Join(said, "\n")
	for _, want := range []string{"user: the role does not have vm.start", "zone-operator: the role has vm.start, and vm/web-1 is not in the place", "low: the role's condition does not hold"} {
		if allowed || !strings.Contains(text, want) {
			t.Errorf("%v: no %q in %s", allowed, want, text)
		}
	}
}
