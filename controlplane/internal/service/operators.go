package service

import (
	"cmp"
	"slices"
	"time"

	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Operators returns a zone's own operators: people to whom a role is bound in this very zone, by name or by a group, with what it lets
// them do at the zone's edge to whatever is there. Roles that are bound elsewhere do not count: the zone is told of nobody else. They come by name.
func (s *Service) Operators(tx *state.Tx, zone *apiv1.Zone, now time.Time) (all []rights.Operator, err error) {
	ids := map[string]bool{}
	for b, err := range tx.RoleBindings.All(state.Scope{"place_id": zone.GetId()}) {
		if err != nil {
			return nil, err
		}
		switch {
		case b.GetScope() != apiv1.RoleBinding_ZONE:
		case b.GetUserId() != "":
			ids[b.GetUserId()] = true
		case b.GetGroupId() != "":
			for after := ""; ; {
				members, names, err := tx.MembersOf(b.GetGroupId(), after, membersAtOnce)
				if err != nil {
					return nil, err
				}
				for _, m := range members {
					ids[m.UserID] = true
				}
				if len(members) < membersAtOnce {
					break
				}
				after = names[len(names)-1]
			}
		}
	}
	edge := rights.Edge{Zone: zone.GetName(), ZoneID: zone.GetId(), Methods: zone.GetPolicy().GetMethods()}
	for id := range ids {
		o, err := operator(tx, id, edge, now)
		if err != nil {
			return nil, err
		}
		if len(o.Permissions) > 0 {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b rights.Operator) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all, nil
}

const membersAtOnce = 1000

func operator(tx *state.Tx, id string, edge rights.Edge, now time.Time) (o rights.Operator, err error) {
	if o.User, err = tx.Users.Get(id); err != nil || o.GetKind() != apiv1.User_PERSON || o.GetDisabled() {
		return o, err
	}
	who := rights.Subject{Edge: edge}
	if err := loadUser(tx, id, now, &who); err != nil {
		return o, err
	}
	who.Grants = slices.DeleteFunc(who.Grants, func(g rights.Grant) bool {
		return g.Scope != apiv1.RoleBinding_ZONE || g.Zone.ID != edge.ZoneID
	})
	lasting := who
	lasting.Grants = nil
	for _, g := range who.Grants {
		end := g.Binding.GetExpiresAt()
		if end == nil {
			lasting.Grants = append(lasting.Grants, g)
		} else if o.Until.IsZero() || end.AsTime().Before(o.Until) {
			o.Until = end.AsTime()
		}
	}
	o.Permissions = rights.New(who).Local()
	if slices.Equal(o.Permissions, rights.New(lasting).Local()) {
		o.Until = time.Time{} // what ends takes nothing away
	}
	return o, nil
}
