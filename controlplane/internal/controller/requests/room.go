package requests

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// room is what is to be done so that room is kept for a request that wants it: it is asked for, and what the zone answers is taken
// down. Where it is refused, or lapses, it is asked for again; the decisions stand.
func (c *Controller) room(tx *state.Tx, r *apiv1.Request, now time.Time) (job, error) {
	ids := request.Rooms(r)
	if len(ids) == 0 {
		return c.ask(tx, r)
	}
	miss := func(why string) (job, error) { return passing(r, commandv1.PassRequest_MISS, "", why), nil }
	growth, err := growth(tx, r)
	if err != nil {
		return miss(problem.Of(err).GetDetail())
	}
	held := 0
	for _, id := range ids {
		m, err := tx.Reservations.Get(id)
		if errors.Is(err, state.ErrNotFound) {
			return miss("zone " + r.GetZone() + " does not keep its room any more")
		}
		if err != nil {
			return job{}, err
		}
		if growth != nil && !proto.Equal(growth.room, m.GetSize()) {
			return miss("VM " + m.GetVm() + " has another size meanwhile, and other room is asked for")
		}
		switch left := m.GetHoldUntil().AsTime().Sub(now); {
		case m.GetState() == apiv1.Reservation_REFUSED:
			return miss("zone " + r.GetZone() + " has no room for it: " + m.GetError().GetDetail())
		case m.GetDesiredState() == apiv1.Reservation_RELEASED, m.GetState() > apiv1.Reservation_REFUSED, left <= 0:
			return miss("zone " + r.GetZone() + " does not keep its room any more")
		case m.GetState() != apiv1.Reservation_HELD:
		case left < holdAtLeast:
			j := newJob(tx, r)
			j.set = &commandv1.SetReservation{ReservationId: id, Desired: apiv1.Reservation_HELD, HoldUntil: timestamppb.New(now.Add(holdTime))}
			return j, nil
		default:
			held++
		}
	}
	if held == len(ids) {
		if r.GetFulfilment() == apiv1.Request_RESERVED {
			return job{}, nil
		}
		return passing(r, commandv1.PassRequest_HOLD, "", ""), nil
	}
	if zone, err := tx.Zones.Get(r.GetZoneId()); err == nil && zone.GetFreshness() != apiv1.Freshness_LIVE {
		return waiting(r, "zone "+zone.GetName()+" is out of reach, and has not said whether it has room"), nil
	}
	return job{}, nil
}

// growing is a VM with the size that it is to have, and what room that takes in addition.
type growing struct {
	vm   *apiv1.VM
	room *apiv1.Resources
}

// growth is what a request has grow; nil where it is for something else. It is refused where the VM cannot be resized now.
func growth(tx *state.Tx, r *apiv1.Request) (*growing, error) {
	ask := r.GetSpecification().GetResize()
	if ask == nil {
		return nil, nil
	}
	vm, _, err := possible(tx, r)
	if err != nil || vm == nil {
		return nil, err
	}
	was, err := tx.VMs.Get(vm.GetId())
	if err != nil {
		return nil, err
	}
	return &growing{vm: vm, room: request.Growth(was.GetSize(), vm.GetSize())}, nil
}

// ask makes the command that has room kept; it lacks the reservations.
func (c *Controller) ask(tx *state.Tx, r *apiv1.Request) (job, error) {
	j := newJob(tx, r)
	j.reserve = &commandv1.ReserveRequest{RequestId: r.GetId(), ExpectedRevision: r.GetRevision()}
	switch growth, err := growth(tx, r); {
	case err != nil:
		return waiting(r, problem.Of(err).GetDetail()), nil
	case growth != nil:
		vm := growth.vm
		j.grown, j.reserve.Parts = vm, []uint32{0}
		j.reserve.Reservations = []*apiv1.Reservation{{
			Project: vm.GetProject(), ProjectId: vm.GetProjectId(), Zone: vm.GetZone(), ZoneId: vm.GetZoneId(), Cluster: vm.GetCluster(), ClusterId: vm.GetClusterId(),
			Vm: vm.GetName(), VmId: vm.GetId(), Size: growth.room, Quantity: 1,
		}}
		return j, nil
	}
	all, err := intake.VM(tx, r)
	if err != nil {
		return waiting(r, problem.Of(err).GetDetail()), nil
	}
	for _, p := range r.GetParts() {
		vm := partOf(all, p)
		vm.Id = newID() // what it is called while it is reckoned with
		j.vms = append(j.vms, vm)
	}
	return j, nil
}

// reserveRoom makes the command that asks for room in the clusters that seem to have it: a reservation in each; or for a VM's growth
// where it seems to fit.
func (c *Controller) reserveRoom(ctx context.Context, j job) (*commandv1.Command, error) {
	if j.grown != nil {
		if err := c.Chooser.Resize(ctx, j.grown, j.after); err != nil {
			return nil, err
		}
		m := j.reserve.GetReservations()[0]
		m.Id, m.HoldUntil = newID(), timestamppb.New(c.Now().Add(holdTime))
		return &commandv1.Command{Body: &commandv1.Command_ReserveRequest{ReserveRequest: j.reserve}}, nil
	}
	clusters, err := c.choose(ctx, j)
	if err != nil {
		return nil, err
	}
	in := j.reserve
	for i, vm := range j.vms {
		at := slices.IndexFunc(in.GetReservations(), func(m *apiv1.Reservation) bool { return m.GetClusterId() == vm.GetClusterId() })
		if at < 0 {
			at = len(in.GetReservations())
			in.Reservations = append(in.GetReservations(), &apiv1.Reservation{
				Id: newID(), Project: vm.GetProject(), ProjectId: vm.GetProjectId(), Zone: vm.GetZone(), ZoneId: vm.GetZoneId(),
				Cluster: clusters[i].GetName(), ClusterId: clusters[i].GetId(), Size: vm.GetSize(),
				Spread: slices.ContainsFunc(vm.GetAffinities(), func(a *apiv1.VM_Affinity) bool { return a.GetRule() == apiv1.VM_Affinity_APART }), HoldUntil: timestamppb.New(c.Now().Add(holdTime)),
			})
		}
		in.Reservations[at].Quantity++
		in.Parts = append(in.GetParts(), uint32(at))
	}
	return &commandv1.Command{Body: &commandv1.Command_ReserveRequest{ReserveRequest: in}}, nil
}
