package client

import (
	"context"
	"errors"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var errDone = errors.New("the operation is done")

// Wait follows an operation to its end and tells each change of it. It survives the death of whoever serves it: it asks
// again, other servers where there are some, until ctx ends. It returns the operation as it was last seen, with its error
// where it failed. When ctx ends first, the operation goes on. Who follows with TellRepeated is told why nothing is heard.
func (c *Client) Wait(ctx context.Context, op *apiv1.Operation, tell func(*apiv1.Operation)) (*apiv1.Operation, error) {
	tell(op)
	if op.GetDone() {
		return op, problem.FromProto(op.GetError())
	}
	var silence telling
	err := Watch(ctx, c.watchOperation(op.GetId()), func(ch Change[*apiv1.Operation]) error {
		silence = telling{}
		switch {
		case ch.Noun.GetId() != op.GetId():
			// A watch that is taken up again tells as deleted what does not match its filter.
			return nil
		case ch.Type == apiv1.WatchType_DELETE:
			return problem.New(problem.NotFound, "operation "+op.GetId()+" is no longer kept", "Look at what it was to change.")
		case ch.Type != apiv1.WatchType_PUT:
			return nil
		}
		if ch.Noun.GetRevision() != op.GetRevision() {
			op = ch.Noun
			tell(op)
		}
		if op.GetDone() {
			return errDone
		}
		return nil
	}, func(err error) error {
		silence.repeated(ctx, err)
		return nil
	})
	switch {
	case errors.Is(err, errDone):
		return op, problem.FromProto(op.GetError())
	case ctx.Err() != nil:
		code := problem.Timeout
		if errors.Is(ctx.Err(), context.Canceled) {
			code = problem.Cancelled
		}
		e := problem.Newf(code, "It goes on. Follow it with: naru operation wait "+op.GetId(),
			"%s of %s is still under way", op.GetKind(), op.GetTarget().GetName())
		e.Problem.Title = "No longer waited for" // the operation was neither cancelled nor too slow
		return op, e
	}
	return op, err
}

func (c *Client) watchOperation(id string) Open[*apiv1.Operation] {
	return func(ctx context.Context, after string) (func() (Change[*apiv1.Operation], error), error) {
		s, err := c.Operations.WatchOperations(ctx, &apiv1.WatchOperationsRequest{Filter: "id=" + id, After: after})
		return Changes(s, err, func(m *apiv1.WatchOperationsResponse) Change[*apiv1.Operation] {
			return Change[*apiv1.Operation]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetOperation()}
		})
	}
}
