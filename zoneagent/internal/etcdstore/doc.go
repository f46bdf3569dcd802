// Package etcdstore keeps the truth of a zone in etcd. It alone knows etcd; what it hands out are the protobuf messages
// themselves.
//
// # Who writes what
//
// desired/ is written by the uplink's owner, from what the control plane sends. observed/, tombstone/, allocation/,
// address/, work/ and journal/ of a cluster are written by the cluster's owner. Every such write is a transaction of an
// Ownership: it fails with ErrFenced once another agent could own.
//
// # Invariants
//
//  1. A transaction that carries journal entries carries the stream's head too: sequences are dense, from 1, within
//     (incarnation, stream).
//  2. A transaction takes effect at most once, however often it had to be sent: each one moves its stream's head, and
//     the head it expects is compared.
//  3. Nothing of an earlier incarnation is committed in a later one: the incarnation's key is compared.
//  4. An owner's Deadline is never later than the end of its lease.
//  5. Objects of the control plane's state and the cursor behind them are in one transaction. Absence deletes nothing.
//
// # Reading
//
// An agent has one watch of the zone's keys, the feed, which decodes each change once for all who follow. Whoever follows
// subscribes first and reads a snapshot then, so that there is no gap; where the watch is lost, all start over so. The
// Picture is what one follower keeps for everybody: what is wanted, and what is observed in the order of its revisions,
// from which the link finds what is new without looking at what is not. It lies behind the store by the watch's way.
//
// # Incarnations
//
// Revisions count within one life of the store. A random id in etcd names the life; an anchor on each agent's disk
// tells the highest revision seen in it. Where they do not fit (etcd restored, replaced, gone backwards) a new life is
// minted, and both directions of the link start over with a full sync.
package etcdstore
