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
