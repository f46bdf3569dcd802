package replica

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func serverMessage(id, address string) *apiv1.Server {
	return &apiv1.Server{Id: id, PeerAddress: address}
}

func TestP21AJumpOfTheWallClockIsReportedAndDriftIsNot(t *testing.T) {
	wall, monotonic := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Duration(0)
	var jumps []time.Duration
	c := &clock{read: func() (time.Time, time.Duration) { return wall, monotonic }, jumped: func(by time.Duration) { jumps = append(jumps, by) }}
	c.wall, c.monotonic = c.read()
	pass := func(byMonotonic, byWall time.Duration) {
		monotonic, wall = monotonic+byMonotonic, wall.Add(byWall)
		if got := c.now(); !got.Equal(wall) {
			t.Fatalf("read %v at %v", got, wall)
		}
	}
	pass(time.Second, time.Second)
	pass(10*time.Hour, 10*time.Hour+6*time.Minute) // one per cent
	pass(10*time.Hour, 10*time.Hour-6*time.Minute)
	if len(jumps) != 0 {
		t.Fatalf("drift was taken for jumps: %v", jumps)
	}
	pass(time.Second, 3*time.Second)
	pass(time.Second, time.Second-10*365*24*time.Hour)
	pass(time.Second, time.Second)
	if want := []time.Duration{2 * time.Second, -10 * 365 * 24 * time.Hour}; !slices.Equal(jumps, want) {
		t.Fatalf("jumps %v, want %v", jumps, want)
	}
	c.monotonic += time.Minute // another goroutine has read later and come first
	pass(0, 0)
	if len(jumps) != 2 {
		t.Fatalf("an older reading was taken for a jump: %v", jumps)
	}
}

func TestTheClockHookIsCalledWhileNothingIsProposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jumped := make(chan time.Duration, 1)
		s := newSite(t, 1, newEther().weave, func(c *Config) { c.ClockJumped = func(by time.Duration) { jumped <- by } })
		defer s.close()
		c := s.nodes[0].clock
		c.mu.Lock()
		c.wall = c.wall.Add(-time.Hour) // as if it had stood an hour back
		c.mu.Unlock()
		if by := <-jumped; by.Round(time.Minute) != time.Hour {
			t.Errorf("reported %v", by)
		}
	})
}

// Whoever waits for an index is woken when it is reached, and not before.
func TestProgressWakesThoseWhoWaitForNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &progress{}
		type waiting struct {
			index uint64
			done  chan error
		}
		var all []waiting
		ctx, cancel := context.WithCancel(context.Background())
		for _, index := range rapid.SliceOf(rapid.Uint64Range(0, 20)).Draw(t, "waiters") {
			w := waiting{index, make(chan error, 1)}
			all = append(all, w)
			go func() { w.done <- p.wait(ctx, index) }()
		}
		var reached uint64
		for _, step := range rapid.SliceOf(rapid.Uint64Range(1, 8)).Draw(t, "steps") {
			reached += step
			p.advance(reached)
			for _, w := range all {
				if w.index <= reached {
					if err := <-w.done; err != nil {
						t.Fatal(err)
					}
					w.done <- nil
				} else {
					select {
					case <-w.done:
						t.Fatalf("who waits for %d was woken at %d", w.index, reached)
					default:
					}
				}
			}
		}
		cancel()
		for _, w := range all {
			if err := <-w.done; w.index > reached && !errors.Is(err, context.Canceled) {
				t.Fatalf("who waits for %d got %v at %d", w.index, err, reached)
			}
		}
		if len(p.waiters) != 0 {
			t.Fatalf("%d waiters are left", len(p.waiters))
		}
	})
}

func TestTheIdOfAnEncodedCommandIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cmd := put(rapid.String().Draw(t, "key"), rapid.String().Draw(t, "value"))
		if err := ensureID(cmd); err != nil {
			t.Fatal(err)
		}
		cmd.Actor = rapid.String().Draw(t, "actor")
		data, err := proto.Marshal(cmd)
		if err != nil {
			t.Skip("not UTF-8")
		}
		if id, ok := idOf(data); !ok || string(id[:]) != string(cmd.GetId()) {
			t.Fatalf("found %x, %v in %x", id, ok, data)
		}
	})
}

func TestDataThatIsNoCommandHasNoId(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		id, ok := idOf(data)
		cmd := &commandv1.Command{}
		if ok && proto.Unmarshal(data, cmd) == nil && len(cmd.GetId()) == len(id) && string(cmd.GetId()) != string(id[:]) {
			// A later field of the same number wins in protobuf; we never write two.
			t.Skip()
		}
	})
}

func TestAResultGoesToAllWhoWaitForItAndToNobodyElse(t *testing.T) {
	p := &pending{}
	cmd := put("k", "v")
	check(t, ensureID(cmd))
	data, err := proto.Marshal(cmd)
	check(t, err)
	one, forgetOne := p.await(commandID(cmd.GetId()))
	two, forgetTwo := p.await(commandID(cmd.GetId()))
	other, forgetOther := p.await(commandID{1})
	p.deliver(data, outcome{result: &commandv1.Result{Index: 7}})
	p.deliver(data, outcome{result: &commandv1.Result{Index: 8}}) // repeated: the first answer stands
	for _, c := range []<-chan outcome{one, two} {
		if o := <-c; o.result.GetIndex() != 7 {
			t.Errorf("got %v", o)
		}
	}
	select {
	case o := <-other:
		t.Errorf("another command got %v", o)
	default:
	}
	forgetOne()
	forgetTwo()
	forgetOther()
	if len(p.byID) != 0 {
		t.Errorf("%d are still waited for", len(p.byID))
	}
}
