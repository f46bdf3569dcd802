// Package witness is a zone's part in the control plane's audit log: it countersigns each state of the log that it is shown and that
// leads on from all that it has seen, and remembers it in the zone's store. A log that was forked or cut short is not countersigned,
// and people are told in the zone and in the control plane.
package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

const (
	// patience is how often the zone may be shown the log without the proof that it asks for, before it objects.
	patience = 10
	// maxLost states that a restored control plane has forgotten are remembered.
	maxLost = 16
	// maxMessage is in bytes (proto: max_len in characters).
	maxMessage = 1024
)

// Store is where the zone remembers. etcdstore.Store is one.
type Store interface {
	Witness(ctx context.Context) (*zonev1.Witness, error)
	PutWitness(ctx context.Context, own *etcdstore.Ownership, w *zonev1.Witness, entries ...*linkv1.JournalEntry) error
}

// Picture is what the zone is shown. etcdstore.Picture is one.
type Picture interface {
	Nouns(kind string, fn func(desired, observed proto.Message))
}

// Config is what a witness is made of. Every field but Registerer must be set.
type Config struct {
	Store   Store
	Picture Picture
	ZoneID  string
	// Federation and the zone's name make the name under which it signs; Seed is of the key.
	Federation string
	Seed       []byte
	Now        func() time.Time
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Witness countersigns while this agent owns the zone's link. It is used by one goroutine.
type Witness struct {
	Config
	size, objects prometheus.Gauge

	// Of the ownership: what is remembered, what was judged last, and how often the proof was not the one asked for.
	own      *etcdstore.Ownership
	state    *zonev1.Witness
	judged   *linkv1.Checkpoint
	unproven int
}

// New returns one that has looked at nothing yet.
func New(c Config) *Witness {
	return &Witness{
		Config: c,
		size: promauto.With(c.Registerer).NewGauge(prometheus.GaugeOpts{
			Name: "naru_witness_entries", Help: "Entries of the control plane's audit log that the zone has countersigned, where this agent owns the link.",
		}),
		objects: promauto.With(c.Registerer).NewGauge(prometheus.GaugeOpts{
			Name: "naru_witness_objects", Help: "1 while the zone does not countersign the control plane's audit log as it was last shown to it.",
		}),
	}
}

// Look judges what the zone is shown, if that is new.
func (w *Witness) Look(ctx context.Context, own *etcdstore.Ownership) error {
	if w.own != own || w.state == nil {
		state, err := w.Store.Witness(ctx)
		if err != nil {
			return fmt.Errorf("read what is known of the audit log: %w", err)
		}
		w.own, w.state, w.judged, w.unproven = own, state, nil, 0
	}
	defer w.measure()
	zone, shown := w.shown()
	if zone == "" || shown == nil || proto.Equal(shown, w.judged) {
		return nil
	}
	if len(w.Seed) != audit.SeedSize {
		return errors.New("the zone has no key with which to countersign the audit log: its first agent was of an older version; found it anew")
	}
	is, entries, err := w.judge(zone, shown)
	if err != nil {
		return err
	}
	if len(entries) > 0 || !proto.Equal(is, w.state) {
		if err := w.Store.PutWitness(ctx, own, is, entries...); err != nil {
			w.state = nil // it may have been written
			return fmt.Errorf("write what is known of the audit log: %w", err)
		}
	}
	w.state, w.judged = is, shown
	return nil
}

// Objection is why the zone does not countersign the log as it was last shown to it; nil where it does.
func (w *Witness) Objection() *apiv1.AuditObjection {
	if w.state.GetObjection() == nil {
		return nil
	}
	return proto.CloneOf(w.state.GetObjection())
}

func (w *Witness) measure() {
	w.size.Set(float64(w.state.GetSeen().GetSize()))
	w.objects.Set(0)
	if w.state.GetObjection() != nil {
		w.objects.Set(1)
	}
}

// shown is the zone's name, and the state of the log that it is shown.
func (w *Witness) shown() (zone string, shown *linkv1.Checkpoint) {
	w.Picture.Nouns("zone", func(desired, _ proto.Message) {
		if z := desired.(*apiv1.Zone); z.GetId() == w.ZoneID {
			zone = z.GetName()
		}
	})
	w.Picture.Nouns("checkpoint", func(desired, _ proto.Message) { shown = desired.(*linkv1.Checkpoint) })
	return zone, shown
}

// judge says what is remembered from now on, and what is said of it.
func (w *Witness) judge(zone string, shown *linkv1.Checkpoint) (is *zonev1.Witness, said []*linkv1.JournalEntry, err error) {
	is = proto.CloneOf(w.state)
	seen, err := seenOf(is)
	if err != nil {
		return nil, nil, fmt.Errorf("what is remembered of the audit log cannot be read: %w", err)
	}
	c, verdict, from, err := audit.Judge(seen, offerOf(shown))
	var objection *audit.Objection
	switch {
	case errors.As(err, &objection):
		w.unproven = 0
		return is, w.object(is, objection), nil
	case err != nil:
		return nil, nil, err
	case verdict == audit.Unproven:
		said = append(said, entryOf(asked(is, from.Size)))
		if w.unproven++; w.unproven >= patience {
			said = append(said, w.object(is, &audit.Objection{Reason: audit.NoProof, Message: fmt.Sprintf(
				"it was shown %d times without proof that it leads on from the %d entries that were countersigned", w.unproven, from.Size)})...)
		}
		return is, said, nil
	}
	w.unproven = 0
	if is.GetObjection() != nil {
		is.Objection = nil
		said = append(said, w.event(apiv1.Event_INFO, "zone.audit-agreed", "the zone has no objection to the control plane's audit log any more"))
	}
	if verdict == audit.Known {
		return is, said, nil
	}
	if verdict == audit.Restored {
		said = append(said, w.event(apiv1.Event_WARNING, "zone.audit-restored", fmt.Sprintf(
			"the control plane was restored: of the %d entries of its audit log that the zone had countersigned, it has lost the newest; what was countersigned is kept", seen.Newest.Size)))
		w.Log.Warn("the control plane was restored, and has lost entries of its audit log", "countersigned", seen.Newest.Size, "epoch", seen.Newest.Epoch, "now", c.Size)
	}
	name := audit.WitnessName(w.Federation, zone)
	line, err := audit.Countersign(shown.GetNote(), name, w.Seed, w.Now())
	if err != nil {
		return nil, nil, fmt.Errorf("countersign the audit log: %w", err)
	}
	remember(is, verdict, shown)
	is.Keys = shown.GetKeys()
	is.Seen = &linkv1.Countersignature{
		Note: shown.GetNote(), Size: c.Size, Root: c.Root[:], Epoch: c.Epoch, Key: audit.WitnessKey(name, w.Seed), Line: line,
	}
	return is, append(said, entryOf(proto.CloneOf(is.GetSeen()))), nil
}

// remember puts what was seen last with what was seen before, or with what is lost.
func remember(is *zonev1.Witness, verdict audit.Verdict, shown *linkv1.Checkpoint) {
	switch {
	case is.GetSeen() == nil:
	case verdict == audit.Restored:
		is.Lost = append(is.Lost, is.GetSeen())
		is.Lost = is.Lost[max(0, len(is.Lost)-maxLost):]
		is.Earlier = slices.DeleteFunc(is.Earlier, func(s *linkv1.Countersignature) bool { return s.GetSize() > shown.GetAfter() })
	default:
		is.Earlier = append(is.Earlier, is.GetSeen())
		var sizes []uint64
		for _, s := range is.GetEarlier() {
			sizes = append(sizes, s.GetSize())
		}
		keep, i := audit.Thin(sizes, is.GetSeen().GetSize()+1), -1
		is.Earlier = slices.DeleteFunc(is.Earlier, func(*linkv1.Countersignature) bool { i++; return !keep[i] })
	}
}

// asked is what the zone has countersigned at a size, with the word that the proof is to begin there.
func asked(is *zonev1.Witness, size uint64) *linkv1.Countersignature {
	all := append(slices.Clone(is.GetEarlier()), is.GetSeen())
	at := slices.IndexFunc(all, func(s *linkv1.Countersignature) bool { return s.GetSize() == size })
	s := proto.CloneOf(all[at])
	s.Unproven = true
	return s
}

// object notes why the zone does not countersign, and tells of it when that is news.
func (w *Witness) object(is *zonev1.Witness, o *audit.Objection) []*linkv1.JournalEntry {
	if is.GetObjection().GetReason() == o.Reason {
		return nil
	}
	message := o.Message
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	is.Objection = &apiv1.AuditObjection{Reason: o.Reason, Message: message, Since: timestamppb.New(w.Now())}
	w.Log.Error("the zone does not countersign the control plane's audit log", "reason", o.Reason, "why", message,
		"next", "find out whether another control plane speaks to the zone, and compare with exports that were kept")
	return []*linkv1.JournalEntry{w.event(apiv1.Event_ERROR, "zone.audit-refused", "the zone does not countersign the control plane's audit log ("+o.Reason+"): "+message)}
}

func (w *Witness) event(severity apiv1.Event_Severity, kind, message string) *linkv1.JournalEntry {
	now := timestamppb.New(w.Now())
	return &linkv1.JournalEntry{Time: now, Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{
		Id: uuid.Must(uuid.NewV7()).String(), Time: now, Severity: severity, Type: kind, Message: message,
	}}}
}

func entryOf(s *linkv1.Countersignature) *linkv1.JournalEntry {
	return &linkv1.JournalEntry{Body: &linkv1.JournalEntry_Countersignature{Countersignature: s}}
}

func seenOf(is *zonev1.Witness) (seen audit.Seen, err error) {
	if is.GetSeen() == nil {
		return seen, nil
	}
	seen.Keys = is.GetKeys()
	for _, s := range is.GetEarlier() {
		c, err := audit.Read(s.GetNote())
		if err != nil {
			return seen, err
		}
		seen.Earlier = append(seen.Earlier, c)
	}
	seen.Newest, err = audit.Read(is.GetSeen().GetNote())
	return seen, err
}

// offerOf reads what is shown. A hash of another length makes a proof that proves nothing.
func offerOf(shown *linkv1.Checkpoint) audit.Offer {
	o := audit.Offer{Note: shown.GetNote(), Keys: shown.GetKeys(), After: shown.GetAfter(), Proof: hashes(shown.GetProof())}
	if b := shown.GetBegun(); b != nil {
		o.Begun, o.BegunProof = b.GetLeaf(), hashes(b.GetProof())
	}
	return o
}

func hashes(all [][]byte) (out []tlog.Hash) {
	for _, b := range all {
		var h tlog.Hash
		copy(h[:], b)
		out = append(out, h)
	}
	return out
}
