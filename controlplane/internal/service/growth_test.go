package service_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// toGrow is a workshop in which ann has asked that web-1 gets flavor s2, and the leader has looked.
func toGrow(t *testing.T) (*office, *apiv1.Reservation) {
	t.Helper()
	o := newWorkshop(t)
	if _, err := o.submit("ann", of(resizeTo("s2"))); err != nil {
		t.Fatal(err)
	}
	o.turn()
	asked := o.reservations()
	if len(asked) != 1 || asked[0].GetVmId() != o.web1().GetId() || asked[0].GetQuantity() != 1 || asked[0].GetClusterId() != o.web1().GetClusterId() ||
		!proto.Equal(asked[0].GetSize(), &apiv1.Resources{Cores: 1, MemoryMib: 1024}) {
		t.Fatalf("its zone was asked for %v", asked)
	}
	return o, asked[0]
}

func (o *office) turns(n int) {
	o.Helper()
	for range n {
		o.turn()
	}
}

func TestF9AVMGrowsIntoTheRoomThatWasKeptForItSinceTheLastStage(t *testing.T) {
	o, asked := toGrow(t)
	if m := o.show("bob", "r-2"); m.GetFulfilment() != apiv1.Request_RESERVING || !strings.Contains(m.GetFulfilmentReason(), "asked to keep room") {
		t.Errorf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
	o.says(apiv1.Reservation_HELD)
	o.turn()
	if m := o.show("bob", "r-2"); m.GetFulfilment() != apiv1.Request_RESERVED || len(m.GetHolds()) != 1 || m.GetHolds()[0].GetVm() != "web-1" {
		t.Fatalf("it is %v, and has %v", m.GetFulfilment(), m.GetHolds())
	}
	if err := o.decide("bob", "r-2", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turns(2)
	if m, vm := o.show("ann", "r-2"), o.web1(); m.GetFulfilment() != apiv1.Request_EXECUTING || vm.GetErrand().GetReservation() != asked.GetId() || vm.GetSize().GetCores() != 2 {
		t.Fatalf("it is %v: %s; the VM is wished %v", m.GetFulfilment(), m.GetFulfilmentReason(), vm.GetErrand())
	}
	if is := o.reservations()[0]; is.GetGiven() != 1 || is.GetDesiredState() != apiv1.Reservation_HELD {
		t.Errorf("until its zone has carried it out the room is to stay: %v", is)
	}
	o.answer(apiv1.VM_RUNNING)
	o.done(o.show("ann", "r-2"))
	if is := o.reservations()[0]; is.GetDesiredState() != apiv1.Reservation_RELEASED {
		t.Errorf("room is kept for what is done: %v", is)
	}
}

func TestF9AnApprovedResizeWithoutRoomStandsAndAsksAgain(t *testing.T) {
	o, _ := toGrow(t)
	o.says(apiv1.Reservation_REFUSED)
	o.turn()
	if err := o.decide("bob", "r-2", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turns(2)
	if m := o.show("ann", "r-2"); m.GetApproval() != apiv1.Request_APPROVED || m.GetFulfilment() != apiv1.Request_RESERVING ||
		!strings.Contains(m.GetFulfilmentReason(), "no host has 2 GiB free") || o.web1().GetSize().GetCores() != 1 {
		t.Fatalf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
	o.now = o.now.Add(2 * time.Minute)
	o.turn()
	o.says(apiv1.Reservation_HELD)
	o.turns(2)
	if m := o.show("ann", "r-2"); m.GetFulfilment() != apiv1.Request_EXECUTING {
		t.Errorf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
}

func TestF9AResizeSaysThatItsZoneIsAway(t *testing.T) {
	o, _ := toGrow(t)
	o.Connect(o.site.Business.GetId(), false)
	o.turn()
	if m := o.show("bob", "r-2"); m.GetFulfilment() != apiv1.Request_RESERVING || !strings.Contains(m.GetFulfilmentReason(), "has not said whether it has room") {
		t.Errorf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
	if err := o.decide("bob", "r-2", apiv1.Decision_APPROVE, nil); err != nil {
		t.Errorf("a decision waits for a zone: %v", err)
	}
	o.turn()
	if m := o.show("ann", "r-2"); m.GetApproval() != apiv1.Request_APPROVED || m.GetFulfilment() != apiv1.Request_RESERVING || o.web1().GetSize().GetCores() != 1 {
		t.Errorf("it is %v and %v", m.GetApproval(), m.GetFulfilment())
	}
	o.Connect(o.site.Business.GetId(), true)
	o.says(apiv1.Reservation_HELD)
	o.turns(2)
	if m := o.show("ann", "r-2"); m.GetFulfilment() != apiv1.Request_EXECUTING {
		t.Errorf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
}

// TestF9OtherRoomIsAskedForWhereTheVMHasAnotherSizeMeanwhile: what is kept is as large as what the VM gets in addition to what it has.
func TestF9OtherRoomIsAskedForWhereTheVMHasAnotherSizeMeanwhile(t *testing.T) {
	o, asked := toGrow(t)
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{Id: "f-wide", Name: "wide", Cores: 2, MemoryMib: 1024, DiskGib: 10}}}})
	o.says(apiv1.Reservation_HELD)
	o.turn()
	if _, err := o.In("web").VMs.ResizeVM(t.Context(), &apiv1.ResizeVMRequest{Vm: "web-1", Flavor: "wide", MayStop: true}); err != nil {
		t.Fatal(err)
	}
	o.answer(apiv1.VM_RUNNING)
	o.turn()
	if m := o.show("bob", "r-2"); m.GetFulfilment() != apiv1.Request_RESERVING || !strings.Contains(m.GetFulfilmentReason(), "another size meanwhile") {
		t.Fatalf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
	o.now = o.now.Add(2 * time.Minute)
	o.turn()
	for _, is := range o.reservations() {
		switch {
		case is.GetId() == asked.GetId() && is.GetDesiredState() != apiv1.Reservation_RELEASED:
			t.Errorf("room of the former size is kept: %v", is)
		case is.GetId() != asked.GetId() && !proto.Equal(is.GetSize(), &apiv1.Resources{MemoryMib: 1024}):
			t.Errorf("asked for anew: %v", is)
		}
	}
	if n := len(o.reservations()); n != 2 {
		t.Errorf("%d reservations", n)
	}
}

func TestF9ARoomToGrowIsFreedWhereTheRequestEndsOrTheVMIsNotToGrowAnyMore(t *testing.T) {
	for name, end := range map[string]func(*office) error{
		"denied": func(o *office) error { return o.decide("bob", "r-2", apiv1.Decision_DENY, nil) },
		"the VM is put into the trash": func(o *office) error {
			_, err := o.In("web").VMs.TrashVM(o.Context(), &apiv1.TrashVMRequest{Vm: "web-1"})
			return err
		},
		"the VM is deleted while it is resized": func(o *office) error {
			if err := o.decide("bob", "r-2", apiv1.Decision_APPROVE, nil); err != nil {
				return err
			}
			o.turns(2)
			if o.web1().GetErrand() == nil {
				o.Fatalf("it is not resized: %v", o.show("ann", "r-2"))
			}
			_, err := o.In("web").VMs.DeleteVM(o.Context(), &apiv1.DeleteVMRequest{Vm: "web-1"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := toGrow(t)
			o.says(apiv1.Reservation_HELD)
			o.turn()
			if err := end(o); err != nil {
				t.Fatal(err)
			}
			o.turn()
			for _, is := range o.reservations() {
				if is.GetDesiredState() != apiv1.Reservation_RELEASED {
					t.Errorf("room is kept for nothing: %v", is)
				}
			}
		})
	}
}

// TestNoRoomIsAskedForWhatDoesNotGrow: a smaller VM needs none.
func TestNoRoomIsAskedForWhatDoesNotGrow(t *testing.T) {
	o := newWorkshop(t)
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{Id: "f-less", Name: "less", Cores: 1, MemoryMib: 512, DiskGib: 10}}}})
	if _, err := o.submit("ann", of(resizeTo("less"))); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if err := o.decide("bob", "r-2", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turns(2)
	var asked int
	o.View(func(tx *state.Tx) error {
		for _, err := range tx.Reservations.All(nil) {
			if asked++; err != nil {
				return err
			}
		}
		return nil
	})
	if m := o.show("ann", "r-2"); asked != 0 || m.GetFulfilment() != apiv1.Request_EXECUTING {
		t.Errorf("%d reservations, and it is %v: %s", asked, m.GetFulfilment(), m.GetFulfilmentReason())
	}
}
