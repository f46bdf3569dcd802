package fsm_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// FuzzApply feeds any bytes as a command: the answer is a result, the same on two servers, and never a panic or a fatal
// error but for the one that raises the feature level.
func FuzzApply(f *testing.F) {
	seeds := append(furniture(), bootstrap(), createVM(1), desire(1, 7, "op"), observe("inc-1", 0, 1, seen(1, 3, 1)),
		fullSync(true, "inc-1", 0, 5, seen(1, 3, 1), seen(9, 3, 1), tombstone(1), hostSeen("h-1", 1)),
		journal("inc-1", "zone", happened(1, "e"), used(2, "vm-1", start)), session(1, true), session(1, false), acknowledge(7, 3), beginEpoch(9),
		deletion("host", "h-1", ""), createBroker("edge"), createToken("ci"), joinToken("t", "zone"), ask("t", "a", "k"), acceptJoin("a", "k"), revoke(""))
	for i, c := range seeds {
		c.Id = commandID(start, uint64(i)+1000)
		data, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{0xff})
	one, two := furnished(f), furnished(f)
	for _, p := range []*plane{one, two} {
		p.accept(createVM(1))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &commandv1.Command{}
		if proto.Unmarshal(data, c) == nil && c.GetRaiseFeatureLevel().GetLevel() > fsm.FeatureLevel {
			t.Skip("stops the process by design")
		}
		a, err := one.machine.Apply([]fsm.Entry{one.raw(data)})
		if err != nil {
			t.Fatal(err)
		}
		b, err := two.machine.Apply([]fsm.Entry{two.raw(data)})
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(a[0], b[0]) {
			t.Errorf("one server answers %v, the other %v", a[0], b[0])
		}
	})
}
