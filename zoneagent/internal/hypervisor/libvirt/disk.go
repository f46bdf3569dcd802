package libvirt

import (
	"bytes"
	"context"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/seed"
)

func diskName(vmID string) string { return vmID + ".qcow2" }
func seedName(vmID string) string { return vmID + ".iso" }

// EnsureDisk implements hypervisor.Host.
func (h *host) EnsureDisk(ctx context.Context, m hypervisor.Machine) error {
	if _, err := parseID(m.VM.GetId()); err != nil {
		return err
	}
	pool, err := h.pool(ctx, disksPool)
	if err != nil {
		return err
	}
	if err := h.reread(ctx, pool); err != nil {
		return err
	}
	existing, err := h.volume(ctx, pool, diskName(m.VM.GetId()))
	if err != nil {
		return err
	}
	if existing != nil {
		whole, err := h.wholeDisk(ctx, m.VM.GetId(), *existing)
		if err != nil || whole {
			return err
		}
		if err := h.remove(ctx, pool, diskName(m.VM.GetId())); err != nil {
			return err
		}
	}
	image, err := h.image(ctx, pool, m.VM.GetImageSha256())
	if err != nil {
		return err
	}
	if image == nil {
		return fmt.Errorf("disk of vm %s: image %s is not on the host", m.VM.GetName(), m.VM.GetImageSha256())
	}
	needed, err := h.virtualSize(ctx, *image, m.VM.GetImageFormat())
	if err != nil {
		return err
	}
	size := uint64(m.VM.GetSize().GetDiskGib()) << 30
	if size < needed {
		return hypervisor.Fatal(fmt.Errorf("disk of vm %s: image %s needs %d MiB and the vm has %d MiB",
			m.VM.GetName(), m.VM.GetImageSha256(), needed>>20, size>>20))
	}
	base, err := h.path(ctx, *image)
	if err != nil {
		return err
	}
	overlay := raw(diskName(m.VM.GetId()), size)
	overlay.Target.Format.Type = "qcow2"
	overlay.Target.Compat = "1.1" // qcow2 version 3: an older one does not grow once it has a snapshot
	overlay.BackingStore = &libvirtxml.StorageVolumeBackingStore{
		Path:   base,
		Format: &libvirtxml.StorageVolumeTargetFormat{Type: formatName(m.VM.GetImageFormat())},
	}
	_, err = h.create(ctx, pool, overlay)
	return err
}

func formatName(format apiv1.Image_Format) string {
	if format == apiv1.Image_RAW {
		return "raw"
	}
	return "qcow2"
}

// wholeDisk reports whether a disk that is there can be one: a host that lost power while it made the disk may have left
// the name alone. Such a stump is whole only to a VM that is defined already, which is never robbed of a disk.
func (h *host) wholeDisk(ctx context.Context, vmID string, volume rpc.StorageVol) (bool, error) {
	header, err := h.read(ctx, volume, 0, 8)
	if err != nil {
		return false, err
	}
	if bytes.HasPrefix(header, []byte("QFI\xfb")) {
		return true, nil
	}
	domain, err := h.domain(ctx, vmID)
	return domain != nil, err
}

// EnsureSeed implements hypervisor.Host.
func (h *host) EnsureSeed(ctx context.Context, m hypervisor.Machine) error {
	if _, err := parseID(m.VM.GetId()); err != nil {
		return err
	}
	wanted, err := seed.Build(m)
	if err != nil {
		return err
	}
	pool, err := h.pool(ctx, disksPool)
	if err != nil {
		return err
	}
	name := seedName(m.VM.GetId())
	existing, err := h.volume(ctx, pool, name)
	if err != nil {
		return err
	}
	if existing != nil {
		there, err := h.read(ctx, *existing, 0, uint64(len(wanted))+1)
		if err != nil {
			return err
		}
		if bytes.Equal(there, wanted) {
			return nil
		}
		if err := h.remove(ctx, pool, name); err != nil {
			return err
		}
	}
	volume, err := h.create(ctx, pool, raw(name, uint64(len(wanted))))
	if err != nil {
		return err
	}
	return h.write(ctx, volume, bytes.NewReader(wanted))
}
