package fsm_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestASessionMakesAZoneOnlineAndItsEndDisconnectsIt(t *testing.T) {
	p := furnished(t)
	p.accept(session(1, true))
	if z := p.zone(); z.GetState() != apiv1.Zone_ONLINE || z.GetFreshness() != apiv1.Freshness_LIVE || z.GetIncarnation() != "inc-1" {
		t.Errorf("zone %v", z)
	}
	changed := p.zone().GetStateChangedAt()
	p.accept(session(2, true)) // another agent took over
	if z := p.zone(); !proto.Equal(z.GetStateChangedAt(), changed) {
		t.Error("nothing changed, and the time did")
	}
	before := p.zone()
	p.accept(session(1, false)) // the end of the old one
	p.accept(session(9, false)) // of one that never was
	if !proto.Equal(before, p.zone()) {
		t.Errorf("the end of an old session made the zone %v", p.zone())
	}
	end := session(2, false)
	end.GetSetZoneSession().Event = &apiv1.Event{Type: "zone.disconnected", Severity: apiv1.Event_ERROR, Message: "no sign of life for 10 s"}
	p.accept(end)
	p.accept(end)
	if z := p.zone(); z.GetState() != apiv1.Zone_DISCONNECTED || z.GetFreshness() != apiv1.Freshness_STALE || z.GetStateReason() != "no sign of life for 10 s" {
		t.Errorf("zone %v", z)
	}
	if e := p.events(); e["zone.online"] != 1 || e["zone.disconnected"] != 1 {
		t.Errorf("events %v", e)
	}
}

func TestP4ACutLinkChangesFreshnessAndNothingElse(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(session(1, true))
	p.accept(fullSync(true, "inc-1", 0, 5, seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)))
	live := p.vm(1)
	p.accept(session(1, false))
	stale := p.vm(1)
	if live.GetFreshness() != apiv1.Freshness_LIVE || stale.GetFreshness() != apiv1.Freshness_STALE {
		t.Errorf("freshness went from %v to %v", live.GetFreshness(), stale.GetFreshness())
	}
	stale.Freshness = live.Freshness
	if !proto.Equal(live, stale) {
		t.Errorf("a cut link made %v of %v", stale, live)
	}
	for _, o := range p.desired(live.GetGeneration().GetIndex()) {
		t.Errorf("a cut link sends down %v", o)
	}
}

func TestARetiredZoneHasNoSession(t *testing.T) {
	p := furnished(t)
	p.accept(session(1, true))
	p.accept(&commandv1.Command{Body: &commandv1.Command_Revoke{Revoke: &commandv1.Revoke{ZoneId: "z-business"}}})
	p.refuse(problem.WrongState, session(2, true))
	p.accept(session(1, false))
	if z := p.zone(); z.GetState() != apiv1.Zone_RETIRED || z.GetFreshness() != apiv1.Freshness_STALE {
		t.Errorf("zone %v", z)
	}
}

func TestAZoneShowsWhyItHasNoSessionAndThatItIsMadeToWait(t *testing.T) {
	p := furnished(t)
	slowed := func(over bool) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_SetZoneCondition{SetZoneCondition: &commandv1.SetZoneCondition{
			ZoneId: "z-business", Over: over, Condition: &apiv1.Zone_Condition{Type: "SLOWED", Reason: "ENTRIES", Message: "too much"}}}}
	}
	ended := func(id byte, cause string) *commandv1.Command {
		c := session(id, false)
		c.GetSetZoneSession().Cause = cause
		return c
	}
	shown := func() (is []string) {
		for _, c := range p.zone().GetConditions() {
			is = append(is, c.GetType()+" "+c.GetReason())
		}
		return is
	}
	expect := func(want ...string) {
		t.Helper()
		if got := shown(); !slices.Equal(got, want) {
			t.Errorf("conditions %q, want %q", got, want)
		}
	}
	p.accept(session(1, true))
	p.accept(slowed(false))
	since := p.zone().GetConditions()[0].GetSince().AsTime()
	p.accept(slowed(false))
	if got := p.zone().GetConditions()[0].GetSince().AsTime(); !got.Equal(since) {
		t.Error("said again, it counts as new")
	}
	expect("SLOWED ENTRIES")
	p.accept(slowed(true))
	p.accept(slowed(true))
	expect()
	if e := p.events(); e["zone.slowed"] != 1 || e["zone.slowed_no_more"] != 1 {
		t.Errorf("events %v", e)
	}
	p.accept(slowed(false))
	p.accept(ended(1, "SILENT"))
	expect("NO_SESSION SILENT")
	p.accept(session(2, true))
	expect()
	p.accept(ended(1, "STREAM")) // of a session that is not the newest
	expect()
	p.refuse(problem.Invalid, &commandv1.Command{Body: &commandv1.Command_SetZoneCondition{SetZoneCondition: &commandv1.SetZoneCondition{
		ZoneId: "z-business", Condition: &apiv1.Zone_Condition{Type: "WELL"}}}})
}
