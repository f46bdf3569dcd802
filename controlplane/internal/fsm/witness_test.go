package fsm_test

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// notary is a plane whose log is signed, and a zone that countersigns it as an honest one does.
type notary struct {
	*plane
	private, public string
	seed            []byte
	seen            audit.Seen
	said            []*linkv1.Countersignature
	sequence        uint64
}

func newNotary(t tb) *notary {
	n := &notary{plane: furnished(t), seed: bytes.Repeat([]byte{1}, audit.SeedSize)}
	var err error
	if n.private, n.public, err = audit.NewKey(audit.Origin("example.test")); err != nil {
		t.Fatal(err)
	}
	n.accept(&commandv1.Command{Actor: "audit", Body: &commandv1.Command_AddAuditKey{AddAuditKey: &commandv1.AddAuditKey{
		Key: &commandv1.AuditKey{PublicKey: n.public, SealedKey: []byte("sealed")}}}})
	n.accept(session(1, true))
	return n
}

// sign signs the log as it is.
func (n *notary) sign() (size uint64) {
	n.Helper()
	c := audit.Checkpoint{Origin: audit.Origin("example.test"), Time: n.now}
	n.view(func(tx *state.Tx) {
		var err error
		if c.Size, err = tx.AuditSize(); err != nil {
			n.Fatal(err)
		}
		if c.Root, err = tx.AuditRoot(c.Size); err != nil {
			n.Fatal(err)
		}
		c.Epoch = tx.Meta().Epoch
	})
	note, err := audit.Sign(c, n.private)
	if err != nil {
		n.Fatal(err)
	}
	n.accept(&commandv1.Command{Actor: "audit", Body: &commandv1.Command_SignAudit{SignAudit: &commandv1.SignAudit{Checkpoint: &apiv1.AuditCheckpoint{
		Size: strconv.FormatUint(c.Size, 10), Root: c.Root[:], Time: timestamppb.New(c.Time), Note: note}}}})
	return c.Size
}

// offer shows the zone the newest checkpoint, a minute later.
func (n *notary) offer(zones ...string) {
	n.Helper()
	n.now = n.now.Add(time.Minute)
	n.accept(&commandv1.Command{Actor: "audit", Body: &commandv1.Command_OfferAudit{OfferAudit: &commandv1.OfferAudit{ZoneIds: append(zones, "z-business")}}})
}

// shown is what goes down to the zone.
func (n *notary) shown() (c *linkv1.Checkpoint) {
	n.Helper()
	for _, o := range n.desired(0) {
		if o.GetCheckpoint() != nil {
			c = o.GetCheckpoint()
		}
	}
	return c
}

// judge has the zone look at what it is shown, and say what comes of it.
func (n *notary) judge() audit.Verdict {
	n.Helper()
	shown := n.shown()
	o := audit.Offer{Note: shown.GetNote(), Keys: shown.GetKeys(), After: shown.GetAfter(), Proof: hashesOf(shown.GetProof())}
	if shown.GetBegun() != nil {
		o.Begun, o.BegunProof = shown.GetBegun().GetLeaf(), hashesOf(shown.GetBegun().GetProof())
	}
	c, verdict, from, err := audit.Judge(n.seen, o)
	if err != nil {
		n.Fatal(err)
	}
	switch verdict {
	case audit.Follows, audit.Restored:
		if n.seen.Newest.Size > 0 && verdict == audit.Follows {
			n.seen.Earlier = append(n.seen.Earlier, n.seen.Newest)
		}
		n.seen.Newest, n.seen.Keys = c, shown.GetKeys()
		n.say(n.countersign(c, shown.GetNote()))
	case audit.Unproven:
		at := slices.IndexFunc(n.said, func(s *linkv1.Countersignature) bool { return s.GetSize() == from.Size })
		s := proto.CloneOf(n.said[at])
		s.Unproven = true
		n.say(s)
	}
	return verdict
}

func hashesOf(all [][]byte) (out []tlog.Hash) {
	for _, b := range all {
		out = append(out, tlog.Hash(b))
	}
	return out
}

func (n *notary) countersign(c audit.Checkpoint, note string) *linkv1.Countersignature {
	n.Helper()
	name := audit.WitnessName("example.test", "business")
	line, err := audit.Countersign(note, name, n.seed, n.now)
	if err != nil {
		n.Fatal(err)
	}
	return &linkv1.Countersignature{Note: note, Size: c.Size, Root: c.Root[:], Epoch: c.Epoch, Key: audit.WitnessKey(name, n.seed), Line: line}
}

func (n *notary) say(s *linkv1.Countersignature) {
	n.Helper()
	n.said, n.sequence = append(n.said, s), n.sequence+1
	n.accept(n.journal(s))
}

func (n *notary) journal(s *linkv1.Countersignature) *commandv1.Command {
	return journal("inc-1", "zone", &linkv1.JournalEntry{Sequence: n.sequence, Time: timestamppb.New(n.now),
		Body: &linkv1.JournalEntry_Countersignature{Countersignature: s}})
}

func (n *notary) witness() (w state.Witness) {
	n.Helper()
	n.view(func(tx *state.Tx) {
		var err error
		if w, err = tx.Witness("z-business"); err != nil {
			n.Fatal(err)
		}
	})
	return w
}

// grow makes the log longer.
func (n *notary) grow(entries int) {
	n.Helper()
	for range entries {
		n.made++
		id := fmt.Sprintf("f-more-%d", n.made)
		n.accept(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{
			Id: id, Name: id, Cores: 1, MemoryMib: 96, DiskGib: 1}}}})
	}
}

// round signs the log, shows it, and has it countersigned.
func (n *notary) round(want audit.Verdict) (size uint64) {
	n.Helper()
	size = n.sign()
	n.offer()
	if got := n.judge(); got != want {
		n.Fatalf("at %d entries the zone says %v", size, got)
	}
	return size
}

func TestWhatAZoneCountersignsIsKeptWithTheCheckpoint(t *testing.T) {
	n := newNotary(t)
	for range 4 {
		n.grow(3)
		size := n.round(audit.Follows)
		w := n.witness()
		if w.GetSize() != strconv.FormatUint(size, 10) || w.Base != size || w.GetTime() == nil || len(w.GetKeys()) != 1 {
			t.Fatalf("after %d entries %+v", size, w)
		}
		n.view(func(tx *state.Tx) {
			c, err := tx.CheckpointOf(size)
			if err != nil {
				t.Fatal(err)
			}
			says, signers, err := audit.Open(c.GetNote(), []string{n.public, w.GetKeys()[0]})
			if err != nil || says.Size != size || !slices.Equal(signers, []string{"example.test/audit", "example.test/zone/business"}) {
				t.Errorf("%v has signed %q: %v", signers, c.GetNote(), err)
			}
		})
		if n.shown(); strings.Contains(n.shown().GetNote(), "zone/") {
			t.Error("a zone is shown who else has signed")
		}
	}
	if told := n.events()["audit.witness-key"]; told != 1 {
		t.Errorf("people were told of %d keys", told)
	}
	if got := n.recorded("audit.witness-key"); len(got) != 1 || !strings.Contains(got[0].GetMessage(), n.witness().GetKeys()[0]) || got[0].GetActor() != "zone:business" ||
		got[0].GetZone() != "business" || len(got[0].GetDigest()) != 32 {
		t.Errorf("the log has of the zone's key %v", got)
	}
	other := empty(t)
	if err := other.machine.Restore(bytes.NewReader(n.snapshot())); err != nil {
		t.Fatal(err)
	}
	if string(other.snapshot()) != string(n.snapshot()) {
		t.Error("a snapshot does not hold all of it")
	}
}

// TestCountersigningDoesNotKeepTheLogGrowing: an entry of it would make the next checkpoint due.
func TestCountersigningDoesNotKeepTheLogGrowing(t *testing.T) {
	n := newNotary(t)
	n.round(audit.Follows) // tells the zone's key
	size := n.sign()
	n.offer()
	n.judge()
	n.accept(&commandv1.Command{Body: &commandv1.Command_AcknowledgeDesired{AcknowledgeDesired: &commandv1.AcknowledgeDesired{
		ZoneId: "z-business", Through: &apiv1.Generation{Epoch: 7, Index: 3}}}})
	n.now = n.now.Add(time.Hour)
	n.accept(&commandv1.Command{Actor: "audit", Body: &commandv1.Command_OfferAudit{OfferAudit: &commandv1.OfferAudit{ZoneIds: []string{"z-business"}}}})
	n.view(func(tx *state.Tx) {
		if is, err := tx.AuditSize(); err != nil || is != size {
			t.Errorf("the log has grown from %d to %d, %v", size, is, err)
		}
		if r, err := tx.Reports("z-business"); err != nil || r.Count != 1 { // its session
			t.Errorf("%d reports wait for their entry, %v", r.Count, err)
		}
	})
}

// recorded are the entries of the log of an action.
func (n *notary) recorded(action string) (entries []*apiv1.AuditEntry) {
	n.Helper()
	for _, e := range n.audit(0) {
		if e.GetAction() == action {
			entries = append(entries, e)
		}
	}
	return entries
}

// TestAZoneWritesNothingOfItsOwnIntoTheLog: an event that it reports is its own, whatever it calls it.
func TestAZoneWritesNothingOfItsOwnIntoTheLog(t *testing.T) {
	n := newNotary(t)
	n.sequence++
	n.accept(journal("inc-1", "zone", &linkv1.JournalEntry{Sequence: n.sequence, Time: timestamppb.New(n.now), Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{
		Id: "e-1", Severity: apiv1.Event_ERROR, Type: "audit.lost", Message: "all of it", Target: &apiv1.Reference{Kind: "zone", Id: "z-business", Name: "business"}}}}))
	if got := n.recorded("audit.lost"); len(got) != 0 || n.events()["audit.lost"] != 1 {
		t.Errorf("the log has %v", got)
	}
}

// TestAClockThatWasAheadKeepsNoZoneFromCountersigning: for as long as it was ahead, once it has been set right.
func TestAClockThatWasAheadKeepsNoZoneFromCountersigning(t *testing.T) {
	n := newNotary(t)
	right := n.now
	n.now = n.now.Add(24 * time.Hour)
	n.round(audit.Follows)
	n.now = right
	n.grow(1)
	next := n.sign()
	if n.offer(); n.witness().Offered != next {
		t.Errorf("it is shown %d entries, of %d", n.witness().Offered, next)
	}
	n.grow(1)
	n.sign()
	if n.accept(&commandv1.Command{Actor: "audit", Body: &commandv1.Command_OfferAudit{OfferAudit: &commandv1.OfferAudit{ZoneIds: []string{"z-business"}}}}); n.witness().Offered != next {
		t.Error("within a minute it is shown another")
	}
}

func TestAZoneIsShownTheLogOnceAMinuteAndOnlyWhenItIsThere(t *testing.T) {
	n := newNotary(t)
	n.accept(createZone("internet")) // no agent of it has been let in
	size := n.sign()
	n.offer("z-internet", "z-none")
	first := n.shown()
	n.grow(1)
	next := n.sign()
	n.accept(&commandv1.Command{Actor: "audit", Body: &commandv1.Command_OfferAudit{OfferAudit: &commandv1.OfferAudit{ZoneIds: []string{"z-business"}}}})
	if !proto.Equal(n.shown(), first) || n.witness().Offered != size {
		t.Errorf("within a minute it was shown %v", n.shown())
	}
	n.offer()
	if n.witness().Offered != next {
		t.Errorf("a minute later it was shown %d entries, of %d", n.witness().Offered, next)
	}
	n.view(func(tx *state.Tx) {
		if all, err := tx.Witnesses(); err != nil || len(all) != 1 {
			t.Errorf("%d zones are shown the log, %v", len(all), err)
		}
	})
}

func TestACountersignatureThatIsNotTheZonesIsConsumedAndNotKept(t *testing.T) {
	n := newNotary(t)
	n.round(audit.Follows)
	before := n.witness()
	good := proto.CloneOf(n.said[0])
	foreign := proto.CloneOf(good)
	foreign.Key = audit.WitnessKey(audit.WitnessName("example.test", "internet"), n.seed)
	n.say(foreign)
	n.sequence++
	refused := n.journal(good)
	refused.GetAppendJournal().Refused = []*commandv1.AppendJournal_Refused{{Sequence: n.sequence, Reason: "it is not good"}}
	n.accept(refused)
	n.seed = bytes.Repeat([]byte{2}, audit.SeedSize)
	n.grow(1)
	n.round(audit.Follows) // the zone has another key
	n.say(good)            // and does not go back to the first
	if got := n.rejections("inc-1", "zone"); len(got) != 3 || !strings.Contains(got[0], "not named after the zone") || !strings.Contains(got[1], "it is not good") ||
		!strings.Contains(got[2], "has replaced") {
		t.Errorf("rejected %q", got)
	}
	if w := n.witness(); len(w.GetKeys()) != 2 || w.GetKeys()[0] != before.GetKeys()[0] || n.events()["audit.witness-key"] != 2 {
		t.Errorf("the keys are %v", w.GetKeys())
	}
	for i := range 20 {
		s := proto.CloneOf(good)
		s.Key = fmt.Sprintf("example.test/zone/business+%08x+x", i)
		n.say(s)
	}
	if w := n.witness(); len(w.GetKeys()) != 16 {
		t.Errorf("%d keys are kept", len(w.GetKeys()))
	}
}

// TestAnotherLogOfThisEpochThatAZoneHasCountersignedIsAFork: somebody else signs with the key of the control plane.
func TestAnotherLogOfThisEpochThatAZoneHasCountersignedIsAFork(t *testing.T) {
	n := newNotary(t)
	size := n.round(audit.Follows)
	forged := audit.Checkpoint{Origin: audit.Origin("example.test"), Size: size + 5, Epoch: 7, Time: n.now}
	note, err := audit.Sign(forged, n.private)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // told once
		n.say(n.countersign(forged, note))
	}
	w := n.witness()
	if w.GetSize() != strconv.FormatUint(size, 10) || w.Base != size || w.Restored || len(w.GetLost()) != 1 || !strings.HasPrefix(w.GetLost()[0], note) {
		t.Errorf("it is kept as %+v", w)
	}
	if e := n.events(); e["audit.forked"] != 1 || e["audit.lost"] != 0 {
		t.Errorf("people were told %v", e)
	}
	if got := n.recorded("audit.forked"); len(got) != 1 {
		t.Errorf("the log has of the fork %v", got)
	}
}

// TestARestoredControlPlaneSaysWhatItHasLost: the zone has countersigned more than the backup has, is asked nothing silently, and goes on
// from what the backup had.
func TestARestoredControlPlaneSaysWhatItHasLost(t *testing.T) {
	n := newNotary(t)
	for range 3 {
		n.grow(4)
		n.round(audit.Follows)
	}
	backup := n.snapshot()
	had := n.witness().Base
	for range 2 {
		n.grow(4)
		n.round(audit.Follows)
	}
	lost := n.said[len(n.said)-1]
	if err := n.machine.Restore(bytes.NewReader(backup)); err != nil {
		t.Fatal(err)
	}
	n.accept(beginEpoch(8))
	n.accept(session(2, true))
	n.round(audit.Unproven) // it asks for a proof from what is lost
	if w := n.witness(); !w.Restored || len(w.GetLost()) != 1 || w.GetLost()[0] != lost.GetNote()+lost.GetLine() {
		t.Fatalf("what is lost is known as %+v", w)
	}
	if n.shown().GetBegun() == nil {
		t.Fatal("the zone is not told at once that the log was restored")
	}
	if got := n.judge(); got != audit.Restored { // the backup knew what to lead on from
		t.Fatalf("the zone says %v", got)
	}
	size := n.seen.Newest.Size
	if w := n.witness(); w.Restored || w.Base != size || size <= had {
		t.Errorf("after that %+v", w)
	}
	n.grow(10)
	n.round(audit.Follows)
	if n.shown().GetBegun() != nil {
		t.Error("it is still told")
	}
	if e := n.events(); e["audit.lost"] != 1 || e["audit.forked"] != 0 {
		t.Errorf("people were told %v", e)
	}
}

// TestARestoreThatLostNothingIsNone: a quorum that was recovered, or a backup that had all that the zone has countersigned.
func TestARestoreThatLostNothingIsNone(t *testing.T) {
	n := newNotary(t)
	n.grow(4)
	n.round(audit.Follows)
	n.grow(4)
	backup := n.snapshot()
	n.round(audit.Follows) // the backup does not know of this one, and has all that it covers
	if err := n.machine.Restore(bytes.NewReader(backup)); err != nil {
		t.Fatal(err)
	}
	n.accept(beginEpoch(8))
	n.accept(session(2, true))
	n.round(audit.Unproven)
	if got := n.judge(); got != audit.Follows {
		t.Errorf("the zone says %v", got)
	}
	if w := n.witness(); w.Restored || len(w.GetLost()) > 0 || n.events()["audit.lost"] != 0 {
		t.Errorf("something is said to be lost: %+v", w)
	}
}

// TestAZoneWhoseStoreWasRestoredIsShownTheProofThatItNeeds.
func TestAZoneWhoseStoreWasRestoredIsShownTheProofThatItNeeds(t *testing.T) {
	n := newNotary(t)
	n.grow(2)
	n.round(audit.Follows)
	old := n.seen
	n.grow(5)
	newest := n.round(audit.Follows)
	n.seen = old
	n.grow(5)
	n.round(audit.Unproven)
	if w := n.witness(); w.GetSize() != strconv.FormatUint(newest, 10) || w.Base != old.Newest.Size {
		t.Errorf("it is known as %+v", w)
	}
	if got := n.judge(); got != audit.Follows {
		t.Errorf("the zone says %v", got)
	}
}
