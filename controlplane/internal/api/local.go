package api

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/naru-project/naru/pkg/problem"
)

// localConn is a gRPC connection to the services of this process: what the REST gateway stands before. Messages are handed
// over as they are, without being encoded; both sides take them for read-only.
type localConn struct {
	d *Dispatcher
}

func (c localConn) method(name string) (method, error) {
	m, ok := c.d.methods[name]
	if !ok {
		return m, problem.ToStatus(problem.New(problem.Unsupported, "there is no method "+name+" here", "GET /openapi.json lists every path."))
	}
	return m, nil
}

// Invoke carries out a unary call.
func (c localConn) Invoke(ctx context.Context, name string, args, reply any, opts ...grpc.CallOption) error {
	m, err := c.method(name)
	if err != nil {
		return err
	}
	read := func(v any) error { share(v, args); return nil }
	write := func(v any) error { share(reply, v); return nil }
	h := &localHeader{name: name}
	err = c.d.run(grpc.NewContextWithServerTransportStream(serverSide(ctx), h), name, m, read, write)
	for _, o := range opts {
		if asked, ok := o.(grpc.HeaderCallOption); ok {
			*asked.HeaderAddr = h.md
		}
	}
	return err
}

// localHeader takes the header of a unary call's answer.
type localHeader struct {
	name string
	md   metadata.MD
}

func (h *localHeader) Method() string                  { return h.name }
func (h *localHeader) SetHeader(md metadata.MD) error  { h.md = metadata.Join(h.md, md); return nil }
func (h *localHeader) SendHeader(md metadata.MD) error { return h.SetHeader(md) }
func (h *localHeader) SetTrailer(metadata.MD) error    { return nil }

// NewStream begins a stream; the method runs once the request is sent.
func (c localConn) NewStream(ctx context.Context, _ *grpc.StreamDesc, name string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	m, err := c.method(name)
	if err != nil {
		return nil, err
	}
	return &localCall{ctx: ctx, conn: c, name: name, method: m, answers: make(chan any), ended: make(chan struct{})}, nil
}

// serverSide turns what the caller sends along into what the service receives.
func serverSide(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	return metadata.NewIncomingContext(ctx, md)
}

// localCall is the calling side of a stream within the process.
type localCall struct {
	ctx     context.Context
	conn    localConn
	name    string
	method  method
	request any
	answers chan any
	ended   chan struct{}
	err     error // set before ended is closed
}

func (s *localCall) Header() (metadata.MD, error) { return nil, nil }
func (s *localCall) Trailer() metadata.MD         { return nil }
func (s *localCall) Context() context.Context     { return s.ctx }

func (s *localCall) SendMsg(m any) error {
	s.request = m
	return nil
}

func (s *localCall) CloseSend() error {
	read := func(v any) error { share(v, s.request); return nil }
	write := func(v any) error {
		select {
		case s.answers <- v:
			return nil
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	go func() {
		defer close(s.ended)
		s.err = s.conn.d.run(serverSide(s.ctx), s.name, s.method, read, write)
	}()
	return nil
}

func (s *localCall) RecvMsg(m any) error {
	select {
	case v := <-s.answers:
		share(m, v)
		return nil
	case <-s.ended:
		if s.err != nil {
			return s.err
		}
		return io.EOF
	}
}

// share makes dst what src is; what src holds is shared, not copied.
func share(dst, src any) {
	to := dst.(proto.Message).ProtoReflect()
	src.(proto.Message).ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.Set(f, v)
		return true
	})
}
