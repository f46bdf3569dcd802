package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/diskimage"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/seed"
)

// handle is one opening of a host.
type handle struct {
	host     *host
	override *apiv1.Resources
	closed   atomic.Bool
}

var _ hypervisor.Host = (*handle)(nil)

func (h *handle) call(ctx context.Context, effect func(*state, time.Time) error) error {
	if h.closed.Load() {
		return errors.New("the host's handle is closed")
	}
	return h.host.call(ctx, effect)
}

func (h *handle) Inventory(ctx context.Context) (inventory hypervisor.Inventory, err error) {
	err = h.call(ctx, func(*state, time.Time) error {
		set := h.host.settings
		inventory = hypervisor.Inventory{
			Total: hypervisor.Capacity(&apiv1.Resources{
				Cores: set.cores, MemoryMib: set.memoryMiB, DiskGib: set.diskGiB,
			}, h.override),
			Version: "sim 1",
		}
		return nil
	})
	return inventory, err
}

// EnsureImage reads and checks the bits as a real driver does, once for each host, and keeps none of them.
func (h *handle) EnsureImage(ctx context.Context, image hypervisor.Image, open func() (io.ReadCloser, error)) error {
	present := false
	if err := h.call(ctx, func(s *state, _ time.Time) error {
		present = s.Images[image.SHA256]
		return nil
	}); err != nil || present {
		return err
	}
	if err := check(ctx, image, open); err != nil {
		return err
	}
	return h.call(ctx, func(s *state, _ time.Time) error {
		s.Images[image.SHA256] = true
		return nil
	})
}

func check(ctx context.Context, image hypervisor.Image, open func() (io.ReadCloser, error)) error {
	source, err := open()
	if err != nil {
		return fmt.Errorf("image %s: %w", image.SHA256, err)
	}
	defer source.Close()
	reader, err := diskimage.NewReader(source, image)
	if err != nil {
		return err
	}
	part := make([]byte, 64<<10)
	for err == nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err = reader.Read(part)
	}
	return reader.Verify()
}

func (h *handle) EnsureDisk(ctx context.Context, m hypervisor.Machine) error {
	return h.call(ctx, func(s *state, _ time.Time) error {
		v := s.VMs[m.VM.GetId()]
		if v != nil && v.Disk {
			return nil
		}
		if !s.Images[m.VM.GetImageSha256()] {
			return fmt.Errorf("image %s is not on the host", m.VM.GetImageSha256())
		}
		s.entry(m.VM).Disk = true
		return nil
	})
}

func (h *handle) EnsureSeed(ctx context.Context, m hypervisor.Machine) error {
	if _, err := seed.Compose(m); err != nil {
		return hypervisor.Fatal(err)
	}
	return h.call(ctx, func(s *state, _ time.Time) error {
		s.entry(m.VM).Seed = true
		return nil
	})
}

func (h *handle) EnsureDefined(ctx context.Context, m hypervisor.Machine) error {
	return h.call(ctx, func(s *state, _ time.Time) error {
		v := s.entry(m.VM)
		if !v.Defined {
			s.Creations[v.ID]++
		}
		size := m.VM.GetSize()
		v.Defined, v.Cores, v.MemoryMiB, v.DiskGiB = true, size.GetCores(), size.GetMemoryMib(), size.GetDiskGib()
		v.Address = m.Address.Addr()
		return nil
	})
}

func (h *handle) EnsureStarted(ctx context.Context, vmID string) error {
	return h.call(ctx, func(s *state, now time.Time) error {
		v := s.defined(vmID)
		switch {
		case v == nil:
			return fmt.Errorf("starting %s: %w", vmID, hypervisor.ErrNotDefined)
		case v.on() && v.OffAt.IsZero():
			return nil
		case v.on():
			return fmt.Errorf("starting %s: it is shutting down", vmID)
		case !v.Disk || !v.Seed:
			return fmt.Errorf("starting %s: it has no disk or no seed", vmID)
		}
		s.powerOn(v, now, h.host.settings.boot)
		return nil
	})
}

func (h *handle) EnsureStopped(ctx context.Context, vmID string, force bool) error {
	return h.call(ctx, func(s *state, now time.Time) error {
		v := s.defined(vmID)
		switch {
		case v == nil || !v.on():
		case force:
			s.powerOff(v, now)
		case v.OffAt.IsZero() && h.host.settings.shutdown >= 0:
			v.OffAt = now.Add(h.host.settings.shutdown)
		}
		return nil
	})
}

func (h *handle) Reboot(ctx context.Context, vmID string, force bool) error {
	return h.call(ctx, func(s *state, now time.Time) error {
		v := s.defined(vmID)
		if v == nil {
			return fmt.Errorf("rebooting %s: %w", vmID, hypervisor.ErrNotDefined)
		}
		if !v.on() {
			return fmt.Errorf("rebooting %s: %w", vmID, hypervisor.ErrNotRunning)
		}
		return nil // its power stays on throughout, and so do its counters
	})
}

func (h *handle) EnsureGone(ctx context.Context, vmID string) error {
	return h.call(ctx, func(s *state, now time.Time) error {
		if v := s.VMs[vmID]; v != nil {
			s.powerOff(v, now)
			delete(s.VMs, vmID)
		}
		return nil
	})
}

func (h *handle) Observe(ctx context.Context, vmID string) (o hypervisor.Observation, err error) {
	err = h.call(ctx, func(s *state, now time.Time) error {
		o = s.observe(vmID, now)
		return nil
	})
	if err != nil {
		return hypervisor.Observation{}, err
	}
	return o, nil
}

func (h *handle) Address(ctx context.Context, vmID string) (a netip.Addr, err error) {
	err = h.call(ctx, func(s *state, _ time.Time) error {
		if v := s.defined(vmID); v != nil {
			a = v.Address
		}
		return nil
	})
	return a, err
}

func (h *handle) ObserveAll(ctx context.Context) (all []hypervisor.Observation, err error) {
	err = h.call(ctx, func(s *state, now time.Time) error {
		all = make([]hypervisor.Observation, 0, len(s.VMs))
		for _, v := range s.VMs {
			if v.Defined {
				all = append(all, s.observe(v.ID, now))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b hypervisor.Observation) int { return strings.Compare(a.VMID, b.VMID) })
	return all, nil
}

func (h *handle) Sample(ctx context.Context) (c hypervisor.HostCounters, err error) {
	err = h.call(ctx, func(s *state, now time.Time) error {
		c = s.sample(now, h.host.settings)
		return nil
	})
	return c, err
}

func (h *handle) Close() error {
	h.closed.Store(true)
	return nil
}
