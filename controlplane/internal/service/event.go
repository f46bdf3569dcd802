package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

type eventService struct {
	apiv1.UnimplementedEventServiceServer
	*Service
}

func eventChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Event) proto.Message {
	return &apiv1.WatchEventsResponse{Type: kind, Revision: revision, Event: m}
}

func (s eventService) ListEvents(ctx context.Context, r *apiv1.ListEventsRequest) (*apiv1.ListEventsResponse, error) {
	items, next, err := s.events.list(ctx, r, place{project: r.GetProject(), zone: r.GetZone()})
	return &apiv1.ListEventsResponse{Events: items, NextPageToken: next}, err
}

func (s eventService) WatchEvents(r *apiv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apiv1.WatchEventsResponse]) error {
	return s.events.watch(r, place{project: r.GetProject(), zone: r.GetZone()}, stream)
}
