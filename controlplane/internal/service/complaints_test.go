package service_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// What users of other systems complain of, as far as no other test has it: docs/complaints.md has the whole list.

func byPeople(name string, needed uint32, who ...string) *apiv1.StageTemplate {
	return &apiv1.StageTemplate{Name: name, Sequence: 1, Eligible: &apiv1.Eligibility{Users: who}, Rule: apiv1.StageTemplate_COUNT, Needed: needed}
}

func TestTwoPeopleHaveToApproveWhereThePolicySaysTwo(t *testing.T) {
	o := newOffice(t, byPeople("both", 2, "bob", "cho", "dan"))
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob")
	if err := o.decide("bob", "r-1", apiv1.Decision_APPROVE, nil); !problem.Is(err, problem.WrongState) {
		t.Errorf("bob was counted for two: %v", err)
	}
	if m := o.show("ann", "r-1"); m.GetApproval() != apiv1.Request_IN_REVIEW || !slices.Equal(o.waiting("dan"), []string{"r-1"}) || o.waiting("bob") != nil {
		t.Fatalf("after one of two it is %v", m.GetApproval())
	}
	o.approved("r-1", "dan")
	if m := o.show("ann", "r-1"); m.GetApproval() != apiv1.Request_APPROVED {
		t.Errorf("after two of two it is %v", m.GetApproval())
	}
}

// TestWhatAllHaveApprovedWaitsForNobody, in whatever order they did.
func TestWhatAllHaveApprovedWaitsForNobody(t *testing.T) {
	for _, order := range [][]string{{"bob", "dan"}, {"dan", "bob"}} {
		o := newOffice(t, byPeople("one", 1, "bob"), byPeople("other", 1, "dan"))
		o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
		if _, err := o.submit("ann", ask()); err != nil {
			t.Fatal(err)
		}
		o.approved("r-1", order...)
		m := o.show("ann", "r-1")
		if m.GetApproval() != apiv1.Request_APPROVED || o.waiting("bob") != nil || o.waiting("dan") != nil {
			t.Errorf("%v have approved, and it is %v", order, m.GetApproval())
		}
		for _, s := range m.GetStages() {
			if s.GetState() != apiv1.Stage_APPROVED {
				t.Errorf("stage %s is %v", s.GetName(), s.GetState())
			}
		}
	}
}

// TestARejectionIsShownAsOneWhateverOtherStagesSaid, to everybody and in every list, for good.
func TestARejectionIsShownAsOneWhateverOtherStagesSaid(t *testing.T) {
	o := newOffice(t, byPeople("one", 1, "bob"), byPeople("other", 1, "dan"))
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob")
	if err := o.decide("dan", "r-1", apiv1.Decision_DENY, nil); err != nil {
		t.Fatal(err)
	}
	o.turn()
	for _, who := range []string{"ann", "bob", "dan"} {
		if m := o.show(who, "r-1"); m.GetApproval() != apiv1.Request_REJECTED || m.GetFulfilment() != apiv1.Request_NONE {
			t.Errorf("%s is shown that it is %v, %v", who, m.GetApproval(), m.GetFulfilment())
		}
		r, err := o.As(o.users[who]).Requests.ListRequests(t.Context(), &apiv1.ListRequestsRequest{Filter: "approval=rejected"})
		if err != nil || len(r.GetRequests()) != 1 || o.waiting(who) != nil {
			t.Errorf("%s: %v, %v, waiting %v", who, r.GetRequests(), err, o.waiting(who))
		}
	}
	if len(o.vms()) != 0 {
		t.Error("it was carried out")
	}
}

// TestAGrantLastsFromWhenItIsGiven, and not from when it was asked for or approved.
func TestAGrantLastsFromWhenItIsGiven(t *testing.T) {
	o := bossed(t)
	if _, err := o.submit("ann", access("project-operator", 0, 3)); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob", "dan")
	o.now = o.now.Add(48 * time.Hour) // no leader for two days
	o.turn()
	all := o.bindings("ann")
	i := slices.IndexFunc(all, func(b *apiv1.RoleBinding) bool { return b.GetRole() == "project-operator" })
	if i < 0 {
		t.Fatalf("%v", all)
	}
	if left := all[i].GetExpiresAt().AsTime().Sub(o.now); left < 71*time.Hour || left > 73*time.Hour {
		t.Errorf("of three days %v are left", left)
	}
}

// TestWhatWasGrantedAndHasEndedIsStillShown, with who decided: neither time nor pruning takes it away.
func TestWhatWasGrantedAndHasEndedIsStillShown(t *testing.T) {
	o := bossed(t)
	if _, err := o.submit("ann", access("project-operator", 0, 1)); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob", "dan")
	o.turn()
	given := o.show("ann", "r-1").GetResults()[0].GetId()
	o.Unbind(given)
	years := timestamppb.New(o.now.AddDate(10, 0, 0))
	o.Do(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: years, OperationsBefore: years, EventsBefore: years}}})
	m := o.show("ann", "r-1")
	if m.GetFulfilment() != apiv1.Request_DONE || len(m.GetDecisions()) != 2 || m.GetDecisions()[1].GetActor() != "dan" || m.GetResults()[0].GetId() != given {
		t.Errorf("%v", m)
	}
}

// TestNoRequestIsTakenAwayFromTheVMsThatItMade: they stand with it, and it can be told who wanted them.
func TestNoRequestIsTakenAwayFromTheVMsThatItMade(t *testing.T) {
	o := newOffice(t, byBob())
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob")
	o.turn()
	o.says(apiv1.Reservation_HELD)
	o.turn()
	if len(o.vms()) != 2 {
		t.Fatalf("%v", o.vms())
	}
	if _, err := o.As(o.users["ann"]).Requests.DeleteRequest(t.Context(), &apiv1.DeleteRequestRequest{Request: "r-1"}); !problem.Is(err, problem.WrongState) {
		t.Errorf("what was carried out was deleted: %v", err)
	}
	years := timestamppb.New(o.now.AddDate(10, 0, 0))
	o.Do(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: years, OperationsBefore: years, EventsBefore: years}}})
	m := o.show("ann", "r-1")
	o.View(func(tx *state.Tx) error {
		for _, part := range m.GetParts() {
			if vm, err := tx.VMs.Get(part.GetVmId()); err != nil || vm.GetName() != part.GetName() {
				t.Errorf("part %v of it is %v, %v", part, vm, err)
			}
		}
		return nil
	})
}
