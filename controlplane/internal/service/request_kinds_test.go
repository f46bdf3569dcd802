package service_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// workshop is an office in which VM web-1 of project web runs, and bob alone decides.
func newWorkshop(t *testing.T) *office {
	o := newOffice(t, &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY})
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{Id: "f-s2", Name: "s2", Cores: 2, MemoryMib: 2048, DiskGib: 10}}}})
	create(t, o.In("web"), o.VM("web-1", ""))
	o.answer(apiv1.VM_RUNNING)
	return o
}

func (o *office) web1() (vm *apiv1.VM) {
	o.Helper()
	o.View(func(tx *state.Tx) (err error) {
		vm, err = tx.VMs.ByName("web-1", nil)
		return err
	})
	return vm
}

// answer has the zone report web-1 as it is wanted, and end what is done to it.
func (o *office) answer(s apiv1.VM_State, snapshots ...*apiv1.VM_Snapshots_Item) {
	o.Helper()
	vm := o.web1()
	power := apiv1.VM_OFF
	if s == apiv1.VM_RUNNING {
		power = apiv1.VM_ON
	}
	o.Observe(o.site.Business.GetId(), &apiv1.VM{Id: vm.GetId(), Name: vm.GetName(), State: s, Power: power, Host: "kvm-1", HostId: o.site.Hosts[0].GetId(),
		Reached: vm.GetGeneration(), Actual: vm.GetSize(), Allocated: vm.GetSize(), Snapshots: &apiv1.VM_Snapshots{Items: snapshots}})
	o.View(func(tx *state.Tx) error {
		op, err := tx.Operations.Get(vm.GetOperation())
		if err == nil && !op.GetDone() {
			vm.Operation = op.GetId()
		} else {
			vm.Operation = ""
		}
		return nil
	})
	if vm.GetOperation() != "" {
		o.Do(&commandv1.Command{Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
			OperationId: vm.GetOperation(), Outcome: apiv1.ResolveOperationRequest_SUCCEED, Reason: "seen"}}})
	}
}

func of(what *apiv1.RequestSpecification) *apiv1.Request {
	return &apiv1.Request{Title: "a change", Reason: "it is needed", Project: "web", Specification: what}
}

// granted has ann ask for something of web-1, bob approve it and the leader carry it out.
func (o *office) granted(what *apiv1.RequestSpecification) *apiv1.Request {
	o.Helper()
	m, err := o.submit("ann", of(what))
	if err != nil {
		o.Fatal(err)
	}
	if m.GetZone() != "business" || len(m.GetParts()) != 1 || m.GetParts()[0].GetVmId() != o.web1().GetId() {
		o.Fatalf("%v", m)
	}
	before := o.web1().GetGeneration().GetIndex()
	o.turn()
	if o.web1().GetGeneration().GetIndex() != before {
		o.Fatal("it was carried out before it was approved")
	}
	o.says(apiv1.Reservation_HELD)
	o.turn()
	if err := o.decide("bob", m.GetName(), apiv1.Decision_APPROVE, nil); err != nil {
		o.Fatal(err)
	}
	o.turn()
	o.turn()
	if m = o.show("ann", m.GetName()); m.GetFulfilment() != apiv1.Request_EXECUTING || len(m.GetOperations()) != 1 {
		o.Fatalf("%v", m)
	}
	return m
}

func (o *office) done(m *apiv1.Request) {
	o.Helper()
	if m = o.show("ann", m.GetName()); m.GetFulfilment() != apiv1.Request_DONE {
		o.Errorf("%v", m)
	}
}

func resizeTo(flavor string) *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Resize{Resize: &apiv1.ResizeVM{Vm: "web-1", Flavor: flavor, MayStop: true}}}
}

func snapshotCalled(name string, mayStop bool) *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Snapshot{Snapshot: &apiv1.SnapshotVM{Vm: "web-1", Name: name, MayStop: mayStop}}}
}

func restoreTo(snapshot string) *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Restore{Restore: &apiv1.RestoreVM{Vm: "web-1", Snapshot: snapshot, MayStop: true}}}
}

func reclaimed(vms ...string) *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Reclaim{Reclaim: &apiv1.ReclaimVMs{Vms: vms}}}
}

func TestAVMIsResizedByARequest(t *testing.T) {
	o := newWorkshop(t)
	m := o.granted(resizeTo("s2"))
	if ask := m.GetSpecification().GetResize(); ask.GetSizeBefore().GetCores() != 1 || ask.GetSize().GetCores() != 2 || m.GetAmount().GetCores() != 2 {
		t.Errorf("what is approved is not shown: %v", m)
	}
	o.answer(apiv1.VM_RUNNING)
	o.done(m)
	if vm := o.web1(); vm.GetFlavor() != "s2" || vm.GetSize().GetMemoryMib() != 2048 {
		t.Errorf("%v", vm)
	}
}

func TestAResizeForWhichThereIsNoRoomWaitsAndSaysSo(t *testing.T) {
	o := newWorkshop(t)
	if _, err := o.submit("ann", of(resizeTo("huge"))); err != nil {
		t.Fatal(err)
	}
	if err := o.decide("bob", "r-2", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if m := o.show("ann", "r-2"); m.GetFulfilment() != apiv1.Request_NONE || m.GetFulfilmentReason() == "" || o.web1().GetFlavor() != "s1" {
		t.Errorf("%v", m)
	}
}

func TestASnapshotIsTakenAndRestoredByRequests(t *testing.T) {
	o := newWorkshop(t)
	m := o.granted(snapshotCalled("before", true))
	id := m.GetSpecification().GetSnapshot().GetSnapshotId()
	if !slices.ContainsFunc(m.GetResults(), func(r *apiv1.Reference) bool { return r.GetKind() == "snapshot" && r.GetId() == id }) {
		t.Errorf("%v", m.GetResults())
	}
	taken := &apiv1.VM_Snapshots_Item{Id: id, Name: "before"}
	o.answer(apiv1.VM_RUNNING, taken)
	o.done(m)
	m = o.granted(restoreTo("before"))
	if e := o.web1().GetErrand(); e.GetSnapshotId() != id || e.GetKind() != apiv1.VM_Errand_RESTORE {
		t.Errorf("%v", e)
	}
	o.answer(apiv1.VM_RUNNING, taken)
	o.done(m)
}

func TestAVMIsReclaimedAndComesBackByRequests(t *testing.T) {
	o := newWorkshop(t)
	m := o.granted(reclaimed("web-1"))
	if m.GetSpecification().GetReclaim().GetKeepDays() != 7 || o.web1().GetDesiredState() != apiv1.VM_TRASHED {
		t.Errorf("%v", m)
	}
	o.answer(apiv1.VM_TRASHED)
	o.done(m)
	_, err := o.submit("ann", of(resizeTo("s2")))
	refuses(t, err, problem.WrongState, "in the trash")
	m = o.granted(restoreTo(""))
	o.answer(apiv1.VM_STOPPED)
	o.done(m)
	if vm := o.web1(); vm.GetDesiredState() != apiv1.VM_STOPPED {
		t.Errorf("%v", vm)
	}
}

func TestWhatCannotBeDoneToAVMIsRefusedAtSubmission(t *testing.T) {
	o := newWorkshop(t)
	for why, what := range map[string]*apiv1.RequestSpecification{
		"which cannot become smaller": resizeTo("tiny"), "has the size of flavor s1 already": resizeTo("s1"), "there is no flavor none": resizeTo("none"),
		"VM web-1 is on": snapshotCalled("s", false), "has no snapshot none": restoreTo("none"), "is not in the trash": restoreTo(""),
		"is named twice": reclaimed("web-1", o.web1().GetId()), "there is no vm none": reclaimed("none"),
	} {
		if _, err := o.submit("ann", of(what)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	if _, err := o.submit("ann", of(restoreTo(""))); len(problem.Of(err).GetErrors()) != 0 || !strings.Contains(problem.Of(err).GetNext(), "naru snapshot list --vm web-1") {
		t.Errorf("who names no snapshot may mean the trash: %v", problem.Of(err))
	}
}

// TestP6AResizeOfUnknownPriceIsNotLetThroughByALimitOnThePrice.
func TestP6AResizeOfUnknownPriceIsNotLetThroughByALimitOnThePrice(t *testing.T) {
	o := newWorkshop(t)
	o.Do(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: &apiv1.ApprovalPolicy{
		Id: "p-two-steps", Name: "two-steps", Enabled: true,
		Automatic: &apiv1.AutomaticApproval{When: "true", Reason: "cheap", MaxMonthlyCost: &apiv1.Money{Amount: "1000", Currency: "KRW"}},
		Stages:    []*apiv1.StageTemplate{{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY}}}}}})
	m, err := o.submit("ann", of(resizeTo("s2")))
	if err != nil || m.GetApproval() != apiv1.Request_SUBMITTED || !strings.Contains(strings.Join(m.GetPolicyTrace(), " "), "not known") {
		t.Errorf("%v, %v", m, err)
	}
	if m, err := o.submit("ann", of(snapshotCalled("free", true))); err != nil || m.GetApproval() != apiv1.Request_APPROVED {
		t.Errorf("%v, %v", m, err)
	}
}
