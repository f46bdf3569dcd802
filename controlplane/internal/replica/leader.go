package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Leader is what this server knows of who leads.
type Leader struct {
	// ID and Address are empty while no leader is known.
	ID, Address string
	// Self: this server leads and serves: whatever earlier leaders committed is applied here.
	Self bool
	// Since is when this became so.
	Since time.Time
}

// leadership holds the present Leader and tells of its changes. It may be used concurrently.
type leadership struct {
	mu      sync.Mutex
	leader  Leader
	term    uint64        // of our own leadership, while Self
	changed chan struct{} // closed when leader or term is replaced
}

func newLeadership() *leadership {
	return &leadership{leader: Leader{Since: time.Now()}, changed: make(chan struct{})}
}

func (l *leadership) watch() (leader Leader, term uint64, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader, l.term, l.changed
}

func (l *leadership) set(next Leader, term uint64) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if next.ID == l.leader.ID && next.Address == l.leader.Address && next.Self == l.leader.Self && term == l.term {
		return false
	}
	next.Since = time.Now()
	l.leader, l.term = next, term
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

// nudge has those who wait on a leader look again, though it is the same.
func (l *leadership) nudge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

// Leader returns who leads, and since when. A server whose Leader has had no ID for two seconds should let its zones go.
func (r *Replica) Leader() Leader {
	l, _, _ := r.leadership.watch()
	return l
}

// WatchLeader returns who leads, and a channel that is closed when that changes.
func (r *Replica) WatchLeader() (Leader, <-chan struct{}) {
	l, _, changed := r.leadership.watch()
	return l, changed
}

// WhileLeader runs fn once in each of this server's terms as the leader, and cancels fn's context when the term ends; the
// next fn starts only after the last one has returned. It returns fn's error, unless that is its cancelled context's, and
// nil when ctx ends.
func (r *Replica) WhileLeader(ctx context.Context, fn func(context.Context) error) error {
	for ctx.Err() == nil {
		leader, term, changed := r.leadership.watch()
		if leader.Self {
			if err := r.inTerm(ctx, term, fn); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// inTerm runs fn and returns when it has ended and the term is over, or ctx.
func (r *Replica) inTerm(ctx context.Context, term uint64, fn func(context.Context) error) error {
	office, leave := context.WithCancel(ctx)
	defer leave()
	done := make(chan error, 1)
	go func() { done <- fn(office) }()
	var err error
	for running := true; ; {
		leader, now, changed := r.leadership.watch()
		over := !leader.Self || now != term || ctx.Err() != nil
		if over {
			leave()
			if !running {
				return nil
			}
			if err = <-done; errors.Is(err, context.Canceled) {
				err = nil
			}
			return err
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case err = <-done:
			if err != nil {
				return err
			}
			running, done = false, nil
		}
	}
}

// followLeadership keeps leadership true to what Raft says, and takes office when this server is elected.
func (r *Replica) followLeadership(ctx context.Context) error {
	seen := make(chan raft.Observation, 1)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.raft.RegisterObserver(observer)
	defer r.raft.DeregisterObserver(observer)
	// Raft notices neither that its own disk stalls nor that its entries are not applied.
	watch := time.NewTicker(r.c.Tuning.StallTimeout / 4)
	defer watch.Stop()

	defer r.leadership.set(Leader{}, 0)

	leave := func() {}
	defer func() { leave() }()
	var inOffice <-chan uint64
	var term uint64
	for {
		r.announce(term)
		select {
		case <-ctx.Done():
			return nil
		case elected := <-r.elections:
			leave()
			term, inOffice = 0, nil
			if elected {
				inOffice, leave = r.takeOffice(ctx)
			}
		case term = <-inOffice:
		case <-seen:
		case <-watch.C:
			if r.applier.applying() > r.c.Tuning.StallTimeout && r.raft.State() == raft.Leader {
				r.spawn(func() { r.handOver("entries cannot be applied here") })
			}
		}
	}
}

// announce sets leadership to what Raft says now; term is that in which this server is in office, or 0.
func (r *Replica) announce(term uint64) {
	address, id := r.raft.LeaderWithID()
	now := Leader{ID: string(id), Address: string(address), Self: term != 0}
	switch {
	case r.stalled() && (now.Self || now.ID == r.c.ServerID):
		now, term = Leader{}, 0 // the others are about to elect another one
	case now.Self:
		now.ID, now.Address = r.c.ServerID, r.c.Address
	}
	if !r.leadership.set(now, term) {
		return
	}
	r.c.Logger.Info("leader", "server", now.ID, "address", now.Address, "self", now.Self)
	if now.Self {
		r.metrics.leader.Set(1)
	} else {
		r.metrics.leader.Set(0)
	}
}

// takeOffice commits the first command of a term, and then sends the term. When that command is applied here, so is
// everything that earlier leaders committed. leave ends it, and what it leaves running for the term.
func (r *Replica) takeOffice(ctx context.Context) (inOffice <-chan uint64, leave func()) {
	ctx, leave = context.WithCancel(ctx)
	done := make(chan uint64, 1)
	r.spawn(func() {
		term := r.raft.CurrentTerm()
		for ctx.Err() == nil {
			attempt, cancel := context.WithTimeout(ctx, r.c.Tuning.StallTimeout)
			_, err := r.proposeHere(attempt, nil, &commandv1.Command{Actor: r.actor(), Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
			cancel()
			switch {
			case err == nil && r.raft.CurrentTerm() == term:
				done <- term
				r.couriers.run(ctx, term)
				return
			case ctx.Err() == nil:
				r.c.Logger.Warn("the first command of this term is not applied yet", "term", term, "error", err)
				pause(ctx, retryMost)
			}
		}
	})
	return done, leave
}

// handOver asks Raft to let another server lead. Where there is none, all stays as it is, and what Raft has refused meanwhile
// is proposed again.
func (r *Replica) handOver(why string) {
	select {
	case r.handing <- struct{}{}:
	case <-r.stopping.Done():
		return
	}
	defer func() { <-r.handing }()
	if err := r.raft.LeadershipTransfer().Error(); err != nil {
		r.c.Logger.Debug("leadership could not be handed over", "why", why, "error", err)
		if r.applier.applying() < r.c.Tuning.StallTimeout { // else nothing is answered, and the log would only grow
			pause(r.stopping, retryFirst) // Raft takes entries again a moment after it has said so
			r.leadership.nudge()
		}
		return
	}
	r.c.Logger.Info("leadership was handed over", "why", why)
}

// stalled reports whether an append has kept Raft waiting for too long.
func (r *Replica) stalled() bool { return r.log.Appending() > r.c.Tuning.StallTimeout }

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
