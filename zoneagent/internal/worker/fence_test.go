package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

// P3: an owner whose ownership is not confirmed any more makes no call after its deadline, and the calls under way end
// with it; the next owner finds one VM.
func TestALateOwnerTouchesNothing(t *testing.T) {
	for left := time.Duration(0); left < 1200*time.Millisecond; left += 70 * time.Millisecond {
		within(t, func(s *site) {
			s.cluster("kvm", 1, "latency=100ms")
			a := s.own("kvm")
			s.pass(time.Second)
			op := s.want(s.vm("kvm", "web-1"))
			a.owner.Extend(left) // the last keep-alive that will be confirmed
			s.pass(left + 10*time.Millisecond)
			before := s.total()
			s.pass(3 * time.Second)
			if after := s.total(); after != before {
				t.Errorf("%d calls after the deadline", after-before)
			}
			// The lease has ended for certain; another agent takes over.
			s.own("kvm")
			s.pass(20 * time.Second)
			s.equal("outcome", s.outcome(op), "done")
			s.equal("creations", s.fleet.Knobs("kvm-1").Creations("web-1"), 1)
			s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)
		})
	}
}

func (s *site) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, calls := range s.calls {
		n += calls
	}
	return n
}

// An ownership that is confirmed late, but not too late, goes on.
func TestAnOwnershipThatIsConfirmedAgainGoesOn(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "latency=100ms")
		a := s.own("kvm")
		s.pass(time.Second)
		op := s.want(s.vm("kvm", "web-1"))
		a.owner.Extend(250 * time.Millisecond)
		s.pass(time.Second)
		s.pass(time.Minute)
		a.owner.Extend(time.Hour)
		s.pass(time.Minute)
		s.equal("outcome", s.outcome(op), "done")
		s.silence("kvm-1", (*sim.Knobs).Cut)
		s.pass(time.Minute)
		s.equal("the host is observed again", s.zone.Host("kvm-1").GetHealth(), apiv1.Host_DOWN)
		s.equal("creations", s.fleet.Knobs("kvm-1").Creations("web-1"), 1)
	})
}

type held struct {
	mu   sync.Mutex
	at   time.Time
	lost chan struct{}
}

func (h *held) Deadline() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *held) Lost() <-chan struct{} { return h.lost }

func (h *held) until(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = time.Now().Add(d)
}

func TestACallsContextIsBoundByTheOwnership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := &held{lost: make(chan struct{})}
		own.until(5 * time.Second)
		f := newFence(own, make(chan struct{}, 1), time.Minute)
		defer f.leash.close()
		started := time.Now()
		err := f.call(context.Background(), func(ctx context.Context) error {
			if d, ok := ctx.Deadline(); !ok || d != own.Deadline() {
				t.Errorf("deadline %v, want the ownership's", d)
			}
			time.Sleep(3 * time.Second)
			own.until(5 * time.Second) // confirmed
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, errLost) || time.Since(started) != 8*time.Second {
			t.Errorf("ended after %s with %v", time.Since(started), err)
		}
		if err := f.call(context.Background(), func(context.Context) error { t.Error("called"); return nil }); !errors.Is(err, errLost) {
			t.Errorf("a call after the deadline: %v", err)
		}

		// What the context says is true at the moment it is asked, before any timer has fired.
		own.until(time.Minute)
		_ = f.call(context.Background(), func(ctx context.Context) error {
			own.until(-time.Second)
			if !errors.Is(ctx.Err(), errLost) {
				t.Errorf("error %v, want that the ownership is lost", ctx.Err())
			}
			return nil
		})

		// A timeout of the call is not a loss.
		own.until(time.Hour)
		err = f.until(context.Background(), time.Second, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errLost) {
			t.Errorf("timed out with %v", err)
		}

		// Losing it ends what is under way.
		go func() { time.Sleep(time.Second); close(own.lost) }()
		err = f.call(context.Background(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, errLost) {
			t.Errorf("lost with %v", err)
		}
	})
}

// A call that ignores the end of its time holds nobody else up once the ownership is confirmed anew.
func TestAnOwnershipThatIsConfirmedAnewCallsBesideACallThatWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := &held{lost: make(chan struct{})}
		own.until(time.Second)
		f := newFence(own, make(chan struct{}, 2), time.Minute)
		defer f.leash.close()
		stubborn, release := make(chan error), make(chan struct{})
		go func() {
			stubborn <- f.call(context.Background(), func(ctx context.Context) error {
				<-ctx.Done()
				<-release
				return ctx.Err()
			})
		}()
		time.Sleep(2 * time.Second)
		own.until(time.Minute)
		if err := f.call(context.Background(), func(ctx context.Context) error {
			time.Sleep(10 * time.Second)
			return ctx.Err()
		}); err != nil {
			t.Errorf("the call that was begun later: %v", err)
		}
		close(release)
		if err := <-stubborn; !errors.Is(err, errLost) {
			t.Errorf("the call that was lost: %v", err)
		}
	})
}

func TestProbeTellsWhetherAHostAnswers(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.pass(time.Second)
		w, err := New(Config{Agent: "agent-2", Drivers: map[string]hypervisor.Driver{"sim": s.fleet}, Images: bitsStore{}})
		if err != nil {
			t.Fatal(err)
		}
		host := &apiv1.Host{Id: "kvm-1", Name: "kvm-1", Endpoint: "sim://?"}
		if err := w.Probe(s.t.Context(), "sim", host); err != nil {
			t.Errorf("a host that answers: %v", err)
		}
		s.fleet.Knobs("kvm-1").Cut()
		if err := w.Probe(s.t.Context(), "sim", host); err == nil {
			t.Error("a host that does not answer is said to")
		}
		if err := w.Probe(s.t.Context(), "xen", host); err == nil {
			t.Error("a host without a driver is said to answer")
		}
	})
}

func TestAWorkerNeedsANameDriversAndImages(t *testing.T) {
	if _, err := New(Config{Agent: "a"}); err == nil {
		t.Error("a worker without drivers was made")
	}
}
