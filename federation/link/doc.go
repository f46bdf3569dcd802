// Package link is what passes between a zone and the control plane: both ends of it, and the session between them. It
// is used by the zone's uplink agent (ZoneEnd) and by every server (HubEnd). Neither end listens, and no packet is
// routed: both dial a broker, which stands between two networks and passes on, byte for byte, the frames that package
// wire lets through.
//
// # Promises
//
// What crosses is a closed set of messages in four classes. Each class keeps its own promise over any path, however
// often sessions break, and wherever either end stops:
//
//   - state: the latest wins. The receiver says up to which revision of the sender it stands, and is sent what changed
//     since; whoever has a gap is sent everything. What is deleted is deleted by a tombstone that was written and
//     acknowledged; absence deletes nothing.
//   - journal: every entry is consumed exactly once, in the order of its stream. The sender keeps it until it is
//     acknowledged; the receiver de-duplicates by (origin, stream, sequence) in the transaction that consumes it, and
//     acknowledges after that transaction. An entry that the receiver cannot accept is consumed as rejected, and one
//     that a broker refuses is consumed as withheld; neither is lost silently.
//   - call: at most once, within a deadline. The link never repeats a call. When a session ends under a call, its caller
//     is told that nobody knows whether it was done, and repeats it with the same Idempotency-Key.
//   - sample: bounded. The oldest are dropped, and the drops are counted and told.
//
// What makes these promises whole is on both sides of this package: the sources and sinks that are handed in (see
// StateSource, StateSink, JournalSource, JournalSink) state what they must do, and are durable; a session is not, and
// keeps nothing that its end would lose.
//
// # A session
//
// HELLO goes up, WELCOME and PROOF come down, PROOF goes up. Hello and welcome carry an ephemeral X25519 key, a nonce, a
// certificate chain, the schema, the numbers (epoch or incarnation) and the points from which to resume. Each end then
// signs its role and a hash over both payloads. From the shared secret and that hash HKDF derives one HMAC-SHA256 key
// for each direction, and an AES-256-GCM key for the credentials that calls carry. From then on the session's classes
// run side by side until the first failure of anything; that failure is what Run returns. A new session begins anew.
//
// Invariants, each shown by a test:
//
//	I1. A frame is accepted only in its own session and direction, with the counter that follows the last one's, and
//	    with a tag under its direction's key. Whatever is changed, repeated, moved, reflected or missing ends the session
//	    at the next frame, the latest being a sign of life.
//	I2. What an end accepts from the other a broker would have let through: both judge with package wire. The one thing
//	    left to others is the rules of a call's body, which its service checks, as for calls that come by other ways.
//	I3. Nothing of a hello is acted upon before the zone's proof: a recorded hello opens nothing, supersedes nothing. A
//	    zone is what its certificate says, and, where the broker says whom it saw, the same.
//	I4. Both proofs cover both payloads: who changes one bit of the opening, keys and resume points included, opens
//	    nothing, and proofs of one role do not serve the other.
//	I5. Numbers go forwards. An epoch older than one that the zone has seen ends the session (ErrOldEpoch), as does the
//	    same epoch with another id (ErrQuarantine) and a store that has gone backwards (ErrIncarnationLost). Both ends
//	    judge alike, before any class begins.
//	I6. Of the state one chunk is on its way, of a journal stream one batch. A resend never meets its original, and what a
//	    broker refuses never lets something later overtake something earlier.
//	I7. The reader waits for nobody. Every inbox has the size of its class's window; who sends beyond it is cut off. So
//	    memory is bounded against a hostile peer, and a slow sink of one class holds up no other.
//	I8. The writer takes one frame of each class that has one, in even turns, and bulk travels in pieces of at most 256
//	    KiB. So a full sync or a flood of samples delays a call by a few frames and never starves it.
//	I9. A zone has at most one session at a server; a newer one, once proven, ends the older (SUPERSEDED).
//
// # What a broker can and cannot do
//
// It can cut a session, delay it, refuse frames, and see everything but credentials: it is trusted to refuse, and to say
// what it refused. In a refused frame's place it sends WITHHELD with that frame's counter, and tells the sender with
// REFUSED, which has none. Neither carries a tag. The ends then do what each class needs: a journal batch comes again
// entry by entry, and only the entry that cannot pass is consumed as withheld, under the broker's word; a state chunk
// comes again in halves, down to single objects, and an object that cannot pass is left out and reported (Skipped),
// so that the rest converges; a call fails with the reason; a sample is dropped.
//
// It cannot change a frame, make one, repeat one, or move one to another session, direction or place (I1); it cannot
// stand in for an end (I4); it cannot read a caller's token or attach it to another call, for that is sealed under the
// session's key to the call's number, method and body. By withholding it can keep an object or an entry from crossing,
// but not unseen: both ends record it.
//
// # Time
//
// Sessions use the monotonic clock only (Timing): an end gives a sign of life after ten seconds of silence, and gives up
// the other after thirty. No clock is compared across the link.
package link
