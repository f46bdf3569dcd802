package link

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// narrow is a path that carries so many bytes a second.
func narrow(rate int) func(*frame) ([]*frame, []*frame) {
	return func(f *frame) ([]*frame, []*frame) {
		time.Sleep(time.Duration(len(f.Payload)+100) * time.Second / time.Duration(rate))
		return pass(f)
	}
}

// P26: I8. Over a path of 1 MiB/s, 20 MiB of state and a flood of samples go up; calls and journal take their turn.
func TestBulkNeverStarvesCallsAndJournal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.samples = NewSamples(100000, w.zoneMetrics)
		w.build()
		w.zoneObjects.mu.Lock()
		for i := range 1300 {
			w.zoneObjects.revision++
			id := fmt.Sprintf("vm-%d", i)
			w.zoneObjects.table[id] = &linkv1.Object{Revision: w.zoneObjects.revision, Noun: &linkv1.Object_Vm{
				Vm: &apiv1.VM{Id: id, UserData: strings.Repeat("x", 16000)}}}
		}
		w.zoneObjects.mu.Unlock()
		for range 100000 {
			w.samples.Add(nil, []*apiv1.VMSample{{Vm: strings.Repeat("x", 60), Project: strings.Repeat("y", 60)}})
		}
		w.path = func(_ context.Context, _ int, zone, hub *MemoryStream) {
			relay(zone, hub, narrow(1<<20), narrow(1<<20))
		}
		began := time.Now()
		w.start(t)
		for !w.zone.Connected() {
			time.Sleep(time.Millisecond)
		}
		slowest := time.Duration(0)
		for i := range 8 {
			before := time.Now()
			if err := w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{}); err != nil {
				t.Fatal(err)
			}
			w.zoneLedger.write("zone", fmt.Sprint(i))
			for arrived(w.zoneLedger, w.hubBook) != "" {
				time.Sleep(10 * time.Millisecond)
			}
			slowest = max(slowest, time.Since(before))
		}
		if w.hubCopies.differs(w.zoneObjects) == "" {
			t.Fatalf("the bulk was over after %v: nothing was shown", time.Since(began))
		}
		if slowest > 8*time.Second {
			t.Errorf("a call and an entry took %v", slowest)
		}
		if said := await(5*time.Minute, func() string { return w.hubCopies.differs(w.zoneObjects) }); said != "" {
			t.Error(said)
		}
		if w.dials != 1 {
			t.Errorf("%d sessions", w.dials)
		}
	})
}

func TestManyStreamsShareTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		for s := range 40 {
			for i := range 700 {
				w.zoneLedger.write(fmt.Sprintf("cluster-%d", s), fmt.Sprint(i))
			}
		}
		w.start(t)
		if said := arrived(w.zoneLedger, w.hubBook); said != "" {
			t.Error(said)
		}
		if w.hubBook.batches != 40*3 {
			t.Errorf("%d batches", w.hubBook.batches)
		}
	})
}

// I7: a sink that hangs holds up its class and no other, and the session goes on.
func TestASlowSinkHoldsUpOnlyItsClass(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		slow := &trouble{slow: make(chan struct{})}
		w.hubCopies = newCopies(slow)
		w.build()
		for i := range 500 {
			w.zoneObjects.put(fmt.Sprintf("vm-%d", i))
		}
		w.start(t)
		for i := range 600 {
			w.zoneLedger.write("zone", fmt.Sprint(i))
		}
		if err := w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{}); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if said := arrived(w.zoneLedger, w.hubBook); said != "" {
			t.Error(said)
		}
		if w.dials != 1 || w.hubCopies.commits != 0 {
			t.Errorf("%d sessions, %d commits", w.dials, w.hubCopies.commits)
		}
		close(slow.slow)
		synctest.Wait()
		if said := w.settled(); said != "" {
			t.Error(said)
		}
	})
}
