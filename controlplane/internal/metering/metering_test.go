package metering

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// kind is what time is counted by.
type kind struct {
	state apiv1.VM_State
	cores uint32
}

// tally is what each second is counted as, by the sum of all that was written.
type tally map[int64]map[kind]int

func (y tally) add(s Span, n int) {
	if s.empty() {
		return
	}
	for at := s.From; at < s.Until; at++ {
		if y[at] == nil {
			y[at] = map[kind]int{}
		}
		k := kind{s.State, s.Size.GetCores()}
		if y[at][k] += n; y[at][k] == 0 {
			delete(y[at], k)
		}
		if len(y[at]) == 0 {
			delete(y, at)
		}
	}
}

func (y tally) take(out Outcome) {
	y.add(out.Span, 1)
	y.adjust(out.Adjustments)
}

func (y tally) adjust(all []Adjustment) {
	for _, a := range all {
		if n := 1; a.Subtracts {
			y.add(a.Span, -n)
		} else {
			y.add(a.Span, n)
		}
	}
}

func at(s int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: s} }

func cores(n uint32) *apiv1.Resources { return &apiv1.Resources{Cores: n} }

// chain is what an honest zone writes.
type chain struct {
	origin, clock string
	newest        *apiv1.VM_Usage
}

type sent struct {
	origin string
	link   *linkv1.Usage
}

// to writes the next link.
func (c *chain) to(now int64, state apiv1.VM_State, size *apiv1.Resources) sent {
	was := c.newest
	c.newest = &apiv1.VM_Usage{Number: was.GetNumber() + 1, IncarnationId: c.origin, ClockId: c.clock, At: at(now), State: state, Size: size}
	return sent{c.origin, &linkv1.Usage{VmId: "vm-1", State: state, Size: size, Number: c.newest.GetNumber(), At: at(now), ClockId: c.clock, Was: was}}
}

func (s sent) into(t interface{ Fatalf(string, ...any) }, h *commandv1.UsageHead, now int64) Outcome {
	if why := Fault(s.link); why != "" {
		t.Fatalf("%v: %s", s.link, why)
	}
	return Take(h, s.origin, proto.CloneOf(s.link), 0, now)
}

var (
	alive  = []apiv1.VM_State{apiv1.VM_RUNNING, apiv1.VM_STOPPED, apiv1.VM_TRASHED, apiv1.VM_ERROR}
	states = append([]apiv1.VM_State{apiv1.VM_DELETED}, alive...)
)

// P5: what an honest zone says, in whatever order it comes, sums up to what was.
func TestP5LinksInAnyOrderSumUpToTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &chain{origin: "a", clock: "c"}
		truth, got, now := tally{}, tally{}, int64(1000)
		var all []sent
		lives := rapid.IntRange(1, 3).Draw(t, "lives")
		for life := range lives {
			c.origin = fmt.Sprint("life-", life)
			for range rapid.IntRange(1, 6).Draw(t, "links") {
				state, size := rapid.SampledFrom(alive).Draw(t, "state"), cores(rapid.Uint32Range(1, 3).Draw(t, "cores"))
				if was := c.newest; was != nil {
					truth.add(Span{was.GetAt().GetSeconds(), now, was.GetState(), was.GetSize()}, 1)
				}
				all = append(all, c.to(now, state, size))
				now += rapid.Int64Range(0, 20).Draw(t, "seconds")
			}
		}
		truth.add(Span{c.newest.GetAt().GetSeconds(), now, c.newest.GetState(), c.newest.GetSize()}, 1)
		all = append(all, c.to(now, apiv1.VM_DELETED, nil))
		h := &commandv1.UsageHead{}
		for _, i := range rapid.Permutation(indices(len(all))).Draw(t, "order") {
			got.take(all[i].into(t, h, now+rapid.Int64Range(0, 1e6).Draw(t, "late")))
		}
		if fmt.Sprint(got) != fmt.Sprint(truth) {
			t.Fatalf("summed up %v, and it was %v; head %v", got, truth, h)
		}
		if !h.GetEnded() || len(h.GetGaps()) != 0 {
			t.Fatalf("left over: %v", h)
		}
	})
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// P5, P15: whatever a zone says, no second is counted twice, none less than not at all, and none of a VM that is there not at all.
func TestP15NoSecondIsCountedTwiceWhateverAZoneSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, got, now := &commandv1.UsageHead{}, tally{}, int64(50)
		short := rapid.Int64Range(0, 120)
		words := rapid.SampledFrom([]string{"a", "b", ""})
		first := int64(-1)
		for range rapid.IntRange(1, 12).Draw(t, "links") {
			u := &linkv1.Usage{VmId: "vm-1", State: rapid.SampledFrom(states).Draw(t, "state"), Size: cores(rapid.Uint32Range(1, 2).Draw(t, "cores")),
				Number: rapid.Uint32Range(1, 8).Draw(t, "number"), At: at(short.Draw(t, "at")), ClockId: words.Draw(t, "clock")}
			if u.GetNumber() > 1 && rapid.Bool().Draw(t, "was") {
				u.Was = &apiv1.VM_Usage{Number: u.GetNumber() - 1, IncarnationId: words.Draw(t, "incarnation"), ClockId: words.Draw(t, "its clock"),
					At: at(short.Draw(t, "since")), State: rapid.SampledFrom(alive).Draw(t, "was state"), Size: cores(rapid.Uint32Range(1, 2).Draw(t, "was cores"))}
			}
			ended := h.GetEnded()
			before := h.GetCounted()
			got.take(sent{words.Draw(t, "origin"), u}.into(t, h, now))
			if h.GetCounted() < before {
				t.Fatalf("it is counted up to %d, and was up to %d", h.GetCounted(), before)
			}
			if first < 0 || ended && !h.GetEnded() {
				first = h.GetCounted()
			}
			for at, kinds := range got {
				for k, n := range kinds {
					if n != 1 || len(kinds) != 1 {
						t.Fatalf("second %d is counted %d times as %v, of %v", at, n, k, kinds)
					}
				}
			}
			for at := first; at < h.GetCounted(); at++ {
				if got[at] == nil {
					t.Fatalf("second %d is not counted; it is from %d to %d: %v", at, first, h.GetCounted(), h)
				}
			}
			now += rapid.Int64Range(0, 20).Draw(t, "seconds")
		}
	})
}

// say is what is looked at of an outcome.
func say(out Outcome) string {
	text := fmt.Sprintf("%v %d-%d %v", out.Kind, out.From, out.Until, out.Marks)
	for _, a := range out.Adjustments {
		sign := "+"
		if a.Subtracts {
			sign = "-"
		}
		text += fmt.Sprintf(" %s%v %d-%d", sign, a.State, a.From, a.Until)
	}
	return text
}

func TestALinkThatFitsIsARecordAndNothingElse(t *testing.T) {
	c, h := &chain{origin: "a", clock: "c"}, &commandv1.UsageHead{}
	for _, step := range []struct {
		sent sent
		want string
	}{
		{c.to(100, apiv1.VM_RUNNING, cores(1)), "BEGUN 100-100 []"},
		{c.to(160, apiv1.VM_STOPPED, cores(1)), "STOPPED 100-160 []"},
		{c.to(170, apiv1.VM_STOPPED, cores(2)), "RESIZED 160-170 []"},
		{c.to(180, apiv1.VM_RUNNING, cores(2)), "STARTED 170-180 []"},
		{c.to(190, apiv1.VM_ERROR, cores(2)), "BROKEN 180-190 []"},
		{c.to(195, apiv1.VM_ERROR, cores(2)), "CONTINUED 190-195 []"},
		{c.to(200, apiv1.VM_TRASHED, cores(2)), "TRASHED 195-200 []"},
		{c.to(210, apiv1.VM_DELETED, nil), "ENDED 200-210 []"},
	} {
		if got := say(step.sent.into(t, h, 1000)); got != step.want {
			t.Errorf("%s, not %s", got, step.want)
		}
	}
	c.newest = &apiv1.VM_Usage{Number: 7, IncarnationId: "a", ClockId: "c", At: at(200), State: apiv1.VM_TRASHED, Size: cores(2)}
	c.origin = "b" // a store that was put back to before the end
	if got := say(c.to(220, apiv1.VM_DELETED, nil).into(t, h, 1000)); got != "ENDED 200-220 [AFTER_END] -TRASHED 200-220" {
		t.Errorf("after its end: %s", got)
	}
}

// A broker withholds a link, or the control plane has forgotten it: the next one tells since when what it ended was used.
func TestALinkThatIsMissingIsFilledAndTakenAwayWhenItComes(t *testing.T) {
	c, h := &chain{origin: "a", clock: "c"}, &commandv1.UsageHead{}
	c.to(100, apiv1.VM_RUNNING, cores(1)).into(t, h, 1000)
	second, third := c.to(160, apiv1.VM_STOPPED, cores(1)), c.to(200, apiv1.VM_RUNNING, cores(1))
	if got := say(third.into(t, h, 1000)); got != "STARTED 160-200 [GAP] +RUNNING 100-160" {
		t.Errorf("the third: %s", got)
	}
	if got := say(second.into(t, h, 1000)); got != "STOPPED 100-160 [LATE] -RUNNING 100-160" {
		t.Errorf("the second: %s", got)
	}
	if got := say(second.into(t, h, 1000)); got != "STOPPED 100-160 [REPEATED] -RUNNING 100-160" {
		t.Errorf("the second once more: %s", got)
	}
}

// The zone's store is put back to a backup, and what it says of the time since then is older than what it had told.
func TestAStoreThatWasPutBackIsNotBelievedOfWhatItHasForgotten(t *testing.T) {
	c, h := &chain{origin: "a", clock: "c"}, &commandv1.UsageHead{}
	c.to(100, apiv1.VM_RUNNING, cores(1)).into(t, h, 1000)
	backup := c.newest
	c.to(200, apiv1.VM_STOPPED, cores(1)).into(t, h, 1000)
	c.to(300, apiv1.VM_STOPPED, cores(4)).into(t, h, 1000)
	c.newest, c.origin = backup, "b"
	if got := say(c.to(400, apiv1.VM_RUNNING, cores(1)).into(t, h, 1000)); got != "CONTINUED 100-400 [PUT_BACK] -RUNNING 100-400 +STOPPED 300-400" {
		t.Errorf("%s", got)
	}
	if got := say(c.to(450, apiv1.VM_DELETED, nil).into(t, h, 1000)); got != "ENDED 400-450 []" {
		t.Errorf("after it: %s", got)
	}
	c, h = &chain{origin: "a", clock: "c"}, &commandv1.UsageHead{}
	c.to(100, apiv1.VM_RUNNING, cores(1)).into(t, h, 1000)
	c.newest, c.origin = nil, "b" // it began anew, and found the VM
	if got := say(c.to(400, apiv1.VM_RUNNING, cores(1)).into(t, h, 1000)); got != "CONTINUED 400-400 [PUT_BACK] +RUNNING 100-400" {
		t.Errorf("anew: %s", got)
	}
}

// P21: a zone whose clock is wrong neither lengthens nor shortens what it can measure, and what it says of the future is cut.
func TestP21AWrongClockOfAZoneIsNotBelieved(t *testing.T) {
	const decade = 10 * 365 * 24 * 3600
	c, h := &chain{origin: "a", clock: "right"}, &commandv1.UsageHead{}
	c.to(100, apiv1.VM_RUNNING, cores(1)).into(t, h, 101)
	c.clock = "ahead" // its machine was started anew, with a wrong time
	if got, want := say(c.to(decade, apiv1.VM_STOPPED, cores(1)).into(t, h, 200)), fmt.Sprintf("STOPPED 100-%d [TWO_CLOCKS AHEAD] -RUNNING 100-%[1]d +RUNNING 100-200", decade); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got, want := say(c.to(decade+50, apiv1.VM_RUNNING, cores(1)).into(t, h, 260)), fmt.Sprintf("STARTED %d-%d [] -STOPPED %[1]d-%[2]d +STOPPED 200-250", decade, decade+50); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	c.clock = "mended"
	if got, want := say(c.to(300, apiv1.VM_STOPPED, cores(1)).into(t, h, 301)), "STOPPED 300-300 [TWO_CLOCKS BEHIND] +RUNNING 250-300"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	c.clock = "behind"
	if got, want := say(c.to(10, apiv1.VM_RUNNING, cores(1)).into(t, h, 400)), "STARTED 10-10 [TWO_CLOCKS BEHIND]"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got, want := say(c.to(60, apiv1.VM_DELETED, nil).into(t, h, 450)), "ENDED 10-60 [] -RUNNING 10-60 +RUNNING 300-350"; got != want {
		t.Errorf("by one clock the span is right: %s, not %s", got, want)
	}
}

// A zone cannot say that a VM was used before anybody asked for it.
func TestNothingIsUsedBeforeItWasAskedFor(t *testing.T) {
	c, h := &chain{origin: "a", clock: "c"}, &commandv1.UsageHead{}
	if got := say(Take(h, "a", c.to(10, apiv1.VM_RUNNING, cores(1)).link, 1000, 2000)); got != "BEGUN 10-10 [BEHIND]" || h.GetCounted() != 1000 {
		t.Errorf("%s, counted up to %d", got, h.GetCounted())
	}
	if got := say(c.to(70, apiv1.VM_STOPPED, cores(1)).into(t, h, 2000)); got != "STOPPED 10-70 [] -RUNNING 10-70 +RUNNING 1000-1060" {
		t.Errorf("and by its clock %s", got)
	}
	c, h = &chain{origin: "a", clock: "c"}, &commandv1.UsageHead{}
	c.to(10, apiv1.VM_RUNNING, cores(1))
	if got := say(Take(h, "a", c.to(1500, apiv1.VM_STOPPED, cores(1)).link, 1000, 2000)); got != "STOPPED 10-1500 [BEHIND GAP] -RUNNING 10-1500 +RUNNING 1000-1500" {
		t.Errorf("the second came first: %s", got)
	}
}

func TestAVMThatIsMadeAnewBeginsAgain(t *testing.T) {
	c, h := &chain{origin: "a", clock: "c"}, &commandv1.UsageHead{}
	c.to(100, apiv1.VM_RUNNING, cores(1)).into(t, h, 1000)
	c.to(200, apiv1.VM_DELETED, nil).into(t, h, 1000)
	c.newest = nil
	if got := say(c.to(300, apiv1.VM_RUNNING, cores(1)).into(t, h, 1000)); got != "BEGUN 300-300 []" || h.GetEnded() {
		t.Errorf("%s, head %v", got, h)
	}
}

func TestWhatAZoneNeverEndedEndsWhenItsVMIsSeenGone(t *testing.T) {
	h := &commandv1.UsageHead{Number: 1, Counted: 100, State: apiv1.VM_STOPPED, Size: cores(2), Gone: 150}
	all := Close(h)
	if len(all) != 1 || all[0].Subtracts || all[0].From != 100 || all[0].Until != 150 || !h.GetEnded() {
		t.Errorf("%v, head %v", all, h)
	}
	if all := Close(h); all != nil {
		t.Errorf("twice: %v", all)
	}
}

func TestALinkWithoutFormIsRefused(t *testing.T) {
	good := func() *linkv1.Usage {
		return &linkv1.Usage{VmId: "v", State: apiv1.VM_RUNNING, Size: cores(1), Number: 2, At: at(5), Was: &apiv1.VM_Usage{Number: 1, At: at(3), State: apiv1.VM_STOPPED, Size: cores(1)}}
	}
	if why := Fault(good()); why != "" {
		t.Errorf("a good one: %s", why)
	}
	for name, spoil := range map[string]func(*linkv1.Usage){
		"no VM": func(u *linkv1.Usage) { u.VmId = "" }, "no number": func(u *linkv1.Usage) { u.Number = 0 }, "no time": func(u *linkv1.Usage) { u.At = nil },
		"no state": func(u *linkv1.Usage) { u.State = 0 }, "a state that is none of use": func(u *linkv1.Usage) { u.State = apiv1.VM_BUILDING },
		"no size": func(u *linkv1.Usage) { u.Size = nil }, "another number before": func(u *linkv1.Usage) { u.Was.Number = 2 },
		"gone before": func(u *linkv1.Usage) { u.Was.State = apiv1.VM_DELETED }, "no time before": func(u *linkv1.Usage) { u.Was.At = nil },
		"no size before": func(u *linkv1.Usage) { u.Was.Size = nil }, "before 1970": func(u *linkv1.Usage) { u.At = at(-1) },
		"after 9999": func(u *linkv1.Usage) { u.At = at(1 << 40) }, "the first with one before": func(u *linkv1.Usage) { u.Number, u.Was.Number = 1, 0 },
	} {
		u := good()
		if spoil(u); Fault(u) == "" {
			t.Errorf("%s: it is taken", name)
		}
	}
}
