package rights

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"

	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Kinds of subjects, as conditions name them.
const (
	Person        = "PERSON"
	Service       = "SERVICE"
	Administrator = "ADMINISTRATOR"
	Token         = "TOKEN"
)

// Edge is the place where a call came in; the zero value is the control network.
type Edge struct {
	Zone, ZoneID string
	// Methods is what the zone's policy lets its edge call: VMService/ListVMs, VMService/*. Empty: all.
	Methods []string
}

// shows reports whether a method may be called there.
func (e Edge) shows(m Method) bool { return schema.Shows(e.Methods, m.Name) }

// Project is one, as conditions know it.
type Project struct {
	Ref
	Organization string
}

// Zone is one, as conditions know it.
type Zone struct {
	Ref
	Kind  string
	Grade apiv1.Zone_Grade
}

// Grant is a role that somebody has in a place.
type Grant struct {
	Role *apiv1.Role
	// Binding is nil for what comes with a credential.
	Binding *apiv1.RoleBinding
	// Group is the one through which it reaches the subject, by name; empty where it names the subject.
	Group string
	Scope apiv1.RoleBinding_Scope
	// Zone is that of a zone's grant. Organizations and Projects are those of a project's or an organization's, with all that
	// stand below it; of the other grants they are all there are, where the role's condition asks whose something is.
	Zone          Ref
	Organizations []Ref
	Projects      []Project
}

// Place is the grant's place as people write it: federation, project/web.
func (g Grant) Place() string { return PlaceOf(g.Scope, g.Binding.GetPlace()) }

// PlaceOf writes a place as people do.
func PlaceOf(scope apiv1.RoleBinding_Scope, name string) string {
	kind := strings.ToLower(scope.String())
	if name == "" || scope == apiv1.RoleBinding_FEDERATION {
		return kind
	}
	return kind + "/" + name
}

// Subject is who asks, with everything that a decision rests on, from one snapshot. It is not changed after New.
type Subject struct {
	// Kind, ID and Name are empty for nobody.
	Kind, ID, Name, Organization string
	Disabled                     bool
	Edge                         Edge
	Grants                       []Grant
	// Only is the one project that the credential is good for; nil: no such bound.
	Only *Project
	// Zones are all, where a condition asks for them.
	Zones []Zone
	// Crossings are what may be changed from the edge in other zones, beside what the grants say.
	Crossings []Crossing
	// Until is when the first of the grants ends; zero: none does. From is when that was reckoned.
	From, Until time.Time
}

func (s *Subject) uid() cedar.EntityUID {
	return cedar.NewEntityUID("User", cedar.String(s.ID))
}

// Rights are what a subject may do. Safe for concurrent use.
type Rights struct {
	subject Subject

	mu      sync.Mutex
	reaches map[string]reached
}

type reached struct {
	reach   Reach
	forbids string
}

// New returns the rights of a subject.
func New(s Subject) *Rights { return &Rights{subject: s, reaches: map[string]reached{}} }

// Subject returns whose rights they are.
func (r *Rights) Subject() Subject { return r.subject }

// Fresh reports whether they are at a time what they were when they were reckoned: no grant has ended since, and none that had ended has
// not, by a clock that was ahead and was set right.
func (r *Rights) Fresh(now time.Time) bool {
	return !now.Before(r.subject.From) && (r.subject.Until.IsZero() || now.Before(r.subject.Until))
}

// Conditional reports whether they rest on what zones are like.
func (r *Rights) Conditional() bool { return len(r.subject.Zones) > 0 }

// Admit decides whether a method may be called at all: where, Reach says. Errors: problems UNAUTHENTICATED and FORBIDDEN.
func (r *Rights) Admit(m Method) error {
	switch {
	case m.Permission == "":
		return problem.New(problem.Forbidden, "nobody may call "+m.Name, "Use a client of this version.")
	case m.Permission == Public && r.subject.Edge.shows(m):
		return nil
	case r.subject.Kind == "":
		return problem.New(problem.Unauthenticated, "the call says nothing of who calls",
			"Log in: naru login. Or show an administrator's certificate in the control network, or send an access token: Authorization: Bearer naru_….")
	}
	if why := r.refuses(m); why != "" {
		return problem.Newf(problem.Forbidden, "Ask an administrator.", "%s may not call %s: %s", r.subject.Name, m.Short(), why)
	}
	if m.Permission == Self || m.Own || len(r.Reach(m.Permission, m)) > 0 {
		return nil
	}
	return r.Missing(m, "")
}

// Missing is the refusal for want of a permission; where is the place, empty for everywhere.
func (r *Rights) Missing(m Method, where string) error {
	if where == "" {
		where = "anywhere"
		if r.subject.Edge.ZoneID != "" {
			where = "at this edge"
		}
	} else {
		where = "in " + where
	}
	crosses := r.subject.Edge.ZoneID != "" && CanCross(m.Permission) && len(r.granted(m.Permission, m)) > 0
	if crosses {
		where += " outside zone " + r.subject.Edge.Zone
	}
	next := "No role that comes with Naru has it; ask an administrator of the federation."
	if roles := RolesWith(m.Permission); len(roles) > 0 {
		next = "Ask for one of the roles " + strings.Join(roles, ", ") + "; naru auth explain says who can give it."
	}
	if crosses {
		next = "What is in another zone is asked for, and approved on both sides: naru request create. naru crossing list shows what may be done from this zone without that."
	}
	return problem.Newf(problem.Forbidden, next, "%s does not have the permission %s %s", r.subject.Name, m.Permission, where)
}

// RolesWith returns the built-in roles that have a permission.
func RolesWith(permission string) []string {
	var out []string
	for _, role := range BuiltIn() {
		if Permits(role, permission) {
			out = append(out, role.GetName())
		}
	}
	return out
}

// Permits reports whether a role has a permission, wherever it is held and whatever its condition says.
func Permits(role *apiv1.Role, permission string) bool {
	return slices.ContainsFunc(role.GetPermissions(), func(p string) bool { return matches(p, permission) })
}

// nothing is a role that permits whatever is one's own, under Naru's own rules.
var nothing = &apiv1.Role{Name: "self", Permissions: []string{"*"}, AtEdges: true}

// refuses says why Naru's own rules forbid a method, whatever roles permit; empty where they do not.
func (r *Rights) refuses(m Method) string {
	key := "refuses " + m.Name
	r.mu.Lock()
	known, ok := r.reaches[key]
	r.mu.Unlock()
	if ok {
		return known.forbids
	}
	p, err := compile(nothing)
	if err != nil {
		return err.Error()
	}
	why := p.ask(question{who: &r.subject, permission: m.Permission, shown: r.subject.Edge.shows(m)}).forbids
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reaches[key] = reached{forbids: why}
	return why
}

// Reach returns where the subject has a permission, when it calls a method: of what can cross, at an edge, in the edge's own zone, and
// where a crossing leads. It is shared and read-only.
func (r *Rights) Reach(permission string, m Method) Reach {
	reach := r.granted(permission, m)
	if r.subject.Edge.ZoneID == "" || !CanCross(permission) {
		return reach
	}
	return reach.from(r.subject.Edge, r.subject.Crossings, permission)
}

// granted is where grants give the subject a permission, whichever zone's edge it calls at.
func (r *Rights) granted(permission string, m Method) Reach {
	key := permission + " " + m.Name
	r.mu.Lock()
	known, ok := r.reaches[key]
	r.mu.Unlock()
	if ok {
		return known.reach
	}
	var reach Reach
	plain := map[string]bool{} // of roles without a condition the engine is asked once
	for _, g := range r.subject.Grants {
		id := g.Role.GetName() + " " + g.Role.GetId()
		permits, known := plain[id]
		if known && g.Role.GetCondition() == "" {
			if permits {
				reach = append(reach, g.region())
			}
			continue
		}
		got := r.grantReach(g, permission, m)
		plain[id] = len(got) > 0
		reach = append(reach, got...)
	}
	if r.subject.Only != nil {
		reach = reach.within(*r.subject.Only)
	}
	reach = reach.simplified()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reaches[key] = reached{reach: reach}
	return reach
}

// grantReach asks the policy engine about one grant.
func (r *Rights) grantReach(g Grant, permission string, m Method) Reach {
	p, err := compile(g.Role)
	if err != nil {
		return nil // a role that cannot be asked gives nothing
	}
	permits := func(of attributes) bool {
		a := p.ask(question{who: &r.subject, permission: permission, shown: r.subject.Edge.shows(m), of: of})
		return a.permitted && a.forbids == ""
	}
	whole := g.region()
	if !p.zoned && !p.owned {
		if permits(attributes{}) {
			return Reach{whole}
		}
		return nil
	}
	zones := []Zone{{}} // of these, an empty one stands for nowhere
	if p.zoned {
		for _, z := range r.subject.Zones {
			if whole.AnyZone || has(whole.Zones, z.ID) {
				zones = append(zones, z)
			}
		}
	}
	var out Reach
	for _, z := range zones {
		region := whole
		if p.zoned {
			if region.AnyZone, region.Zones = false, []Ref{z.Ref}; z.ID == "" && !whole.AnyZone {
				continue
			}
		}
		at := attributes{zone: z.Name, zoneKind: z.Kind, zoneGrade: int64(z.Grade)}
		if !p.owned {
			if permits(at) {
				out = append(out, region)
			}
			continue
		}
		region.AnyOwner, region.Projects, region.Organizations = false, nil, nil
		for _, project := range g.Projects {
			at.project, at.organization = project.Name, project.Organization
			if permits(at) {
				region.Projects = append(region.Projects, project.Ref)
			}
		}
		for _, o := range g.Organizations {
			at.project, at.organization = "", o.Name
			if permits(at) {
				region.Organizations = append(region.Organizations, o)
			}
		}
		out = append(out, region)
	}
	return out
}

// Holds returns where one of the subject's grants counts, whatever its role permits, when it calls a method: where its condition
// holds.
func (r *Rights) Holds(g Grant, m Method) Reach {
	g.Role = &apiv1.Role{Name: g.Role.GetName(), Permissions: []string{m.Permission}, Condition: g.Role.GetCondition(), AtEdges: g.Role.GetAtEdges()}
	return r.grantReach(g, m.Permission, m)
}

// region is the grant's place, without a condition.
func (g Grant) region() Region {
	switch g.Scope {
	case apiv1.RoleBinding_FEDERATION:
		return everywhere
	case apiv1.RoleBinding_ZONE:
		return Region{AnyOwner: true, Zones: []Ref{g.Zone}}
	}
	out := Region{AnyZone: true, Organizations: g.Organizations}
	for _, p := range g.Projects {
		out.Projects = append(out.Projects, p.Ref)
	}
	return out
}

// Covers reports whether an object is in the grant's place.
func (g Grant) Covers(p Place) bool { return Reach{g.region()}.Contains(p, "") }

// Holder is the grant of a built-in role that comes with a credential.
func Holder(role string, projects ...Project) Grant {
	g := Grant{Role: builtIn(role), Scope: apiv1.RoleBinding_FEDERATION}
	if len(projects) > 0 {
		g.Scope, g.Projects = apiv1.RoleBinding_PROJECT, projects
	}
	return g
}

// Asks says whether a role's condition asks for the zone, and for the owner, of an object.
func Asks(role *apiv1.Role) (zone, owner bool) {
	p, err := compile(role)
	if err != nil {
		return false, false
	}
	return p.zoned, p.owned
}
