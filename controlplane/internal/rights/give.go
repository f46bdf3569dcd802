package rights

import (
	"strings"
	"time"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// MayGive refuses to give what the giver does not have: each permission of the role, in all of the place, for as long. until
// is zero for ever. A condition that binds the giver has to bind who is given to, so it counts with the same role only.
func (r *Rights) MayGive(role *apiv1.Role, scope apiv1.RoleBinding_Scope, id, name string, until time.Time, m Method) error {
	if missing := r.lacks(role, scope, id, until, m); len(missing) > 0 {
		const most = 3
		said := strings.Join(missing[:min(most, len(missing))], ", ")
		if len(missing) > most {
			said += " and more"
		}
		return problem.Newf(problem.Forbidden, "Nobody gives more than they have. Ask someone who has it there, or give a smaller role, or for a shorter time.",
			"%s cannot give the role %s in %s without having %s there oneself", r.subject.Name, role.GetName(), PlaceOf(scope, name), said)
	}
	return nil
}

// lacks returns the permissions of a role that the giver does not have in all of a place, for as long.
func (r *Rights) lacks(role *apiv1.Role, scope apiv1.RoleBinding_Scope, id string, until time.Time, m Method) []string {
	giver := New(r.subject)
	giver.subject.Grants = nil
	for _, g := range r.subject.Grants {
		zone, owner := Asks(g.Role)
		same := g.Role.GetId() == role.GetId() && g.Role.GetCondition() == role.GetCondition()
		if (zone || owner || g.Role.GetCondition() != "") && !same {
			continue
		}
		if end := g.Binding.GetExpiresAt(); end != nil && (until.IsZero() || end.AsTime().Before(until)) {
			continue
		}
		giver.subject.Grants = append(giver.subject.Grants, g)
	}
	var missing []string
	for _, p := range Expand(role.GetPermissions()) {
		reach := giver.granted(p, m)
		if zone, owner := Asks(role); zone || owner {
			// The same role's condition holds for both; it is the place of the giver's own binding that has to be wider.
			reach = giver.unconditional(p, m)
		}
		if !reach.covers(scope, id) {
			missing = append(missing, p)
		}
	}
	return missing
}

// unconditional is Reach as it would be if every condition held.
func (r *Rights) unconditional(permission string, m Method) Reach {
	var out Reach
	for _, g := range r.subject.Grants {
		for _, p := range Expand(g.Role.GetPermissions()) {
			if p == permission && (g.Role.GetAtEdges() || r.subject.Edge.ZoneID == "") {
				out = append(out, g.region())
			}
		}
	}
	if r.refuses(m) != "" {
		return nil
	}
	if r.subject.Only != nil {
		out = out.within(*r.subject.Only)
	}
	return out.simplified()
}
