package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// blockedRetry is how long a batch that cannot be applied for the moment rests before it is tried again.
const blockedRetry = 250 * time.Millisecond

// applier hands committed entries to the Machine: Raft's FSM. All its raft.FSM methods are called by one goroutine of
// Raft's.
//
// Entries that the Machine already holds are passed over: Raft hands them out again after a start, since its newest snapshot
// is older than the Machine's state. No other entry is. After a failure that stops the server nothing is applied any more.
type applier struct {
	machine  Machine
	progress *progress
	pending  *pending
	metrics  *metrics
	log      *slog.Logger
	fail     func(error)
	stopping context.Context
	// reconfigured is told of each configuration that was committed. It must not block.
	reconfigured func(raft.Configuration)
	// applied is told of the last entry of each batch, restored of that of a leader's snapshot, persisted of that of our
	// own. They must not block.
	applied, restored, persisted func(index, term uint64)
	// heed is told of an entry that heeded returns, when it is applied and nothing after it. An error stops the server.
	heed func(index uint64, c *commandv1.Command) error

	seen   uint64       // last index that Raft handed over
	failed error        // why nothing is applied any more
	began  atomic.Int64 // when the batch began that is being applied, in nanoseconds after epoch; 0 when none is
	epoch  time.Time
}

// Apply implements raft.FSM; Raft calls ApplyBatch in its place.
func (a *applier) Apply(l *raft.Log) any { return a.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. What the Machine answers goes to those who wait for it, not to Raft.
func (a *applier) ApplyBatch(logs []*raft.Log) []any {
	unheeded := make([]any, len(logs))
	held := a.progress.applied()
	fresh := logs
	for len(fresh) > 0 && fresh[0].Index <= held {
		fresh = fresh[1:]
	}
	a.seen = logs[len(logs)-1].Index
	if len(fresh) == 0 {
		return unheeded
	}
	for len(fresh) > 0 {
		n, c := untilHeeded(fresh)
		if err := a.applyAll(fresh[:n]); err == nil && c != nil {
			if err := a.heed(fresh[n-1].Index, c); err != nil {
				a.failed = err
				a.fail(err)
			}
		}
		fresh = fresh[n:]
	}
	return unheeded
}

// untilHeeded returns how many entries there are up to the first that replication itself acts upon, and that one's command.
func untilHeeded(logs []*raft.Log) (int, *commandv1.Command) {
	for i, l := range logs {
		if c := heeded(l); c != nil {
			return i + 1, c
		}
	}
	return len(logs), nil
}

// applyAll applies entries together, and tells those who wait for them.
func (a *applier) applyAll(logs []*raft.Log) error {
	entries := make([]Entry, len(logs))
	for i, l := range logs {
		entries[i] = Entry{Index: l.Index, Term: l.Term}
		if l.Type == raft.LogCommand {
			entries[i].Data = l.Data
		}
	}
	results, err := a.apply(entries)
	for i, l := range logs {
		switch {
		case l.Type == raft.LogCommand && err != nil:
			a.pending.deliver(l.Data, outcome{err: err})
		case l.Type == raft.LogCommand:
			a.pending.deliver(l.Data, outcome{result: results[i]})
		case l.Type == raft.LogConfiguration && err == nil:
			a.reconfigured(raft.DecodeConfiguration(l.Data))
		}
	}
	return err
}

func (a *applier) apply(entries []Entry) ([]*commandv1.Result, error) {
	if a.failed != nil {
		return nil, a.failed
	}
	first, last := entries[0].Index, entries[len(entries)-1].Index
	a.began.Store(max(1, int64(time.Since(a.epoch))))
	defer a.began.Store(0)
	results, err := a.machine.Apply(entries)
	for blocked := false; ; blocked = true {
		if err == nil || !temporary(err) {
			if blocked {
				a.metrics.applyBlocked.Set(0)
				a.log.Info("the state can be written again", "last", last)
			}
			break
		}
		if !blocked {
			a.metrics.applyBlocked.Set(1)
			a.log.Error("the state cannot be written, and waits until it can", "first", first, "last", last, "error", err)
		}
		select {
		case <-a.stopping.Done():
			a.failed = fmt.Errorf("entries %d to %d were not applied before the server stopped: %w", first, last, err)
			return nil, a.failed // what comes after them is not applied either
		case <-time.After(blockedRetry):
		}
		results, err = a.machine.Apply(entries)
	}
	if err == nil && len(results) != len(entries) {
		err = fmt.Errorf("the state machine returned %d results for %d entries", len(results), len(entries))
	}
	if err != nil {
		a.failed = fmt.Errorf("apply entries %d to %d: %w. %s", first, last, err, restart)
		a.fail(a.failed)
		return nil, a.failed
	}
	a.metrics.batch.Observe(float64(len(entries)))
	a.metrics.applied.Set(float64(last))
	a.progress.advance(last)
	a.applied(last, entries[len(entries)-1].Term)
	return results, nil
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.Is(err, syscall.ENOSPC) || errors.As(err, &t) && t.Temporary()
}

// applying returns for how long the present batch has been under way; 0 when none is.
func (a *applier) applying() time.Duration {
	began := a.began.Load()
	if began == 0 {
		return 0
	}
	return time.Since(a.epoch) - time.Duration(began)
}

// Snapshot implements raft.FSM. Raft labels it with the last index that it handed over, so that and the state must agree.
func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if a.failed != nil {
		return nil, a.failed
	}
	s, err := a.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	if index, _ := s.Applied(); index != a.seen {
		s.Release()
		return nil, fmt.Errorf("the state is at entry %d and Raft at %d", index, a.seen)
	}
	return &persister{snapshot: s, metrics: a.metrics, persisted: a.persisted}, nil
}

// Restore implements raft.FSM: a snapshot came from the leader.
func (a *applier) Restore(from io.ReadCloser) error {
	if a.failed != nil {
		return a.failed
	}
	if err := a.machine.Restore(from); err != nil {
		return fmt.Errorf("restore the state from a snapshot: %w", err)
	}
	index, term, err := position(a.machine)
	if err != nil {
		return err
	}
	a.seen = index
	a.restored(index, term)
	a.metrics.applied.Set(float64(index))
	a.progress.advance(index)
	return nil
}

// position returns up to where the log is in m's state.
func position(m Machine) (index, term uint64, err error) {
	s, err := m.Snapshot()
	if err != nil {
		return 0, 0, fmt.Errorf("read the applied index: %w", err)
	}
	defer s.Release()
	index, term = s.Applied()
	return index, term, nil
}

// persister writes one snapshot to Raft's store.
type persister struct {
	snapshot  Snapshot
	metrics   *metrics
	persisted func(index, term uint64)
}

// Persist implements raft.FSMSnapshot.
func (p *persister) Persist(sink raft.SnapshotSink) error {
	start := time.Now()
	n, err := p.snapshot.WriteTo(sink)
	if err != nil {
		return errors.Join(fmt.Errorf("write a snapshot: %w", err), sink.Cancel())
	}
	p.metrics.snapshotSeconds.Observe(time.Since(start).Seconds())
	p.metrics.snapshotBytes.Set(float64(n))
	p.persisted(p.snapshot.Applied())
	return nil
}

// Release implements raft.FSMSnapshot.
func (p *persister) Release() { p.snapshot.Release() }
