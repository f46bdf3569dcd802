package service

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type zoneService struct {
	apiv1.UnimplementedZoneServiceServer
	*Service
}

func zoneChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Zone) proto.Message {
	return &apiv1.WatchZonesResponse{Type: kind, Revision: revision, Zone: m}
}

func (s zoneService) ListZones(ctx context.Context, r *apiv1.ListZonesRequest) (*apiv1.ListZonesResponse, error) {
	items, next, err := s.zones.list(ctx, r, place{})
	return &apiv1.ListZonesResponse{Zones: items, NextPageToken: next}, err
}

func (s zoneService) GetZone(ctx context.Context, r *apiv1.GetZoneRequest) (*apiv1.GetZoneResponse, error) {
	m, err := s.zones.get(ctx, r.GetZone(), place{})
	return &apiv1.GetZoneResponse{Zone: m}, err
}

func (s zoneService) WatchZones(r *apiv1.WatchZonesRequest, stream grpc.ServerStreamingServer[apiv1.WatchZonesResponse]) error {
	return s.zones.watch(r, place{}, stream)
}

func (s zoneService) CreateZone(ctx context.Context, r *apiv1.CreateZoneRequest) (*apiv1.CreateZoneResponse, error) {
	result, err := s.zones.create(ctx, r, r.GetZone(), func(tx *state.Tx, z *apiv1.Zone) (state.Scope, error) {
		z.State, z.Grade = apiv1.Zone_JOINING, grade.Highest(z.GetGrade())
		return nil, s.prepare(tx, z)
	}, func(c *commandv1.Command, m *apiv1.Zone) {
		c.Body = &commandv1.Command_CreateZone{CreateZone: &commandv1.CreateZone{Zone: m}}
	})
	op, err := s.zones.made(ctx, result, err)
	return &apiv1.CreateZoneResponse{Operation: op}, err
}

func (s zoneService) UpdateZone(ctx context.Context, r *apiv1.UpdateZoneRequest) (*apiv1.UpdateZoneResponse, error) {
	m, err := s.zones.update(ctx, r, r.GetZone(), r.GetUpdateMask(), place{}, func(tx *state.Tx, m *apiv1.Zone) error {
		if err := s.mayRegrade(ctx, tx, m); err != nil {
			return err
		}
		return s.prepare(tx, m)
	}, func(c *commandv1.Command, m *apiv1.Zone, expected string) {
		c.Body = &commandv1.Command_UpdateZone{UpdateZone: &commandv1.UpdateZone{Zone: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateZoneResponse{Zone: m}, err
}

func (s zoneService) DeleteZone(ctx context.Context, r *apiv1.DeleteZoneRequest) (*apiv1.DeleteZoneResponse, error) {
	op, err := s.zones.remove(ctx, r, r.GetZone(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteZone{DeleteZone: d}
	})
	return &apiv1.DeleteZoneResponse{Operation: op}, err
}

// mayRegrade refuses another grade, kind or broker of a zone to whoever may change zones in their own zone only: roles
// elsewhere, what crosses and what may stand there rest on these.
func (s zoneService) mayRegrade(ctx context.Context, tx *state.Tx, z *apiv1.Zone) error {
	was, err := tx.Zones.Get(z.GetId())
	if err != nil {
		return err
	}
	if was.GetGrade() == z.GetGrade() && was.GetKind() == z.GetKind() && was.GetBroker() == z.GetBroker() {
		return nil
	}
	return s.everywhere(ctx)
}

// prepare resolves the names in a zone.
func (s zoneService) prepare(tx *state.Tx, z *apiv1.Zone) error {
	if z.GetParent() != "" {
		parent, err := s.zones.within(tx, z.GetParent(), nil)
		if err != nil {
			return inField(err, "parent")
		}
		if z.Parent = parent.GetName(); parent.GetId() == z.GetId() {
			return problem.New(problem.Invalid, "a zone cannot stand below itself", "Name another zone.").With("parent", "is the zone itself")
		}
	}
	if z.GetBroker() != "" {
		broker, err := s.brokers.within(tx, z.GetBroker(), nil)
		if err != nil {
			return inField(err, "broker")
		}
		z.Broker = broker.GetName()
	}
	for i, text := range z.GetPolicy().GetMethods() {
		if !schema.Names(text) {
			return problem.Newf(problem.Invalid, "Name methods as the API does: VMService/ListVMs, VMService/*.", "there is no method %s", text).
				With(fmt.Sprintf("policy.methods[%d]", i), "is no method of the API")
		}
	}
	return nil
}

// QuarantineZone stops the exchange with a zone by an administrator's word.
func (s zoneService) QuarantineZone(ctx context.Context, r *apiv1.QuarantineZoneRequest) (*apiv1.QuarantineZoneResponse, error) {
	m, err := s.judge(ctx, r, r.GetZone(), func(c *commandv1.Command, id string) {
		c.Body = &commandv1.Command_QuarantineZone{QuarantineZone: &commandv1.QuarantineZone{ZoneId: id, Reason: r.GetReason()}}
	})
	return &apiv1.QuarantineZoneResponse{Zone: m}, err
}

// LiftQuarantine lets a zone exchange again.
func (s zoneService) LiftQuarantine(ctx context.Context, r *apiv1.LiftQuarantineRequest) (*apiv1.LiftQuarantineResponse, error) {
	m, err := s.judge(ctx, r, r.GetZone(), func(c *commandv1.Command, id string) {
		c.Body = &commandv1.Command_LiftQuarantine{LiftQuarantine: &commandv1.LiftQuarantine{ZoneId: id, Reason: r.GetReason()}}
	})
	return &apiv1.LiftQuarantineResponse{Zone: m}, err
}

func (s zoneService) judge(ctx context.Context, req proto.Message, zone string, body func(*commandv1.Command, string)) (*apiv1.Zone, error) {
	result, err := s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.zones.find(ctx, tx, zone, place{})
		if err != nil {
			return nil, err
		}
		body(c, m.GetId())
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return s.zones.decode(result)
}
