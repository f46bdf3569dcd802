package uplink

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

func TestTheAgentThatOwnsTheLinkKeepsTheZoneAndTheControlPlaneInStep(t *testing.T) {
	s := newSite(t)
	s.plane.want("kvm")
	a := s.agent("agent-1", s.store("agent-1"), nobody{})
	s.eventually("what the zone should hold", func() bool { return a.holds("kvm") })
	s.plane.want("test")
	s.eventually("what is new", func() bool { return a.holds("test") })
	own := <-a.own
	a.tell(own, "hello")
	a.observe(own, "business")
	s.eventually("what it sees is heard", func() bool {
		s.plane.mu.Lock()
		defer s.plane.mu.Unlock()
		return slices.Contains(s.plane.observed, "business")
	})
	s.eventually("its journal is heard", func() bool { return slices.Equal(s.plane.heard(), []string{"hello"}) })
}

func TestASessionResumesWhereTheLastOneEndedWhicheverEndStartsAnew(t *testing.T) {
	for what, restart := range map[string]func(s *site, a *agent) *agent{
		"the broker":        func(s *site, a *agent) *agent { s.stopBroker(); s.startBroker(); return a },
		"the control plane": func(s *site, a *agent) *agent { s.plane.stop(); s.plane.start(); return a },
		"the agent": func(s *site, a *agent) *agent {
			a.stop()
			return s.agent("agent-1", a.Store, nobody{})
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			s.plane.want("kvm")
			a := s.agent("agent-1", s.store("agent-1"), nobody{})
			own := <-a.own
			s.eventually("what the zone should hold", func() bool { return a.holds("kvm") })
			a.tell(own, "before")
			s.eventually("heard", func() bool { return len(s.plane.heard()) == 1 })
			asked := s.plane.asked()
			s.plane.change(func() { s.plane.sent = nil })
			if b := restart(s, a); b != a {
				a, own = b, <-b.own
			}
			s.eventually("a session after it", func() bool { return s.plane.asked() > asked && a.connected() })
			s.plane.want("test")
			a.tell(own, "after")
			s.eventually("what is new", func() bool { return a.holds("test") })
			s.eventually("each entry once", func() bool { return slices.Equal(s.plane.heard(), []string{"before", "after"}) })
			s.plane.change(func() {
				if slices.Contains(s.plane.sent, "kvm") {
					t.Error("what the zone held was sent again")
				}
			})
		})
	}
}

func TestP12ARevokedAgentIsCutOffAndKnowsWhy(t *testing.T) {
	s := newSite(t)
	a := s.agent("agent-1", s.store("agent-1"), nobody{})
	s.eventually("a session", a.connected)
	s.plane.change(func() {
		s.plane.refused = &link.Goodbye{Code: link.CodeRevoked, Reason: "by an administrator"}
		s.plane.end.End(zoneID, "agent-1", link.CodeRevoked, "by an administrator")
	})
	s.eventually("it knows", func() bool { b := a.state.barred.Load(); return b != nil && b.standing == revoked })
	err := a.central.Invoke(t.Context(), apiv1.ZoneService_ListZones_FullMethodName, &apiv1.ListZonesRequest{}, &apiv1.ListZonesResponse{})
	if !problem.Is(problem.FromStatus(err), problem.LinkDown) {
		t.Errorf("a caller at its edge hears %v", err)
	}
}

func TestAControlPlaneWithTheKnownEpochAndAnotherIdIsNotBelieved(t *testing.T) {
	s := newSite(t)
	s.plane.want("kvm")
	a := s.agent("agent-1", s.store("agent-1"), nobody{})
	s.eventually("what the zone should hold", func() bool { return a.holds("kvm") })
	s.plane.stop()
	s.plane.change(func() { s.plane.epochID = []byte(strings.Repeat("x", 16)) })
	s.plane.want("evil")
	s.plane.start()
	s.eventually("it is quarantined", func() bool { b := a.state.barred.Load(); return b != nil && b.standing == quarantined })
	if a.holds("evil") {
		t.Error("the zone takes what the other one wants")
	}
}

func TestANewEpochIsTakenUpAndAnOldOneIsNot(t *testing.T) {
	s := newSite(t)
	s.plane.want("kvm")
	a := s.agent("agent-1", s.store("agent-1"), nobody{})
	s.eventually("what the zone should hold", func() bool { return a.holds("kvm") })
	s.plane.stop()
	s.plane.change(func() {
		s.plane.epoch, s.plane.epochID, s.plane.clusters = 9, []byte(strings.Repeat("9", 16)), []string{"late"}
	})
	s.plane.start()
	s.eventually("what the new epoch wants", func() bool { return a.holds("late") })
	if !a.holds("kvm") {
		t.Error("what the new epoch does not name was deleted")
	}
	s.plane.stop()
	s.plane.change(func() { s.plane.epoch, s.plane.epochID, s.plane.clusters = 7, make([]byte, 16), []string{"kvm", "old"} })
	s.plane.start()
	before := s.plane.asked()
	s.eventually("several trials", func() bool { return s.plane.asked() > before+2 })
	if a.holds("old") {
		t.Error("the zone took what an epoch wants that is over")
	}
}

func TestAStoreThatHasGoneBackwardsBeginsANewIncarnation(t *testing.T) {
	s := newSite(t)
	a := s.agent("agent-1", s.store("agent-1"), nobody{})
	s.eventually("a session", a.connected)
	was, _ := a.Store.Incarnation()
	s.plane.change(func() {
		s.plane.lost = was.GetId()
		s.plane.end.EndAll(link.CodeShuttingDown, "the server starts anew")
	})
	s.eventually("another incarnation", func() bool { is, _ := a.Store.Incarnation(); return is.GetId() != was.GetId() })
	s.eventually("a session in it", func() bool {
		if !a.connected() {
			return false
		}
		s.plane.mu.Lock()
		defer s.plane.mu.Unlock()
		return s.plane.hellos[len(s.plane.hellos)-1].GetIncarnation() != was.GetId()
	})
}

// company is a zone of two, of which one holds the link.
type company struct{ holds *agent }

func (c company) UplinkAddress(context.Context) (string, error) { return "holder", nil }

func (c company) Call(ctx context.Context, _ string, r *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error {
	return c.holds.central.Call(ctx, r, send)
}

func TestOneAgentOwnsTheLinkTheOthersPassCallsToItAndOneOfThemFollows(t *testing.T) {
	s := newSite(t)
	store := s.store("agent-1")
	one := s.agent("agent-1", store, nobody{})
	<-one.own
	s.eventually("a session", one.connected)
	two := s.agent("agent-2", s.store("agent-2", store.Endpoints()...), company{one})

	ask := func(a *agent) (string, error) {
		out := &apiv1.ListZonesResponse{}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer secret", link.MDClient, "10.91.0.5/32")
		err := a.central.Invoke(ctx, apiv1.ZoneService_ListZones_FullMethodName, &apiv1.ListZonesRequest{}, out)
		if err != nil {
			return "", err
		}
		return out.GetZones()[0].GetStateReason(), nil
	}
	for _, a := range []*agent{one, two} {
		if got, err := ask(a); err != nil || !strings.Contains(got, "secret from 10.91.0.5/32") {
			t.Errorf("at %s: %q, %v", a.name, got, err)
		}
	}
	if two.connected() {
		t.Error("both have a session")
	}
	one.stop()
	<-two.own
	s.eventually("the other has a session", two.connected)
	if _, err := ask(one); !problem.Is(problem.FromStatus(err), problem.LinkDown) {
		t.Errorf("the one that has stopped says %v", err)
	}
}
