package link

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// However a chunk is cut, its pieces carry its objects in order, none claims a revision of which a later one has more,
// the last stands for the whole, and each fits.
func TestPiecesStandForTheirChunk(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		chunk := &linkv1.StateChunk{Epoch: 7, Incarnation: "i", After: rapid.Uint64Range(0, 5).Draw(rt, "after"), End: rapid.Bool().Draw(rt, "end")}
		revision := chunk.After + 1
		for i := range rapid.IntRange(0, 60).Draw(rt, "objects") {
			revision += rapid.Uint64Range(0, 2).Draw(rt, "step")
			chunk.Objects = append(chunk.Objects, &linkv1.Object{Revision: revision, Noun: &linkv1.Object_Vm{Vm: &apiv1.VM{
				Id: fmt.Sprint(i), UserData: strings.Repeat("x", rapid.IntRange(0, 300).Draw(rt, "size"))}}})
		}
		chunk.Through = revision + 3
		objects, bytes := rapid.IntRange(1, 20).Draw(rt, "most"), rapid.IntRange(1, 2000).Draw(rt, "bytes")
		pieces := splitBy(chunk, objects, bytes)
		var all []*linkv1.Object
		stands := chunk.After
		for i, p := range pieces {
			last := i == len(pieces)-1
			switch {
			case len(p.Objects) > objects || len(p.Objects) > 1 && proto.Size(p) > bytes+64:
				rt.Fatalf("piece %d has %d objects and %d bytes", i, len(p.Objects), proto.Size(p))
			case p.Through < stands || p.Epoch != 7 || p.Incarnation != "i" || p.End != (last && chunk.End):
				rt.Fatalf("piece %d is %v, stands at %d", i, p, stands)
			case !last && p.Through >= pieces[i+1].Objects[0].Revision:
				rt.Fatalf("piece %d goes through %d, and the next begins with %d", i, p.Through, pieces[i+1].Objects[0].Revision)
			}
			stands = p.Through
			all = append(all, p.Objects...)
		}
		if stands != chunk.Through || len(all) != len(chunk.Objects) {
			rt.Fatalf("through %d of %d, %d objects of %d", stands, chunk.Through, len(all), len(chunk.Objects))
		}
		for i := range all {
			if all[i] != chunk.Objects[i] {
				rt.Fatalf("object %d is out of place", i)
			}
		}
	})
}

func TestASourceThatBreaksItsContractIsNamed(t *testing.T) {
	object := func(revision uint64) *linkv1.Object { return &linkv1.Object{Revision: revision} }
	for name, chunk := range map[string]*linkv1.StateChunk{
		"an answer from elsewhere":        {After: 3, Through: 9},
		"objects out of order":            {After: 5, Through: 9, Objects: []*linkv1.Object{object(8), object(7)}},
		"an object that is known":         {After: 5, Through: 9, Objects: []*linkv1.Object{object(5)}},
		"an object beyond what it stands": {After: 5, Through: 9, Objects: []*linkv1.Object{object(10)}},
	} {
		if ordered(chunk, 5) == nil {
			t.Errorf("%s passed", name)
		}
	}
	if err := ordered(&linkv1.StateChunk{After: 5, Through: 9, Objects: []*linkv1.Object{object(6), object(6), object(9)}}, 5); err != nil {
		t.Error(err)
	}
	k := streamKey{"o", "s"}
	entries := func(numbers ...uint64) *linkv1.JournalBatch {
		b := &linkv1.JournalBatch{Origin: "o", Stream: "s"}
		for _, n := range numbers {
			b.Entries = append(b.Entries, &linkv1.JournalEntry{Sequence: n})
		}
		return b
	}
	for name, b := range map[string]*linkv1.JournalBatch{
		"another stream":       {Origin: "o", Stream: "t", Entries: entries(6).Entries},
		"an entry that is old": entries(5, 6),
		"an entry left out":    entries(6, 8),
		"an entry twice":       entries(6, 6),
	} {
		if dense(b, k, 5) == nil {
			t.Errorf("%s passed", name)
		}
	}
	if err := dense(entries(9, 10), k, 5); err != nil {
		t.Errorf("what the source no longer keeps is the receiver's to judge: %v", err)
	}
}
