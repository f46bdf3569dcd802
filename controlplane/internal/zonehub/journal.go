package zonehub

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/audit"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// results takes a zone's journals up: results, usage, events, what it has signed.
type results struct{ *session }

func (r *results) Points(ctx context.Context) (points []*linkv1.JournalPoint, err error) {
	err = r.hub.view(ctx, func(tx *state.Tx) (err error) {
		points, err = tx.JournalPoints(r.zone.GetId())
		return err
	})
	return points, err
}

func (r *results) Commit(ctx context.Context, batch *linkv1.JournalBatch) (*linkv1.JournalAck, error) {
	if err := r.allowance.wait(ctx, needOf(batch)); err != nil {
		return nil, err
	}
	refused, err := r.unsigned(ctx, batch)
	if err != nil {
		return nil, err
	}
	err = r.hub.propose(ctx, &commandv1.Command{Body: &commandv1.Command_AppendJournal{
		AppendJournal: &commandv1.AppendJournal{ZoneId: r.zone.GetId(), Batch: batch, Refused: refused},
	}})
	if err != nil {
		return nil, gap(err)
	}
	entries := batch.GetEntries()
	return r.acknowledge(ctx, batch.GetOrigin(), batch.GetStream(), entries[0].GetSequence(), entries[len(entries)-1].GetSequence())
}

// unsigned are the countersignatures of a batch, and the entries of the zone's own log, that are not what they say: the state machine,
// which interprets nothing, is told.
func (r *results) unsigned(ctx context.Context, batch *linkv1.JournalBatch) (refused []*commandv1.AppendJournal_Refused, err error) {
	var keys []string
	for _, e := range batch.GetEntries() {
		what, bad := "", error(nil)
		switch b := e.GetBody().(type) {
		case *linkv1.JournalEntry_Countersignature:
			if keys == nil {
				if keys, err = r.auditKeys(ctx); err != nil {
					return nil, err
				}
			}
			what, bad = "the countersignature", countersigned(b.Countersignature, keys)
		case *linkv1.JournalEntry_LocalEntry:
			what, bad = "an entry of the zone's own log", written(b.LocalEntry)
		}
		if bad != nil {
			r.hub.Log.Warn("what a zone has signed is not good", "zone", r.zone.GetName(), "what", what, "error", bad)
			refused = append(refused, &commandv1.AppendJournal_Refused{Sequence: e.GetSequence(), Reason: shortened(what + " is not good: " + bad.Error())})
		}
	}
	return refused, nil
}

// shortened is a reason as an acknowledgement can carry it back to the zone (proto: max_len): it may name what the zone has written.
func shortened(reason string) string {
	return strings.ToValidUTF8(reason[:min(len(reason), 1000)], "")
}

// countersigned finds out whether a countersignature of the log, of which keys are given, is what it says.
func countersigned(s *linkv1.Countersignature, keys []string) error {
	says, err := audit.Countersigned(s.GetNote(), s.GetLine(), s.GetKey(), keys)
	if err == nil && (says.Size != s.GetSize() || says.Epoch != s.GetEpoch() || string(says.Root[:]) != string(s.GetRoot())) {
		err = errors.New("what stands beside the note is not what it says")
	}
	return err
}

// written finds out whether an entry of a zone's own log is one, and its key has signed the note.
func written(e *linkv1.LocalEntry) error {
	entry, err := audit.ReadLeaf(e.GetLeaf())
	if err == nil {
		err = schema.Validate(entry)
	}
	if err == nil {
		_, err = audit.OpenLocal(e.GetNote(), e.GetKey())
	}
	return err
}

// auditKeys are the keys of the audit log.
func (r *results) auditKeys(ctx context.Context) (keys []string, err error) {
	err = r.hub.view(ctx, func(tx *state.Tx) error {
		ring, err := tx.Keyring()
		keys = []string{}
		for _, k := range ring.GetAuditKeys() {
			keys = append(keys, k.GetPublicKey())
		}
		return err
	})
	return keys, err
}

func (r *results) Withheld(ctx context.Context, w *linkv1.Withheld) (*linkv1.JournalAck, error) {
	if err := r.allowance.wait(ctx, need{entries: 1, bytes: proto.Size(w)}); err != nil {
		return nil, err
	}
	err := r.hub.propose(ctx, &commandv1.Command{Body: &commandv1.Command_ConsumeWithheld{
		ConsumeWithheld: &commandv1.ConsumeWithheld{ZoneId: r.zone.GetId(), Withheld: w},
	}})
	if err != nil {
		return nil, gap(err)
	}
	e := w.GetEntry()
	return r.acknowledge(ctx, e.GetOrigin(), e.GetStream(), e.GetSequence(), e.GetSequence())
}

// acknowledge tells where the journal stands now, and which of the entries just consumed were not accepted.
func (r *results) acknowledge(ctx context.Context, origin, stream string, from, through uint64) (*linkv1.JournalAck, error) {
	j := state.Journal{ZoneID: r.zone.GetId(), Origin: origin, Stream: stream}
	ack := &linkv1.JournalAck{}
	err := r.hub.view(ctx, func(tx *state.Tx) error {
		at, _, err := tx.JournalPoint(j)
		if err != nil {
			return err
		}
		covered, err := tx.JournalCovered(j)
		if err != nil {
			return err
		}
		ack.Points = []*linkv1.JournalPoint{{Origin: origin, Stream: stream, Sequence: at, Covered: covered}}
		ack.Rejected, err = tx.Rejected(j, from, through)
		return err
	})
	return ack, err
}

// orders is the journal down to a zone.
type orders struct {
	*session
	changes lazyWatch
}

func newOrders(s *session) *orders {
	return &orders{session: s, changes: lazyWatch{reader: s.hub.Reader, topic: state.ForZone(state.TopicOrders, s.zone.GetId())}}
}

func (o *orders) close() { o.changes.close() }

func (o *orders) Pending(ctx context.Context) (points []*linkv1.JournalPoint, err error) {
	err = o.hub.view(ctx, func(tx *state.Tx) (err error) {
		points, err = tx.OrderJournals(o.zone.GetId())
		return err
	})
	return points, err
}

func (o *orders) After(ctx context.Context, p *linkv1.JournalPoint, max int) (batch *linkv1.JournalBatch, err error) {
	err = o.hub.view(ctx, func(tx *state.Tx) (err error) {
		batch, err = tx.OrdersAfter(o.zone.GetId(), p.GetOrigin(), p.GetStream(), p.GetSequence(), max)
		return err
	})
	return batch, err
}

func (o *orders) Changed() <-chan struct{} { return o.changes.c() }

// Acknowledged drops what the zone has. A point that says nothing new is not proposed.
func (o *orders) Acknowledged(ctx context.Context, ack *linkv1.JournalAck) error {
	pending, err := o.Pending(ctx)
	if err != nil {
		return err
	}
	news := len(ack.GetRejected()) > 0
	for _, p := range ack.GetPoints() {
		for _, q := range pending {
			news = news || (q.GetOrigin() == p.GetOrigin() && q.GetStream() == p.GetStream() && q.GetSequence() < p.GetSequence())
		}
	}
	if !news {
		return nil
	}
	if err := o.allowance.wait(ctx, need{bytes: proto.Size(ack)}); err != nil {
		return err
	}
	return o.hub.propose(ctx, &commandv1.Command{Body: &commandv1.Command_AcknowledgeJournal{
		AcknowledgeJournal: &commandv1.AcknowledgeJournal{ZoneId: o.zone.GetId(), Ack: ack},
	}})
}

// gap lets the link know that the other end has to begin elsewhere: the state machine refuses what does not follow on what
// it has with CONFLICT.
func gap(err error) error {
	if problem.Is(err, problem.Conflict) {
		return errors.Join(link.ErrGap, err)
	}
	return err
}
