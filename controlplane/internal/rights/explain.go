package rights

import (
	"cmp"
	"fmt"
	"slices"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Explain decides about a method on an object and says why, the deciding first. what is the object as people write it.
func (r *Rights) Explain(m Method, p Place, what string) (allowed bool, reasons []*apiv1.AccessReason) {
	say := func(permits bool, format string, args ...any) {
		reasons = append(reasons, &apiv1.AccessReason{Permits: permits, Message: fmt.Sprintf(format, args...)})
	}
	if m.Permission == Public && r.subject.Edge.shows(m) {
		say(true, "anybody may call %s", m.Short())
		return true, reasons
	}
	if why := r.refuses(m); why != "" {
		say(false, "%s", why)
		return false, reasons
	}
	if m.Permission == Self {
		say(true, "whoever is known may call %s on what is their own", m.Short())
		return true, reasons
	}
	if only := r.subject.Only; only != nil && p.ProjectID != only.ID && !(Common(m.Permission) && p.ProjectID == "") {
		say(false, "the access token is good for project %s only", only.Name)
		return false, reasons
	}
	for _, g := range r.subject.Grants {
		reason := &apiv1.AccessReason{Role: g.Role.GetName(), RoleBinding: g.Binding.GetId(), Group: g.Group, Scope: g.Place()}
		if g.Binding == nil && g.Scope == apiv1.RoleBinding_PROJECT && len(g.Projects) > 0 {
			reason.Scope = PlaceOf(g.Scope, g.Projects[0].Name)
		}
		reason.Permits, reason.Message = r.weigh(g, m, p, what)
		allowed = allowed || reason.Permits
		reasons = append(reasons, reason)
	}
	slices.SortStableFunc(reasons, func(a, b *apiv1.AccessReason) int { return cmp.Compare(rank(a), rank(b)) })
	if m.Own {
		say(true, "on what is their own, whoever is known may call %s", m.Short())
	}
	if len(r.subject.Grants) == 0 {
		say(false, "%s has no role anywhere", r.subject.Name)
	}
	return allowed, reasons
}

func rank(r *apiv1.AccessReason) int {
	if r.GetPermits() {
		return 0
	}
	return 1
}

// weigh says what one grant does for a method on an object.
func (r *Rights) weigh(g Grant, m Method, p Place, what string) (bool, string) {
	if !slices.Contains(Expand(g.Role.GetPermissions()), m.Permission) {
		return false, "the role does not have " + m.Permission
	}
	if r.subject.Edge.ZoneID != "" && !g.Role.GetAtEdges() {
		return false, "the role does not count at the edges of zones"
	}
	if !(Reach{g.region()}).Contains(p, m.Permission) {
		return false, "the role has " + m.Permission + ", and " + what + " is not in the place where it is bound"
	}
	if !Reach(r.grantReach(g, m.Permission, m)).Contains(p, m.Permission) {
		if g.Role.GetCondition() != "" {
			return false, "the role's condition does not hold: " + g.Role.GetCondition()
		}
		return false, "the role's policy does not permit it"
	}
	if !r.Reach(m.Permission, m).Contains(p, m.Permission) {
		return false, "the role has " + m.Permission + ", and " + what + " is in another zone, into which no crossing leads from zone " + r.subject.Edge.Zone
	}
	return true, "the role has " + m.Permission + ", and " + what + " is in the place where it is bound"
}
