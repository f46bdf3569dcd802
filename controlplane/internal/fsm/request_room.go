package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// freeRoom has a request's zone free the room that it keeps for it, and forgets what the zone refused: there may be one an hour.
func (c *command) freeRoom(m *apiv1.Request) error {
	for _, id := range request.Rooms(m) {
		r, err := c.tx.Reservations.Get(id)
		switch {
		case missing(err):
			continue
		case err == nil && r.GetState() == apiv1.Reservation_REFUSED:
			err = c.forgetReservation(r)
		case err == nil:
			_, err = c.setReservation(&commandv1.SetReservation{ReservationId: id, Desired: apiv1.Reservation_RELEASED})
		}
		if err != nil {
			return err
		}
	}
	request.Leave(m)
	return nil
}

// reserveRequest asks a request's zone to keep room for the VMs that it is to make, or for the one that is to grow.
func (c *command) reserveRequest(in *commandv1.ReserveRequest) (*commandv1.Result, error) {
	if in.GetExpectedRevision() == "" {
		return nil, invalid("room is reserved for a request at a revision")
	}
	m, err := stored(c.tx.Requests, "request", in.GetRequestId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	each := make([]uint32, len(in.GetReservations()))
	var ids []string
	for _, i := range in.GetParts() {
		if int(i) >= len(each) {
			return nil, invalid("a part of request " + m.GetName() + " names no reservation")
		}
		each[i]++
		ids = append(ids, in.GetReservations()[i].GetId())
	}
	if err := request.Reserve(m, ids, c.clock); err != nil {
		return nil, err
	}
	for i, r := range in.GetReservations() {
		if r.GetProjectId() != m.GetProjectId() || r.GetZoneId() != m.GetZoneId() || r.GetQuantity() != each[i] || r.GetVmId() != m.GetSpecification().GetResize().GetVmId() {
			return nil, invalid("a reservation is not what request " + m.GetName() + " takes")
		}
		if _, err := c.createReservation(&commandv1.CreateReservation{Reservation: r}); err != nil {
			return nil, err
		}
	}
	return put(c.tx.Requests, m)
}
