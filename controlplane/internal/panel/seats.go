package panel

import (
	"errors"
	"slices"

	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// People returns who may decide in a stage and has no part in the request, in the order of their ids. Who has decided already is
// among them.
func (p *Panel) People(stage *apiv1.Stage) (out []*Member, err error) {
	ids, err := p.candidates(stage)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		m, err := p.Member(id)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ok, _ := p.May(stage, m); !ok {
			continue
		}
		by, err := p.part.Meets(id)
		if err != nil {
			return nil, err
		}
		if by == "" {
			out = append(out, m)
		}
	}
	return out, nil
}

// candidates are the ids of all that a stage could mean.
func (p *Panel) candidates(stage *apiv1.Stage) (ids []string, err error) {
	lists := []*apiv1.Eligibility{stage.GetEligible()}
	if stage.GetEscalatedAt() != nil && stage.GetEscalateTo() != nil {
		lists = append(lists, stage.GetEscalateTo())
	}
	for _, l := range lists {
		named := p.named
		if len(l.GetRoles())+len(l.GetGroups())+len(l.GetUsers()) == 0 { // whoever the condition holds of
			named = p.permitted
		}
		if ids, err = named(l, ids); err != nil {
			return nil, err
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// permitted adds those who have a role with the permission to decide, by a binding that covers the request: nobody else may, whatever
// a condition says of them.
func (p *Panel) permitted(_ *apiv1.Eligibility, ids []string) ([]string, error) {
	var roles []string // collected first: a snapshot runs one statement of a kind at a time
	for role, err := range p.tx.Roles.All(nil) {
		if err != nil {
			return nil, err
		}
		if rights.Permits(role, decide().Permission) {
			roles = append(roles, role.GetId())
		}
	}
	return p.bound(roles, ids)
}

func (p *Panel) named(l *apiv1.Eligibility, ids []string) ([]string, error) {
	for _, name := range l.GetUsers() {
		u, err := p.tx.Users.ByName(name, nil)
		if err == nil {
			ids = append(ids, u.GetId())
		} else if !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
	}
	for _, name := range l.GetGroups() {
		g, err := p.tx.Groups.ByName(name, nil)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err == nil {
			ids, err = p.members(g.GetId(), ids)
		}
		if err != nil {
			return nil, err
		}
	}
	var roles []string
	for _, name := range l.GetRoles() {
		role, err := p.tx.Roles.ByName(name, nil)
		if err == nil {
			roles = append(roles, role.GetId())
		} else if !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
	}
	return p.bound(roles, ids)
}

// bound adds those who have one of the roles by a binding that covers the request, themselves or by a group.
func (p *Panel) bound(roles, ids []string) (_ []string, err error) {
	places := append([]string{"", p.places.project, p.places.zone, p.places.source}, p.places.organizations...) // the federation has no id
	slices.Sort(places)
	places = slices.Compact(places)
	var groups []string // collected first, as above
	for _, role := range roles {
		for _, place := range places {
			for b, err := range p.tx.RoleBindings.All(state.Scope{"role_id": role, "place_id": place}) {
				if err != nil {
					return nil, err
				}
				switch {
				case len(p.covers(b)) == 0:
				case b.GetGroupId() != "":
					groups = append(groups, b.GetGroupId())
				default:
					ids = append(ids, b.GetUserId())
				}
			}
		}
	}
	slices.Sort(groups)
	for _, g := range slices.Compact(groups) {
		if ids, err = p.members(g, ids); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// members adds those who are in a group.
func (p *Panel) members(groupID string, ids []string) ([]string, error) {
	after := ""
	for {
		page, names, err := p.tx.MembersOf(groupID, after, 1000)
		if err != nil || len(page) == 0 {
			return ids, err
		}
		for _, m := range page {
			ids = append(ids, m.UserID)
		}
		after = names[len(names)-1]
	}
}
