package rights

import (
	"slices"
	"strings"
)

// Crossing lets the people of a project change, from the edge of one zone, what it has in another, by some permissions.
type Crossing struct {
	Project, Zone Ref
	Permissions   []string
}

// CanCross reports whether what a permission changes is a project's and stands in a zone, so that it takes a crossing to change it from
// another zone's edge. What is read crosses as zones disclose it, what is asked for is approved on both sides, and what makes a zone up
// is its administrators' own.
func CanCross(permission string) bool {
	about, verb, _ := strings.Cut(permission, ".")
	return verb != "read" && slices.Contains([]string{"vm", "snapshot", "lease", "operation"}, about)
}

// from is what of a reach is in an edge's own zone, and where crossings lead from there.
func (r Reach) from(edge Edge, crossings []Crossing, permission string) Reach {
	var out Reach
	own := []Ref{{ID: edge.ZoneID, Name: edge.Zone}}
	for _, g := range r {
		if g.AnyZone || has(g.Zones, edge.ZoneID) {
			here := g
			here.AnyZone, here.Zones = false, own
			out = append(out, here)
		}
		for _, c := range crossings {
			if slices.Contains(c.Permissions, permission) && (g.AnyZone || has(g.Zones, c.Zone.ID)) && (g.AnyOwner || has(g.Projects, c.Project.ID)) {
				out = append(out, Region{Projects: []Ref{c.Project}, Zones: []Ref{c.Zone}})
			}
		}
	}
	return out.simplified()
}
