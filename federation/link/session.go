package link

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Timing is how patient a session is. Both ends should have the same.
type Timing struct {
	// Opening bounds the opening, from dialling on. Default 10 s.
	Opening time.Duration
	// Ping is after how long without a word this end gives a sign of life. Default 10 s.
	Ping time.Duration
	// Silence is how long the other end may say nothing. Default 30 s.
	Silence time.Duration
	// Farewell bounds how long an end waits for the other to hear its Goodbye. Default 1 s.
	Farewell time.Duration
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		set  *time.Duration
		plan time.Duration
	}{{&t.Opening, 10 * time.Second}, {&t.Ping, 10 * time.Second}, {&t.Silence, 30 * time.Second}, {&t.Farewell, time.Second}} {
		if *d.set == 0 {
			*d.set = d.plan
		}
	}
	return t
}

// lane is what waits to be sent of one class. Nothing is buffered: whoever has something to send stands in the lane
// until the writer takes it, and the writer takes from all lanes alike. So however much one class has to say, another's
// next frame waits for one frame of each.
type lane chan outgoing

type outgoing struct {
	kind    linkv1.Type
	payload []byte
	// counter, if set, is told the frame's counter before the frame is sent. It has room for one.
	counter chan<- uint64
}

// session is one registration round: it begins when both ends have proven who they are, and the first failure anywhere
// ends it, with that failure as its cause. Nothing of it is used again.
type session struct {
	id      []byte
	sending linkv1.Direction
	stream  Stream
	checker *wire.Checker
	secrets *secrets
	peer    Peer
	timing  Timing
	metrics *Metrics
	log     *slog.Logger

	// Of the writer and the reader, one goroutine each.
	sent, received uint64

	state, journal, call, sample, control lane

	ctx context.Context
	end context.CancelCauseFunc

	// handlers take what came, one class each; they never wait. nil: this end has no use for the class.
	onState   func(proto.Message, *linkv1.Frame) error
	onJournal func(proto.Message, *linkv1.Frame) error
	onCall    func(proto.Message, *linkv1.Frame) error
	onSample  func(proto.Message, *linkv1.Frame) error
	loops     []func(context.Context) error
}

// run carries the session until something ends it, and returns the cause. hangUp ends the line; heard is closed when the
// reader has left it.
func (s *session) run(line context.Context, hangUp context.CancelFunc, heard <-chan struct{}) error {
	var work sync.WaitGroup
	for _, loop := range s.loops {
		work.Go(func() {
			if err := loop(s.ctx); err != nil {
				s.end(err)
			}
		})
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		s.write()
	}()
	<-s.ctx.Done()
	cause := context.Cause(s.ctx)
	// The writer says goodbye; the other end hears it and hangs up, or does not, and is hung up on.
	if farewell(cause) == nil {
		hangUp()
	} else {
		timer := time.AfterFunc(s.timing.Farewell, hangUp)
		defer timer.Stop()
	}
	work.Wait()
	for _, left := range []<-chan struct{}{said, heard} {
		select {
		case <-left:
		case <-line.Done():
		}
	}
	hangUp()
	settle(said)
	settle(heard)
	return cause
}

// post puts a message into a lane and waits until the writer has taken it.
func (s *session) post(ctx context.Context, l lane, kind linkv1.Type, m proto.Message) error {
	payload, err := s.encode(kind, m)
	if err != nil {
		return err
	}
	return s.put(ctx, l, outgoing{kind: kind, payload: payload})
}

// postCounted is post that also returns the frame's counter.
func (s *session) postCounted(ctx context.Context, l lane, kind linkv1.Type, m proto.Message) (uint64, error) {
	payload, err := s.encode(kind, m)
	if err != nil {
		return 0, err
	}
	counter := make(chan uint64, 1)
	if err := s.put(ctx, l, outgoing{kind: kind, payload: payload, counter: counter}); err != nil {
		return 0, err
	}
	return <-counter, nil
}

func (s *session) encode(kind linkv1.Type, m proto.Message) ([]byte, error) {
	payload, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return payload, nil
}

func (s *session) put(ctx context.Context, l lane, o outgoing) error {
	select {
	case l <- o:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// write is the one goroutine that sends.
func (s *session) write() {
	quiet := time.NewTimer(s.timing.Ping)
	defer quiet.Stop()
	for {
		var o outgoing
		// Go picks evenly among the lanes that are ready.
		select {
		case o = <-s.state:
		case o = <-s.journal:
		case o = <-s.call:
		case o = <-s.sample:
		case o = <-s.control:
		case <-quiet.C:
			o = outgoing{kind: linkv1.Type_PING}
		case <-s.ctx.Done():
			if g := farewell(context.Cause(s.ctx)); g != nil {
				payload, _ := proto.Marshal(&linkv1.Goodbye{Code: g.Code, Reason: shorten(g.Reason, 1024)})
				_ = s.send(outgoing{kind: linkv1.Type_GOODBYE, payload: payload})
			}
			return
		}
		if err := s.send(o); err != nil {
			s.end(fmt.Errorf("send %s: %w: %w", o.kind, errStream, err))
			return
		}
		quiet.Reset(s.timing.Ping)
	}
}

// send numbers, tags and sends one frame.
func (s *session) send(o outgoing) error {
	s.sent++
	f := &linkv1.Frame{Session: s.id, Direction: s.sending, Counter: s.sent, Type: o.kind, Payload: o.payload}
	s.secrets.tagger(s.sending).tag(f)
	if o.counter != nil {
		o.counter <- s.sent
	}
	s.metrics.sent(s.checker.ClassOf(o.kind), s.sending, len(o.payload))
	return s.stream.Send(f)
}

// read is the one goroutine that receives. It never waits for anybody but the stream, so that a slow sink holds up no
// other class.
func (s *session) read() {
	alarm := time.AfterFunc(s.timing.Silence, func() { s.end(ErrSilent) })
	defer alarm.Stop()
	for {
		f, err := s.stream.Recv()
		if err != nil {
			s.end(fmt.Errorf("%w: %w", errStream, err))
			return
		}
		if s.ctx.Err() != nil {
			// The round is over: what still comes is only waited out, and nobody waits for two who have both said goodbye.
			if f.Type == linkv1.Type_GOODBYE {
				return
			}
			continue
		}
		alarm.Reset(s.timing.Silence)
		if err := s.take(f); err != nil {
			s.end(err)
		}
	}
}

// take judges one frame and gives it to its class.
func (s *session) take(f *linkv1.Frame) error {
	checked, err := s.judge(f)
	if err != nil {
		return err
	}
	s.metrics.received(checked.Class, f.Direction, len(f.Payload))
	switch m := checked.Message.(type) {
	case *linkv1.Ping:
		return nil
	case *linkv1.Goodbye:
		return &Goodbye{Code: m.Code, Reason: m.Reason, Remote: true}
	case *linkv1.Withheld:
		s.metrics.withheld(s.checker.ClassOf(m.Type), f.Direction)
		return s.hand(m.Type, m, f)
	case *linkv1.Refused:
		s.metrics.refused(s.checker.ClassOf(m.GetWithheld().GetType()), s.sending)
		s.log.Warn("a broker refused a frame", "type", m.GetWithheld().GetType().String(), "reason", m.GetWithheld().GetReason())
		return s.hand(m.GetWithheld().GetType(), m, f)
	}
	return s.hand(f.Type, checked.Message, f)
}

// hand gives a message to the class of a type.
func (s *session) hand(kind linkv1.Type, m proto.Message, f *linkv1.Frame) error {
	var to func(proto.Message, *linkv1.Frame) error
	switch s.checker.ClassOf(kind) {
	case wire.ClassState:
		to = s.onState
	case wire.ClassJournal:
		to = s.onJournal
	case wire.ClassCall:
		to = s.onCall
	case wire.ClassSample:
		to = s.onSample
	}
	if to == nil {
		return broken("%s in the middle of a session", kind)
	}
	return to(m, f)
}

// judge holds a frame to invariants I1 to I4 (see the package's page).
func (s *session) judge(f *linkv1.Frame) (wire.Checked, error) {
	coming := wire.Opposite(s.sending)
	if !bytes.Equal(f.Session, s.id) {
		return wire.Checked{}, broken("a frame of another session")
	}
	if f.Direction != coming {
		return wire.Checked{}, broken("a frame that travels %s came %s", f.Direction, coming)
	}
	if f.Type != linkv1.Type_REFUSED {
		if f.Counter != s.received+1 {
			return wire.Checked{}, broken("counter %d after %d", f.Counter, s.received)
		}
		s.received++
	}
	// What a broker writes in its own name has no tag; Check refuses a tag's absence on everything else.
	if f.Type != linkv1.Type_REFUSED && f.Type != linkv1.Type_WITHHELD && s.secrets != nil && !s.secrets.tagger(coming).matches(f) {
		return wire.Checked{}, broken("the tag of %s %d is not its own", f.Type, f.Counter)
	}
	checked, refusal := s.checker.Check(f, coming)
	if refusal != nil {
		// The broker would have refused it: whoever sent it, its payload is not used.
		return wire.Checked{}, broken("%s %d: %w", f.Type, f.Counter, refusal)
	}
	return checked, nil
}

// windowed puts into a class's inbox, whose size is the class's window. Whoever fills it does not keep to the window.
func windowed[T any](inbox chan T, v T) error {
	select {
	case inbox <- v:
		return nil
	default:
		return broken("more came than was asked for")
	}
}
