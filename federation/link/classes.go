package link

import (
	"context"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// StateSource is where one end keeps what the other should hold. It serves one session: the one before may still be
// ending when the next begins, and would take its signals.
type StateSource interface {
	// Since returns what changed after a point: at most limit objects in ascending revision (or those of one revision,
	// where it alone has more), through, the revision up to which nothing is missing, and end, whether there was nothing
	// more at that moment; nil when nothing changed. After is the point's revision, or zero where that point is of another
	// life of this end (epoch or incarnation), lies ahead, or is no longer known: that begins a full sync. A point that it
	// has given itself in this session is always known. An object that was deleted comes as a tombstone.
	Since(ctx context.Context, after *linkv1.StateAckPoint, limit int) (*linkv1.StateChunk, error)
	// Changed is level-triggered: receive, then read again. No change after the last Since goes without a signal.
	Changed() <-chan struct{}
	// Acknowledged says where the receiver stands: first, what it said when the session was opened, which may be of another
	// life; then each point that it committed.
	Acknowledged(ctx context.Context, point *linkv1.StateAckPoint) error
}

// StateSink holds what the other end sends.
type StateSink interface {
	// Point is up to where it holds the other end's state. A full sync that has not ended counts for nothing: revision 0.
	Point(ctx context.Context) (*linkv1.StateAckPoint, error)
	// Commit takes objects and cursor in one transaction. It returns an error that wraps ErrGap when it does not stand at
	// chunk.After; then it is sent everything anew. A chunk with full and after 0 begins a full sync, which takes effect
	// with the chunk whose end is set; what a full sync does not mention is not deleted. Any other error ends the session,
	// and what was not acknowledged comes again.
	Commit(ctx context.Context, chunk *linkv1.StateChunk) error
}

// JournalSource keeps entries until they are acknowledged. A stream belongs to one origin; its sequence is dense.
type JournalSource interface {
	// Pending returns the acknowledged heads of the streams that have entries beyond them.
	Pending(ctx context.Context) ([]*linkv1.JournalPoint, error)
	// After returns the entries that follow a point, at most max; nil when there are none, or no such stream.
	After(ctx context.Context, point *linkv1.JournalPoint, max int) (*linkv1.JournalBatch, error)
	// Changed is level-triggered, as StateSource's.
	Changed() <-chan struct{}
	// Acknowledged says what the receiver has committed and what of it it rejected: first, all of its points when the
	// session was opened, then each acknowledgement. A point that is not beyond what was acknowledged before changes
	// nothing.
	Acknowledged(ctx context.Context, ack *linkv1.JournalAck) error
}

// JournalSink consumes every entry exactly once, in order.
type JournalSink interface {
	// Points is where every stream stands that it knows.
	Points(ctx context.Context) ([]*linkv1.JournalPoint, error)
	// Commit consumes the entries that it has not yet consumed, and in the same transaction moves the stream's point. It
	// returns that point, and the entries that it consumed without accepting them. An error ends the session (wrap ErrGap
	// when the batch begins beyond the point), and the entries come again.
	Commit(ctx context.Context, batch *linkv1.JournalBatch) (*linkv1.JournalAck, error)
	// Withheld consumes an entry that a broker did not let through: it is recorded as such.
	Withheld(ctx context.Context, withheld *linkv1.Withheld) (*linkv1.JournalAck, error)
}

// CallHandler serves calls, at the hub's end.
type CallHandler interface {
	// Serve carries out a call and returns when it is done. Each message of the answer goes to c.Send: one for a unary
	// method. ctx ends when the caller cancels, its deadline passes or the session ends; Serve returns soon after. The
	// error's problem goes to the caller.
	Serve(ctx context.Context, c *Call) error
}

// SampleSink takes metrics, at the hub's end. What comes while it is still busy is dropped, oldest last.
type SampleSink interface {
	Take(batch *linkv1.SampleBatch)
}

// Classes are what an end gives to and takes from a session, journal and state; a nil one takes no part.
type Classes struct {
	StateSource   StateSource
	StateSink     StateSink
	JournalSource JournalSource
	JournalSink   JournalSink
}

// points returns where the sinks stand, for the opening.
func (c Classes) points(ctx context.Context) (state *linkv1.StateAckPoint, journals []*linkv1.JournalPoint, err error) {
	if c.StateSink != nil {
		if state, err = c.StateSink.Point(ctx); err != nil {
			return nil, nil, err
		}
	}
	if c.JournalSink != nil {
		if journals, err = c.JournalSink.Points(ctx); err != nil {
			return nil, nil, err
		}
	}
	return state, journals, nil
}
