package zonehub_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/controlplane/internal/zonehub"
	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// TestAZoneIsShownTheLogAndItsCountersignatureIsCheckedBeforeItIsProposed, through a broker.
func TestAZoneIsShownTheLogAndItsCountersignatureIsCheckedBeforeItIsProposed(t *testing.T) {
	s := newSite(t)
	private, public, err := audit.NewKey(audit.Origin("naru.test"))
	if err != nil {
		t.Fatal(err)
	}
	s.Do(&commandv1.Command{Body: &commandv1.Command_AddAuditKey{AddAuditKey: &commandv1.AddAuditKey{
		Key: &commandv1.AuditKey{PublicKey: public, SealedKey: []byte("sealed")}}}})
	a := s.agent(s.Zone("business"), "agent-1").start()
	s.eventually("a session", s.connected)
	c := audit.Checkpoint{Origin: audit.Origin("naru.test"), Epoch: s.epoch(), Time: time.Now().UTC().Truncate(time.Second)}
	err = s.DB.View(t.Context(), func(tx *state.Tx) (err error) {
		if c.Size, err = tx.AuditSize(); err == nil {
			c.Root, err = tx.AuditRoot(c.Size)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	note, err := audit.Sign(c, private)
	if err != nil {
		t.Fatal(err)
	}
	s.Do(&commandv1.Command{Body: &commandv1.Command_SignAudit{SignAudit: &commandv1.SignAudit{Checkpoint: &apiv1.AuditCheckpoint{
		Size: strconv.FormatUint(c.Size, 10), Root: c.Root[:], Time: timestamppb.New(c.Time), Note: note}}}})
	s.Do(&commandv1.Command{Body: &commandv1.Command_OfferAudit{OfferAudit: &commandv1.OfferAudit{ZoneIds: []string{s.Zone("business").GetId()}}}})
	var shown *linkv1.Checkpoint
	s.eventually("it is shown the log", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		shown = a.shown
		return shown != nil
	})
	if shown.GetNote() != note || len(shown.GetKeys()) != 1 || shown.GetKeys()[0] != public {
		t.Fatalf("it is shown %v", shown)
	}
	seed, name := bytes.Repeat([]byte{1}, audit.SeedSize), audit.WitnessName("naru.test", "business")
	line, err := audit.Countersign(note, name, seed, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	good := &linkv1.Countersignature{Note: note, Size: c.Size, Root: c.Root[:], Epoch: c.Epoch, Key: audit.WitnessKey(name, seed), Line: line}
	forged, other := proto.CloneOf(good), proto.CloneOf(good)
	forged.Note = strings.Replace(note, "\n"+strconv.FormatUint(c.Size, 10)+"\n", "\n1\n", 1)
	other.Size++
	for _, bad := range []*linkv1.Countersignature{forged, other} {
		a.countersign(bad)
	}
	a.countersign(good)
	s.eventually("what the zone has signed is taken", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.acked == 3
	})
	err = s.DB.View(t.Context(), func(tx *state.Tx) error {
		w, err := tx.Witness(s.Zone("business").GetId())
		if err != nil || w.GetSize() != strconv.FormatUint(c.Size, 10) || w.GetNote() != note+line {
			t.Errorf("it is known as %v, %v", w, err)
		}
		refused, err := tx.Rejected(state.Journal{ZoneID: s.Zone("business").GetId(), Origin: "i1", Stream: "zone"}, 1, 3)
		if len(refused) != 2 || !strings.Contains(refused[0].GetReason(), "is not good") || !strings.Contains(refused[1].GetReason(), "beside the note") {
			t.Errorf("refused %v", refused)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestP15ManyCountersignaturesAreMadeToWait: each costs the checking of signatures.
func TestP15ManyCountersignaturesAreMadeToWait(t *testing.T) {
	s := newSite(t)
	s.stopHub()
	s.budget.Entries = zonehub.Pace{PerSecond: 1, Burst: 1000}
	s.budget.Tell = time.Millisecond
	s.startHub()
	a := s.agent(s.Zone("business"), "agent-1").start()
	s.eventually("a session", s.connected)
	more := func() {
		for range 10 {
			a.countersign(&linkv1.Countersignature{Note: "note", Size: 1, Root: make([]byte, 32), Epoch: 1, Key: "key", Line: "line"})
		}
	}
	more()
	s.eventually("the first are heard", func() bool { return a.heard() > 0 })
	more()
	s.eventually("people are told", func() bool { return s.condition("business", "SLOWED").GetReason() == "ENTRIES" })
}

// TestALineOfAZonesOwnLogIsCheckedBeforeItIsProposed: its form, and who has signed it.
func TestALineOfAZonesOwnLogIsCheckedBeforeItIsProposed(t *testing.T) {
	s := newSite(t)
	zone := s.Zone("business")
	a := s.agent(zone, "agent-1").start()
	s.eventually("a session", s.connected)
	seed := bytes.Repeat([]byte{1}, audit.SeedSize)
	line := func(seed []byte, change func(*apiv1.AuditEntry)) *linkv1.LocalEntry {
		m := &apiv1.AuditEntry{Sequence: "0", Time: timestamppb.Now(), Actor: "user:kim", Action: "vm.start", Zone: "business", ZoneId: zone.GetId()}
		change(m)
		leaf, log := must(audit.Leaf(m)), audit.Growing{}
		if err := log.Append(leaf); err != nil {
			t.Fatal(err)
		}
		note := must(audit.SignLocal(audit.Checkpoint{Origin: audit.LocalOrigin("naru.test", "business", "i1"), Size: 1, Root: must(log.Root()),
			Time: time.Now().UTC().Truncate(time.Second)}, seed))
		return &linkv1.LocalEntry{Leaf: leaf, Note: note, Key: audit.WitnessKey(audit.WitnessName("naru.test", "business"), seed)}
	}
	as := func(*apiv1.AuditEntry) {}
	good := line(seed, as)
	forged, strange := line(bytes.Repeat([]byte{2}, audit.SeedSize), as), line(seed, as)
	forged.Key = good.GetKey()
	strange.Leaf = append(bytes.Clone(good.GetLeaf()), 0xfa, 0x7f, 1, 'x') // a field that nobody knows
	long := line(seed, func(m *apiv1.AuditEntry) { m.Action = strings.Repeat("x", 65) })
	for _, e := range []*linkv1.LocalEntry{forged, strange, long, good} {
		a.write(e)
	}
	s.eventually("what the zone has written is taken", func() bool { return a.heard() == 4 })
	err := s.DB.View(t.Context(), func(tx *state.Tx) error {
		l, err := tx.ZoneLog("business/1")
		if err != nil || l.Size != 1 || l.GetCheckpoint().GetNote() != good.GetNote() {
			t.Errorf("it is known as %v, %v", l, err)
		}
		refused, err := tx.Rejected(state.Journal{ZoneID: zone.GetId(), Origin: "i1", Stream: "zone"}, 1, 4)
		if len(refused) != 3 || !strings.Contains(refused[0].GetReason(), "is not good") || !strings.Contains(refused[1].GetReason(), "the one form") ||
			!strings.Contains(refused[2].GetReason(), "action") {
			t.Errorf("refused %v", refused)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestP15ALogThatFloodsIsMadeToWait: it is kept for ever.
func TestP15ALogThatFloodsIsMadeToWait(t *testing.T) {
	s := newSite(t)
	s.stopHub()
	s.budget.Log = zonehub.Pace{PerSecond: 1, Burst: 256}
	s.budget.Tell = time.Millisecond
	s.startHub()
	a := s.agent(s.Zone("business"), "agent-1").start()
	s.eventually("a session", s.connected)
	more := func() {
		for range 300 {
			a.write(&linkv1.LocalEntry{Leaf: []byte("leaf"), Note: "note", Key: "key"})
		}
	}
	more()
	s.eventually("the first are heard", func() bool { return a.heard() > 0 })
	more()
	s.eventually("people are told", func() bool { return s.condition("business", "SLOWED").GetReason() == "LOG" })
}
