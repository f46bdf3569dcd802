package service

import (
	"context"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// deliveryService shows what was sent.
type deliveryService struct {
	apiv1.UnimplementedDeliveryServiceServer
	*Service
}

func (s deliveryService) ListDeliveries(ctx context.Context, r *apiv1.ListDeliveriesRequest) (*apiv1.ListDeliveriesResponse, error) {
	items, next, err := s.deliveries.list(ctx, r, place{})
	return &apiv1.ListDeliveriesResponse{Deliveries: items, NextPageToken: next}, err
}

func (s deliveryService) GetDelivery(ctx context.Context, r *apiv1.GetDeliveryRequest) (*apiv1.GetDeliveryResponse, error) {
	m, err := s.deliveries.get(ctx, r.GetDelivery(), place{})
	return &apiv1.GetDeliveryResponse{Delivery: m}, err
}

func (s deliveryService) RetryDelivery(ctx context.Context, r *apiv1.RetryDeliveryRequest) (*apiv1.RetryDeliveryResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.deliveries.find(ctx, tx, r.GetDelivery(), place{})
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_RetryDelivery{RetryDelivery: &commandv1.RetryDelivery{DeliveryId: m.GetId()}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m, err := s.deliveries.shown(ctx, result)
	return &apiv1.RetryDeliveryResponse{Delivery: m}, err
}

func (s deliveryService) DropDelivery(ctx context.Context, r *apiv1.DropDeliveryRequest) (*apiv1.DropDeliveryResponse, error) {
	target := &apiv1.Reference{Kind: "delivery"}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.deliveries.find(ctx, tx, r.GetDelivery(), place{})
		if err != nil {
			return nil, err
		}
		target.Id, target.Name = m.GetId(), m.GetChannel()
		c.Body = &commandv1.Command_DropDelivery{DropDelivery: &commandv1.DeleteNoun{Id: m.GetId()}}
		return nil, nil
	})
	op, err := s.ended(ctx, "delivery.drop", target, result, err)
	return &apiv1.DropDeliveryResponse{Operation: op}, err
}
