// Package broker stands on the boundary between the control network and one other. It has a leg in each: agents dial
// the zone leg, servers dial the hub leg, and the broker dials nobody.
//
// What crosses, and how:
//
//   - Two unary questions from the zone side, Join and Renew, are put to a server over its Announce stream, and the
//     answer handed back.
//   - One bidirectional stream a session. The agent's Connect waits until its HELLO is checked; the session is offered
//     to a server, which takes it up with Session; from then on each frame is received, checked (federation/wire) and
//     forwarded with the very bytes of its payload.
//
// Invariants:
//
//	B1. TLS ends on each leg. Nothing but a checked frame, a checked question or its answer crosses.
//	B2. Who speaks is what the certificate on the leg says; no message changes that. A HELLO shows the same certificate
//	    as the connection it came over.
//	B3. A session is taken up by the server it was offered to, once.
//	B4. A zone+agent has one session; a newer one ends the older.
//	B5. No session outlives its agent's certificate, or the word that it is revoked.
//	B6. What one zone can make the broker hold is bounded: by gRPC's windows, one frame each way, and the limits of
//	    Config. A slow side slows only itself.
//	B7. On disk are the key and the certificate chain, and nothing else.
//
// Three goroutines carry a session, and the stream each one ends on is the reason: the handler of Connect waits for
// the end, and by returning ends the zone's stream; the handler of Session carries frames up, wakes when the zone's
// stream has ended, and by returning ends the hub's; the third carries frames down and wakes when the hub's has ended.
package broker
