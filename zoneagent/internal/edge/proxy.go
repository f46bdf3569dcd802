package edge

import (
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/problem"
)

// passed is the metadata that a call takes along.
var passed = [...]string{"authorization", "idempotency-key", "if-match", "last-event-id", "accept-language", "trace-id"}

// ServeUnknown makes a gRPC server serve every method of the API by handing it to the connection: nothing is registered,
// everything is found in the descriptors.
func (c *Conn) ServeUnknown(_ any, stream grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(stream)
	m, err := c.table.find(name)
	if err != nil {
		return problem.ToStatus(err)
	}
	in := m.input.New().Interface()
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	asked, _ := metadata.FromIncomingContext(stream.Context())
	md := metadata.MD{}
	for _, key := range passed {
		if v := first(asked.Get(key)); v != "" {
			md.Set(key, v)
		}
	}
	ctx := metadata.NewOutgoingContext(stream.Context(), md)
	if !m.stream {
		out := m.output.New().Interface()
		var header metadata.MD
		if err := c.Invoke(ctx, name, in, out, grpc.Header(&header)); err != nil {
			return err
		}
		if said := header.Get(gateway.ConsistencyHeader); len(said) > 0 {
			if err := stream.SetHeader(metadata.Pairs(gateway.ConsistencyHeader, said[0])); err != nil {
				return err
			}
		}
		return stream.SendMsg(out)
	}
	answers, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := answers.SendMsg(in); err != nil {
		return problem.ToStatus(problem.FromStatus(err))
	}
	if err := answers.CloseSend(); err != nil {
		return problem.ToStatus(problem.FromStatus(err))
	}
	for {
		out := m.output.New().Interface()
		if err := answers.RecvMsg(out); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return problem.ToStatus(problem.FromStatus(err))
		}
		if err := stream.SendMsg(out); err != nil {
			return err
		}
	}
}
