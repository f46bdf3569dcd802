package replica

import (
	"sync"

	"github.com/hashicorp/raft"
)

// anchoredLog is the log as Raft sees it: with the term of the entry before the first one, and with what a snapshot has not
// replaced.
//
// Raft looks the entry before those it is sent up in the log, also where a snapshot ends with it; and when it takes a
// leader's snapshot over it empties the log, but still believes in the entries behind the snapshot. A follower that was
// killed soon after it had taken a snapshot over would refuse what comes next, be sent the snapshot again, refuse again,
// without end. So the log answers for the entry with which a snapshot ends, and keeps what is behind it: entries like any
// others, that the leader confirms or has removed.
type anchoredLog struct {
	raft.LogStore

	mu          sync.Mutex
	index, term uint64 // of an entry that was applied here
	restored    bool   // a leader's snapshot was taken over, and Raft has not emptied the log yet
}

// anchor makes the log answer for an entry that was applied here.
func (l *anchoredLog) anchor(index, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index, l.term = index, term
}

// replaced makes the log answer for the entry with which the leader's snapshot ends, and keep what is behind it.
func (l *anchoredLog) replaced(index, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index, l.term, l.restored = index, term, true
}

// IsMonotonic implements raft.MonotonicLogStore.
func (l *anchoredLog) IsMonotonic() bool { return true }

// GetLog implements raft.LogStore. What it answers for the anchor has no content: only index and term are ever asked of an
// entry that a snapshot has replaced. Not so of the first of all, which is sent to new followers.
func (l *anchoredLog) GetLog(index uint64, entry *raft.Log) error {
	err := l.LogStore.GetLog(index, entry)
	if err != raft.ErrLogNotFound || index <= 1 {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if index != l.index {
		return err
	}
	*entry = raft.Log{Index: l.index, Term: l.term, Type: raft.LogNoop}
	return nil
}

// StoreLog implements raft.LogStore.
func (l *anchoredLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l *anchoredLog) StoreLogs(entries []*raft.Log) error {
	l.mu.Lock()
	l.restored = false
	l.mu.Unlock()
	return l.LogStore.StoreLogs(entries)
}

// DeleteRange implements raft.LogStore.
func (l *anchoredLog) DeleteRange(from, to uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.restored {
		last, err := l.LastIndex()
		if err != nil {
			return err
		}
		if to == last { // not the cut behind a snapshot of our own
			l.restored = false
			to = min(to, l.index)
		}
	}
	if from > to {
		return nil
	}
	return l.LogStore.DeleteRange(from, to)
}
