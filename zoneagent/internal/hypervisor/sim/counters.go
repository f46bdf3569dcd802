package sim

import (
	"hash/fnv"
	"math"
	"time"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// hostMemoryMiB is what a simulated host takes for itself.
const hostMemoryMiB = 512

// counters returns a VM's counters: a load of its own that swells and ebbs in the course of ten minutes, all of it a
// function of the VM's id and of how long it has run, so that every agent reads the same.
func (v *vm) counters(now time.Time) hypervisor.VMCounters {
	const period = 600.0
	sum := fnv.New64a()
	sum.Write([]byte(v.ID))
	// Four independent numbers in [0, 1).
	var trait [4]float64
	for i := range trait {
		sum.Write([]byte{byte(i)})
		trait[i] = float64(sum.Sum64()>>11) / (1 << 53)
	}
	t := max(now.Sub(v.StartedAt), 0).Seconds()
	// The integral of base + swell*sin(2πt/period), which never falls because swell is below base.
	base := 0.05 + 0.4*trait[0]
	swell := base * 0.9 * trait[1]
	busy := base*t + swell*period/(2*math.Pi)*(1-math.Cos(2*math.Pi*t/period))
	settled := 1 - math.Exp(-t/30)
	bytes := func(rate float64) uint64 { return uint64(rate * busy / base) }
	return hypervisor.VMCounters{
		At:               now,
		CPU:              time.Duration(busy * float64(v.Cores) * float64(time.Second)),
		Cores:            v.Cores,
		MemoryUsedMiB:    uint32(float64(v.MemoryMiB) * (0.15 + (0.2+0.5*trait[2])*settled)),
		DiskReadBytes:    bytes(2e6*trait[3]) + uint64(2e8*settled),
		DiskWriteBytes:   bytes(1e6 * trait[2]),
		NetReceiveBytes:  bytes(5e5 * trait[1]),
		NetTransmitBytes: bytes(8e5 * trait[0]),
	}
}

// sample returns the host's own counters: those of its VMs, past runs included.
func (s *state) sample(now time.Time, set settings) hypervisor.HostCounters {
	c := hypervisor.HostCounters{
		At:             now,
		CPUBusy:        s.Spent,
		CPUTotal:       now.Sub(s.Since) * time.Duration(set.cores),
		Cores:          set.cores,
		MemoryUsedMiB:  hostMemoryMiB,
		MemoryTotalMiB: set.memoryMiB,
	}
	for _, v := range s.VMs {
		if v.on() {
			used := v.counters(now)
			c.CPUBusy += used.CPU
			c.MemoryUsedMiB += used.MemoryUsedMiB
		}
	}
	c.CPUBusy = min(c.CPUBusy, c.CPUTotal)
	c.MemoryUsedMiB = min(c.MemoryUsedMiB, c.MemoryTotalMiB)
	return c
}
