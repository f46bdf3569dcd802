// Package audit is what proves the audit log without the server that wrote it: the form of checkpoints and exports, and their
// verification. It is pure: bytes in, a verdict out.
//
// Entries are the leaves of a Merkle tree (RFC 6962), a leaf's bytes the entry as protobuf in its one canonical form. A checkpoint
// names a size of the tree, its root, the epoch and the time; it is a signed note (C2SP signed-note and tlog-checkpoint) with
// Ed25519 signatures of the control plane and of the zones that have seen it and found it to follow on all they saw before.
//
// A zone that is cut off keeps a log of its own of the same form, and signs it itself (local.go).
//
// An export is a line that says so, then pieces (ExportAuditResponse), each with its length before it. What an export proves by
// itself: that it is whole, in order and as it was signed. What it cannot prove by itself: that nothing was signed after its end, or
// beside it. For that a checkpoint is kept from before, by whoever verifies or by a zone (Trust.Known).
package audit
