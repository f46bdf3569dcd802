package hypervisortest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// larger is the machine with one core, some memory and a GiB of disk more.
func larger(m hypervisor.Machine) hypervisor.Machine {
	m.VM = proto.CloneOf(m.VM)
	m.VM.Size.Cores++
	m.VM.Size.MemoryMib += 32
	m.VM.Size.DiskGib++
	return m
}

// snapshotOf is a snapshot of a machine, the same each time.
func snapshotOf(m hypervisor.Machine) hypervisor.Snapshot {
	return hypervisor.Snapshot{ID: uuid.NewSHA1(uuid.MustParse(m.VM.GetId()), nil).String(), Name: "before-update"}
}

func (s *session) has(t *testing.T, m hypervisor.Machine) {
	t.Helper()
	if is, err := s.host.Size(s.ctx, m.VM.GetId()); err != nil || !proto.Equal(is, m.VM.GetSize()) {
		t.Errorf("it has %v (%v), want %v", is, err, m.VM.GetSize())
	}
}

// keeps compares the snapshots that a VM has.
func (s *session) keeps(t *testing.T, m hypervisor.Machine, want ...hypervisor.Snapshot) {
	t.Helper()
	slices.SortFunc(want, func(a, b hypervisor.Snapshot) int { return strings.Compare(a.ID, b.ID) })
	all, err := s.host.Snapshots(s.ctx, m.VM.GetId())
	ok(t, err)
	if len(all) != len(want) {
		t.Fatalf("it has snapshots %v, want %v", all, want)
	}
	for i, one := range all {
		if one.ID != want[i].ID || one.Name != want[i].Name || one.TakenAt.IsZero() {
			t.Errorf("snapshot %d is %v, want %v", i, one, want[i])
		}
	}
}

func (s *session) holds(t *testing.T, m hypervisor.Machine, word string) {
	t.Helper()
	if is := s.Read(t, m); is != word {
		t.Errorf("its disk holds %q, want %q", is, word)
	}
}

func resized(t *testing.T, s *session) {
	m := s.machine(t)
	if is, err := s.host.Size(s.ctx, m.VM.GetId()); err != nil || is != nil {
		t.Errorf("before it is made it has %v, %v", is, err)
	}
	s.build(t, m)
	s.has(t, m)
	s.Write(t, m, "mine")
	more := larger(m)
	for range 2 {
		ok(t, s.host.EnsureSize(s.ctx, more))
		s.has(t, more)
	}
	s.holds(t, m, "mine")
	s.is(t, m, apiv1.VM_OFF)

	less := larger(m)
	less.VM.Size = proto.CloneOf(m.VM.Size)
	less.VM.Size.DiskGib = more.VM.Size.DiskGib
	ok(t, s.host.EnsureSize(s.ctx, less))
	s.has(t, less)
	if err := s.host.EnsureSize(s.ctx, m); !hypervisor.IsFatal(err) {
		t.Errorf("a smaller disk: got %v, want a fatal error", err)
	}
	s.has(t, less)

	ok(t, s.host.EnsureSize(s.ctx, more))
	ok(t, s.host.EnsureStarted(s.ctx, m.VM.GetId()))
	if o := s.await(t, m, "usable", ready); o.Counters.Cores != more.VM.Size.Cores {
		t.Errorf("it runs with %d cores, want %d", o.Counters.Cores, more.VM.Size.Cores)
	}
	s.has(t, more)
	s.reopen(t)
	s.has(t, more)
}

func resizedOn(t *testing.T, s *session) {
	m := s.machine(t)
	s.build(t, m)
	ok(t, s.host.EnsureStarted(s.ctx, m.VM.GetId()))
	before := s.await(t, m, "usable", ready)
	ok(t, s.host.EnsureSize(s.ctx, m))
	// A disk may always grow; of the rest the driver says whether it can.
	more := larger(m)
	if err := s.host.EnsureSize(s.ctx, more); err != nil {
		if err := want(err, hypervisor.ErrNeedsOff); err != nil {
			t.Fatal(err)
		}
		s.has(t, m)
		more.VM.Size.Cores, more.VM.Size.MemoryMib = m.VM.Size.Cores, m.VM.Size.MemoryMib
		ok(t, s.host.EnsureSize(s.ctx, more))
	}
	s.has(t, more)
	if o := s.observe(t, m); o.Power != apiv1.VM_ON || !o.Ready || o.Counters.CPU < before.Counters.CPU {
		t.Errorf("resizing made %+v of %+v", o, before)
	}
}

func restored(t *testing.T, s *session) {
	m := s.machine(t)
	id, first := m.VM.GetId(), snapshotOf(m)
	second := hypervisor.Snapshot{ID: uuid.Must(uuid.NewV7()).String(), Name: "after-update"}
	s.build(t, m)
	s.keeps(t, m)
	s.Write(t, m, "one")
	ok(t, s.host.EnsureSnapshot(s.ctx, id, first))
	s.Write(t, m, "two")
	ok(t, s.host.EnsureSnapshot(s.ctx, id, first)) // it is there, and is kept as it is
	ok(t, s.host.EnsureSnapshot(s.ctx, id, second))
	s.keeps(t, m, first, second)
	s.Write(t, m, "three")

	s.reopen(t)
	more := larger(m)
	ok(t, s.host.EnsureSize(s.ctx, more))
	for range 2 {
		ok(t, s.host.EnsureRestored(s.ctx, more, first.ID))
		s.holds(t, m, "one")
		s.has(t, more) // the disk goes back, what the VM is does not
	}
	ok(t, s.host.EnsureRestored(s.ctx, more, second.ID))
	s.holds(t, m, "two")
	s.keeps(t, m, first, second)
	for range 2 {
		ok(t, s.host.EnsureNoSnapshot(s.ctx, id, second.ID))
	}
	s.keeps(t, m, first)
	s.holds(t, m, "two")
	if err := want(s.host.EnsureRestored(s.ctx, more, second.ID), hypervisor.ErrNoSnapshot); err != nil {
		t.Errorf("what was removed is restored: %v", err)
	}
	s.holds(t, m, "two")
	ok(t, s.host.EnsureRestored(s.ctx, more, first.ID))
	ok(t, s.host.EnsureDefined(s.ctx, more))
	s.keeps(t, m, first)
	ok(t, s.host.EnsureStarted(s.ctx, id))
	s.await(t, m, "usable", ready)
	ok(t, s.host.EnsureGone(s.ctx, id))
	s.keeps(t, m)
}

func keptOn(t *testing.T, s *session) {
	m := s.machine(t)
	id, snapshot := m.VM.GetId(), snapshotOf(m)
	s.build(t, m)
	ok(t, s.host.EnsureSnapshot(s.ctx, id, snapshot))
	ok(t, s.host.EnsureStarted(s.ctx, id))
	before := s.await(t, m, "usable", ready)
	other := hypervisor.Snapshot{ID: uuid.NewString(), Name: "other"}
	if err := want(s.host.EnsureSnapshot(s.ctx, id, other), hypervisor.ErrNeedsOff); err != nil {
		t.Errorf("a snapshot: %v", err)
	}
	if err := want(s.host.EnsureRestored(s.ctx, m, snapshot.ID), hypervisor.ErrNeedsOff); err != nil {
		t.Errorf("restoring: %v", err)
	}
	s.keeps(t, m, snapshot)
	ok(t, s.host.EnsureNoSnapshot(s.ctx, id, snapshot.ID))
	s.keeps(t, m)
	if o := s.observe(t, m); o.Power != apiv1.VM_ON || !o.Ready || o.Counters.CPU < before.Counters.CPU {
		t.Errorf("it became %+v of %+v", o, before)
	}
}

// reclaimed: the trash is a VM that is off, whatever it had; what ends there is gone, and whoever has its id anew finds nothing of it.
func reclaimed(t *testing.T, s *session) {
	m := s.machine(t)
	id, snapshot := m.VM.GetId(), snapshotOf(m)
	s.build(t, m)
	s.Write(t, m, "mine")
	ok(t, s.host.EnsureSnapshot(s.ctx, id, snapshot))
	ok(t, s.host.EnsureStarted(s.ctx, id))
	for range 2 {
		ok(t, s.host.EnsureStopped(s.ctx, id, true))
	}
	s.reopen(t)
	s.is(t, m, apiv1.VM_OFF)
	s.holds(t, m, "mine")
	s.has(t, m)
	s.keeps(t, m, snapshot)
	ok(t, s.host.EnsureStarted(s.ctx, id))
	s.is(t, m, apiv1.VM_ON)

	ok(t, s.host.EnsureStopped(s.ctx, id, true))
	ok(t, s.host.EnsureGone(s.ctx, id))
	s.is(t, m, apiv1.VM_MISSING)
	s.keeps(t, m)
	s.build(t, m)
	s.holds(t, m, "")
	s.keeps(t, m)
}

// lostOnDisk: P17 for what changes a disk.
func lostOnDisk(t *testing.T, s *session) {
	m := s.machine(t)
	id, snapshot, more := m.VM.GetId(), snapshotOf(m), larger(m)
	s.build(t, m)
	s.Write(t, m, "one")
	for _, step := range []step{
		{"snapshot", func(ctx context.Context, m hypervisor.Machine) error { return s.host.EnsureSnapshot(ctx, id, snapshot) }},
		{"size", func(ctx context.Context, m hypervisor.Machine) error { return s.host.EnsureSize(ctx, more) }},
		{"restore", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureRestored(ctx, more, snapshot.ID)
		}},
		{"drop", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureNoSnapshot(ctx, id, snapshot.ID)
		}},
	} {
		s.LoseReply(t, step.name)
		if err := step.call(s.ctx, m); err == nil {
			t.Fatalf("%s: no reply was lost", step.name)
		} else if hypervisor.IsFatal(err) {
			t.Fatalf("%s: a lost reply is fatal: %v", step.name, err)
		}
		if err := step.call(s.ctx, m); err != nil {
			t.Fatalf("%s, again: %v", step.name, err)
		}
		switch step.name {
		case "snapshot":
			s.keeps(t, m, snapshot)
			s.Write(t, m, "two")
		case "size":
			s.has(t, more)
			s.holds(t, m, "two")
		case "restore":
			s.has(t, more)
			s.holds(t, m, "one")
		case "drop":
			s.keeps(t, m)
			s.holds(t, m, "one")
		}
	}
}
