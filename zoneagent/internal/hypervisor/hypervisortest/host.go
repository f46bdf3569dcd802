package hypervisortest

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

func foreignEndpoint(t *testing.T, s *session) {
	join := "?"
	if strings.Contains(s.Host.GetEndpoint(), "?") {
		join = "&"
	}
	for _, endpoint := range []string{"", "::", "https://example.org", "unheard-of:///system?socket=/x", s.Host.GetEndpoint() + join + "no_such_key=1"} {
		host := proto.CloneOf(s.Host)
		host.Endpoint = endpoint
		if _, err := s.Driver.Open(s.ctx, host); !hypervisor.IsFatal(err) {
			t.Errorf("%q: got %v, want a fatal error", endpoint, err)
		}
	}
}

func inventory(t *testing.T, s *session) {
	host := proto.CloneOf(s.Host)
	host.Capacity = nil
	plain, err := s.Driver.Open(s.ctx, host)
	ok(t, err)
	defer plain.Close()
	got, err := plain.Inventory(s.ctx)
	ok(t, err)
	if got.Version == "" || got.Total.GetCores() == 0 || got.Total.GetMemoryMib() == 0 || got.Total.GetDiskGib() == 0 {
		t.Fatalf("got %+v", got)
	}
	host.Capacity = &apiv1.Resources{Cores: 77}
	overridden, err := s.Driver.Open(s.ctx, host)
	ok(t, err)
	defer overridden.Close()
	after, err := overridden.Inventory(s.ctx)
	ok(t, err)
	if after.Total.GetCores() != 77 || after.Total.GetMemoryMib() != got.Total.GetMemoryMib() {
		t.Fatalf("got %v over %v", after.Total, got.Total)
	}
}

func sample(t *testing.T, s *session) {
	before, err := s.host.Sample(s.ctx)
	ok(t, err)
	after, err := s.host.Sample(s.ctx)
	ok(t, err)
	if before.Cores == 0 || before.MemoryTotalMiB == 0 || before.MemoryUsedMiB > before.MemoryTotalMiB {
		t.Errorf("got %+v", before)
	}
	if after.At.Before(before.At) || after.CPUTotal < before.CPUTotal || after.CPUBusy > after.CPUTotal {
		t.Errorf("%+v became %+v", before, after)
	}
}

func missing(t *testing.T, s *session) {
	m := s.machine(t)
	id := m.VM.GetId()
	if o := s.observe(t, m); o != hypervisor.Missing(id) {
		t.Errorf("observed %+v", o)
	}
	for name, err := range map[string]error{
		"stop":         s.host.EnsureStopped(s.ctx, id, false),
		"forced stop":  s.host.EnsureStopped(s.ctx, id, true),
		"gone":         s.host.EnsureGone(s.ctx, id),
		"gone, again":  s.host.EnsureGone(s.ctx, id),
		"start fails":  want(s.host.EnsureStarted(s.ctx, id), hypervisor.ErrNotDefined),
		"reboot fails": want(s.host.Reboot(s.ctx, id, false), hypervisor.ErrNotDefined),
		"reset fails":  want(s.host.Reboot(s.ctx, id, true), hypervisor.ErrNotDefined),

		"resizing fails":      want(s.host.EnsureSize(s.ctx, m), hypervisor.ErrNotDefined),
		"a snapshot fails":    want(s.host.EnsureSnapshot(s.ctx, id, snapshotOf(m)), hypervisor.ErrNotDefined),
		"restoring fails":     want(s.host.EnsureRestored(s.ctx, m, snapshotOf(m).ID), hypervisor.ErrNotDefined),
		"no snapshot is none": s.host.EnsureNoSnapshot(s.ctx, id, snapshotOf(m).ID),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	all, err := s.host.ObserveAll(s.ctx)
	ok(t, err)
	for _, o := range all {
		if o.VMID == id {
			t.Errorf("observed %+v", o)
		}
	}
}

// calls returns every call of the contract that takes a context, by name.
func (s *session) calls() []step {
	more := []step{
		{"inventory", func(ctx context.Context, m hypervisor.Machine) error { _, err := s.host.Inventory(ctx); return err }},
		{"sample", func(ctx context.Context, m hypervisor.Machine) error { _, err := s.host.Sample(ctx); return err }},
		{"observe", func(ctx context.Context, m hypervisor.Machine) error {
			_, err := s.host.Observe(ctx, m.VM.GetId())
			return err
		}},
		{"observe all", func(ctx context.Context, m hypervisor.Machine) error { _, err := s.host.ObserveAll(ctx); return err }},
		{"reboot", func(ctx context.Context, m hypervisor.Machine) error { return s.host.Reboot(ctx, m.VM.GetId(), false) }},
		{"reset", func(ctx context.Context, m hypervisor.Machine) error { return s.host.Reboot(ctx, m.VM.GetId(), true) }},
		{"stop", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureStopped(ctx, m.VM.GetId(), false)
		}},
		{"forced stop", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureStopped(ctx, m.VM.GetId(), true)
		}},
		{"size", func(ctx context.Context, m hypervisor.Machine) error { return s.host.EnsureSize(ctx, larger(m)) }},
		{"snapshot", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureSnapshot(ctx, m.VM.GetId(), snapshotOf(m))
		}},
		{"restore", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureRestored(ctx, m, snapshotOf(m).ID)
		}},
		{"drop", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureNoSnapshot(ctx, m.VM.GetId(), snapshotOf(m).ID)
		}},
		{"asking for the size", func(ctx context.Context, m hypervisor.Machine) error {
			_, err := s.host.Size(ctx, m.VM.GetId())
			return err
		}},
		{"asking for snapshots", func(ctx context.Context, m hypervisor.Machine) error {
			_, err := s.host.Snapshots(ctx, m.VM.GetId())
			return err
		}},
		{"gone", func(ctx context.Context, m hypervisor.Machine) error { return s.host.EnsureGone(ctx, m.VM.GetId()) }},
	}
	return append(s.steps(), more...)
}

func pastDeadline(t *testing.T, s *session) {
	past, cancel := context.WithDeadline(s.ctx, longAgo)
	defer cancel()
	m := s.machine(t)
	for _, call := range s.calls() {
		if err := call.call(past, m); err == nil {
			t.Errorf("%s went ahead", call.name)
		}
	}
	s.is(t, m, apiv1.VM_MISSING)
	s.build(t, m)
	for _, call := range s.calls() {
		if err := call.call(past, m); err == nil {
			t.Errorf("%s went ahead", call.name)
		}
	}
	s.is(t, m, apiv1.VM_OFF)
}

func closed(t *testing.T, s *session) {
	m := s.machine(t)
	s.build(t, m)
	ok(t, s.host.Close())
	for _, call := range s.calls() {
		if err := call.call(s.ctx, m); err == nil {
			t.Errorf("%s went ahead", call.name)
		}
	}
	s.reopen(t)
	s.is(t, m, apiv1.VM_OFF)
}
