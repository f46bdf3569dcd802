package replica

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"
)

// found is what three durable things say on start: the state, the log, and the newest snapshot. Each was written at its own
// moment, so a crash can leave any pair of them apart; Raft itself would skip entries silently then, or wedge.
type found struct {
	applied, appliedTerm uint64
	first, last          uint64 // of the log; 0, 0 when it is empty
	snapshot             *raft.SnapshotMeta
	// term returns the term of an entry of the log.
	term func(index uint64) (uint64, error)
}

// repair is what has to be done before Raft starts.
type repair struct {
	// restore: the state is older than the newest snapshot, as after a crash while the leader's snapshot was being taken
	// over.
	restore bool
	// emptyLog: the log does not go on from the newest snapshot, as after a crash before it was reset.
	emptyLog bool
}

// restart is what an operator can do about a disk that failed.
const restart = "Start the server again when its disk is well; what is missing here it then gets from the others. If it does not start: " + rejoin

const rejoin = "If other servers of the federation have the data, remove this server with \"naru server delete\", give it an empty data folder, and let it join anew. " +
	"If this is the only server, restore a backup into an empty data folder."

// plan decides what to do about f; an error says why the server must not start, and what the operator can do.
func plan(f found) (repair, error) {
	var r repair
	var snapshot uint64
	if f.snapshot != nil {
		snapshot = f.snapshot.Index
	}
	if f.applied > max(f.last, snapshot) {
		return r, fmt.Errorf("the state has entries of the log up to %d, but the log ends with %d and the newest snapshot with %d: entries that were acknowledged are missing, or the state is not of this folder. %s",
			f.applied, f.last, snapshot, rejoin)
	}
	r.restore = f.applied < snapshot
	if f.last > 0 && snapshot > 0 {
		r.emptyLog = f.last < snapshot
		if !r.emptyLog && f.first <= snapshot {
			term, err := f.term(snapshot)
			if err != nil {
				return r, err
			}
			r.emptyLog = term != f.snapshot.Term
		}
	}
	if r.emptyLog && f.applied > snapshot {
		return r, fmt.Errorf("the state has entries up to %d of a log that does not go on from the newest snapshot, at %d. %s", f.applied, snapshot, rejoin)
	}
	if !r.emptyLog && f.last > 0 && f.first > snapshot+1 {
		return r, fmt.Errorf("the log begins with entry %d, but the newest snapshot that can be read ends with %d: what is between is missing. %s", f.first, snapshot, rejoin)
	}
	if !r.emptyLog && !r.restore && f.applied > 0 && f.applied >= f.first && f.applied <= f.last {
		term, err := f.term(f.applied)
		if err != nil {
			return r, err
		}
		if term != f.appliedTerm {
			return r, fmt.Errorf("the state was made by an entry %d of term %d, and the log has one of term %d there: they are not of the same history. %s",
				f.applied, f.appliedTerm, term, rejoin)
		}
	}
	return r, nil
}

// bringTogether makes the Machine's state fit the log and the snapshots, or says why that cannot be. It returns the applied
// index.
func bringTogether(m Machine, log raft.LogStore, snapshots raft.SnapshotStore, l *slog.Logger) (applied uint64, err error) {
	f := found{term: func(index uint64) (uint64, error) {
		var entry raft.Log
		if err := log.GetLog(index, &entry); err != nil {
			return 0, fmt.Errorf("read entry %d of the log: %w", index, err)
		}
		return entry.Term, nil
	}}
	if f.applied, f.appliedTerm, err = position(m); err != nil {
		return 0, err
	}
	if f.first, err = log.FirstIndex(); err != nil {
		return 0, err
	}
	if f.last, err = log.LastIndex(); err != nil {
		return 0, err
	}
	kept, err := snapshots.List()
	if err != nil {
		return 0, fmt.Errorf("list the snapshots: %w", err)
	}
	if len(kept) > 0 {
		f.snapshot = kept[0]
	}
	r, err := plan(f)
	if err != nil {
		return 0, err
	}
	if r.restore {
		l.Info("the state is restored from the newest snapshot", "applied", f.applied, "snapshot", f.snapshot.Index)
		if f.applied, err = restore(m, snapshots, f.snapshot); err != nil {
			return 0, err
		}
	}
	if r.emptyLog {
		l.Info("the log does not go on from the newest snapshot and is emptied", "first", f.first, "last", f.last, "snapshot", f.snapshot.Index)
		if err := log.DeleteRange(f.first, f.last); err != nil {
			return 0, err
		}
	}
	return f.applied, nil
}

func restore(m Machine, snapshots raft.SnapshotStore, meta *raft.SnapshotMeta) (applied uint64, err error) {
	_, content, err := snapshots.Open(meta.ID)
	if err != nil {
		return 0, fmt.Errorf("snapshot %s is needed and cannot be read: %w. %s", meta.ID, err, rejoin)
	}
	if err := errors.Join(m.Restore(content), content.Close()); err != nil {
		return 0, fmt.Errorf("restore the state from snapshot %s: %w", meta.ID, err)
	}
	index, term, err := position(m)
	if err == nil && (index != meta.Index || term != meta.Term) {
		err = fmt.Errorf("snapshot %s is said to be at entry %d of term %d, and holds the state at entry %d of term %d. %s", meta.ID, meta.Index, meta.Term, index, term, rejoin)
	}
	return index, err
}
