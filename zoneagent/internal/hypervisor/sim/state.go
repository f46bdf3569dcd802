package sim

import (
	"net/netip"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// state is all that a host is, apart from its endpoint's settings; as JSON it is the content of its file.
type state struct {
	// Since is when the host was first called; its counters run from there.
	Since time.Time
	// Died: die_after has struck; it strikes once.
	Died bool
	// Dead hosts have lost power; cut-off hosts run on unseen.
	Dead, Cut bool
	Images    map[string]bool
	VMs       map[string]*vm
	// Creations and Starts count, by VM id, how often a VM was defined from nothing and how often its power went on.
	Creations, Starts map[string]int
	// Spent is the processor time of runs that are over.
	Spent time.Duration
}

// vm is what the host has of one VM, from its disk alone to the running whole.
type vm struct {
	ID                        string
	Cores, MemoryMiB, DiskGiB uint32
	Disk, Seed, Defined       bool
	Address                   netip.Addr // that it was defined with
	StartedAt                 time.Time  // zero: off
	BootedAt                  time.Time  // when the seed has been applied
	OffAt                     time.Time  // when a shutdown that was asked for is done; zero: none was
	Content                   string     // of its disk
	Snapshots                 []kept
}

func newState() *state {
	return &state{Images: map[string]bool{}, VMs: map[string]*vm{}, Creations: map[string]int{}, Starts: map[string]int{}}
}

// settle does what time has done since the last look.
func (s *state) settle(now time.Time, set settings) {
	if s.Since.IsZero() {
		s.Since = now
	}
	if set.dieAfter > 0 && !s.Died && now.Sub(s.Since) >= set.dieAfter {
		s.Died = true
		s.die(s.Since.Add(set.dieAfter))
	}
	for _, v := range s.VMs {
		if v.on() && !v.OffAt.IsZero() && !now.Before(v.OffAt) {
			s.powerOff(v, v.OffAt)
		}
	}
}

// die cuts the host's power, and with it that of its VMs.
func (s *state) die(at time.Time) {
	s.Dead = true
	for _, v := range s.VMs {
		s.powerOff(v, at)
	}
}

func (v *vm) on() bool { return !v.StartedAt.IsZero() }

// entry returns the VM, made empty when the host has nothing of it yet.
func (s *state) entry(m *apiv1.VM) *vm {
	v := s.VMs[m.GetId()]
	if v == nil {
		v = &vm{ID: m.GetId()}
		s.VMs[v.ID] = v
	}
	return v
}

// defined returns the VM if the host knows it by definition, nil otherwise.
func (s *state) defined(vmID string) *vm {
	if v := s.VMs[vmID]; v != nil && v.Defined {
		return v
	}
	return nil
}

func (s *state) powerOn(v *vm, now time.Time, boot time.Duration) {
	v.StartedAt, v.BootedAt, v.OffAt = now, now.Add(boot), time.Time{}
	s.Starts[v.ID]++
}

func (s *state) powerOff(v *vm, at time.Time) {
	if v.on() {
		s.Spent += v.counters(at).CPU
	}
	v.StartedAt, v.BootedAt, v.OffAt = time.Time{}, time.Time{}, time.Time{}
}

// observe returns what the host says of a VM.
func (s *state) observe(vmID string, now time.Time) hypervisor.Observation {
	v := s.defined(vmID)
	if v == nil {
		return hypervisor.Missing(vmID)
	}
	if !v.on() {
		return hypervisor.Observation{VMID: vmID, Power: apiv1.VM_OFF}
	}
	return hypervisor.Observation{VMID: vmID, Power: apiv1.VM_ON, Ready: !now.Before(v.BootedAt), Counters: v.counters(now)}
}
