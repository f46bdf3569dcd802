package libvirt

import (
	"context"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// EnsureSize implements hypervisor.Host. A disk grows while its guest runs: QEMU tells it. Cores and memory are what the next
// start reads: a domain has no sockets to spare, and a core that is plugged into a guest is of use only where the guest takes it
// up, which nobody tells.
func (h *host) EnsureSize(ctx context.Context, m hypervisor.Machine) error {
	vmID, name := m.VM.GetId(), m.VM.GetName()
	domain, err := h.domain(ctx, vmID)
	if err != nil {
		return err
	}
	if domain == nil {
		return fmt.Errorf("resizing vm %s: %w", name, hypervisor.ErrNotDefined)
	}
	is, disk, err := h.sizeOf(ctx, *domain, vmID)
	if err != nil {
		return err
	}
	wanted := m.VM.GetSize()
	bytes := uint64(wanted.GetDiskGib()) << 30
	if bytes < disk.bytes {
		return hypervisor.Fatal(fmt.Errorf("resizing vm %s: its disk has %d GiB and cannot be made smaller", name, is.GetDiskGib()))
	}
	off, err := h.isOff(ctx, *domain)
	if err != nil {
		return err
	}
	switch {
	case !off && (is.GetCores() != wanted.GetCores() || is.GetMemoryMib() != wanted.GetMemoryMib()):
		return fmt.Errorf("resizing vm %s: %w", name, hypervisor.ErrNeedsOff)
	case disk.bytes == bytes:
	case off:
		err = h.do(ctx, "storage_vol_resize", func(l *rpc.Libvirt) error { return l.StorageVolResize(disk.volume, bytes, 0) })
	default:
		err = h.do(ctx, "domain_block_resize", func(l *rpc.Libvirt) error {
			return l.DomainBlockResize(*domain, diskTarget, bytes, rpc.DomainBlockResizeBytes)
		})
	}
	if err != nil {
		return wrap(err, "growing the disk of vm %s", name)
	}
	if !off {
		return nil
	}
	return h.EnsureDefined(ctx, m)
}

// Size implements hypervisor.Host.
func (h *host) Size(ctx context.Context, vmID string) (*apiv1.Resources, error) {
	domain, err := h.domain(ctx, vmID)
	if err != nil || domain == nil {
		return nil, err
	}
	is, _, err := h.sizeOf(ctx, *domain, vmID)
	return is, err
}

// diskOf is a VM's disk, and how large a disk it is to the guest.
type diskOf struct {
	volume rpc.StorageVol
	bytes  uint64
}

func (h *host) sizeOf(ctx context.Context, domain rpc.Domain, vmID string) (is *apiv1.Resources, disk diskOf, err error) {
	is, err = call(ctx, h, "domain_get_info", func(l *rpc.Libvirt) (*apiv1.Resources, error) {
		_, memoryKiB, _, cores, _, err := l.DomainGetInfo(domain)
		return &apiv1.Resources{Cores: uint32(cores), MemoryMib: uint32(memoryKiB / 1024)}, err
	})
	if err != nil {
		return nil, disk, wrap(err, "asking for the size of vm %s", vmID)
	}
	pool, err := h.pool(ctx, disksPool)
	if err != nil {
		return nil, disk, err
	}
	volume, err := h.volume(ctx, pool, diskName(vmID))
	if err != nil {
		return nil, disk, err
	}
	if volume == nil {
		return nil, disk, fmt.Errorf("asking for the size of vm %s: it has no disk", vmID)
	}
	disk.volume = *volume
	disk.bytes, err = call(ctx, h, "storage_vol_get_info", func(l *rpc.Libvirt) (uint64, error) {
		_, capacity, _, err := l.StorageVolGetInfo(*volume)
		return capacity, err
	})
	is.DiskGib = uint32(disk.bytes >> 30)
	return is, disk, wrap(err, "asking for the size of the disk of vm %s", vmID)
}

// isOff tells whether nothing of a domain runs.
func (h *host) isOff(ctx context.Context, domain rpc.Domain) (bool, error) {
	state, err := h.state(ctx, domain)
	return state == rpc.DomainShutoff || state == rpc.DomainCrashed, err
}
