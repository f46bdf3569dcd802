package fsm_test

import (
	"errors"
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

// restored begins the epoch after a restore, with furniture and web-1 in the backup. What the zone has made since then in
// the epoch before is forgotten here.
func restored(t tb) *plane {
	p := furnished(t)
	p.accept(createVM(1))
	known := seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)
	known.GetVm().Address = "10.0.0.7"
	p.accept(fullSync(true, "inc-1", 0, 5, known))
	p.accept(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: 9, EpochId: make([]byte, 16), Reason: "restored"}}})
	return p
}

func createProject(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateProject{CreateProject: &commandv1.CreateProject{
		Project: &apiv1.Project{Id: "p-" + name, Name: name, Organization: "home", OrganizationId: "o-home"}}}}
}

// forgotten is a VM as its zone reports it whole, made after the backup in the epoch before.
func forgotten(n int, change ...func(*apiv1.VM)) *linkv1.Object {
	m := web(n)
	m.State, m.Power, m.Operation = apiv1.VM_RUNNING, apiv1.VM_ON, "op-lost"
	m.Generation = &apiv1.Generation{Epoch: 7, Index: 1000 + uint64(n)}
	for _, c := range change {
		c(m)
	}
	return &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Vm{Vm: m}}
}

func TestP24InANewEpochAZoneFirstReportsAllThatItHas(t *testing.T) {
	p := restored(t)
	if inc, rev := p.point(); inc != "inc-1" || rev != 0 {
		t.Errorf("the zone goes on from %s %d", inc, rev)
	}
	p.refuse(problem.Conflict, observe("inc-1", 5, 6))
	p.accept(fullSync(true, "inc-1", 0, 6))
	if m := p.vm(1); m.GetPower() != apiv1.VM_UNKNOWN || m.GetDesiredState() != apiv1.VM_RUNNING || p.events()["zone.vms-absent"] != 1 {
		t.Errorf("the zone has it no more, which is no instruction: %v, events %v", m, p.events())
	}
}

func TestP24AVMThatIsGoneSinceTheBackupHasNoAddressAnyMore(t *testing.T) {
	for name, reported := range map[string][]*linkv1.Object{"the zone says so": {tombstone(1)}, "the zone does not name it": nil} {
		p := restored(t)
		if p.vm(1).GetAddress() == "" {
			t.Fatalf("the backup has %v", p.vm(1))
		}
		p.accept(fullSync(true, "inc-1", 0, 6, reported...))
		if m := p.vm(1); m.GetAddress() != "" {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func TestP24AVMThatThePlaneHasForgottenIsAdoptedWhole(t *testing.T) {
	p := restored(t)
	p.accept(fullSync(true, "inc-1", 0, 6, seen(1, apiv1.VM_RUNNING, apiv1.VM_ON), forgotten(2, func(m *apiv1.VM) {
		m.Zone, m.ZoneId, m.Project, m.State, m.Power = "lies", "z-lies", "lies", apiv1.VM_STOPPED, apiv1.VM_OFF
	})))
	m := p.vm(2)
	if m.GetName() != "web-2" || m.GetZoneId() != "z-business" || m.GetZone() != "business" || m.GetProject() != "shop" || m.GetFlavor() != "s1" ||
		m.GetSize().GetCores() != 1 || m.GetDesiredState() != apiv1.VM_STOPPED || m.GetGeneration().GetEpoch() != 9 || m.GetOperation() != "" {
		t.Errorf("adopted is %v", m)
	}
	if n := p.events()["vm.adopted"]; n != 1 {
		t.Errorf("%d events", n)
	}
	p.accept(desire(2, apiv1.VM_RUNNING, "op-start"))
	down := false
	for _, o := range p.desired(0) {
		down = down || o.GetVm().GetId() == "vm-2" && o.GetVm().GetSize() != nil
	}
	if !down {
		t.Error("it does not go down to its zone")
	}
}

func TestAnAdoptedVMGetsAnotherNameWhereItsOwnIsTaken(t *testing.T) {
	long := strings.Repeat("l", 63)
	for name, want := range map[string]string{"web-1": "web-1-2", long: strings.Repeat("l", 61) + "-2"} {
		p := restored(t)
		p.accept(createVM(3))
		p.accept(fullSync(true, "inc-1", 0, 6, forgotten(4, func(m *apiv1.VM) { m.Name = long }), forgotten(2, func(m *apiv1.VM) { m.Name = name })))
		if got := p.vm(2).GetName(); got != want {
			t.Errorf("%s is called %s, want %s", name, got, want)
		}
		told := false
		p.view(func(tx *state.Tx) {
			for m, err := range tx.Events.All(nil) {
				told = told || err == nil && m.GetTarget().GetId() == "vm-2" && strings.Contains(m.GetMessage(), name+"\" is another VM's now")
			}
		})
		if !told {
			t.Errorf("no event says why %s has another name", name)
		}
	}
}

// P15: a zone's word does not put a VM where none of its VMs was.
func TestAVMIsHeldThatIsNotTakenAtItsZonesWord(t *testing.T) {
	for why, c := range map[string]struct {
		report *linkv1.Object
		before []*commandv1.Command
	}{
		"reports it only in part":         {report: seen(2, apiv1.VM_RUNNING, apiv1.VM_ON)},
		"does not exist":                  {report: forgotten(2, func(m *apiv1.VM) { m.Project, m.ProjectId = "gone", "p-gone" })},
		"no VM in the zone is known here": {report: forgotten(2, func(m *apiv1.VM) { m.Project, m.ProjectId = "other", "p-other" }), before: []*commandv1.Command{createProject("other")}},
		"which is another zone's": {report: forgotten(2, func(m *apiv1.VM) { m.ClusterId = "c-far" }), before: []*commandv1.Command{createZone("internet"),
			{Body: &commandv1.Command_CreateCluster{CreateCluster: &commandv1.CreateCluster{Cluster: &apiv1.Cluster{
				Id: "c-far", Name: "far", Zone: "internet", ZoneId: "z-internet", Purpose: "WEB", Hypervisor: "sim"}}}}}},
		"not among what a restored backup has forgotten": {report: forgotten(2, func(m *apiv1.VM) { m.Generation.Index = 1 })},
	} {
		p := restored(t)
		for _, b := range c.before {
			p.accept(b)
		}
		p.accept(fullSync(true, "inc-1", 0, 6, c.report))
		p.accept(observe("inc-1", 6, 7, c.report))
		m := p.vm(2)
		if m.GetName() != "vm-2" || m.GetProjectId() != "" || m.GetGeneration() != nil || m.GetState() != apiv1.VM_RUNNING {
			t.Errorf("%s: held is %v", why, m)
		}
		told := 0
		p.view(func(tx *state.Tx) {
			for e, err := range tx.Events.All(nil) {
				if err == nil && e.GetType() == "vm.held" && strings.Contains(e.GetMessage(), why) {
					told++
				}
			}
		})
		if told != 1 {
			t.Errorf("%s: told %d times, events %v", why, told, p.events())
		}
		for _, o := range p.desired(0) {
			if o.GetVm().GetId() == "vm-2" {
				t.Errorf("%s: it goes down: %v", why, o)
			}
		}
		if r := p.refuse(problem.WrongState, desire(2, apiv1.VM_STOPPED, "op-stop")); !strings.Contains(r.GetNext(), "naru vm delete vm-2") || !strings.Contains(r.GetNext(), "type=vm.held AND target_id=vm-2") {
			t.Errorf("%s: who stops it is told to do next: %s", why, r.GetNext())
		}
		p.accept(desire(2, apiv1.VM_DELETED, "op-delete"))
		p.accept(observe("inc-1", 7, 8, forgotten(2)))
		if m := p.vm(2); m.GetDesiredState() != apiv1.VM_DELETED || m.GetProjectId() != "" {
			t.Errorf("%s: it is being deleted: %v", why, m)
		}
	}
}

func TestAHeldVMGoesWhenTheZoneOnWhoseWordItIsHeldTakesThatBack(t *testing.T) {
	p := restored(t)
	p.accept(fullSync(true, "inc-1", 0, 6, seen(2, apiv1.VM_RUNNING, apiv1.VM_ON)))
	p.accept(observe("inc-1", 6, 7, tombstone(2)))
	p.view(func(tx *state.Tx) {
		if m, err := tx.VMs.Get("vm-2"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("held is %v, %v", m, err)
		}
	})
	if e := p.events(); e["vm.held"] != 1 || e["vm.deleted"] != 1 || e["vm.missing"] != 0 {
		t.Errorf("events %v", e)
	}
}

func TestAHeldVMIsAdoptedOnceItsProjectHasVMsInTheZone(t *testing.T) {
	p := restored(t)
	p.accept(createProject("other"))
	theirs := func(m *apiv1.VM) { m.Project, m.ProjectId = "other", "p-other" }
	p.accept(fullSync(true, "inc-1", 0, 6, forgotten(2, theirs)))
	c := createVM(3)
	theirs(c.GetCreateVm().GetVm())
	p.accept(c)
	p.refuse(problem.Conflict, observe("inc-1", 6, 7)) // it is asked for all that it has, so that nobody waits until something happens to the VM
	p.accept(fullSync(true, "inc-1", 0, 7, forgotten(2, theirs)))
	if m := p.vm(2); m.GetName() != "web-2" || m.GetProjectId() != "p-other" || p.events()["vm.adopted"] != 1 {
		t.Errorf("the VM is %v, events %v", m, p.events())
	}
}

// P15: in a federation that was never restored there is nothing that a zone could know better.
func TestWithoutARestoreNothingIsAdopted(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(fullSync(true, "inc-1", 0, 5, forgotten(2, func(m *apiv1.VM) { m.Generation = &apiv1.Generation{Epoch: 6, Index: 1 << 40} })))
	if m := p.vm(2); m.GetProjectId() != "" || p.events()["vm.held"] != 1 {
		t.Errorf("the VM is %v, events %v", m, p.events())
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
	p.refuse(problem.Contradiction, acknowledge(7, 1000))
	p.accept(acknowledge(7, 5))
	p.accept(acknowledge(7, 3)) // late
	p.view(func(tx *state.Tx) {
		if point, err := tx.DesiredPoint("z-business"); err != nil || point.GetIndex() != 5 || point.GetEpoch() != 7 {
			t.Errorf("the point is %v, %v", point, err)
		}
	})
}

// P24: what was deleted after the backup is not made anew from it, with an empty disk; nothing goes down before that is known.
func TestP24AfterARestoreNothingIsMadeAnew(t *testing.T) {
	for what, report := range map[string][]*linkv1.Object{"absent": nil, "reported gone": {tombstone(1)}} {
		p := restored(t)
		awaits := func() (awaits bool) {
			p.view(func(tx *state.Tx) { awaits = tx.AwaitsReport(get(p, tx.Zones, "z-business")) })
			return awaits
		}
		goesDown := func() bool {
			for _, o := range p.desired(0) {
				if o.GetVm().GetId() == "vm-1" {
					return true
				}
			}
			return false
		}
		if !awaits() {
			t.Fatalf("%s: wishes go down before the zone has reported", what)
		}
		p.accept(fullSync(false, "inc-1", 0, 5, report...))
		if !awaits() {
			t.Fatalf("%s: half a report is taken for the whole", what)
		}
		p.accept(fullSync(true, "inc-1", 5, 6))
		if awaits() || goesDown() {
			t.Errorf("%s: awaited %v, goes down %v", what, awaits(), goesDown())
		}
		if m := p.vm(1); m.GetDesiredState() != apiv1.VM_RUNNING || p.events()["zone.vms-absent"]+p.events()["vm.missing"] == 0 {
			t.Errorf("%s: the VM is %v, events %v", what, m, p.events())
		}
		// What somebody wishes goes down.
		p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
		if !goesDown() {
			t.Errorf("%s: a wish does not go down", what)
		}
	}
}

func TestAZoneThatIsMadeAfterARestoreIsNotWaitedFor(t *testing.T) {
	p := restored(t)
	p.accept(createZone("internet"))
	p.view(func(tx *state.Tx) {
		if tx.AwaitsReport(get(p, tx.Zones, "z-internet")) {
			t.Error("it has nothing to report")
		}
	})
}

// What an absent VM's zone reports of it later is taken for what is wanted, as of any that was changed after the backup.
func TestAVMThatWasAbsentAndComesBackIsFollowed(t *testing.T) {
	p := restored(t)
	p.accept(fullSync(true, "inc-1", 0, 6))
	p.accept(observe("inc-1", 6, 7, seen(1, apiv1.VM_STOPPED, apiv1.VM_OFF)))
	if m := p.vm(1); m.GetGeneration().GetEpoch() != 9 || m.GetDesiredState() != apiv1.VM_STOPPED {
		t.Errorf("the VM is %v", m)
	}
}

// The first commands after the restored backup were of the old epoch's future, and of this server's own start.
func TestP24WhatIsYoungerThanTheBackupIsForgottenWhateverCameBeforeTheEpoch(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	var backup uint64
	p.view(func(tx *state.Tx) { backup = tx.Meta().Revision })
	p.accept(&commandv1.Command{Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
	p.accept(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{
		Epoch: 9, EpochId: make([]byte, 16), Reason: "restored", RestoredRevision: backup}}})
	p.accept(fullSync(true, "inc-1", 0, 6, seen(1, apiv1.VM_RUNNING, apiv1.VM_ON),
		forgotten(2, func(m *apiv1.VM) { m.Generation.Index = backup + 1 })))
	if m := p.vm(2); m.GetName() != "web-2" || p.events()["vm.adopted"] != 1 {
		t.Errorf("the VM is %v, events %v", m, p.events())
	}
}
