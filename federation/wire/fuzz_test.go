package wire

import (
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// P11: whatever bytes come as whatever type, an accepted encoding is the one that Go writes.
func FuzzForm(f *testing.F) {
	types := crossing()
	r := rand.New(rand.NewPCG(1, 2))
	for i, mt := range types {
		_, b := filled(mt, r, false)
		f.Add(uint16(i), b)
	}
	f.Fuzz(func(t *testing.T, i uint16, b []byte) {
		mt := types[int(i)%len(types)]
		if err := sameBytes(b, mt); err != nil {
			t.Fatalf("%s: %v", mt.Descriptor().FullName(), err)
		}
	})
}

// P11, P15: no frame breaks the checker, and one that passes means the same to both seats.
func FuzzFrame(f *testing.F) {
	for kind, m := range validPayloads() {
		b, err := proto.Marshal(whole(f, kind, directions(kind)[0], m))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	broker, end := newChecker(f, AtBroker), newChecker(f, AtEnd)
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := &linkv1.Frame{}
		if proto.Unmarshal(b, fr) != nil {
			return
		}
		for _, d := range []linkv1.Direction{linkv1.Direction_UP, linkv1.Direction_DOWN} {
			_, refusal := broker.Check(fr, d)
			checked, atEnd := end.Check(fr, d)
			if refusal == nil && atEnd != nil {
				t.Fatalf("a broker lets through what an end refuses: %v", atEnd)
			}
			if atEnd == nil {
				if again, err := proto.Marshal(checked.Message); err != nil || string(again) != string(fr.Payload) {
					t.Fatalf("%s means %v and was encoded otherwise", fr.Type, checked.Message)
				}
			}
			if refusal != nil && !refusal.Hostile {
				withheld, refused, err := broker.Withhold(fr, refusal)
				if err != nil {
					t.Fatal(err)
				}
				if _, r := end.Check(withheld, d); r != nil {
					t.Fatalf("an end refuses what stands for a withheld frame: %v", r)
				}
				if _, r := end.Check(refused, Opposite(d)); r != nil {
					t.Fatalf("an end refuses what tells of a withheld frame: %v", r)
				}
			}
		}
	})
}
