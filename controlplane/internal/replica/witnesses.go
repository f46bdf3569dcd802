package replica

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"
)

// witnesses are the servers that have confirmed that this one leads, each with how lately. Time is counted in questions,
// since clocks may jump and processes pause: an answer counts for a question when its message was sent after the question
// was asked.
type witnesses struct {
	mu       sync.Mutex
	question uint64
	heard    map[raft.ServerID]testimony
	wake     chan struct{}
}

type testimony struct{ question, term uint64 }

func newWitnesses() *witnesses {
	return &witnesses{heard: map[raft.ServerID]testimony{}, wake: make(chan struct{})}
}

// ask returns the number of a new question.
func (w *witnesses) ask() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.question++
	return w.question
}

// sending returns the newest question, for a message that is sent after the call.
func (w *witnesses) sending() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.question
}

// confirmed notes that a server acknowledged this one as the leader of term, to a message that was sent at question.
func (w *witnesses) confirmed(by raft.ServerID, term, question uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.heard[by]
	if term < last.term || term == last.term && question <= last.question {
		return
	}
	w.heard[by] = testimony{question: question, term: term}
	close(w.wake)
	w.wake = make(chan struct{})
}

// changed returns a channel that is closed at the next confirmation.
func (w *witnesses) changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wake
}

// majority reports whether most voters, self included, have answered the question in term.
func (w *witnesses) majority(c raft.Configuration, self raft.ServerID, term, question uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	voters, confirmed := 0, 0
	for _, s := range c.Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if t := w.heard[s.ID]; s.ID == self || t.term == term && t.question >= question {
			confirmed++
		}
	}
	return confirmed > voters/2
}

// witnessed is a transport that takes down who confirms this server's leadership, and that keeps a leader whose own disk
// stalls from holding on: it would go on sending heartbeats, and commit nothing.
type witnessed struct {
	raftTransport
	witnesses *witnesses
	couriers  *couriers
	stalled   func() bool
}

var errStalled = errors.New("the disk of this server stalls: another one has to lead")

// AppendEntries implements raft.Transport; all heartbeats pass here.
func (t witnessed) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.stalled() {
		return errStalled
	}
	t.couriers.sent(id, args)
	question := t.witnesses.sending()
	err := t.raftTransport.AppendEntries(id, to, args, resp)
	if err == nil && resp.Success && resp.Term == args.Term {
		t.witnesses.confirmed(id, args.Term, question)
		t.couriers.answered(id, args, resp)
	}
	return err
}

// AppendEntriesPipeline implements raft.Transport.
func (t witnessed) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	if t.stalled() {
		return nil, errStalled
	}
	inner, err := t.raftTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, to: id, couriers: t.couriers, stalled: t.stalled,
		answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.relay()
	return p, nil
}

// pipeline is one of Raft's, whose messages are seen on their way out and back.
type pipeline struct {
	raft.AppendPipeline
	to       raft.ServerID
	couriers *couriers
	stalled  func() bool
	answers  chan raft.AppendFuture
	once     sync.Once
	closed   chan struct{}
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.stalled() {
		return nil, errStalled
	}
	p.couriers.sent(p.to, args)
	return p.AppendPipeline.AppendEntries(args, resp)
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) relay() {
	for {
		select {
		case f := <-p.AppendPipeline.Consumer():
			p.couriers.answered(p.to, f.Request(), f.Response())
			select {
			case p.answers <- f:
			case <-p.closed:
				return
			}
		case <-p.closed:
			return
		}
	}
}

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}
