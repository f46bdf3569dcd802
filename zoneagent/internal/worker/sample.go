package worker

import (
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// sampled are samples that wait to be sent.
type sampled struct {
	hosts []*apiv1.HostSample
	vms   []*apiv1.VMSample
}

func (s *sampled) some() bool { return len(s.hosts)+len(s.vms) > 0 }

// samplesAtOnce are sent without waiting for more.
const samplesAtOnce = 4096

// sendSamples sends what has gathered, a while after the last time: rounds of many hosts go together.
func (t *Term) sendSamples() {
	s := &t.samples
	if !s.some() || len(s.hosts)+len(s.vms) < samplesAtOnce && time.Since(t.sampled) < t.limits.ReportEvery {
		return
	}
	t.w.cfg.Samples.Add(s.hosts, s.vms)
	*s, t.sampled = sampled{}, time.Now()
}

// sampleVM makes a VM's sample of two readings of its counters; nil without a first one, or when they went back.
func (t *Term) sampleVM(h *host, m *machine, o hypervisor.Observation) *apiv1.VMSample {
	before, now := m.counters, o.Counters
	m.counters = now
	span := now.At.Sub(before.At)
	if o.Power != apiv1.VM_ON || before.At.IsZero() || span <= 0 || now.CPU < before.CPU {
		return nil
	}
	vm := m.wanted
	return &apiv1.VMSample{
		VmId: m.id, Vm: m.is.GetName(), Project: vm.GetProject(), Zone: t.w.cfg.Zone, Host: h.name(), Time: stamp(now.At),
		CpuRatio: now.CPURatio(before), MemoryUsedMib: now.MemoryUsedMiB,
		DiskReadBytes: rate(before.DiskReadBytes, now.DiskReadBytes, span), DiskWriteBytes: rate(before.DiskWriteBytes, now.DiskWriteBytes, span),
		NetReceiveBytes: rate(before.NetReceiveBytes, now.NetReceiveBytes, span), NetTransmitBytes: rate(before.NetTransmitBytes, now.NetTransmitBytes, span),
	}
}

// sampleHost makes a host's sample likewise.
func (t *Term) sampleHost(h *host, now hypervisor.HostCounters) *apiv1.HostSample {
	before := h.counters
	h.counters = now
	if before.At.IsZero() || !now.At.After(before.At) {
		return nil
	}
	return &apiv1.HostSample{
		HostId: h.id, Host: h.name(), Zone: t.w.cfg.Zone, Cluster: t.zone.noun.GetName(), Time: stamp(now.At),
		CpuRatio: now.CPURatio(before), MemoryUsedMib: now.MemoryUsedMiB, MemoryTotalMib: now.MemoryTotalMiB, Cores: now.Cores,
		VmCount: uint32(len(t.zone.on[h.id])),
	}
}

// rate is how much a counter grew in a second; 0 when it went back.
func rate(before, now uint64, span time.Duration) float64 {
	if now < before || span <= 0 {
		return 0
	}
	return float64(now-before) / span.Seconds()
}
