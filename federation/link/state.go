package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// maxObjects fits etcd's limit of operations a transaction, cursor included.
	maxObjects = 127
	// pieceBytes is how much of a class goes into one frame: small enough that the other classes' next frames need not
	// wait long behind it, and within etcd's limit of a transaction.
	pieceBytes = 256 << 10
)

// stateSender brings the other end's copy of the state up to date, for ever. One chunk is on its way at a time: a
// resend never meets its original, and the other classes never wait behind more than one.
type stateSender struct {
	s       *session
	source  StateSource
	skipped func(*linkv1.Object, string)
	events  chan proto.Message // StateAck, StateResync, Refused

	at      *linkv1.StateAckPoint // where the receiver stands, as it said
	syncing bool                  // within a full sync
}

// run sends what changes.
func (t *stateSender) run(ctx context.Context) error {
	if err := t.source.Acknowledged(ctx, t.at); err != nil {
		return fmt.Errorf("acknowledge state: %w", err)
	}
	for {
		chunk, err := t.source.Since(ctx, t.at, maxObjects)
		if err != nil {
			return fmt.Errorf("read state: %w", err)
		}
		if chunk == nil {
			select {
			case <-t.source.Changed():
			case e := <-t.events:
				if err := t.unasked(e); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if err := ordered(chunk, t.at.GetRevision()); err != nil {
			return fmt.Errorf("read state: %w", err)
		}
		if chunk.After == 0 {
			t.syncing = true
		}
		if err := t.deliver(ctx, chunk); err != nil {
			return err
		}
	}
}

// ordered says what is wrong with a chunk that a source gave.
func ordered(chunk *linkv1.StateChunk, at uint64) error {
	if chunk.After != 0 && chunk.After != at {
		return fmt.Errorf("the source answered from %d, asked from %d", chunk.After, at)
	}
	last := chunk.After + 1
	for _, o := range chunk.Objects {
		if o.Revision < last || o.Revision > chunk.Through {
			return fmt.Errorf("an object of revision %d in a chunk from %d through %d, behind one of %d", o.Revision, chunk.After, chunk.Through, last)
		}
		last = o.Revision
	}
	return nil
}

// unasked takes a word of the receiver while nothing is on its way to it.
func (t *stateSender) unasked(e proto.Message) error {
	if m, ok := e.(*linkv1.StateResync); ok {
		t.resync(m)
		return nil
	}
	return broken("%s without a chunk on its way", e.ProtoReflect().Descriptor().Name())
}

func (t *stateSender) resync(m *linkv1.StateResync) {
	t.s.log.Warn("the other end asks for all of the state", "reason", m.Reason)
	t.at, t.syncing = &linkv1.StateAckPoint{}, false
}

// deliver sends a chunk in pieces that fit a frame, and what a broker refuses of it in halves, so that only the
// objects are left out that it does not let through.
func (t *stateSender) deliver(ctx context.Context, chunk *linkv1.StateChunk) error {
	after := chunk.After
	pieces := split(chunk)
	for len(pieces) > 0 {
		p := pieces[0]
		pieces = pieces[1:]
		p.After, p.Full = after, t.syncing
		verdict, err := t.exchange(ctx, p)
		switch v := verdict.(type) {
		case nil:
			return err
		case *linkv1.StateAck:
			if v.Point.Epoch != chunk.Epoch || v.Point.Incarnation != chunk.Incarnation || v.Point.Revision != p.Through {
				return broken("a chunk through %d was acknowledged with %v", p.Through, v.Point)
			}
			after, t.at = p.Through, v.Point
			if err := t.source.Acknowledged(ctx, v.Point); err != nil {
				return fmt.Errorf("acknowledge state: %w", err)
			}
			if p.End {
				t.syncing = false
			}
		case *linkv1.StateResync:
			t.resync(v)
			return nil
		case *linkv1.Refused:
			again, err := t.refused(p, v.Withheld.GetReason())
			if err != nil {
				return err
			}
			pieces = append(again, pieces...)
		}
	}
	return nil
}

// exchange sends a piece and waits for the word on it.
func (t *stateSender) exchange(ctx context.Context, p *linkv1.StateChunk) (proto.Message, error) {
	sent := time.Now()
	counter, err := t.s.postCounted(ctx, t.s.state, linkv1.Type_STATE_CHUNK, p)
	if err != nil {
		return nil, err
	}
	select {
	case e := <-t.events:
		if r, ok := e.(*linkv1.Refused); ok && r.Counter != counter {
			return nil, broken("frame %d was refused, and it is not on its way", r.Counter)
		}
		t.s.metrics.acknowledged(wire.ClassState, sent)
		return e, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// refused returns what to send instead of a piece that a broker refused.
func (t *stateSender) refused(p *linkv1.StateChunk, reason string) ([]*linkv1.StateChunk, error) {
	switch len(p.Objects) {
	case 0:
		return nil, fmt.Errorf("%w: a chunk without objects: %s", ErrWithheld, reason)
	case 1:
		t.s.metrics.objectsSkipped.Inc()
		t.s.log.Error("an object is left out of the state, because a broker refuses it", "revision", p.Objects[0].Revision, "reason", reason)
		if t.skipped != nil {
			t.skipped(p.Objects[0], reason)
		}
		if p.Through == p.After && !p.End {
			return nil, nil
		}
		return []*linkv1.StateChunk{{Epoch: p.Epoch, Incarnation: p.Incarnation, Through: p.Through, End: p.End}}, nil
	}
	return splitBy(p, (len(p.Objects)+1)/2, pieceBytes), nil
}

// split cuts a chunk into pieces that fit a frame and a transaction.
func split(chunk *linkv1.StateChunk) []*linkv1.StateChunk {
	return splitBy(chunk, maxObjects, pieceBytes)
}

// splitBy cuts a chunk into pieces of at most so many objects and bytes, each of at least one object. A piece's through
// is the last revision of which nothing is in a later piece.
func splitBy(chunk *linkv1.StateChunk, objects, bytes int) []*linkv1.StateChunk {
	var pieces []*linkv1.StateChunk
	rest := chunk.Objects
	for through := chunk.After; ; {
		n, size := 0, 0
		for n < len(rest) && n < objects {
			size += proto.Size(rest[n]) + 8
			if n > 0 && size > bytes {
				break
			}
			n++
		}
		piece := &linkv1.StateChunk{Epoch: chunk.Epoch, Incarnation: chunk.Incarnation, Objects: rest[:n:n]}
		rest = rest[n:]
		if len(rest) == 0 {
			piece.Through, piece.End = chunk.Through, chunk.End
			return append(pieces, piece)
		}
		through = max(through, rest[0].Revision-1)
		piece.Through = through
		pieces = append(pieces, piece)
	}
}

// stateReceiver commits what the other end sends, and says so.
type stateReceiver struct {
	s    *session
	sink StateSink
	// The life of the other end that was agreed on; what is of another is not for this session.
	epoch       uint64
	incarnation string
	inbox       chan *linkv1.StateChunk
}

func (t *stateReceiver) run(ctx context.Context) error {
	for {
		select {
		case chunk := <-t.inbox:
			if err := t.commit(ctx, chunk); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *stateReceiver) commit(ctx context.Context, chunk *linkv1.StateChunk) error {
	if chunk.Epoch != t.epoch || chunk.Incarnation != t.incarnation || chunk.Through < chunk.After {
		return broken("a chunk of epoch %d, incarnation %q, from %d through %d", chunk.Epoch, chunk.Incarnation, chunk.After, chunk.Through)
	}
	err := t.sink.Commit(ctx, chunk)
	switch {
	case errors.Is(err, ErrGap):
		return t.s.post(ctx, t.s.state, linkv1.Type_STATE_RESYNC, &linkv1.StateResync{Reason: shorten(err.Error(), 1024)})
	case err != nil:
		return fmt.Errorf("commit state: %w", err)
	}
	point := &linkv1.StateAckPoint{Epoch: chunk.Epoch, Incarnation: chunk.Incarnation, Revision: chunk.Through}
	return t.s.post(ctx, t.s.state, linkv1.Type_STATE_ACK, &linkv1.StateAck{Point: point})
}

// joinState gives the session's state class its loops.
func (s *session) joinState(c Classes, o *Opened, skipped func(*linkv1.Object, string)) {
	var send *stateSender
	var receive *stateReceiver
	if c.StateSource != nil {
		send = &stateSender{s: s, source: c.StateSource, skipped: skipped, events: make(chan proto.Message, 2)}
		send.at = o.Welcome.State
		if s.sending == linkv1.Direction_DOWN {
			send.at = o.Hello.State
		}
		if send.at == nil {
			send.at = &linkv1.StateAckPoint{}
		}
		s.loops = append(s.loops, send.run)
	}
	if c.StateSink != nil {
		receive = &stateReceiver{s: s, sink: c.StateSink, inbox: make(chan *linkv1.StateChunk, 1)}
		if s.sending == linkv1.Direction_UP {
			receive.epoch = o.Welcome.Epoch
		} else {
			receive.incarnation = o.Hello.Incarnation
		}
		s.loops = append(s.loops, receive.run)
	}
	s.onState = func(m proto.Message, f *linkv1.Frame) error {
		switch m := m.(type) {
		case *linkv1.Withheld:
			if m.Type == linkv1.Type_STATE_CHUNK {
				return nil // its sender was told, and sends what it may
			}
			return fmt.Errorf("%w: %s: %s", ErrWithheld, m.Type, m.Reason)
		case *linkv1.StateChunk:
			if receive != nil {
				return windowed(receive.inbox, m)
			}
		case *linkv1.Refused:
			if m.Withheld.Type != linkv1.Type_STATE_CHUNK {
				return fmt.Errorf("%w: %s: %s", ErrWithheld, m.Withheld.Type, m.Withheld.Reason)
			}
			if send != nil {
				return windowed(send.events, proto.Message(m))
			}
		default:
			if send != nil {
				return windowed(send.events, m)
			}
		}
		return broken("%s for a class that has no use for it", f.Type)
	}
}
