package intake

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/naru-project/naru/controlplane/internal/panel"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// resolveAccess resolves a role that is asked for, for a time: in the project, or in the zone that the request names.
func resolveAccess(tx *state.Tx, r *apiv1.Request, ask *apiv1.AccessForTime, project *apiv1.Project) ([]*commandv1.Read, error) {
	role, err := tx.Roles.Find(ask.GetRole(), nil)
	if err != nil {
		return nil, gone(err, "role", ask.GetRole())
	}
	if ask.Scope == apiv1.RoleBinding_SCOPE_UNSPECIFIED {
		ask.Scope = apiv1.RoleBinding_PROJECT
	}
	reads := []*commandv1.Read{read("project", project), read("role", role)}
	r.Grade = project.GetGrade()
	place, id := project.GetName(), project.GetId()
	if ask.GetScope() == apiv1.RoleBinding_ZONE {
		zone, err := zoneOf(tx, r)
		if err != nil {
			return nil, err
		}
		place, id, r.Grade = zone.GetName(), zone.GetId(), grade.Highest(r.GetGrade(), zone.GetGrade())
		reads = append(reads, read("zone", zone))
	} else {
		r.Zone, r.ZoneId = "", ""
	}
	if err := lasting(ask.GetDays(), "access_for_time"); err != nil {
		return nil, err
	}
	ask.Role, ask.RoleId, ask.Permissions = role.GetName(), role.GetId(), rights.Expand(role.GetPermissions())
	ask.Condition, ask.AtEdges = role.GetCondition(), role.GetAtEdges()
	who, whoID := whom(r)
	end := time.Now().AddDate(0, 0, int(ask.GetDays()))
	for b, err := range tx.RoleBindingsOf(whoID) {
		if err != nil {
			return nil, err
		}
		if b.GetRoleId() == role.GetId() && b.GetUserId() == whoID && b.GetScope() == ask.GetScope() && b.GetPlaceId() == id && (b.GetExpiresAt() == nil || b.GetExpiresAt().AsTime().After(end)) {
			return nil, problem.Newf(problem.WrongState, "Ask for longer, where that is needed.", "%s has the role %s in %s already, for as long", who, role.GetName(), rights.PlaceOf(ask.GetScope(), place)).
				With("specification.access_for_time.role", "is held already")
		}
	}
	r.Parts = []*apiv1.Part{{Name: role.GetName() + " in " + rights.PlaceOf(ask.GetScope(), place)}}
	return reads, nil
}

// whom is for whom a request is: the requester, where it names nobody else.
func whom(r *apiv1.Request) (name, id string) {
	if r.GetOnBehalfOfId() != "" {
		return r.GetOnBehalfOf(), r.GetOnBehalfOfId()
	}
	return r.GetRequester(), r.GetRequesterId()
}

func zoneOf(tx *state.Tx, r *apiv1.Request) (*apiv1.Zone, error) {
	if r.GetZoneId() == "" {
		return nil, problem.New(problem.Invalid, "the request does not say in which zone", "Name a zone.").With("zone", "is required")
	}
	zone, err := tx.Zones.Get(r.GetZoneId())
	if err != nil {
		return nil, gone(err, "zone", r.GetZone())
	}
	return zone, nil
}

func lasting(days uint32, field string) error {
	if days == 0 {
		return problem.New(problem.Invalid, "the request does not say for how long", "Name some days.").With("specification."+field+".days", "is required")
	}
	return nil
}

// resolveCrossing resolves what people of the project are to change from one zone in another, for a time.
func resolveCrossing(tx *state.Tx, r *apiv1.Request, ask *apiv1.CrossZone, project *apiv1.Project) ([]*commandv1.Read, error) {
	zone, err := zoneOf(tx, r)
	if err != nil {
		return nil, err
	}
	source, err := tx.Zones.Get(r.GetSourceZoneId())
	if err != nil {
		return nil, gone(err, "zone", r.GetSourceZone())
	}
	if source.GetId() == zone.GetId() {
		return nil, problem.Newf(problem.Invalid, "Name two zones.", "nothing crosses from zone %s into itself", zone.GetName()).With("specification.cross_zone.source_zone", "is the zone")
	}
	if err := lasting(ask.GetDays(), "cross_zone"); err != nil {
		return nil, err
	}
	if ask.Permissions, err = Crossable(ask.GetPermissions()); err != nil {
		return nil, err
	}
	r.Grade = grade.Highest(project.GetGrade(), source.GetGrade(), zone.GetGrade())
	r.Parts = []*apiv1.Part{{Name: source.GetName() + " to " + zone.GetName()}}
	return []*commandv1.Read{read("project", project), read("zone", source), read("zone", zone)}, nil
}

// Crossable returns the permissions that patterns stand for, in order. It refuses those by which nothing can cross.
func Crossable(patterns []string) (out []string, err error) {
	all := slices.DeleteFunc(rights.Expand([]string{"*"}), func(p string) bool { return !rights.CanCross(p) })
	for _, p := range patterns {
		found := rights.Expand([]string{p})
		if len(found) == 0 || slices.ContainsFunc(found, func(p string) bool { return !rights.CanCross(p) && !strings.HasSuffix(p, ".read") }) {
			return nil, problem.Newf(problem.Invalid, "What can cross: "+strings.Join(all, ", ")+".", "nothing crosses by the permission %q", p).With("permissions", "has "+p)
		}
		out = append(out, slices.DeleteFunc(found, func(p string) bool { return !rights.CanCross(p) })...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// giving is a role that is asked for, and who may give it: nobody gives more than they have, by a request neither.
type giving struct {
	ask   *apiv1.AccessForTime
	role  *apiv1.Role
	panel *panel.Panel
	until time.Time
}

func givingOf(tx *state.Tx, r *apiv1.Request, p *panel.Panel, now time.Time) (*giving, error) {
	ask := r.GetSpecification().GetAccessForTime()
	role, err := tx.Roles.Get(ask.GetRoleId())
	if err != nil {
		return nil, gone(err, "role", ask.GetRole())
	}
	return &giving{ask, role, p, now.AddDate(0, 0, int(ask.GetDays()))}, nil
}

// by reports whether a user may give the role there, and what the answer rests on. Another system gives none: people do.
func (g *giving) by(userID string) (bool, []*commandv1.Read, error) {
	m, err := g.panel.Member(userID)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	if m.GetUser().GetKind() != apiv1.User_PERSON {
		return false, nil, nil
	}
	return g.panel.MayGive(m, g.role, g.ask.GetScope(), g.until), append(slices.Clone(m.Reads), read("role", g.role)), nil
}

// asApproved refuses a role that gives more by now than those saw who approved it: more permissions, under another condition, or at edges
// too. How much a condition takes away nobody can tell from its text.
func (g *giving) asApproved() error {
	more := ""
	for _, permission := range rights.Expand(g.role.GetPermissions()) {
		if !slices.Contains(g.ask.GetPermissions(), permission) {
			more = "permits more by now than was approved: " + permission
		}
	}
	switch {
	case more != "":
	case g.ask.GetCondition() != "" && g.role.GetCondition() != g.ask.GetCondition():
		more = "has another condition by now than was approved"
	case g.role.GetAtEdges() && !g.ask.GetAtEdges():
		more = "counts at zones' edges by now, which was not approved"
	default:
		return nil
	}
	return problem.Newf(problem.WrongState, "Withdraw the request, and ask anew.", "the role %s %s", g.role.GetName(), more)
}

// Grant returns what it rests on that the role can be given now for which an approved request asks: one of those who approved may give
// it, and it permits no more than they saw. The error says why it cannot.
func Grant(tx *state.Tx, r *apiv1.Request, now time.Time) ([]*commandv1.Read, error) {
	p, err := panel.Of(tx, r, now)
	if err != nil {
		return nil, err
	}
	g, err := givingOf(tx, r, p, now)
	if err != nil {
		return nil, err
	}
	if err := g.asApproved(); err != nil {
		return nil, err
	}
	for _, d := range r.GetDecisions() {
		if d.GetVerdict() != apiv1.Decision_APPROVE || d.GetVoid() || d.GetRound() != r.GetRound() {
			continue
		}
		id := d.GetActorId()
		if d.GetActingForId() != "" {
			id = d.GetActingForId()
		}
		if may, reads, err := g.by(id); err != nil || may {
			return reads, err
		}
	}
	return nil, problem.Newf(problem.WrongState, "Withdraw the request, and ask anew.", "none of those who approved may give the role %s there now", g.role.GetName())
}

// grantable refuses a request for a role where no stage is of people who all may give it: whoever approves it there then does.
func grantable(tx *state.Tx, r *apiv1.Request, p *panel.Panel, needs []request.Need, now time.Time) error {
	g, err := givingOf(tx, r, p, now)
	if err != nil {
		return err
	}
	for _, n := range needs {
		all := len(n.People) > 0
		for _, id := range n.People {
			may, _, err := g.by(id)
			if err != nil {
				return err
			}
			all = all && may
		}
		if all {
			return nil
		}
	}
	return problem.Newf(problem.WrongState, "Ask for a smaller role, or for a shorter time; or ask whoever looks after the policies for a stage of people who may give it.",
		"in no stage of policy %s all who are asked may give the role %s there: nobody gives more than they have", r.GetPolicy(), g.role.GetName())
}
