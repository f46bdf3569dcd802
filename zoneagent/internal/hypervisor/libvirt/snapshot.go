package libvirt

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// Snapshots lie inside a VM's qcow2 file, are taken and restored while it is off, and are found by name, which is their id. Why
// not otherwise, docs/adr/0018-snapshots-lie-in-the-disk.md says.

// diskTarget is the VM's disk as its guest sees it; seedTarget the other one, of which nothing is kept.
const (
	diskTarget = "vda"
	seedTarget = "vdb"
)

// snapshot returns a snapshot of a domain, nil when there is none of that id.
func (h *host) snapshot(ctx context.Context, domain rpc.Domain, id string) (*rpc.DomainSnapshot, error) {
	if _, err := parseID(id); err != nil {
		return nil, err
	}
	found, err := call(ctx, h, "domain_snapshot_lookup", func(l *rpc.Libvirt) (rpc.DomainSnapshot, error) {
		return l.DomainSnapshotLookupByName(domain, id, 0)
	})
	if is(err, rpc.ErrNoDomainSnapshot) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err, "looking for snapshot %s", id)
	}
	return &found, nil
}

// EnsureSnapshot implements hypervisor.Host.
func (h *host) EnsureSnapshot(ctx context.Context, vmID string, s hypervisor.Snapshot) error {
	domain, err := h.domain(ctx, vmID)
	if err != nil {
		return err
	}
	if domain == nil {
		return fmt.Errorf("taking a snapshot of vm %s: %w", vmID, hypervisor.ErrNotDefined)
	}
	known, err := h.snapshot(ctx, *domain, s.ID)
	if err != nil || known != nil {
		return err
	}
	if err := h.needsOff(ctx, *domain); err != nil {
		return fmt.Errorf("taking a snapshot of vm %s: %w", vmID, err)
	}
	described, err := (&libvirtxml.DomainSnapshot{
		Name: s.ID, Description: s.Name,
		Memory: &libvirtxml.DomainSnapshotMemory{Snapshot: "no"},
		Disks: &libvirtxml.DomainSnapshotDisks{Disks: []libvirtxml.DomainSnapshotDisk{
			{Name: diskTarget, Snapshot: "internal"}, {Name: seedTarget, Snapshot: "no"},
		}},
	}).Marshal()
	if err != nil {
		return err
	}
	return wrap(h.do(ctx, "domain_snapshot_create", func(l *rpc.Libvirt) error {
		_, err := l.DomainSnapshotCreateXML(*domain, described, 0)
		return err
	}), "taking a snapshot of vm %s", vmID)
}

func (h *host) needsOff(ctx context.Context, domain rpc.Domain) error {
	off, err := h.isOff(ctx, domain)
	if err == nil && !off {
		err = hypervisor.ErrNeedsOff
	}
	return err
}

// EnsureRestored implements hypervisor.Host. libvirt brings back the domain with the disk, as both were then; what the VM is now
// is defined over it, and a disk that has grown since grows again.
func (h *host) EnsureRestored(ctx context.Context, m hypervisor.Machine, snapshotID string) error {
	vmID := m.VM.GetId()
	domain, err := h.domain(ctx, vmID)
	if err != nil {
		return err
	}
	if domain == nil {
		return fmt.Errorf("restoring vm %s: %w", vmID, hypervisor.ErrNotDefined)
	}
	known, err := h.snapshot(ctx, *domain, snapshotID)
	if err != nil {
		return err
	}
	if known == nil {
		return fmt.Errorf("restoring vm %s: %w", vmID, hypervisor.ErrNoSnapshot)
	}
	if err := h.needsOff(ctx, *domain); err != nil {
		return fmt.Errorf("restoring vm %s: %w", vmID, err)
	}
	if err := h.do(ctx, "domain_revert_to_snapshot", func(l *rpc.Libvirt) error { return l.DomainRevertToSnapshot(*known, 0) }); err != nil {
		return wrap(err, "restoring vm %s", vmID)
	}
	return h.EnsureSize(ctx, m)
}

// EnsureNoSnapshot implements hypervisor.Host.
func (h *host) EnsureNoSnapshot(ctx context.Context, vmID, snapshotID string) error {
	domain, err := h.domain(ctx, vmID)
	if err != nil || domain == nil {
		return err
	}
	known, err := h.snapshot(ctx, *domain, snapshotID)
	if err != nil || known == nil {
		return err
	}
	err = h.do(ctx, "domain_snapshot_delete", func(l *rpc.Libvirt) error { return l.DomainSnapshotDelete(*known, 0) })
	if is(err, rpc.ErrNoDomainSnapshot) {
		return nil
	}
	return wrap(err, "removing a snapshot of vm %s", vmID)
}

// Snapshots implements hypervisor.Host.
func (h *host) Snapshots(ctx context.Context, vmID string) ([]hypervisor.Snapshot, error) {
	domain, err := h.domain(ctx, vmID)
	if err != nil || domain == nil {
		return nil, err
	}
	const most = 1 << 10
	found, err := call(ctx, h, "domain_list_all_snapshots", func(l *rpc.Libvirt) ([]rpc.DomainSnapshot, error) {
		found, _, err := l.DomainListAllSnapshots(*domain, most, 0)
		return found, err
	})
	if err != nil {
		return nil, wrap(err, "listing the snapshots of vm %s", vmID)
	}
	all := make([]hypervisor.Snapshot, 0, len(found))
	for _, one := range found {
		text, err := call(ctx, h, "domain_snapshot_get_xml_desc", func(l *rpc.Libvirt) (string, error) { return l.DomainSnapshotGetXMLDesc(one, 0) })
		if err != nil {
			return nil, wrap(err, "asking for snapshot %s", one.Name)
		}
		var described libvirtxml.DomainSnapshot
		if err := described.Unmarshal(text); err != nil {
			return nil, fmt.Errorf("snapshot %s of vm %s: %w", one.Name, vmID, err)
		}
		seconds, _ := strconv.ParseInt(described.CreationTime, 10, 64)
		all = append(all, hypervisor.Snapshot{ID: one.Name, Name: described.Description, TakenAt: time.Unix(seconds, 0)})
	}
	slices.SortFunc(all, func(a, b hypervisor.Snapshot) int {
		return cmp.Or(a.TakenAt.Compare(b.TakenAt), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}
