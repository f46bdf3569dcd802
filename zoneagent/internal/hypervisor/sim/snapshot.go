package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// kept is a snapshot.
type kept struct {
	ID, Name string
	TakenAt  time.Time
	Content  string
	DiskGiB  uint32
}

func (v *vm) snapshot(id string) int {
	return slices.IndexFunc(v.Snapshots, func(k kept) bool { return k.ID == id })
}

// change runs a change of a defined VM.
func (h *handle) change(ctx context.Context, doing, vmID string, change func(*state, *vm, time.Time) error) error {
	return h.call(ctx, func(s *state, now time.Time) error {
		v := s.defined(vmID)
		if v == nil {
			return fmt.Errorf("%s %s: %w", doing, vmID, hypervisor.ErrNotDefined)
		}
		return change(s, v, now)
	})
}

func (h *handle) EnsureSize(ctx context.Context, m hypervisor.Machine) error {
	size := m.VM.GetSize()
	return h.change(ctx, "resizing", m.VM.GetId(), func(_ *state, v *vm, _ time.Time) error {
		switch {
		case size.GetDiskGib() < v.DiskGiB:
			return hypervisor.Fatal(fmt.Errorf("resizing %s: its disk has %d GiB and cannot be made smaller", v.ID, v.DiskGiB))
		case v.on() && !h.host.settings.live && (v.Cores != size.GetCores() || v.MemoryMiB != size.GetMemoryMib()):
			return fmt.Errorf("resizing %s: %w", v.ID, hypervisor.ErrNeedsOff)
		}
		v.Cores, v.MemoryMiB, v.DiskGiB = size.GetCores(), size.GetMemoryMib(), size.GetDiskGib()
		return nil
	})
}

func (h *handle) Size(ctx context.Context, vmID string) (size *apiv1.Resources, err error) {
	err = h.call(ctx, func(s *state, _ time.Time) error {
		if v := s.defined(vmID); v != nil {
			size = &apiv1.Resources{Cores: v.Cores, MemoryMib: v.MemoryMiB, DiskGib: v.DiskGiB}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return size, nil
}

func (h *handle) EnsureSnapshot(ctx context.Context, vmID string, snapshot hypervisor.Snapshot) error {
	return h.change(ctx, "taking a snapshot of", vmID, func(_ *state, v *vm, now time.Time) error {
		if v.snapshot(snapshot.ID) >= 0 {
			return nil
		}
		if v.on() {
			return fmt.Errorf("taking a snapshot of %s: %w", vmID, hypervisor.ErrNeedsOff)
		}
		v.Snapshots = append(v.Snapshots, kept{snapshot.ID, snapshot.Name, now, v.Content, v.DiskGiB})
		return nil
	})
}

func (h *handle) EnsureRestored(ctx context.Context, m hypervisor.Machine, snapshotID string) error {
	return h.change(ctx, "restoring", m.VM.GetId(), func(_ *state, v *vm, _ time.Time) error {
		i := v.snapshot(snapshotID)
		switch {
		case i < 0:
			return fmt.Errorf("restoring %s: %w", v.ID, hypervisor.ErrNoSnapshot)
		case v.on():
			return fmt.Errorf("restoring %s: %w", v.ID, hypervisor.ErrNeedsOff)
		}
		size := m.VM.GetSize()
		v.Content, v.Cores, v.MemoryMiB, v.DiskGiB = v.Snapshots[i].Content, size.GetCores(), size.GetMemoryMib(), size.GetDiskGib()
		return nil
	})
}

func (h *handle) EnsureNoSnapshot(ctx context.Context, vmID, snapshotID string) error {
	return h.call(ctx, func(s *state, _ time.Time) error {
		if v := s.defined(vmID); v != nil {
			v.Snapshots = slices.DeleteFunc(v.Snapshots, func(k kept) bool { return k.ID == snapshotID })
		}
		return nil
	})
}

func (h *handle) Snapshots(ctx context.Context, vmID string) (all []hypervisor.Snapshot, err error) {
	err = h.call(ctx, func(s *state, _ time.Time) error {
		if v := s.defined(vmID); v != nil {
			for _, k := range v.Snapshots {
				all = append(all, hypervisor.Snapshot{ID: k.ID, Name: k.Name, TakenAt: k.TakenAt})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b hypervisor.Snapshot) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// Write puts something on a VM's disk, as its guest would.
func (k *Knobs) Write(vmID, content string) {
	k.host.peek(func(s *state) {
		if v := s.VMs[vmID]; v != nil {
			v.Content = content
		}
	})
}

// Read returns what is on a VM's disk.
func (k *Knobs) Read(vmID string) (content string) {
	k.host.peek(func(s *state) {
		if v := s.VMs[vmID]; v != nil {
			content = v.Content
		}
	})
	return content
}

// Size returns what a VM has on this host.
func (k *Knobs) Size(vmID string) (size *apiv1.Resources) {
	k.host.peek(func(s *state) {
		if v := s.VMs[vmID]; v != nil {
			size = &apiv1.Resources{Cores: v.Cores, MemoryMib: v.MemoryMiB, DiskGib: v.DiskGiB}
		}
	})
	return size
}
