package fsm_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// overrides is the zone's word that somebody in it wanted something else of VM 1 while it was cut off.
func overrides(seq uint64, id string, wants apiv1.VM_State, basedOn *apiv1.Generation) *linkv1.JournalEntry {
	return &linkv1.JournalEntry{Sequence: seq, Time: timestamppb.New(start), Body: &linkv1.JournalEntry_VmOverride{VmOverride: &linkv1.VMOverride{
		VmId: "vm-1", Override: &apiv1.VM_Override{Id: id, DesiredState: wants, InsteadOf: apiv1.VM_RUNNING, BasedOn: basedOn, User: "kim", UserId: "u-kim"}}}}
}

// answered checks that VM 1 goes down anew with the answer to an override.
func (p *plane) answered(before *apiv1.Generation, id string, wants apiv1.VM_State) {
	p.Helper()
	down := p.desired(before.GetIndex())
	if len(down) != 1 || down[0].GetVm().GetOverrideAnswered() != id || down[0].GetVm().GetDesiredState() != wants {
		p.Errorf("down goes %v, want %s and the answer to %s", down, wants, id)
	}
}

func TestWhatAZoneDidWhileItWasCutOffBecomesWhatIsWanted(t *testing.T) {
	p := inUse(t)
	before := p.vm(1).GetGeneration()
	p.accept(journal("inc-1", "zone", overrides(2, "o-1", apiv1.VM_STOPPED, before)))
	p.answered(before, "o-1", apiv1.VM_STOPPED)
	first := p.vm(1)
	if op := p.operation("o-1"); op.GetDone() || op.GetKind() != "vm.stop" || op.GetCreatedBy() != "zone:business" || !strings.Contains(op.String(), "by kim in zone business") {
		t.Errorf("the operation is %v", op)
	}
	// A second one was wanted upon the first, before that was answered.
	p.accept(journal("inc-1", "zone", overrides(3, "o-2", apiv1.VM_RUNNING, before)))
	p.answered(first.GetGeneration(), "o-2", apiv1.VM_RUNNING)
	if op := p.operation("o-1"); op != nil {
		t.Errorf("an operation that nobody will tell the end of is kept: %v", op)
	}
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1))
	p.ends(4, "o-2", nil)
	if op := p.operation("o-2"); !op.GetDone() || op.GetError() != nil {
		t.Errorf("the operation is %v", op)
	}
	if n := p.events()["vm.overridden"]; n != 2 {
		t.Errorf("it is told %d times", n)
	}
	p.accept(journal("inc-1", "zone", overrides(3, "o-2", apiv1.VM_STOPPED, before))) // sent again
	if m := p.vm(1); m.GetDesiredState() != apiv1.VM_RUNNING {
		t.Errorf("it counts twice: %v", m)
	}
}

func TestWhatWasWishedHereMeanwhileStaysAndTheConflictIsTold(t *testing.T) {
	p := inUse(t)
	before := p.vm(1).GetGeneration()
	p.accept(desire(1, apiv1.VM_STOPPED, "op-2"))
	p.accept(desire(1, apiv1.VM_RUNNING, "op-3"))
	wished := p.vm(1).GetGeneration()
	p.accept(journal("inc-1", "zone", overrides(2, "o-1", apiv1.VM_STOPPED, before)))
	p.answered(wished, "o-1", apiv1.VM_RUNNING)
	if op := p.operation("o-1"); !op.GetDone() || op.GetError().GetCode() != "CONFLICT" {
		t.Errorf("the operation is %v", op)
	}
	if n := p.events()["vm.override-refused"]; n != 1 {
		t.Errorf("the conflict is told %d times", n)
	}
	p.accept(journal("inc-1", "zone", overrides(3, "o-2", apiv1.VM_STOPPED, before)))
	if p.operation("o-2").GetError().GetCode() != "CONFLICT" {
		t.Errorf("one upon a refused one is held to: %v", p.operation("o-2"))
	}
	// The wish that was made here is not lost: the zone answers it under its newest generation.
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1))
	p.ends(4, "op-3", nil)
	if op := p.operation("op-3"); !op.GetDone() || op.GetError() != nil {
		t.Errorf("what was wished here: %v", op)
	}
}

func TestTwoWishesForTheSameAreNoConflict(t *testing.T) {
	p := inUse(t)
	before := p.vm(1).GetGeneration()
	p.accept(desire(1, apiv1.VM_STOPPED, "op-2"))
	p.accept(journal("inc-1", "zone", overrides(2, "o-1", apiv1.VM_STOPPED, before)))
	if op := p.operation("o-1"); !op.GetDone() || op.GetError() != nil || p.vm(1).GetDesiredState() != apiv1.VM_STOPPED || p.vm(1).GetOperation() != "op-2" {
		t.Errorf("%v, %v", op, p.vm(1))
	}
	p.answers(1, apiv1.VM_STOPPED, resources(1, 96, 1))
	p.ends(3, "op-2", nil)
	if op := p.operation("op-2"); !op.GetDone() || op.GetError() != nil {
		t.Errorf("what was wished here: %v", op)
	}
}

// TestAnOverrideTakesAwayNothingThatIsBeingDone: the zone switched a VM off and on again, while it was to be resized here.
func TestAnOverrideTakesAwayNothingThatIsBeingDone(t *testing.T) {
	p := inUse(t)
	before := p.vm(1).GetGeneration()
	p.accept(resize(1, resources(2, 192, 2), "op-2"))
	p.accept(journal("inc-1", "zone", overrides(2, "o-1", apiv1.VM_STOPPED, before), overrides(3, "o-2", apiv1.VM_RUNNING, before)))
	if m := p.vm(1); m.GetErrand().GetKind() != apiv1.VM_Errand_RESIZE || m.GetOperation() != "op-2" || m.GetOverrideAnswered() != "o-2" {
		t.Errorf("the resize is forgotten: %v", m)
	}
	p.answers(1, apiv1.VM_RUNNING, resources(2, 192, 2))
	p.ends(4, "op-2", nil)
	if op := p.operation("op-2"); !op.GetDone() || op.GetError() != nil || p.vm(1).GetSize().GetCores() != 2 {
		t.Errorf("the resize: %v, %v", op, p.vm(1))
	}
}

// TestP7WhatAZoneHadDoneIsInTheAuditLog by the zone's name, whether it is held to or not.
func TestP7WhatAZoneHadDoneIsInTheAuditLog(t *testing.T) {
	p := inUse(t)
	before := p.vm(1).GetGeneration()
	p.accept(journal("inc-1", "zone", overrides(2, "o-1", apiv1.VM_STOPPED, before)))
	p.accept(desire(1, apiv1.VM_RUNNING, "op-2"))
	p.accept(journal("inc-1", "zone", overrides(3, "o-2", apiv1.VM_STOPPED, before)))
	p.accept(journal("inc-1", "zone", overrides(3, "o-2", apiv1.VM_STOPPED, before))) // sent again
	var said []string
	p.view(func(tx *state.Tx) {
		all, _, err := tx.ListAudit(state.Query{OrderBy: "sequence", PageSize: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if strings.HasPrefix(e.GetAction(), "vm.overrid") {
				said = append(said, e.GetActor()+" "+e.GetAction()+" "+e.GetTarget().GetName())
			}
		}
	})
	if got := strings.Join(said, "; "); got != "zone:business vm.overridden web-1; zone:business vm.override-refused web-1" {
		t.Errorf("the log says %s", got)
	}
}

func TestAZoneOverridesWhatIsItsOwnAndInNoOtherWay(t *testing.T) {
	p := inUse(t)
	before := p.vm(1)
	for what, change := range map[string]func(*linkv1.VMOverride){
		"no VM":            func(o *linkv1.VMOverride) { o.VmId = "vm-9" },
		"no id":            func(o *linkv1.VMOverride) { o.Override.Id = "" },
		"a deletion":       func(o *linkv1.VMOverride) { o.Override.DesiredState = apiv1.VM_DELETED },
		"a taken id":       func(o *linkv1.VMOverride) { o.Override.Id = "op-create-1" },
		"nothing it wants": func(o *linkv1.VMOverride) { o.Override.DesiredState = apiv1.VM_STATE_UNSPECIFIED },
	} {
		e := overrides(2, "o-1", apiv1.VM_STOPPED, before.GetGeneration())
		change(e.GetVmOverride())
		q := inUse(t)
		q.accept(journal("inc-1", "zone", e))
		if m := q.vm(1); m.GetDesiredState() != apiv1.VM_RUNNING || m.GetOverrideAnswered() != "" {
			t.Errorf("%s: %v", what, m)
		}
	}
	p.accept(trash(1, "op-2", start.AddDate(0, 0, 7)))
	p.accept(journal("inc-1", "zone", overrides(2, "o-1", apiv1.VM_RUNNING, before.GetGeneration())))
	if m := p.vm(1); m.GetDesiredState() != apiv1.VM_TRASHED || m.GetOverrideAnswered() != "o-1" {
		t.Errorf("a VM in the trash: %v", m)
	}
	if proto.Equal(p.vm(1).GetGeneration(), before.GetGeneration()) {
		t.Error("the zone is not answered")
	}
}
