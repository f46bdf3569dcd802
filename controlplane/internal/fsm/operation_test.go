package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// answering is what a zone reports of a VM once it has reached what is wanted of it now.
func (p *plane) answering(n int, s apiv1.VM_State) *linkv1.Object {
	o := seen(n, s, apiv1.VM_ON)
	o.GetVm().Reached = p.vm(n).GetGeneration()
	return o
}

func ended(seq uint64, op string) *commandv1.Command {
	return journal("inc-1", "c-kvm", report(seq, op, func(r *linkv1.OperationReport) {
		r.Step, r.Done = &apiv1.Operation_Step{Name: "usable", State: apiv1.Operation_Step_DONE}, true
	}))
}

func failed(seq uint64, op string) *commandv1.Command {
	return journal("inc-1", "c-kvm", report(seq, op, func(r *linkv1.OperationReport) {
		r.Done, r.Error = true, &apiv1.Problem{Code: "DRIVER_FAILED", Detail: "it did not start"}
	}))
}

func TestAnOperationIsDoneOnceItsZoneHasSaidSoAndItsVMIsSeenSo(t *testing.T) {
	for order, swapped := range map[string]bool{"the word first": false, "the VM first": true} {
		t.Run(order, func(t *testing.T) {
			p := furnished(t)
			p.accept(createVM(1))
			p.accept(fullSync(true, "inc-1", 0, 5, seen(1, apiv1.VM_BUILDING, apiv1.VM_OFF)))
			word, news := ended(1, "op-create-1"), observe("inc-1", 5, 6, p.answering(1, apiv1.VM_RUNNING))
			if swapped {
				word, news = news, word
			}
			p.accept(word)
			op := p.operation("op-create-1")
			if op.GetDone() || op.GetProgress() == 100 || op.GetFinishedAt() != nil {
				t.Errorf("it is done at half the story: %v", op)
			}
			if reported := op.GetReportedAt() != nil; reported == swapped {
				t.Errorf("the zone's word came: %v, and the operation says %v", !swapped, op.GetReportedAt())
			}
			p.accept(news)
			if op := p.operation("op-create-1"); !op.GetDone() || op.GetError() != nil || op.GetProgress() != 100 {
				t.Errorf("the whole story is told, and the operation is %v", op)
			}
			if m := p.vm(1); m.GetState() != apiv1.VM_RUNNING {
				t.Errorf("it is done, and the VM is %v", m)
			}
		})
	}
}

func TestNewsOfAVMAsItWasBeforeDoNotEndItsOperation(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(fullSync(true, "inc-1", 0, 5, p.answering(1, apiv1.VM_RUNNING)))
	before := p.answering(1, apiv1.VM_RUNNING)
	p.accept(desire(1, apiv1.VM_STOPPED, "op-stop"))
	p.accept(ended(1, "op-stop"))
	before.GetVm().Task = apiv1.VM_STOPPING
	p.accept(observe("inc-1", 5, 6, before))
	if op := p.operation("op-stop"); op.GetDone() {
		t.Errorf("the VM is still running, and the operation is %v", op)
	}
	p.accept(observe("inc-1", 6, 7, p.answering(1, apiv1.VM_STOPPED)))
	if op := p.operation("op-stop"); !op.GetDone() || op.GetError() != nil {
		t.Errorf("the VM is stopped, and the operation is %v", op)
	}
}

func TestAFailureIsNotWaitedWith(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(failed(1, "op-create-1"))
	if op := p.operation("op-create-1"); !op.GetDone() || op.GetError().GetDetail() != "it did not start" || op.GetReportedAt() != nil {
		t.Errorf("operation %v", op)
	}
}

func TestADeletionIsDoneWhenTheVMIsGone(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(fullSync(true, "inc-1", 0, 5, p.answering(1, apiv1.VM_RUNNING)))
	p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
	p.accept(ended(1, "op-delete"))
	if op := p.operation("op-delete"); op.GetDone() || p.vm(1) == nil {
		t.Errorf("the VM is %v, and the operation %v", p.vm(1), op)
	}
	p.accept(observe("inc-1", 5, 6, tombstone(1)))
	if op := p.operation("op-delete"); !op.GetDone() || op.GetError() != nil || p.vm(1) != nil {
		t.Errorf("the VM is %v, and the operation %v", p.vm(1), op)
	}
}

func TestWhatItsZoneHasDoneStaysDoneWhenTheVMIsDeletedBeforeItWasSeen(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(ended(1, "op-create-1"))
	p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
	p.accept(fullSync(true, "inc-1", 0, 5, tombstone(1)))
	if op := p.operation("op-create-1"); !op.GetDone() || op.GetError() != nil {
		t.Errorf("operation %v", op)
	}
}

func TestAnEarlierWishIsDoneThoughANewerOneIsUnderWay(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	running := p.answering(1, apiv1.VM_RUNNING)
	p.accept(desire(1, apiv1.VM_STOPPED, "op-stop"))
	p.accept(ended(1, "op-create-1"))
	p.accept(fullSync(true, "inc-1", 0, 5, running))
	if op := p.operation("op-create-1"); !op.GetDone() || op.GetError() != nil {
		t.Errorf("it ran, and the operation is %v", op)
	}
	if op := p.operation("op-stop"); op.GetDone() {
		t.Errorf("nobody has said that it is stopped, and the operation is %v", op)
	}
}

func TestWishesThatTheZoneNeverTookUpAreCancelledWhenItReportsOfANewerOne(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(createVM(2))
	p.accept(fullSync(true, "inc-1", 0, 5, p.answering(1, apiv1.VM_RUNNING)))
	p.accept(ended(1, "op-create-1"))
	p.accept(orderReboot("op-reboot"))
	p.accept(desire(1, apiv1.VM_STOPPED, "op-stop"))
	p.accept(desire(1, apiv1.VM_RUNNING, "op-start"))
	p.accept(desire(1, apiv1.VM_STOPPED, "op-stop-again"))
	p.accept(journal("inc-1", "c-kvm", report(2, "op-start", func(r *linkv1.OperationReport) {
		r.Step = &apiv1.Operation_Step{Name: "start", State: apiv1.Operation_Step_RUNNING}
	})))
	op := p.operation("op-stop")
	if !op.GetDone() || op.GetError().GetCode() != "CANCELLED" || op.GetError().GetDetail() != "A newer request for the VM took this one's place." {
		t.Errorf("the zone is at the start already, and the stop before is %v", op)
	}
	for _, id := range []string{"op-start", "op-stop-again", "op-reboot", "op-create-2"} {
		if op := p.operation(id); op.GetDone() {
			t.Errorf("nothing is known of %s, and it is %v", id, op)
		}
	}
	p.accept(ended(3, "op-stop")) // late, of a zone that had begun it all the same
	if now := p.operation("op-stop"); !proto.Equal(now, op) {
		t.Errorf("an ended operation changed from %v to %v", op, now)
	}
	p.accept(ended(4, "op-stop-again"))
	if op := p.operation("op-start"); op.GetError().GetCode() != "CANCELLED" {
		t.Errorf("the zone has stopped the VM, and the start before is %v", op)
	}
}

func TestAWishIsCancelledByADeletionWhicheverOfItsNewsComesFirst(t *testing.T) {
	for order, swapped := range map[string]bool{"the word first": false, "the VM first": true} {
		t.Run(order, func(t *testing.T) {
			p := furnished(t)
			p.accept(createVM(1))
			p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
			word, news := ended(1, "op-delete"), fullSync(true, "inc-1", 0, 5, tombstone(1))
			if swapped {
				word, news = news, word
			}
			p.accept(word)
			p.accept(news)
			if op := p.operation("op-create-1"); op.GetError().GetCode() != "CANCELLED" {
				t.Errorf("the creation is %v", op)
			}
			if op := p.operation("op-delete"); !op.GetDone() || op.GetError() != nil {
				t.Errorf("the deletion is %v", op)
			}
		})
	}
}

func TestAtItsDeadlineAnOperationEndsAsItsZoneHasSaid(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(createVM(2))
	p.accept(ended(1, "op-create-1"))
	p.accept(expire("op-create-1", "op-create-2"))
	if op := p.operation("op-create-1"); op.GetDone() {
		t.Errorf("it has time left: %v", op)
	}
	p.now = start.Add(2 * time.Hour)
	p.accept(expire("op-create-1", "op-create-2"))
	op := p.operation("op-create-1")
	if last := op.GetSteps()[len(op.GetSteps())-1]; !op.GetDone() || op.GetError() != nil || last.GetName() != "reported" || last.GetMessage() == "" {
		t.Errorf("its zone had said that it was done, and the operation is %v", op)
	}
	if op := p.operation("op-create-2"); !op.GetDone() || op.GetError() == nil {
		t.Errorf("its zone had said nothing, and the operation is %v", op)
	}
}

func TestWhatIsTriedAgainIsDoneWhenTheNewAttemptIs(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	first := p.answering(1, apiv1.VM_RUNNING)
	p.accept(ended(1, "op-create-1"))
	p.accept(resolve("op-create-1", apiv1.ResolveOperationRequest_RETRY))
	p.accept(ended(2, "op-create-1")) // of the attempt before, which its zone was about to end
	p.accept(fullSync(true, "inc-1", 0, 5, first))
	if op := p.operation("op-create-1"); op.GetDone() {
		t.Errorf("only the first attempt is seen, and the operation is %v", op)
	}
	p.accept(failed(3, "op-create-1"))
	if op := p.operation("op-create-1"); !op.GetDone() || op.GetError() == nil {
		t.Errorf("the new attempt failed, and the operation is %v", op)
	}
}

func orderReboot(operation string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_OrderVm{OrderVm: &commandv1.OrderVM{VmId: "vm-1", OperationId: operation, Kind: "vm.reboot",
		Order: &linkv1.Order{Verb: linkv1.Order_REBOOT}}}}
}

func TestARebootWaitsForNoState(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(orderReboot("op-reboot"))
	p.accept(ended(1, "op-reboot"))
	if op := p.operation("op-reboot"); !op.GetDone() {
		t.Errorf("operation %v", op)
	}
}

// TestNoOperationIsDoneBeforeItsVMShowsItAndNoneWaitsBehindIt plays all that can happen to one VM, in any order.
func TestNoOperationIsDoneBeforeItsVMShowsItAndNoneWaitsBehindIt(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := furnished(rt)
		p.accept(createVM(1))
		p.accept(fullSync(true, "inc-1", 0, 1))
		wishes := []string{"op-create-1"}
		reported, at := uint64(0), uint64(1)
		seenAs := &apiv1.Generation{}
		before := p.operations()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			mayDiffer := false
			op := rapid.SampledFrom(wishes).Draw(rt, "operation")
			switch rapid.IntRange(0, 6).Draw(rt, "event") {
			case 0:
				op = fmt.Sprint("op-", len(wishes))
				if p.apply(desire(1, rapid.SampledFrom([]apiv1.VM_State{apiv1.VM_RUNNING, apiv1.VM_STOPPED, apiv1.VM_DELETED}).Draw(rt, "wish"), op)).GetProblem() == nil &&
					p.operation(op) != nil {
					wishes = append(wishes, op)
				}
			case 1, 2:
				reported++
				word := ended(reported, op)
				if rapid.IntRange(0, 4).Draw(rt, "fails") == 0 {
					word = failed(reported, op)
				}
				known := !p.operation(op).GetDone()
				p.accept(word)
				for id, old := range p.operations() {
					if known && !old.GetDone() && old.GetReportedAt() == nil && old.GetGeneration().GetIndex() < p.operation(op).GetGeneration().GetIndex() {
						rt.Fatalf("%s goes on behind %s, of which its zone has reported", id, op)
					}
				}
			case 3, 4:
				if g := p.operation(op).GetGeneration(); g.GetIndex() > seenAs.GetIndex() {
					seenAs = g
				}
				o := seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)
				o.GetVm().Reached = proto.CloneOf(seenAs)
				p.accept(observe("inc-1", at, at+1, o))
				at++
			case 5:
				p.apply(resolve(op, apiv1.ResolveOperationRequest_RETRY))
			case 6:
				if rapid.Bool().Draw(rt, "late") {
					p.now = p.now.Add(2 * time.Hour)
					p.accept(expire(op))
					mayDiffer = true
				} else {
					p.accept(observe("inc-1", at, at+1, tombstone(1)))
					at++
				}
			}
			vm, now := p.vm(1), p.operations()
			for id, op := range now {
				shown := vm == nil || vm.GetReached().GetIndex() >= op.GetGeneration().GetIndex()
				if op.GetDone() && !before[id].GetDone() && op.GetError() == nil && !shown && !mayDiffer {
					rt.Fatalf("%s is done and its VM is %v", id, vm)
				}
				if !op.GetDone() && op.GetReportedAt() != nil && shown {
					rt.Fatalf("%s waits and its VM is %v", id, vm)
				}
			}
			if before = now; vm == nil {
				for id, op := range now {
					if !op.GetDone() {
						rt.Fatalf("%s waits and its VM is gone", id)
					}
				}
				return
			}
		}
	})
}

// operations returns all there are, by id.
func (p *plane) operations() map[string]*apiv1.Operation {
	p.Helper()
	found := map[string]*apiv1.Operation{}
	p.view(func(tx *state.Tx) {
		for op, err := range tx.Operations.All(nil) {
			if err != nil {
				p.Fatal(err)
			}
			found[op.GetId()] = op
		}
	})
	return found
}
