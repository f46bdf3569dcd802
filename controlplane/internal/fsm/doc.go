// Package fsm is the one deterministic function of the control plane: commands in the order of Raft's log go in, the
// replicated state (package state) comes out, the same on every server.
//
// It interprets nothing: no policy, no validation rules, no regular expression, no float, no order of maps, no clock, no
// randomness, no goroutine, no I/O beyond its own transaction (held by pure_test.go). The proposer has decided on a
// snapshot; Apply compares the versions it read and checks again what must never be wrong: that names are unique, that
// what is named exists, that states permit it, that nothing that is depended on disappears, that numbers follow.
//
// A command that is refused changes nothing; its result is a problem. A command is carried out once by its id, and once
// by (actor, idempotency key). The time is the later of the command's stamp and the last one seen. The sentences that are
// stored here (problems, events, steps) are part of the function: changing one needs a feature level.
//
// Files: machine.go (batches, de-duplication), command.go (one command and its means), noun.go (what creating, updating
// and deleting have in common), one file a noun, then federation.go, join.go, session.go, observe.go and journal.go.
package fsm
