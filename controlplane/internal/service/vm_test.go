package service_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func create(t *testing.T, c *client.Services, vm *apiv1.VM) *apiv1.Operation {
	t.Helper()
	r, err := c.VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: vm})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetOperation()
}

func show(t *testing.T, c *client.Services, name, project string) *apiv1.VM {
	t.Helper()
	r, err := c.VMs.GetVM(t.Context(), &apiv1.GetVMRequest{Vm: name, Project: project})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetVm()
}

// run has the zone report that a VM is in a state, on the first host.
func run(w *servicetest.World, site *servicetest.Site, vm *apiv1.VM, s apiv1.VM_State, p apiv1.VM_Power) {
	w.Observe(site.Business.GetId(), &apiv1.VM{
		Id: vm.GetId(), Name: vm.GetName(), State: s, Power: p, Host: site.Hosts[0].GetName(), HostId: site.Hosts[0].GetId(),
		HostFreshness: apiv1.Freshness_LIVE, Address: "10.91.2.10", Reached: vm.GetGeneration(),
	})
}

func TestAVMIsAskedForByNamesAndStoredWithWhatTheyStandFor(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(2)
	op := create(t, w.In("web"), &apiv1.VM{Name: "web-1", Project: "web", Zone: "business", Cluster: "kvm", Flavor: "s1", Image: "tiny", SshKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFYI7xZjnFBBQuTOcWfoJNBcB3JBk5Tz1b2fbmTx5qKj"}})
	if op.GetDone() || op.GetKind() != "vm.create" || op.GetProject() != "web" || op.GetZone() != "business" || op.GetDeadline() == nil || op.GetCreatedBy() != "token:web" {
		t.Fatalf("operation %v", op)
	}
	vm := show(t, w.In("web"), "web-1", "")
	if vm.GetId() != op.GetTarget().GetId() || vm.GetOperation() != op.GetId() || vm.GetDesiredState() != apiv1.VM_RUNNING {
		t.Fatalf("vm %v", vm)
	}
	if vm.GetZoneId() != site.Business.GetId() || vm.GetClusterId() != site.Kvm.GetId() || vm.GetProjectId() == "" ||
		vm.GetSize().GetMemoryMib() != 1024 || vm.GetImageSha256() != strings.Repeat("ab", 32) || vm.GetImageFormat() != apiv1.Image_QCOW2 {
		t.Fatalf("vm %v", vm)
	}
	if vm.GetGeneration() != nil {
		t.Fatal("an internal field is shown")
	}
}

func TestATokenNeedNotNameItsProject(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	vm := w.VM("web-1", "")
	create(t, w.In("web"), vm)
	if got := show(t, w.Admin(), "web-1", "web").GetProject(); got != "web" {
		t.Fatalf("it is in project %q", got)
	}
	_, err := w.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: vm})
	refuses(t, err, problem.Invalid, "project")
}

// TestABadVMIsRefusedWithTheReason is the part of the "bad input" that is about VMs.
func TestABadVMIsRefusedWithTheReason(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(3)
	create(t, w.Admin(), w.VM("taken", "web"))
	for about, c := range map[string]struct {
		change      func(*apiv1.VM)
		code        problem.Code
		says, field string
	}{
		"an unknown zone":      {func(v *apiv1.VM) { v.Zone = "nowhere" }, problem.NotFound, "no zone nowhere", "zone"},
		"an unknown cluster":   {func(v *apiv1.VM) { v.Cluster = "xen" }, problem.NotFound, "no cluster xen", "cluster"},
		"an unknown flavor":    {func(v *apiv1.VM) { v.Flavor = "s9" }, problem.NotFound, "no flavor s9", "flavor"},
		"an unknown image":     {func(v *apiv1.VM) { v.Image = "bsd" }, problem.NotFound, "no image bsd", "image"},
		"an unknown project":   {func(v *apiv1.VM) { v.Project = "hr" }, problem.NotFound, "no project hr", "project"},
		"a name that is taken": {func(v *apiv1.VM) { v.Name = "taken" }, problem.NameTaken, "taken", "name"},
		"a wrong name":         {func(v *apiv1.VM) { v.Name = "Web 1" }, problem.Invalid, "name", "name"},
		"no name":              {func(v *apiv1.VM) { v.Name = "" }, problem.Invalid, "name", "name"},
		"no flavor":            {func(v *apiv1.VM) { v.Flavor = "" }, problem.Invalid, "flavor", "flavor"},
		"a key of two lines":   {func(v *apiv1.VM) { v.SshKeys = []string{"a\nb"} }, problem.Invalid, "ssh_keys", "ssh_keys[0]"},
		"a state of its own":   {func(v *apiv1.VM) { v.State = apiv1.VM_RUNNING }, problem.Invalid, "state", "state"},
		"force from outside":   {func(v *apiv1.VM) { v.Force = true }, problem.Invalid, "force", "force"},
		"too little for image": {func(v *apiv1.VM) { v.Flavor = "tiny" }, problem.Invalid, "image tiny needs", "flavor"},
		"too large a VM":       {func(v *apiv1.VM) { v.Flavor = "huge" }, problem.NoHostFits, "3 hosts looked at: 3 lack cores and memory", "cluster"},
		"too large in any":     {func(v *apiv1.VM) { v.Flavor, v.Cluster = "huge", "" }, problem.NoHostFits, "3 hosts looked at", "zone"},
		"a group it is to be apart from and together with": {func(v *apiv1.VM) {
			v.Affinities = []*apiv1.VM_Affinity{{Group: "g", Rule: apiv1.VM_Affinity_APART}, {Group: "g", Rule: apiv1.VM_Affinity_TOGETHER}}
		}, problem.Invalid, "both apart from group g and together", "affinities[1]"},
		"an affinity of no use": {func(v *apiv1.VM) { v.Affinities = []*apiv1.VM_Affinity{{Group: "g"}} }, problem.Invalid, "affinities", "affinities[0].rule"},
	} {
		t.Run(about, func(t *testing.T) {
			vm := w.VM("web-1", "web")
			c.change(vm)
			before := w.Proposes()
			_, err := w.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: vm})
			refuses(t, err, c.code, c.says)
			if fields := problem.Of(err).GetErrors(); len(fields) == 0 || fields[0].GetField() != c.field {
				t.Errorf("the field %s is not named: %v", c.field, fields)
			}
			if w.Proposes() != before {
				t.Error("the state machine was asked")
			}
		})
	}
}

func TestTheControlPlaneChoosesTheClusterWhereNoneIsNamed(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	vm := w.VM("web-1", "web")
	vm.Cluster = ""
	create(t, w.Admin(), vm)
	if got := show(t, w.Admin(), "web-1", "web"); got.GetCluster() != "kvm" || got.GetClusterId() != site.Kvm.GetId() {
		t.Fatalf("cluster %q, %s", got.GetCluster(), got.GetClusterId())
	}
}

func TestWhatIsPromisedIsNotPromisedTwice(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1) // 8 cores
	for i := range 8 {
		create(t, w.Admin(), w.VM("web-"+string(rune('a'+i)), "web"))
	}
	w.Settle()
	_, err := w.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-z", "web")})
	refuses(t, err, problem.NoHostFits, "1 host looked at: 1 lacks cores")
}

func TestAZoneThatIsOutOfServiceTakesNoVMsAndOneThatIsAwayDoes(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	connect := func(connected bool) {
		w.Do(&commandv1.Command{Body: &commandv1.Command_SetZoneSession{SetZoneSession: &commandv1.SetZoneSession{
			ZoneId: site.Business.GetId(), Session: make([]byte, 16), Connected: connected, Agent: "a", ServerId: "server-1", Incarnation: "inc-" + site.Business.GetId(),
		}}})
	}
	connect(true)
	connect(false)
	if got := w.Zone("business").GetState(); got != apiv1.Zone_DISCONNECTED {
		t.Fatalf("the zone is %s", got)
	}
	if op := create(t, w.Admin(), w.VM("web-1", "web")); op.GetDone() {
		t.Fatalf("operation %v", op)
	}
	w.Do(&commandv1.Command{Body: &commandv1.Command_QuarantineZone{QuarantineZone: &commandv1.QuarantineZone{ZoneId: site.Business.GetId(), Reason: "its numbers went backwards"}}})
	_, err := w.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-2", "web")})
	refuses(t, err, problem.ZoneUnavailable, "quarantined: its numbers went backwards")
}

func TestOnlyWhatIsSaidOfAVMCanBeUpdated(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	create(t, w.In("web"), w.VM("web-1", ""))
	change := func(c *client.Services, m *apiv1.VM, fields ...string) (*apiv1.VM, error) {
		m.Id = "web-1"
		r, err := c.VMs.UpdateVM(t.Context(), &apiv1.UpdateVMRequest{Vm: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}})
		return r.GetVm(), err
	}
	before := show(t, w.In("web"), "web-1", "")
	got, err := change(w.In("web"), &apiv1.VM{Description: "the shop's"}, "description")
	if err != nil || got.GetDescription() != "the shop's" || got.GetRevision() == before.GetRevision() || got.GetGeneration() != nil {
		t.Fatalf("%v, %v", got, err)
	}
	if now := show(t, w.In("web"), "web-1", ""); now.GetDescription() != "the shop's" || now.GetFlavor() != "s1" {
		t.Errorf("VM %v", now)
	}
	_, err = change(w.In("web"), &apiv1.VM{Flavor: "tiny"}, "flavor")
	refuses(t, err, problem.Invalid, "flavor")
	if next := problem.Of(err).GetNext(); !strings.Contains(next, "naru vm resize web-1 --flavor") {
		t.Errorf("what to do: %q", next)
	}
	_, err = change(w.In("web"), &apiv1.VM{State: apiv1.VM_STOPPED}, "state")
	refuses(t, err, problem.Invalid, "state")
	_, err = change(w.In("web"), &apiv1.VM{}, "colour")
	refuses(t, err, problem.Invalid, "colour")
	_, err = change(w.In("db"), &apiv1.VM{Description: "ours"}, "description")
	refuses(t, err, problem.NotFound, "web-1")
	_, err = w.In("web").VMs.UpdateVM(metadata.AppendToOutgoingContext(t.Context(), "if-match", before.GetRevision()),
		&apiv1.UpdateVMRequest{Vm: &apiv1.VM{Id: "web-1", Description: "again"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}}})
	refuses(t, err, problem.Conflict, before.GetRevision())
}

// TestP2OneKeyMakesOneVM asks many times with one key, at once and after the VM is there.
func TestP2OneKeyMakesOneVM(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	c := w.In("web")
	ctx := with(t.Context(), "idempotency-key", "make-web-1")
	answers := make(chan string, 16)
	for range cap(answers) {
		go func() {
			r, err := c.VMs.CreateVM(ctx, &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")})
			if err != nil {
				t.Error(err)
			}
			answers <- r.GetOperation().GetId()
		}()
	}
	first := <-answers
	for range cap(answers) - 1 {
		if id := <-answers; id != first {
			t.Errorf("two operations: %s, %s", first, id)
		}
	}
	all, err := c.VMs.ListVMs(t.Context(), &apiv1.ListVMsRequest{})
	if err != nil || len(all.GetVms()) != 1 {
		t.Fatalf("%d VMs, %v", len(all.GetVms()), err)
	}
	_, err = c.VMs.CreateVM(ctx, &apiv1.CreateVMRequest{Vm: w.VM("web-2", "web")})
	refuses(t, err, problem.IdempotencyMismatch, "make-web-1")
	if _, err := w.In("db").VMs.CreateVM(ctx, &apiv1.CreateVMRequest{Vm: w.VM("db-1", "db")}); err != nil {
		t.Fatalf("another caller's equal key: %v", err)
	}
}

func TestAskingForWhatIsSoAlreadySaysSo(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	c := w.In("web")
	created := create(t, c, w.VM("web-1", "web"))
	vm := show(t, c, "web-1", "")
	start := func() *apiv1.Operation {
		t.Helper()
		r, err := c.VMs.StartVM(t.Context(), &apiv1.StartVMRequest{Vm: "web-1"})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetOperation()
	}
	stop := func(force bool) *apiv1.Operation {
		t.Helper()
		r, err := c.VMs.StopVM(t.Context(), &apiv1.StopVMRequest{Vm: "web-1", Force: force})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetOperation()
	}
	if op := start(); op.GetId() != created.GetId() {
		t.Fatalf("starting what is being made: %v", op)
	}
	w.Do(resolve(created.GetId()))
	run(w, site, vm, apiv1.VM_RUNNING, apiv1.VM_ON)
	if op := start(); !op.GetDone() || op.GetSteps()[0].GetMessage() != "it runs already" || op.GetProject() != "web" || op.GetZone() != "business" {
		t.Fatalf("starting what runs: %v", op)
	}
	stopping := stop(false)
	if stopping.GetDone() || stopping.GetKind() != "vm.stop" || show(t, c, "web-1", "").GetDesiredState() != apiv1.VM_STOPPED {
		t.Fatalf("stopping: %v", stopping)
	}
	if op := stop(false); op.GetId() != stopping.GetId() {
		t.Fatalf("stopping what is being stopped: %v", op)
	}
	if op := stop(true); op.GetId() == stopping.GetId() {
		t.Fatal("by force is another wish")
	}
}

func TestAskingForWhatIsUnderWayAnswersWithTheNewestRequestForIt(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	c := w.In("web")
	w.Do(resolve(create(t, c, w.VM("web-1", "web")).GetId()))
	run(w, site, show(t, c, "web-1", ""), apiv1.VM_RUNNING, apiv1.VM_ON)
	stop := func() *apiv1.Operation {
		t.Helper()
		r, err := c.VMs.StopVM(t.Context(), &apiv1.StopVMRequest{Vm: "web-1"})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetOperation()
	}
	first := stop()
	if _, err := c.VMs.StartVM(t.Context(), &apiv1.StartVMRequest{Vm: "web-1"}); err != nil {
		t.Fatal(err)
	}
	second := stop()
	if second.GetDone() || second.GetId() == first.GetId() {
		t.Fatalf("stopping what was started anew: %v, of which the first was %v", second, first)
	}
	if op := stop(); op.GetId() != second.GetId() {
		t.Errorf("under way is %s, and the answer is %s", second.GetId(), op.GetId())
	}
	w.Do(resolve(second.GetId()))
	run(w, site, show(t, c, "web-1", ""), apiv1.VM_STOPPED, apiv1.VM_OFF)
	if op := stop(); !op.GetDone() {
		t.Errorf("it is stopped, whatever became of earlier requests, and the answer is %v", op)
	}
}

func resolve(operation string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
		OperationId: operation, Outcome: apiv1.ResolveOperationRequest_SUCCEED, Reason: "as the test says",
	}}}
}

func TestDeletingTwiceIsTheSameDeletion(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	c := w.In("web")
	w.Do(resolve(create(t, c, w.VM("web-1", "web")).GetId()))
	run(w, site, show(t, c, "web-1", ""), apiv1.VM_RUNNING, apiv1.VM_ON)
	remove := func() (*apiv1.Operation, error) {
		r, err := c.VMs.DeleteVM(t.Context(), &apiv1.DeleteVMRequest{Vm: "web-1"})
		return r.GetOperation(), err
	}
	first, err := remove()
	if err != nil || first.GetDone() || first.GetKind() != "vm.delete" {
		t.Fatalf("%v, %v", first, err)
	}
	if again, err := remove(); err != nil || again.GetId() != first.GetId() {
		t.Fatalf("%v, %v", again, err)
	}
	_, err = c.VMs.StartVM(t.Context(), &apiv1.StartVMRequest{Vm: "web-1"})
	refuses(t, err, problem.WrongState, "being deleted")
}

func TestOnlyARunningVMIsRebooted(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	c := w.In("web")
	w.Do(resolve(create(t, c, w.VM("web-1", "web")).GetId()))
	_, err := c.VMs.RebootVM(t.Context(), &apiv1.RebootVMRequest{Vm: "web-1"})
	refuses(t, err, problem.WrongState, "VM web-1 is pending and wanted running")
	run(w, site, show(t, c, "web-1", ""), apiv1.VM_RUNNING, apiv1.VM_ON)
	first, err := c.VMs.RebootVM(t.Context(), &apiv1.RebootVMRequest{Vm: "web-1"})
	if err != nil || first.GetOperation().GetKind() != "vm.reboot" {
		t.Fatalf("%v, %v", first, err)
	}
	if again, err := c.VMs.RebootVM(t.Context(), &apiv1.RebootVMRequest{Vm: "web-1"}); err != nil || again.GetOperation().GetId() != first.GetOperation().GetId() {
		t.Fatalf("%v, %v", again, err)
	}
}

func TestARefusedRebootSaysWhatIsWantedOfTheVMAndWhatIsUnderWay(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	c := w.In("web")
	refused := func(says, next string) {
		t.Helper()
		_, err := c.VMs.RebootVM(t.Context(), &apiv1.RebootVMRequest{Vm: "web-1"})
		refuses(t, err, problem.WrongState, says)
		if got := problem.Of(err).GetNext(); !strings.Contains(got, next) {
			t.Errorf("what to do: %q, want %q", got, next)
		}
	}
	created := create(t, c, w.VM("web-1", "web"))
	refused("VM web-1 is pending, and its create is under way", "naru operation wait "+created.GetId())
	w.Do(resolve(created.GetId()))
	run(w, site, show(t, c, "web-1", ""), apiv1.VM_RUNNING, apiv1.VM_ON)
	stop, err := c.VMs.StopVM(t.Context(), &apiv1.StopVMRequest{Vm: "web-1"})
	if err != nil {
		t.Fatal(err)
	}
	refused("VM web-1 is running, and its stop is under way", "naru vm start web-1")
	w.Do(resolve(stop.GetOperation().GetId()))
	refused("VM web-1 is running and wanted stopped", "naru vm start web-1")
	run(w, site, show(t, c, "web-1", ""), apiv1.VM_STOPPED, apiv1.VM_OFF)
	refused("VM web-1 is stopped; only", "naru vm start web-1")
	start, err := c.VMs.StartVM(t.Context(), &apiv1.StartVMRequest{Vm: "web-1"})
	if err != nil {
		t.Fatal(err)
	}
	refused("VM web-1 is stopped, and its start is under way", "naru operation wait "+start.GetOperation().GetId())
}

func TestWhatNeedsAHostThatIsLostIsRefusedAtOnceAndTheVMCanBeDeleted(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	create(t, w.Admin(), w.VM("web-1", "web"))
	running := show(t, w.Admin(), "web-1", "web")
	running.State, running.Power, running.HostId, running.Host, running.Reached = apiv1.VM_RUNNING, apiv1.VM_ON, site.Hosts[0].GetId(), "kvm-1", running.GetGeneration()
	w.Observe(site.Business.GetId(), running)
	if _, err := w.Admin().Hosts.DeclareHostLost(t.Context(), &apiv1.DeclareHostLostRequest{Host: "kvm-1", Zone: "business", Reason: "burnt"}); err != nil {
		t.Fatal(err)
	}
	vms := w.In("web").VMs
	_, stop := vms.StopVM(t.Context(), &apiv1.StopVMRequest{Vm: "web-1"})
	_, forced := vms.StopVM(t.Context(), &apiv1.StopVMRequest{Vm: "web-1", Force: true})
	_, reboot := vms.RebootVM(t.Context(), &apiv1.RebootVMRequest{Vm: "web-1"})
	for _, err := range []error{stop, forced, reboot} {
		refuses(t, err, problem.WrongState, "host kvm-1 of VM web-1 was declared lost (burnt)")
		if next := problem.Of(err).GetNext(); !strings.Contains(next, "naru vm delete web-1") || !strings.Contains(next, "naru host found kvm-1") {
			t.Errorf("what to do: %q", next)
		}
	}
	if _, err := vms.DeleteVM(t.Context(), &apiv1.DeleteVMRequest{Vm: "web-1"}); err != nil {
		t.Error(err)
	}
}

func TestADecisionOnAFlavorThatChangedMeanwhileIsMadeAgain(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	// The chooser changes the image behind the decision's back, once.
	w.Interfere(func() {
		if _, err := w.Admin().Images.UpdateImage(context.Background(), &apiv1.UpdateImageRequest{Image: &apiv1.Image{Id: "tiny", Description: "newer"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}}}); err != nil {
			t.Error(err)
		}
	})
	create(t, w.Admin(), w.VM("web-1", "web"))
	if got := w.Choices(); got != 2 {
		t.Fatalf("it was decided %d times", got)
	}
}

func TestP14TopShowsOnlyTheCallersVMsWhateverAZoneClaims(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(2)
	create(t, w.Admin(), w.VM("web-1", "web"))
	create(t, w.Admin(), w.VM("db-1", "db"))
	web, db := show(t, w.Admin(), "web-1", "web"), show(t, w.Admin(), "db-1", "db")
	w.VMSamples = []*apiv1.VMSample{
		{VmId: web.GetId(), Vm: "web-1", Project: "web", Zone: "business", CpuRatio: 0.1},
		{VmId: db.GetId(), Vm: "db-1", Project: "web", Zone: "business", CpuRatio: 0.9},   // claims to be web's
		{VmId: web.GetId(), Vm: "web-1", Project: "web", Zone: "internet", CpuRatio: 0.5}, // from a zone it is not in
		{VmId: "no-such-vm", Vm: "ghost", Project: "web", Zone: "business", CpuRatio: 0.5},
	}
	r, err := w.In("web").VMs.TopVMs(t.Context(), &apiv1.TopVMsRequest{})
	if err != nil || len(r.GetSamples()) != 1 || r.GetSamples()[0].GetVm() != "web-1" {
		t.Fatalf("%v, %v", r, err)
	}
	all, err := w.Admin().VMs.TopVMs(t.Context(), &apiv1.TopVMsRequest{})
	if err != nil || len(all.GetSamples()) != 2 || all.GetSamples()[0].GetVm() != "db-1" || all.GetSamples()[0].GetProject() != "db" {
		t.Fatalf("%v, %v", all, err)
	}
}
