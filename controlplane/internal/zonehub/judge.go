package zonehub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// buryAgain is how long it rests when it could not be written down that a session has ended.
const buryAgain = time.Second

// judge says whether an agent may have a session by the broker that it came by: the one judge of a session that is to open and
// of one that is open. The goodbye is nil where it may.
func (h *Hub) judge(tx *state.Tx, zoneID, agent string, came boundary) (*apiv1.Zone, *link.Goodbye, error) {
	revoked, err := tx.IsRevoked(zoneID, agent)
	if err != nil {
		return nil, nil, err
	}
	zone, err := tx.Zones.Get(zoneID)
	switch {
	case errors.Is(err, state.ErrNotFound) && revoked:
		return nil, &link.Goodbye{Code: link.CodeRevoked, Reason: "the zone has been deleted"}, nil
	case err != nil: // one that is only missing may be new, and this server behind, or a backup restored that is older
		return nil, nil, fmt.Errorf("zone %s: %w", zoneID, err)
	}
	stray := came.lets(tx, zoneID)
	switch {
	case revoked || zone.GetState() == apiv1.Zone_RETIRED:
		return zone, &link.Goodbye{Code: link.CodeRevoked, Reason: "agent " + agent + " of zone " + zone.GetName() + " has been revoked; it must join anew"}, nil
	case problem.Is(stray, problem.Forbidden):
		return zone, &link.Goodbye{Code: link.CodeWrongBroker, Reason: problem.Of(stray).GetDetail()}, nil
	case stray != nil:
		return nil, nil, stray
	case zone.GetState() == apiv1.Zone_QUARANTINED:
		return zone, &link.Goodbye{Code: link.CodeQuarantined, Reason: "zone " + zone.GetName() + ": " + zone.GetStateReason()}, nil
	}
	return zone, nil, nil
}

// rejudge ends the open sessions that may not go on, whenever what they rest on changes: who is revoked, which zones there are
// and behind which broker they stand, and the brokers. What an earlier life of this server left open it buries.
func (h *Hub) rejudge(ctx context.Context) error {
	watch := h.Reader.Watch(state.TopicIdentity, "zones", "brokers")
	defer watch.Close()
	for {
		h.mu.Lock()
		open := slices.Collect(maps.Values(h.open))
		h.mu.Unlock()
		for _, s := range open {
			over, err := s.judge(ctx)
			if err != nil {
				return fmt.Errorf("judge the session of zone %s: %w", s.zone.GetName(), err)
			}
			if over != nil {
				h.end.End(s.zone.GetId(), s.agent, over.Code, over.Reason)
			}
		}
		var again <-chan time.Time
		if err := h.bury(ctx); err != nil {
			h.Log.Warn("sessions of this server's earlier life are still written down as open; it is tried again", "error", err)
			again = time.After(buryAgain)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-watch.C():
		case <-again:
		}
	}
}

// bury writes down that the sessions have ended that this server held before it died. Nobody else does where it came back before
// it was missed, and a zone that is cut off opens no new one in their place.
func (h *Hub) bury(ctx context.Context) error {
	var open map[string]state.ZoneSession
	err := h.view(ctx, func(tx *state.Tx) (err error) {
		open, err = tx.OpenZoneSessions()
		return err
	})
	for zone, s := range open {
		if err == nil && s.ServerID == h.ServerID && !bytes.HasPrefix(s.ID, h.life[:]) {
			err = h.propose(ctx, &commandv1.Command{Body: &commandv1.Command_SetZoneSession{SetZoneSession: &commandv1.SetZoneSession{
				ZoneId: zone, Session: s.ID, Agent: s.Agent, ServerId: s.ServerID, Incarnation: s.Incarnation,
				Cause: "SERVER_GONE", Event: &apiv1.Event{Message: "its session ended: the server that held it was started anew"},
			}}})
		}
	}
	return err
}

// enter makes a session one that is judged again whenever something changes; it takes the place of its zone's last. Its
// beginning has cleared what people were told of the zone's haste.
func (h *Hub) enter(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open[s.zone.GetId()] = s
	s.allowance.rest()
}

func (h *Hub) leave(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open[s.zone.GetId()] == s {
		delete(h.open, s.zone.GetId())
	}
}

// judge says why the session may not go on; nil where it may.
func (s *session) judge(ctx context.Context) (over *link.Goodbye, err error) {
	err = s.hub.view(ctx, func(tx *state.Tx) error {
		_, over, err = s.hub.judge(tx, s.zone.GetId(), s.agent, s.came)
		return err
	})
	return over, err
}
