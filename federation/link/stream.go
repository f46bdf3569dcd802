package link

import (
	"context"
	"io"
	"sync"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Stream carries frames both ways; the generated gRPC streams are Streams. One goroutine sends and one receives. A frame
// that was sent is never changed again.
type Stream interface {
	Send(*linkv1.Frame) error
	Recv() (*linkv1.Frame, error)
}

// Path is a stream that was opened and what stands on it.
type Path struct {
	Stream Stream
	// Schema is the lowest that the brokers on the path have told this end; 0 where there is none.
	Schema uint32
	// Zone is whose session the broker says this is, by the certificate that it saw on its own leg; empty where it does
	// not say. A chain that says otherwise is refused.
	Zone string
}

// Dial opens the path for one session. Its stream should end, so that Send and Recv return, when ctx does. Whoever gives
// a stream that was opened under another context ends it when Run has returned; until then a goroutine may wait in it.
type Dial func(ctx context.Context) (Path, error)

// MemoryStream is one end of a Pipe.
type MemoryStream struct {
	ctx  context.Context
	in   <-chan *linkv1.Frame
	out  chan<- *linkv1.Frame
	pipe *pipe
}

type pipe struct {
	once   sync.Once
	closed chan struct{}
}

// Pipe returns two Streams that are joined within this process: for tests, and for an end that runs beside its broker.
// A sender waits once buffer frames have not been received. The pipe closes with ctx.
func Pipe(ctx context.Context, buffer int) (a, b *MemoryStream) {
	ab, ba := make(chan *linkv1.Frame, buffer), make(chan *linkv1.Frame, buffer)
	p := &pipe{closed: make(chan struct{})}
	return &MemoryStream{ctx: ctx, in: ba, out: ab, pipe: p}, &MemoryStream{ctx: ctx, in: ab, out: ba, pipe: p}
}

// Send hands a frame over. It fails with io.EOF once the pipe is closed, as a gRPC stream does.
func (m *MemoryStream) Send(f *linkv1.Frame) error {
	select {
	case <-m.pipe.closed:
		return io.EOF
	case <-m.ctx.Done():
		return m.ctx.Err()
	default:
	}
	select {
	case m.out <- f:
		return nil
	case <-m.pipe.closed:
		return io.EOF
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
}

// Recv returns the next frame. Frames that were sent before the pipe was closed still come; then it is io.EOF.
func (m *MemoryStream) Recv() (*linkv1.Frame, error) {
	select {
	case f := <-m.in:
		return f, nil
	case <-m.ctx.Done():
		return nil, m.ctx.Err()
	case <-m.pipe.closed:
		select {
		case f := <-m.in:
			return f, nil
		default:
			return nil, io.EOF
		}
	}
}

// Close closes the pipe for both ends.
func (m *MemoryStream) Close() { m.pipe.once.Do(func() { close(m.pipe.closed) }) }
