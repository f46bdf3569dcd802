package door

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/problem"
)

func TestWhoIsWrongWaitsEverLonger(t *testing.T) {
	now := time.Unix(0, 0)
	d := New(func() time.Time { return now })
	w := Way{User: "kim", Place: "internet"}
	var waits []time.Duration
	for range 20 {
		var waited time.Duration
		for d.Knock(w) != nil {
			now = now.Add(time.Second)
			waited += time.Second
		}
		waits = append(waits, waited)
	}
	for i, waited := range waits {
		if i < free && waited != 0 {
			t.Errorf("try %d waits %s", i+1, waited)
		}
		if i > 0 && waited < waits[i-1] || waited > longest {
			t.Errorf("try %d waits %s, the one before %s", i+1, waited, waits[i-1])
		}
	}
	if waits[19] != longest {
		t.Errorf("the twentieth waits %s", waits[19])
	}
	d.Open(w)
	if err := d.Knock(w); err != nil {
		t.Errorf("after the right password: %v", err)
	}
}

// TestNobodyIsLockedOutByOthers floods from any ways but one: that one stays open.
func TestNobodyIsLockedOutByOthers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Unix(0, 0)
		d := New(func() time.Time { return now })
		names := rapid.SampledFrom([]string{"kim", "lee"})
		places := rapid.SampledFrom([]string{"internet", "business"})
		devices := rapid.SampledFrom([]string{"", "d1", "d2"})
		mine := Way{names.Draw(rt, "name"), places.Draw(rt, "place"), devices.Draw(rt, "device")}
		for range rapid.IntRange(0, 200).Draw(rt, "tries") {
			if w := (Way{names.Draw(rt, "n"), places.Draw(rt, "p"), devices.Draw(rt, "d")}); w != mine {
				_ = d.Knock(w)
			}
		}
		if err := d.Knock(mine); err != nil {
			rt.Errorf("%+v has to wait because of others: %v", mine, err)
		}
	})
}

func TestManyTriesAtOnceAreNoWayRound(t *testing.T) {
	d := New(func() time.Time { return time.Unix(0, 0) })
	let := 0
	for range 100 {
		if d.Knock(Way{User: "kim"}) == nil {
			let++
		}
	}
	if let != free {
		t.Errorf("%d of a hundred tries at once were let in", let)
	}
}

// TestATryThatWasNotJudgedCountsNoMore, and takes none back that was.
func TestATryThatWasNotJudgedCountsNoMore(t *testing.T) {
	d := New(func() time.Time { return time.Unix(0, 0) })
	w := Way{User: "kim"}
	for range 3 * free {
		if err := d.Knock(w); err != nil {
			t.Fatalf("who was never judged has to wait: %v", err)
		}
		d.Undo(w)
	}
	for range free - 1 {
		_ = d.Knock(w)
	}
	_ = d.Knock(w)
	d.Undo(w)
	if err := d.Knock(w); err != nil {
		t.Errorf("the fifth that is judged: %v", err)
	}
	if err := d.Knock(w); !problem.Is(err, problem.TooMany) {
		t.Errorf("the sixth: %v", err)
	}
	d.Undo(Way{User: "nobody"})
}

// TestATryThatIsTakenBackClosesNothing: who has waited is let in with the next, however often they were wrong before.
func TestATryThatIsTakenBackClosesNothing(t *testing.T) {
	now := time.Unix(0, 0)
	d := New(func() time.Time { return now })
	w := Way{User: "kim"}
	for range 2 * free {
		for d.Knock(w) != nil {
			now = now.Add(time.Second)
		}
	}
	for d.Knock(w) != nil {
		now = now.Add(time.Second)
	}
	d.Undo(w)
	if err := d.Knock(w); err != nil {
		t.Errorf("the try after the one that was taken back: %v", err)
	}
	if err := d.Knock(w); !problem.Is(err, problem.TooMany) {
		t.Errorf("and one more: %v", err)
	}
}

func TestWhatIsRememberedOfTriesIsBounded(t *testing.T) {
	now := time.Unix(0, 0)
	d := New(func() time.Time { return now })
	for n := range maxKept + 100 {
		now = now.Add(time.Millisecond)
		if err := d.Knock(Way{User: string(rune(n)), Device: time.Duration(n).String()}); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.kept) > maxKept {
		t.Errorf("%d are remembered", len(d.kept))
	}
	now = now.Add(forgotten)
	for n := range 2 {
		if err := d.Knock(Way{User: "new", Device: time.Duration(n).String()}); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.kept) > 2 {
		t.Errorf("%d are remembered an hour later", len(d.kept))
	}
}
