// Package members tells the agents of a zone of one another by gossip (memberlist), inside the zone only and encrypted
// with the zone's key. It alone knows memberlist.
//
// What it says is a hint: who owns what is decided by elections in etcd, and nothing is ever stopped, moved or removed
// on the word of this package alone.
package members
