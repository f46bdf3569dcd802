package hypervisor

import (
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Observation is what a host says about one VM.
type Observation struct {
	VMID string
	// Power is ON, OFF, PAUSED, UNKNOWN (the host knows the VM and cannot say) or MISSING (it does not know it).
	Power apiv1.VM_Power
	// Ready: the guest has printed its ReadyMarker since its power was last switched on. A guest that restarts itself
	// stays ready.
	Ready bool
	// Counters since its power was last switched on; zero when it is not on, or when the host cannot say at once.
	Counters VMCounters
}

// Missing is the observation of a VM that the host does not know.
func Missing(vmID string) Observation {
	return Observation{VMID: vmID, Power: apiv1.VM_MISSING}
}

// VMCounters only ever grow while a VM is on, save for the memory. Rates are the business of who compares two of them.
type VMCounters struct {
	// At is when they were read, by the agent's clock.
	At time.Time
	// CPU is the processor time taken, over all cores.
	CPU time.Duration
	// Cores the VM has.
	Cores uint32
	// MemoryUsedMiB is what the guest uses, or, when it does not tell, what the host spends on it.
	MemoryUsedMiB uint32
	// Bytes over all its disks and cards.
	DiskReadBytes, DiskWriteBytes, NetReceiveBytes, NetTransmitBytes uint64
}

// HostCounters is the load of a host itself.
type HostCounters struct {
	At time.Time
	// CPUBusy and CPUTotal are processor time over all cores since the host started; the ratio of their differences
	// between two samples is the load.
	CPUBusy, CPUTotal time.Duration
	Cores             uint32
	MemoryUsedMiB     uint32
	MemoryTotalMiB    uint32
}

// CPURatio returns the share of all cores that was busy between two samples, 0 to 1; 0 when the counters went back.
func (c HostCounters) CPURatio(before HostCounters) float64 {
	return ratio(c.CPUBusy-before.CPUBusy, c.CPUTotal-before.CPUTotal)
}

// CPURatio returns the share of the VM's cores that was busy between two samples, 0 to 1; 0 when the counters went
// back, as they do when its power was cycled.
func (c VMCounters) CPURatio(before VMCounters) float64 {
	return ratio(c.CPU-before.CPU, c.At.Sub(before.At)*time.Duration(c.Cores))
}

func ratio(busy, total time.Duration) float64 {
	if busy < 0 || total <= 0 {
		return 0
	}
	return min(float64(busy)/float64(total), 1)
}
