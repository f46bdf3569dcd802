package zonehub

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// desired is what a zone should hold, as the link's state downwards.
type desired struct {
	zone    string
	hub     *Hub
	changes lazyWatch
	settle  settler
	heard   bool // the zone has said what it has; of the one goroutine that sends
}

func newDesired(h *Hub, zone string) *desired {
	return &desired{zone: zone, hub: h, changes: lazyWatch{reader: h.Reader, topic: state.ForZone(state.TopicDesired, zone)}}
}

func (d *desired) close() { d.changes.close() }

func (d *desired) Since(ctx context.Context, after *linkv1.StateAckPoint, limit int) (*linkv1.StateChunk, error) {
	var chunk *linkv1.StateChunk
	err := d.hub.view(ctx, func(tx *state.Tx) error {
		chunk = nil
		zone, err := tx.Zones.Get(d.zone)
		if err != nil || tx.AwaitsReport(zone) {
			return err
		}
		m := tx.Meta()
		from := after.GetRevision()
		if after.GetEpoch() != m.Epoch || from > m.Revision {
			from = 0
		}
		objects, through, more, err := tx.DesiredSince(d.zone, from, limit)
		if err != nil || (len(objects) == 0 && from > 0) {
			return err
		}
		chunk = &linkv1.StateChunk{Epoch: m.Epoch, After: from, Through: through, End: !more, Objects: objects}
		return nil
	})
	return chunk, err
}

func (d *desired) Changed() <-chan struct{} { return d.changes.c() }

// Acknowledged lets the tombstones go that the zone has. It is written now and then, not for every chunk: what the zone
// has is asked of the zone itself when a session opens.
func (d *desired) Acknowledged(ctx context.Context, point *linkv1.StateAckPoint) error {
	if point.GetRevision() == 0 {
		return nil
	}
	acknowledge := func(ctx context.Context) error {
		return d.hub.propose(ctx, &commandv1.Command{Body: &commandv1.Command_AcknowledgeDesired{AcknowledgeDesired: &commandv1.AcknowledgeDesired{
			ZoneId: d.zone, Through: &apiv1.Generation{Epoch: point.GetEpoch(), Index: point.GetRevision()},
		}}})
	}
	if !d.heard {
		d.heard = true
		ahead, err := d.ahead(ctx, point)
		if err != nil {
			return err
		}
		if ahead {
			// The log knows whether this server is late, or the zone has what was never sent; what is sent to it next would
			// cover that up.
			return acknowledge(ctx)
		}
	}
	return d.settle.soon(ctx, settleAfter, acknowledge)
}

// ahead reports whether the zone says that it has more of this epoch than this server knows of.
func (d *desired) ahead(ctx context.Context, point *linkv1.StateAckPoint) (ahead bool, err error) {
	err = d.hub.view(ctx, func(tx *state.Tx) error {
		m := tx.Meta()
		ahead = point.GetEpoch() == m.Epoch && point.GetRevision() > m.Revision
		return nil
	})
	return ahead, err
}

// observed takes what a zone observed, as the link's state upwards.
type observed struct{ *session }

func (o *observed) Point(ctx context.Context) (*linkv1.StateAckPoint, error) {
	p := &linkv1.StateAckPoint{}
	err := o.hub.view(ctx, func(tx *state.Tx) (err error) {
		p.Incarnation, p.Revision, err = tx.ObservedPoint(o.zone.GetId())
		return err
	})
	return p, err
}

func (o *observed) Commit(ctx context.Context, chunk *linkv1.StateChunk) error {
	if err := o.allowance.wait(ctx, need{bytes: proto.Size(chunk)}); err != nil {
		return err
	}
	return gap(o.hub.propose(ctx, &commandv1.Command{Body: &commandv1.Command_Observe{
		Observe: &commandv1.Observe{ZoneId: o.zone.GetId(), Chunk: chunk},
	}}))
}

// settleAfter is how long an acknowledgement may wait to be written with those that follow it.
const settleAfter = 2 * time.Second
