package etcdstore

import (
	"errors"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// overridden is a zone with a VM that is wanted running, and switched off by an override.
type overridden struct {
	*running
	own  *Ownership
	sink *DesiredSink
}

func newOverridden(t *testing.T) *overridden {
	t.Helper()
	a := newZone(t).one()
	o := &overridden{running: a, own: a.own(UplinkName)}
	o.sink = a.DesiredSink(o.own)
	vm := at("vm-1", 1, 5)
	vm.DesiredState = apiv1.VM_RUNNING
	o.send(t, 0, 5, object(5, vm))
	o.override(t, "o-1")
	return o
}

func (o *overridden) send(t *testing.T, after, through uint64, objects ...*linkv1.Object) {
	t.Helper()
	if err := o.sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 1, After: after, Through: through, Full: after == 0, End: true, Objects: objects}); err != nil {
		t.Fatal(err)
	}
}

// override switches the VM off, and returns the journal's sequence of that.
func (o *overridden) override(t *testing.T, id string) {
	t.Helper()
	is, cursor := must(o.Get(t.Context(), Desired, "vm", "vm-1")), must(o.Get(t.Context(), Cursor, "", ""))
	vm := proto.CloneOf(is.Message.(*apiv1.VM))
	vm.Override = &apiv1.VM_Override{Id: id, DesiredState: apiv1.VM_STOPPED, InsteadOf: vm.GetDesiredState(), BasedOn: proto.CloneOf(vm.GetGeneration())}
	vm.DesiredState = apiv1.VM_STOPPED
	vm.Generation.Override++
	tx := o.Begin(o.own)
	tx.Override(vm, is.Revision, cursor)
	tx.Journal(&linkv1.JournalEntry{Body: &linkv1.JournalEntry_VmOverride{VmOverride: &linkv1.VMOverride{VmId: "vm-1", Override: vm.GetOverride()}}})
	must(tx.Commit(t.Context()))
}

// await waits until the picture shows what the store wants of the VM.
func (o *overridden) await(t *testing.T) {
	t.Helper()
	want := o.vm(t)
	for shown := false; !shown; runtime.Gosched() {
		o.Picture().Nouns("vm", func(desired, _ proto.Message) { shown = shown || proto.Equal(desired, want) })
		if t.Context().Err() != nil {
			t.Fatal("the picture does not follow")
		}
	}
}

func (o *overridden) vm(t *testing.T) *apiv1.VM {
	t.Helper()
	return must(o.Get(t.Context(), Desired, "vm", "vm-1")).Message.(*apiv1.VM)
}

func running5(index uint64, answered string) *apiv1.VM {
	vm := at("vm-1", 1, index)
	vm.DesiredState, vm.OverrideAnswered = apiv1.VM_RUNNING, answered
	return vm
}

// TestAnOverrideHoldsUntilTheControlPlaneHasAnsweredIt: what was wished before it was seen does not undo it (P4).
func TestAnOverrideHoldsUntilTheControlPlaneHasAnsweredIt(t *testing.T) {
	o := newOverridden(t)
	o.sink = o.DesiredSink(o.own) // another session
	o.send(t, 5, 6, object(6, running5(6, "")))
	if vm := o.vm(t); vm.GetDesiredState() != apiv1.VM_STOPPED || vm.GetGeneration().GetOverride() != 1 || vm.GetGeneration().GetIndex() != 5 {
		t.Errorf("a wish that does not answer it is taken: %v", vm)
	}
	o.send(t, 0, 7, object(7, running5(6, "")))
	if vm := o.vm(t); vm.GetDesiredState() != apiv1.VM_STOPPED {
		t.Errorf("a full sync undoes it: %v", vm)
	}
	if _, err := o.Get(t.Context(), Unclaimed, "vm", "vm-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the full sync has named it: %v", err)
	}
	o.override(t, "o-2")
	o.send(t, 7, 8, object(8, running5(8, "o-1")))
	if vm := o.vm(t); vm.GetDesiredState() != apiv1.VM_STOPPED || vm.GetOverride().GetId() != "o-2" {
		t.Errorf("the answer to another one is taken for its own: %v", vm)
	}
	o.send(t, 8, 9, object(9, running5(9, "o-2")))
	if vm := o.vm(t); vm.GetDesiredState() != apiv1.VM_RUNNING || vm.GetOverride() != nil || vm.GetGeneration().GetIndex() != 9 {
		t.Errorf("the answer is not taken: %v", vm)
	}
}

// TestASessionThatIsUnderWayDoesNotOverlookAnOverride: it was begun while the zone seemed to be cut off.
func TestASessionThatIsUnderWayDoesNotOverlookAnOverride(t *testing.T) {
	o := newOverridden(t)
	o.send(t, 5, 6) // the sink knows where it stands
	o.override(t, "o-2")
	err := o.sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 1, After: 6, Through: 7, End: true, Objects: []*linkv1.Object{object(7, running5(7, ""))}})
	if !errors.Is(err, ErrConflict) {
		t.Fatalf("it goes on: %v", err)
	}
	o.send(t, 6, 7, object(7, running5(7, "")))
	if vm := o.vm(t); vm.GetOverride().GetId() != "o-2" {
		t.Errorf("it is undone: %v", vm)
	}
}

func TestADeletionIsTakenWhateverIsOverridden(t *testing.T) {
	o := newOverridden(t)
	o.send(t, 5, 6, object(6, gone("vm-1", 1, 6)))
	if _, err := o.Get(t.Context(), Desired, "vm", "vm-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the VM is still wanted: %v", err)
	}
}

// TestAnOverrideThatNobodyAnswersIsGivenUp: its entry was consumed, and rejected or withheld, or the answer to it is lost. What was wished
// meanwhile is asked for anew, and comes after it for whoever drives the VM.
func TestAnOverrideThatNobodyAnswersIsGivenUp(t *testing.T) {
	o := newOverridden(t)
	unanswered := func() map[string]string {
		t.Helper()
		o.await(t)
		return must(o.Unanswered(t.Context(), o.own))
	}
	if got := unanswered(); len(got) != 0 {
		t.Errorf("before the control plane has had it, it is to answer %v", got)
	}
	incarnation, _ := o.Incarnation()
	journal := o.JournalSource(o.own)
	batch := must(journal.After(t.Context(), &linkv1.JournalPoint{Origin: incarnation.GetId(), Stream: "zone"}, 100))
	last := batch.GetEntries()[len(batch.GetEntries())-1]
	at := &linkv1.JournalPoint{Origin: batch.GetOrigin(), Stream: batch.GetStream(), Sequence: last.GetSequence()}
	if err := journal.Acknowledged(t.Context(), &linkv1.JournalAck{Points: []*linkv1.JournalPoint{at}}); err != nil { // as when a session is resumed
		t.Fatal(err)
	}
	got := unanswered()
	if len(got) != 1 || got["vm-1"] != "o-1" {
		t.Fatalf("the control plane has had it, and has to answer %v", got)
	}
	if err := o.GiveUp(t.Context(), o.own, map[string]string{"vm-1": "another", "vm-9": "o-9"}); err != nil || o.vm(t).GetOverride().GetGivenUp() {
		t.Fatalf("another one is given up: %v", err)
	}
	if err := o.GiveUp(t.Context(), o.own, got); err != nil {
		t.Fatal(err)
	}
	if c := must(o.Cursor(t.Context())); !c.GetSyncing() || c.GetPoint().GetRevision() != 0 || c.GetPoint().GetEpoch() != 1 {
		t.Errorf("the zone stands at %v", c)
	}
	if vm := o.vm(t); vm.GetDesiredState() != apiv1.VM_STOPPED {
		t.Errorf("the VM is touched before it is known what is wanted: %v", vm)
	}
	if got := unanswered(); len(got) != 0 {
		t.Errorf("it is given up again: %v", got)
	}
	o.sink = o.DesiredSink(o.own)
	o.send(t, 0, 9, object(5, running5(5, "")))
	vm := o.vm(t)
	if vm.GetOverride() != nil || vm.GetDesiredState() != apiv1.VM_RUNNING || vm.GetGeneration().GetIndex() != 5 || vm.GetGeneration().GetOverride() != 2 {
		t.Errorf("what is wanted does not come after it: %v", vm)
	}
}

// TestWhoIsNoOperatorAnyMoreIsForgotten, by a tombstone or because a full sync does not name them: nobody is kept for safety here.
func TestWhoIsNoOperatorAnyMoreIsForgotten(t *testing.T) {
	o := newOverridden(t)
	operator := func(id string, revision uint64) *linkv1.Object {
		return &linkv1.Object{Revision: revision, Noun: &linkv1.Object_LocalOperator{LocalOperator: &linkv1.LocalOperator{
			Id: id, Sealed: []byte("sealed"), Generation: &apiv1.Generation{Epoch: 1, Index: revision}}}}
	}
	o.send(t, 5, 8, operator("kim", 6), operator("lee", 7), operator("park", 8))
	o.send(t, 8, 9, object(9, &linkv1.Tombstone{Noun: &apiv1.Reference{Kind: "local-operator", Id: "kim"}, Generation: &apiv1.Generation{Epoch: 1, Index: 9}}))
	o.send(t, 0, 10, object(5, running5(5, "")), operator("park", 8))
	for id, want := range map[string]error{"kim": ErrNotFound, "lee": ErrNotFound, "park": nil} {
		if _, err := o.Get(t.Context(), Desired, "local-operator", id); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", id, err, want)
		}
	}
	if unclaimed := must(o.get(t.Context(), o.keys.under(Unclaimed, "local-operator"))); len(unclaimed.Kvs) > 0 {
		t.Errorf("they are kept as unclaimed")
	}
}

func TestWhatIsWrittenWhileCutOffOutlivesTheAgent(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	a := z.open(c)
	tx := a.Begin(a.own(UplinkName))
	s := &zonev1.LocalSession{Session: &apiv1.Session{Id: "s-1", User: "kim"}, PublicKey: []byte{1}}
	log := &zonev1.LocalLog{Incarnation: "i", Size: 1, Hashes: [][]byte{{1}}}
	tx.PutLocalSession(s)
	tx.PutLocalLog(log)
	must(tx.Commit(t.Context()))
	a.close()
	b := z.open(c)
	if got := must(b.Get(t.Context(), LocalSession, "", "s-1")).Message; !proto.Equal(got, s) {
		t.Errorf("the session is %v", got)
	}
	if got := must(b.Get(t.Context(), LocalLog, "", "")).Message; !proto.Equal(got, log) {
		t.Errorf("the log is %v", got)
	}
}
