package intake

import (
	"errors"
	"time"

	"github.com/naru-project/naru/controlplane/internal/panel"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Loss is why nothing is carried out for whoever asked for a request, or for whom it is.
type Loss struct {
	Why string
	// Asker: it is who asked, so that others may end it. ForGood: they are there no more, and will not be again.
	Asker, ForGood bool
	// Reads are what that rests on.
	Reads []*commandv1.Read
}

// Away says of a request whether who asked, or for whom it is, can do nothing now; nil where both can.
func Away(tx *state.Tx, r *apiv1.Request) (*Loss, error) {
	for _, p := range people(r) {
		u, err := tx.Users.Get(p.id)
		if errors.Is(err, state.ErrNotFound) {
			return &Loss{Why: p.is + " is gone", Asker: p.id == r.GetRequesterId(), ForGood: true}, nil
		}
		if err != nil {
			return nil, err
		}
		if why := request.Away(u); why != "" {
			return &Loss{Why: p.is + " " + why, Asker: p.id == r.GetRequesterId(), Reads: []*commandv1.Read{read("user", u)}}, nil
		}
	}
	return nil, nil
}

// Orphaned says why a request is not carried out for those whom it is for; nil where it may be, with what that rests on. Who asked must still
// be able to ask for it, and for whom it is must still have a role in the project, as at its submission.
func Orphaned(tx *state.Tx, r *apiv1.Request, now time.Time) (*Loss, []*commandv1.Read, error) {
	if loss, err := Away(tx, r); err != nil || loss != nil {
		return loss, nil, err
	}
	p, err := panel.Planned(tx, r, nil, now)
	if err != nil {
		return nil, nil, err
	}
	var reads []*commandv1.Read
	for _, who := range people(r) {
		m, err := p.Member(who.id)
		if err != nil {
			return nil, nil, err
		}
		reads = append(reads, m.Reads...)
		switch {
		case who.id == r.GetRequesterId() && !p.MayAsk(m):
			return &Loss{Why: who.is + " may not ask for it in project " + r.GetProject() + " any more", Asker: true, Reads: m.Reads}, nil, nil
		case who.id == r.GetOnBehalfOfId() && !p.HasRole(m):
			return &Loss{Why: who.is + " has no role in project " + r.GetProject() + " any more", Reads: m.Reads}, nil, nil
		}
	}
	return nil, reads, nil
}

// Abandoned is Orphaned of who asked alone: where they cannot end it themselves, or have no business with it any more, others may.
func Abandoned(tx *state.Tx, r *apiv1.Request, now time.Time) (*Loss, error) {
	own := &apiv1.Request{
		Id: r.GetId(), Project: r.GetProject(), ProjectId: r.GetProjectId(), Organization: r.GetOrganization(), OrganizationId: r.GetOrganizationId(),
		Zone: r.GetZone(), ZoneId: r.GetZoneId(), Requester: r.GetRequester(), RequesterId: r.GetRequesterId(),
	}
	loss, _, err := Orphaned(tx, own, now)
	return loss, err
}

type concerned struct{ id, is string }

// people are who asked for a request, and for whom it is where that is somebody else.
func people(r *apiv1.Request) []concerned {
	out := []concerned{{r.GetRequesterId(), r.GetRequester() + ", who asked for it,"}}
	if r.GetOnBehalfOfId() != "" && r.GetOnBehalfOfId() != r.GetRequesterId() {
		out = append(out, concerned{r.GetOnBehalfOfId(), r.GetOnBehalfOf() + ", for whom it is,"})
	}
	return out
}
