package etcdstore

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// fakeLease is one lease at an etcd whose answers may be slow or lost. It is the truth about when the lease ends.
type fakeLease struct {
	mu    sync.Mutex
	began time.Time
	ttl   time.Duration
	ends  time.Time
	// trip is how long a request and its answer travel; broken answers none at all.
	there, back time.Duration
	broken      bool
	kept        int
}

func (l *fakeLease) Grant(context.Context, time.Duration) (int64, time.Duration, error) {
	return 1, l.ttl, nil
}

func (l *fakeLease) Revoke(context.Context, int64) error { return nil }

func (l *fakeLease) Keep(ctx context.Context, _ int64) (time.Duration, error) {
	l.mu.Lock()
	there, back, broken := l.there, l.back, l.broken
	l.mu.Unlock()
	if err := pause(ctx, there); err != nil {
		return 0, err
	}
	l.mu.Lock()
	if time.Now().After(l.ends) {
		l.mu.Unlock()
		return 0, errLeaseGone
	}
	if !broken {
		l.ends = time.Now().Add(l.ttl)
		l.kept++
	}
	l.mu.Unlock()
	if broken {
		return 0, errors.New("unavailable")
	}
	return l.ttl, pause(ctx, back)
}

func (l *fakeLease) set(there, back time.Duration, broken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.there, l.back, l.broken = there, back, broken
}

func (l *fakeLease) end() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ends
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// keep starts a keeper on a fresh lease within a synctest bubble.
func keep(ctx context.Context, ttl, margin time.Duration) (*keeper, *fakeLease, chan error) {
	began := time.Now()
	l := &fakeLease{began: began, ttl: ttl, ends: began.Add(ttl)}
	k := &keeper{leases: l, id: 1, ttl: ttl, margin: margin, elapsed: func() time.Duration { return time.Since(began) }}
	done := make(chan error, 1)
	go func() { done <- k.run(ctx) }()
	return k, l, done
}

// P3, P21: whatever the network does, the deadline is never later than the end of the lease.
func TestTheDeadlineIsNeverLaterThanTheLeasesEnd(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) [4]int {
			return [4]int{rapid.IntRange(0, 3000).Draw(r, "there"), rapid.IntRange(0, 3000).Draw(r, "back"),
				rapid.IntRange(0, 3).Draw(r, "broken"), rapid.IntRange(1, 4000).Draw(r, "wait")}
		}), 1, 20).Draw(r, "network")
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			k, l, done := keep(ctx, 6*time.Second, time.Second)
			for _, s := range steps {
				l.set(time.Duration(s[0])*time.Millisecond, time.Duration(s[1])*time.Millisecond, s[2] == 0)
				for range 10 {
					time.Sleep(time.Duration(s[3]) * time.Millisecond / 10)
					if deadline := time.Now().Add(k.remaining()); deadline.After(l.end().Add(-time.Second)) {
						t.Errorf("deadline %s, lease ends %s", deadline, l.end())
					}
				}
			}
			cancel()
			<-done
		})
		if t.Failed() {
			r.Fatal("see above")
		}
	})
}

func TestALeaseIsKeptWhileEtcdAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		k, l, done := keep(ctx, 6*time.Second, time.Second)
		time.Sleep(time.Hour)
		if left := k.remaining(); left < 2*time.Second {
			t.Errorf("%s remain", left)
		}
		if l.kept < 1500 || l.kept > 2000 {
			t.Errorf("kept %d times in an hour", l.kept)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAnOwnerThatEtcdDoesNotAnswerStopsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, l, done := keep(t.Context(), 6*time.Second, time.Second)
		time.Sleep(10 * time.Second)
		l.set(0, 0, true)
		cut := time.Now()
		for k.remaining() > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if at := time.Since(cut); at > 5*time.Second {
			t.Errorf("it held on for %s", at)
		}
		if err := <-done; !errors.Is(err, errLeaseGone) {
			t.Errorf("ended with %v", err)
		}
		if at := time.Since(cut); at > 6*time.Second+200*time.Millisecond {
			t.Errorf("lost after %s", at)
		}
	})
}

// P3: the machine sleeps: Go's clock stands, time since boot goes on.
func TestASuspendedOwnerWakesUpPastItsDeadline(t *testing.T) {
	var slept time.Duration
	began := time.Now()
	k := &keeper{ttl: 6 * time.Second, margin: time.Second, elapsed: func() time.Duration { return time.Since(began) + slept }}
	o := &Ownership{keeper: k, lost: make(chan struct{})}
	if !o.Held() || time.Until(o.Deadline()) < 4*time.Second {
		t.Error("a fresh ownership does not hold")
	}
	slept = 10 * time.Second
	if o.Held() || !o.Deadline().Before(time.Now()) {
		t.Error("after ten seconds of sleep it still holds")
	}
	if err := (&keeper{ttl: time.Millisecond, elapsed: func() time.Duration { return time.Hour }}).run(t.Context()); !errors.Is(err, errLeaseGone) {
		t.Errorf("keeping it again: %v", err)
	}
}

func TestTheClockSinceBootRunsForward(t *testing.T) {
	a := sinceBoot()
	b := sinceBoot()
	if a <= 0 || b < a {
		t.Errorf("%s, then %s", a, b)
	}
}

func TestOwnershipMovesWhenItIsGivenUp(t *testing.T) {
	z := newZone(t)
	a := z.one()
	b := z.open(z.config(2, 1))
	first := a.own("cluster/c1")
	won := make(chan *Ownership, 1)
	go func() { won <- must(b.Campaign(t.Context(), "cluster/c1")) }()
	eventually(t, "the second stands in the queue", func() bool {
		return len(must(a.get(t.Context(), a.keys.under(elections), prefixed(""))).Kvs) == 2
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Campaign(ctx, "cluster/c1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a campaign that is given up: %v", err)
	}
	if err := first.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := <-won
	if first.Held() || !second.Held() || second.CreateRevision <= first.CreateRevision {
		t.Errorf("first %v at %d, second %v at %d", first.Held(), first.CreateRevision, second.Held(), second.CreateRevision)
	}
	tx := a.Begin(first)
	tx.PutObserved(vm("late"))
	if _, err := tx.Commit(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("a write after giving up: %v", err)
	}
}

func TestAnOwnerThatDiesIsFollowed(t *testing.T) {
	z := newZone(t)
	z.one()
	b, c := z.open(z.config(2, 1)), z.open(z.config(3, 1))
	first := b.own("cluster/c1")
	won := make(chan *Ownership, 1)
	go func() { won <- must(c.Campaign(t.Context(), "cluster/c1")) }()
	eventually(t, "the second stands in the queue", func() bool {
		return len(must(c.get(t.Context(), c.keys.under(elections), prefixed(""))).Kvs) == 2
	})
	deadline := first.Deadline()
	first.stop(errors.New("killed"))
	if now := (<-won).store.cfg; time.Now().Before(deadline) {
		t.Errorf("%s owns %s before the deadline of the one before", now.Agent, time.Until(deadline))
	}
}
