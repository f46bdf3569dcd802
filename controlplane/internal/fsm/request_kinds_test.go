package fsm_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// asking is a plane with VM 1, which runs, and people; what is asked of the VM is approved already.
func asking(t tb, kind apiv1.RequestKind_Value, what *apiv1.RequestSpecification) *plane {
	p := inUse(t)
	for _, name := range []string{"ann", "bob"} {
		p.accept(&commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: &apiv1.User{
			Id: "u-" + name, Name: name, Kind: apiv1.User_PERSON, Organization: "home", OrganizationId: "o-home"}}}})
	}
	p.approved("r", kind, what)
	return p
}

// approved has ann ask for something of VM 1 and bob approve it.
func (p *plane) approved(id string, kind apiv1.RequestKind_Value, what *apiv1.RequestSpecification) {
	p.Helper()
	p.draft(id, func(m *apiv1.Request) { m.Kind, m.Specification = kind, what })
	in := p.submission(id, "review")
	in.GetSubmitRequest().GetRequest().Parts = []*apiv1.Part{{Name: "web-1", VmId: "vm-1"}}
	p.accept(in)
	p.approve(id, "bob", "review")
}

func aResize() *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Resize{Resize: &apiv1.ResizeVM{Vm: "web-1", VmId: "vm-1", Flavor: "s2", Size: resources(2, 192, 2), MayStop: true}}}
}

func aSnapshot() *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Snapshot{Snapshot: &apiv1.SnapshotVM{Vm: "web-1", VmId: "vm-1", Name: "before", SnapshotId: "s-before", MayStop: true}}}
}

func aReclaim() *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Reclaim{Reclaim: &apiv1.ReclaimVMs{Vms: []string{"web-1"}, VmIds: []string{"vm-1"}, KeepDays: 3}}}
}

func aRestore(snapshot string) *apiv1.RequestSpecification {
	ask := &apiv1.RestoreVM{Vm: "web-1", VmId: "vm-1"}
	if snapshot != "" {
		ask.Snapshot, ask.SnapshotId = snapshot, "s-"+snapshot
	}
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Restore{Restore: ask}}
}

// once carries a request out, shows that nobody does so again, and ends what was begun.
func (p *plane) once(id, attempt string) {
	p.Helper()
	p.accept(p.carryOut(id, attempt, 0))
	before := p.vm(1)
	p.refuse(problem.WrongState, p.carryOut(id, attempt+"-again", 0))
	if now := p.vm(1); now.GetGeneration().GetIndex() != before.GetGeneration().GetIndex() || p.request(id).GetFulfilment() != apiv1.Request_EXECUTING {
		p.Fatalf("%v\n%v", now, p.request(id))
	}
}

func (p *plane) retry(id string) {
	p.Helper()
	p.accept(&commandv1.Command{Body: &commandv1.Command_RetryRequest{RetryRequest: &commandv1.RetryRequest{RequestId: id}}})
}

func (p *plane) isDone(id string) {
	p.Helper()
	if m := p.request(id); m.GetFulfilment() != apiv1.Request_DONE {
		p.Fatalf("%v", m)
	}
}

func TestAResizeThatWasApprovedIsWishedOnceWithTheSizeThatWasSeen(t *testing.T) {
	p := asking(t, apiv1.RequestKind_RESIZE, aResize())
	p.once("r", "a")
	if vm := p.vm(1); vm.GetSize().GetCores() != 2 || vm.GetFlavor() != "s2" || vm.GetErrand().GetKind() != apiv1.VM_Errand_RESIZE || !vm.GetErrand().GetMayStop() {
		t.Fatalf("%v", vm)
	}
	p.answers(1, apiv1.VM_RUNNING, resources(2, 192, 2))
	p.ends(2, "op-a-0", nil)
	p.isDone("r")
}

func TestAResizeThatItsZoneRefusedIsFailedAndTriedAgain(t *testing.T) {
	p := asking(t, apiv1.RequestKind_RESIZE, aResize())
	p.once("r", "a")
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1))
	p.ends(2, "op-a-0", &apiv1.Problem{Code: string(problem.NoHostFits), Detail: "there is no room"})
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_FAILED || m.GetFulfilmentReason() != "web-1: there is no room" {
		t.Fatalf("%v", m)
	}
	p.retry("r")
	p.once("r", "b")
	p.answers(1, apiv1.VM_RUNNING, resources(2, 192, 2))
	p.ends(3, "op-b-0", nil)
	p.isDone("r")
}

// TestASnapshotIsTakenUnderOneIdHoweverOftenItIsTried: what failed is taken anew, and what its zone had after all is not.
func TestASnapshotIsTakenUnderOneIdHoweverOftenItIsTried(t *testing.T) {
	p := asking(t, apiv1.RequestKind_SNAPSHOT, aSnapshot())
	p.once("r", "a")
	p.ends(2, "op-a-0", &apiv1.Problem{Code: string(problem.Timeout), Detail: "nothing was heard"})
	p.retry("r")
	p.once("r", "b")
	p.ends(3, "op-b-0", &apiv1.Problem{Code: string(problem.Timeout), Detail: "nothing was heard"})
	p.view(func(tx *state.Tx) {
		if all, err := tx.SnapshotsOf("vm-1"); err != nil || len(all) != 1 || all[0].GetState() != apiv1.Snapshot_ERROR {
			t.Fatalf("%v, %v", all, err)
		}
	})
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1), "before")
	p.retry("r")
	generation := p.vm(1).GetGeneration().GetIndex()
	p.accept(p.carryOut("r", "c", 0))
	p.isDone("r")
	if now := p.vm(1).GetGeneration().GetIndex(); now != generation {
		t.Error("what was there already was wished again")
	}
}

func TestARestoreThatWasApprovedIsWishedOnce(t *testing.T) {
	p := asking(t, apiv1.RequestKind_SNAPSHOT, aSnapshot())
	p.once("r", "a")
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1), "before")
	p.ends(2, "op-a-0", nil)
	p.isDone("r")
	p.approved("back", apiv1.RequestKind_RESTORE, aRestore("before"))
	p.once("back", "b")
	if e := p.vm(1).GetErrand(); e.GetKind() != apiv1.VM_Errand_RESTORE || e.GetSnapshotId() != "s-before" {
		t.Fatalf("%v", e)
	}
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1))
	p.ends(3, "op-b-0", nil)
	p.isDone("back")
}

func TestWhatIsReclaimedGoesToTheTrashAndComesBackByARequest(t *testing.T) {
	p := asking(t, apiv1.RequestKind_RECLAIM, aReclaim())
	p.once("r", "a")
	until := timestamppb.New(p.now.AddDate(0, 0, 3)).AsTime()
	if vm := p.vm(1); vm.GetDesiredState() != apiv1.VM_TRASHED || vm.GetDeleteAt().AsTime().After(until) || vm.GetDeleteAt().AsTime().Before(until.AddDate(0, 0, -1)) {
		t.Fatalf("%v", vm)
	}
	p.answers(1, apiv1.VM_TRASHED, resources(1, 96, 1))
	p.ends(2, "op-a-0", nil)
	p.isDone("r")
	p.approved("again", apiv1.RequestKind_RESIZE, aResize())
	p.refuse(problem.WrongState, p.carryOut("again", "c", 0)) // nothing is done to what lies in the trash
	p.approved("back", apiv1.RequestKind_RESTORE, aRestore(""))
	p.once("back", "b")
	if vm := p.vm(1); vm.GetDesiredState() != apiv1.VM_STOPPED || vm.GetDeleteAt() != nil {
		t.Fatalf("%v", vm)
	}
	p.answers(1, apiv1.VM_STOPPED, resources(1, 96, 1))
	p.ends(3, "op-b-0", nil)
	p.isDone("back")
}
