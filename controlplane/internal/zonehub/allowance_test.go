package zonehub

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// frugal is a zone's allowance of ten entries a second, which tells nobody.
func frugal() *allowance {
	h := &Hub{Config: Config{Budget: DefaultBudget()}, slowed: slowedSeconds(nil), allowances: map[string]*allowance{}}
	h.Budget.Entries, h.Budget.Tell = Pace{PerSecond: 10, Burst: leastEntries}, time.Hour
	return h.allowanceOf(&apiv1.Zone{Id: "zone-1", Name: "business"})
}

// waited is how long a zone waits until it may say something.
func waited(t *testing.T, a *allowance, n need) time.Duration {
	t.Helper()
	began := time.Now()
	if err := a.wait(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

func TestWhatNeedsNoEntriesDoesNotWaitForEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := frugal()
		waited(t, a, need{entries: leastEntries})
		done := make(chan struct{})
		go func() {
			defer close(done)
			if got := waited(t, a, need{entries: leastEntries}); got != leastEntries*time.Second/10 {
				t.Errorf("entries beyond the budget waited for %v", got)
			}
		}()
		synctest.Wait()
		if got := waited(t, a, need{bytes: 100}); got != 0 {
			t.Errorf("what a zone observes waited for %v, behind its journal", got)
		}
		<-done
	})
}

func TestWhatIsSaidAgainInTheNextSessionIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := frugal()
		waited(t, a, need{entries: leastEntries})
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := a.wait(ctx, need{entries: leastEntries}); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		if got, most := waited(t, a, need{entries: leastEntries}), leastEntries*time.Second/10; got > most {
			t.Errorf("after five sessions that broke, the sixth waited for %v, and %v is its own", got, most)
		}
	})
}

func TestAZoneThatSaysOneThingAfterTheOtherIsPacedAndNotAccused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := frugal()
		a.hub.Budget.Tell = 10 * time.Second
		began := time.Now()
		for range 5000 {
			waited(t, a, need{bytes: 100})
		}
		if took := time.Since(began); took < time.Minute {
			t.Fatalf("5000 commands were let through in %v", took)
		}
		if a.told != "" {
			t.Errorf("people are told of %s", a.told)
		}
	})
}
