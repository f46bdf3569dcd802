package fsm

import (
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// FeatureLevel is the highest level that this version understands. Raising the replicated level above it stops the process. Level 1 is all
// that the first release knows; each release after it that adds commands, or changes what one means, has a level of its own.
const FeatureLevel = 1

// Machine applies commands to a database. Apply, Snapshot and Restore are called by one goroutine, as Raft does.
type Machine struct {
	db *state.DB
	// run carries out one command; a test may put another in its place.
	run func(*state.Tx, *commandv1.Command) (*commandv1.Result, error)
	// writeAudit writes an entry of the audit log; a test may let it fail.
	writeAudit func(*state.Tx, *apiv1.AuditEntry) error
}

// New returns the machine of a database.
func New(db *state.DB) *Machine {
	return &Machine{db: db, run: func(tx *state.Tx, in *commandv1.Command) (*commandv1.Result, error) {
		return newCommand(tx, in).measured(in)
	}, writeAudit: (*state.Tx).AppendAudit}
}

// Entry is one entry of the log.
type Entry struct {
	Index, Term uint64
	// Data is a commandv1.Command; empty for configuration entries, of which only the index counts.
	Data []byte
}

// errHalfDone says that a command was refused after it had written something.
var errHalfDone = errors.New("refused after a write")

// Apply carries out a batch in one transaction, with the applied index in it, and returns a result for each entry. Entries
// at or below the applied index are passed over: Raft brings them again after a start. A refusal is a result with a
// problem. An error is fatal: nothing of the batch was applied and the process has to stop.
func (m *Machine) Apply(entries []Entry) ([]*commandv1.Result, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	results := make([]*commandv1.Result, len(entries))
	err := m.db.Update(func(tx *state.Tx) error { return m.applyAll(tx, entries, results, false) })
	if errors.Is(err, errHalfDone) {
		// Savepoints cost as much as the writes they guard, and commands check before they write. So the batch is first
		// tried without, and only where a command fails half-way done again with them.
		err = m.db.Update(func(tx *state.Tx) error { return m.applyAll(tx, entries, results, true) })
	}
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (m *Machine) applyAll(tx *state.Tx, entries []Entry, results []*commandv1.Result, guarded bool) error {
	for i, e := range entries {
		results[i] = &commandv1.Result{Index: e.Index}
		meta := tx.Meta()
		if e.Index <= meta.AppliedIndex {
			continue
		}
		if len(e.Data) > 0 {
			result, err := m.applyOne(tx, e.Data, guarded)
			if err != nil {
				return err
			}
			result.Index = e.Index
			results[i] = result
		}
		meta = tx.Meta()
		meta.AppliedIndex, meta.AppliedTerm = e.Index, e.Term
		tx.SetMeta(meta)
	}
	return nil
}

// applyOne carries out one command, unless it has been before.
func (m *Machine) applyOne(tx *state.Tx, data []byte, guarded bool) (*commandv1.Result, error) {
	in := &commandv1.Command{}
	if err := proto.Unmarshal(data, in); err != nil {
		return refusal(problem.New(problem.Invalid, "the command cannot be decoded", "Send it from a server of the same version.")), nil
	}
	if len(in.GetId()) != 16 {
		return refusal(invalid("the command has no id of 16 bytes")), nil
	}
	before, err := tx.Outcome(in.GetId())
	if err == nil {
		return before.Result, nil
	}
	if !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	outcome := &state.Outcome{ID: in.GetId(), Actor: keyed(in.GetActor(), in.GetOrigin().GetActorId())}
	if key := in.GetIdempotency().GetKey(); key != "" {
		before, err := tx.OutcomeByKey(outcome.Actor, key)
		switch {
		case err == nil && string(before.RequestHash) == string(in.GetIdempotency().GetRequestHash()):
			return before.Result, nil
		case err == nil:
			result := refusal(problem.Newf(problem.IdempotencyMismatch, "Use a new key for a new request.",
				"the idempotency key %q was used for another request", key))
			return result, m.record(tx, in, data, result)
		case !errors.Is(err, state.ErrNotFound):
			return nil, err
		}
		outcome.Key, outcome.RequestHash = key, in.GetIdempotency().GetRequestHash()
	}
	outcome.Result, err = m.carryOut(tx, in, guarded)
	if err != nil {
		return nil, err
	}
	if err := m.record(tx, in, data, outcome.Result); err != nil {
		return nil, err
	}
	if outcome.Result.GetProblem() != nil {
		// Only what was done is tied to the key: a request that was refused may be sent again with it.
		outcome.Key, outcome.RequestHash = "", nil
	}
	return outcome.Result, tx.PutOutcome(outcome)
}

// keyed is whose an idempotency key is: that of whoever has the id, since a name may be given anew; of the name, where there is none.
func keyed(actor, id string) string {
	if id != "" {
		return id
	}
	return actor
}

// carryOut runs a command; if it is refused, the state is as before.
func (m *Machine) carryOut(tx *state.Tx, in *commandv1.Command, guarded bool) (result *commandv1.Result, err error) {
	attempt := func() (err error) {
		result, err = m.run(tx, in)
		return err
	}
	meta, writes := tx.Meta(), tx.Writes()
	if guarded {
		err = tx.Savepoint(attempt)
	} else {
		err = attempt()
	}
	var refused *problem.Error
	switch {
	case err == nil:
		return result, nil
	case !errors.As(err, &refused):
		return nil, err
	case !guarded && tx.Writes() != writes:
		return nil, errHalfDone
	}
	tx.SetMeta(meta)
	return refusal(refused), nil
}

func refusal(err *problem.Error) *commandv1.Result {
	return &commandv1.Result{Problem: err.Problem}
}

// Snapshot is the state at an index of the log.
type Snapshot struct {
	Index, Term uint64
	snapshot    *state.Snapshot
}

// Snapshot makes what was applied durable and opens a snapshot of it. It has to be released.
func (m *Machine) Snapshot() (*Snapshot, error) {
	if err := m.db.Checkpoint(); err != nil {
		return nil, err
	}
	s, err := m.db.Snapshot()
	if err != nil {
		return nil, err
	}
	return &Snapshot{s.Meta().AppliedIndex, s.Meta().AppliedTerm, s}, nil
}

// WriteTo writes the stream that Restore reads.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) { return s.snapshot.WriteTo(w) }

// Meta returns the state's numbers in the snapshot.
func (s *Snapshot) Meta() state.Meta { return s.snapshot.Meta() }

// Hash returns the SHA-256 of the replicated content.
func (s *Snapshot) Hash() ([32]byte, error) { return s.snapshot.Hash() }

// Release ends the snapshot. It may be called more than once.
func (s *Snapshot) Release() { s.snapshot.Release() }

// Restore replaces the whole state by a snapshot's. Reads in progress end with state.ErrRetry.
func (m *Machine) Restore(r io.Reader) error {
	_, err := m.db.Restore(r)
	return err
}

// StateHash returns the hash of the replicated content and the index at which it was taken. Replicas that differ at the
// same index have diverged.
func (m *Machine) StateHash() (index uint64, sum [32]byte, err error) {
	s, err := m.db.Snapshot()
	if err != nil {
		return 0, sum, err
	}
	defer s.Release()
	sum, err = s.Hash()
	return s.Meta().AppliedIndex, sum, err
}

// Applied returns the index and term that the state has reached.
func (m *Machine) Applied() (index, term uint64, err error) {
	s, err := m.db.Snapshot()
	if err != nil {
		return 0, 0, err
	}
	defer s.Release()
	return s.Meta().AppliedIndex, s.Meta().AppliedTerm, nil
}
