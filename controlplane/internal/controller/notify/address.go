package notify

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/naru-project/naru/controlplane/internal/panel"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// maxAddressees bounds whom one notice reaches (proto: max_items).
const maxAddressees = 256

// asks reports whether a topic says that a decision waits.
func asks(topic string) bool { return slices.Contains(request.Asking, topic) }

// addressees finds out whom a notice concerns now: who may decide in a stage, in their own place or in that of one who has delegated
// to them. Where nothing waits any more, that is nobody.
func addressees(tx *state.Tx, n *apiv1.Notification, now time.Time) ([]*commandv1.AddressNotice_Addressee, error) {
	if !asks(n.GetTopic()) {
		return nil, nil
	}
	r, err := tx.Requests.Get(n.GetAbout().GetId())
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	stage := request.StageOf(r, valueOf(n, "stage"))
	if !request.Deciding(r) || stage.GetState() != apiv1.Stage_OPEN {
		return nil, nil
	}
	p, err := panel.Of(tx, r, now)
	if err != nil {
		return nil, err
	}
	members, err := p.People(stage)
	if err != nil {
		return nil, err
	}
	var own []*commandv1.AddressNotice_Addressee
	inPlaceOf := map[string][]string{} // names, by the delegate's id
	for _, m := range members {
		from := m.GetUser()
		if m.Decided(r) {
			continue
		}
		own = append(own, &commandv1.AddressNotice_Addressee{UserId: from.GetId()})
		delegates, err := delegatesOf(tx, r, p, stage, from, now)
		if err != nil {
			return nil, err
		}
		for _, id := range delegates {
			inPlaceOf[id] = append(inPlaceOf[id], from.GetName())
		}
	}
	for _, a := range own {
		delete(inPlaceOf, a.GetUserId()) // who may decide themselves need not be told for whom besides
	}
	var others []string
	for id := range inPlaceOf {
		others = append(others, id)
	}
	slices.Sort(others)
	for _, id := range others {
		own = append(own, &commandv1.AddressNotice_Addressee{UserId: id, ActingFor: joined(inPlaceOf[id])})
	}
	return own[:min(len(own), maxAddressees)], nil
}

// delegatesOf returns the ids of those who may decide in somebody's place in a stage now.
func delegatesOf(tx *state.Tx, r *apiv1.Request, p *panel.Panel, stage *apiv1.Stage, from *apiv1.User, now time.Time) (ids []string, err error) {
	for d, err := range tx.Delegations.All(state.Scope{"from_user_id": from.GetId()}) {
		if err != nil {
			return nil, err
		}
		holds := !now.Before(d.GetStartsAt().AsTime()) && now.Before(d.GetEndsAt().AsTime()) &&
			(d.GetProjectId() == "" || d.GetProjectId() == r.GetProjectId()) && (d.GetZoneId() == "" || d.GetZoneId() == r.GetZoneId())
		if !holds {
			continue
		}
		to, err := tx.Users.Get(d.GetToUserId())
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
		impartial := p.Impartial(&apiv1.Decision{Stage: stage.GetName(), Actor: d.GetToUser(), ActorId: d.GetToUserId(), ActingFor: from.GetName(), ActingForId: from.GetId()}) == nil
		if err == nil && request.Away(to) == "" && impartial && !slices.Contains(stage.GetExcluded(), d.GetToUser()) {
			ids = append(ids, d.GetToUserId())
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// joined names a few people.
func joined(names []string) string {
	if len(names) > 3 {
		names = append(names[:3:3], "…")
	}
	return strings.Join(names, ", ")
}
