package sim

import (
	"slices"
	"time"
)

// Knobs are what a test can do to a host while it runs. They work past latency and failures, on dead hosts too.
type Knobs struct{ host *host }

// Kill cuts the host's power: its VMs are off and it answers nothing until Restore.
func (k *Knobs) Kill() {
	k.host.peek(func(s *state) { s.die(time.Now()) })
}

// Restore gives a killed host its power back. Its VMs are defined and off.
func (k *Knobs) Restore() {
	k.host.peek(func(s *state) { s.Dead = false })
}

// Cut makes the host unreachable while its VMs run on, until Heal.
func (k *Knobs) Cut() {
	k.host.peek(func(s *state) { s.Cut = true })
}

// Heal ends a Cut.
func (k *Knobs) Heal() {
	k.host.peek(func(s *state) { s.Cut = false })
}

// FailNext makes the next n calls fail without effect.
func (k *Knobs) FailNext(n int) {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	k.host.failNext = n
}

// LoseNext makes the next n calls that would succeed have their effect and fail all the same.
func (k *Knobs) LoseNext(n int) {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	k.host.loseNext = n
}

// SetLatency changes how long each call takes from now on.
func (k *Knobs) SetLatency(d time.Duration) {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	k.host.settings.latency = d
}

// PowerOff switches one VM off behind everyone's back, as a crash of its guest would.
func (k *Knobs) PowerOff(vmID string) {
	k.host.peek(func(s *state) {
		if v := s.VMs[vmID]; v != nil {
			s.powerOff(v, time.Now())
		}
	})
}

// Lose makes the host forget a VM with its disk, as a fault of the hypervisor would.
func (k *Knobs) Lose(vmID string) {
	k.host.peek(func(s *state) {
		if v := s.VMs[vmID]; v != nil {
			s.powerOff(v, time.Now())
			delete(s.VMs, vmID)
		}
	})
}

// Creations returns how often the VM was defined from nothing on this host.
func (k *Knobs) Creations(vmID string) (n int) {
	k.host.peek(func(s *state) { n = s.Creations[vmID] })
	return n
}

// Starts returns how often the VM's power went on on this host.
func (k *Knobs) Starts(vmID string) (n int) {
	k.host.peek(func(s *state) { n = s.Starts[vmID] })
	return n
}

// VMs returns the ids of the VMs that the host holds anything of, a disk alone included.
func (k *Knobs) VMs() (ids []string) {
	k.host.peek(func(s *state) {
		for id := range s.VMs {
			ids = append(ids, id)
		}
	})
	slices.Sort(ids)
	return ids
}
