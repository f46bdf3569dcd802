package fsm_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func hostSeen(id string, health apiv1.Host_Health) *linkv1.Object {
	return &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Host{Host: &apiv1.Host{Id: id, Health: health, Freshness: apiv1.Freshness_LIVE}}}
}

func (p *plane) point() (incarnation string, revision uint64) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if incarnation, revision, err = tx.ObservedPoint("z-business"); err != nil {
			p.Fatal(err)
		}
	})
	return incarnation, revision
}

func TestWhatAZoneObservesIsTakenOverAndNothingElse(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	report := seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)
	report.GetVm().Name, report.GetVm().DesiredState, report.GetVm().Project = "hijacked", apiv1.VM_DELETED, "theirs"
	p.accept(fullSync(true, "inc-1", 0, 9, report, hostSeen("h-1", apiv1.Host_AVAILABLE)))
	m := p.vm(1)
	if m.GetState() != apiv1.VM_RUNNING || m.GetPower() != apiv1.VM_ON || m.GetHost() != "kvm-1" {
		t.Errorf("observed fields are %v", m)
	}
	if m.GetName() != "web-1" || m.GetDesiredState() != apiv1.VM_RUNNING || m.GetProject() != "shop" || m.GetOperation() != "op-create-1" {
		t.Errorf("a zone wrote what is not its own: %v", m)
	}
	// The same again writes nothing.
	p.accept(observe("inc-1", 9, 10, report))
	if again := p.vm(1); again.GetRevision() != m.GetRevision() {
		t.Errorf("revision went from %s to %s though nothing changed", m.GetRevision(), again.GetRevision())
	}
	if inc, rev := p.point(); inc != "inc-1" || rev != 10 {
		t.Errorf("the point is %s %d", inc, rev)
	}
	// What is observed does not go down again.
	for _, o := range p.desired(m.GetGeneration().GetIndex()) {
		t.Errorf("down goes %v", o)
	}
}

func TestAChunkHasToFollowWhatIsKnown(t *testing.T) {
	p := furnished(t)
	p.refuse(problem.Conflict, observe("inc-1", 5, 6)) // nothing is known, and it is no full sync
	p.accept(fullSync(false, "inc-1", 0, 5))
	if inc, rev := p.point(); inc != "inc-1" || rev != 0 {
		t.Errorf("in the middle of a full sync the point is %s %d, and a cut one begins anew at 0", inc, rev)
	}
	p.accept(fullSync(true, "inc-1", 5, 8))
	for _, c := range []*commandv1.Command{
		observe("inc-1", 5, 9), observe("inc-1", 9, 10), observe("inc-2", 8, 9), fullSync(true, "inc-1", 8, 9), observe("", 8, 9),
		observe("inc-1", 8, 7), observe("inc-1", 8, 1<<63),
	} {
		if r := p.apply(c); r.GetProblem() == nil {
			t.Errorf("%v was accepted", c)
		}
	}
	p.accept(observe("inc-1", 8, 9))
	p.accept(fullSync(true, "inc-2", 0, 3)) // a new life begins with a full sync
	if inc, rev := p.point(); inc != "inc-2" || rev != 3 || p.zone().GetIncarnation() != "inc-2" || p.events()["zone.incarnation"] != 1 {
		t.Errorf("the point is %s %d, zone %v", inc, rev, p.zone())
	}
}

func TestP4AbsenceIsNeverAnInstruction(t *testing.T) {
	p := furnished(t)
	for n := 1; n <= 4; n++ {
		p.accept(createVM(n))
	}
	running := func(n int) *linkv1.Object { return seen(n, apiv1.VM_RUNNING, apiv1.VM_ON) }
	p.accept(fullSync(true, "inc-1", 0, 5, running(1), running(2), running(3))) // 4 is not there yet
	if p.vm(4).GetPower() != 0 || p.events()["zone.vms-absent"] != 0 {
		t.Errorf("a VM that was never reported is %v", p.vm(4))
	}
	p.accept(fullSync(false, "inc-2", 0, 2, running(1)))
	p.accept(fullSync(true, "inc-2", 2, 3, running(4)))
	for n := 1; n <= 4; n++ {
		m := p.vm(n)
		absent := n == 2 || n == 3
		if m == nil || m.GetState() != apiv1.VM_RUNNING || m.GetDesiredState() != apiv1.VM_RUNNING {
			t.Fatalf("VM %d is %v", n, m)
		}
		if got := m.GetPower() == apiv1.VM_UNKNOWN && m.GetHostFreshness() == apiv1.Freshness_UNREACHABLE; got != absent {
			t.Errorf("VM %d: absent %v, power %v", n, absent, m.GetPower())
		}
	}
	if n := p.events()["zone.vms-absent"]; n != 1 {
		t.Errorf("%d events of absent VMs, want one for the sync", n)
	}
	p.accept(fullSync(true, "inc-2", 0, 4, running(1), running(4))) // still absent: nothing new
	if n := p.events()["zone.vms-absent"]; n != 1 {
		t.Errorf("%d events after the second sync", n)
	}
	p.accept(observe("inc-2", 4, 5, running(2)))
	if m := p.vm(2); m.GetPower() != apiv1.VM_ON || m.GetHostFreshness() != apiv1.Freshness_LIVE {
		t.Errorf("a VM that is back is %v", m)
	}
}

func TestASyncThatWasCutOffMarksNothing(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(fullSync(true, "inc-1", 0, 5, seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)))
	p.accept(fullSync(false, "inc-1", 0, 2))
	p.accept(fullSync(false, "inc-1", 0, 2)) // began anew
	p.accept(fullSync(true, "inc-1", 2, 6, seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)))
	if m := p.vm(1); m.GetPower() != apiv1.VM_ON {
		t.Errorf("the VM is %v", m)
	}
}

func TestATombstoneForAVMThatIsWantedMeansMissing(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(fullSync(true, "inc-1", 0, 5, seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)))
	p.accept(observe("inc-1", 5, 6, tombstone(1), tombstone(77)))
	p.accept(observe("inc-1", 6, 7, tombstone(1)))
	m := p.vm(1)
	if m == nil || m.GetPower() != apiv1.VM_MISSING || m.GetState() != apiv1.VM_RUNNING || m.GetDesiredState() != apiv1.VM_RUNNING {
		t.Errorf("the VM is %v", m)
	}
	if n := p.events()["vm.missing"]; n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestAVMObservedDeletedIsGoneByDecisionOnly(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(createVM(2))
	p.accept(desire(1, apiv1.VM_DELETED, "op-d"))
	p.accept(fullSync(true, "inc-1", 0, 5, seen(1, apiv1.VM_DELETED, apiv1.VM_MISSING), seen(2, apiv1.VM_DELETED, apiv1.VM_MISSING)))
	if p.vm(1) != nil || p.vm(2).GetPower() != apiv1.VM_MISSING || p.vm(2).GetState() != apiv1.VM_PENDING {
		t.Errorf("VM 1 is %v, VM 2 is %v", p.vm(1), p.vm(2))
	}
}

func TestAVMThatThePlaneDoesNotKnowIsAdopted(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	full := web(2)
	full.Zone, full.ZoneId, full.State, full.Power, full.Generation = "lies", "z-lies", apiv1.VM_STOPPED, apiv1.VM_OFF, &apiv1.Generation{Epoch: 3, Index: 3}
	twin := web(3)
	twin.Name, twin.State = "web-1", apiv1.VM_RUNNING
	p.accept(fullSync(true, "inc-1", 0, 5,
		&linkv1.Object{Noun: &linkv1.Object_Vm{Vm: full}}, &linkv1.Object{Noun: &linkv1.Object_Vm{Vm: twin}}, seen(4, apiv1.VM_RUNNING, apiv1.VM_ON)))
	m := p.vm(2)
	if m.GetZoneId() != "z-business" || m.GetDesiredState() != apiv1.VM_STOPPED || m.GetGeneration().GetEpoch() != 7 || m.GetFlavor() != "s1" {
		t.Errorf("adopted is %v", m)
	}
	if got := p.vm(3).GetName(); got != "web-1-vm-3" {
		t.Errorf("the twin is called %q", got)
	}
	if n := p.events()["vm.adopted"]; n != 3 {
		t.Errorf("%d events", n)
	}
	// Known only in part, it is shown and left alone; a whole report makes it one of ours.
	if p.vm(4).GetGeneration() != nil {
		t.Errorf("a VM that is known in part has a generation: %v", p.vm(4))
	}
	p.refuse(problem.WrongState, desire(4, apiv1.VM_STOPPED, "op-x"))
	whole := web(4)
	whole.State = apiv1.VM_RUNNING
	p.accept(observe("inc-1", 5, 6, &linkv1.Object{Noun: &linkv1.Object_Vm{Vm: whole}}))
	p.accept(desire(4, apiv1.VM_STOPPED, "op-x"))
	for _, o := range p.desired(0) {
		if v := o.GetVm(); v != nil && (v.GetImageSha256() == "" || v.GetSize() == nil) {
			t.Errorf("a VM goes down that is not whole: %v", v)
		}
	}
}

func TestP24AfterARestoreThePlaneFollowsWhatItHasForgotten(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	known := p.vm(1).GetGeneration()
	p.accept(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: 9, EpochId: make([]byte, 16), Reason: "restored"}}})
	report := seen(1, apiv1.VM_STOPPED, apiv1.VM_OFF)
	report.GetVm().Reached = &apiv1.Generation{Epoch: 7, Index: known.GetIndex() + 40} // stopped after the backup
	p.accept(fullSync(true, "inc-1", 0, 5, report))
	m := p.vm(1)
	if m.GetDesiredState() != apiv1.VM_STOPPED || m.GetGeneration().GetEpoch() != 9 || p.events()["vm.followed"] != 1 {
		t.Errorf("the VM is %v, events %v", m, p.events())
	}
	p.accept(observe("inc-1", 5, 6, report))
	if p.vm(1).GetRevision() != m.GetRevision() {
		t.Error("it is followed twice")
	}
}

func TestP15AZoneCannotReportOnAnothersNouns(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(desire(1, apiv1.VM_DELETED, "op-d"))
	p.accept(createZone("internet"))
	before := p.vm(1)
	c := fullSync(true, "inc-x", 0, 5, seen(1, apiv1.VM_ERROR, apiv1.VM_MISSING), tombstone(1), hostSeen("h-1", apiv1.Host_DOWN),
		&linkv1.Object{Noun: &linkv1.Object_Zone{Zone: &apiv1.Zone{Id: "z-business"}}}, &linkv1.Object{})
	c.GetObserve().ZoneId = "z-internet"
	p.accept(c)
	if after := p.vm(1); !proto.Equal(before, after) {
		t.Errorf("another zone changed the VM to %v", after)
	}
	if n := p.events()["zone.report-refused"]; n != 1 {
		t.Errorf("%d events", n)
	}
	p.view(func(tx *state.Tx) {
		if h := get(t, tx.Hosts, "h-1"); h.GetHealth() != 0 {
			t.Errorf("another zone changed the host to %v", h)
		}
		for m, err := range tx.Events.All(nil) {
			if err == nil && m.GetType() == "zone.report-refused" && !strings.Contains(m.GetMessage(), "5 objects") {
				t.Errorf("the event says %q", m.GetMessage())
			}
		}
	})
}

func TestAZoneIsDegradedWhileAnAgentIsNotAlive(t *testing.T) {
	p := furnished(t)
	p.accept(session(1, true))
	agents := func(alive bool) *linkv1.Object {
		return &linkv1.Object{Noun: &linkv1.Object_Zone{Zone: &apiv1.Zone{Id: "z-business", Agents: []*apiv1.Agent{{Name: "a", Alive: true}, {Name: "b", Alive: alive}}}}}
	}
	p.accept(fullSync(true, "inc-1", 0, 1, agents(false)))
	if z := p.zone(); z.GetState() != apiv1.Zone_DEGRADED || !strings.Contains(z.GetStateReason(), "agent b") {
		t.Errorf("zone %v", z)
	}
	p.accept(observe("inc-1", 1, 2, agents(true)))
	if z := p.zone(); z.GetState() != apiv1.Zone_ONLINE || z.GetStateReason() != "" {
		t.Errorf("zone %v", z)
	}
}

func TestOnlyWhatIsThereCanBeAcknowledged(t *testing.T) {
	p := furnished(t)
	p.refuse(problem.Conflict, acknowledge(6, 1))
	p.refuse(problem.Conflict, acknowledge(7, 1000))
	p.accept(acknowledge(7, 5))
	p.accept(acknowledge(7, 3)) // late
	p.view(func(tx *state.Tx) {
		if point, err := tx.DesiredPoint("z-business"); err != nil || point.GetIndex() != 5 || point.GetEpoch() != 7 {
			t.Errorf("the point is %v, %v", point, err)
		}
	})
}
