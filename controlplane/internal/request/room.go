package request

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// roomAhead is how long before it may begin room is kept for what is not to begin at once: longer would keep others out for nothing.
const roomAhead = 7 * 24 * time.Hour

// waits reports whether nothing of r was begun.
func waits(r *apiv1.Request) bool { return r.GetFulfilment() < apiv1.Request_EXECUTING }

// Growth is what a VM gets in addition that has another size.
func Growth(before, size *apiv1.Resources) *apiv1.Resources {
	more := func(before, size uint32) uint32 { return size - min(before, size) }
	return &apiv1.Resources{
		Cores:     more(before.GetCores(), size.GetCores()),
		MemoryMib: more(before.GetMemoryMib(), size.GetMemoryMib()),
		DiskGib:   more(before.GetDiskGib(), size.GetDiskGib()),
	}
}

// takes reports whether r is for what takes room: it makes VMs, or has one grow.
func takes(r *apiv1.Request) bool {
	ask := r.GetSpecification().GetResize()
	return r.GetSpecification().GetCreate() != nil || ask != nil && !proto.Equal(Growth(ask.GetSizeBefore(), ask.GetSize()), &apiv1.Resources{})
}

// TakesRoom reports whether r waits for what takes room: it was submitted, may still be carried out, and nothing of it was begun.
func TakesRoom(r *apiv1.Request) bool {
	open := r.GetApproval() == apiv1.Request_SUBMITTED || r.GetApproval() == apiv1.Request_IN_REVIEW || r.GetApproval() == apiv1.Request_APPROVED
	return open && takes(r) && waits(r)
}

// WantsRoom reports whether room is to be kept for r: it takes some, and between now and then there is a wait, for the last decision
// or for its day. What is approved and can begin takes what is free.
func WantsRoom(r *apiv1.Request, clock *timestamppb.Timestamp) bool {
	if !takes(r) || !waits(r) || r.GetDesiredStart().AsTime().Sub(clock.AsTime()) > roomAhead {
		return false
	}
	switch r.GetApproval() {
	case apiv1.Request_SUBMITTED, apiv1.Request_IN_REVIEW:
		return !slices.ContainsFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetState() == apiv1.Stage_WAITING })
	case apiv1.Request_APPROVED:
		return r.GetFulfilment() > apiv1.Request_NONE || r.GetDesiredStart() != nil && !passed(r.GetDesiredStart(), clock)
	}
	return false
}

// Rooms returns the ids of the reservations that keep room for r's parts, each once.
func Rooms(r *apiv1.Request) (ids []string) {
	for _, p := range r.GetParts() {
		if id := p.GetReservation(); id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// KeepsRoom reports whether r may have room: what it did not begin with when it ended, or went back, is to be freed.
func KeepsRoom(r *apiv1.Request) bool {
	return r.GetFulfilment() == apiv1.Request_RESERVING || r.GetFulfilment() == apiv1.Request_RESERVED
}

// Leave takes r's room from its parts.
func Leave(r *apiv1.Request) {
	for _, p := range r.GetParts() {
		p.Reservation = ""
	}
}

// Reserve notes that room is asked for; each part names its reservation.
func Reserve(r *apiv1.Request, reservations []string, clock *timestamppb.Timestamp) error {
	if !WantsRoom(r, clock) || len(Rooms(r)) > 0 || len(reservations) != len(r.GetParts()) {
		return wrongState(r, "", "reserved for")
	}
	for i, p := range r.GetParts() {
		p.Reservation = reservations[i]
	}
	r.Fulfilment, r.FulfilmentReason = apiv1.Request_RESERVING, "zone "+r.GetZone()+" is asked to keep room for it"
	return nil
}

// Hold notes that the room that was asked for is kept.
func Hold(r *apiv1.Request) error {
	if r.GetFulfilment() != apiv1.Request_RESERVING || len(Rooms(r)) == 0 {
		return wrongState(r, "", "reserved for")
	}
	r.Fulfilment, r.FulfilmentReason = apiv1.Request_RESERVED, ""
	return nil
}

// Miss notes why the room is not kept, or not any more. What was approved stands: room is asked for anew.
func Miss(r *apiv1.Request, why string) error {
	if !KeepsRoom(r) {
		return wrongState(r, "", "without room")
	}
	Leave(r)
	r.Fulfilment, r.FulfilmentReason = apiv1.Request_RESERVING, shortened(why)
	return nil
}

// unreserve takes r out of what led to its being carried out, where nothing was begun.
func unreserve(r *apiv1.Request) {
	if KeepsRoom(r) {
		r.Fulfilment, r.FulfilmentReason = apiv1.Request_NONE, ""
	}
}
