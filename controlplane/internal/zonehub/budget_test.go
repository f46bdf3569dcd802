package zonehub_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/zonehub"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// condition returns one of a zone's conditions.
func (s *site) condition(zone, kind string) *apiv1.Zone_Condition {
	for _, c := range s.Zone(zone).GetConditions() {
		if c.GetType() == kind {
			return c
		}
	}
	return nil
}

// heard is how much of what a zone's journal says has come through.
func (a *agent) heard() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.acked)
}

func TestP15AZoneThatFloodsIsMadeToWaitAndAnHonestOneKeepsItsPace(t *testing.T) {
	s := newSite(t)
	s.stopHub()
	const burst, perSecond = 300, 50
	s.budget.Entries = zonehub.Pace{PerSecond: perSecond, Burst: burst}
	s.budget.Tell, s.budget.Calm = time.Second, time.Hour
	s.startHub()
	hostile, honest := s.agent(s.Business, "agent-1"), s.agent(s.Internet, "agent-1")
	const flood = 20_000
	for i := range flood {
		hostile.tell(fmt.Sprint("flood ", i))
	}
	began := time.Now()
	hostile.start()
	honest.start()
	s.eventually("people are told", func() bool { return s.condition("business", "SLOWED") != nil })
	if c := s.condition("business", "SLOWED"); c.GetReason() != "ENTRIES" || c.GetMessage() == "" {
		t.Errorf("%v", c)
	}
	before, _ := hostile.last() // it may have dialled before the broker had its certificate
	for i := range 20 {
		honest.tell(fmt.Sprint("honest ", i))
		s.eventually("the honest zone is heard", func() bool { return honest.heard() == i+1 })
	}
	if c := s.condition("internet", "SLOWED"); c != nil {
		t.Errorf("the honest zone is made to wait: %v", c)
	}
	if got, most := hostile.heard(), burst+256+int(perSecond*time.Since(began).Seconds()); got > most || got == 0 {
		t.Errorf("of the flood %d entries came through, at most %d may have", got, most)
	}
	if n, err := hostile.last(); n != before {
		t.Errorf("the session of the zone that waits ended: %v", err)
	}
}

func TestAZoneThatIsMadeToWaitIsShownSoInItsNextSession(t *testing.T) {
	s := newSite(t)
	s.stopHub()
	s.budget.Entries = zonehub.Pace{PerSecond: 50, Burst: 300}
	s.budget.Tell, s.budget.Calm = time.Second, time.Hour
	s.startHub()
	flooding := func(name string) *agent {
		a := s.agent(s.Business, name)
		for i := range 20_000 {
			a.tell(fmt.Sprint("flood ", i))
		}
		return a
	}
	first, ended := flooding("agent-1"), make(chan error, 1)
	go func() { ended <- s.retry(t.Context(), first) }()
	s.eventually("people are told", func() bool { return s.condition("business", "SLOWED") != nil })
	flooding("agent-2").start()
	<-ended // the next one has taken its place
	s.eventually("people are told anew", func() bool { return s.events("zone.slowed") == 2 && s.condition("business", "SLOWED") != nil })
}

func TestAZoneThatWaitsLosesNothing(t *testing.T) {
	s := newSite(t)
	s.stopHub()
	s.budget.Entries = zonehub.Pace{PerSecond: 1000, Burst: 256}
	s.budget.Tell, s.budget.Calm = 100*time.Millisecond, time.Millisecond
	s.startHub()
	a := s.agent(s.Business, "agent-1")
	const all = 1500
	for i := range all {
		a.tell(fmt.Sprint(i))
	}
	a.start()
	s.eventually("all is heard", func() bool { return a.heard() == all })
	a.tell("one more, when it has not waited for a while")
	s.eventually("it is not made to wait any more", func() bool { return a.heard() == all+1 && s.condition("business", "SLOWED") == nil })
	if n := s.events("zone.slowed"); n == 0 {
		t.Error("nobody was told")
	}
}

// events counts those of a type.
func (s *site) events(kind string) int {
	s.Helper()
	all, err := s.Admin().Events.ListEvents(s.Context(), &apiv1.ListEventsRequest{Filter: "type=" + kind})
	if err != nil {
		s.Fatal(err)
	}
	return len(all.GetEvents())
}
