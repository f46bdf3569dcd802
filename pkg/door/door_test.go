package door

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/problem"
)

// chance is a random source that is the same each time.
func chance(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func TestWhoIsWrongWaitsEverLonger(t *testing.T) {
	now := time.Unix(0, 0)
	d := New(func() time.Time { return now }, chance(0))
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
		d := New(func() time.Time { return now }, chance(0))
		names := rapid.SampledFrom([]string{"kim", "lee"})
		places := rapid.SampledFrom([]string{"internet", "business"})
		owns := rapid.SampledFrom([]string{"", "d1", "d2"})
		froms := rapid.SampledFrom([]string{"a", "b"})
		draw := func() Way {
			return Way{names.Draw(rt, "n"), places.Draw(rt, "p"), owns.Draw(rt, "o"), froms.Draw(rt, "f")}
		}
		mine := draw()
		for range rapid.IntRange(0, 200).Draw(rt, "tries") {
			if w := draw(); w.shared() != mine.shared() {
				_ = d.Knock(w)
			}
		}
		if err := d.Knock(mine); err != nil {
			rt.Errorf("%+v has to wait because of others: %v", mine, err)
		}
	})
}

// guessed has others knock as kim from addresses of the same zone, every five seconds, for six hours, and then kim come from
// an address of her own every ten seconds; and returns how long it is until she is let in, and how many tries were judged in
// the six hours. Whoever is let in is wrong, but for kim.
func guessed(t *testing.T, seed byte, addresses int, kim func(*Doors, Way) bool) (waited time.Duration, judged int) {
	t.Helper()
	now := time.Unix(0, 0)
	d := New(func() time.Time { return now }, chance(seed))
	others := func() {
		now = now.Add(5 * time.Second)
		for i := range addresses {
			if d.Knock(Way{User: "kim", Place: "internet", From: fmt.Sprint("10.0.0.", i)}) == nil {
				judged++
			}
		}
	}
	for range 6 * 3600 / 5 {
		others()
	}
	all := judged
	for came := now; ; {
		if kim(d, Way{User: "kim", Place: "internet", From: "10.0.1.1"}) {
			return now.Sub(came), all
		}
		others()
		others()
		if now.Sub(came) > 24*time.Hour {
			t.Fatalf("kim is not let in in a day, while %d addresses guess", addresses)
		}
	}
}

// TestWhoGuessesKeepsNobodyOut: the right password from a machine that was never seen is let in within minutes, though
// somebody guesses all the time from the same zone; and how much they guess stays bounded.
func TestWhoGuessesKeepsNobodyOut(t *testing.T) {
	for _, addresses := range []int{1, 8, maxServed} {
		for seed := range byte(3) {
			waited, judged := guessed(t, seed, addresses, func(d *Doors, w Way) bool { return d.Knock(w) == nil })
			if most := longest + turn + 10*time.Second; waited > most {
				t.Errorf("while %d addresses guess kim waits %s, want %s at most", addresses, waited, most)
			}
			if judged > 90 {
				t.Errorf("%d addresses guess %d times in six hours", addresses, judged)
			}
		}
	}
}

// TestWhoHasACodeBesidesIsNotKeptOut: the password is right, and half a minute later so is the code.
func TestWhoHasACodeBesidesIsNotKeptOut(t *testing.T) {
	halfway, tries := false, 0
	waited, _ := guessed(t, 1, 3, func(d *Doors, w Way) bool {
		if d.Knock(w) != nil {
			return false
		}
		if !halfway {
			halfway = true
			d.Halfway(w)
			return false
		}
		if tries++; tries < 3 { // what checks passwords is full twice
			d.Undo(w)
			return false
		}
		return true
	})
	if most := longest + turn + 40*time.Second; waited > most {
		t.Errorf("kim waits %s, want %s at most", waited, most)
	}
}

// TestWhoKnowsHalfKeepsNobodyOut: somebody has kim's password, and no code, and tries that again and again.
func TestWhoKnowsHalfKeepsNobodyOut(t *testing.T) {
	for _, undone := range []bool{false, true} {
		now := time.Unix(0, 0)
		d := New(func() time.Time { return now }, chance(0))
		other, kim := Way{User: "kim", Place: "internet", From: "a"}, Way{User: "kim", Place: "internet", From: "b"}
		for range 2 * free {
			_ = d.Knock(other)
			now = now.Add(time.Minute)
		}
		let := false
		for range 15 * 60 {
			now = now.Add(time.Second)
			if undone && d.Knock(other) == nil {
				d.Undo(other)
			}
			if d.Knock(other) == nil {
				d.Halfway(other)
			}
			if now.Unix()%10 == 0 && d.Knock(kim) == nil {
				let = true
				break
			}
		}
		if !let {
			t.Errorf("kim is not let in in a quarter of an hour (undone: %v)", undone)
		}
	}
}

// TestOfManyAddressesOneIsDrawn: it does not help to come more often, or first.
func TestOfManyAddressesOneIsDrawn(t *testing.T) {
	const rounds, others = 1000, 9
	won := 0
	for round := range rounds {
		now := time.Unix(0, 0)
		d := New(func() time.Time { return now }, rand.NewChaCha8([32]byte{byte(round), byte(round >> 8), 1}))
		for range free {
			_ = d.Knock(Way{From: "guesses"})
		}
		for range 20 {
			for i := range others {
				_ = d.Knock(Way{From: fmt.Sprint(i)})
			}
		}
		_ = d.Knock(Way{From: "kim"})
		now = now.Add(time.Second)
		for i := range others {
			_ = d.Knock(Way{From: fmt.Sprint(i)})
		}
		if d.Knock(Way{From: "kim"}) == nil {
			won++
		}
	}
	// One in ten: 100, and a standard deviation is 9.5.
	if won < 60 || won > 140 {
		t.Errorf("kim is drawn in %d of %d rounds among ten", won, rounds)
	}
}

// TestWhoIsDrawnAndDoesNotComeHoldsUpNobody for longer than a turn.
func TestWhoIsDrawnAndDoesNotComeHoldsUpNobody(t *testing.T) {
	now := time.Unix(0, 0)
	d := New(func() time.Time { return now }, chance(0))
	for range free {
		_ = d.Knock(Way{From: "guesses"})
	}
	_ = d.Knock(Way{From: "never comes back"})
	now = now.Add(time.Second)
	if err := d.Knock(Way{From: "kim"}); !problem.Is(err, problem.TooMany) {
		t.Errorf("in the turn of another: %v", err)
	}
	now = now.Add(turn)
	if err := d.Knock(Way{From: "kim"}); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestHowOftenOneMayGuessInADay is what decision 57 says: 294, however one goes about it.
func TestHowOftenOneMayGuessInADay(t *testing.T) {
	best := 0.0
	for rest := free; rest < 60; rest++ { // tries, then an hour without
		now := time.Unix(0, 0)
		d := New(func() time.Time { return now }, chance(0))
		judged := 0
		for now.Before(time.Unix(30*86400, 0)) {
			for range rest {
				if err := d.Knock(Way{User: "kim"}); err != nil {
					now = d.kept[Way{User: "kim"}].until
					err = d.Knock(Way{User: "kim"})
					if err != nil {
						t.Fatal(err)
					}
				}
				judged++
			}
			now = now.Add(forgotten)
		}
		best = max(best, float64(judged)/(now.Sub(time.Unix(0, 0)).Hours()/24))
	}
	if best < 293 || best > 295 {
		t.Errorf("one guesses %.1f times a day", best)
	}
}

func TestManyTriesAtOnceAreNoWayRound(t *testing.T) {
	d := New(func() time.Time { return time.Unix(0, 0) }, chance(0))
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
	d := New(func() time.Time { return time.Unix(0, 0) }, chance(0))
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
	d := New(func() time.Time { return now }, chance(0))
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
	d := New(func() time.Time { return now }, chance(0))
	for n := range maxKept + 100 {
		now = now.Add(time.Millisecond)
		if err := d.Knock(Way{User: string(rune(n)), Own: time.Duration(n).String()}); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.kept) > maxKept {
		t.Errorf("%d are remembered", len(d.kept))
	}
	now = now.Add(forgotten)
	for n := range 2 {
		if err := d.Knock(Way{User: "new", Own: time.Duration(n).String()}); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.kept) > 2 {
		t.Errorf("%d are remembered an hour later", len(d.kept))
	}
}
