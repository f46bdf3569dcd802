package service_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/controller/lease"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// sized makes a flavor.
func (o *office) sized(name string, memoryMiB, diskGiB uint32) {
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{
		Id: "f-" + name, Name: name, Cores: 1, MemoryMib: memoryMiB, DiskGib: diskGiB}}}})
}

// needs has an image need so much memory from now on.
func (o *office) needs(image string, memoryMiB uint32) {
	o.Helper()
	if _, err := o.Admin().Images.UpdateImage(o.Context(), &apiv1.UpdateImageRequest{Image: &apiv1.Image{Id: image, MinMemoryMib: memoryMiB},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"min_memory_mib"}}}); err != nil {
		o.Fatal(err)
	}
}

func (o *office) lost() {
	o.Helper()
	if _, err := o.Admin().Hosts.DeclareHostLost(o.Context(), &apiv1.DeclareHostLostRequest{Host: "kvm-1", Zone: "business", Reason: "burnt"}); err != nil {
		o.Fatal(err)
	}
}

// took has so many snapshots of web-1 taken: s1, s2, …
func (o *office) took(n int) {
	o.Helper()
	var has []*apiv1.VM_Snapshots_Item
	for i := range n {
		has = append(has, &apiv1.VM_Snapshots_Item{Id: fmt.Sprintf("snap-%d", i+1), Name: fmt.Sprintf("s%d", i+1)})
	}
	o.answer(apiv1.VM_RUNNING, has...)
}

func (o *office) stopped() {
	o.Helper()
	if _, err := o.In("web").VMs.StopVM(o.Context(), &apiv1.StopVMRequest{Vm: "web-1"}); err != nil {
		o.Fatal(err)
	}
	o.answer(apiv1.VM_STOPPED)
}

// leaseOver gives web-1 a lease, whose end comes, so that it is stopped.
func (o *office) leaseOver() {
	o.Helper()
	vm := o.web1()
	vm.UsableAt = timestamppb.New(o.now)
	o.Observe(o.site.Business.GetId(), vm)
	if _, err := o.Admin().Leases.CreateLease(o.Context(), &apiv1.CreateLeaseRequest{Lease: &apiv1.Lease{Vm: "web-1", Project: "web", Days: 1}}); err != nil {
		o.Fatal(err)
	}
	for range 3 {
		o.leases()
		o.now = o.now.Add(25 * time.Hour)
	}
	o.now = o.now.Add(-25 * time.Hour)
	o.answer(apiv1.VM_STOPPED)
}

// leases has the leader look at leases once.
func (o *office) leases() {
	o.Helper()
	steps := lease.New(lease.Config{Reader: o.DB, Proposer: clocked{o}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return o.now }})
	if err := steps.Turn(o.Context()); err != nil {
		o.Fatal(err)
	}
}

func resize(flavor string) func(*client.Services, *office) error {
	return func(c *client.Services, o *office) error {
		_, err := c.VMs.ResizeVM(o.Context(), &apiv1.ResizeVMRequest{Vm: "web-1", Flavor: flavor, MayStop: true})
		return err
	}
}

func turn(verb apiv1.PowerVM_Verb) func(*client.Services, *office) error {
	return func(c *client.Services, o *office) (err error) {
		switch verb {
		case apiv1.PowerVM_START:
			_, err = c.VMs.StartVM(o.Context(), &apiv1.StartVMRequest{Vm: "web-1"})
		case apiv1.PowerVM_STOP:
			_, err = c.VMs.StopVM(o.Context(), &apiv1.StopVMRequest{Vm: "web-1"})
		default:
			_, err = c.VMs.RebootVM(o.Context(), &apiv1.RebootVMRequest{Vm: "web-1"})
		}
		return err
	}
}

func turned(verb apiv1.PowerVM_Verb) *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Vm: "web-1", Verb: verb}}}
}

func snap(name string, mayStop bool) func(*client.Services, *office) error {
	return func(c *client.Services, o *office) error {
		_, err := c.Snapshots.CreateSnapshot(o.Context(), &apiv1.CreateSnapshotRequest{Snapshot: &apiv1.Snapshot{Name: name, Vm: "web-1"}, MayStop: mayStop})
		return err
	}
}

func putBack(name string, mayStop bool) func(*client.Services, *office) error {
	return func(c *client.Services, o *office) error {
		_, err := c.Snapshots.RestoreSnapshot(o.Context(), &apiv1.RestoreSnapshotRequest{Snapshot: name, Vm: "web-1", MayStop: mayStop})
		return err
	}
}

func trash(c *client.Services, o *office) error {
	_, err := c.VMs.TrashVM(o.Context(), &apiv1.TrashVMRequest{Vm: "web-1"})
	return err
}

func untrash(c *client.Services, o *office) error {
	_, err := c.VMs.UntrashVM(o.Context(), &apiv1.UntrashVMRequest{Vm: "web-1"})
	return err
}

func trashed(o *office) {
	if err := trash(o.In("web"), o); err != nil {
		o.Fatal(err)
	}
	o.answer(apiv1.VM_TRASHED)
}

func deleted(o *office) {
	if _, err := o.In("web").VMs.DeleteVM(o.Context(), &apiv1.DeleteVMRequest{Vm: "web-1"}); err != nil {
		o.Fatal(err)
	}
}

// What cannot be done to a VM is refused alike, in the same words, whether it is done at once or asked for by a request; and where it
// became so after the submission, what was approved waits, and says the same.
func TestWhatIsRefusedAtOnceIsRefusedOfARequestAndWaitsWhereItWasApproved(t *testing.T) {
	for name, x := range map[string]struct {
		before, arises func(*office) // arises is nil where it could not have been submitted before either
		atOnce         func(*client.Services, *office) error
		what           *apiv1.RequestSpecification
		why            string
	}{
		"a flavor with less memory than the image needs": {before: func(o *office) { o.sized("little", 64, 10) }, atOnce: resize("little"), what: resizeTo("little"),
			why: "image tiny needs 96 MiB of memory, and flavor little has 64"},
		"a flavor with a smaller disk":      {before: func(o *office) { o.sized("flat", 1024, 9) }, atOnce: resize("flat"), what: resizeTo("flat"), why: "which cannot become smaller"},
		"an image that needs more by now":   {arises: func(o *office) { o.needs("tiny", 4096) }, atOnce: resize("s2"), what: resizeTo("s2"), why: "needs 4096 MiB of memory, and flavor s2 has 2048"},
		"a resize on a host that is lost":   {arises: (*office).lost, atOnce: resize("s2"), what: resizeTo("s2"), why: "was declared lost (burnt)"},
		"a stop on a host that is lost":     {arises: (*office).lost, atOnce: turn(apiv1.PowerVM_STOP), what: turned(apiv1.PowerVM_STOP), why: "was declared lost (burnt)"},
		"a reboot on a host that is lost":   {arises: (*office).lost, atOnce: turn(apiv1.PowerVM_REBOOT), what: turned(apiv1.PowerVM_REBOOT), why: "was declared lost (burnt)"},
		"a snapshot on a host that is lost": {arises: (*office).lost, atOnce: snap("s", true), what: snapshotCalled("s", true), why: "was declared lost (burnt)"},
		"a restore on a host that is lost":  {before: func(o *office) { o.took(1) }, arises: (*office).lost, atOnce: putBack("s1", true), what: restoreTo("s1"), why: "was declared lost (burnt)"},
		"a reboot of what is off":           {arises: (*office).stopped, atOnce: turn(apiv1.PowerVM_REBOOT), what: turned(apiv1.PowerVM_REBOOT), why: "only a VM that runs, and is to run, is rebooted"},
		"a start when the lease is over":    {arises: (*office).leaseOver, atOnce: turn(apiv1.PowerVM_START), what: turned(apiv1.PowerVM_START), why: "the lease of VM web-1 ended on"},
		"a snapshot of what is on":          {atOnce: snap("s", false), what: snapshotCalled("s", false), why: "a snapshot is taken while it is off"},
		"a ninth snapshot":                  {arises: func(o *office) { o.took(8) }, atOnce: snap("s", true), what: snapshotCalled("s", true), why: "has 8 snapshots"},
		"a restore of what is being deleted": {before: func(o *office) { o.took(1) }, arises: func(o *office) {
			if _, err := o.In("web").Snapshots.DeleteSnapshot(o.Context(), &apiv1.DeleteSnapshotRequest{Snapshot: "s1", Vm: "web-1"}); err != nil {
				o.Fatal(err)
			}
		}, atOnce: putBack("s1", true), what: restoreTo("s1"), why: "snapshot s1 of VM web-1 is not ready"},
		"a resize of what is in the trash":   {arises: trashed, atOnce: resize("s2"), what: resizeTo("s2"), why: "VM web-1 is in the trash"},
		"a start of what is in the trash":    {arises: trashed, atOnce: turn(apiv1.PowerVM_START), what: turned(apiv1.PowerVM_START), why: "VM web-1 is in the trash"},
		"a snapshot of what is in the trash": {arises: trashed, atOnce: snap("s", true), what: snapshotCalled("s", true), why: "VM web-1 is in the trash"},
		"what is not in the trash taken out": {atOnce: untrash, what: restoreTo(""), why: "VM web-1 is not in the trash"},
		"a resize of what is deleted":        {arises: deleted, atOnce: resize("s2"), what: resizeTo("s2"), why: "VM web-1 is being deleted"},
		"a stop of what is deleted":          {arises: deleted, atOnce: turn(apiv1.PowerVM_STOP), what: turned(apiv1.PowerVM_STOP), why: "VM web-1 is being deleted"},
		"a trashing of what is deleted":      {arises: deleted, atOnce: trash, what: reclaimed("web-1"), why: "VM web-1 is being deleted"},
		"a resize of what is broken":         {arises: func(o *office) { o.answer(apiv1.VM_ERROR) }, atOnce: resize("s2"), what: resizeTo("s2"), why: "VM web-1 is error"},
		"a trashing of what is broken":       {arises: func(o *office) { o.answer(apiv1.VM_ERROR) }, atOnce: trash, what: reclaimed("web-1"), why: "has nothing to be kept"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newWorkshop(t)
			if x.before != nil {
				x.before(o)
			}
			if x.arises != nil {
				if _, err := o.submit("ann", of(x.what)); err != nil {
					t.Fatal(err)
				}
				x.arises(o)
			}
			direct := x.atOnce(o.In("web"), o)
			if direct == nil || !strings.Contains(direct.Error(), x.why) {
				t.Fatalf("at once: %v", direct)
			}
			asked := of(x.what)
			asked.Title = "once more"
			_, err := o.submit("ann", asked)
			if is, was := problem.Of(err), problem.Of(direct); is.GetDetail() != was.GetDetail() || is.GetCode() != was.GetCode() || is.GetNext() != was.GetNext() {
				t.Errorf("at once it is refused by %v, and of a request by %v", was, is)
			}
			r, err := o.As(o.users["ann"]).Requests.PreviewRequest(t.Context(), &apiv1.PreviewRequestRequest{Request: asked})
			if err != nil || r.GetProblem().GetDetail() != problem.Of(direct).GetDetail() {
				t.Errorf("the preview says %v, %v", r.GetProblem(), err)
			}
			if x.arises == nil {
				return
			}
			if err := o.decide("bob", "r-2", apiv1.Decision_APPROVE, nil); err != nil {
				t.Fatal(err)
			}
			o.turn()
			if m := o.show("ann", "r-2"); m.GetApproval() != apiv1.Request_APPROVED || m.GetFulfilment() >= apiv1.Request_EXECUTING || !strings.Contains(m.GetFulfilmentReason(), x.why) {
				t.Errorf("what was approved is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
			}
		})
	}
}

// The same of a VM that is made: by the image as it is now, and not as it was when its offering was published.
func TestAnImageThatNeedsMoreIsRefusedOfWhatIsMadeAtOnceAndByARequest(t *testing.T) {
	o := newOffice(t)
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.needs("tiny", 4096)
	_, direct := o.In("web").VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: o.VM("web-7", "web")})
	refuses(t, direct, problem.Invalid, "image tiny needs 4096 MiB of memory, and flavor s1 has 1024")
	again := ask()
	again.Title = "once more"
	_, err := o.submit("ann", again)
	refuses(t, err, problem.Invalid, problem.Of(direct).GetDetail())
	for _, who := range []string{"bob", "cho"} {
		if err := o.decide(who, "r-1", apiv1.Decision_APPROVE, nil); err != nil {
			t.Fatal(err)
		}
	}
	o.turn()
	if m := o.show("ann", "r-1"); m.GetFulfilment() >= apiv1.Request_EXECUTING || m.GetFulfilmentReason() != problem.Of(direct).GetDetail() || len(o.vms()) != 0 {
		t.Errorf("what was approved is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
}

// What passes by itself is not refused of a request, since it has passed when that is carried out.
func TestARequestIsSubmittedWhileSomethingElseIsDoneToItsVM(t *testing.T) {
	o := newWorkshop(t)
	if err := snap("s", true)(o.In("web"), o); err != nil {
		t.Fatal(err)
	}
	refuses(t, resize("s2")(o.In("web"), o), problem.WrongState, "snapshot of VM web-1 is under way")
	if _, err := o.submit("ann", of(resizeTo("s2"))); err != nil {
		t.Error(err)
	}
}
