package wire

import (
	"crypto/sha256"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Withhold makes the two frames that a broker writes when it has refused one without cutting the session: one to the
// receiver in the refused frame's place, with its counter, and one back to the sender. A journal entry is named only
// where the frame held exactly that one: a larger batch comes again, entry by entry.
func (c *Checker) Withhold(f *linkv1.Frame, r *Refusal) (withheld, refused *linkv1.Frame, err error) {
	digest := sha256.Sum256(f.Payload)
	w := &linkv1.Withheld{Type: f.Type, Digest: digest[:], Reason: cut(r.Error(), 1024)}
	// The payload was refused, so what can be read of it is only good for naming it.
	switch f.Type {
	case linkv1.Type_JOURNAL_BATCH:
		var batch linkv1.JournalBatch
		if proto.Unmarshal(f.Payload, &batch) == nil && len(batch.Entries) == 1 &&
			named(batch.Origin) && named(batch.Stream) {
			w.Entry = &linkv1.JournalPoint{Origin: batch.Origin, Stream: batch.Stream, Sequence: batch.Entries[0].GetSequence()}
		}
	case linkv1.Type_CALL_REQUEST, linkv1.Type_CALL_RESPONSE, linkv1.Type_CALL_CANCEL, linkv1.Type_CALL_CREDIT:
		m := c.table[f.Type].kind.New().Interface()
		if proto.Unmarshal(f.Payload, m) == nil {
			w.Call = m.(interface{ GetCall() uint64 }).GetCall()
		}
	}
	forward, err := proto.Marshal(w)
	if err != nil {
		return nil, nil, err
	}
	back, err := proto.Marshal(&linkv1.Refused{Counter: f.Counter, Withheld: w})
	if err != nil {
		return nil, nil, err
	}
	return &linkv1.Frame{Session: f.Session, Direction: f.Direction, Counter: f.Counter, Type: linkv1.Type_WITHHELD, Payload: forward},
		&linkv1.Frame{Session: f.Session, Direction: Opposite(f.Direction), Type: linkv1.Type_REFUSED, Payload: back}, nil
}

// named tells whether a name may stand in a JournalPoint.
func named(s string) bool { return s != "" && utf8.RuneCountInString(s) <= 64 }

// Opposite returns the other direction.
func Opposite(d linkv1.Direction) linkv1.Direction {
	if d == linkv1.Direction_UP {
		return linkv1.Direction_DOWN
	}
	return linkv1.Direction_UP
}

// cut returns the beginning of s, at most max bytes, ending with a whole character.
func cut(s string, max int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= max {
		return s
	}
	for !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}
