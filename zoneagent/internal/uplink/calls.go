package uplink

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/desk"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// State is the session that this agent has now, if any.
type State struct {
	end    atomic.Pointer[link.ZoneEnd]
	own    atomic.Pointer[etcdstore.Ownership] // of the link, while this agent has it
	barred atomic.Pointer[bar]
	worked atomic.Bool // the session that ended last, or lasts, was open for long enough
	status atomic.Pointer[Status]
}

func (s *State) set(end *link.ZoneEnd) { s.end.Store(end) }

// Peers pass calls to the agent that owns the link.
type Peers interface {
	// UplinkAddress is where the agent that owns the link answers; empty where it is this one or nobody.
	UplinkAddress(ctx context.Context) (string, error)
	Call(ctx context.Context, address string, r *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error
}

// Desk answers the zone's own operators while the link is down. desk.Desk is one.
type Desk interface {
	Serve(ctx context.Context, own *etcdstore.Ownership, c desk.Call, reply proto.Message) error
}

// Central is the control plane as the zone's edges call it: over this agent's own session, or through the agent that has
// one. It is a connection for the generated clients. Safe for concurrent use.
type Central struct {
	State *State
	Peers Peers
	Desk  Desk
}

// Central returns the connection over this uplink.
func (u *Uplink) Central(p Peers, d Desk) *Central { return &Central{&u.state, p, d} }

// session is the one that this agent has; nil where it has none that is open.
func (s *State) session() *link.ZoneEnd {
	if s.status.Load().State == Connecting {
		return nil
	}
	return s.end.Load()
}

// notHere refuses a credential of a session that was begun while the zone was cut off: it counts no more, and the control plane is not
// shown it.
func notHere(credential string) error {
	if desk.Local(credential) {
		return problem.ToStatus(problem.New(problem.TokenExpired, "the zone is connected again, and sessions that were begun while it was cut off count no more", "Log in: naru login."))
	}
	return nil
}

// Invoke makes a unary call.
func (c *Central) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	if end := c.State.session(); end != nil {
		if err := notHere(first(md, "authorization")); err != nil {
			return err
		}
		return end.Invoke(ctx, method, args, reply, opts...)
	}
	if own := c.deskOf(method, first(md, "authorization")); own != nil {
		since, err := c.serve(ctx, own, method, args.(proto.Message), reply.(proto.Message), md)
		if err == nil {
			told(opts, since)
		}
		return problem.ToStatus(problem.FromStatus(err))
	}
	got := false
	err := c.pass(ctx, method, args.(proto.Message), func(r *zonev1.CallResponse) error {
		got = true
		if since := r.GetCutOffSince(); since != nil {
			told(opts, since.AsTime())
		}
		return proto.Unmarshal(r.GetBody(), reply.(proto.Message))
	})
	if err == nil && !got {
		err = io.ErrUnexpectedEOF
	}
	return problem.ToStatus(problem.FromStatus(err))
}

// deskOf is the ownership by which this agent serves a call at its desk; nil where it does not: it does not own the link, has a session,
// or is barred by the control plane, or the call is that one's alone to answer.
func (c *Central) deskOf(method, credential string) *etcdstore.Ownership {
	if c.Desk == nil || !desk.Takes(method, credential) || c.State.status.Load().State != Connecting {
		return nil
	}
	return c.State.own.Load()
}

// serve has the desk answer a call, and returns since when the link is down.
func (c *Central) serve(ctx context.Context, own *etcdstore.Ownership, method string, req, reply proto.Message, md metadata.MD) (since time.Time, err error) {
	since = c.State.status.Load().Since
	return since, c.Desk.Serve(ctx, own, desk.Call{
		Method: method, Credential: first(md, "authorization"), TraceID: first(md, "trace-id"), Client: first(md, link.MDClient), Request: req, Since: since,
	}, reply)
}

// told gives a caller the header that says since when the zone is cut off, where it asked for one.
func told(opts []grpc.CallOption, since time.Time) {
	for _, o := range opts {
		if h, ok := o.(grpc.HeaderCallOption); ok {
			*h.HeaderAddr = metadata.Join(*h.HeaderAddr, metadata.Pairs(gateway.ConsistencyHeader, gateway.LocalSince(since)))
		}
	}
}

// NewStream begins a server's stream.
func (c *Central) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if end := c.State.session(); end != nil {
		md, _ := metadata.FromOutgoingContext(ctx)
		if err := notHere(first(md, "authorization")); err != nil {
			return nil, err
		}
		return end.NewStream(ctx, desc, method, opts...)
	}
	ctx, cancel := context.WithCancel(ctx)
	return &passed{ctx: ctx, cancel: cancel, central: c, method: method, answers: make(chan []byte), ended: make(chan struct{})}, nil
}

// pass hands a call to the agent that owns the link.
func (c *Central) pass(ctx context.Context, method string, m proto.Message, send func(*zonev1.CallResponse) error) error {
	address, err := c.Peers.UplinkAddress(ctx)
	if err != nil || address == "" {
		if b := c.State.barred.Load(); b != nil {
			return problem.Newf(problem.LinkDown, b.standing.wayOut(), "the control plane lets this zone's agent in no more, it is %s: %w", b.standing, b.why)
		}
		return problem.New(problem.LinkDown, "the zone has no session with the control plane", "Try again when the link is up. Meanwhile the zone's own operators can log in here: naru login --local.")
	}
	body, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	return c.Peers.Call(ctx, address, &zonev1.CallRequest{
		Method: method, Body: body, Credential: first(md, "authorization"), IdempotencyKey: first(md, "idempotency-key"),
		IfMatch: first(md, "if-match"), LastEventId: first(md, "last-event-id"), Language: first(md, "accept-language"), TraceId: first(md, "trace-id"), Client: first(md, link.MDClient),
	}, send)
}

// Call carries out a call that another agent's edge passed on. It is never passed on again.
func (c *Central) Call(ctx context.Context, r *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error {
	in, out, stream, err := types(r.GetMethod())
	if err != nil {
		return err
	}
	req := in.New().Interface()
	if err := proto.Unmarshal(r.GetBody(), req); err != nil {
		return problem.Newf(problem.Invalid, "", "the body of %s: %w", r.GetMethod(), err)
	}
	md := metadata.MD{}
	for key, value := range map[string]string{
		"authorization": r.GetCredential(), "idempotency-key": r.GetIdempotencyKey(), "if-match": r.GetIfMatch(),
		"last-event-id": r.GetLastEventId(), "accept-language": r.GetLanguage(), "trace-id": r.GetTraceId(), link.MDClient: r.GetClient(),
	} {
		if value != "" {
			md.Set(key, value)
		}
	}
	end := c.State.session()
	if end == nil {
		own := c.deskOf(r.GetMethod(), r.GetCredential())
		if own == nil || stream {
			return problem.New(problem.LinkDown, "this agent does not hold the zone's link", "Try again.")
		}
		answer := out.New().Interface()
		since, err := c.serve(ctx, own, r.GetMethod(), req, answer, md)
		if err != nil {
			return err
		}
		body, err := proto.Marshal(answer)
		if err != nil {
			return err
		}
		return send(&zonev1.CallResponse{Body: body, CutOffSince: timestamppb.New(since)})
	}
	if err := notHere(r.GetCredential()); err != nil {
		return err
	}
	ctx = metadata.NewOutgoingContext(ctx, md)
	forward := func(m proto.Message) error {
		body, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		return send(&zonev1.CallResponse{Body: body})
	}
	if !stream {
		answer := out.New().Interface()
		if err := end.Invoke(ctx, r.GetMethod(), req, answer); err != nil {
			return err
		}
		return forward(answer)
	}
	s, err := end.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, r.GetMethod())
	if err != nil {
		return err
	}
	if err := errors.Join(s.SendMsg(req), s.CloseSend()); err != nil {
		return err
	}
	for {
		answer := out.New().Interface()
		if err := s.RecvMsg(answer); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := forward(answer); err != nil {
			return err
		}
	}
}

// types finds a method's messages in the descriptors.
func types(method string) (in, out protoreflect.MessageType, stream bool, err error) {
	m := schema.Method(method)
	if m == nil {
		return nil, nil, false, problem.New(problem.Unsupported, "there is no method "+method, "")
	}
	if in, err = protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName()); err != nil {
		return nil, nil, false, err
	}
	out, err = protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	return in, out, m.IsStreamingServer(), err
}

func first(md metadata.MD, key string) string {
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// passed is the calling end of a stream that another agent carries.
type passed struct {
	ctx     context.Context
	cancel  context.CancelFunc
	central *Central
	method  string
	request proto.Message
	answers chan []byte
	ended   chan struct{}
	err     error // set before ended is closed
}

func (p *passed) Header() (metadata.MD, error) { return nil, nil }
func (p *passed) Trailer() metadata.MD         { return nil }
func (p *passed) Context() context.Context     { return p.ctx }

func (p *passed) SendMsg(m any) error {
	p.request = m.(proto.Message)
	return nil
}

func (p *passed) CloseSend() error {
	go func() {
		defer p.cancel()
		defer close(p.ended)
		p.err = p.central.pass(p.ctx, p.method, p.request, func(r *zonev1.CallResponse) error {
			select {
			case p.answers <- r.GetBody():
				return nil
			case <-p.ctx.Done():
				return p.ctx.Err()
			}
		})
	}()
	return nil
}

func (p *passed) RecvMsg(m any) error {
	select {
	case body := <-p.answers:
		return proto.Unmarshal(body, m.(proto.Message))
	case <-p.ended:
		if p.err == nil {
			return io.EOF
		}
		return problem.ToStatus(problem.FromStatus(p.err))
	}
}
