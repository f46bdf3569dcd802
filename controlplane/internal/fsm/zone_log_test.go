package fsm_test

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// clerk is a plane, and a zone that keeps a log of its own as an honest one does.
type clerk struct {
	*plane
	seed []byte
	life string
	// grown is the zone's log in this life, brought how far the journal is.
	grown    audit.Growing
	sequence uint64
}

func newClerk(t tb) *clerk {
	c := &clerk{plane: furnished(t), seed: bytes.Repeat([]byte{1}, audit.SeedSize), life: "inc-1"}
	c.accept(session(1, true))
	return c
}

// begin begins another life of the zone's store.
func (c *clerk) begin(life string) { c.life, c.grown, c.sequence = life, audit.Growing{}, 0 }

// write writes the next entries of the zone's log, without bringing them.
func (c *clerk) write(n int) (entries []*linkv1.LocalEntry) {
	c.Helper()
	for range n {
		index := c.grown.Size
		leaf, err := audit.Leaf(&apiv1.AuditEntry{Sequence: strconv.FormatUint(index, 10), Time: timestamppb.New(c.now), Actor: "user:kim", ActorId: "u-kim",
			Action: "vm.start", Target: &apiv1.Reference{Kind: "vm", Id: "vm-1", Name: "web-1"}, Zone: "business", ZoneId: "z-business", ViaZone: "business",
			Outcome: apiv1.AuditEntry_DONE})
		if err != nil {
			c.Fatal(err)
		}
		if err := c.grown.Append(leaf); err != nil {
			c.Fatal(err)
		}
		entries = append(entries, &linkv1.LocalEntry{Index: index, Leaf: leaf, Note: c.signed(c.grown), Key: c.key()})
	}
	return entries
}

func (c *clerk) signed(g audit.Growing) string {
	c.Helper()
	root, err := g.Root()
	if err != nil {
		c.Fatal(err)
	}
	note, err := audit.SignLocal(audit.Checkpoint{Origin: audit.LocalOrigin("example.test", "business", c.life), Size: g.Size, Root: root,
		Time: c.now.Truncate(time.Second)}, c.seed)
	if err != nil {
		c.Fatal(err)
	}
	return note
}

func (c *clerk) key() string {
	return audit.WitnessKey(audit.WitnessName("example.test", "business"), c.seed)
}

// batch is the journal's next batch, as the hub proposes it: with what it has found not to be good.
func (c *clerk) batch(entries ...*linkv1.LocalEntry) *commandv1.Command {
	var journaled []*linkv1.JournalEntry
	var refused []*commandv1.AppendJournal_Refused
	for _, e := range entries {
		c.sequence++
		journaled = append(journaled, &linkv1.JournalEntry{Sequence: c.sequence, Time: timestamppb.New(c.now), Body: &linkv1.JournalEntry_LocalEntry{LocalEntry: e}})
		_, err := audit.ReadLeaf(e.GetLeaf())
		if err == nil {
			_, err = audit.OpenLocal(e.GetNote(), e.GetKey())
		}
		if err != nil {
			refused = append(refused, &commandv1.AppendJournal_Refused{Sequence: c.sequence, Reason: "it is not good"})
		}
	}
	out := journal(c.life, "zone", journaled...)
	out.GetAppendJournal().Refused = refused
	return out
}

func (c *clerk) bring(entries ...*linkv1.LocalEntry) {
	c.Helper()
	c.accept(c.batch(entries...))
}

func (c *clerk) logs() (all []state.ZoneLog) {
	c.Helper()
	c.view(func(tx *state.Tx) {
		var err error
		if all, err = tx.ZoneLogs(); err != nil {
			c.Fatal(err)
		}
	})
	return all
}

// leaves are those of a zone's log.
func (c *clerk) leaves(log string) (all [][]byte) {
	c.Helper()
	c.view(func(tx *state.Tx) {
		leaves, err := tx.Log(log).Leaves(0, 10_000)
		if err != nil {
			c.Fatal(err)
		}
		for _, l := range leaves {
			all = append(all, l.Leaf)
		}
	})
	return all
}

// holds checks that the log of a name is these entries, signed, and nothing else.
func (c *clerk) holds(log string, entries []*linkv1.LocalEntry) {
	c.Helper()
	all := c.logs()
	at := slices.IndexFunc(all, func(l state.ZoneLog) bool { return l.GetName() == log })
	if at < 0 {
		c.Fatalf("there is no log %s", log)
	}
	l, last := all[at], entries[len(entries)-1]
	if l.Size != uint64(len(entries)) || l.GetCheckpoint().GetNote() != last.GetNote() || l.GetZoneId() != "z-business" {
		c.Errorf("the log is known as %v with %d entries, want %d", l.AuditLog, l.Size, len(entries))
	}
	says, _, err := audit.Open(l.GetCheckpoint().GetNote(), []string{l.GetKey()})
	if err != nil || string(says.Root[:]) != string(l.GetCheckpoint().GetRoot()) || l.GetCheckpoint().GetSize() != strconv.FormatUint(says.Size, 10) {
		c.Errorf("its key and checkpoint do not fit together: %v, %v", l.AuditLog, err)
	}
	for n, leaf := range c.leaves(log) {
		if !bytes.Equal(leaf, entries[n].GetLeaf()) {
			c.Errorf("entry %d is another", n)
		}
	}
}

// merges are the entries of the control plane's own log that tell of those of zones.
func (c *clerk) merges() (all []*apiv1.AuditEntry) {
	for _, e := range c.audit(0) {
		if e.GetAction() == "zone.merge-log" {
			all = append(all, e)
		}
	}
	return all
}

func TestWhatAZoneHasWrittenWhileItWasCutOffIsALogOfItsOwn(t *testing.T) {
	c := newClerk(t)
	entries := c.write(20)
	c.bring(entries[:7]...)
	c.bring(entries[7:]...)
	c.holds("business/1", entries)
	if r := c.rejections("inc-1", "zone"); len(r) > 0 || c.logs()[0].GetRefused() != "" || c.events()["zone.log-refused"] != 0 {
		t.Errorf("refused %q", r)
	}
	if n := c.events()["audit.witness-key"]; n != 1 {
		t.Errorf("people were told of %d keys", n)
	}
	for _, e := range c.audit(0) {
		if e.GetActor() == "user:kim" {
			t.Errorf("the control plane's own log says what the zone's does: %v", e)
		}
	}
	other := empty(t)
	if err := other.machine.Restore(bytes.NewReader(c.snapshot())); err != nil {
		t.Fatal(err)
	}
	if string(other.snapshot()) != string(c.snapshot()) {
		t.Error("a snapshot does not hold all of it")
	}
}

// TestTheOneLogSealsTheOthers: it says once a minute how many entries they have, and with which root.
func TestTheOneLogSealsTheOthers(t *testing.T) {
	c := newClerk(t)
	var entries []*linkv1.LocalEntry
	for range 90 { // one a second
		e := c.write(1)
		entries = append(entries, e...)
		c.bring(e...)
	}
	c.accept(&commandv1.Command{Actor: "upkeep", Stamp: timestamppb.New(c.now.Add(time.Hour)), Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{}}})
	c.now = c.now.Add(time.Hour)
	merges, total := c.merges(), 0
	for _, m := range merges {
		total += int(m.GetCount())
		says, err := audit.Read(entries[total-1].GetNote())
		if err != nil || string(m.GetDigest()) != string(says.Root[:]) || !strings.Contains(m.GetMessage(), fmt.Sprintf("has %d entries", total)) ||
			m.GetTarget().GetName() != "business/1" || m.GetActor() != "zone:business" || m.GetZoneId() != "z-business" {
			t.Errorf("of %d entries it says %v; %v", total, m, err)
		}
	}
	if len(merges) != 3 || merges[0].GetCount() != 1 || total != 90 {
		t.Errorf("ninety seconds have left %d entries, of %d", len(merges), total)
	}
	c.accept(&commandv1.Command{Actor: "upkeep", Stamp: timestamppb.New(c.now.Add(time.Hour)), Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{}}})
	if n := len(c.merges()); n != 3 {
		t.Errorf("where nothing has grown, %d more say so", n-3)
	}
}

// TestP8WhatTheZoneHasNotSignedIsNotTakenUp: whatever is flipped, left out or moved on the way, nothing of it is stored, and what is
// right goes on where the log was.
func TestP8WhatTheZoneHasNotSignedIsNotTakenUp(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := newClerk(r)
		good := c.write(rapid.IntRange(1, 9).Draw(r, "before"))
		c.bring(good...)
		next := c.write(2)
		bad := proto.CloneOf(next[0])
		flip := func(b []byte) []byte {
			b = bytes.Clone(b)
			b[rapid.IntRange(0, len(b)-1).Draw(r, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(r, "bit")
			return b
		}
		switch kind := rapid.SampledFrom([]string{"leaf", "note", "key", "index", "next", "note of another", "leaf of another", "cut off"}).Draw(r, "kind"); kind {
		case "leaf":
			bad.Leaf = flip(bad.GetLeaf())
		case "note":
			bad.Note = strings.ToValidUTF8(string(flip([]byte(bad.GetNote()))), "?") // the link carries nothing else
		case "key":
			bad.Key = strings.ToValidUTF8(string(flip([]byte(bad.GetKey()))), "?")
		case "index":
			bad.Index += rapid.Uint64Range(1, 1<<62).Draw(r, "further")
		case "next":
			bad = proto.CloneOf(next[1])
		case "note of another":
			bad.Note = rapid.SampledFrom(append(good, next[1])).Draw(r, "other").GetNote()
		case "leaf of another":
			bad.Leaf = rapid.SampledFrom(append(good, next[1])).Draw(r, "other").GetLeaf()
		case "cut off":
			bad.Leaf = bad.GetLeaf()[:rapid.IntRange(0, len(bad.GetLeaf())-1).Draw(r, "at")]
		}
		c.bring(bad)
		if got := c.rejections("inc-1", "zone"); len(got) != 1 {
			r.Fatalf("it is rejected as %q", got)
		}
		if l := c.logs()[0]; l.GetRefused() == "" || c.events()["zone.log-refused"] != 1 {
			r.Fatalf("it is refused as %q, and people were told %v", l.GetRefused(), c.events())
		}
		c.holds("business/1", good)
		c.bring(next...)
		c.holds("business/1", append(good, next...))
		if c.events()["zone.log-refused"] != 1 {
			r.Error("people were told again")
		}
	})
}

func TestOnlyEntriesOfTheZoneItselfAreTakenUpAndOnlyWithItsKey(t *testing.T) {
	c := newClerk(t)
	c.accept(createZone("internet"))
	entry := func(change func(*apiv1.AuditEntry)) *linkv1.LocalEntry {
		m := &apiv1.AuditEntry{Sequence: "0", Time: timestamppb.New(c.now), Actor: "user:kim", Action: "vm.start", Zone: "business", ZoneId: "z-business"}
		change(m)
		leaf, err := audit.Leaf(m)
		if err != nil {
			t.Fatal(err)
		}
		g := audit.Growing{}
		if err := g.Append(leaf); err != nil {
			t.Fatal(err)
		}
		return &linkv1.LocalEntry{Leaf: leaf, Note: c.signed(g), Key: c.key()}
	}
	for want, change := range map[string]func(*apiv1.AuditEntry){
		"not of zone business": func(m *apiv1.AuditEntry) { m.ZoneId = "z-internet" },
		"is not of zone":       func(m *apiv1.AuditEntry) { m.Zone = "internet" },
		"stands at 0":          func(m *apiv1.AuditEntry) { m.Sequence = "1" },
		"has no time":          func(m *apiv1.AuditEntry) { m.Time = &timestamppb.Timestamp{Seconds: 1 << 60} },
	} {
		c.bring(entry(change))
		if got := c.rejections("inc-1", "zone"); !strings.Contains(got[len(got)-1], want) {
			t.Errorf("%q is rejected as %q", want, got[len(got)-1])
		}
	}
	right := func(*apiv1.AuditEntry) {}
	own := c.life
	c.life = "inc-2" // another life's note, in the journal of this one
	foreign := entry(right)
	c.life = own
	c.bring(foreign)
	if got := c.rejections("inc-1", "zone"); !strings.Contains(got[len(got)-1], "not a state of the log example.test/zone/business/log/inc-1") {
		t.Errorf("another life's is rejected as %q", got[len(got)-1])
	}
	c.bring(entry(right))
	c.seed = bytes.Repeat([]byte{2}, audit.SeedSize)
	c.begin("inc-2")
	c.bring(c.write(1)...) // the zone has another key
	c.seed = bytes.Repeat([]byte{1}, audit.SeedSize)
	c.bring(c.write(1)...) // and does not go back
	if got := c.rejections("inc-2", "zone"); len(got) != 1 || !strings.Contains(got[0], "has replaced") {
		t.Errorf("with the key before it is rejected as %q", got)
	}
	if all := c.logs(); len(all) != 2 || all[0].Size != 1 || all[1].Size != 1 || all[0].GetKey() == all[1].GetKey() {
		t.Errorf("the logs are %v", all)
	}
}

// TestWhatIsBroughtAgainChangesNothing: after a link that broke, and where the journal is not known any more.
func TestWhatIsBroughtAgainChangesNothing(t *testing.T) {
	c := newClerk(t)
	entries := c.write(6)
	first := c.batch(entries[:4]...)
	c.accept(proto.CloneOf(first))
	again := proto.CloneOf(first)
	c.sequence -= 4
	longer := c.batch(entries...)
	c.accept(again)
	c.accept(longer)
	c.holds("business/1", entries)
	moved := c.batch(entries...)
	moved.GetAppendJournal().GetBatch().Stream = "another"
	for n, e := range moved.GetAppendJournal().GetBatch().GetEntries() {
		e.Sequence = uint64(n) + 1
	}
	c.accept(moved)
	c.holds("business/1", entries)
	if c.events()["zone.log-refused"] != 0 || len(c.rejections("inc-1", "another")) != 0 {
		t.Errorf("refused %q", c.rejections("inc-1", "another"))
	}
	c.grown = audit.Growing{} // the zone writes its log anew
	c.now = c.now.Add(time.Minute)
	c.sequence = 6
	c.bring(c.write(1)...)
	if got := c.rejections("inc-1", "zone"); len(got) != 1 || !strings.Contains(got[0], "another entry 0 was brought before") {
		t.Errorf("another beginning is rejected as %q", got)
	}
	c.holds("business/1", entries)
}

// TestAStoreThatBeganAnewKeepsAnotherLog, and what the one before it has still to bring is brought to its own.
func TestAStoreThatBeganAnewKeepsAnotherLog(t *testing.T) {
	c := newClerk(t)
	first := c.write(5)
	c.bring(first[:2]...)
	old := *c
	c.begin("inc-2")
	second := c.write(3)
	c.bring(second...)
	old.accept(old.batch(first[2:]...))
	c.holds("business/1", first)
	c.holds("business/2", second)
	if all := c.logs(); len(all) != 2 || all[0].GetIncarnationId() != "inc-1" || all[1].GetIncarnationId() != "inc-2" {
		t.Errorf("the logs are %v", all)
	}
}

// TestARestoredControlPlaneIsBroughtWhatTheBackupLacks.
func TestARestoredControlPlaneIsBroughtWhatTheBackupLacks(t *testing.T) {
	c := newClerk(t)
	entries := c.write(12)
	c.bring(entries[:5]...)
	backup, had := c.snapshot(), c.sequence
	c.bring(entries[5:]...)
	if err := c.machine.Restore(bytes.NewReader(backup)); err != nil {
		t.Fatal(err)
	}
	c.accept(beginEpoch(8))
	c.accept(session(2, true))
	c.holds("business/1", entries[:5])
	c.sequence = had
	c.bring(entries[5:]...)
	c.holds("business/1", entries)
	if c.logs()[0].GetRefused() != "" {
		t.Errorf("refused: %s", c.logs()[0].GetRefused())
	}
}

// TestALogThatLostEntriesOnItsWayIsNotPatched: who reads it sees where it ends, and why.
func TestALogThatLostEntriesOnItsWayIsNotPatched(t *testing.T) {
	c := newClerk(t)
	entries := c.write(5)
	c.bring(entries[:2]...)
	c.bring(entries[3:]...)
	c.holds("business/1", entries[:2])
	if l := c.logs()[0]; !strings.Contains(l.GetRefused(), "it is entry 3, and the log has 2") {
		t.Errorf("refused: %s", l.GetRefused())
	}
}

func TestTheLogOfAZoneThatIsRetiredStays(t *testing.T) {
	c := newClerk(t)
	entries := c.write(3)
	c.bring(entries...)
	c.accept(&commandv1.Command{Body: &commandv1.Command_Revoke{Revoke: &commandv1.Revoke{ZoneId: "z-business"}}})
	c.holds("business/1", entries)
}

// TestP15AZoneKeepsNoMoreLogsThanItMay, however often it says that its store began anew.
func TestP15AZoneKeepsNoMoreLogsThanItMay(t *testing.T) {
	c := newClerk(t)
	for n := range 120 {
		c.begin(fmt.Sprintf("life-%d", n))
		c.bring(c.write(1 + n%2)[n%2]) // every other one begins with what is not its first entry
	}
	all := c.logs()
	if len(all) != 100 || all[0].Size != 1 || all[1].Size != 0 || all[1].GetRefused() == "" || all[1].GetCheckpoint() != nil {
		t.Errorf("%d logs are kept, the first %v", len(all), all[:2])
	}
	if n := c.events()["zone.log-refused"]; n != 50 {
		t.Errorf("people were told %d times", n)
	}
	if got := c.rejections("life-118", "zone"); len(got) != 1 || !strings.Contains(got[0], "100 logs already") {
		t.Errorf("one more is rejected as %q", got)
	}
}
