package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type crossingService struct {
	apiv1.UnimplementedCrossingServiceServer
	*Service
}

func crossingChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Crossing) proto.Message {
	return &apiv1.WatchCrossingsResponse{Type: kind, Revision: revision, Crossing: m}
}

func (s crossingService) ListCrossings(ctx context.Context, r *apiv1.ListCrossingsRequest) (*apiv1.ListCrossingsResponse, error) {
	items, next, err := s.crossings.list(ctx, r, place{})
	return &apiv1.ListCrossingsResponse{Crossings: items, NextPageToken: next}, err
}

func (s crossingService) GetCrossing(ctx context.Context, r *apiv1.GetCrossingRequest) (*apiv1.GetCrossingResponse, error) {
	m, err := s.crossings.get(ctx, r.GetCrossing(), place{})
	return &apiv1.GetCrossingResponse{Crossing: m}, err
}

func (s crossingService) WatchCrossings(r *apiv1.WatchCrossingsRequest, stream grpc.ServerStreamingServer[apiv1.WatchCrossingsResponse]) error {
	return s.crossings.watch(r, place{}, stream)
}

// CreateCrossing makes one by an administrator's word, without a request.
func (s crossingService) CreateCrossing(ctx context.Context, r *apiv1.CreateCrossingRequest) (*apiv1.CreateCrossingResponse, error) {
	if err := s.everywhere(ctx); err != nil { // it is both sides' word
		return nil, err
	}
	result, err := s.crossings.create(ctx, r, r.GetCrossing(), func(tx *state.Tx, m *apiv1.Crossing) (state.Scope, error) {
		project, err := s.projects.find(ctx, tx, m.GetProject(), place{})
		if err != nil {
			return nil, inField(err, "project")
		}
		source, err := s.zones.find(ctx, tx, m.GetSourceZone(), place{})
		if err != nil {
			return nil, inField(err, "source_zone")
		}
		zone, err := s.zones.find(ctx, tx, m.GetZone(), place{})
		if err != nil {
			return nil, inField(err, "zone")
		}
		m.Project, m.ProjectId = project.GetName(), project.GetId()
		m.SourceZone, m.SourceZoneId, m.Zone, m.ZoneId = source.GetName(), source.GetId(), zone.GetName(), zone.GetId()
		m.Permissions, err = intake.Crossable(m.GetPermissions())
		return nil, err
	}, func(c *commandv1.Command, m *apiv1.Crossing) {
		c.Body = &commandv1.Command_CreateCrossing{CreateCrossing: &commandv1.CreateCrossing{Crossing: m}}
	})
	op, err := s.ended(ctx, "crossing.create", nil, result, err)
	return &apiv1.CreateCrossingResponse{Operation: op}, err
}

// ShortenCrossing makes one end earlier: people of either side may.
func (s crossingService) ShortenCrossing(ctx context.Context, r *apiv1.ShortenCrossingRequest) (*apiv1.ShortenCrossingResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.crossings.find(ctx, tx, r.GetCrossing(), place{})
		if err != nil {
			return nil, err
		}
		if err := s.crossings.matches(ctx, m); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_ShortenCrossing{ShortenCrossing: &commandv1.ShortenCrossing{
			CrossingId: m.GetId(), ExpectedRevision: m.GetRevision(), EndsAt: r.GetEndsAt(), Reason: callOf(ctx).Principal.Name + ": " + r.GetReason()}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m, err := s.crossings.shown(ctx, result)
	return &apiv1.ShortenCrossingResponse{Crossing: m}, err
}

// DeleteCrossing ends one: people of either side may.
func (s crossingService) DeleteCrossing(ctx context.Context, r *apiv1.DeleteCrossingRequest) (*apiv1.DeleteCrossingResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.crossings.find(ctx, tx, r.GetCrossing(), place{})
		if err != nil {
			return nil, err
		}
		if err := s.crossings.matches(ctx, m); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_DeleteCrossing{DeleteCrossing: &commandv1.DeleteNoun{Id: m.GetId(), ExpectedRevision: m.GetRevision()}}
		return nil, nil
	})
	op, err := s.ended(ctx, "crossing.delete", nil, result, err)
	return &apiv1.DeleteCrossingResponse{Operation: op}, err
}
