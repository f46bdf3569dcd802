package replica

import (
	"io"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Entry is one committed entry of the log. Data is a commandv1.Command, or empty for a change of Raft's own configuration,
// which changes nothing but the applied index.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// Machine is the deterministic function that the log drives, with its durable state.
type Machine interface {
	// Apply carries entries out, in ascending order of index and in one transaction that also makes the last one's index and
	// term the applied position. It returns one result an entry; a refusal is a result. Only one goroutine calls it.
	//
	// After an error nothing of the batch may have been kept. An error that wraps syscall.ENOSPC, or has a method
	// Temporary() bool that returns true, is tried again until it passes; any other stops the server.
	Apply(entries []Entry) ([]*commandv1.Result, error)
	// Snapshot returns a consistent view of the state as it is now, that later calls of Apply do not change.
	Snapshot() (Snapshot, error)
	// Restore replaces the whole state, and its applied position, by what a Snapshot wrote; or leaves it as it was and
	// fails.
	Restore(r io.Reader) error
}

// Snapshot is a consistent view of the state. Its methods may be called while Apply goes on.
type Snapshot interface {
	// Applied is the position up to which the log is in it; 0, 0 for a state to which nothing was applied.
	Applied() (index, term uint64)
	// Hash is of the replicated content: servers whose hashes differ at the same position have diverged.
	Hash() ([32]byte, error)
	// WriteTo writes it in the form that Restore reads.
	io.WriterTo
	// Release frees what it holds. Called once.
	Release()
}
