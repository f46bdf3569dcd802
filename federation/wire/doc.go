// Package wire says which frames may cross a boundary between two networks. A broker and both ends of a link use it,
// so that what one lets through the other accepts.
//
// Two questions are answered here, and no others:
//
//   - CheckForm: are these bytes the one canonical encoding of a message of this type? Then decoding and encoding
//     again gives the same bytes, nothing can hide between two readings of them, and a broker can forward what it was
//     given, under the sender's tag, knowing that it has seen all of it.
//   - Checker.Check: may this frame travel in this direction? Its type must stand in a closed table, its payload and,
//     for a call, the body inside it must have the canonical form, decode, and obey the rules written in proto/.
//
// # The canonical form
//
// F1. Fields stand in ascending order of their number; a repeated field's elements stand together.
// F2. A singular field stands at most once, and of a oneof at most one member.
// F3. Every varint, tags and lengths included, has its shortest encoding and fits its type.
// F4. A field without presence that holds its zero value is absent; a packed field is one record and not empty.
// F5. Strings are UTF-8.
// F6. Nothing is unknown: no field, and no value of an enum.
// F7. There are no maps and no groups, and nesting ends at MaxDepth.
//
// Go's encoder writes oneofs after all other fields. Our messages number the members of oneofs from 100, so that its
// output, default or deterministic, has this form; Compile refuses a message type that breaks that habit, and a test
// proves it for every message in naru.api.v1 and naru.link.v1.
//
// Breaking F1 to F5 or F7 takes intent, and a refusal says so (Hostile). F6 and the rules in proto/ are also broken by
// a peer that is merely newer or careless: its frame is refused and its session goes on.
package wire
