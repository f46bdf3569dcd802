package link

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/problem"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// zoneStream is the calling end of a server's stream.
type zoneStream struct {
	ctx    context.Context
	t      *callTable
	c      *zoneCall
	asked  []byte
	taken  int
	stop   func() bool
	ended  error
	opened bool
	began  time.Time
}

func (z *zoneStream) Header() (metadata.MD, error) { return nil, nil }
func (z *zoneStream) Trailer() metadata.MD         { return nil }
func (z *zoneStream) Context() context.Context     { return z.ctx }

// openStream takes up a stream. A caller that goes away without another word is heard through its context.
func (t *callTable) openStream(ctx context.Context, m *wire.Method) (*zoneStream, error) {
	c, err := t.begin(m, streamCredit)
	if err != nil {
		return nil, err
	}
	return &zoneStream{ctx: ctx, t: t, c: c, began: time.Now(), stop: context.AfterFunc(ctx, func() { t.cancel(c) })}, nil
}

// SendMsg takes the request; a stream of requests does not cross the link.
func (z *zoneStream) SendMsg(m any) error {
	if z.asked != nil {
		return problem.ToStatus(problem.New(problem.Unsupported, "one request begins a stream", ""))
	}
	body, err := proto.Marshal(m.(proto.Message))
	if err != nil {
		return problem.ToStatus(err)
	}
	z.asked = append([]byte{}, body...)
	return nil
}

// CloseSend sends the call.
func (z *zoneStream) CloseSend() error {
	if z.opened {
		return nil
	}
	z.opened = true
	if err := z.t.request(z.ctx, z.c, z.asked, streamCredit); err != nil {
		z.t.cancel(z.c)
		return problem.ToStatus(err)
	}
	return nil
}

// RecvMsg returns the next message, and io.EOF behind the last.
func (z *zoneStream) RecvMsg(m any) error {
	if z.ended != nil {
		return z.ended
	}
	answer, err := z.t.next(z.ctx, z.c)
	if err != nil {
		return z.finish(err)
	}
	if answer.End {
		if err := failed(answer); err != nil {
			return z.finish(err)
		}
		return z.finish(io.EOF)
	}
	if z.taken++; z.taken == streamCredit/2 {
		z.taken = 0
		credit := &linkv1.CallCredit{Call: z.c.id, Messages: streamCredit / 2}
		if err := z.t.s.post(z.ctx, z.t.s.call, linkv1.Type_CALL_CREDIT, credit); err != nil && z.ctx.Err() == nil {
			return z.finish(problem.ToStatus(linkDown(true, z.c.method)))
		}
	}
	return proto.Unmarshal(answer.Body, m.(proto.Message))
}

func (z *zoneStream) finish(err error) error {
	z.ended = err
	z.stop()
	code := codes.OK
	if err != io.EOF {
		code = status.Code(err)
	}
	z.t.s.metrics.called(code, z.began)
	return err
}

var _ grpc.ClientStream = (*zoneStream)(nil)
