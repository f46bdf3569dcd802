package fsm

import (
	"encoding/hex"
	"fmt"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// consumeWithheld moves a zone's journal past an entry that a broker did not let through, and records it as rejected with
// the broker's reason and digest, so that it can be found at its sender. An event tells people of it.
func (c *command) consumeWithheld(in *commandv1.ConsumeWithheld) (*commandv1.Result, error) {
	zone, err := c.linkedZone(in.GetZoneId())
	if err != nil {
		return nil, err
	}
	w := in.GetWithheld()
	entry := w.GetEntry()
	if entry.GetOrigin() == "" || entry.GetStream() == "" || entry.GetSequence() == 0 || !fits(entry.GetSequence()) {
		return nil, invalid("a withheld entry names its origin, stream and sequence")
	}
	c.cause = zone.GetId()
	j := state.Journal{ZoneID: zone.GetId(), Origin: entry.GetOrigin(), Stream: entry.GetStream()}
	point, _, err := c.tx.JournalPoint(j)
	switch {
	case err != nil:
		return nil, err
	case entry.GetSequence() <= point:
		return &commandv1.Result{}, nil
	case entry.GetSequence() > point+1:
		return nil, problem.Newf(problem.Conflict, fmt.Sprintf("Send it from %d.", point+1),
			"journal %s/%s is known up to %d, and entry %d was withheld", j.Origin, j.Stream, point, entry.GetSequence())
	}
	if point == 0 {
		if err := c.mayKeepJournal(zone, j); err != nil {
			return nil, err
		}
	}
	reason := fmt.Sprintf("withheld by a broker: %s (SHA-256 %s)", w.GetReason(), hex.EncodeToString(w.GetDigest()))
	if err := c.tx.Reject(j, entry.GetSequence(), reason, keepRejected); err != nil {
		return nil, err
	}
	if err := c.tell(apiv1.Event_ERROR, "zone.journal-withheld", where(zone), reference("zone", zone),
		fmt.Sprintf("entry %d of journal %s/%s was %s", entry.GetSequence(), j.Origin, j.Stream, reason)); err != nil {
		return nil, err
	}
	return &commandv1.Result{}, c.tx.SetJournalPoint(j, entry.GetSequence())
}
