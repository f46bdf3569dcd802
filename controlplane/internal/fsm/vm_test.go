package fsm_test

import (
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

func TestACreatedVMIsWantedRunningAndGoesDownToItsZone(t *testing.T) {
	p := furnished(t)
	in := createVM(1)
	in.GetCreateVm().GetVm().Power = apiv1.VM_ON // what only a zone may say
	r := p.accept(in)
	if op := r.GetOperation(); op.GetKind() != "vm.create" || op.GetDone() || op.GetTarget().GetName() != "web-1" ||
		op.GetCreatedBy() != "spiffe://example.test/admin/ann" || op.GetSteps()[0].GetName() != "accepted" {
		t.Errorf("operation %v", op)
	}
	m := p.vm(1)
	if m.GetState() != apiv1.VM_PENDING || m.GetDesiredState() != apiv1.VM_RUNNING || m.GetPower() != 0 {
		t.Errorf("VM %v", m)
	}
	if !proto.Equal(p.operation("op-create-1"), r.GetOperation()) {
		t.Error("the operation is not stored as answered")
	}
	noun := &apiv1.VM{}
	if err := proto.Unmarshal(r.GetNoun(), noun); err != nil || noun.GetRevision() != m.GetRevision() {
		t.Errorf("the answer's noun is %v, %v", noun, err)
	}
	objects := p.desired(0)
	last := objects[len(objects)-1]
	if last.GetVm().GetId() != "vm-1" || last.GetVm().GetState() != 0 || last.GetRevision() != m.GetGeneration().GetIndex() {
		t.Errorf("last object is %v", last)
	}
	if g := last.GetVm().GetGeneration(); g.GetEpoch() != 7 || state.RevisionText(g.GetEpoch(), g.GetIndex()) != m.GetRevision() {
		t.Errorf("generation %v at revision %s", g, m.GetRevision())
	}
}

func TestCreateVMRefusesWhatCannotBe(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	for name, c := range map[string]struct {
		code   problem.Code
		change func(*commandv1.CreateVM)
		says   string
	}{
		"a name that is taken":       {problem.NameTaken, func(c *commandv1.CreateVM) { c.Vm.Name = "web-1" }, "web-1"},
		"an id that is taken":        {problem.Conflict, func(c *commandv1.CreateVM) { c.Vm.Id = "vm-1" }, "vm-1"},
		"an operation that is taken": {problem.Conflict, func(c *commandv1.CreateVM) { c.OperationId = "op-create-1" }, "op-create-1"},
		"no VM":                      {problem.Invalid, func(c *commandv1.CreateVM) { c.Vm = nil }, ""},
		"no size":                    {problem.Invalid, func(c *commandv1.CreateVM) { c.Vm.Size = nil }, "size"},
		"no operation":               {problem.Invalid, func(c *commandv1.CreateVM) { c.OperationId = "" }, ""},
		"an unknown project":         {problem.NotFound, func(c *commandv1.CreateVM) { c.Vm.Project, c.Vm.ProjectId = "x", "p-x" }, "project x"},
		"another project's name":     {problem.Invalid, func(c *commandv1.CreateVM) { c.Vm.Project = "x" }, "p-shop"},
		"an unknown zone":            {problem.NotFound, func(c *commandv1.CreateVM) { c.Vm.Zone, c.Vm.ZoneId = "x", "z-x" }, "zone x"},
		"an unknown cluster":         {problem.NotFound, func(c *commandv1.CreateVM) { c.Vm.Cluster, c.Vm.ClusterId = "x", "c-x" }, "cluster x"},
		"an unknown flavor":          {problem.NotFound, func(c *commandv1.CreateVM) { c.Vm.Flavor = "huge" }, "flavor huge"},
		"an unknown image":           {problem.NotFound, func(c *commandv1.CreateVM) { c.Vm.Image = "beos" }, "image beos"},
		"a read of an unknown kind":  {problem.Invalid, func(c *commandv1.CreateVM) { c.Reads = []*commandv1.Read{{Noun: &apiv1.Reference{Kind: "moon"}}} }, "moon"},
		"a read of something gone": {problem.Conflict, func(c *commandv1.CreateVM) {
			c.Reads = []*commandv1.Read{{Noun: &apiv1.Reference{Kind: "flavor", Id: "f-x", Name: "s9"}, Revision: "7-2"}}
		}, "flavor s9"},
		"a read that has moved on since": {problem.Conflict, func(c *commandv1.CreateVM) {
			c.Reads = []*commandv1.Read{{Noun: &apiv1.Reference{Kind: "zone", Id: "z-business", Name: "business"}, Revision: "7-1"}}
		}, "zone business"},
	} {
		t.Run(name, func(t *testing.T) {
			in := createVM(2)
			c.change(in.GetCreateVm())
			if got := p.refuse(c.code, in); !strings.Contains(got.GetDetail(), c.says) {
				t.Errorf("%q does not name %q", got.GetDetail(), c.says)
			}
			if p.vm(2) != nil {
				t.Error("a refused VM exists")
			}
		})
	}
	in := createVM(2)
	in.GetCreateVm().Reads = []*commandv1.Read{{Noun: &apiv1.Reference{Kind: "zone", Id: "z-business", Name: "business"}, Revision: p.zone().GetRevision()}}
	p.accept(in)
}

func TestWhatIsWantedOfAVMGetsANewGenerationAndAnOperation(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	before := p.vm(1)
	r := p.accept(desire(1, apiv1.VM_STOPPED, "op-stop"))
	m := p.vm(1)
	if m.GetDesiredState() != apiv1.VM_STOPPED || m.GetOperation() != "op-stop" || m.GetGeneration().GetIndex() <= before.GetGeneration().GetIndex() {
		t.Errorf("VM %v", m)
	}
	if r.GetOperation().GetKind() != "vm.set" || m.GetState() != apiv1.VM_PENDING {
		t.Errorf("operation %v, state %v", r.GetOperation(), m.GetState())
	}
	if objects := p.desired(before.GetGeneration().GetIndex()); len(objects) != 1 || objects[0].GetVm().GetDesiredState() != apiv1.VM_STOPPED {
		t.Errorf("down goes %v", objects)
	}
	p.refuse(problem.Invalid, desire(1, apiv1.VM_SUSPENDED, "op-x"))
	p.refuse(problem.NotFound, desire(9, apiv1.VM_RUNNING, "op-x"))
	stale := desire(1, apiv1.VM_RUNNING, "op-x")
	stale.GetSetVmDesired().ExpectedRevision = before.GetRevision()
	p.refuse(problem.Conflict, stale)
}

func TestADescriptionIsChangedAtOnceAndTheZoneHasNothingToDoForIt(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	before := p.vm(1)
	update := func(revision string) *commandv1.Command {
		m := proto.CloneOf(before)
		m.Description, m.State, m.DesiredState, m.Flavor, m.Host = "the shop's", apiv1.VM_ERROR, apiv1.VM_DELETED, "huge", "elsewhere"
		return &commandv1.Command{Body: &commandv1.Command_UpdateVm{UpdateVm: &commandv1.UpdateVM{Vm: m, ExpectedRevision: revision}}}
	}
	p.accept(update(before.GetRevision()))
	after := p.vm(1)
	if after.GetDescription() != "the shop's" || after.GetRevision() == before.GetRevision() {
		t.Errorf("VM %v", after)
	}
	after.Description, after.Revision = "", before.GetRevision()
	if !proto.Equal(before, after) {
		t.Errorf("more than its description was changed: %v, then %v", before, after)
	}
	if down := p.desired(before.GetGeneration().GetIndex()); len(down) != 0 {
		t.Errorf("down goes %v", down)
	}
	p.refuse(problem.Conflict, update(before.GetRevision()))
	missing := update("")
	missing.GetUpdateVm().GetVm().Id = "vm-9"
	p.refuse(problem.NotFound, missing)
}

func TestADeletedVMStaysUntilItsZoneSaysThatItIsGone(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
	if p.vm(1) == nil {
		t.Fatal("the VM went before its zone has said so")
	}
	p.refuse(problem.WrongState, desire(1, apiv1.VM_RUNNING, "op-start"))
	if r := p.accept(desire(1, apiv1.VM_DELETED, "op-again")); r.GetOperation().GetId() != "op-delete" {
		t.Errorf("a second deletion answers with %v, not the one under way", r.GetOperation())
	}
	p.refuse(problem.NameTaken, func() *commandv1.Command { c := createVM(2); c.GetCreateVm().Vm.Name = "web-1"; return c }())

	p.accept(fullSync(true, "inc-1", 0, 5, tombstone(1)))
	if p.vm(1) != nil {
		t.Error("the VM is still there")
	}
	if op := p.operation("op-delete"); !op.GetDone() || op.GetError() != nil || op.GetProgress() != 100 {
		t.Errorf("the deletion is %v", op)
	}
	if op := p.operation("op-create-1"); !op.GetDone() || op.GetError() == nil {
		t.Errorf("the creation that was under way is %v", op)
	}
	objects := p.desired(0)
	last := objects[len(objects)-1].GetTombstone()
	if last.GetNoun().GetId() != "vm-1" || last.GetGeneration().GetEpoch() != 7 {
		t.Errorf("no tombstone goes down: %v", objects)
	}
	// It stays until it is acknowledged, and late news of the VM do not bring it back.
	p.accept(observe("inc-1", 5, 6, seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)))
	if p.vm(1) != nil {
		t.Error("a late report brought the VM back")
	}
	p.accept(acknowledge(7, objects[len(objects)-1].GetRevision()))
	if objects := p.desired(0); objects[len(objects)-1].GetTombstone() != nil {
		t.Error("an acknowledged tombstone stays")
	}
}

func acknowledge(epoch, index uint64) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_AcknowledgeDesired{AcknowledgeDesired: &commandv1.AcknowledgeDesired{
		ZoneId: "z-business", Through: &apiv1.Generation{Epoch: epoch, Index: index}}}}
}

func TestAVMOfARetiredZoneIsDeletedAtOnce(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(&commandv1.Command{Body: &commandv1.Command_Revoke{Revoke: &commandv1.Revoke{ZoneId: "z-business"}}})
	p.refuse(problem.WrongState, desire(1, apiv1.VM_STOPPED, "op-stop"))
	p.refuse(problem.WrongState, createVM(2))
	r := p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
	if p.vm(1) != nil || !r.GetOperation().GetDone() || r.GetOperation().GetError() != nil {
		t.Errorf("the VM is %v, the operation %v", p.vm(1), r.GetOperation())
	}
}

func TestAnOrderGoesDownTheZonesJournal(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	reboot := func(op string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_OrderVm{OrderVm: &commandv1.OrderVM{VmId: "vm-1", OperationId: op, Kind: "vm.reboot",
			Order: &linkv1.Order{Verb: linkv1.Order_REBOOT}, Deadline: timestamppb.New(start.Add(time.Hour))}}}
	}
	for _, op := range []string{"op-1", "op-2", "op-3"} {
		p.accept(reboot(op))
	}
	orders := func(after uint64) (ops []string) {
		p.view(func(tx *state.Tx) {
			b, err := tx.OrdersAfter("z-business", "7", "zone", after, 10)
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range b.GetEntries() {
				if e.GetSequence() != after+uint64(i)+1 {
					t.Errorf("entry %d has sequence %d", i, e.GetSequence())
				}
				ops = append(ops, e.GetOrder().GetOperationId())
			}
		})
		return ops
	}
	if got := strings.Join(orders(0), " "); got != "op-1 op-2 op-3" {
		t.Errorf("orders %s", got)
	}
	ack := &commandv1.Command{Body: &commandv1.Command_AcknowledgeJournal{AcknowledgeJournal: &commandv1.AcknowledgeJournal{ZoneId: "z-business", Ack: &linkv1.JournalAck{
		Points:   []*linkv1.JournalPoint{{Origin: "7", Stream: "zone", Sequence: 2}, {Origin: "6", Stream: "zone", Sequence: 99}},
		Rejected: []*linkv1.Rejected{{Entry: &linkv1.JournalPoint{Origin: "7", Stream: "zone", Sequence: 2}, Reason: "too late"}},
	}}}}
	p.accept(ack)
	p.accept(ack)
	if got := strings.Join(orders(2), " "); got != "op-3" {
		t.Errorf("after the acknowledgement: %s", got)
	}
	if op := p.operation("op-2"); !op.GetDone() || !strings.Contains(op.GetError().GetDetail(), "too late") {
		t.Errorf("the rejected order's operation is %v", op)
	}
	if op := p.operation("op-1"); op.GetDone() {
		t.Errorf("the acknowledged order's operation is %v", op)
	}
	p.accept(reboot("op-4"))
	if got := strings.Join(orders(2), " "); got != "op-3 op-4" {
		t.Errorf("sequences are not dense: %s", got)
	}
	p.accept(desire(1, apiv1.VM_STOPPED, "op-stop"))
	p.refuse(problem.WrongState, reboot("op-5"))
}
