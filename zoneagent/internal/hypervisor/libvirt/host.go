package libvirt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// host is a handle on one libvirtd.
type host struct {
	name     string
	options  Options
	override *apiv1.Resources
	log      *slog.Logger
	dial     dialFunc
	calls    *connection
	images   *latches // one transfer an image at a time
	closed   atomic.Bool
}

var _ hypervisor.Host = (*host)(nil)

// call runs one remote procedure on the host's connection, within ctx.
func call[T any](ctx context.Context, h *host, name string, procedure func(*rpc.Libvirt) (T, error)) (T, error) {
	s, err := h.calls.get(ctx)
	if err != nil {
		var none T
		return none, err
	}
	began := time.Now()
	value, err := await(ctx, s, procedure)
	h.options.Metrics.call(name, time.Since(began), err)
	return value, err
}

// do is call for a procedure that only succeeds or fails.
func (h *host) do(ctx context.Context, name string, procedure func(*rpc.Libvirt) error) error {
	_, err := call(ctx, h, name, func(l *rpc.Libvirt) (struct{}, error) { return struct{}{}, procedure(l) })
	return err
}

// Inventory implements hypervisor.Host.
func (h *host) Inventory(ctx context.Context) (hypervisor.Inventory, error) {
	reported, err := call(ctx, h, "node_get_info", func(l *rpc.Libvirt) (*apiv1.Resources, error) {
		_, memoryKiB, cpus, _, _, _, _, _, err := l.NodeGetInfo()
		return &apiv1.Resources{Cores: uint32(cpus), MemoryMib: uint32(memoryKiB / 1024)}, err
	})
	if err != nil {
		return hypervisor.Inventory{}, wrap(err, "asking for the host's size")
	}
	version, err := call(ctx, h, "get_version", func(l *rpc.Libvirt) (string, error) {
		qemu, err := l.ConnectGetVersion()
		library, libErr := l.ConnectGetLibVersion()
		return fmt.Sprintf("QEMU %s, libvirt %s", versionText(qemu), versionText(library)), errors.Join(err, libErr)
	})
	if err != nil {
		return hypervisor.Inventory{}, wrap(err, "asking for the hypervisor's version")
	}
	disks, err := h.pool(ctx, disksPool)
	if err != nil {
		return hypervisor.Inventory{}, err
	}
	reported.DiskGib, err = call(ctx, h, "storage_pool_get_info", func(l *rpc.Libvirt) (uint32, error) {
		_, capacity, _, _, err := l.StoragePoolGetInfo(disks)
		return uint32(capacity >> 30), err
	})
	if err != nil {
		return hypervisor.Inventory{}, wrap(err, "asking for the size of pool %s", disks.Name)
	}
	s, err := h.calls.get(ctx)
	if err != nil {
		return hypervisor.Inventory{}, wrap(err, "asking for the host's certificate")
	}
	if !s.ends.IsZero() {
		h.options.Metrics.expiry.WithLabelValues(h.name).Set(float64(s.ends.Unix()))
	}
	return hypervisor.Inventory{Total: hypervisor.Capacity(reported, h.override), Version: version, CertificateEnds: s.ends}, nil
}

// versionText spells libvirt's version numbers: 7002022 is 7.2.22.
func versionText(n uint64) string {
	return fmt.Sprintf("%d.%d.%d", n/1_000_000, n/1000%1000, n%1000)
}

// Sample implements hypervisor.Host.
func (h *host) Sample(ctx context.Context) (hypervisor.HostCounters, error) {
	const allCPUs, allCells = -1, -1
	c, err := call(ctx, h, "node_get_stats", func(l *rpc.Libvirt) (c hypervisor.HostCounters, err error) {
		_, _, cpus, _, _, _, _, _, err := l.NodeGetInfo()
		if err != nil {
			return c, err
		}
		c.Cores, c.At = uint32(cpus), time.Now()
		_, count, err := l.NodeGetCPUStats(allCPUs, 0, 0)
		if err != nil {
			return c, err
		}
		times, _, err := l.NodeGetCPUStats(allCPUs, count, 0)
		if err != nil {
			return c, err
		}
		for _, t := range times { // nanoseconds over all processors
			c.CPUTotal += time.Duration(t.Value)
			if t.Field == "user" || t.Field == "kernel" {
				c.CPUBusy += time.Duration(t.Value)
			}
		}
		_, count, err = l.NodeGetMemoryStats(0, allCells, 0)
		if err != nil {
			return c, err
		}
		memory, _, err := l.NodeGetMemoryStats(count, allCells, 0)
		if err != nil {
			return c, err
		}
		var used int64 // KiB: the total less what is free or can be had back
		for _, m := range memory {
			switch m.Field {
			case "total":
				c.MemoryTotalMiB = uint32(m.Value / 1024)
				used += int64(m.Value)
			case "free", "buffers", "cached":
				used -= int64(m.Value)
			}
		}
		c.MemoryUsedMiB = uint32(max(used, 0) / 1024)
		return c, nil
	})
	return c, wrap(err, "asking for the host's load")
}

// Close implements hypervisor.Host.
func (h *host) Close() error {
	h.closed.Store(true)
	h.options.Metrics.expiry.DeleteLabelValues(h.name)
	h.calls.close()
	return nil
}
