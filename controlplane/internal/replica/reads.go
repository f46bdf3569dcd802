package replica

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// ReadIndex is the barrier before a linearizable read: when it returns nil, this server has applied everything that had been
// acknowledged, by any server, before the call. Without a majority it ends as UNAVAILABLE, a little before ctx's deadline.
func (r *Replica) ReadIndex(ctx context.Context) error {
	r.metrics.reads.Inc()
	ctx, cancel := r.inTime(ctx)
	defer cancel()
	var index uint64
	err := r.withLeader(ctx, func(_ Leader, changed <-chan struct{}) (err error) {
		index, err = r.reads.join(ctx, changed)
		return err
	})
	if err == nil {
		err = r.progress.wait(ctx, index)
	}
	switch {
	case err == nil:
		return nil
	case r.Leader().ID == "":
		return r.noLeader(err)
	}
	return problem.Newf(problem.Unavailable, bringServersBack, "it could not be made sure that this server is up to date: %w", err)
}

// readIndex asks for the index that a linearizable read has to wait for: a majority when this server leads, else the leader.
func (r *Replica) readIndex(ctx context.Context) (index uint64, err error) {
	leader, term, changed := r.leadership.watch()
	if leader.Self {
		return r.confirm(ctx, term, changed)
	}
	if leader.ID == "" || leader.ID == r.c.ServerID {
		return 0, r.noLeader(nil)
	}
	err = r.ask(ctx, leader, changed, func(ctx context.Context, peer commandv1.PeerServiceClient) error {
		resp, err := peer.ReadIndex(ctx, &commandv1.ReadIndexRequest{})
		index = resp.GetIndex()
		return err
	})
	return index, err
}

// confirm returns the commit index as it was when it was called, once a majority has said after the call that this server
// leads in term.
//
// Raft's VerifyLeader is not enough for that: it counts any answer that comes in, also one to a message sent long before.
// After a pause of the process such answers lie ready, and a leader that has been replaced meanwhile would take them for
// votes.
func (r *Replica) confirm(ctx context.Context, term uint64, ended <-chan struct{}) (index uint64, err error) {
	r.metrics.readRounds.Inc()
	index = r.raft.CommitIndex()
	asked := r.witnesses.ask()
	r.raft.VerifyLeader() // sends the heartbeats at once
	for {
		heard := r.witnesses.changed()
		if r.witnesses.majority(r.raft.GetConfiguration().Configuration(), raft.ServerID(r.c.ServerID), term, asked) {
			if r.raft.CurrentTerm() != term { // its own voice does not count any more
				return 0, errMoved
			}
			return index, nil
		}
		select {
		case <-heard:
		case <-ended:
			return 0, errMoved
		case <-r.stopping.Done():
			return 0, errStopping
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// readRounds lets callers that come while a round is under way share the next one.
type readRounds struct {
	// ask does one round. It ends with ctx.
	ask   func(ctx context.Context) (index uint64, err error)
	ctx   context.Context
	spawn func(func()) bool

	mu      sync.Mutex
	next    *readRound
	running bool
}

type readRound struct {
	done  chan struct{}
	index uint64
	err   error
}

// join waits for the first round that begins after the call.
func (q *readRounds) join(ctx context.Context, ended <-chan struct{}) (index uint64, err error) {
	q.mu.Lock()
	if q.next == nil {
		q.next = &readRound{done: make(chan struct{})}
	}
	round := q.next
	if !q.running {
		q.running = q.spawn(q.run)
	}
	running := q.running
	q.mu.Unlock()
	if !running {
		return 0, errStopping
	}
	select {
	case <-round.done:
		return round.index, round.err
	case <-ended:
		return 0, errMoved
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (q *readRounds) run() {
	for {
		q.mu.Lock()
		round := q.next
		q.next = nil
		q.running = round != nil
		q.mu.Unlock()
		if round == nil {
			return
		}
		ctx, cancel := context.WithTimeout(q.ctx, attemptTime)
		round.index, round.err = q.ask(ctx)
		cancel()
		close(round.done)
	}
}
