package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// poison is a message that no broker lets through: the rule is 2048 characters.
var poison = strings.Repeat("x", 2049)

func TestOfABatchOnlyTheRefusedEntryIsWithheld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.path = brokered
		for i := range 300 {
			message := fmt.Sprint(i)
			if i == 5 || i == 6 || i == 299 {
				message = poison
			}
			w.zoneLedger.write("zone", message)
			w.zoneLedger.write("kvm", fmt.Sprint(i))
		}
		w.start(t)
		if said := arrived(w.zoneLedger, w.hubBook); said != "" {
			t.Error(said)
		}
		if len(w.hubBook.withheld) != 3 || w.dials != 1 {
			t.Fatalf("%d withheld, %d sessions", len(w.hubBook.withheld), w.dials)
		}
		for i, want := range []uint64{6, 7, 300} {
			e := w.hubBook.withheld[i]
			if e.Entry.Sequence != want || e.Entry.Stream != "zone" || !strings.HasPrefix(e.Reason, "RULES: ") {
				t.Errorf("withheld %v", e)
			}
		}
		// Behind the bad ones, entries travel together again.
		if w.hubBook.batches > 300 {
			t.Errorf("%d batches", w.hubBook.batches)
		}
	})
}

func TestAnObjectThatABrokerRefusesIsLeftOutAndTheRestConverges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.path = brokered
		var skipped []string
		w.zone.config.Skipped = func(o *linkv1.Object, reason string) {
			skipped = append(skipped, o.GetVm().Id)
			if !strings.HasPrefix(reason, "RULES: ") {
				t.Errorf("skipped because of %q", reason)
			}
		}
		w.zoneObjects.putPoison("bad-0")
		w.zoneObjects.put("vm-1", "vm-2", "vm-3")
		w.zoneObjects.putPoison("bad-1")
		w.zoneObjects.put("vm-4")
		w.start(t)
		w.zoneObjects.putPoison("bad-2")
		synctest.Wait()
		w.zoneObjects.put("vm-5")
		w.zoneObjects.remove("vm-4")
		synctest.Wait()
		if said := w.hubCopies.differs(w.zoneObjects, "bad-0", "bad-1", "bad-2"); said != "" {
			t.Error(said)
		}
		if !slices.Equal(skipped, []string{"bad-0", "bad-1", "bad-2"}) || w.dials != 1 {
			t.Errorf("skipped %v, %d sessions", skipped, w.dials)
		}
	})
}

func TestACallThatABrokerRefusesFailsWithTheReason(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
			var in apiv1.GetVMRequest
			_ = proto.Unmarshal(c.Body, &in)
			answer := &apiv1.GetVMResponse{Vm: &apiv1.VM{Name: in.Vm}}
			if in.Vm == "leak" {
				answer.Vm.Generation = &apiv1.Generation{Epoch: 1}
			}
			return c.Send(ctx, must(proto.Marshal(answer)))
		})
		w.path = brokered
		w.build().start(t)
		for name, want := range map[string]problem.Code{"": problem.Invalid, "web-1": "", "leak": problem.Refused} {
			err := w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: name}, &apiv1.GetVMResponse{})
			if want == "" && err != nil || want != "" && !problem.Is(problem.FromStatus(err), want) {
				t.Errorf("%q: %v", name, err)
			}
		}
		synctest.Wait()
		if w.dials != 1 || len(w.live().live) != 0 {
			t.Errorf("%d sessions, %d calls live", w.dials, len(w.live().live))
		}
	})
}

func TestARefusedStreamMessageEndsTheStreamAtBothEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		stopped := make(chan error, 1)
		w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
			leak := must(proto.Marshal(&apiv1.WatchVMsResponse{Vm: &apiv1.VM{Force: true}}))
			for {
				if err := c.Send(ctx, leak); err != nil {
					stopped <- err
					return err
				}
			}
		})
		w.path = brokered
		w.build().start(t)
		stream, err := watch(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !problem.Is(problem.FromStatus(err), problem.Refused) {
			t.Error(err)
		}
		if err := <-stopped; err == nil {
			t.Error("the handler was not stopped")
		}
		synctest.Wait()
		if w.dials != 1 {
			t.Errorf("%d sessions", w.dials)
		}
	})
}

func TestRefusedSamplesAreDroppedAndCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.path = brokered
		w.start(t)
		w.samples.Add(nil, []*apiv1.VMSample{{Vm: strings.Repeat("x", 65)}})
		synctest.Wait()
		w.samples.Add(nil, []*apiv1.VMSample{{Vm: "good"}})
		synctest.Wait()
		if !slices.Equal(w.box.vms, []string{"good"}) || w.dials != 1 {
			t.Errorf("%v, %d sessions", w.box.vms, w.dials)
		}
		if n := figure(w.zoneMetrics.frameRefused.WithLabelValues("sample", "up")); n != 1 {
			t.Errorf("%v refused", n)
		}
	})
}

func TestABrokerThatWithholdsTheOpeningIsNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.path = brokered
		w.numbers.Incarnation = strings.Repeat("x", 65)
		zone, hub := w.once(t.Context())
		for _, err := range []error{zone, hub} {
			if err == nil || !strings.Contains(err.Error(), "HELLO: RULES") {
				t.Errorf("%v", err)
			}
		}
	})
}
