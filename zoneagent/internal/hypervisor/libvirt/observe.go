package libvirt

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// wantedStats are the groups of numbers asked for. NOWAIT leaves out what a busy or hanging guest would have to be asked
// for, and never its state.
const (
	wantedStats = uint32(rpc.DomainStatsState | rpc.DomainStatsCPUTotal | rpc.DomainStatsBalloon |
		rpc.DomainStatsVCPU | rpc.DomainStatsInterface | rpc.DomainStatsBlock)
	statsFlags = uint32(rpc.ConnectGetAllDomainsStatsNowait)
)

// logsALook is the most serial logs that one look at all VMs reads, those longest unread first.
const logsALook = 16

// Observe implements hypervisor.Host.
func (h *host) Observe(ctx context.Context, vmID string) (hypervisor.Observation, error) {
	domain, err := h.domain(ctx, vmID)
	if err != nil {
		return hypervisor.Observation{}, err
	}
	if domain == nil {
		return hypervisor.Missing(vmID), nil
	}
	records, err := h.stats(ctx, *domain)
	if is(err, rpc.ErrNoDomain) {
		return hypervisor.Missing(vmID), nil
	}
	if err != nil {
		return hypervisor.Observation{}, wrap(err, "observing vm %s", vmID)
	}
	if len(records) != 1 {
		return hypervisor.Observation{}, fmt.Errorf("observing vm %s: libvirt answered for %d domains", vmID, len(records))
	}
	o := observation(records[0])
	if o.Power == apiv1.VM_ON {
		s, err := h.calls.get(ctx)
		if err != nil {
			return hypervisor.Observation{}, err
		}
		o.Ready = h.ready(ctx, s.logs.of(vmID, records[0].Dom.ID), vmID)
	}
	return o, nil
}

// ObserveAll implements hypervisor.Host.
func (h *host) ObserveAll(ctx context.Context) ([]hypervisor.Observation, error) {
	records, err := h.stats(ctx)
	if err != nil {
		return nil, wrap(err, "observing all vms")
	}
	s, err := h.calls.get(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]hypervisor.Observation, 0, len(records))
	seen := make(map[string]bool, len(records))
	type unready struct {
		at  int
		log *serialLog
	}
	var waiting []unready
	for _, record := range records {
		if !strings.HasPrefix(record.Dom.Name, namePrefix) {
			continue
		}
		o := observation(record)
		seen[o.VMID] = true
		if o.Power == apiv1.VM_ON {
			log := s.logs.of(o.VMID, record.Dom.ID)
			if o.Ready = log.isReady(); !o.Ready {
				waiting = append(waiting, unready{len(all), log})
			}
		}
		all = append(all, o)
	}
	slices.SortStableFunc(waiting, func(a, b unready) int { return a.log.lastLook().Compare(b.log.lastLook()) })
	for _, w := range waiting[:min(len(waiting), logsALook)] {
		all[w.at].Ready = h.ready(ctx, w.log, all[w.at].VMID)
	}
	s.logs.keep(seen)
	slices.SortFunc(all, func(a, b hypervisor.Observation) int { return cmp.Compare(a.VMID, b.VMID) })
	return all, nil
}

// stats asks for the numbers of some domains, or, with none named, of all.
func (h *host) stats(ctx context.Context, domains ...rpc.Domain) ([]rpc.DomainStatsRecord, error) {
	return call(ctx, h, "get_all_domain_stats", func(l *rpc.Libvirt) ([]rpc.DomainStatsRecord, error) {
		return l.ConnectGetAllDomainStats(domains, wantedStats, statsFlags)
	})
}

// observation turns libvirt's numbers into ours.
func observation(record rpc.DomainStatsRecord) hypervisor.Observation {
	n := numbers(record.Params)
	o := hypervisor.Observation{VMID: uuid.UUID(record.Dom.UUID).String(), Power: power(n)}
	if o.Power == apiv1.VM_OFF {
		return o
	}
	const kib, mib = 1 << 10, 1 << 20
	c := hypervisor.VMCounters{
		At:            time.Now(),
		CPU:           time.Duration(n[rpc.DomainStatsCPUTime]),
		Cores:         uint32(n[rpc.DomainStatsVCPUCurrent]),
		MemoryUsedMiB: uint32(n[rpc.DomainStatsBalloonRss] * kib / mib),
	}
	if available, usable := n[rpc.DomainStatsBalloonAvailable], n[rpc.DomainStatsBalloonUsable]; available > usable && usable > 0 {
		c.MemoryUsedMiB = uint32((available - usable) * kib / mib)
	}
	for i := range n[rpc.DomainStatsVCPUMaximum] {
		if n[rpc.DomainStatsCPUTime] == 0 { // libvirt without control groups tells it core by core
			c.CPU += time.Duration(n[fmt.Sprint(rpc.DomainStatsVCPUPrefix, i, rpc.DomainStatsVCPUSuffixTime)])
		}
	}
	for i := range n[rpc.DomainStatsBlockCount] {
		c.DiskReadBytes += n[fmt.Sprint(rpc.DomainStatsBlockPrefix, i, rpc.DomainStatsBlockSuffixRdBytes)]
		c.DiskWriteBytes += n[fmt.Sprint(rpc.DomainStatsBlockPrefix, i, rpc.DomainStatsBlockSuffixWrBytes)]
	}
	for i := range n[rpc.DomainStatsNetCount] {
		// libvirt counts from the guest's side.
		c.NetReceiveBytes += n[fmt.Sprint(rpc.DomainStatsNetPrefix, i, rpc.DomainStatsNetSuffixRxBytes)]
		c.NetTransmitBytes += n[fmt.Sprint(rpc.DomainStatsNetPrefix, i, rpc.DomainStatsNetSuffixTxBytes)]
	}
	o.Counters = c
	return o
}

// numbers returns the parameters that are whole numbers, by name.
func numbers(params []rpc.TypedParam) map[string]uint64 {
	n := make(map[string]uint64, len(params))
	for _, p := range params {
		switch value := p.Value.I.(type) {
		case int32:
			n[p.Field] = uint64(max(value, 0))
		case uint32:
			n[p.Field] = uint64(value)
		case int64:
			n[p.Field] = uint64(max(value, 0))
		case uint64:
			n[p.Field] = value
		}
	}
	return n
}

func power(n map[string]uint64) apiv1.VM_Power {
	switch rpc.DomainState(n[rpc.DomainStatsStateState]) {
	case rpc.DomainRunning, rpc.DomainBlocked, rpc.DomainShutdown:
		return apiv1.VM_ON
	case rpc.DomainPaused:
		if rpc.DomainPausedReason(n[rpc.DomainStatsStateReason]) == rpc.DomainPausedStartingUp {
			return apiv1.VM_UNKNOWN // on its way
		}
		return apiv1.VM_PAUSED
	case rpc.DomainPmsuspended:
		return apiv1.VM_PAUSED
	case rpc.DomainShutoff, rpc.DomainCrashed:
		return apiv1.VM_OFF
	}
	return apiv1.VM_UNKNOWN
}
