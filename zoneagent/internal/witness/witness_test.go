package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// plane is a control plane's log that the test shows to a zone.
type plane struct {
	*testing.T
	private, public string
	epoch           uint64
	entries         []*apiv1.AuditEntry
	leaves          [][]byte
	stored          []tlog.Hash
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{T: t, epoch: 7}
	var err error
	if p.private, p.public, err = audit.NewKey(audit.Origin("naru.test")); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plane) ReadHashes(indexes []int64) (out []tlog.Hash, _ error) {
	for _, i := range indexes {
		out = append(out, p.stored[i])
	}
	return out, nil
}

func (p *plane) grow(actions ...string) {
	p.Helper()
	for _, action := range actions {
		e := &apiv1.AuditEntry{Sequence: fmt.Sprint(len(p.leaves)), Action: action, Outcome: apiv1.AuditEntry_DONE}
		leaf, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
		if err != nil {
			p.Fatal(err)
		}
		hashes, err := tlog.StoredHashes(int64(len(p.leaves)), leaf, p)
		if err != nil {
			p.Fatal(err)
		}
		p.entries, p.leaves, p.stored = append(p.entries, e), append(p.leaves, leaf), append(p.stored, hashes...)
	}
}

// cut is the log with its first entries only.
func (p *plane) cut(entries int) *plane {
	c := &plane{T: p.T, private: p.private, public: p.public, epoch: p.epoch}
	for _, e := range p.entries[:entries] {
		c.grow(e.GetAction())
	}
	return c
}

// shown is the log as it is, with a proof from a size.
func (p *plane) shown(after int) *linkv1.Checkpoint {
	p.Helper()
	size := int64(len(p.leaves))
	root, err := tlog.TreeHash(size, p)
	if err != nil {
		p.Fatal(err)
	}
	note, err := audit.Sign(audit.Checkpoint{Origin: audit.Origin("naru.test"), Size: uint64(size), Root: root, Epoch: p.epoch, Time: start}, p.private)
	if err != nil {
		p.Fatal(err)
	}
	c := &linkv1.Checkpoint{Id: "audit", Note: note, Keys: []string{p.public}, After: uint64(after)}
	if after > 0 && int64(after) <= size {
		proof, err := tlog.ProveTree(size, int64(after), p)
		if err != nil {
			p.Fatal(err)
		}
		for _, h := range proof {
			c.Proof = append(c.Proof, h[:])
		}
	}
	return c
}

// admitted is shown with the proof that the log was restored at an entry.
func (p *plane) admitted(after, begun int) *linkv1.Checkpoint {
	p.Helper()
	c := p.shown(after)
	proof, err := tlog.ProveRecord(int64(len(p.leaves)), int64(begun), p)
	if err != nil {
		p.Fatal(err)
	}
	c.Begun = &linkv1.EpochBegun{Leaf: p.leaves[begun]}
	for _, h := range proof {
		c.Begun.Proof = append(c.Begun.Proof, h[:])
	}
	return c
}

// zone is a witness whose store and picture are the test's.
type zone struct {
	*testing.T
	*Witness
	kept  *zonev1.Witness
	fails error
	said  []*linkv1.JournalEntry
	shows *linkv1.Checkpoint
	log   bytes.Buffer
	own   *etcdstore.Ownership
}

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{T: t, kept: &zonev1.Witness{}, own: &etcdstore.Ownership{}}
	z.Witness = New(Config{
		Store: memory{z}, Picture: z, ZoneID: "z-1", Federation: "naru.test", Seed: bytes.Repeat([]byte{7}, audit.SeedSize),
		Now: func() time.Time { return start }, Log: slog.New(slog.NewTextHandler(&z.log, nil)),
	})
	return z
}

func (z *zone) Nouns(kind string, fn func(desired, observed proto.Message)) {
	switch {
	case kind == "zone":
		fn(&apiv1.Zone{Id: "z-0", Name: "internet"}, nil)
		fn(&apiv1.Zone{Id: "z-1", Name: "business"}, nil)
	case kind == "checkpoint" && z.shows != nil:
		fn(z.shows, nil)
	}
}

// memory is the zone's store.
type memory struct{ *zone }

func (z *zone) PutWitness(_ context.Context, _ *etcdstore.Ownership, w *zonev1.Witness, entries ...*linkv1.JournalEntry) error {
	if z.fails != nil {
		return z.fails
	}
	z.kept, z.said = proto.CloneOf(w), append(z.said, entries...)
	return nil
}

func (m memory) Witness(context.Context) (*zonev1.Witness, error) { return proto.CloneOf(m.kept), nil }

// look shows the zone something, and returns what it says of it: what it signs, or asks for, and the types of events.
func (z *zone) look(shown *linkv1.Checkpoint) (signed []*linkv1.Countersignature, told []string) {
	z.Helper()
	z.shows, z.said = shown, nil
	if err := z.Look(z.Context(), z.own); err != nil {
		z.Fatal(err)
	}
	for _, e := range z.said {
		if s := e.GetCountersignature(); s != nil {
			signed = append(signed, s)
		} else {
			told = append(told, e.GetEvent().GetType())
		}
	}
	return signed, told
}

func TestTheZoneSignsWhatLeadsOnAndRemembersItWithItsSignature(t *testing.T) {
	p, z := newPlane(t), newZone(t)
	after := 0
	for range 5 {
		p.grow("vm.create", "vm.start", "vm.stop")
		signed, told := z.look(p.shown(after))
		if len(signed) != 1 || len(told) != 0 || signed[0].GetUnproven() || !proto.Equal(signed[0], z.kept.GetSeen()) {
			t.Fatalf("it says %v and %v, and remembers %v", signed, told, z.kept)
		}
		c, err := audit.Countersigned(signed[0].GetNote(), signed[0].GetLine(), signed[0].GetKey(), []string{p.public})
		if err != nil || c.Size != uint64(len(p.leaves)) || c.Size != signed[0].GetSize() || !strings.HasPrefix(signed[0].GetKey(), "naru.test/zone/business+") {
			t.Fatalf("it has signed %v, %v", c, err)
		}
		after = len(p.leaves)
		if signed, told := z.look(z.shows); signed != nil || told != nil {
			t.Errorf("the same again: %v, %v", signed, told)
		}
		z.own = &etcdstore.Ownership{} // another agent owns the link
		if signed, told := z.look(z.shows); signed != nil || told != nil {
			t.Errorf("the same to another agent: %v, %v", signed, told)
		}
	}
	if n := len(z.kept.GetEarlier()); n == 0 || n > 4 {
		t.Errorf("%d earlier states are remembered", n)
	}
}

// TestP8AForkAndARollbackAreRefusedToldOnceAndShown until the log leads on again.
func TestP8AForkAndARollbackAreRefusedToldOnceAndShown(t *testing.T) {
	p := newPlane(t)
	p.grow("a", "b", "c", "d", "e", "f")
	fork := p.cut(4)
	fork.grow("x", "y", "z")
	for what, c := range map[string]struct {
		shown  *linkv1.Checkpoint
		reason string
	}{
		"a fork": {fork.shown(6), audit.Fork}, "a rollback": {p.cut(3).shown(0), audit.Rollback},
		"a note that was changed": {func() *linkv1.Checkpoint {
			c := fork.shown(6)
			c.Note = strings.Replace(c.Note, "\n7\n", "\n8\n", 1)
			return c
		}(), audit.Signature},
		"another key": {func() *linkv1.Checkpoint {
			other := newPlane(t)
			other.grow("a", "b", "c", "d", "e", "f", "g")
			return other.shown(6)
		}(), audit.WrongKey},
	} {
		z := newZone(t)
		z.look(p.shown(0))
		before := z.kept.GetSeen()
		signed, told := z.look(c.shown)
		if len(signed) != 0 || !slices.Equal(told, []string{"zone.audit-refused"}) || !proto.Equal(z.kept.GetSeen(), before) {
			t.Errorf("%s: it signs %v and tells %v", what, signed, told)
		}
		if o := z.Objection(); o.GetReason() != c.reason || o.GetMessage() == "" || o.GetSince() == nil || strings.Count(z.log.String(), "does not countersign") != 1 {
			t.Errorf("%s: the objection is %v", what, o)
		}
		again := proto.CloneOf(c.shown)
		again.Generation = &apiv1.Generation{Index: 1}
		if _, told := z.look(again); told != nil {
			t.Errorf("%s is told again: %v", what, told)
		}
		z.own = &etcdstore.Ownership{}
		if z.look(again); z.Objection().GetReason() != c.reason {
			t.Errorf("%s: another agent objects with %v", what, z.Objection())
		}
		grown := p.cut(6)
		grown.grow("g")
		if signed, told := z.look(grown.shown(6)); len(signed) != 1 || !slices.Equal(told, []string{"zone.audit-agreed"}) || z.Objection() != nil {
			t.Errorf("after %s the log leads on: %v, %v, %v", what, signed, told, z.Objection())
		}
	}
}

func TestAProofFromElsewhereIsAskedForAndObjectedToInTheEnd(t *testing.T) {
	p, z := newPlane(t), newZone(t)
	p.grow("a", "b", "c")
	z.look(p.shown(0))
	for turn := 1; turn <= 12; turn++ {
		p.grow("d")
		signed, told := z.look(p.shown(2))
		if len(signed) != 1 || !signed[0].GetUnproven() || signed[0].GetSize() != 3 {
			t.Fatalf("it says %v", signed)
		}
		if (turn == patience) != slices.Equal(told, []string{"zone.audit-refused"}) || (turn >= patience) != (z.Objection() != nil) {
			t.Errorf("at turn %d it tells %v, and objects with %v", turn, told, z.Objection())
		}
	}
	if signed, _ := z.look(p.shown(3)); len(signed) != 1 || signed[0].GetUnproven() || z.Objection() != nil {
		t.Errorf("with the proof: %v, %v", signed, z.Objection())
	}
}

func TestARestoredLogIsSignedWhenItSaysSoAndWhatItLostIsKept(t *testing.T) {
	p, z := newPlane(t), newZone(t)
	p.grow("a", "b")
	z.look(p.shown(0))
	p.grow("c", "d", "e", "f")
	z.look(p.shown(2))
	lost := z.kept.GetSeen()
	r := p.cut(3)
	r.epoch = 8
	r.grow("epoch.begin", "g", "h", "i", "j")
	if signed, _ := z.look(r.shown(2)); len(signed) != 1 || !signed[0].GetUnproven() || signed[0].GetSize() != 6 || len(z.kept.GetLost()) != 0 {
		t.Fatalf("before it has said that it was restored: %v", signed)
	}
	signed, told := z.look(r.admitted(2, 3))
	if len(signed) != 1 || signed[0].GetEpoch() != 8 || signed[0].GetSize() != 8 || !slices.Equal(told, []string{"zone.audit-restored"}) {
		t.Fatalf("after it has: %v, %v", signed, told)
	}
	if all := z.kept.GetLost(); len(all) != 1 || !proto.Equal(all[0], lost) || len(z.kept.GetEarlier()) != 1 || z.kept.GetEarlier()[0].GetSize() != 2 {
		t.Errorf("it remembers %v", z.kept)
	}
	old := p.shown(6) // who still signs in the epoch before is not followed
	if signed, _ := z.look(old); len(signed) != 0 || z.Objection().GetReason() != audit.Rollback {
		t.Errorf("the epoch before: %v, %v", signed, z.Objection())
	}
}

func TestWhatCouldNotBeWrittenIsLookedAtAgain(t *testing.T) {
	p, z := newPlane(t), newZone(t)
	p.grow("a")
	z.shows, z.fails = p.shown(0), errors.New("the store does not answer")
	if err := z.Look(t.Context(), z.own); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Fatal(err)
	}
	z.fails = nil
	if signed, _ := z.look(z.shows); len(signed) != 1 {
		t.Errorf("after that it says %v", signed)
	}
	z.Seed = nil
	p.grow("b")
	z.shows = p.shown(1)
	if err := z.Look(t.Context(), z.own); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("without a key: %v", err)
	}
}
