package audit

import (
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Seen is what a witness remembers of a log.
type Seen struct {
	// Newest is the largest state that it has countersigned; size 0: none.
	Newest Checkpoint
	// Keys of the log as they were then, older first.
	Keys []string
	// Earlier are some that it has countersigned before, the oldest first.
	Earlier []Checkpoint
}

// Offer is a state of a log that a witness is asked to countersign.
type Offer struct {
	// Note is signed with the newest of the log's Keys alone.
	Note string
	Keys []string
	// Proof leads to it from the log as it was at size After.
	After uint64
	Proof []tlog.Hash
	// Begun is the entry with which the log began its newest epoch, set where the log was restored and does not hold what the witness
	// has seen; BegunProof is that the log holds it.
	Begun      []byte
	BegunProof []tlog.Hash
}

// Verdict is what a witness makes of an offer that it has no objection to.
type Verdict int

const (
	// Known: it is what was countersigned last.
	Known Verdict = iota
	// Follows: it leads on from all that was seen, and is to be countersigned.
	Follows
	// Restored: the log says itself that it was restored behind less than was seen, and leads on from what the backup had. It is to be
	// countersigned; what was seen last is lost.
	Restored
	// Unproven: the proof begins elsewhere than asked for.
	Unproven
)

// Why a witness does not countersign.
const (
	Fork      = "FORK"
	Rollback  = "ROLLBACK"
	WrongKey  = "KEY"
	Signature = "SIGNATURE"
	NoProof   = "UNPROVEN"
)

// Objection is why a witness does not countersign what it was shown.
type Objection struct{ Reason, Message string }

func (o *Objection) Error() string { return o.Message }

func object(reason, message string, args ...any) *Objection {
	return &Objection{reason, fmt.Sprintf(message, args...)}
}

// Judge says what a witness is to do with an offer: Follows and Restored are signed, and remembered in place of what was seen. from
// is, of what is Unproven, where the proof has to begin. The error is an *Objection.
//
// Within an epoch the log only grows. A control plane that was restored begins another epoch; then it may have forgotten the end of
// what was seen, if its log says so in an entry of its own, and still leads on from what was seen before that entry.
func Judge(seen Seen, o Offer) (c Checkpoint, v Verdict, from Checkpoint, err error) {
	if len(o.Keys) == 0 {
		return c, v, from, object(Signature, "the log that is shown has no key")
	}
	if c, _, err = Open(o.Note, o.Keys[len(o.Keys)-1:]); err != nil {
		return c, v, from, object(Signature, "what is shown is not signed with the newest key of the log: %v", err)
	}
	was := seen.Newest
	if was.Size == 0 {
		return c, Follows, from, nil
	}
	later := c.Epoch > was.Epoch
	switch {
	case c.Origin != was.Origin:
		return c, v, from, object(WrongKey, "it is the log of %s, and that of %s was countersigned", c.Origin, was.Origin)
	case later && o.Keys[0] != seen.Keys[0], !later && !slices.Equal(seen.Keys, o.Keys[:min(len(seen.Keys), len(o.Keys))]):
		return c, v, from, object(WrongKey, "the log has other keys than those under which it was countersigned")
	case c.Epoch < was.Epoch:
		return c, v, from, object(Rollback, "it is of epoch %d, and epoch %d was countersigned", c.Epoch, was.Epoch)
	case c.Size == was.Size && c.Root == was.Root && !later:
		return c, Known, from, nil
	case o.Begun != nil && later:
		return judgeRestored(seen, c, o)
	case c.Size < was.Size && !later:
		return c, v, from, object(Rollback, "it has %d entries, and %d were countersigned, in the same epoch", c.Size, was.Size)
	case c.Size == was.Size && !later:
		return c, v, from, object(Fork, "its %d entries are not those that were countersigned", c.Size)
	case o.After != was.Size || c.Size < was.Size:
		return c, Unproven, was, nil
	}
	if err := tlog.CheckTree(o.Proof, int64(c.Size), c.Root, int64(was.Size), was.Root); err != nil {
		return c, v, from, object(Fork, "its first %d entries are not those that were countersigned, or the proof does not show it", was.Size)
	}
	return c, Follows, from, nil
}

// judgeRestored judges a log that says that it was restored behind less than was seen.
func judgeRestored(seen Seen, c Checkpoint, o Offer) (_ Checkpoint, v Verdict, from Checkpoint, err error) {
	e := &apiv1.AuditEntry{}
	begun, err := uint64(0), proto.Unmarshal(o.Begun, e)
	if err == nil {
		begun, err = decimal(e.GetSequence())
	}
	switch {
	case err != nil || e.GetAction() != epochBegins:
		return c, v, from, object(Fork, "what is shown as the beginning of epoch %d is none", c.Epoch)
	case begun >= c.Size || tlog.CheckRecord(o.BegunProof, int64(c.Size), c.Root, int64(begun), tlog.RecordHash(o.Begun)) != nil:
		return c, v, from, object(Fork, "the log does not hold the beginning of epoch %d that is shown", c.Epoch)
	case begun >= seen.Newest.Size:
		return c, v, from, object(Fork, "it is said to be restored with all that was countersigned, and does not lead on from it")
	}
	for _, h := range slices.Backward(seen.Earlier) {
		if h.Size > begun {
			continue
		}
		if o.After != h.Size {
			return c, Unproven, h, nil
		}
		if err := tlog.CheckTree(o.Proof, int64(c.Size), c.Root, int64(h.Size), h.Root); err != nil {
			return c, v, from, object(Fork, "its first %d entries, which the backup is said to have had, are not those that were countersigned", h.Size)
		}
		break
	}
	return c, Restored, from, nil
}

// epochBegins is the action of the entry with which an epoch begins.
const epochBegins = "epoch.begin"

// Thin says which of the sizes at which a log was countersigned (ascending, below newest) to remember: each twice as far back as
// the one behind it, and the first.
func Thin(sizes []uint64, newest uint64) (keep []bool) {
	keep = make([]bool, len(sizes))
	next := uint64(0)
	for i := len(sizes) - 1; i >= 0; i-- {
		if back := newest - sizes[i]; i == 0 || back >= next {
			keep[i], next = true, 2*back
		}
	}
	return keep
}
