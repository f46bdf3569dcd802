package zonehub

import (
	"context"
	"fmt"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// objectWithheld is the type of the event that tells of an object that a broker does not let through.
const objectWithheld = "zone.object-withheld"

// withheld is an object that a broker does not let through, and why.
type withheld struct{ zoneID, kind, id, reason string }

// maxWithheld is of how many of them in one zone a server tells; the log has all. Whoever mends what these have in common has
// mended the others.
const maxWithheld = 200

// skipped tells people of an object of which the zone does not hear, because a broker refuses it: once for each reason,
// however often it is tried. It does not wait for that.
func (s *session) skipped(o *linkv1.Object, reason string) {
	e := objectOf(o)
	h, name, target := s.hub, e.GetTarget().GetKind()+" "+e.GetTarget().GetName(), e.GetTarget()
	h.Log.Error("a broker does not let an object through to its zone", "zone", s.zone.GetName(), "noun", name, "reason", reason)
	what := withheld{s.zone.GetId(), target.GetKind(), target.GetId(), reason}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.withheld[what] {
		return
	}
	told := 0
	for other := range h.withheld {
		if other.zoneID == what.zoneID {
			told++
		}
	}
	if told >= maxWithheld {
		return
	}
	h.withheld[what] = true
	e.Severity, e.Type, e.Zone, e.ZoneId = apiv1.Event_ERROR, objectWithheld, s.zone.GetName(), s.zone.GetId()
	e.Message = fmt.Sprintf("broker %s does not let %s through to zone %s, so the zone does not hear of it: %s; change what that names, or delete %s",
		s.came.broker.GetName(), name, s.zone.GetName(), reason, name)
	h.farewells.Go(func() {
		h.telling.Lock()
		defer h.telling.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
		defer cancel()
		if err := h.tellOnce(ctx, e); err != nil {
			h.Log.Warn("that a broker does not let an object through could not be written down", "noun", name, "error", err)
			h.mu.Lock()
			delete(h.withheld, what)
			h.mu.Unlock()
		}
	})
}

// tellOnce writes an event, unless it was told of the same already, by whichever server.
func (h *Hub) tellOnce(ctx context.Context, e *apiv1.Event) error {
	known := false
	err := h.view(ctx, func(tx *state.Tx) error {
		told, _, err := tx.Events.List(state.Query{Filter: "type=" + objectWithheld, OrderBy: "time desc", PageSize: maxWithheld,
			Scope: state.Scope{"zone_id": e.GetZoneId()}})
		known = false
		for _, m := range told {
			known = known || m.GetTarget().GetId() == e.GetTarget().GetId() && m.GetMessage() == e.GetMessage()
		}
		return err
	})
	if err != nil || known {
		return err
	}
	return h.propose(ctx, &commandv1.Command{Body: &commandv1.Command_RecordEvent{RecordEvent: &commandv1.RecordEvent{Event: e}}})
}

// objectOf is an event about an object of the link's state.
func objectOf(o *linkv1.Object) *apiv1.Event {
	e := &apiv1.Event{}
	switch {
	case o.GetVm() != nil:
		m := o.GetVm()
		e.Target = &apiv1.Reference{Kind: "vm", Id: m.GetId(), Name: m.GetName()}
		e.Project, e.ProjectId = m.GetProject(), m.GetProjectId()
	case o.GetHost() != nil:
		e.Target = &apiv1.Reference{Kind: "host", Id: o.GetHost().GetId(), Name: o.GetHost().GetName()}
	case o.GetCluster() != nil:
		e.Target = &apiv1.Reference{Kind: "cluster", Id: o.GetCluster().GetId(), Name: o.GetCluster().GetName()}
	case o.GetZone() != nil:
		e.Target = &apiv1.Reference{Kind: "zone", Id: o.GetZone().GetId(), Name: o.GetZone().GetName()}
	case o.GetReservation() != nil:
		m := o.GetReservation()
		e.Target = &apiv1.Reference{Kind: "reservation", Id: m.GetId(), Name: m.GetId()}
		e.Project, e.ProjectId = m.GetProject(), m.GetProjectId()
	case o.GetLocalOperator() != nil:
		e.Target = &apiv1.Reference{Kind: "user", Id: o.GetLocalOperator().GetId(), Name: o.GetLocalOperator().GetId()}
	case o.GetCheckpoint() != nil:
		e.Target = &apiv1.Reference{Kind: "audit-checkpoint"}
	default:
		e.Target = o.GetTombstone().GetNoun()
	}
	return e
}
