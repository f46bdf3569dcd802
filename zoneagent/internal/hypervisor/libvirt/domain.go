package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/netip"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// namePrefix marks the domains that are the driver's.
const namePrefix = "naru-"

// domainName is for people at the host; the VM is found by its id alone. The end of the id, which is its random part,
// tells VMs of one name in different projects apart.
func domainName(name, vmID string) string {
	return namePrefix + name + "-" + vmID[strings.LastIndexByte(vmID, '-')+1:]
}

// parseID returns a VM's id as libvirt has it. Only the usual spelling is one, for it is part of file names.
func parseID(vmID string) (rpc.UUID, error) {
	id, err := uuid.Parse(vmID)
	if err != nil || id.String() != vmID {
		return rpc.UUID{}, hypervisor.Fatal(fmt.Errorf("vm id %q is not a uuid", vmID))
	}
	return rpc.UUID(id), nil
}

// domain returns the VM's domain, nil when the host does not know it.
func (h *host) domain(ctx context.Context, vmID string) (*rpc.Domain, error) {
	id, err := parseID(vmID)
	if err != nil {
		return nil, err
	}
	found, err := call(ctx, h, "domain_lookup", func(l *rpc.Libvirt) (rpc.Domain, error) {
		return l.DomainLookupByUUID(id)
	})
	if is(err, rpc.ErrNoDomain) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err, "looking for vm %s", vmID)
	}
	return &found, nil
}

// EnsureDefined implements hypervisor.Host. Defining what is defined replaces what the next start reads.
func (h *host) EnsureDefined(ctx context.Context, m hypervisor.Machine) error {
	vmID := m.VM.GetId()
	if _, err := parseID(vmID); err != nil {
		return err
	}
	var paths [2]string
	disks, err := h.pool(ctx, disksPool)
	if err != nil {
		return err
	}
	for i, name := range []string{diskName(vmID), seedName(vmID)} {
		volume, err := h.volume(ctx, disks, name)
		if err != nil {
			return err
		}
		if volume == nil {
			return fmt.Errorf("defining vm %s: it has no volume %s", m.VM.GetName(), name)
		}
		if paths[i], err = h.path(ctx, *volume); err != nil {
			return err
		}
	}
	log, err := h.ensureLog(ctx, vmID)
	if err != nil {
		return err
	}
	kind, err := h.domainType(ctx)
	if err != nil {
		return err
	}
	described, err := h.describe(m, kind, paths[0], paths[1], log)
	if err != nil {
		return err
	}
	_, err = call(ctx, h, "domain_define", func(l *rpc.Libvirt) (rpc.Domain, error) {
		return l.DomainDefineXMLFlags(described, rpc.DomainDefineValidate)
	})
	return wrap(err, "defining vm %s", m.VM.GetName())
}

// domainType returns "kvm" where the host can, "qemu" (emulation) where it cannot, as libvirt itself found out.
func (h *host) domainType(ctx context.Context) (string, error) {
	s, err := h.calls.get(ctx)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	known := s.domain
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	text, err := call(ctx, h, "get_capabilities", func(l *rpc.Libvirt) (string, error) { return l.ConnectGetCapabilities() })
	if err != nil {
		return "", wrap(err, "asking what the host can do")
	}
	var capabilities libvirtxml.Caps
	if err := capabilities.Unmarshal(text); err != nil {
		return "", fmt.Errorf("capabilities of the host: %w", err)
	}
	kind := ""
	for _, guest := range capabilities.Guests {
		if guest.Arch.Name != architecture || guest.OSType != "hvm" {
			continue
		}
		for _, domain := range guest.Arch.Domains {
			if domain.Type == "kvm" || domain.Type == "qemu" && kind == "" {
				kind = domain.Type
			}
		}
	}
	if kind == "" {
		return "", hypervisor.Fatal(fmt.Errorf("the host can run no %s guests; is qemu-system-x86 installed there?", architecture))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.domain = kind
	return kind, nil
}

const (
	architecture = "x86_64"
	metadata     = "https://naru.dev/libvirt/vm/1"
)

// origin is what a domain says of where it comes from.
type origin struct {
	XMLName xml.Name `xml:"https://naru.dev/libvirt/vm/1 vm"`
	ID      string   `xml:"id,attr"`
	Name    string   `xml:"name,attr"`
	Project string   `xml:"project,attr"`
	Address string   `xml:"address,attr,omitempty"`
}

// Address implements hypervisor.Host.
func (h *host) Address(ctx context.Context, vmID string) (netip.Addr, error) {
	found, err := h.domain(ctx, vmID)
	if err != nil || found == nil {
		return netip.Addr{}, err
	}
	text, err := call(ctx, h, "domain_get_metadata", func(l *rpc.Libvirt) (string, error) {
		return l.DomainGetMetadata(*found, int32(rpc.DomainMetadataElement), rpc.OptString{metadata}, 0)
	})
	if is(err, rpc.ErrNoDomain) || is(err, rpc.ErrNoDomainMetadata) {
		return netip.Addr{}, nil
	}
	if err != nil {
		return netip.Addr{}, wrap(err, "asking for the address of vm %s", vmID)
	}
	// libvirt takes the namespace's prefix out, or leaves it in.
	var told struct {
		Address string `xml:"address,attr"`
	}
	if err := xml.Unmarshal([]byte(text), &told); err != nil {
		return netip.Addr{}, fmt.Errorf("metadata of vm %s: %w", vmID, err)
	}
	if told.Address == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(told.Address)
}

// describe returns the domain as libvirt's XML.
func (h *host) describe(m hypervisor.Machine, kind, disk, seed, log string) (string, error) {
	vm := m.VM
	told := origin{XMLName: xml.Name{Space: metadata, Local: "vm"}, ID: vm.GetId(), Name: vm.GetName(), Project: vm.GetProject()}
	if a := m.Address.Addr(); a.IsValid() {
		told.Address = a.String()
	}
	known, err := xml.Marshal(told)
	if err != nil {
		return "", err
	}
	bridge := m.Bridge
	if bridge == "" {
		bridge = h.options.Bridge
	}
	if bridge == "" {
		return "", hypervisor.Fatal(fmt.Errorf("vm %s: no bridge is configured for its network card", vm.GetName()))
	}
	zero := uint(0)
	domain := &libvirtxml.Domain{
		Type:     kind,
		Name:     domainName(vm.GetName(), vm.GetId()),
		UUID:     vm.GetId(),
		Title:    vm.GetName(),
		Metadata: &libvirtxml.DomainMetadata{XML: string(known)},
		Memory:   &libvirtxml.DomainMemory{Unit: "MiB", Value: uint(vm.GetSize().GetMemoryMib())},
		VCPU:     &libvirtxml.DomainVCPU{Value: uint(vm.GetSize().GetCores())},
		OS: &libvirtxml.DomainOS{
			Type: &libvirtxml.DomainOSType{Arch: architecture, Machine: "pc", Type: "hvm"},
		},
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}},
		Clock:      &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff: "destroy",
		OnReboot:   "restart",
		OnCrash:    "destroy",
		Devices: &libvirtxml.DomainDeviceList{
			Disks: []libvirtxml.DomainDisk{
				{
					Device: "disk",
					Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "qcow2", Cache: h.options.DiskCache, Discard: "unmap"},
					Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: disk}},
					Target: &libvirtxml.DomainDiskTarget{Dev: diskTarget, Bus: "virtio"},
					Boot:   &libvirtxml.DomainDeviceBoot{Order: 1},
				},
				{
					// A disk and not a CD: NoCloud looks for the volume's name on all, and a small guest knows only virtio.
					Device:   "disk",
					Driver:   &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
					Source:   &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: seed}},
					Target:   &libvirtxml.DomainDiskTarget{Dev: seedTarget, Bus: "virtio"},
					ReadOnly: &libvirtxml.DomainDiskReadOnly{},
				},
			},
			Controllers: []libvirtxml.DomainController{{Type: "usb", Index: &zero, Model: "none"}},
			Interfaces: []libvirtxml.DomainInterface{{
				MAC:    &libvirtxml.DomainInterfaceMAC{Address: m.MAC},
				Source: &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: bridge}},
				Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
				ROM:    &libvirtxml.DomainROM{Enabled: "no"},
			}},
			Serials: []libvirtxml.DomainSerial{{
				Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
				Log:    &libvirtxml.DomainChardevLog{File: log, Append: "on"},
				Target: &libvirtxml.DomainSerialTarget{Port: &zero},
			}},
			Channels: []libvirtxml.DomainChannel{{
				Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}},
				Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"}},
			}},
			MemBalloon: &libvirtxml.DomainMemBalloon{Model: "virtio", Stats: &libvirtxml.DomainMemBalloonStats{Period: 5}},
			RNGs: []libvirtxml.DomainRNG{{
				Model:   "virtio",
				Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}},
			}},
		},
	}
	if kind == "kvm" {
		domain.CPU = &libvirtxml.DomainCPU{Mode: "host-model"}
	} else {
		// Emulated guests are small ones in great numbers; QEMU's own default is a gigabyte of translated code each.
		domain.Features.TCG = &libvirtxml.DomainFeatureTCG{TBCache: &libvirtxml.DomainFeatureTCGTBCache{Unit: "MiB", Size: 32}}
	}
	return domain.Marshal()
}
