package link

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/problem"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// maxCalls is how many calls a session carries at once.
	maxCalls = 256
	// streamCredit is how many messages of a stream may be on their way to a caller that has not yet taken them.
	streamCredit = 16
	// unaryTimeout bounds a unary call whose caller names no deadline.
	unaryTimeout = 30 * time.Second
)

// callTable is the zone's end of a session's calls.
type callTable struct {
	s *session

	mu   sync.Mutex
	last uint64
	live map[uint64]*zoneCall
	over bool
	// cancels are the calls whose end the far side must still be told, wake that there are some.
	cancels []uint64
	wake    chan struct{}
}

// zoneCall is one call of this end, from its request until the far end's last word on it.
type zoneCall struct {
	id     uint64
	method *wire.Method
	// answers has room for every message that the far end may send.
	answers chan *linkv1.CallResponse
	// lost is closed, with cause set before, when no more answers will come.
	lost  chan struct{}
	cause error
	// sent: the request was handed to the writer, so it may have been carried out. Guarded by the table.
	sent, cancelled bool
}

// begin takes up a call, if the session has room for it.
func (t *callTable) begin(m *wire.Method, credit int) (*zoneCall, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.over:
		return nil, linkDown(false, m)
	case len(t.live) >= maxCalls:
		return nil, problem.New(problem.TooMany, fmt.Sprintf("%d calls are under way over this zone's link", maxCalls), "Try again in a moment.")
	}
	t.last++
	c := &zoneCall{id: t.last, method: m, answers: make(chan *linkv1.CallResponse, credit+1), lost: make(chan struct{})}
	t.live[c.id] = c
	t.s.metrics.callsRunning.Inc()
	return c, nil
}

// finish forgets a call and tells its caller that nothing more will come.
func (t *callTable) finish(c *zoneCall, cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finishLocked(c, cause)
}

func (t *callTable) finishLocked(c *zoneCall, cause error) {
	if t.live[c.id] != c {
		return
	}
	delete(t.live, c.id)
	t.s.metrics.callsRunning.Dec()
	c.cause = cause
	close(c.lost)
}

// run tells the far end of cancelled calls, and ends every call when the session ends.
func (t *callTable) run(ctx context.Context) error {
	defer t.close()
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return nil
		}
		t.mu.Lock()
		cancels := t.cancels
		t.cancels = nil
		t.mu.Unlock()
		for _, id := range cancels {
			if err := t.s.post(ctx, t.s.call, linkv1.Type_CALL_CANCEL, &linkv1.CallCancel{Call: id}); err != nil {
				return err
			}
		}
	}
}

func (t *callTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	for _, c := range t.live {
		t.finishLocked(c, linkDown(c.sent, c.method))
	}
}

// take is the session's handler of what comes for calls.
func (t *callTable) take(m proto.Message, f *linkv1.Frame) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch m := m.(type) {
	case *linkv1.CallResponse:
		c := t.live[m.Call]
		if c == nil {
			return nil // it was withheld in part, and is over for its caller
		}
		if m.Method != c.method.Name {
			return broken("call %d is %s, and was answered as %s", c.id, c.method.Name, m.Method)
		}
		if err := windowed(c.answers, m); err != nil {
			return err
		}
		if m.End {
			t.finishLocked(c, nil)
		}
		return nil
	case *linkv1.Withheld:
		if c := t.live[m.Call]; c != nil {
			t.finishLocked(c, refusedByBroker("the answer", m.Reason, c.sent))
		}
		return nil
	case *linkv1.Refused:
		if m.Withheld.Type != linkv1.Type_CALL_REQUEST {
			return fmt.Errorf("%w: %s: %s", ErrWithheld, m.Withheld.Type, m.Withheld.Reason)
		}
		if c := t.live[m.Withheld.Call]; c != nil {
			t.finishLocked(c, refusedByBroker("the call", m.Withheld.Reason, false))
		}
		return nil
	}
	return broken("%s at a zone's end", f.Type)
}

// request sends a call.
func (t *callTable) request(ctx context.Context, c *zoneCall, body []byte, credit int) error {
	r := &linkv1.CallRequest{Call: c.id, Method: c.method.Name, Body: body, Credit: uint32(credit)}
	credential, err := takeAlong(ctx, r)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		r.DeadlineMs = uint32(max(1, min(time.Until(deadline).Milliseconds(), 1<<31)))
	}
	if credential != "" {
		r.SealedCredential = t.s.secrets.sealCredential(c.id, r.Method, body, []byte(credential))
	}
	payload, err := t.s.encode(linkv1.Type_CALL_REQUEST, r)
	if err != nil {
		return err
	}
	if most := t.s.checker.MaxPayload(linkv1.Type_CALL_REQUEST); len(payload) > most {
		return problem.Newf(problem.TooLarge, "Send less.", "the request takes %d bytes, over the link at most %d", len(payload), most)
	}
	// Said before it is true: when the session ends in this moment, nobody can tell.
	t.mu.Lock()
	c.sent = true
	t.mu.Unlock()
	select {
	case t.s.call <- outgoing{kind: linkv1.Type_CALL_REQUEST, payload: payload}:
		return nil
	case <-c.lost:
		return c.cause
	case <-ctx.Done():
		t.finish(c, ctx.Err()) // the writer did not take it
		return ctx.Err()
	}
}

// cancel says that nobody waits for a call any more. One that was sent keeps its place until the far end has said its
// last word on it, so that the far end never has more to carry out than maxCalls. What still comes of it finds room: no
// more credit is given.
func (t *callTable) cancel(c *zoneCall) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.live[c.id] != c || c.cancelled:
	case !c.sent:
		t.finishLocked(c, context.Canceled)
	default:
		c.cancelled = true
		t.cancels = append(t.cancels, c.id)
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// invoke carries out a unary call.
func (t *callTable) invoke(ctx context.Context, m *wire.Method, args, reply proto.Message) error {
	body, err := proto.Marshal(args)
	if err != nil {
		return problem.ToStatus(err)
	}
	if _, ok := ctx.Deadline(); !ok {
		bounded, cancel := context.WithTimeout(ctx, unaryTimeout)
		defer cancel()
		ctx = bounded
	}
	c, err := t.begin(m, 1)
	if err != nil {
		return problem.ToStatus(err)
	}
	if err := t.request(ctx, c, body, 1); err != nil {
		t.cancel(c)
		return problem.ToStatus(err)
	}
	answer, err := t.next(ctx, c)
	if err != nil {
		return err
	}
	if err := failed(answer); err != nil {
		return err
	}
	if !answer.End {
		t.cancel(c)
		return problem.ToStatus(problem.New(problem.Internal, m.Name+" was answered with a stream", ""))
	}
	return proto.Unmarshal(answer.Body, reply)
}

// next returns the next message of an answer.
func (t *callTable) next(ctx context.Context, c *zoneCall) (*linkv1.CallResponse, error) {
	select {
	case answer := <-c.answers:
		return answer, nil
	default:
	}
	select {
	case answer := <-c.answers:
		return answer, nil
	case <-c.lost:
		select {
		case answer := <-c.answers:
			return answer, nil
		default:
		}
		return nil, problem.ToStatus(c.cause)
	case <-ctx.Done():
		t.cancel(c)
		return nil, problem.ToStatus(ctx.Err())
	}
}
