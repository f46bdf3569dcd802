package api

import (
	"context"
	"io"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// maxMessage bounds a request, over every way in.
const maxMessage = 1 << 20

// Dispatcher carries out calls within this process, through the same gate as calls from outside. It is a
// grpc.ServiceRegistrar; services are registered before the first call. Safe for concurrent use after that.
type Dispatcher struct {
	gate    *gate
	methods map[string]method
}

// method is one method of a registered service.
type method struct {
	impl   any
	unary  grpc.MethodHandler
	stream grpc.StreamHandler
	edge   apiv1.Edge
}

func newDispatcher(g *gate) *Dispatcher { return &Dispatcher{gate: g, methods: map[string]method{}} }

// RegisterService takes in a service's methods.
func (d *Dispatcher) RegisterService(desc *grpc.ServiceDesc, impl any) {
	edges := edgesOf(desc.ServiceName)
	for _, m := range desc.Methods {
		d.methods["/"+desc.ServiceName+"/"+m.MethodName] = method{impl: impl, unary: m.Handler, edge: edges[m.MethodName]}
	}
	for _, s := range desc.Streams {
		d.methods["/"+desc.ServiceName+"/"+s.StreamName] = method{impl: impl, stream: s.Handler, edge: edges[s.StreamName]}
	}
}

// edgesOf reads from the descriptors how an edge serves a service's methods.
func edgesOf(service string) map[string]apiv1.Edge {
	out := map[string]apiv1.Edge{}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return out
	}
	methods := d.(protoreflect.ServiceDescriptor).Methods()
	for i := range methods.Len() {
		edge, _ := proto.GetExtension(methods.Get(i).Options(), apiv1.E_Edge).(apiv1.Edge)
		out[string(methods.Get(i).Name())] = edge
	}
	return out
}

// Methods returns the names of all methods, in order.
func (d *Dispatcher) Methods() []string { return slices.Sorted(maps.Keys(d.methods)) }

// LinkCall is a call that a user made at a zone's edge and the zone's link carried.
type LinkCall struct {
	// ZoneID is the zone's, from its certificate.
	ZoneID string
	// Method is /naru.api.v1.VMService/CreateVM, Body its request message.
	Method string
	Body   []byte
	// Token is the bearer token that the user sent; the only thing that is believed of who calls.
	Token string

	IdempotencyKey, IfMatch, LastEventID, Language, TraceID string

	// Client is the address of the client at the edge, as the zone's agent says it; may be empty.
	Client string
}

// Dispatch carries out a call of a zone's user. Each message of the answer goes to send, as protobuf: one for a unary
// method, any number for a watch; send may block, which holds up this call only, and an error of it ends the call. A
// refusal is a problem. Methods that no edge may reach are refused.
func (d *Dispatcher) Dispatch(ctx context.Context, c LinkCall, send func(body []byte) error) error {
	m, ok := d.methods[c.Method]
	switch {
	case !ok || m.edge == apiv1.Edge_EDGE_UNSPECIFIED:
		return problem.New(problem.Forbidden, c.Method+" cannot be called from a zone", "Call it in the control network.")
	case len(c.Body) > maxMessage:
		return problem.Newf(problem.TooLarge, "Send less.", "the request is larger than %d bytes", maxMessage)
	}
	md := metadata.MD{}
	for key, value := range map[string]string{
		idempotencyKey: c.IdempotencyKey, ifMatchKey: c.IfMatch, lastEventIDKey: c.LastEventID,
		"accept-language": c.Language, traceKey: c.TraceID,
	} {
		if value != "" {
			md.Set(key, value)
		}
	}
	if c.Token != "" {
		md.Set(authorizationKey, "Bearer "+c.Token)
	}
	ctx = withOrigin(metadata.NewIncomingContext(ctx, md), origin{zone: c.ZoneID, from: c.Client})
	read := func(v any) error {
		if err := (proto.UnmarshalOptions{DiscardUnknown: false}).Unmarshal(c.Body, v.(proto.Message)); err != nil {
			return problem.New(problem.Invalid, "the body is no message of "+c.Method, "Use a client of this version.")
		}
		return nil
	}
	write := func(v any) error {
		body, err := proto.Marshal(v.(proto.Message))
		if err != nil {
			return err
		}
		return send(body)
	}
	return problem.FromStatus(d.run(ctx, c.Method, m, read, write))
}

// run carries out one call: read fills the request, write takes each message of the answer.
func (d *Dispatcher) run(ctx context.Context, name string, m method, read, write func(any) error) error {
	if m.stream != nil {
		return d.gate.stream(m.impl, &localStream{ctx: ctx, read: read, write: write}, &grpc.StreamServerInfo{FullMethod: name, IsServerStream: true}, m.stream)
	}
	answer, err := m.unary(m.impl, ctx, read, func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return d.gate.unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: name}, next)
	})
	if err != nil {
		return problem.ToStatus(err)
	}
	return write(answer)
}

// localStream is the serving side of a stream within the process.
type localStream struct {
	ctx         context.Context
	read, write func(any) error
	once        sync.Once
}

func (s *localStream) Context() context.Context     { return s.ctx }
func (s *localStream) SetHeader(metadata.MD) error  { return nil }
func (s *localStream) SendHeader(metadata.MD) error { return nil }
func (s *localStream) SetTrailer(metadata.MD)       {}
func (s *localStream) SendMsg(m any) error          { return s.write(m) }

func (s *localStream) RecvMsg(m any) error {
	err := io.EOF
	s.once.Do(func() { err = s.read(m) })
	return err
}
