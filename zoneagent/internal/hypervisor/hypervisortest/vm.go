package hypervisortest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

var longAgo = time.Unix(0, 0)

// want turns the error that was asked for into none.
func want(err, wanted error) error {
	if errors.Is(err, wanted) {
		return nil
	}
	return fmt.Errorf("got %v, want %v", err, wanted)
}

func addressed(t *testing.T, s *session) {
	m := s.machine(t)
	told := func(what string, want netip.Addr) {
		t.Helper()
		if a, err := s.host.Address(s.ctx, m.VM.GetId()); err != nil || a != want {
			t.Errorf("%s: %v, %v, want %v", what, a, err, want)
		}
	}
	told("before it is made", netip.Addr{})
	m.Address = netip.MustParsePrefix("10.91.2.77/24")
	s.build(t, m)
	told("defined", m.Address.Addr())
	s.reopen(t)
	told("to the next agent", m.Address.Addr())
	m.Address = netip.Prefix{}
	ok(t, s.host.EnsureDefined(s.ctx, m))
	told("defined without one", netip.Addr{})
}

func life(t *testing.T, s *session) {
	m := s.machine(t)
	id := m.VM.GetId()
	s.build(t, m)
	if o := s.observe(t, m); o.Power != apiv1.VM_OFF || o.Ready {
		t.Fatalf("before its start: %+v", o)
	}
	if err := want(s.host.Reboot(s.ctx, id, false), hypervisor.ErrNotRunning); err != nil {
		t.Fatalf("rebooting what is off: %v", err)
	}

	ok(t, s.host.EnsureStarted(s.ctx, id))
	s.is(t, m, apiv1.VM_ON)
	first := s.await(t, m, "usable", ready)
	if c := first.Counters; c.CPU <= 0 || c.Cores != m.VM.GetSize().GetCores() || c.MemoryUsedMiB == 0 || c.At.IsZero() {
		t.Errorf("counters %+v", c)
	}
	t.Logf("usable %+v", first.Counters)

	ok(t, s.host.EnsureStarted(s.ctx, id))
	ok(t, s.host.EnsureDefined(s.ctx, m))
	ok(t, s.host.EnsureDisk(s.ctx, m))
	ok(t, s.host.EnsureSeed(s.ctx, m))
	again := s.observe(t, m)
	if again.Power != apiv1.VM_ON || !again.Ready || again.Counters.CPU < first.Counters.CPU {
		t.Fatalf("a start over a running vm made %+v of %+v", again, first)
	}
	s.reopen(t)
	if o := s.observe(t, m); o.Power != apiv1.VM_ON || !o.Ready {
		t.Fatalf("to the next agent it is %+v", o)
	}

	ok(t, s.host.Reboot(s.ctx, id, true))
	s.is(t, m, apiv1.VM_ON)
	ok(t, s.host.EnsureStopped(s.ctx, id, true))
	if o := s.observe(t, m); o.Power != apiv1.VM_OFF || o.Ready || o.Counters != (hypervisor.VMCounters{}) {
		t.Fatalf("after its power was cut: %+v", o)
	}
	ok(t, s.host.EnsureStopped(s.ctx, id, true))
	ok(t, s.host.EnsureStopped(s.ctx, id, false))

	ok(t, s.host.EnsureStarted(s.ctx, id))
	s.await(t, m, "usable again", ready)
	ok(t, s.host.EnsureStopped(s.ctx, id, false))
	ok(t, s.host.EnsureStopped(s.ctx, id, false))
	s.await(t, m, "off", off)

	ok(t, s.host.EnsureGone(s.ctx, id))
	s.is(t, m, apiv1.VM_MISSING)
	ok(t, s.host.EnsureGone(s.ctx, id))
}

func repeated(t *testing.T, s *session) {
	m := s.machine(t)
	for _, step := range s.steps() {
		for range 2 {
			if err := step.call(s.ctx, m); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
		}
	}
	s.is(t, m, apiv1.VM_ON)
	for _, step := range s.steps() {
		if err := step.call(s.ctx, m); err != nil {
			t.Fatalf("%s over a running vm: %v", step.name, err)
		}
	}
	s.is(t, m, apiv1.VM_ON)
	ok(t, s.host.EnsureGone(s.ctx, m.VM.GetId()))
	s.is(t, m, apiv1.VM_MISSING)
}

func bulk(t *testing.T, s *session) {
	on, off, gone := s.machine(t), s.machine(t), s.machine(t)
	for _, m := range []hypervisor.Machine{on, off, gone} {
		s.build(t, m)
	}
	ok(t, s.host.EnsureStarted(s.ctx, on.VM.GetId()))
	ok(t, s.host.EnsureGone(s.ctx, gone.VM.GetId()))
	all, err := s.host.ObserveAll(s.ctx)
	ok(t, err)
	seen := map[string]hypervisor.Observation{}
	last := ""
	for _, o := range all {
		if o.VMID <= last {
			t.Errorf("%s comes after %s", o.VMID, last)
		}
		last = o.VMID
		seen[o.VMID] = o
	}
	for _, m := range []hypervisor.Machine{on, off} {
		one, many := s.observe(t, m), seen[m.VM.GetId()]
		if one.VMID != many.VMID || one.Power != many.Power || one.Counters.Cores != many.Counters.Cores || one.Counters.CPU < many.Counters.CPU {
			t.Errorf("each: %+v, all: %+v", one, many)
		}
	}
	if o, found := seen[gone.VM.GetId()]; found {
		t.Errorf("what is gone is seen: %+v", o)
	}
	ok(t, s.host.EnsureStopped(s.ctx, on.VM.GetId(), true))
}

// lostReply: P2 and P17 for a driver. Whatever step loses its answer, calling again ends where no loss would have.
func lostReply(t *testing.T, s *session) {
	m := s.machine(t)
	id := m.VM.GetId()
	ok(t, s.host.EnsureImage(s.ctx, s.Image, s.bits))
	after := map[string]apiv1.VM_Power{
		"disk": apiv1.VM_MISSING, "seed": apiv1.VM_MISSING, "define": apiv1.VM_OFF, "start": apiv1.VM_ON, "forced stop": apiv1.VM_OFF, "gone": apiv1.VM_MISSING,
	}
	steps := append(s.steps()[1:],
		step{"forced stop", func(ctx context.Context, _ hypervisor.Machine) error { return s.host.EnsureStopped(ctx, id, true) }},
		step{"gone", func(ctx context.Context, _ hypervisor.Machine) error { return s.host.EnsureGone(ctx, id) }},
	)
	for _, step := range steps {
		s.LoseReply(t, step.name)
		err := step.call(s.ctx, m)
		if err == nil {
			t.Fatalf("%s: no reply was lost", step.name)
		}
		if hypervisor.IsFatal(err) {
			t.Fatalf("%s: a lost reply is fatal: %v", step.name, err)
		}
		if step.name != "gone" { // of several effects only the first is known to have happened
			s.is(t, m, after[step.name])
		}
		if err := step.call(s.ctx, m); err != nil {
			t.Fatalf("%s, again: %v", step.name, err)
		}
		s.is(t, m, after[step.name])
	}
}

// successor: P17 for a driver. An agent that knows nothing of how far the one before came begins at the beginning.
func successor(t *testing.T, s *session) {
	m := s.machine(t)
	steps := s.steps()
	for until := range steps {
		for _, step := range steps[:until+1] {
			if err := step.call(s.ctx, m); err != nil {
				t.Fatalf("%s, after an agent died behind step %d: %v", step.name, until, err)
			}
		}
		s.reopen(t)
	}
	s.is(t, m, apiv1.VM_ON)
	ok(t, s.host.EnsureGone(s.ctx, m.VM.GetId()))
}
