package service_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// says has zone business answer for each reservation that it has not answered yet, or has as it was when was is given.
func (o *office) says(answer apiv1.Reservation_State, was ...apiv1.Reservation_State) {
	o.Helper()
	for _, m := range o.reservations() {
		if m.GetState() == 0 || slices.Contains(was, m.GetState()) {
			m.State, m.Reached, m.Left = answer, m.GetGeneration(), 0
			if m.Error = nil; answer == apiv1.Reservation_HELD {
				m.Left = m.GetQuantity()
			} else if answer == apiv1.Reservation_REFUSED {
				m.Error = &apiv1.Problem{Code: "NO_HOST_FITS", Detail: "no host has 2 GiB free"}
			}
			o.Observe(m.GetZoneId(), m)
		}
	}
}

func (o *office) reservations() (all []*apiv1.Reservation) {
	o.Helper()
	o.View(func(tx *state.Tx) error {
		for m, err := range tx.Reservations.All(nil) {
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		return nil
	})
	return all
}

// reviewed is an office in which ann's request has come to its last stage, and the leader has looked.
func reviewed(t *testing.T, change func(*apiv1.Request)) *office {
	t.Helper()
	o := newOffice(t)
	m := ask()
	if change != nil {
		change(m)
	}
	if _, err := o.submit("ann", m); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if got := o.show("ann", "r-1"); got.GetFulfilment() != apiv1.Request_NONE || len(o.reservations()) != 0 {
		t.Fatalf("before its last stage it is %v", got.GetFulfilment())
	}
	if err := o.decide("bob", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turn()
	return o
}

func (o *office) finally(verdict apiv1.Decision_Verdict) {
	o.Helper()
	if err := o.decide("cho", "r-1", verdict, nil); err != nil {
		o.Fatal(err)
	}
}

func TestF9WhatIsApprovedTakesTheRoomThatWasKeptForItSinceItsLastStage(t *testing.T) {
	o := reviewed(t, nil)
	asked := o.reservations()
	if len(asked) != 1 || asked[0].GetQuantity() != 2 || asked[0].GetSize().GetMemoryMib() != 1024 || asked[0].GetClusterId() != o.site.Kvm.GetId() {
		t.Fatalf("%v", asked)
	}
	if m := o.show("cho", "r-1"); m.GetFulfilment() != apiv1.Request_RESERVING || !strings.Contains(m.GetFulfilmentReason(), "asked to keep room") {
		t.Errorf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
	o.says(apiv1.Reservation_HELD)
	o.turn()
	m := o.show("cho", "r-1")
	if m.GetFulfilment() != apiv1.Request_RESERVED || len(m.GetHolds()) != 1 || m.GetHolds()[0].GetLeft() != 2 || m.GetHolds()[0].GetUnits() != nil {
		t.Fatalf("it is %v, and has %v", m.GetFulfilment(), m.GetHolds())
	}
	o.finally(apiv1.Decision_APPROVE)
	o.turn()
	vms := o.vms()
	if len(vms) != 2 || vms[0].GetReservation() != asked[0].GetId() || vms[1].GetReservation() != asked[0].GetId() || vms[0].GetClusterId() != asked[0].GetClusterId() {
		t.Fatalf("%v", vms)
	}
	if got := o.reservations()[0]; got.GetGiven() != 2 || got.GetDesiredState() != apiv1.Reservation_HELD {
		t.Errorf("of the reservation is given %d, and it is wanted %v", got.GetGiven(), got.GetDesiredState())
	}
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_EXECUTING || len(m.GetHolds()) != 0 {
		t.Errorf("it is %v, and has %v", m.GetFulfilment(), m.GetHolds())
	}
}

func TestF9RoomIsFreedWhereverTheRequestEndsOrGoesBack(t *testing.T) {
	for name, end := range map[string]func(*office) error{
		"denied":   func(o *office) error { return o.decide("cho", "r-1", apiv1.Decision_DENY, nil) },
		"returned": func(o *office) error { return o.decide("cho", "r-1", apiv1.Decision_RETURN, nil) },
		"withdrawn": func(o *office) error {
			_, err := o.As(o.users["ann"]).Requests.WithdrawRequest(t.Context(), &apiv1.WithdrawRequestRequest{Request: "r-1"})
			return err
		},
		"expired": func(o *office) error {
			o.now = o.now.Add(48 * time.Hour)
			o.turn()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := reviewed(t, func(m *apiv1.Request) { m.DecideBy = timestamppb.New(time.Now().Add(47 * time.Hour)) })
			o.says(apiv1.Reservation_HELD)
			o.turn()
			if err := end(o); err != nil {
				t.Fatal(err)
			}
			if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_NONE || m.GetFulfilmentReason() != "" || len(m.GetHolds()) != 0 {
				t.Errorf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
			}
			for _, r := range o.reservations() {
				if r.GetDesiredState() != apiv1.Reservation_RELEASED {
					t.Errorf("room is kept for nothing: %v", r)
				}
			}
		})
	}
}

// The last decision is accepted whatever the zone says; what it says is shown, and room is asked for again without anybody's word.
func TestF9AnApprovalStandsWhereThereIsNoRoomAndRoomIsAskedForAgain(t *testing.T) {
	o := reviewed(t, nil)
	o.says(apiv1.Reservation_REFUSED)
	o.turn()
	if m := o.show("cho", "r-1"); m.GetFulfilment() != apiv1.Request_RESERVING || !strings.Contains(m.GetFulfilmentReason(), "no host has 2 GiB free") {
		t.Fatalf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
	o.finally(apiv1.Decision_APPROVE)
	o.turn()
	o.turn()
	if m := o.show("ann", "r-1"); m.GetApproval() != apiv1.Request_APPROVED || m.GetFulfilment() != apiv1.Request_RESERVING || len(o.vms()) != 0 || len(o.reservations()) != 0 {
		t.Fatalf("it is %v and %v, %d VMs, %d reservations", m.GetApproval(), m.GetFulfilment(), len(o.vms()), len(o.reservations()))
	}
	o.now = o.now.Add(2 * time.Minute)
	o.turn()
	o.says(apiv1.Reservation_HELD)
	o.turn()
	o.turn()
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_EXECUTING || len(o.vms()) != 2 {
		t.Errorf("it is %v, and there are %d VMs", m.GetFulfilment(), len(o.vms()))
	}
	if all := o.reservations(); len(all) != 1 || all[0].GetState() == apiv1.Reservation_REFUSED {
		t.Errorf("what was refused is kept: %v", all)
	}
}

// A zone that is cut off frees its room by itself. What was approved meanwhile is not made where there may be none, and not lost.
func TestF9RoomThatLapsedIsAskedForAnewBeforeAnythingIsMade(t *testing.T) {
	o := reviewed(t, nil)
	o.says(apiv1.Reservation_HELD)
	o.turn()
	o.Connect(o.site.Business.GetId(), false)
	o.finally(apiv1.Decision_APPROVE)
	o.turn()
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_RESERVED || !strings.Contains(m.GetFulfilmentReason(), "out of reach") || len(o.vms()) != 0 {
		t.Fatalf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
	o.Connect(o.site.Business.GetId(), true)
	o.says(apiv1.Reservation_LAPSED, apiv1.Reservation_HELD)
	o.turn()
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_RESERVING || len(o.vms()) != 0 {
		t.Fatalf("it is %v: %s", m.GetFulfilment(), m.GetFulfilmentReason())
	}
	o.now = o.now.Add(2 * time.Minute)
	o.turn()
	o.says(apiv1.Reservation_HELD)
	o.turn()
	o.turn()
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_EXECUTING || len(o.vms()) != 2 {
		t.Errorf("it is %v, and there are %d VMs", m.GetFulfilment(), len(o.vms()))
	}
}

func TestF9RoomIsKeptOnWhilePeopleThink(t *testing.T) {
	o := reviewed(t, nil)
	o.says(apiv1.Reservation_HELD)
	o.turn()
	until := o.reservations()[0].GetHoldUntil().AsTime()
	for range 3 {
		o.now = o.now.Add(13 * time.Hour)
		o.turn()
		next := o.reservations()[0].GetHoldUntil().AsTime()
		if !next.After(until) {
			t.Fatalf("it is kept until %v, and was until %v", next, until)
		}
		until = next
		o.says(apiv1.Reservation_HELD, apiv1.Reservation_HELD)
	}
	if m := o.show("cho", "r-1"); m.GetFulfilment() != apiv1.Request_RESERVED || len(o.reservations()) != 1 {
		t.Errorf("it is %v", m.GetFulfilment())
	}
}
