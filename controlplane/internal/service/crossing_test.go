package service_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func zoneStage(name string, sequence uint32, at apiv1.Eligibility_At) *apiv1.StageTemplate {
	return &apiv1.StageTemplate{Name: name, Sequence: sequence, Rule: apiv1.StageTemplate_ANY, Eligible: &apiv1.Eligibility{Roles: []string{"zone-administrator"}, At: at}}
}

// TestWhatCrossesIsApprovedOnBothSides: who asks at one zone's edge for something in another is answered by people of both.
func TestWhatCrossesIsApprovedOnBothSides(t *testing.T) {
	o := newOffice(t, zoneStage("theirs", 1, apiv1.Eligibility_DESTINATION), zoneStage("ours", 1, apiv1.Eligibility_SOURCE))
	o.users["eve"] = o.User("eve", apiv1.User_PERSON)
	o.Bind("b-eve", "zone-administrator", o.users["eve"], apiv1.RoleBinding_ZONE, "internet")
	r, err := o.AtEdge(o.site.Internet, o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask(), Submit: true})
	if err != nil {
		t.Fatal(err)
	}
	if m := r.GetRequest(); m.GetSourceZone() != "internet" || m.GetZone() != "business" || m.GetStages()[0].GetState() != apiv1.Stage_OPEN || m.GetStages()[1].GetState() != apiv1.Stage_OPEN {
		t.Fatalf("%v", m)
	}
	if !slices.Equal(o.waiting("cho"), []string{"r-1"}) || !slices.Equal(o.waiting("eve"), []string{"r-1"}) {
		t.Error("it does not wait on both sides")
	}
	if err := o.decide("cho", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if m := o.show("ann", "r-1"); m.GetApproval() != apiv1.Request_IN_REVIEW || len(o.vms()) != 0 {
		t.Fatalf("one side was enough: %v", m)
	}
	o.says(apiv1.Reservation_HELD)
	o.turn()
	if err := o.decide("eve", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_EXECUTING || len(o.vms()) != 2 {
		t.Errorf("%v", m)
	}
}

func TestWhatCrossesIsRefusedWhereThePolicyAsksOneSideOnly(t *testing.T) {
	o := newOffice(t, zoneStage("theirs", 1, apiv1.Eligibility_DESTINATION))
	_, err := o.AtEdge(o.site.Internet, o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask(), Submit: true})
	if !problem.Is(err, problem.WrongState) || !strings.Contains(err.Error(), "no stage of policy two-steps asks anybody of zone internet") {
		t.Errorf("%v", err)
	}
	if _, err := o.AtEdge(o.site.Business, o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask(), Submit: true}); err != nil {
		t.Errorf("what stays in its zone needs one side: %v", err)
	}
}

// TestP6ARoleThatDoesNotCountAtEdgesDecidesNothingThere: a hostile zone gets no decision out of it.
func TestP6ARoleThatDoesNotCountAtEdgesDecidesNothingThere(t *testing.T) {
	o := newOffice(t, &apiv1.StageTemplate{Name: "all", Rule: apiv1.StageTemplate_ANY, Eligible: &apiv1.Eligibility{Roles: []string{"federation-administrator"}, At: apiv1.Eligibility_FEDERATION}})
	o.Bind("b-dan", "federation-administrator", o.users["dan"], apiv1.RoleBinding_FEDERATION, "")
	m, err := o.submit("ann", ask())
	if err != nil {
		t.Fatal(err)
	}
	in := &apiv1.DecideRequestRequest{Request: "r-1", Verdict: apiv1.Decision_APPROVE, SeenHash: m.GetFrozenHash()}
	if _, err := o.AtEdge(o.site.Business, o.users["dan"]).Requests.DecideRequest(t.Context(), in); !problem.Is(err, problem.NotFound) && !problem.Is(err, problem.Forbidden) {
		t.Errorf("decided at an edge: %v", err)
	}
	if _, err := o.As(o.users["dan"]).Requests.DecideRequest(t.Context(), in); err != nil {
		t.Errorf("in the control network: %v", err)
	}
}

// lets has zone business let that out to the edges of other zones.
func (o *office) lets(d *apiv1.Disclosure) {
	o.Helper()
	d.Direction = apiv1.Disclosure_OUT
	if _, err := o.Admin().Zones.UpdateZone(o.Context(), &apiv1.UpdateZoneRequest{
		Zone: &apiv1.Zone{Id: "business", Policy: &apiv1.ZonePolicy{Disclosures: []*apiv1.Disclosure{d}}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"policy"}},
	}); err != nil {
		o.Fatal(err)
	}
}

// TestNobodyDecidesAtAnEdgeThatDoesNotShowWhatIsDecidedOn: its hash is shown there, and proves nothing.
func TestNobodyDecidesAtAnEdgeThatDoesNotShowWhatIsDecidedOn(t *testing.T) {
	o := newOffice(t, zoneStage("theirs", 1, apiv1.Eligibility_DESTINATION), zoneStage("ours", 1, apiv1.Eligibility_SOURCE))
	o.users["eve"] = o.User("eve", apiv1.User_PERSON)
	o.Bind("b-eve", "zone-administrator", o.users["eve"], apiv1.RoleBinding_ZONE, "internet")
	edge := func(zone *apiv1.Zone, who string) *client.Services { return o.AtEdge(zone, o.users[who]) }
	if _, err := edge(o.site.Internet, "ann").Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask(), Submit: true}); err != nil {
		t.Fatal(err)
	}
	decide := func(at *client.Services, verdict apiv1.Decision_Verdict) (*apiv1.Request, error) {
		t.Helper()
		r, err := at.Requests.GetRequest(t.Context(), &apiv1.GetRequestRequest{Request: "r-1"})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.GetRequest().GetFrozenHash()) == 0 {
			t.Fatal("its hash is not shown")
		}
		_, err = at.Requests.DecideRequest(t.Context(), &apiv1.DecideRequestRequest{Request: "r-1", Verdict: verdict, Comment: "unseen", SeenHash: r.GetRequest().GetFrozenHash()})
		return r.GetRequest(), err
	}
	o.lets(&apiv1.Disclosure{Names: true, Addresses: true})
	for _, verdict := range []apiv1.Decision_Verdict{apiv1.Decision_APPROVE, apiv1.Decision_DENY, apiv1.Decision_RETURN} {
		m, err := decide(edge(o.site.Internet, "eve"), verdict)
		if len(m.GetFrozen()) != 0 || slices.Contains(m.GetActions(), "decide") {
			t.Fatalf("at the other zone's edge is shown %v", m)
		}
		if !problem.Is(err, problem.Forbidden) || !strings.Contains(problem.Of(err).GetNext(), "in the control network, or at the edge of zone business") {
			t.Errorf("%v of what is not shown: %v", verdict, err)
		}
	}
	if m, err := decide(edge(o.site.Business, "cho"), apiv1.Decision_APPROVE); err != nil || len(m.GetFrozen()) == 0 || !slices.Contains(m.GetActions(), "decide") {
		t.Errorf("at its own zone's edge: %v", err)
	}
	o.lets(&apiv1.Disclosure{Names: true, Addresses: true, Figures: true})
	if m, err := decide(edge(o.site.Internet, "eve"), apiv1.Decision_APPROVE); err != nil || len(m.GetFrozen()) == 0 || !slices.Contains(m.GetActions(), "decide") {
		t.Errorf("where all of it is shown: %v", err)
	}
}
