package replica

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/state"
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
		c.now()
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

// TestP21NothingExpiresOnTheStrengthOfAClockThatHasJumped: the time goes on at its pace, and follows once the clock has stood.
func TestP21NothingExpiresOnTheStrengthOfAClockThatHasJumped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		wall, monotonic, truth := start, time.Duration(0), start
		c := &clock{read: func() (time.Time, time.Duration) { return wall, monotonic }, jumped: func(time.Duration) {}}
		c.wall, c.monotonic = c.read()
		pass := func(d time.Duration) {
			wall, monotonic, truth = wall.Add(d), monotonic+d, truth.Add(d)
		}
		for i := range rapid.IntRange(1, 5).Draw(t, "jumps") {
			// What a jump back misses by, and is too little to be a jump, is followed: so much for each.
			floor := time.Duration(i+1) * jumpFloor
			pass(time.Duration(rapid.Int64Range(0, int64(settleTime-2*time.Minute)).Draw(t, "quiet")))
			c.now()
			by := time.Duration(rapid.Int64Range(int64(2*time.Minute), int64(10*365*24*time.Hour)).Draw(t, "by"))
			if rapid.Bool().Draw(t, "back") {
				by = -by
			}
			wall = wall.Add(by)
			if got := c.now(); got.Sub(truth).Abs() > floor {
				t.Fatalf("it is %v, and after a jump by %v the clock says %v", truth, by, got)
			}
			pass(time.Minute)
			if got := c.now(); got.Sub(truth).Abs() > floor {
				t.Fatalf("it is %v, and a minute after a jump by %v the clock says %v", truth, by, got)
			}
		}
		pass(settleTime)
		if got := c.now(); !got.Equal(wall) {
			t.Fatalf("the wall clock has stood at %v, and is not followed: %v", wall, got)
		}
	})
}

func TestAClockThatIsSetRightIsFollowedAtOnce(t *testing.T) {
	wall, monotonic := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Duration(0)
	c := &clock{read: func() (time.Time, time.Duration) { return wall, monotonic }, jumped: func(time.Duration) {}}
	c.wall, c.monotonic = c.read()
	wall = wall.Add(24 * time.Hour)
	c.now()
	wall, monotonic = wall.Add(time.Minute-24*time.Hour), time.Minute
	if got := c.now(); !got.Equal(wall) {
		t.Fatalf("at %v it says %v", wall, got)
	}
}

func TestP21AJumpOfTheWallClockIsAnEventThatNamesTheServer(t *testing.T) {
	realSite(t, 2, func(t *testing.T, s *site, databases map[string]*state.DB) {
		n := s.follower()
		n.clock.mu.Lock()
		n.clock.wall = n.clock.wall.Add(-time.Hour) // as if it had stood an hour back
		n.clock.mu.Unlock()
		pause(t.Context(), 2*clockInterval)
		for id, db := range databases {
			if said := events(t, db, "server.clock"); len(said) != 1 || !strings.Contains(said[0], "of server "+n.id+" has jumped by 1h0m0s") {
				t.Errorf("%s tells %q", id, said)
			}
		}
	})
}

func TestAJumpIsCountedAndHeldBackWhileNothingIsProposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		s := newSite(t, 1, newEther().weave, func(c *Config) { c.Metrics = registry })
		defer s.close()
		c := s.nodes[0].clock
		c.mu.Lock()
		c.wall = c.wall.Add(-time.Hour) // as if it had stood an hour back
		c.mu.Unlock()
		pause(t.Context(), 2*clockInterval)
		families, err := registry.Gather()
		check(t, err)
		for _, f := range families {
			if n := f.GetMetric()[0].GetCounter().GetValue(); f.GetName() == "naru_raft_clock_jumps_total" && n != 1 {
				t.Errorf("%v jumps were counted", n)
			}
		}
		if behind := time.Since(s.nodes[0].Now()); behind.Round(time.Minute) != time.Hour {
			t.Errorf("the time that counts is %v behind", behind)
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
