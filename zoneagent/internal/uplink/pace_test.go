package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// tried is an uplink whose sessions end as the test says, at once.
type tried struct {
	*Uplink
	*testing.T
	registry *prometheus.Registry
	log      bytes.Buffer
	cut      chan struct{}

	mu     sync.Mutex
	ends   error // nil: it lasts until the test says otherwise
	trials int
}

// end says how sessions end from now on.
func (u *tried) end(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ends = err
}

// counted is how many sessions were tried.
func (u *tried) counted() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.trials
}

// try counts a session, and returns how it ends.
func (u *tried) try() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.trials++
	return u.ends
}

// trying runs test in a bubble, beside an uplink that keeps sessions.
func trying(t *testing.T, test func(u *tried)) {
	synctest.Test(t, func(t *testing.T) {
		u := &tried{T: t, registry: prometheus.NewRegistry(), cut: make(chan struct{})}
		u.Uplink = New(Config{Log: slog.New(slog.NewTextHandler(&u.log, nil)), Registerer: u.registry})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		u.end(errors.New("no way there"))
		go func() { ended <- u.keep(ctx, u.session) }()
		test(u)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func (u *tried) session(ctx context.Context) error {
	if err := u.try(); err != nil {
		return err
	}
	stop := u.lasting()
	defer stop()
	select {
	case <-u.cut:
		return errors.New("cut")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// within counts the trials in a time.
func (u *tried) within(d time.Duration) int {
	synctest.Wait()
	before := u.counted()
	time.Sleep(d) // the bubble's time
	synctest.Wait()
	return u.counted() - before
}

func (u *tried) said(text string) int { return strings.Count(u.log.String(), text) }

// gauge is what the metric shows of a standing.
func (u *tried) gauge(s standing) (value float64) {
	families, err := u.registry.Gather()
	if err != nil {
		u.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == string(s) {
			value += m.GetGauge().GetValue()
		}
	}
	return value
}

// words are how an agent comes to know that it is barred.
var words = map[string]struct {
	end  error
	want standing
}{
	"the control plane's goodbye":       {&link.Goodbye{Code: link.CodeRevoked, Remote: true}, revoked},
	"the broker's refusal":              {fmt.Errorf("wait for WELCOME: %w", problem.ToStatus(problem.New(problem.Revoked, "a1 is revoked", ""))), revoked},
	"the control plane's quarantine":    {&link.Goodbye{Code: link.CodeQuarantined, Remote: true}, quarantined},
	"two control planes with one epoch": {fmt.Errorf("open: %w", link.ErrQuarantine), quarantined},
}

func TestAnAgentThatIsBarredAsksSlowlyAndSaysSoOnce(t *testing.T) {
	for name, word := range words {
		t.Run(name, func(t *testing.T) {
			trying(t, func(u *tried) {
				if n := u.within(time.Minute); n < 10 {
					t.Errorf("%d trials in the minute before", n)
				}
				u.end(word.end)
				u.within(10 * time.Second)
				if n := u.within(time.Hour); n < 50 || n > 130 {
					t.Errorf("%d trials in an hour", n)
				}
				if n := u.said("lets this agent in no more"); n != 1 {
					t.Errorf("said %d times:\n%s", n, u.log.String())
				}
				if u.gauge(word.want) != 1 || u.gauge(revoked)+u.gauge(quarantined) != 1 {
					t.Errorf("the metric shows %v revoked, %v quarantined", u.gauge(revoked), u.gauge(quarantined))
				}
				if s := u.Status(); s.State != string(word.want) || s.Why != word.end.Error() || time.Since(s.Since) < time.Hour {
					t.Errorf("its status is %+v", s)
				}
				err := u.Central(nobody{}, nil).Invoke(t.Context(), "/naru.api.v1.ZoneService/ListZones", &apiv1.ListZonesRequest{}, &apiv1.ListZonesResponse{})
				if !problem.Is(problem.FromStatus(err), problem.LinkDown) || !strings.Contains(err.Error(), string(word.want)) {
					t.Errorf("an edge's caller hears %v", err)
				}
			})
		})
	}
}

func TestABarThatIsLiftedIsNoticedWithinAMinute(t *testing.T) {
	trying(t, func(u *tried) {
		u.end(&link.Goodbye{Code: link.CodeQuarantined, Remote: true})
		u.within(time.Hour)
		u.end(nil)
		if n := u.within(time.Minute + proven); n != 1 {
			t.Errorf("%d trials", n)
		}
		if u.state.barred.Load() != nil || u.gauge(quarantined) != 0 || u.said("lets this agent in again") != 1 {
			t.Errorf("still barred:\n%s", u.log.String())
		}
		if s := u.Status(); s.State != Connected || s.Why != "" || time.Since(s.Since) > 2*time.Minute {
			t.Errorf("its status is %+v", s)
		}
		u.end(errors.New("no way there"))
		u.cut <- struct{}{}
		if n := u.within(time.Minute); n < 10 {
			t.Errorf("%d trials in the minute after it was cut", n)
		}
	})
}

func TestABrokenNetworkDoesNotLiftABar(t *testing.T) {
	trying(t, func(u *tried) {
		u.end(&link.Goodbye{Code: link.CodeRevoked, Remote: true})
		u.within(time.Hour)
		u.end(errors.New("no way there"))
		if n := u.within(time.Hour); n > 130 || u.gauge(revoked) != 1 {
			t.Errorf("%d trials in an hour, revoked %v", n, u.gauge(revoked))
		}
	})
}

func TestOrdinaryEndsBarNobody(t *testing.T) {
	for _, end := range []error{
		&link.Goodbye{Code: link.CodeNoLeader, Remote: true}, &link.Goodbye{Code: link.CodeSuperseded, Remote: true}, link.ErrSilent,
		problem.ToStatus(problem.New(problem.Forbidden, "", "")), link.ErrOldEpoch, errors.New("other"),
	} {
		if s := standingOf(end); s != welcome {
			t.Errorf("%v: %s", end, s)
		}
	}
}

func TestTheWaitGrowsToAFewSecondsAndIsShortAgainBehindASessionThatWorked(t *testing.T) {
	trying(t, func(u *tried) {
		u.within(time.Hour)
		if n := u.within(time.Minute); n < 20 || n > 40 {
			t.Errorf("%d trials in a minute after an hour without a session", n)
		}
		for range 10 { // the broker is killed, comes back, and is killed again
			u.end(nil)
			u.within(lastRetry)
			u.within(proven)
			u.end(errors.New("no way there"))
			u.cut <- struct{}{}
			if n := u.within(time.Second); n < 3 {
				t.Fatalf("%d trials in the second after a session that worked was cut", n)
			}
		}
	})
}

func TestSessionsThatEndAsSoonAsTheyAreOpenAreTriedEverMoreSlowly(t *testing.T) {
	trying(t, func(u *tried) {
		u.end(nil)
		for began := time.Now(); time.Since(began) < 10*time.Minute; {
			u.within(lastRetry)
			u.cut <- struct{}{}
		}
		u.end(errors.New("no way there"))
		u.within(lastRetry)
		if n := u.within(time.Minute); n > 40 {
			t.Errorf("%d trials in a minute", n)
		}
	})
}
