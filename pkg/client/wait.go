package client

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var errDone = errors.New("what was waited for has happened")

// Wait follows an operation to its end and tells each change of it. It survives the death of whoever serves it: it asks
// again, other servers where there are some, until ctx ends. It returns the operation as it was last seen, with its error
// where it failed. When ctx ends first, the operation goes on. Who follows with TellRepeated is told why nothing is heard. Of what a zone
// carries out by itself while it is cut off there is no watch; it is read again and again.
func (c *Client) Wait(ctx context.Context, op *apiv1.Operation, tell func(*apiv1.Operation)) (*apiv1.Operation, error) {
	op, err := follow(ctx, op, c.watchOperation(op.GetId()), c.readOperation(op.GetId()), tell, (*apiv1.Operation).GetDone)
	switch {
	case err == nil:
		return op, problem.FromProto(op.GetError())
	case problem.Is(err, problem.NotFound):
		return op, problem.New(problem.NotFound, "operation "+op.GetId()+" is no longer kept", "Look at what it was to change.")
	case ctx.Err() != nil:
		return op, noLonger(ctx, "It goes on. Follow it with: naru operation wait "+op.GetId(), op.GetKind()+" of "+op.GetTarget().GetName())
	}
	return op, err
}

// WaitRequest follows a request until it is carried out, and tells each change of it, as Wait does. It returns the request as it
// was last seen. Errors: WRONG_STATE where it ended otherwise or was returned for correction, which says how.
func (c *Client) WaitRequest(ctx context.Context, m *apiv1.Request, tell func(*apiv1.Request)) (*apiv1.Request, error) {
	m, err := follow(ctx, m, c.watchRequest(m.GetName()), nil, tell, decided)
	switch {
	case ctx.Err() != nil && err != nil:
		return m, noLonger(ctx, "It goes on. Follow it with: naru request wait "+m.GetName(), "request "+m.GetName())
	case err != nil || m.GetFulfilment() == apiv1.Request_DONE:
		return m, err
	}
	switch {
	case m.GetFulfilment() == apiv1.Request_FAILED:
		return m, problem.Newf(problem.WrongState, "What is not done is tried again with: naru request retry "+m.GetName(), "request %s failed: %s", m.GetName(), m.GetFulfilmentReason())
	case m.GetFulfilment() == apiv1.Request_LAPSED:
		return m, problem.Newf(problem.WrongState, "Ask anew with: naru request copy "+m.GetName(), "request %s lapsed: %s", m.GetName(), m.GetFulfilmentReason())
	case m.GetApproval() == apiv1.Request_RETURNED:
		return m, problem.Newf(problem.WrongState, "Correct it, and submit it again with: naru request submit "+m.GetName(), "request %s was returned: %s", m.GetName(), m.GetApprovalReason())
	case m.GetApproval() == apiv1.Request_REJECTED:
		return m, problem.Newf(problem.WrongState, "Its record says who decided: naru request show "+m.GetName(), "request %s was rejected: %s", m.GetName(), m.GetApprovalReason())
	}
	return m, problem.Newf(problem.WrongState, "Ask anew with: naru request copy "+m.GetName(), "request %s ended undecided: %s", m.GetName(), m.GetApprovalReason())
}

// decided reports whether nothing more comes of a request by itself.
func decided(m *apiv1.Request) bool {
	switch m.GetFulfilment() {
	case apiv1.Request_DONE, apiv1.Request_FAILED, apiv1.Request_LAPSED:
		return true
	case apiv1.Request_EXECUTING:
		return false
	}
	switch m.GetApproval() {
	case apiv1.Request_RETURNED, apiv1.Request_REJECTED, apiv1.Request_CANCELLED, apiv1.Request_EXPIRED:
		return true
	}
	return false
}

// noLonger says that the waiting ended, and not what was waited for.
func noLonger(ctx context.Context, next, what string) error {
	code := problem.Timeout
	if errors.Is(ctx.Err(), context.Canceled) {
		code = problem.Cancelled
	}
	e := problem.New(code, what+" is still under way", next)
	e.Problem.Title = "No longer waited for" // it was neither cancelled nor too slow
	return e
}

// follow tells a noun and each change of it until it is as wanted. It returns the noun as it was last seen, with NOT_FOUND where it
// was deleted. While the link of the zone that is asked is down, it is read instead of watched, where read says how.
func follow[M interface {
	proto.Message
	GetId() string
}](ctx context.Context, m M, open Open[M], read func(context.Context) (M, error), tell func(M), over func(M) bool) (M, error) {
	tell(m)
	if over(m) {
		return m, nil
	}
	var silence telling
	seen := func(is M) error {
		silence = telling{}
		if !proto.Equal(is, m) {
			m = is
			tell(m)
		}
		if over(m) {
			return errDone
		}
		return nil
	}
	err := Watch(ctx, open, func(ch Change[M]) error {
		switch {
		case ch.Type != apiv1.WatchType_PUT && ch.Type != apiv1.WatchType_DELETE, ch.Noun.GetId() != m.GetId():
			// A watch that is taken up again tells as deleted what does not match its filter.
			silence = telling{}
			return nil
		case ch.Type == apiv1.WatchType_DELETE:
			return problem.New(problem.NotFound, m.GetId()+" is no longer there", "")
		}
		return seen(ch.Noun)
	}, func(err error) error {
		if read != nil && problem.Is(problem.FromStatus(err), problem.LinkDown) {
			if is, err := read(ctx); err == nil {
				return seen(is)
			}
		}
		silence.repeated(ctx, err)
		return nil
	})
	if errors.Is(err, errDone) {
		err = nil
	}
	return m, err
}

func (c *Client) watchOperation(id string) Open[*apiv1.Operation] {
	return func(ctx context.Context, after string) (func() (Change[*apiv1.Operation], error), error) {
		s, err := c.Operations.WatchOperations(ctx, &apiv1.WatchOperationsRequest{Filter: "id=" + id, After: after})
		return Changes(s, err, func(m *apiv1.WatchOperationsResponse) Change[*apiv1.Operation] {
			return Change[*apiv1.Operation]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetOperation()}
		})
	}
}

func (c *Client) readOperation(id string) func(context.Context) (*apiv1.Operation, error) {
	return func(ctx context.Context) (*apiv1.Operation, error) {
		r, err := c.Operations.GetOperation(ctx, &apiv1.GetOperationRequest{Operation: id})
		return r.GetOperation(), err
	}
}

func (c *Client) watchRequest(name string) Open[*apiv1.Request] {
	return func(ctx context.Context, after string) (func() (Change[*apiv1.Request], error), error) {
		s, err := c.Requests.WatchRequests(ctx, &apiv1.WatchRequestsRequest{Filter: "name=" + name, After: after})
		return Changes(s, err, func(m *apiv1.WatchRequestsResponse) Change[*apiv1.Request] {
			return Change[*apiv1.Request]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetRequest()}
		})
	}
}
