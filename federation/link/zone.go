package link

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/problem"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Numbers are a zone's, and what it knows of the control plane's.
type Numbers struct {
	// Incarnation is one life of the zone's store, Revision how far it has come.
	Incarnation string
	Revision    uint64
	// Epoch and EpochID are the last that were agreed on; zero before the first session.
	Epoch   uint64
	EpochID []byte
}

// ZoneConfig is what a zone's end is made of.
type ZoneConfig struct {
	Common
	Classes
	// Numbers is asked at each opening.
	Numbers func(ctx context.Context) (Numbers, error)
	// Opened, if set, is told of each session once both ends have proven who they are and their numbers agree, before
	// anything else flows: this is where a new epoch is written down. An error of it ends the session.
	Opened func(ctx context.Context, o *Opened) error
	// Samples, if set, is relayed.
	Samples *Samples
	// Skipped, if set, is told of an object that was left out of the state, because a broker refuses it.
	Skipped func(o *linkv1.Object, reason string)
}

// ZoneEnd is a zone's end of the link. It runs one session at a time. It is also the connection over which the zone's
// edge calls the control plane: unary methods and server streams that carry an edge option. Between sessions every call
// fails with LINK_DOWN at once.
type ZoneEnd struct {
	shared
	config  ZoneConfig
	running atomic.Bool
	calls   atomic.Pointer[callTable]
}

// NewZoneEnd returns a zone's end without a session.
func NewZoneEnd(c ZoneConfig) (*ZoneEnd, error) {
	sh, err := c.ready()
	if err != nil {
		return nil, err
	}
	if c.Numbers == nil {
		return nil, fmt.Errorf("a zone's end of a link needs the zone's numbers")
	}
	return &ZoneEnd{shared: sh, config: c}, nil
}

// Run opens a session and carries it to its end, whose cause it returns; it never returns nil. Whoever calls it waits a
// little and calls it again; much longer where the cause is ErrQuarantine or a Goodbye with code QUARANTINED or REVOKED. After
// ErrIncarnationLost it mints a new incarnation first.
func (z *ZoneEnd) Run(ctx context.Context, dial Dial) error {
	if !z.running.CompareAndSwap(false, true) {
		return ErrBusy
	}
	defer z.running.Store(false)
	hello, err := z.hello(ctx)
	if err != nil {
		return err
	}
	return z.round(ctx, linkv1.Direction_UP, dial,
		func(o *opening) (*Opened, error) { return o.atZone(hello) },
		func(s *session, o *Opened) error { return z.begin(ctx, s, o) })
}

func (z *ZoneEnd) hello(ctx context.Context) (*linkv1.Hello, error) {
	n, err := z.config.Numbers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the zone's numbers: %w", err)
	}
	state, journals, err := z.config.points(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the zone's resume points: %w", err)
	}
	return &linkv1.Hello{
		Schema: z.Schema, Version: shorten(z.Version, 64), Incarnation: n.Incarnation, Revision: n.Revision,
		Epoch: n.Epoch, EpochId: n.EpochID, State: state, Journals: journals,
	}, nil
}

func (z *ZoneEnd) begin(ctx context.Context, s *session, o *Opened) error {
	if z.config.Opened != nil {
		if err := z.config.Opened(ctx, o); err != nil {
			return err
		}
	}
	s.joinState(z.config.Classes, o, z.config.Skipped)
	s.joinJournal(z.config.Classes, o)
	s.joinSamples(z.config.Samples, nil)
	calls := &callTable{s: s, live: map[uint64]*zoneCall{}, wake: make(chan struct{}, 1)}
	s.onCall = calls.take
	s.loops = append(s.loops, func(ctx context.Context) error {
		z.calls.Store(calls)
		defer z.calls.CompareAndSwap(calls, nil)
		return calls.run(ctx)
	})
	return nil
}

// Connected reports whether calls can be made now.
func (z *ZoneEnd) Connected() bool { return z.calls.Load() != nil }

// Invoke makes a unary call. It is done at most once, and never repeated by the link.
func (z *ZoneEnd) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	t, m, err := z.callable(method)
	if err != nil {
		return problem.ToStatus(err)
	}
	began := time.Now()
	err = t.invoke(ctx, m, args.(proto.Message), reply.(proto.Message))
	z.metrics.called(status.Code(err), began)
	return err
}

// NewStream begins a server stream: one SendMsg, CloseSend, then RecvMsg until io.EOF. It is over when the stream is,
// when RecvMsg has failed, or when ctx ends.
func (z *ZoneEnd) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	t, m, err := z.callable(method)
	if err == nil && (desc.ClientStreams || !m.Streams) {
		err = problem.New(problem.Unsupported, method+" does not cross the link as a stream", "")
	}
	if err != nil {
		return nil, problem.ToStatus(err)
	}
	stream, err := t.openStream(ctx, m)
	if err != nil {
		return nil, problem.ToStatus(err)
	}
	return stream, nil
}

func (z *ZoneEnd) callable(method string) (*callTable, *wire.Method, error) {
	m, ok := z.checker.Method(method)
	if !ok {
		return nil, nil, problem.New(problem.Forbidden, method+" cannot be called from a zone", "Call it in the control network.")
	}
	t := z.calls.Load()
	if t == nil {
		return nil, nil, linkDown(false, m)
	}
	return t, m, nil
}

var _ grpc.ClientConnInterface = (*ZoneEnd)(nil)
