package link

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// maxCredit is how many messages of a stream a zone may ask for ahead.
const maxCredit = 1024

// Call is a call of a user at a zone's edge.
type Call struct {
	// Peer is the zone's end; whose user calls is told by the credential alone.
	Peer Peer
	// Method is as gRPC has it, Streams whether its answer is a stream, Body its request message.
	Method  string
	Streams bool
	Body    []byte
	// Credential is the bearer token that the user sent, without "Bearer "; empty without.
	Credential string

	IdempotencyKey, IfMatch, LastEventID, Language, TraceID string

	// Client is the address of the client at the edge, as the zone's end says it; may be empty.
	Client string

	serving *serving
}

// Send sends one message of the answer, and waits while the caller has not asked for more.
func (c *Call) Send(ctx context.Context, body []byte) error { return c.serving.send(ctx, body) }

// servingTable is the hub's end of a session's calls.
type servingTable struct {
	s       *session
	handler CallHandler

	mu   sync.Mutex
	live map[uint64]*serving
	work sync.WaitGroup
	over bool
}

// serving is one call that is being carried out.
type serving struct {
	t      *servingTable
	id     uint64
	method *wire.Method
	stop   context.CancelCauseFunc

	// held is a unary method's answer, kept until its end is known, so that one frame carries both.
	held     []byte
	answered bool

	mu     sync.Mutex
	credit int
	more   chan struct{} // has a token when credit may have grown
}

// run ends with the session, when all calls have.
func (t *servingTable) run(ctx context.Context) error {
	<-ctx.Done()
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.work.Wait()
	return nil
}

// take is the session's handler of what comes for calls.
func (t *servingTable) take(m proto.Message, f *linkv1.Frame) error {
	switch m := m.(type) {
	case *linkv1.CallRequest:
		return t.begin(m)
	case *linkv1.CallCancel:
		t.cancel(m.Call, context.Canceled)
		return nil
	case *linkv1.CallCredit:
		if c := t.find(m.Call); c != nil {
			return c.grant(int(m.Messages))
		}
		return nil // it has ended meanwhile
	case *linkv1.Withheld:
		return nil // the caller was told
	case *linkv1.Refused:
		t.cancel(m.Withheld.Call, fmt.Errorf("%w: the answer: %s", ErrWithheld, m.Withheld.Reason))
		return nil
	}
	return broken("%s at the hub's end", f.Type)
}

func (t *servingTable) find(id uint64) *serving {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live[id]
}

func (t *servingTable) cancel(id uint64, cause error) {
	if c := t.find(id); c != nil {
		c.stop(cause)
	}
}

// begin carries out a call in a goroutine of its own.
func (t *servingTable) begin(m *linkv1.CallRequest) error {
	method, ok := t.s.checker.Method(m.Method)
	if !ok {
		return broken("a call of %s", m.Method) // Check has refused it
	}
	call := &Call{
		Peer: t.s.peer, Method: m.Method, Streams: method.Streams, Body: m.Body,
		IdempotencyKey: m.IdempotencyKey, IfMatch: m.IfMatch, LastEventID: m.LastEventId, Language: m.Language, TraceID: m.TraceId, Client: m.Client,
	}
	if len(m.SealedCredential) > 0 {
		credential, err := t.s.secrets.openCredential(m.Call, m.Method, m.Body, m.SealedCredential)
		if err != nil {
			return broken("call %d: %w", m.Call, err)
		}
		call.Credential = string(credential)
	}
	ctx, stop := context.WithCancelCause(t.s.ctx)
	c := &serving{t: t, id: m.Call, method: method, stop: stop, credit: int(m.Credit), more: make(chan struct{}, 1)}
	call.serving = c

	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.over:
		stop(nil)
		return nil
	case t.live[m.Call] != nil:
		stop(nil)
		return broken("call %d began twice", m.Call)
	case len(t.live) >= 2*maxCalls:
		// A zone keeps to maxCalls; it may hear the last word on a call a moment before that call has given its place back.
		stop(nil)
		return broken("more than %d calls at once", 2*maxCalls)
	}
	t.live[m.Call] = c
	t.s.metrics.callsRunning.Inc()
	t.work.Go(func() { t.serve(ctx, c, call, time.Duration(m.DeadlineMs)*time.Millisecond) })
	return nil
}

// serve runs the handler and says the last word on the call.
func (t *servingTable) serve(ctx context.Context, c *serving, call *Call, within time.Duration) {
	began := time.Now()
	defer c.stop(nil)
	if within > 0 {
		bounded, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		ctx = bounded
	}
	err := t.handler.Serve(ctx, call)
	if err == nil && !call.Streams && !c.answered {
		err = fmt.Errorf("serve %s: the handler gave no answer", call.Method)
	}
	last := &linkv1.CallResponse{Call: c.id, Method: call.Method, End: true}
	if err != nil {
		last.Error, last.GrpcCode = explain(err)
		if last.Error.Code == string(problem.Internal) {
			t.s.log.Error("a call failed inside", "method", call.Method, "zone", call.Peer.Zone, "trace", call.TraceID, "error", err)
		}
	} else {
		last.Body = c.held
	}
	t.s.metrics.called(codes.Code(last.GrpcCode), began)
	_ = t.respond(t.s.ctx, last)
	// An answer that the zone does not read keeps its place: else a zone could make this end hold answers without bound.
	t.mu.Lock()
	delete(t.live, c.id)
	t.mu.Unlock()
	t.s.metrics.callsRunning.Dec()
}

// respond sends one frame of an answer. What is too large for a frame ends the call instead.
func (t *servingTable) respond(ctx context.Context, r *linkv1.CallResponse) error {
	payload, err := t.s.encode(linkv1.Type_CALL_RESPONSE, r)
	if err != nil {
		return err
	}
	if most := t.s.checker.MaxPayload(linkv1.Type_CALL_RESPONSE); len(payload) > most {
		err := problem.Newf(problem.TooLarge, "Ask for a smaller page.", "the answer takes %d bytes, over the link at most %d", len(payload), most)
		if !r.End {
			return err
		}
		r.Body = nil
		r.Error, r.GrpcCode = explain(err)
		if payload, err := t.s.encode(linkv1.Type_CALL_RESPONSE, r); err == nil {
			return t.s.put(ctx, t.s.call, outgoing{kind: linkv1.Type_CALL_RESPONSE, payload: payload})
		}
		return err
	}
	return t.s.put(ctx, t.s.call, outgoing{kind: linkv1.Type_CALL_RESPONSE, payload: payload})
}

// send is Call.Send. Serve calls it from one goroutine at a time.
func (c *serving) send(ctx context.Context, body []byte) error {
	if !c.method.Streams {
		if c.answered {
			return fmt.Errorf("%s was answered twice", c.method.Name)
		}
		c.answered, c.held = true, body
		return nil
	}
	for !c.spend() {
		select {
		case <-c.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return c.t.respond(ctx, &linkv1.CallResponse{Call: c.id, Method: c.method.Name, Body: body})
}

func (c *serving) spend() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.credit == 0 {
		return false
	}
	c.credit--
	return true
}

func (c *serving) grant(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.credit += n; c.credit > maxCredit {
		return broken("credit for %d messages of call %d", c.credit, c.id)
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
	return nil
}

// explain returns an error as it may cross: its problem, cut to what the rules let through.
func explain(err error) (*apiv1.Problem, uint32) {
	p := proto.CloneOf(problem.Of(err))
	code := problem.GRPCCode(problem.Code(p.Code))
	p.Code, p.Title, p.Detail = shorten(p.Code, 64), shorten(p.Title, 512), shorten(p.Detail, 8192)
	p.Next, p.TraceId = shorten(p.Next, 1024), shorten(p.TraceId, 64)
	p.Errors = p.Errors[:min(len(p.Errors), 64)]
	for _, e := range p.Errors {
		e.Field, e.Detail = shorten(e.Field, 256), shorten(e.Detail, 1024)
	}
	return p, uint32(code)
}
