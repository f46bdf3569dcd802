package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metricv1 "github.com/prometheus/client_model/go"

	"github.com/naru-project/naru/federation/wire"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAllClassesCrossOneSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.path = brokered
		for i := range 300 {
			w.zoneObjects.put(fmt.Sprintf("vm-%d", i))
			w.hubObjects.put(fmt.Sprintf("vm-%d", i))
		}
		w.start(t)
		for i := range 1000 {
			w.zoneLedger.write("zone", fmt.Sprint(i))
			w.hubLedger.write("kvm", fmt.Sprint(i))
		}
		w.zoneObjects.remove("vm-7")
		w.samples.Add(nil, []*apiv1.VMSample{{Vm: "vm-1", CpuRatio: 0.5}})
		out := &apiv1.GetVMResponse{}
		if err := w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, out); err != nil || out.Vm.Name != "web-1" {
			t.Errorf("the call answered %v, %v", out, err)
		}
		synctest.Wait()
		if said := w.settled(); said != "" {
			t.Error(said)
		}
		if len(w.box.vms) != 1 || w.hubCopies.fulls(w.zoneObjects) != 1 || w.dials != 1 {
			t.Errorf("%d samples, %d full syncs, %d sessions", len(w.box.vms), w.hubCopies.fulls(w.zoneObjects), w.dials)
		}
		if n := len(w.hub.Sessions()); n != 1 || w.hub.Sessions()[0].Peer.Zone != zoneID {
			t.Errorf("%d sessions", n)
		}
	})
}

func (c *copies) fulls(o *objects) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fulls
}

// settled says what has not arrived.
func (w *world) settled(without ...string) string {
	if said := w.hubCopies.differs(w.zoneObjects, without...); said != "" {
		return "up: " + said
	}
	if said := w.zoneCopies.differs(w.hubObjects, without...); said != "" {
		return "down: " + said
	}
	if said := arrived(w.zoneLedger, w.hubBook); said != "" {
		return "up: " + said
	}
	if said := arrived(w.hubLedger, w.zoneBook); said != "" {
		return "down: " + said
	}
	return ""
}

// arrived says which entry of a ledger the other end has not consumed once and in its place. Messages are their number.
func arrived(l *ledger, b *book) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for stream, n := range l.written {
		got := b.read(l.origin, stream)
		for i, message := range got {
			if message != fmt.Sprint(i) && message != "withheld" {
				return fmt.Sprintf("entry %d of %s came as the %dth", i, stream, i)
			}
		}
		if len(got) != int(n) {
			return fmt.Sprintf("%d of %d entries of %s came", len(got), n, stream)
		}
	}
	return ""
}

func TestASessionResumesWhereItsReceiversStand(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.zoneObjects.put("vm-1")
		w.zoneLedger.write("zone", "0")
		ctx, cut := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cut)
		w.once(ctx)
		w.zoneObjects.put("vm-2")
		w.zoneLedger.write("zone", "1")
		w.start(t)
		if said := w.settled(); said != "" {
			t.Error(said)
		}
		if w.zoneObjects.fulls != 1 {
			t.Errorf("%d full syncs", w.zoneObjects.fulls)
		}
	})
}

func TestAGapIsClosedByAFullSync(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		for i := range 300 {
			w.zoneObjects.put(fmt.Sprintf("vm-%d", i))
		}
		w.start(t)
		w.hubCopies.mu.Lock()
		w.hubCopies.point.Revision = 5 // it was restored under the session's feet
		clear(w.hubCopies.holds)
		w.hubCopies.mu.Unlock()
		w.zoneObjects.put("vm-300")
		synctest.Wait()
		if said := w.settled(); said != "" {
			t.Error(said)
		}
		if w.zoneObjects.fulls != 2 || w.dials != 1 {
			t.Errorf("%d full syncs, %d sessions", w.zoneObjects.fulls, w.dials)
		}
	})
}

func TestANewIncarnationIsSyncedInFullAndDeletesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.zoneObjects.put("vm-1")
		w.zoneObjects.put("vm-2")
		ctx, cut := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cut)
		w.once(ctx)
		// etcd restored from an older backup: vm-2 is not in it.
		w.zoneObjects = newObjects(0, "second")
		w.zoneObjects.put("vm-1")
		w.numbers.Incarnation = "second"
		w.build().start(t)
		if w.hubCopies.holds["vm-1"] != 1 || w.hubCopies.holds["vm-2"] != 2 || w.hubCopies.point.Incarnation != "second" {
			t.Errorf("holds %v at %v", w.hubCopies.holds, w.hubCopies.point)
		}
	})
}

func TestAReceiverThatWasRestoredIsSentTheJournalAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.zoneLedger.keep = true
		for i := range 10 {
			w.zoneLedger.write("zone", fmt.Sprint(i))
		}
		ctx, cut := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cut)
		w.once(ctx)
		k := streamKey{"first", "zone"}
		w.hubBook.points[k], w.hubBook.consumed[k] = 4, w.hubBook.consumed[k][:4]
		w.start(t)
		if said := arrived(w.zoneLedger, w.hubBook); said != "" {
			t.Error(said)
		}
	})
}

func TestRejectedEntriesAreToldToTheirWriter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.hubBook.reject = nil
		w.start(t)
		w.zoneLedger.write("zone", "0")
		synctest.Wait()
		if len(w.zoneLedger.rejected) != 0 {
			t.Error("accepted and told as rejected")
		}
	})
}

func TestAFailingSinkEndsTheSessionAndLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.hubTrouble.random, w.hubTrouble.rate = newRandom(1), 1
		w.zoneLedger.write("zone", "0")
		zone, hub := w.once(t.Context())
		var g *Goodbye
		if !errors.Is(hub, errDisk) || !errors.As(zone, &g) || g.Code != CodeShuttingDown || !g.Remote {
			t.Errorf("zone %v, hub %v", zone, hub)
		}
		w.hubTrouble.heal()
		w.start(t)
		if said := w.settled(); said != "" {
			t.Error(said)
		}
	})
}

func TestAnIdleSessionLivesAndASilentOneEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		ctx, cut := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cut)
		began := time.Now()
		zone, hub := w.once(ctx)
		if !errors.Is(zone, context.Canceled) || time.Since(began) != time.Hour {
			t.Errorf("an idle session ended after %v: %v, %v", time.Since(began), zone, hub)
		}
		// The path takes everything and delivers nothing.
		w.path = func(ctx context.Context, _ int, zone, hub *MemoryStream) {
			n := 0
			relay(zone, hub, func(f *frame) ([]*frame, []*frame) {
				if n++; n > 2 {
					<-ctx.Done()
				}
				return pass(f)
			}, pass)
		}
		began = time.Now()
		zone, hub = w.once(t.Context())
		if !errors.Is(hub, ErrSilent) || time.Since(began) > time.Minute {
			t.Errorf("after %v: zone %v, hub %v", time.Since(began), zone, hub)
		}
	})
}

func TestANewerSessionSupersedesTheOlder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		first := w.zone
		ends := make(chan error, 1)
		bounded, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		w.wg.Go(func() { ends <- first.Run(bounded, w.dial(bounded)) })
		synctest.Wait()
		w.zone = nil
		ctx, cancel := context.WithCancel(t.Context())
		hub := w.hub
		w.build()
		w.hub = hub
		w.wg.Go(func() { w.zone.Run(ctx, w.dial(ctx)) })
		synctest.Wait()
		var g *Goodbye
		if err := <-ends; !errors.As(err, &g) || g.Code != CodeSuperseded || !g.Remote {
			t.Errorf("the older session ended with %v", err)
		}
		if n := len(w.hub.Sessions()); n != 1 || !w.zone.Connected() || first.Connected() {
			t.Errorf("%d sessions", n)
		}
		cancel()
		w.wg.Wait()
	})
}

// P12: what is revoked is cut off.
func TestARevokedZoneIsCutOffAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.wg.Go(func() {
			time.Sleep(time.Minute)
			if w.hub.End(zoneID, "other", CodeRevoked, "another agent") {
				t.Error("a session of another agent was ended")
			}
			w.hub.End(zoneID, "a1", CodeRevoked, "revoked by an administrator")
		})
		began := time.Now()
		zone, _ := w.once(t.Context())
		var g *Goodbye
		if !errors.As(zone, &g) || g.Code != CodeRevoked || time.Since(began) > time.Minute+2*time.Second {
			t.Errorf("after %v: %v", time.Since(began), zone)
		}
	})
}

func TestAZoneThatIsNotAdmittedHearsWhyAndDisturbsNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.start(t)
		running := w.zone
		hub := w.hub
		w.mu.Lock()
		w.refused = &Goodbye{Code: CodeQuarantined, Reason: "an administrator looks into it"}
		w.mu.Unlock()
		w.build()
		w.hub = hub
		zone := w.zone.Run(t.Context(), w.dial(t.Context()))
		var g *Goodbye
		if !errors.As(zone, &g) || g.Code != CodeQuarantined || !g.Remote || g.Reason != "an administrator looks into it" {
			t.Errorf("the zone hears %v", zone)
		}
		if n := len(hub.Sessions()); n != 1 || !running.Connected() {
			t.Errorf("%d sessions are left, the one that was running lives: %v", n, running.Connected())
		}
	})
}

func TestANumberThatGoesBackwardsEndsTheSessionAtBothEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*world)
		want   error
	}{
		{"an older epoch", func(w *world) { w.numbers.Epoch, w.numbers.EpochID = w.epoch+1, w.epochID }, ErrOldEpoch},
		{"the same epoch with another id", func(w *world) { w.numbers.Epoch, w.numbers.EpochID = w.epoch, []byte("another") }, ErrQuarantine},
		{"a store gone backwards", func(w *world) { w.lost = true }, ErrIncarnationLost},
		{"no epoch", func(w *world) { w.epoch = 0 }, ErrProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld().build()
				c.change(w)
				w.hubObjects.put("vm-1")
				zone, hub := w.once(t.Context())
				if !errors.Is(zone, c.want) || !errors.Is(hub, c.want) {
					t.Errorf("zone %v, hub %v", zone, hub)
				}
				if len(w.zoneCopies.holds) != 0 || len(w.opened) != 0 {
					t.Error("something flowed before")
				}
			})
		})
	}
}

func TestTheLowestSchemaOnThePathBindsBoth(t *testing.T) {
	for _, c := range []struct{ zone, zonePath, hubPath, hub, want uint32 }{
		{3, 0, 0, 2, 2}, {3, 2, 4, 5, 2}, {3, 4, 1, 5, 1}, {1, 0, 0, 7, 1}, {2, 2, 2, 2, 2},
	} {
		bubble(t, func(t *testing.T) {
			w := newWorld().build()
			w.zone.Schema, w.hub.Schema = c.zone, c.hub
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			zoneErr := w.zone.Run(ctx, func(ctx context.Context) (Path, error) {
				zone, hub := Pipe(ctx, 4)
				w.wg.Go(func() {
					_ = w.hub.Run(ctx, func(context.Context) (Path, error) { return Path{Stream: hub, Schema: c.hubPath}, nil })
					hub.Close()
				})
				return Path{Stream: zone, Schema: c.zonePath}, nil
			})
			w.wg.Wait()
			if len(w.opened) != 1 || w.opened[0].Schema != c.want {
				t.Errorf("%v: agreed on %v, %v", c, w.opened, zoneErr)
			}
		})
	}
}

func TestAnEndSaysGoodbyeWhenItsContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(&Goodbye{Code: CodeNoLeader, Reason: "no leader for two seconds"}) })
		zone := w.zone.Run(t.Context(), w.dial(ctx))
		w.wg.Wait()
		var g *Goodbye
		if !errors.As(zone, &g) || g.Code != CodeNoLeader || !g.Remote {
			t.Errorf("zone %v", zone)
		}
	})
}

func TestOneEndRunsOneSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.start(t)
		if err := w.zone.Run(t.Context(), w.dial(t.Context())); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
	})
}

func TestAFarEndThatDoesNotAnswerIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		began := time.Now()
		err := w.zone.Run(t.Context(), func(ctx context.Context) (Path, error) {
			zone, _ := Pipe(ctx, 4)
			return Path{Stream: zone}, nil
		})
		if !errors.Is(err, ErrSilent) || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestMetricsCountByClassAndDirection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.zoneObjects.put("vm-1")
		w.zoneLedger.write("zone", "0")
		w.start(t)
		if n := figure(w.zoneMetrics.sending[wire.ClassState][0].frames); n != 1 {
			t.Errorf("%v chunks sent", n)
		}
		if n := figure(w.hubMetrics.receiving[wire.ClassJournal][0].frames); n != 1 {
			t.Errorf("%v batches received", n)
		}
		if n := figure(w.hubMetrics.sessions); n != 1 {
			t.Errorf("%v sessions", n)
		}
	})
}

func TestSamplesNeverWaitAndTheirLossIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		for i := range 1500 {
			w.samples.Add(nil, []*apiv1.VMSample{{Vm: fmt.Sprint(i)}})
		}
		w.start(t)
		if len(w.box.vms) != 1000 || w.box.vms[0] != "500" || w.box.dropped != 500 || !slices.Contains(w.box.vms, "1499") {
			t.Errorf("%d samples from %s, %d dropped", len(w.box.vms), w.box.vms[0], w.box.dropped)
		}
	})
}

// figure reads a counter or gauge.
func figure(m prometheus.Metric) float64 {
	out := &metricv1.Metric{}
	if err := m.Write(out); err != nil {
		panic(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}
