// Package pki is everything about identity: authorities, the certificates they issue, how a certificate is judged, the
// holders that keep one and renew it, join tokens, and the sealing of what may not lie open.
//
// Shape of a chain. A federation has one root and one intermediate for each kind of holder ("servers", "brokers",
// "links", "people"). The intermediate carries its role as a URI (urn:naru:authority:links), signed by the root, and
// can issue that role only; so a holder of one intermediate's key can never make an identity of another kind. A zone
// has an authority of its own, a root of role "zone" that issues directly, for what happens inside the zone.
//
// Judging. A chain is accepted for what it is, whole and in order: the pinned root, the intermediate's role, path
// lengths, key usages, exactly one SPIFFE id and that of the intermediate's federation and role. Host names play no
// part. See Verify.
//
// Renewal. A certificate's key stays, its id stays; what names a request carries is ignored. An expired certificate of
// a link proves only who it was, which is enough to renew it and for nothing else.
package pki
