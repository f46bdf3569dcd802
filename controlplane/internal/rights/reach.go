package rights

import (
	"cmp"
	"slices"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Ref names something by id and by name.
type Ref struct{ ID, Name string }

// Place is whose and where an object is. What is nobody's has neither project nor organization; what is nowhere has no zone.
type Place struct {
	ProjectID string
	// OrganizationID is that of what belongs to an organization and to no project.
	OrganizationID string
	ZoneID         string
}

// Region is a part of the federation: what is whose, and where.
type Region struct {
	// AnyOwner: whosever it is. Else only what is in Projects, and what belongs to Organizations themselves.
	AnyOwner                bool
	Projects, Organizations []Ref
	// AnyZone: wherever it is. Else only what is in Zones, of which an empty one stands for nowhere.
	AnyZone bool
	Zones   []Ref
}

// Reach is where somebody has a permission: in any of its regions. The zero value is nowhere.
type Reach []Region

// everywhere is the whole federation.
var everywhere = Region{AnyOwner: true, AnyZone: true}

// Everywhere reports whether the reach leaves nothing out.
func (r Reach) Everywhere() bool {
	return slices.ContainsFunc(r, func(g Region) bool { return g.AnyOwner && g.AnyZone })
}

// Contains reports whether an object lies within the reach of a permission.
func (r Reach) Contains(p Place, permission string) bool {
	return slices.ContainsFunc(r, func(g Region) bool { return g.contains(p, Common(permission)) })
}

func (g Region) contains(p Place, common bool) bool {
	nobodys := p.ProjectID == "" && p.OrganizationID == ""
	whose := g.AnyOwner || common && nobodys || p.ProjectID != "" && has(g.Projects, p.ProjectID) ||
		p.ProjectID == "" && p.OrganizationID != "" && has(g.Organizations, p.OrganizationID)
	return whose && (g.AnyZone || common && p.ZoneID == "" || has(g.Zones, p.ZoneID))
}

// TouchesOrganization reports whether what belongs to an organization lies within the reach, wherever it is.
func (r Reach) TouchesOrganization(id string) bool {
	return slices.ContainsFunc(r, func(g Region) bool { return g.AnyOwner || has(g.Organizations, id) })
}

// covers reports whether all that a binding in the place would reach, now and later, lies within the reach.
func (r Reach) covers(scope apiv1.RoleBinding_Scope, id string) bool {
	return slices.ContainsFunc(r, func(g Region) bool {
		switch scope {
		case apiv1.RoleBinding_FEDERATION:
			return g.AnyOwner && g.AnyZone
		case apiv1.RoleBinding_ZONE:
			return g.AnyOwner && (g.AnyZone || has(g.Zones, id))
		case apiv1.RoleBinding_ORGANIZATION:
			return g.AnyZone && (g.AnyOwner || has(g.Organizations, id))
		case apiv1.RoleBinding_PROJECT:
			return g.AnyZone && (g.AnyOwner || has(g.Projects, id))
		}
		return false
	})
}

func has(refs []Ref, id string) bool {
	return slices.ContainsFunc(refs, func(r Ref) bool { return r.ID == id })
}

// simplified joins regions that differ in one respect only, and puts everything in order, so that equal reaches are equal.
func (r Reach) simplified() Reach {
	if r.Everywhere() {
		return Reach{everywhere}
	}
	var wherever, whosever Region
	wherever.AnyZone, whosever.AnyOwner = true, true
	var rest Reach
	for _, g := range r {
		switch {
		case g.AnyZone:
			wherever.Projects = append(wherever.Projects, g.Projects...)
			wherever.Organizations = append(wherever.Organizations, g.Organizations...)
		case g.AnyOwner:
			whosever.Zones = append(whosever.Zones, g.Zones...)
		default:
			rest = append(rest, g)
		}
	}
	var out Reach
	for _, g := range append(Reach{wherever, whosever}, rest...) {
		g.Projects, g.Organizations, g.Zones = ordered(g.Projects), ordered(g.Organizations), ordered(g.Zones)
		if (g.AnyOwner || len(g.Projects)+len(g.Organizations) > 0) && (g.AnyZone || len(g.Zones) > 0) {
			out = append(out, g)
		}
	}
	return out
}

func ordered(refs []Ref) []Ref {
	out := slices.Clone(refs)
	slices.SortFunc(out, func(a, b Ref) int { return cmp.Compare(a.ID, b.ID) })
	return slices.Compact(out)
}

// Equal reports whether two reaches, as Rights gives them, are the same.
func (r Reach) Equal(o Reach) bool {
	return slices.EqualFunc(r, o, func(a, b Region) bool {
		return a.AnyOwner == b.AnyOwner && a.AnyZone == b.AnyZone && slices.Equal(a.Projects, b.Projects) &&
			slices.Equal(a.Organizations, b.Organizations) && slices.Equal(a.Zones, b.Zones)
	})
}

// within returns what of the reach is in one project.
func (r Reach) within(project Project) Reach {
	var out Reach
	for _, g := range r {
		if g.AnyOwner || has(g.Projects, project.ID) {
			out = append(out, Region{Projects: []Ref{project.Ref}, AnyZone: g.AnyZone, Zones: g.Zones})
		}
	}
	return out.simplified()
}
