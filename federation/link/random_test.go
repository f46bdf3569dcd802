package link

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

type frame = linkv1.Frame

const getVM = "/naru.api.v1.VMService/GetVM"

func newRandom(seed uint64) *mathrand.Rand { return mathrand.New(mathrand.NewPCG(seed, 17)) }

// plan is what a random test draws. The faults follow from the seed; how goroutines interleave does not.
type plan struct {
	seed     uint64
	steps    int
	brokered bool    // a broker stands between
	tamper   float64 // share of frames that are cut, dropped, repeated, moved or changed
	trouble  float64 // share of commits that fail, before or after they took effect
}

// P4, P11, P22: whatever a path does, and wherever either end stops, every journal entry is consumed exactly once and in
// order, both states converge, no call is carried out twice, and no frame that was tampered with goes unnoticed.
func TestTheLinkKeepsItsPromisesOverAnyPath(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := plan{
			seed:     rapid.Uint64().Draw(rt, "seed"),
			steps:    rapid.IntRange(5, 60).Draw(rt, "steps"),
			brokered: rapid.Bool().Draw(rt, "brokered"),
			tamper:   rapid.SampledFrom([]float64{0, 0.002, 0.02, 0.1}).Draw(rt, "tamper"),
			trouble:  rapid.SampledFrom([]float64{0, 0.02, 0.3}).Draw(rt, "trouble"),
		}
		said := ""
		bubble(t, func(*testing.T) { said = play(p) })
		if said != "" {
			rt.Fatalf("%+v: %s", p, said)
		}
	})
}

// game is a world with faults.
type game struct {
	*world
	plan
	random *mathrand.Rand

	mu       sync.Mutex
	healed   bool
	tampered map[int]time.Time // by session
	ended    map[int]time.Time
	cut      func()
	between  []func() // done while no session runs
	executed map[string]int
	outcomes map[string]error
}

func play(p plan) string {
	g := &game{
		world: newWorld(), plan: p, random: newRandom(p.seed), cut: func() {},
		tampered: map[int]time.Time{}, ended: map[int]time.Time{}, executed: map[string]int{}, outcomes: map[string]error{},
	}
	g.zoneTrouble.random, g.zoneTrouble.rate = newRandom(p.seed+1), p.trouble
	g.hubTrouble.random, g.hubTrouble.rate = newRandom(p.seed+2), p.trouble
	g.calls = handlerFunc(g.serve)
	g.path = g.hostile
	g.build()
	ctx, cancel := context.WithCancel(context.Background())
	g.wg.Go(func() { g.keepAlive(ctx) })
	var calls sync.WaitGroup
	for i := range p.steps {
		g.step(i, &calls)
		time.Sleep(time.Duration(g.random.IntN(300)) * time.Millisecond)
	}
	calls.Wait()
	g.zoneTrouble.heal()
	g.hubTrouble.heal()
	g.mu.Lock()
	g.healed = true
	g.mu.Unlock()
	var bad []string
	for id := range p.steps {
		bad = append(bad, fmt.Sprintf("bad-%d", id))
	}
	said := await(2*time.Minute, func() string { return g.settled(bad...) })
	cancel()
	g.wg.Wait()
	if said == "" {
		said = g.unnoticed()
	}
	if said == "" {
		said = g.twice()
	}
	return said
}

// keepAlive runs one session after another.
func (g *game) keepAlive(ctx context.Context) {
	for ctx.Err() == nil {
		g.mu.Lock()
		between := g.between
		g.between = nil
		g.mu.Unlock()
		for _, f := range between {
			f()
		}
		_ = g.zone.Run(ctx, g.dial(ctx))
		time.Sleep(20 * time.Millisecond)
	}
}

// step does one random thing to the world.
func (g *game) step(i int, calls *sync.WaitGroup) {
	r := g.random
	vm := func() string { return fmt.Sprintf("vm-%d", r.IntN(40)) }
	state := []*objects{g.zoneObjects, g.hubObjects}[r.IntN(2)]
	journal := []*ledger{g.zoneLedger, g.hubLedger}[r.IntN(2)]
	switch r.IntN(12) {
	case 0, 1:
		for range r.IntN(5) {
			state.put(vm(), vm(), vm())
		}
	case 2:
		state.remove(vm())
	case 3:
		state.compact()
	case 4:
		var many []string
		for j := range r.IntN(600) {
			many = append(many, fmt.Sprintf("vm-%d", j))
		}
		for len(many) > 0 {
			n := min(len(many), 1+r.IntN(100))
			state.put(many[:n]...)
			many = many[n:]
		}
	case 5:
		if g.brokered {
			state.putPoison(fmt.Sprintf("bad-%d", i))
		}
	case 6, 7:
		stream := []string{"zone", "kvm", "sim"}[r.IntN(3)]
		for range r.IntN(400) {
			message := fmt.Sprint(journal.written[stream])
			if g.brokered && r.IntN(100) == 0 {
				message = poison
			}
			journal.write(stream, message)
		}
	case 8:
		for j := range r.IntN(4) {
			g.call(fmt.Sprintf("call-%d-%d", i, j), calls)
		}
	case 9:
		g.samples.Add(nil, []*apiv1.VMSample{{Vm: vm()}})
	case 10:
		g.mu.Lock()
		cut := g.cut
		g.mu.Unlock()
		cut()
	case 11:
		g.life(i)
	}
}

// life begins a new one, of the zone's store or of the control plane.
func (g *game) life(i int) {
	zone := g.random.IntN(2) == 0
	g.mu.Lock()
	g.between = append(g.between, func() {
		g.world.mu.Lock()
		defer g.world.mu.Unlock()
		if zone {
			g.numbers.Incarnation = fmt.Sprintf("incarnation-%d", i)
			g.zoneObjects.begin(0, g.numbers.Incarnation)
		} else {
			g.epoch++
			g.epochID = fmt.Appendf(nil, "epoch-id-%d", i)
			g.hubObjects.begin(g.epoch, "")
		}
	})
	cut := g.cut
	g.mu.Unlock()
	cut()
}

// call makes a call in a goroutine of its own.
func (g *game) call(id string, calls *sync.WaitGroup) {
	calls.Go(func() {
		err := g.zone.Invoke(context.Background(), getVM, &apiv1.GetVMRequest{Vm: id}, &apiv1.GetVMResponse{})
		g.mu.Lock()
		defer g.mu.Unlock()
		g.outcomes[id] = err
	})
}

func (g *game) serve(ctx context.Context, c *Call) error {
	var in apiv1.GetVMRequest
	if err := proto.Unmarshal(c.Body, &in); err != nil {
		return err
	}
	g.mu.Lock()
	g.executed[in.Vm]++
	g.mu.Unlock()
	return echo(ctx, c)
}

// hostile is a path that does to frames what it likes.
func (g *game) hostile(_ context.Context, n int, zone, hub *MemoryStream) {
	g.mu.Lock()
	g.cut = func() { zone.Close(); hub.Close() }
	g.mu.Unlock()
	relay(zone, hub, g.through(n, linkv1.Direction_UP), g.through(n, linkv1.Direction_DOWN))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended[n] = time.Now()
}

func (g *game) through(n int, d linkv1.Direction) func(*frame) (on, back []*frame) {
	r := newRandom(g.seed + uint64(n)*2 + uint64(d))
	honest := pass
	if g.brokered {
		honest = broker(d)
	}
	var held *frame
	return func(f *frame) (on, back []*frame) {
		g.mu.Lock()
		calm := g.healed || r.Float64() >= g.tamper
		g.mu.Unlock()
		if held != nil {
			first := held
			held = nil
			on, back = honest(f)
			late, again := honest(first)
			if on == nil || late == nil {
				return nil, nil
			}
			return append(on, late...), append(back, again...)
		}
		if calm {
			return honest(f)
		}
		fault := r.IntN(5)
		if fault != 0 {
			g.mu.Lock()
			if g.tampered[n].IsZero() {
				g.tampered[n] = time.Now()
			}
			g.mu.Unlock()
		}
		switch fault {
		case 0: // cut
			return nil, nil
		case 1: // drop
			return []*frame{}, []*frame{}
		case 2: // repeat
			on, back = honest(f)
			return append(on, on...), back
		case 3: // move behind the next
			held = f
			return []*frame{}, []*frame{}
		default: // change, behind the broker's back
			on, back = honest(f)
			if len(on) > 0 {
				on = []*frame{corrupt(on[0], r)}
			}
			return on, back
		}
	}
}

// corrupt changes one bit of a frame somewhere.
func corrupt(f *frame, r *mathrand.Rand) *frame {
	f = proto.CloneOf(f)
	flip := func(b []byte) bool {
		if len(b) == 0 {
			return false
		}
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		return true
	}
	switch r.IntN(5) {
	case 0:
		if flip(f.Payload) {
			return f
		}
	case 1:
		if flip(f.Tag) {
			return f
		}
	case 2:
		flip(f.Session)
		return f
	case 3:
		f.Type ^= linkv1.Type(1 << r.IntN(6))
		return f
	}
	f.Counter ^= 1 << r.IntN(64)
	return f
}

// unnoticed names a session that went on although a frame of it was tampered with. A broker's own frames carry no tag:
// who stands where a broker stands may write them, so a change of one need not be noticed.
func (g *game) unnoticed() string {
	if g.brokered {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for n, at := range g.tampered {
		if end, ok := g.ended[n]; !ok || end.Sub(at) > 45*time.Second {
			return fmt.Sprintf("session %d was tampered with and went on for %v", n, end.Sub(at))
		}
	}
	return ""
}

// twice names a call that was carried out more often than its caller can think.
func (g *game) twice() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, err := range g.outcomes {
		n := g.executed[id]
		switch {
		case n > 1:
			return fmt.Sprintf("%s was carried out %d times", id, n)
		case err == nil && n != 1:
			return fmt.Sprintf("%s was answered and not carried out", id)
		case err != nil && n != 0 && strings.Contains(problem.From(err).Problem.Detail, "was not sent"):
			return fmt.Sprintf("%s was carried out and its caller told that it was not sent", id)
		}
	}
	return ""
}

func TestAHealthyPathNeedsOneSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		if said := play(plan{seed: 1, steps: 40, brokered: true}); said != "" {
			t.Error(said)
		}
		synctest.Wait()
	})
}
