package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/service"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
)

const (
	// unaryTime is how long a call may take; a caller may ask for less.
	unaryTime = 30 * time.Second
	// maxUnary bounds the calls under way, so that under overload some are answered in time and the rest are told so.
	maxUnary = 4096
	// maxStreams bounds the watches under way.
	maxStreams = 16384
)

// Authenticator says who calls.
type Authenticator interface {
	Authenticate(context.Context, auth.Credentials) (auth.Principal, error)
	// Recheck says whether a principal is still good.
	Recheck(context.Context, auth.Principal) error
}

// Authorizer decides what those who are known may do.
type Authorizer interface {
	// Authorize decides whether a call may be carried out at all; what it reaches, the service decides as it carries it out.
	Authorize(context.Context, service.Call) error
	// Disclose takes out of an answer, or of the problem in an error's place, what may not cross to the edge that asks.
	Disclose(ctx context.Context, zoneID string, answer proto.Message) error
}

// Recorder writes into the audit log what no command does.
type Recorder interface {
	// RecordRefusal writes that the call of a method was refused; bounded, so that a flood does no harm.
	RecordRefusal(ctx context.Context, method string, why error) error
	// RecordRead writes that something sensitive is about to be shown.
	RecordRead(ctx context.Context, method string, req proto.Message) error
}

// recordTime is how long a refusal waits for its entry.
const recordTime = 2 * time.Second

// gate is what every call passes, whichever way it came: it finds out who calls and decides whether they may, gives the
// call a trace id and a deadline, validates the request, strips the answer of internal fields, turns errors into problems,
// survives panics, counts and logs. Its two methods have the form of gRPC's interceptors.
type gate struct {
	who     Authenticator
	may     Authorizer
	audit   Recorder
	log     *slog.Logger
	metrics *metrics
	unaries atomic.Int64
	live    liveStreams
	current current
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	v := newVisit(ctx, info.FullMethod)
	answer, err := g.guardUnary(ctx, v, req, next)
	return answer, g.finish(v, err)
}

func (g *gate) guardUnary(ctx context.Context, v *visit, req any, next grpc.UnaryHandler) (answer any, err error) {
	defer recoverTo(&err)
	defer g.unaries.Add(-1)
	if g.unaries.Add(1) > maxUnary {
		return nil, problem.New(problem.TooMany, "the server has as many calls under way as it takes", "Try again in a moment.")
	}
	ctx, cancel := context.WithTimeout(ctx, unaryTime)
	defer cancel()
	if ctx, err = g.admit(ctx, v); err != nil {
		return nil, err
	}
	if err := validate(req.(proto.Message)); err != nil {
		return nil, err
	}
	v.call.Asked.About(req.(proto.Message))
	if err := g.recordRead(ctx, v, req.(proto.Message)); err != nil {
		return nil, err
	}
	if answer, err = next(ctx, req); err != nil {
		return nil, g.withhold(ctx, v, err)
	}
	if err := v.judged(); err != nil {
		return nil, err
	}
	schema.Strip(answer.(proto.Message))
	if v.call.ViaZoneID != "" {
		if err := g.may.Disclose(ctx, v.call.ViaZoneID, answer.(proto.Message)); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// stream is for answers that last. What a stream sends must have been stripped by whoever sends it: streams share it.
func (g *gate) stream(impl any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	v := newVisit(ss.Context(), info.FullMethod)
	return g.finish(v, g.guardStream(v, impl, ss, next))
}

func (g *gate) guardStream(v *visit, impl any, ss grpc.ServerStream, next grpc.StreamHandler) (err error) {
	defer recoverTo(&err)
	ctx, err := g.admit(ss.Context(), v)
	if err != nil {
		return err
	}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	leave, err := g.live.enter(v.principal, cut)
	if err != nil {
		return err
	}
	defer leave()
	g.metrics.streams.Inc()
	defer g.metrics.streams.Dec()
	err = next(impl, &guardedStream{ServerStream: ss, ctx: ctx, gate: g, visit: v, received: func(m proto.Message) error {
		v.call.Asked.About(m)
		return g.recordRead(ctx, v, m)
	}})
	var why *problem.Error
	if errors.As(context.Cause(ctx), &why) {
		return why
	}
	return g.withhold(ctx, v, err)
}

// admit decides whether the call may go on, and puts what the service needs to know of it into the context.
func (g *gate) admit(ctx context.Context, v *visit) (context.Context, error) {
	call, credentials, err := readCall(ctx)
	if err != nil {
		return nil, err
	}
	call.TraceID, call.ViaZoneID = v.trace, credentials.ViaZone
	call.Place, call.From = cameFrom(ctx)
	v.call = call
	if v.principal, err = g.who.Authenticate(ctx, credentials); err != nil {
		return nil, err
	}
	if err := g.sure(ctx, v); err != nil {
		return nil, err
	}
	if err := v.principal.Restricted(v.method); err != nil {
		return nil, err
	}
	call.Principal, call.Method, call.Asked = v.principal, v.method, &service.Asked{}
	v.call = call
	if err := g.may.Authorize(ctx, call); err != nil {
		return nil, err
	}
	return service.WithCall(ctx, call), nil
}

// withhold takes out of a refusal what may not cross to the edge that asks.
func (g *gate) withhold(ctx context.Context, v *visit, err error) error {
	var p *problem.Error
	if v.call.ViaZoneID == "" || problem.IsPlain(err) || !errors.As(err, &p) {
		return err
	}
	v.refused = p
	own := &problem.Error{Problem: proto.CloneOf(p.Problem)}
	if err := g.may.Disclose(ctx, v.call.ViaZoneID, own.Problem); err != nil {
		return err
	}
	return own
}

// recordRead writes the read of something sensitive before it is shown: no entry, no answer.
func (g *gate) recordRead(ctx context.Context, v *visit, req proto.Message) error {
	if m, _ := rights.MethodOf(v.method); !m.Sensitive {
		return nil
	}
	return g.audit.RecordRead(ctx, v.method, req)
}

// recordRefusal writes that the caller was not let in, or not to what it asked for, where whoever refused it has not done so: of a change
// every refusal, of a read those for which the caller may be to blame. What could not be read, or not be answered, is none. The refusal
// stands, written or not.
func (g *gate) recordRefusal(v *visit, p *problem.Error) {
	if v.call.Asked.Recorded() {
		return
	}
	switch p.Code() {
	case problem.Invalid, problem.TooLarge, problem.TooMany, problem.Unsupported, problem.Unavailable, problem.LinkDown, problem.Timeout, problem.Cancelled,
		problem.Internal:
		return
	}
	if m, _ := rights.MethodOf(v.method); !p.Code().OfRights() && m.Reads() {
		return
	}
	if v.refused != nil {
		p = v.refused
	}
	ctx, cancel := context.WithTimeout(context.Background(), recordTime)
	defer cancel()
	if err := g.audit.RecordRefusal(service.WithCall(ctx, v.call), v.method, p); err != nil {
		g.log.Warn("a refusal is not in the audit log", "method", v.method, "code", p.Code(), "actor", v.principal.Actor, "error", err, "trace_id", v.trace)
	}
}

// finish counts and logs the call and returns its error as a status that carries the problem.
func (g *gate) finish(v *visit, err error) error {
	took := time.Since(v.began)
	code, level := "OK", slog.LevelDebug
	var p *problem.Error
	if err != nil {
		// The problem may be shared with others who got the same refusal.
		p = &problem.Error{Problem: proto.CloneOf(problem.Of(err))}
		p.Problem.TraceId, p.Problem.Plain = v.trace, ""
		code, level = string(p.Code()), slog.LevelInfo
	}
	g.metrics.calls.WithLabelValues(v.method, code).Inc()
	g.metrics.seconds.WithLabelValues(v.method).Observe(took.Seconds())
	attributes := []slog.Attr{
		slog.String("method", v.method), slog.String("code", code), slog.String("actor", v.principal.Actor),
		slog.Duration("took", took), slog.String("trace_id", v.trace),
	}
	if code == string(problem.Internal) {
		level = slog.LevelError
		attributes = append(attributes, slog.Any("error", err))
	}
	g.log.LogAttrs(context.Background(), level, "api call", attributes...)
	if p == nil {
		return nil
	}
	g.recordRefusal(v, p)
	return problem.ToStatus(p)
}

// recoverTo turns a panic into an error: one bad call must not end the server.
func recoverTo(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
	}
}

// guardedStream is a stream with the gate's context.
type guardedStream struct {
	grpc.ServerStream
	ctx   context.Context
	gate  *gate
	visit *visit
	// received is told of each message that was validated.
	received func(proto.Message) error
}

func (s *guardedStream) Context() context.Context { return s.ctx }

// SendMsg leaves out what may not cross to the edge that asks. What is sent is shared with other streams, so that is done to a
// copy.
func (s *guardedStream) SendMsg(m any) error {
	if err := s.visit.judged(); err != nil {
		return err
	}
	if zone := s.visit.call.ViaZoneID; zone != "" {
		own := proto.Clone(m.(proto.Message))
		if err := s.gate.may.Disclose(s.ctx, zone, own); err != nil {
			return err
		}
		m = own
	}
	return s.ServerStream.SendMsg(m)
}

// RecvMsg validates what it receives.
func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if err := validate(m.(proto.Message)); err != nil {
		return err
	}
	return s.received(m.(proto.Message))
}
