package service

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type operationService struct {
	apiv1.UnimplementedOperationServiceServer
	*Service
}

func operationChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Operation) proto.Message {
	return &apiv1.WatchOperationsResponse{Type: kind, Revision: revision, Operation: m}
}

func (s operationService) ListOperations(ctx context.Context, r *apiv1.ListOperationsRequest) (*apiv1.ListOperationsResponse, error) {
	items, next, err := s.operations.list(ctx, r, place{project: r.GetProject(), zone: r.GetZone()})
	return &apiv1.ListOperationsResponse{Operations: items, NextPageToken: next}, err
}

func (s operationService) GetOperation(ctx context.Context, r *apiv1.GetOperationRequest) (*apiv1.GetOperationResponse, error) {
	m, err := s.operations.get(ctx, r.GetOperation(), place{project: r.GetProject(), zone: r.GetZone()})
	return &apiv1.GetOperationResponse{Operation: m}, err
}

func (s operationService) WatchOperations(r *apiv1.WatchOperationsRequest, stream grpc.ServerStreamingServer[apiv1.WatchOperationsResponse]) error {
	return s.operations.watch(r, place{project: r.GetProject(), zone: r.GetZone()}, stream)
}

// ResolveOperation ends an operation that hangs, by an administrator's word.
func (s operationService) ResolveOperation(ctx context.Context, r *apiv1.ResolveOperationRequest) (*apiv1.ResolveOperationResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		op, err := s.operations.find(ctx, tx, r.GetOperation(), place{})
		if err != nil {
			return nil, err
		}
		if op.GetDone() {
			return nil, problem.Newf(problem.WrongState, "Nothing is left to do.", "operation %s is done", op.GetId())
		}
		c.Body = &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
			OperationId: op.GetId(), Outcome: r.GetOutcome(), Reason: r.GetReason(), Deadline: timestamppb.New(time.Now().Add(operationTime)),
		}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return &apiv1.ResolveOperationResponse{Operation: result.GetOperation()}, nil
}
