package worker

import (
	"testing"
	"time"
)

// certificate gives a host another one.
func (s *site) certificate(host string, ends time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends[host] = ends
}

func TestAHostsCertificateThatEndsIsToldAMonthAndAWeekBefore(t *testing.T) {
	const day = 24 * time.Hour
	within(t, func(s *site) {
		s.limits.ObserveEvery, s.limits.InventoryEvery = 6*time.Hour, 12*time.Hour
		s.cluster("kvm", 1, "")
		s.certificate("kvm-1", time.Now().Add(100*day))
		s.own("kvm")
		s.pass(69 * day)
		s.equal("a month before, and a day", s.zone.Events("kvm-1"), "[host.available]")
		s.pass(2 * day)
		s.equal("a month before", s.zone.Events("kvm-1"), "[host.available host.certificate]")
		s.pass(21 * day)
		s.equal("nothing new", s.zone.Events("kvm-1"), "[host.available host.certificate]")
		s.pass(3 * day)
		s.equal("a week before", s.zone.Events("kvm-1"), "[host.available host.certificate host.certificate]")
		s.certificate("kvm-1", time.Now().Add(100*day))
		s.pass(60 * day)
		s.equal("with another one", s.zone.Events("kvm-1"), "[host.available host.certificate host.certificate]")
		s.pass(20 * day)
		s.equal("which ends too", s.zone.Events("kvm-1"), "[host.available host.certificate host.certificate host.certificate]")
	})
}
