package fsm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

var soon = timestamppb.New(start.Add(time.Hour))

func resources(cores, memoryMiB, diskGiB uint32) *apiv1.Resources {
	return &apiv1.Resources{Cores: cores, MemoryMib: memoryMiB, DiskGib: diskGiB}
}

func resize(n int, size *apiv1.Resources, operation string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ResizeVm{ResizeVm: &commandv1.ResizeVM{
		VmId: fmt.Sprintf("vm-%d", n), Flavor: "s2", Size: size, OperationId: operation, Deadline: soon}}}
}

func takeSnapshot(n int, name, operation string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateSnapshot{CreateSnapshot: &commandv1.CreateSnapshot{
		Snapshot: &apiv1.Snapshot{Id: "s-" + name, Name: name, VmId: fmt.Sprintf("vm-%d", n)}, OperationId: operation, Deadline: soon}}}
}

func restoreSnapshot(name, operation string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_RestoreSnapshot{RestoreSnapshot: &commandv1.RestoreSnapshot{
		SnapshotId: "s-" + name, OperationId: operation, Deadline: soon}}}
}

func deleteSnapshot(name, operation string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_DeleteSnapshot{DeleteSnapshot: &commandv1.DeleteSnapshot{
		SnapshotId: "s-" + name, OperationId: operation, Deadline: soon}}}
}

func trash(n int, operation string, until time.Time) *commandv1.Command {
	c := desire(n, apiv1.VM_TRASHED, operation)
	c.GetSetVmDesired().DeleteAt = timestamppb.New(until)
	return c
}

// inUse is a plane with VM 1, which runs, and a larger flavor.
func inUse(t tb) *plane {
	p := furnished(t)
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{
		Id: "f-s2", Name: "s2", Cores: 2, MemoryMib: 192, DiskGib: 2}}}})
	p.accept(createVM(1))
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1))
	p.ends(1, "op-create-1", nil)
	return p
}

// answers has the zone report that it has carried out what is wanted of a VM.
func (p *plane) answers(n int, s apiv1.VM_State, size *apiv1.Resources, snapshots ...string) {
	p.Helper()
	o := seen(n, s, apiv1.VM_ON)
	vm := o.GetVm()
	vm.Reached, vm.Actual, vm.Allocated, vm.Snapshots = p.vm(n).GetGeneration(), size, size, &apiv1.VM_Snapshots{}
	for _, name := range snapshots {
		vm.Snapshots.Items = append(vm.Snapshots.Items, &apiv1.VM_Snapshots_Item{Id: "s-" + name, Name: name, TakenAt: timestamppb.New(start), DiskGib: size.GetDiskGib()})
	}
	var at state.ObservedCursor
	p.view(func(tx *state.Tx) { at, _ = tx.ObservedCursor("z-business") })
	c := observe("inc-1", at.Revision, at.Revision+1, o)
	if at.Revision == 0 {
		c = fullSync(true, "inc-1", 0, 1, o)
	}
	p.accept(c)
}

// ends has the zone report the end of an operation.
func (p *plane) ends(sequence uint64, operation string, failed *apiv1.Problem) {
	p.Helper()
	p.accept(journal("inc-1", "zone", report(sequence, operation, func(r *linkv1.OperationReport) { r.Done, r.Error = true, failed })))
}

func (p *plane) snapshotOf(name string) (m *apiv1.Snapshot) {
	p.Helper()
	p.view(func(tx *state.Tx) { m = get(p, tx.Snapshots, "s-"+name) })
	return m
}

func TestAVMIsResizedUnderANewGenerationAndHasItsErrandWhileThatGoesOn(t *testing.T) {
	p := inUse(t)
	before := p.vm(1).GetGeneration()
	p.accept(resize(1, resources(2, 192, 2), "op-2"))
	m := p.vm(1)
	if m.GetFlavor() != "s2" || m.GetSize().GetCores() != 2 || m.GetErrand().GetKind() != apiv1.VM_Errand_RESIZE || m.GetGeneration().GetIndex() <= before.GetIndex() {
		t.Fatalf("VM %v", m)
	}
	down := p.desired(before.GetIndex())
	if last := down[len(down)-1].GetVm(); last.GetErrand().GetKind() != apiv1.VM_Errand_RESIZE || last.GetSize().GetCores() != 2 || last.GetDesiredState() != apiv1.VM_RUNNING {
		t.Errorf("down goes %v", last)
	}
	for name, c := range map[string]*commandv1.Command{
		"another resize": resize(1, resources(1, 96, 2), "op-x"), "a stop": desire(1, apiv1.VM_STOPPED, "op-x"), "a snapshot": takeSnapshot(1, "a", "op-x"),
		"the trash": trash(1, "op-x", start.Add(time.Hour)),
	} {
		if why := p.refuse(problem.WrongState, c).GetDetail(); !strings.Contains(why, "resize of VM web-1 is under way") {
			t.Errorf("%s: %s", name, why)
		}
	}
	p.answers(1, apiv1.VM_RUNNING, resources(2, 192, 2))
	p.ends(2, "op-2", nil)
	m = p.vm(1)
	if !p.operation("op-2").GetDone() || m.GetErrand() != nil || m.GetSizeBefore() != nil || m.GetFlavor() != "s2" || m.GetSize().GetCores() != 2 {
		t.Errorf("afterwards: %v", m)
	}
	if down := p.desired(m.GetGeneration().GetIndex()); len(down) != 0 {
		t.Errorf("what is over goes down again: %v", down)
	}
}

// The zone's end of the operation and what it observes travel apart: either may come first, and may never come.
func TestAVMHasTheSizeThatItsZoneHasGivenIt(t *testing.T) {
	full := problem.New(problem.NoHostFits, "no room", "").Problem
	for name, c := range map[string]struct {
		actual *apiv1.Resources
		failed *apiv1.Problem
		flavor string
	}{
		"granted":                {resources(2, 192, 2), nil, "s2"},
		"refused":                {resources(1, 96, 1), full, "s1"},
		"granted, and failed":    {resources(2, 192, 2), full, "s2"},
		"granted, but timed out": {resources(2, 192, 2), problem.New(problem.Timeout, "late", "").Problem, "s2"},
	} {
		for order, run := range map[string]func(p *plane){
			"seen first":  func(p *plane) { p.answers(1, apiv1.VM_RUNNING, c.actual); p.ends(2, "op-2", c.failed) },
			"ended first": func(p *plane) { p.ends(2, "op-2", c.failed); p.answers(1, apiv1.VM_RUNNING, c.actual) },
			"overtaken": func(p *plane) {
				p.ends(2, "op-2", c.failed)
				if c.failed != nil {
					p.accept(desire(1, apiv1.VM_STOPPED, "op-3"))
				}
				p.answers(1, apiv1.VM_STOPPED, c.actual)
			},
		} {
			t.Run(name+", "+order, func(t *testing.T) {
				p := inUse(t)
				p.accept(resize(1, resources(2, 192, 2), "op-2"))
				run(p)
				if m := p.vm(1); !proto.Equal(m.GetSize(), c.actual) || m.GetFlavor() != c.flavor || m.GetErrand() != nil || m.GetSizeBefore() != nil {
					t.Errorf("VM %v", m)
				}
			})
		}
	}
}

func TestResizingRefusesWhatCannotBe(t *testing.T) {
	p := inUse(t)
	p.accept(createVM(2))
	moved := resize(1, resources(2, 192, 2), "op-x")
	moved.GetResizeVm().Reads = []*commandv1.Read{{Noun: &apiv1.Reference{Kind: "flavor", Id: "f-s2", Name: "s2"}, Revision: "7-1"}}
	unknown := resize(1, resources(2, 192, 2), "op-x")
	unknown.GetResizeVm().Flavor = "huge"
	p.refuse(problem.Invalid, resize(1, resources(2, 192, 0), "op-x"))
	p.refuse(problem.Invalid, resize(1, nil, "op-x"))
	p.refuse(problem.Conflict, moved)
	p.refuse(problem.NotFound, unknown)
	p.refuse(problem.NotFound, resize(9, resources(2, 192, 2), "op-x"))
	p.refuse(problem.WrongState, resize(2, resources(2, 192, 2), "op-x")) // it is being built
}

func TestASnapshotIsReadyOnceItsZoneHasIt(t *testing.T) {
	p := inUse(t)
	p.accept(takeSnapshot(1, "a", "op-2"))
	if s := p.snapshotOf("a"); s.GetState() != apiv1.Snapshot_PENDING || s.GetVm() != "web-1" || s.GetProjectId() != "p-shop" || s.GetZone() != "business" {
		t.Fatalf("snapshot %v", s)
	}
	if e := p.vm(1).GetErrand(); e.GetKind() != apiv1.VM_Errand_SNAPSHOT || e.GetSnapshotId() != "s-a" || e.GetSnapshot() != "a" {
		t.Errorf("errand %v", e)
	}
	p.refuse(problem.WrongState, restoreSnapshot("a", "op-x"))
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1), "a")
	p.ends(2, "op-2", nil)
	if s := p.snapshotOf("a"); s.GetState() != apiv1.Snapshot_READY || s.GetTakenAt() == nil || s.GetDiskGib() != 1 {
		t.Errorf("snapshot %v", s)
	}
	p.refuse(problem.NameTaken, func() *commandv1.Command {
		c := takeSnapshot(1, "a", "op-x")
		c.GetCreateSnapshot().Snapshot.Id = "s-other"
		return c
	}())

	p.accept(restoreSnapshot("a", "op-3"))
	if e := p.vm(1).GetErrand(); e.GetKind() != apiv1.VM_Errand_RESTORE || e.GetSnapshotId() != "s-a" {
		t.Errorf("errand %v", e)
	}
	p.refuse(problem.WrongState, deleteSnapshot("a", "op-x"))
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1), "a")
	p.ends(3, "op-3", nil)
	p.accept(deleteSnapshot("a", "op-4"))
	if s := p.snapshotOf("a"); s.GetState() != apiv1.Snapshot_DELETING {
		t.Errorf("snapshot %v", s)
	}
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1))
	p.ends(4, "op-4", nil)
	if s := p.snapshotOf("a"); s != nil || p.vm(1).GetErrand() != nil {
		t.Errorf("snapshot %v", s)
	}
}

func TestASnapshotThatFailedSaysWhyAndIsForgottenAtOnce(t *testing.T) {
	p := inUse(t)
	p.accept(takeSnapshot(1, "a", "op-2"))
	p.ends(2, "op-2", problem.New(problem.WrongState, "it is on", "").Problem)
	if s := p.snapshotOf("a"); s.GetState() != apiv1.Snapshot_ERROR || s.GetError().GetDetail() != "it is on" || p.vm(1).GetErrand() != nil {
		t.Errorf("snapshot %v", s)
	}
	if r := p.accept(deleteSnapshot("a", "op-3")); !r.GetOperation().GetDone() || p.snapshotOf("a") != nil {
		t.Errorf("deleting it: %v", r)
	}
	// It was taken all the same: its zone says so.
	p.accept(takeSnapshot(1, "b", "op-4"))
	p.accept(resolve("op-4", apiv1.ResolveOperationRequest_FAIL))
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1), "b")
	if s := p.snapshotOf("b"); s.GetState() != apiv1.Snapshot_READY || s.GetError() != nil {
		t.Errorf("snapshot %v", s)
	}
	p.accept(deleteSnapshot("b", "op-5"))
	p.ends(3, "op-5", problem.New(problem.Timeout, "late", "").Problem)
	if s := p.snapshotOf("b"); s.GetState() != apiv1.Snapshot_READY {
		t.Errorf("a snapshot that was not deleted is %v", s)
	}
	// One that the plane has forgotten is known again.
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1), "b", "c")
	if s := p.snapshotOf("c"); s.GetState() != apiv1.Snapshot_READY || s.GetVmId() != "vm-1" || s.GetName() != "c" {
		t.Errorf("what its zone has beside is %v", s)
	}
	p.accept(desire(1, apiv1.VM_DELETED, "op-6"))
	var at state.ObservedCursor
	p.view(func(tx *state.Tx) { at, _ = tx.ObservedCursor("z-business") })
	p.accept(observe("inc-1", at.Revision, at.Revision+1, tombstone(1)))
	if p.vm(1) != nil || p.snapshotOf("b") != nil || p.snapshotOf("c") != nil {
		t.Error("snapshots outlive the disk that they lie in")
	}
}

func TestAVMHasSoManySnapshotsAndNoMore(t *testing.T) {
	p := inUse(t)
	var names []string
	for i := range 8 {
		name := fmt.Sprint("n", i)
		names = append(names, name)
		p.accept(takeSnapshot(1, name, "op-"+name))
		p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1), names...)
		p.ends(uint64(i+2), "op-"+name, nil)
	}
	p.refuse(problem.QuotaExceeded, takeSnapshot(1, "n9", "op-9"))
}

func TestTheTrashKeepsAVMForItsTimeAndNothingElseIsDoneToIt(t *testing.T) {
	p := inUse(t)
	until := p.now.Add(time.Hour)
	p.refuse(problem.Invalid, trash(1, "op-x", p.now.Add(-time.Hour)))
	p.accept(trash(1, "op-2", until))
	if m := p.vm(1); m.GetDesiredState() != apiv1.VM_TRASHED || m.GetTrashedAt() == nil || !m.GetDeleteAt().AsTime().Equal(until) {
		t.Fatalf("VM %v", m)
	}
	p.answers(1, apiv1.VM_TRASHED, resources(1, 96, 1))
	p.ends(2, "op-2", nil)
	for name, c := range map[string]*commandv1.Command{
		"a start": desire(1, apiv1.VM_RUNNING, "op-x"), "a stop": desire(1, apiv1.VM_STOPPED, "op-x"), "a resize": resize(1, resources(2, 192, 2), "op-x"),
		"a snapshot": takeSnapshot(1, "a", "op-x"),
	} {
		if why := p.refuse(problem.WrongState, c).GetDetail(); !strings.Contains(why, "in the trash") {
			t.Errorf("%s: %s", name, why)
		}
	}
	empty := &commandv1.Command{Body: &commandv1.Command_EmptyTrash{EmptyTrash: &commandv1.EmptyTrash{VmIds: []string{"vm-1", "vm-9"}, Deadline: soon}}}
	p.accept(empty)
	if m := p.vm(1); m.GetDesiredState() != apiv1.VM_TRASHED {
		t.Fatalf("before its time it is %v", m)
	}
	out := desire(1, apiv1.VM_STOPPED, "op-3")
	out.GetSetVmDesired().Untrash = true
	p.accept(out)
	if m := p.vm(1); m.GetDesiredState() != apiv1.VM_STOPPED || m.GetTrashedAt() != nil || m.GetDeleteAt() != nil {
		t.Errorf("out of the trash it is %v", m)
	}
	p.answers(1, apiv1.VM_STOPPED, resources(1, 96, 1))
	p.ends(3, "op-3", nil)
	again := proto.CloneOf(out)
	again.GetSetVmDesired().OperationId = "op-x"
	p.refuse(problem.WrongState, again)

	p.accept(trash(1, "op-4", p.now.Add(time.Minute)))
	p.now = p.now.Add(2 * time.Minute)
	var due []string
	p.view(func(tx *state.Tx) { due, _ = tx.DueTrash(p.now.UnixMicro(), 10) })
	if len(due) != 1 || due[0] != "vm-1" {
		t.Errorf("due is %v", due)
	}
	p.accept(empty)
	if m := p.vm(1); m.GetDesiredState() != apiv1.VM_DELETED || m.GetDeleteAt() != nil {
		t.Errorf("after its time it is %v", m)
	}
	if op := p.operation(p.vm(1).GetOperation()); op.GetKind() != "vm.delete" || op.GetDone() {
		t.Errorf("operation %v", op)
	}
}

// reserveGrowth asks that VM n may grow from one core, 96 MiB and a GiB to twice as much.
func reserveGrowth(id string, n int, size *apiv1.Resources) *commandv1.Command {
	c := reserve(id, 1, start.Add(time.Hour))
	m := c.GetCreateReservation().GetReservation()
	m.Vm, m.VmId, m.Size = fmt.Sprintf("web-%d", n), fmt.Sprintf("vm-%d", n), size
	return c
}

func TestAVMGrowsOnceIntoTheReservationThatIsForItAndOfItsSize(t *testing.T) {
	p := inUse(t)
	p.accept(createVM(2))
	p.refuse(problem.NotFound, reserveGrowth("none", 9, resources(1, 96, 1)))
	two := reserveGrowth("two", 1, resources(1, 96, 1))
	two.GetCreateReservation().GetReservation().Quantity = 2
	p.refuse(problem.Invalid, two)
	for id, c := range map[string]*commandv1.Command{
		"its-own": reserveGrowth("its-own", 1, resources(1, 96, 1)), "smaller": reserveGrowth("smaller", 1, resources(1, 95, 1)),
		"larger": reserveGrowth("larger", 1, resources(2, 96, 1)), "theirs": reserveGrowth("theirs", 2, resources(1, 96, 1)), "new": reserve("new", 1, start.Add(time.Hour)),
	} {
		p.accept(c)
		p.holds(id, apiv1.Reservation_HELD, 1)
	}
	if e := p.events(); e["reservation.held"] != 5 {
		t.Errorf("told of %v", e)
	}
	grow := func(reservation, operation string) *commandv1.Command {
		c := resize(1, resources(2, 192, 2), operation)
		c.GetResizeVm().Reservation = reservation
		return c
	}
	for _, other := range []string{"smaller", "larger", "theirs", "new"} {
		p.refuse(problem.WrongState, grow(other, "op-"+other))
	}
	p.refuse(problem.NotFound, grow("none", "op-none"))
	p.refuse(problem.WrongState, createIn(3, "its-own")) // no VM is made in it
	p.accept(grow("its-own", "op-grow"))
	if vm := p.vm(1); vm.GetErrand().GetReservation() != "its-own" || p.reservation("its-own").GetGiven() != 1 {
		t.Fatalf("it is wished %v, of %v", vm.GetErrand(), p.reservation("its-own"))
	}
	p.answers(1, apiv1.VM_RUNNING, resources(2, 192, 2))
	p.ends(2, "op-grow", nil)
	if m := p.reservation("its-own"); m.GetDesiredState() != apiv1.Reservation_RELEASED {
		t.Errorf("its zone keeps it on: %v", m)
	}
	p.refuse(problem.WrongState, grow("its-own", "op-again"))
}
