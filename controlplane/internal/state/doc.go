// Package state is the replicated state of the control plane in one SQLite file a server: each noun's message as a blob
// with its CRC32C, beside the columns that queries need and the revision that last wrote it.
//
// One writer (package fsm, through Update) and any number of readers (View), each on a snapshot of its own. The package
// knows no raft, gRPC, HTTP, policy or clock: what it writes is a function of what it is told to write, so that replicas
// that are told the same hold the same. It follows that
//
//   - every table is WITHOUT ROWID and STRICT with BINARY collation, every SELECT that returns more than one row has an
//     ORDER BY, and no statement uses AUTOINCREMENT, random() or a date function;
//   - bounds that decide what is kept (tombstones) are constants, never options;
//   - a sentence that the state machine stores is behaviour: changing one needs a feature level.
//
// Files: db.go (open, view, update), file.go (connections to one file), table.go and column.go (what every noun has in
// common), list.go, filter.go and token.go (List), changes.go (Since, tombstones), watch.go, one file a noun, then what
// belongs to the link (desired.go, observed.go, journal.go, session.go), to identity (identity.go), to exactly-once
// (outcome.go), and to snapshots (snapshot.go, record.go, restore.go).
package state
