package fsm_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// seeds is a command of nearly every kind, encoded.
func seeds(t tb) (all [][]byte) {
	commands := append(furniture(), bootstrap(), createVM(1), desire(1, 7, "op"), observe("inc-1", 0, 1, seen(1, 3, 1)),
		fullSync(true, "inc-1", 0, 5, seen(1, 3, 1), seen(9, 3, 1), tombstone(1), hostSeen("h-1", 1)),
		journal("inc-1", "zone", happened(1, "e"), used(2, "vm-1", start)), session(1, true), session(1, false), acknowledge(7, 3), beginEpoch(9),
		deletion("host", "h-1", ""), createBroker("edge"), createToken("ci"), joinToken("t", "zone"), ask("t", "a", "k"), acceptJoin("a", "k"), revoke(""), addCA(ca("root", "x"), ""), retireCA("x"),
		createOrganization("bureau", "home"), moveOrganization("home", "bureau"), createUser("kim"), disableUser("kim"), enableUser("kim"), createGroup("ops"), enter("ops", "kim"), leave("ops", "kim"), createUser("lee"), resetPassword("lee"), sealingKey("1", ""))
	for i, c := range commands {
		c.Id = commandID(start, uint64(i)+1000)
		data, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
	}
	return append(all, []byte{0xff})
}

// twins are two servers that are fed the same bytes.
type twins struct{ one, two *plane }

func newTwins(t tb) twins {
	p := twins{furnished(t), furnished(t)}
	p.one.accept(createVM(1))
	p.two.accept(createVM(1))
	return p
}

// feed applies any bytes as a command: the answer is a result, the same on both, and never a panic or a fatal error.
func (p twins) feed(t tb, data []byte) {
	t.Helper()
	c := &commandv1.Command{}
	if proto.Unmarshal(data, c) == nil && c.GetRaiseFeatureLevel().GetLevel() > fsm.FeatureLevel {
		return // stops the process by design
	}
	a, err := p.one.machine.Apply([]fsm.Entry{p.one.raw(data)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.two.machine.Apply([]fsm.Entry{p.two.raw(data)})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(a[0], b[0]) {
		t.Errorf("one server answers %v, the other %v", a[0], b[0])
	}
}

func FuzzApply(f *testing.F) {
	for _, data := range seeds(f) {
		f.Add(data)
	}
	p := newTwins(f)
	f.Fuzz(func(t *testing.T, data []byte) { p.feed(t, data) })
}

// The same without the fuzzer's engine, in every run: commands with bytes changed, lost and repeated.
func TestP11MutatedCommandsAreAnsweredAlikeAndNeverPanic(t *testing.T) {
	all := seeds(t)
	p := newTwins(t)
	rapid.Check(t, func(rt *rapid.T) {
		for range 20 {
			data := slices.Clone(rapid.SampledFrom(all).Draw(rt, "seed"))
			for range rapid.IntRange(0, 4).Draw(rt, "mutations") {
				at := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
				switch rapid.IntRange(0, 3).Draw(rt, "mutation") {
				case 0:
					data[at] = rapid.Byte().Draw(rt, "byte")
				case 1:
					data[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
				case 2:
					data = slices.Insert(data, at, data[at:min(len(data), at+8)]...)
				default:
					if data = slices.Delete(data, at, min(len(data), at+3)); len(data) == 0 {
						data = []byte{0}
					}
				}
			}
			p.feed(rt, data)
		}
	})
	_, a, err1 := p.one.machine.StateHash()
	_, b, err2 := p.two.machine.StateHash()
	if a != b || err1 != nil || err2 != nil {
		t.Errorf("the states differ: %x, %x, %v, %v", a, b, err1, err2)
	}
}
