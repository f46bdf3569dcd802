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

func reserve(id string, quantity uint32, until time.Time) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateReservation{CreateReservation: &commandv1.CreateReservation{Reservation: &apiv1.Reservation{
		Id: id, Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-business", Cluster: "kvm", ClusterId: "c-kvm",
		Size: resources(1, 96, 1), Quantity: quantity, HoldUntil: timestamppb.New(until),
	}}}}
}

func setReservation(id string, s apiv1.Reservation_State, until time.Time) *commandv1.Command {
	in := &commandv1.SetReservation{ReservationId: id, Desired: s}
	if !until.IsZero() {
		in.HoldUntil = timestamppb.New(until)
	}
	return &commandv1.Command{Body: &commandv1.Command_SetReservation{SetReservation: in}}
}

func createIn(n int, reservation string) *commandv1.Command {
	c := createVM(n)
	c.GetCreateVm().Vm.Reservation = reservation
	return c
}

func (p *plane) reservation(id string) (m *apiv1.Reservation) {
	p.Helper()
	p.view(func(tx *state.Tx) { m = get(p, tx.Reservations, id) })
	return m
}

// holds has the zone report a reservation.
func (p *plane) holds(id string, s apiv1.Reservation_State, left uint32) {
	p.Helper()
	var at state.ObservedCursor
	p.view(func(tx *state.Tx) { at, _ = tx.ObservedCursor("z-business") })
	m := &apiv1.Reservation{Id: id, State: s, Left: left, Quantity: 77, Project: "theirs", Reached: p.reservation(id).GetGeneration()}
	o := &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Reservation{Reservation: m}}
	if at.Revision == 0 {
		p.accept(fullSync(true, "inc-1", 0, 1, o))
		return
	}
	p.accept(observe("inc-1", at.Revision, at.Revision+1, o))
}

func TestAReservationGoesDownToItsZoneAndWhatThatSaysComesBack(t *testing.T) {
	p := furnished(t)
	p.accept(reserve("r", 2, p.now.Add(time.Hour)))
	down := p.desired(0)
	sent := down[len(down)-1].GetReservation()
	if sent.GetId() != "r" || sent.GetQuantity() != 2 || sent.GetDesiredState() != apiv1.Reservation_HELD || sent.GetGeneration() == nil || sent.GetState() != 0 {
		t.Fatalf("down goes %v", sent)
	}
	p.holds("r", apiv1.Reservation_HELD, 2)
	if m := p.reservation("r"); m.GetState() != apiv1.Reservation_HELD || m.GetLeft() != 2 || m.GetQuantity() != 2 || m.GetProject() != "shop" {
		t.Errorf("reservation %v", m)
	}
	if why := p.refuse(problem.InUse, deletion("cluster", "c-kvm", "")).GetDetail(); !strings.Contains(why, "1 reservation") {
		t.Errorf("deleting its cluster: %s", why)
	}
	p.holds("r", apiv1.Reservation_LAPSED, 0)
	if e := p.events(); e["reservation.held"] != 1 || e["reservation.lapsed"] != 1 {
		t.Errorf("events %v", e)
	}
	p.refuse(problem.WrongState, setReservation("r", apiv1.Reservation_HELD, p.now.Add(time.Hour)))
}

func TestAsManyVMsNameAReservationAsItIsFor(t *testing.T) {
	p := furnished(t)
	p.accept(reserve("r", 2, p.now.Add(time.Hour)))
	p.accept(createIn(1, "r"))
	first := createIn(2, "r")
	first.Id = commandID(p.now, 77)
	p.accept(first)
	p.accept(first) // the same command is carried out once
	if m := p.reservation("r"); m.GetGiven() != 2 {
		t.Errorf("given %d", m.GetGiven())
	}
	if down := p.desired(0); down[len(down)-1].GetVm().GetReservation() != "r" {
		t.Errorf("down goes %v", down[len(down)-1])
	}
	p.refuse(problem.WrongState, createIn(3, "r"))
	p.refuse(problem.NotFound, createIn(3, "r-x"))
	p.accept(reserve("r2", 5, p.now.Add(time.Hour)))
	other := createIn(3, "r2")
	other.GetCreateVm().Vm.Size = resources(2, 96, 1)
	p.refuse(problem.WrongState, other)
	p.holds("r2", apiv1.Reservation_REFUSED, 0)
	p.refuse(problem.WrongState, createIn(3, "r2"))
	p.accept(reserve("r3", 5, p.now.Add(10*time.Second)))
	p.now = p.now.Add(time.Minute) // nobody had to say that its time is over
	p.refuse(problem.WrongState, createIn(3, "r3"))
}

func TestAReservationIsReleasedOnceAndForgottenInTheEnd(t *testing.T) {
	p := furnished(t)
	p.refuse(problem.Invalid, reserve("r", 0, p.now.Add(time.Hour)))
	p.refuse(problem.Invalid, reserve("r", 101, p.now.Add(time.Hour)))
	p.refuse(problem.Invalid, reserve("r", 1, p.now))
	p.accept(reserve("r", 1, p.now.Add(time.Hour)))
	p.refuse(problem.Conflict, reserve("r", 1, p.now.Add(time.Hour)))
	was := p.reservation("r")
	p.accept(setReservation("r", apiv1.Reservation_HELD, p.now.Add(2*time.Hour)))
	longer := p.reservation("r")
	if !newerThan(longer.GetGeneration(), was.GetGeneration()) || !longer.GetHoldUntil().AsTime().After(was.GetHoldUntil().AsTime()) {
		t.Errorf("reservation %v", longer)
	}
	p.accept(setReservation("r", apiv1.Reservation_RELEASED, time.Time{}))
	released := p.reservation("r")
	p.accept(setReservation("r", apiv1.Reservation_RELEASED, time.Time{}))
	if again := p.reservation("r"); !proto.Equal(released, again) {
		t.Errorf("what was released is released again: %v", again)
	}
	p.refuse(problem.WrongState, createIn(1, "r"))
	p.now = p.now.Add(40 * 24 * time.Hour)
	before := timestamppb.New(p.now.Add(-30 * 24 * time.Hour))
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: before, OperationsBefore: before, EventsBefore: before}}})
	down := p.desired(released.GetGeneration().GetIndex())
	if p.reservation("r") != nil || len(down) != 1 || down[0].GetTombstone().GetNoun().GetKind() != "reservation" {
		t.Errorf("its zone is told %v", down)
	}
}

func newerThan(a, b *apiv1.Generation) bool { return a.GetIndex() > b.GetIndex() }
