package client

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Wait follows an operation to its end and tells each change of it. It survives the death of whoever serves it: it asks
// again until ctx ends. It returns the finished operation, with its error where it failed.
func (c *Client) Wait(ctx context.Context, op *apiv1.Operation, tell func(*apiv1.Operation)) (*apiv1.Operation, error) {
	tell(op)
	for !op.GetDone() {
		err := c.follow(ctx, &op, tell)
		if ctx.Err() != nil {
			return op, problem.New(problem.Timeout, "operation "+op.GetId()+" was still under way", "It goes on: naru operation show "+op.GetId())
		}
		if code := status.Code(err); err != nil && code != codes.Unavailable && code != codes.OutOfRange && code != codes.DeadlineExceeded && code != codes.Canceled {
			return op, err
		}
		if op.GetDone() {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(200*time.Millisecond + rand.N(300*time.Millisecond)):
		}
	}
	return op, problem.FromProto(op.GetError())
}

// follow reads the operation once, then its changes as they come, until it is done or the stream breaks.
func (c *Client) follow(ctx context.Context, op **apiv1.Operation, tell func(*apiv1.Operation)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	renew := func(now *apiv1.Operation) {
		if now.GetRevision() != (*op).GetRevision() {
			*op = now
			tell(now)
		}
	}
	watch, err := c.Operations.WatchOperations(ctx, &apiv1.WatchOperationsRequest{Filter: "id=" + (*op).GetId()})
	if err != nil {
		return err
	}
	for !(*op).GetDone() {
		m, err := watch.Recv()
		if err != nil {
			return err
		}
		if m.GetType() == apiv1.WatchType_PUT {
			renew(m.GetOperation())
		}
	}
	return nil
}
