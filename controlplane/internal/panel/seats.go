package panel

import (
	"errors"
	"slices"

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
		if len(l.GetRoles())+len(l.GetGroups())+len(l.GetUsers()) == 0 { // whoever the condition holds of
			for u, err := range p.tx.Users.All(nil) {
				if err != nil {
					return nil, err
				}
				ids = append(ids, u.GetId())
			}
			continue
		}
		if ids, err = p.named(l, ids); err != nil {
			return nil, err
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
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
	members := func(groupID string) error {
		after := ""
		for {
			page, names, err := p.tx.MembersOf(groupID, after, 1000)
			if err != nil || len(page) == 0 {
				return err
			}
			for _, m := range page {
				ids = append(ids, m.UserID)
			}
			after = names[len(names)-1]
		}
	}
	for _, name := range l.GetGroups() {
		g, err := p.tx.Groups.ByName(name, nil)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err == nil {
			err = members(g.GetId())
		}
		if err != nil {
			return nil, err
		}
	}
	for _, role := range l.GetRoles() {
		var groups []string // collected first: a snapshot runs one statement of a kind at a time
		for b, err := range p.tx.RoleBindings.All(state.Scope{"role": role}) {
			if err != nil {
				return nil, err
			}
			if len(p.covers(b)) == 0 {
				continue
			}
			if b.GetGroupId() != "" {
				groups = append(groups, b.GetGroupId())
			} else {
				ids = append(ids, b.GetUserId())
			}
		}
		for _, g := range groups {
			if err := members(g); err != nil {
				return nil, err
			}
		}
	}
	return ids, nil
}
