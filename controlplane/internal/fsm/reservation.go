package fsm

import (
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// maxReserved is for how many VMs one reservation is (proto: units).
	maxReserved = 100
	// forgetAtOnce bounds what one command takes away from zones: a revision has so many objects.
	forgetAtOnce = 100
)

// createReservation asks a zone to keep room. What it answers it reports; nothing here waits for it.
func (c *command) createReservation(in *commandv1.CreateReservation) (*commandv1.Result, error) {
	m := in.GetReservation()
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	if err := c.mayReserve(m); err != nil {
		return nil, err
	}
	schema.MergeObserved(m, &apiv1.Reservation{})
	m.DesiredState, m.Given, m.Generation, m.CreatedAt = apiv1.Reservation_HELD, 0, c.generation(), c.now
	return c.wishReservation(m)
}

func (c *command) mayReserve(m *apiv1.Reservation) error {
	if m.GetId() == "" || m.GetSize() == nil || m.GetClusterId() == "" {
		return invalid("a reservation without id, size or cluster cannot be made")
	}
	if _, err := c.tx.Reservations.Get(m.GetId()); err == nil {
		return problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the id %s is taken by another reservation", m.GetId())
	} else if !missing(err) {
		return err
	}
	if n := m.GetQuantity(); n == 0 || n > maxReserved {
		return problem.Newf(problem.Invalid, "Ask for fewer at once.", "a reservation is for 1 to %d VMs, not for %d", maxReserved, n)
	}
	if m.GetHoldUntil() == nil || !later(m.GetHoldUntil(), c.clock) {
		return invalid("a reservation that ends before it begins cannot be made")
	}
	if err := c.projectExists(m.GetProjectId(), m.GetProject()); err != nil {
		return err
	}
	if _, err := c.takesVMs(m.GetZoneId(), m.GetZone()); err != nil {
		return err
	}
	if err := c.clusterOf(m.GetClusterId(), m.GetCluster(), m.GetZoneId()); err != nil || m.GetVmId() == "" {
		return err
	}
	vm, err := stored(c.tx.VMs, "VM", m.GetVmId(), "")
	switch {
	case err != nil:
		return err
	case vm.GetProjectId() != m.GetProjectId() || vm.GetClusterId() != m.GetClusterId() || m.GetQuantity() != 1:
		return invalid("what a VM is to grow by is kept once, where the VM is")
	}
	return nil
}

// wishReservation stores a reservation whose generation is new, and has it go down.
func (c *command) wishReservation(m *apiv1.Reservation) (*commandv1.Result, error) {
	if err := c.tx.Reservations.Put(m); err != nil {
		return nil, err
	}
	if err := c.tx.Desire(m.GetZoneId(), referenceReservation(m)); err != nil {
		return nil, err
	}
	return made(m, nil)
}

func referenceReservation(m *apiv1.Reservation) *apiv1.Reference {
	return &apiv1.Reference{Kind: "reservation", Id: m.GetId()}
}

// setReservation frees a reservation, or has it last longer. Of what is freed already there is nothing to be done.
func (c *command) setReservation(in *commandv1.SetReservation) (*commandv1.Result, error) {
	m, err := c.tx.Reservations.Get(in.GetReservationId())
	if err != nil {
		return nil, orNotFound(err, "reservation", in.GetReservationId())
	}
	switch in.GetDesired() {
	case apiv1.Reservation_RELEASED:
		if m.GetDesiredState() == apiv1.Reservation_RELEASED {
			return made(m, nil)
		}
	case apiv1.Reservation_HELD:
		if over(m) {
			return nil, problem.Newf(problem.WrongState, "Make another one.", "reservation %s is over and is not held again", m.GetId())
		}
		if until := in.GetHoldUntil(); until != nil {
			if !later(until, c.clock) {
				return nil, invalid("a reservation cannot end in the past")
			}
			m.HoldUntil = until
		}
	default:
		return nil, invalid("a reservation can be wanted HELD or RELEASED")
	}
	m.DesiredState, m.Generation = in.GetDesired(), c.generation()
	return c.wishReservation(m)
}

// over tells whether nothing is or will be held of a reservation.
func over(m *apiv1.Reservation) bool {
	switch m.GetState() {
	case apiv1.Reservation_CONSUMED, apiv1.Reservation_RELEASED, apiv1.Reservation_LAPSED:
		return true
	}
	return m.GetDesiredState() == apiv1.Reservation_RELEASED
}

// giveReserved gives a VM that is being made its share of the reservation that it names: as many VMs as were reserved for may name
// it, each of the size, in the place and of the project that it is for. Its zone places each in one unit.
func (c *command) giveReserved(vm *apiv1.VM) error {
	m, err := c.tx.Reservations.Get(vm.GetReservation())
	if err != nil {
		return orNotFound(err, "reservation", vm.GetReservation())
	}
	fits := m.GetVmId() == "" && m.GetProjectId() == vm.GetProjectId() && m.GetZoneId() == vm.GetZoneId() && m.GetClusterId() == vm.GetClusterId() &&
		proto.Equal(m.GetSize(), vm.GetSize())
	return c.give(m, fits)
}

// giveGrowth gives a VM that is to be resized the reservation that is for it and as large as what it gets in addition.
func (c *command) giveGrowth(id string, vm *apiv1.VM, size *apiv1.Resources) error {
	m, err := c.tx.Reservations.Get(id)
	if err != nil {
		return orNotFound(err, "reservation", id)
	}
	return c.give(m, m.GetVmId() == vm.GetId() && proto.Equal(m.GetSize(), request.Growth(vm.GetSize(), size)))
}

// give counts one use of a reservation, which fits what uses it or is refused.
func (c *command) give(m *apiv1.Reservation, fits bool) error {
	refused := func(next, why string) error {
		return problem.Newf(problem.WrongState, next, "reservation %s %s", m.GetId(), why)
	}
	switch {
	case !fits:
		return refused("Name one that is for this VM, or none.", "is for another project, place, VM or size")
	case over(m), !later(m.GetHoldUntil(), c.clock):
		return refused("Ask for another one.", "is over")
	case m.GetState() == apiv1.Reservation_REFUSED:
		return refused("Ask for another one.", "was refused by its zone")
	case m.GetGiven() >= m.GetQuantity():
		return refused("Ask for another one.", "is for "+strconv.FormatUint(uint64(m.GetQuantity()), 10)+" VMs, and they are made")
	}
	m.Given++
	return c.tx.Reservations.Put(m)
}

// takeReservation takes over what a zone says of a reservation, and tells of a change.
func (o *observation) takeReservation(reported *apiv1.Reservation) error {
	was, err := o.tx.Reservations.Get(reported.GetId())
	if missing(err) {
		return nil // forgotten meanwhile
	}
	if err != nil {
		return err
	}
	if was.GetZoneId() != o.zone.GetId() {
		o.refuse("reservation " + reported.GetId())
		return nil
	}
	next := proto.CloneOf(was)
	schema.MergeObserved(next, reported)
	next.Left = min(next.GetLeft(), next.GetQuantity())
	if proto.Equal(was, next) {
		return nil
	}
	if err := o.tx.Reservations.Put(next); err != nil {
		return err
	}
	if next.GetState() == was.GetState() {
		return nil
	}
	severity, kind, message := apiv1.Event_INFO, "", ""
	room := "room for " + strconv.FormatUint(uint64(next.GetQuantity()), 10) + " VMs in cluster " + next.GetCluster()
	if next.GetVmId() != "" {
		room = "room for VM " + next.GetVm() + " to grow in cluster " + next.GetCluster()
	}
	switch next.GetState() {
	case apiv1.Reservation_HELD:
		kind, message = "reservation.held", room+" is held"
	case apiv1.Reservation_REFUSED:
		severity, kind, message = apiv1.Event_WARNING, "reservation.refused", room+" cannot be held: "+next.GetError().GetDetail()
	case apiv1.Reservation_LAPSED:
		severity, kind, message = apiv1.Event_WARNING, "reservation.lapsed", "of "+room+" is free again what was not used: its time is over"
	default:
		return nil // what was asked for here
	}
	return o.tell(severity, kind, where(next), referenceReservation(next), message)
}

// forgetReservations forgets those whose time was over long ago, and has their zones forget them.
func (c *command) forgetReservations(before int64) error {
	past, err := c.tx.PastReservations(before, forgetAtOnce)
	if err != nil {
		return err
	}
	for _, m := range past {
		if err := c.forgetReservation(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) forgetReservation(m *apiv1.Reservation) error {
	if err := c.tx.Reservations.Delete(m.GetId()); err != nil {
		return err
	}
	zone, err := c.tx.Zones.Get(m.GetZoneId())
	if missing(err) || err == nil && zone.GetState() == apiv1.Zone_RETIRED {
		return nil // nobody is there who would hear it
	}
	if err != nil {
		return err
	}
	return c.tx.DesireGone(m.GetZoneId(), referenceReservation(m))
}

// reserved says what still waits for VMs within scope: "2 reservations", or "" for none.
func (c *command) reserved(scope state.Scope) (string, error) {
	n := 0
	for m, err := range c.tx.Reservations.All(scope) {
		if err != nil {
			return "", err
		}
		if !over(m) && m.GetState() != apiv1.Reservation_REFUSED && later(m.GetHoldUntil(), c.clock) {
			n++
		}
	}
	switch n {
	case 0:
		return "", nil
	case 1:
		return "1 reservation", nil
	}
	return strconv.Itoa(n) + " reservations", nil
}
