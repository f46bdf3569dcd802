package etcdstore

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// TestWhatTheZoneRemembersOfTheAuditLogIsWrittenWithWhatItSays, by the owner of the link alone, and outlives the agent.
func TestWhatTheZoneRemembersOfTheAuditLogIsWrittenWithWhatItSays(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	a := z.open(c)
	own := a.own(UplinkName)
	if w := must(a.Witness(t.Context())); !proto.Equal(w, &zonev1.Witness{}) {
		t.Errorf("before anything was seen %v is remembered", w)
	}
	s := &linkv1.Countersignature{Note: "note", Size: 5, Root: make([]byte, 32), Epoch: 7, Key: "key", Line: "line"}
	want := &zonev1.Witness{Seen: s, Keys: []string{"k"}}
	entry := &linkv1.JournalEntry{Body: &linkv1.JournalEntry_Countersignature{Countersignature: s}}
	if err := a.PutWitness(t.Context(), own, want, entry); err != nil {
		t.Fatal(err)
	}
	incarnation, _ := a.Incarnation()
	b := must(a.JournalSource(own).After(t.Context(), &linkv1.JournalPoint{Origin: incarnation.GetId(), Stream: "zone"}, 10))
	if len(b.GetEntries()) != 1 || !proto.Equal(b.GetEntries()[0].GetCountersignature(), s) {
		t.Errorf("the journal has %v", b)
	}
	if err := own.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.PutWitness(t.Context(), own, &zonev1.Witness{}); err == nil {
		t.Error("who does not own the link any more can make the zone forget")
	}
	a.close()
	if w := must(z.open(c).Witness(t.Context())); !proto.Equal(w, want) {
		t.Errorf("after a restart %v is remembered", w)
	}
}

func TestTheZoneIsShownTheNewestStateOfTheLogAndNoOlder(t *testing.T) {
	a := newZone(t).one()
	sink := a.DesiredSink(a.own(UplinkName))
	show := func(after, through, epoch, index uint64, note string) {
		t.Helper()
		if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 9, After: after, Through: through, Full: after == 0, End: true, Objects: []*linkv1.Object{
			{Revision: through, Noun: &linkv1.Object_Checkpoint{Checkpoint: &linkv1.Checkpoint{
				Id: "audit", Note: note, Generation: &apiv1.Generation{Epoch: epoch, Index: index}}}},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	show(0, 4, 9, 4, "four")
	show(4, 6, 9, 6, "six")
	show(6, 7, 8, 9, "of the epoch before")
	shown := func() (note string) {
		a.Picture().Nouns("checkpoint", func(desired, _ proto.Message) { note = desired.(*linkv1.Checkpoint).GetNote() })
		return note
	}
	eventually(t, "the picture has it", func() bool { return shown() != "" && shown() != "four" })
	if shown() != "six" {
		t.Errorf("it is shown %q", shown())
	}
	// A full sync that does not name it says nothing of it.
	if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 10, Through: 9, Full: true, End: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Get(t.Context(), Unclaimed, "checkpoint", "audit"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is unclaimed: %v", err)
	}
}
