package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type flavorService struct {
	apiv1.UnimplementedFlavorServiceServer
	*Service
}

func flavorChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Flavor) proto.Message {
	return &apiv1.WatchFlavorsResponse{Type: kind, Revision: revision, Flavor: m}
}

func (s flavorService) ListFlavors(ctx context.Context, r *apiv1.ListFlavorsRequest) (*apiv1.ListFlavorsResponse, error) {
	items, next, err := s.flavors.list(ctx, r, place{})
	return &apiv1.ListFlavorsResponse{Flavors: items, NextPageToken: next}, err
}

func (s flavorService) GetFlavor(ctx context.Context, r *apiv1.GetFlavorRequest) (*apiv1.GetFlavorResponse, error) {
	m, err := s.flavors.get(ctx, r.GetFlavor(), place{})
	return &apiv1.GetFlavorResponse{Flavor: m}, err
}

func (s flavorService) WatchFlavors(r *apiv1.WatchFlavorsRequest, stream grpc.ServerStreamingServer[apiv1.WatchFlavorsResponse]) error {
	return s.flavors.watch(r, place{}, stream)
}

func (s flavorService) CreateFlavor(ctx context.Context, r *apiv1.CreateFlavorRequest) (*apiv1.CreateFlavorResponse, error) {
	result, err := s.flavors.create(ctx, r, r.GetFlavor(), anyName[*apiv1.Flavor], func(c *commandv1.Command, m *apiv1.Flavor) {
		c.Body = &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: m}}
	})
	op, err := s.flavors.made(ctx, result, err)
	return &apiv1.CreateFlavorResponse{Operation: op}, err
}

func (s flavorService) UpdateFlavor(ctx context.Context, r *apiv1.UpdateFlavorRequest) (*apiv1.UpdateFlavorResponse, error) {
	m, err := s.flavors.update(ctx, r, r.GetFlavor(), r.GetUpdateMask(), place{}, nil, func(c *commandv1.Command, m *apiv1.Flavor, expected string) {
		c.Body = &commandv1.Command_UpdateFlavor{UpdateFlavor: &commandv1.UpdateFlavor{Flavor: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateFlavorResponse{Flavor: m}, err
}

func (s flavorService) DeleteFlavor(ctx context.Context, r *apiv1.DeleteFlavorRequest) (*apiv1.DeleteFlavorResponse, error) {
	op, err := s.flavors.remove(ctx, r, r.GetFlavor(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteFlavor{DeleteFlavor: d}
	})
	return &apiv1.DeleteFlavorResponse{Operation: op}, err
}
