package zonehub_test

import (
	"slices"
	"testing"
	"time"
)

func TestAServerTellsHowItReachesEachBrokerAndForWhichZones(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.Business, "agent-1").start()
	s.eventually("the broker is reached, with the zone behind it", func() bool {
		views := s.hub.Views()
		return len(views) == 1 && views[0].GetConnections()[0].GetConnected() && slices.Equal(views[0].GetConnections()[0].GetZones(), []string{a.zoneID})
	})
	if v := s.hub.Views()[0]; v.GetConnections()[0].GetSeenAt() == nil || !v.GetCertificateExpiresAt().AsTime().After(time.Now()) {
		t.Errorf("of a broker that is reached: %v", v)
	}
	a.stop()
	s.eventually("the zone is gone", func() bool { return len(s.hub.Views()[0].GetConnections()[0].GetZones()) == 0 })
	s.stopBroker()
	s.eventually("the broker is not reached, and why", func() bool {
		c := s.hub.Views()[0].GetConnections()[0]
		return !c.GetConnected() && c.GetReason() != "" && c.GetSeenAt() != nil
	})
	s.stopHub()
	if views := s.hub.Views(); len(views) != 0 {
		t.Errorf("of a server that has stopped: %v", views)
	}
}
