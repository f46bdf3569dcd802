package link

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// maxEntries of one batch.
	maxEntries = 256
	// journalWindow is how many batches may be unacknowledged, each of another stream.
	journalWindow = 8
)

// streamKey names a stream for ever.
type streamKey struct{ origin, stream string }

func keyOf(p *linkv1.JournalPoint) streamKey { return streamKey{p.GetOrigin(), p.GetStream()} }

// journalSender sends every entry until it is acknowledged. Of one stream a single batch is on its way, so that a
// receiver sees its entries in order whatever a broker refuses; different streams do not wait for one another.
type journalSender struct {
	s      *session
	source JournalSource
	events chan proto.Message // JournalAck, Refused
	resume []*linkv1.JournalPoint

	cursors map[streamKey]uint64 // where the receiver stands, as it said
	alone   map[streamKey]uint64 // up to this sequence, entries travel one by one
	flights map[streamKey]*flight
	ready   []streamKey // streams that may have something to send, each once
	waiting map[streamKey]bool
}

// flight is a batch on its way.
type flight struct {
	counter uint64
	entries int
	last    uint64
	sent    time.Time
}

func newJournalSender(s *session, source JournalSource, resume []*linkv1.JournalPoint) *journalSender {
	return &journalSender{
		s: s, source: source, resume: resume, events: make(chan proto.Message, 2*journalWindow),
		cursors: map[streamKey]uint64{}, alone: map[streamKey]uint64{}, flights: map[streamKey]*flight{}, waiting: map[streamKey]bool{},
	}
}

func (t *journalSender) run(ctx context.Context) error {
	if err := t.source.Acknowledged(ctx, &linkv1.JournalAck{Points: t.resume}); err != nil {
		return fmt.Errorf("acknowledge journal: %w", err)
	}
	// Where the receiver has gone backwards (it was restored from a backup), its streams may have nothing that was never
	// acknowledged, and yet something to send.
	for _, p := range t.resume {
		t.cursors[keyOf(p)] = p.Sequence
		t.look(keyOf(p))
	}
	if err := t.pending(ctx); err != nil {
		return err
	}
	for {
		if err := t.fill(ctx); err != nil {
			return err
		}
		select {
		case <-t.source.Changed():
			if err := t.pending(ctx); err != nil {
				return err
			}
		case e := <-t.events:
			if err := t.take(ctx, e); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// look puts a stream at the end of those to look at.
func (t *journalSender) look(k streamKey) {
	if !t.waiting[k] {
		t.waiting[k] = true
		t.ready = append(t.ready, k)
	}
}

// pending looks for streams with something to send.
func (t *journalSender) pending(ctx context.Context) error {
	heads, err := t.source.Pending(ctx)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	for _, head := range heads {
		t.look(keyOf(head))
	}
	return nil
}

// fill sends batches while the window has room.
func (t *journalSender) fill(ctx context.Context) error {
	for len(t.flights) < journalWindow && len(t.ready) > 0 {
		k := t.ready[0]
		t.ready = t.ready[1:]
		delete(t.waiting, k)
		if t.flights[k] != nil {
			continue // its acknowledgement looks again
		}
		if err := t.batch(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// batch sends what follows a stream's cursor, if anything.
func (t *journalSender) batch(ctx context.Context, k streamKey) error {
	after, most := t.cursors[k], maxEntries
	if t.alone[k] > after {
		most = 1
	} else {
		delete(t.alone, k)
	}
	batch, err := t.source.After(ctx, &linkv1.JournalPoint{Origin: k.origin, Stream: k.stream, Sequence: after}, most)
	if err != nil {
		return fmt.Errorf("read journal %s: %w", k.stream, err)
	}
	if len(batch.GetEntries()) == 0 {
		return nil
	}
	if err := dense(batch, k, after); err != nil {
		return fmt.Errorf("read journal %s: %w", k.stream, err)
	}
	batch = &linkv1.JournalBatch{Origin: k.origin, Stream: k.stream, Entries: fitting(batch.Entries, most)}
	counter, err := t.s.postCounted(ctx, t.s.journal, linkv1.Type_JOURNAL_BATCH, batch)
	if err != nil {
		return err
	}
	n := len(batch.Entries)
	t.flights[k] = &flight{counter: counter, entries: n, last: batch.Entries[n-1].Sequence, sent: time.Now()}
	return nil
}

// dense says what is wrong with a batch that a source gave. Its first entry may lie beyond the cursor, where the
// receiver has lost what the source no longer keeps; whether that is a gap is the receiver's to judge.
func dense(batch *linkv1.JournalBatch, k streamKey, after uint64) error {
	if batch.Origin != k.origin || batch.Stream != k.stream {
		return fmt.Errorf("the source answered with stream %q of %q", batch.Stream, batch.Origin)
	}
	next := max(batch.Entries[0].Sequence, after+1)
	for _, e := range batch.Entries {
		if e.Sequence != next {
			return fmt.Errorf("entry %d where %d follows", e.Sequence, next)
		}
		next++
	}
	return nil
}

// fitting returns the first entries that fit a frame, at least one.
func fitting(entries []*linkv1.JournalEntry, most int) []*linkv1.JournalEntry {
	size := 0
	for i, e := range entries {
		size += proto.Size(e) + 8
		if i == most || i > 0 && size > pieceBytes {
			return entries[:i]
		}
	}
	return entries
}

// take hears what became of batches.
func (t *journalSender) take(ctx context.Context, e proto.Message) error {
	switch m := e.(type) {
	case *linkv1.JournalAck:
		for _, p := range m.Points {
			if err := t.acknowledged(p); err != nil {
				return err
			}
		}
		if err := t.source.Acknowledged(ctx, m); err != nil {
			return fmt.Errorf("acknowledge journal: %w", err)
		}
		return nil
	case *linkv1.Refused:
		return t.refused(m)
	}
	return broken("%s among a journal's answers", e.ProtoReflect().Descriptor().Name())
}

func (t *journalSender) acknowledged(p *linkv1.JournalPoint) error {
	k := keyOf(p)
	f := t.flights[k]
	if f == nil && p.Sequence <= t.cursors[k] {
		return nil // says again what was said
	}
	if f == nil || p.Sequence <= t.cursors[k] || p.Sequence > f.last {
		return broken("%s was acknowledged up to %d, and no such entries are on their way", k.stream, p.Sequence)
	}
	t.s.metrics.acknowledged(wire.ClassJournal, f.sent)
	t.cursors[k] = p.Sequence
	delete(t.flights, k)
	t.look(k)
	return nil
}

// refused: of several entries, each now travels alone, so that the broker withholds only what it must; of one, the
// receiver was told to consume its place, and acknowledges it.
func (t *journalSender) refused(m *linkv1.Refused) error {
	for k, f := range t.flights {
		if f.counter != m.Counter {
			continue
		}
		switch {
		case f.entries > 1:
			t.alone[k] = f.last
			delete(t.flights, k)
			t.look(k)
		case m.Withheld.Entry == nil:
			return fmt.Errorf("%w: an entry of %s that it cannot name: %s", ErrWithheld, k.stream, m.Withheld.Reason)
		default:
			t.s.log.Error("a journal entry is withheld, because a broker refuses it", "stream", k.stream, "sequence", f.last, "reason", m.Withheld.Reason)
		}
		return nil
	}
	if e := m.Withheld.Entry; e != nil && e.Sequence <= t.cursors[keyOf(e)] {
		return nil // the receiver, told at the same time, was faster to acknowledge it
	}
	return broken("frame %d was refused, and it is not on its way", m.Counter)
}

// journalReceiver consumes what the other end sends, and says so.
type journalReceiver struct {
	s     *session
	sink  JournalSink
	inbox chan proto.Message // JournalBatch, Withheld
}

func (t *journalReceiver) run(ctx context.Context) error {
	for {
		select {
		case m := <-t.inbox:
			if err := t.consume(ctx, m); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *journalReceiver) consume(ctx context.Context, m proto.Message) error {
	var ack *linkv1.JournalAck
	var err error
	switch m := m.(type) {
	case *linkv1.JournalBatch:
		if err := dense(m, streamKey{m.Origin, m.Stream}, m.Entries[0].Sequence-1); err != nil || m.Entries[0].Sequence == 0 {
			return broken("a journal batch that is not dense: %w", err)
		}
		ack, err = t.sink.Commit(ctx, m)
	case *linkv1.Withheld:
		ack, err = t.sink.Withheld(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("commit journal: %w", err)
	}
	if len(ack.GetPoints()) == 0 {
		return fmt.Errorf("commit journal: the sink acknowledged nothing")
	}
	for _, r := range ack.Rejected {
		r.Reason = shorten(r.Reason, 1024)
	}
	return t.s.post(ctx, t.s.journal, linkv1.Type_JOURNAL_ACK, ack)
}

// joinJournal gives the session's journal class its loops.
func (s *session) joinJournal(c Classes, o *Opened) {
	var send *journalSender
	var receive *journalReceiver
	if c.JournalSource != nil {
		resume := o.Welcome.Journals
		if s.sending == linkv1.Direction_DOWN {
			resume = o.Hello.Journals
		}
		send = newJournalSender(s, c.JournalSource, resume)
		s.loops = append(s.loops, send.run)
	}
	if c.JournalSink != nil {
		receive = &journalReceiver{s: s, sink: c.JournalSink, inbox: make(chan proto.Message, journalWindow)}
		s.loops = append(s.loops, receive.run)
	}
	s.onJournal = func(m proto.Message, f *linkv1.Frame) error {
		switch m := m.(type) {
		case *linkv1.Withheld:
			switch {
			case m.Type != linkv1.Type_JOURNAL_BATCH:
				return fmt.Errorf("%w: %s: %s", ErrWithheld, m.Type, m.Reason)
			case m.Entry == nil:
				return nil // several entries; they come again, one by one
			case receive != nil:
				return windowed(receive.inbox, proto.Message(m))
			}
		case *linkv1.JournalBatch:
			if receive != nil {
				return windowed(receive.inbox, proto.Message(m))
			}
		case *linkv1.Refused:
			if m.Withheld.Type != linkv1.Type_JOURNAL_BATCH {
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
