package fsm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// maxWitnessKeys of a zone, and maxLost states that the log no longer holds, are kept (proto: max_items).
	maxWitnessKeys = 16
	maxLost        = 16
	// maxNote is how long a note with all its signatures may be (proto: max_len).
	maxNote = 65536
)

// offerAudit shows the newest checkpoint to the zones whose turn it is.
func (c *command) offerAudit(in *commandv1.OfferAudit) (*commandv1.Result, error) {
	size, err := c.newestCheckpoint()
	if err != nil || size == 0 {
		return &commandv1.Result{}, err
	}
	for _, id := range in.GetZoneIds() {
		zone, err := c.tx.Zones.Get(id)
		if missing(err) || err == nil && (zone.GetState() == apiv1.Zone_RETIRED || zone.GetState() == apiv1.Zone_JOINING) {
			continue
		}
		if err != nil {
			return nil, err
		}
		w, err := c.witness(zone)
		if err != nil {
			return nil, err
		}
		if now := state.Micros(c.clock); w.Due(size, now) {
			if err := c.tx.Offer(w, size, now); err != nil {
				return nil, err
			}
		}
	}
	return &commandv1.Result{}, nil
}

// newestCheckpoint is the size of the newest; 0 where there is none.
func (c *command) newestCheckpoint() (uint64, error) {
	newest, err := c.tx.Checkpoint()
	if missing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(newest.GetSize(), 10, 63)
}

// witness returns what is known of a zone that countersigns, or is to.
func (c *command) witness(zone *apiv1.Zone) (state.Witness, error) {
	w, err := c.tx.Witness(zone.GetId())
	if missing(err) {
		return state.Witness{AuditWitness: &apiv1.AuditWitness{Zone: zone.GetName(), ZoneId: zone.GetId(), Size: "0"}}, nil
	}
	return w, err
}

// acceptCountersignature takes a zone's word on the log. That its signatures are good the proposer has found; whether the log is as
// it says, is seen here. What the zone has countersigned and the log does not hold is kept and told: of an earlier epoch it is what
// the restore of an older backup has lost, of this one it is a fork.
func (c *command) acceptCountersignature(zone *apiv1.Zone, s *linkv1.Countersignature) (rejected string, err error) {
	w, err := c.witness(zone)
	if err != nil {
		return "", err
	}
	if rejected, err = c.meetKey(zone, w, s.GetKey()); rejected != "" || err != nil {
		return rejected, err
	}
	holds, err := c.logHolds(s)
	if err != nil {
		return "", err
	}
	base, restored, past := w.Base, w.Restored, s.GetEpoch() < c.tx.Meta().Epoch
	if holds {
		w.Base, w.Restored = s.GetSize(), w.Restored && past
		err = c.countersigned(w, s)
	} else {
		w.Restored = w.Restored || past
		err = c.lose(zone, w, s, past)
	}
	if err != nil {
		return "", err
	}
	if !s.GetUnproven() || base == w.Base && restored == w.Restored {
		return "", c.tx.PutWitness(w)
	}
	// It waits for a proof that begins elsewhere.
	size, err := c.newestCheckpoint()
	if err != nil {
		return "", err
	}
	return "", c.tx.Offer(w, size, state.Micros(c.clock))
}

// meetKey sees to it that a zone signs with its newest key, and tells of a new one: who verifies exports keeps it.
func (c *command) meetKey(zone *apiv1.Zone, w state.Witness, key string) (rejected string, err error) {
	at := slices.Index(w.GetKeys(), key)
	switch {
	case !strings.HasPrefix(key, c.tx.Meta().Federation+"/zone/"+zone.GetName()+"+"):
		return "the key with which it is signed is not named after the zone", nil
	case at >= 0 && at == len(w.GetKeys())-1:
		return "", nil
	case at >= 0:
		return "it is signed with a key that the zone has replaced", nil
	case len(w.GetKeys()) >= maxWitnessKeys:
		return "the zone has had as many keys as are kept", nil
	}
	w.Keys = append(w.Keys, key)
	return "", c.tell(apiv1.Event_WARNING, "audit.witness-key", where(zone), reference("zone", zone),
		"zone "+zone.GetName()+" countersigns the audit log with "+key+" from now on; who verifies exports keeps that key")
}

// logHolds reports whether the log was as a zone says.
func (c *command) logHolds(s *linkv1.Countersignature) (bool, error) {
	has, err := c.tx.AuditSize()
	if err != nil || s.GetSize() == 0 || s.GetSize() > has || s.GetEpoch() > c.tx.Meta().Epoch {
		return false, err
	}
	root, err := c.tx.AuditRoot(s.GetSize())
	return string(root[:]) == string(s.GetRoot()), err
}

// countersigned keeps a zone's signature, with the checkpoint as long as that is kept.
func (c *command) countersigned(w state.Witness, s *linkv1.Countersignature) error {
	if before, err := strconv.ParseUint(w.GetSize(), 10, 63); err != nil || s.GetSize() <= before {
		return err
	}
	w.Size, w.Time, w.Note = strconv.FormatUint(s.GetSize(), 10), c.now, s.GetNote()+s.GetLine()
	checkpoint, err := c.tx.CheckpointOf(s.GetSize())
	if missing(err) {
		return nil
	}
	if err != nil || !strings.HasPrefix(checkpoint.GetNote(), s.GetNote()) || len(checkpoint.GetNote())+len(s.GetLine()) > maxNote {
		return err
	}
	checkpoint.Note += s.GetLine()
	return c.tx.PutCheckpoint(s.GetSize(), checkpoint)
}

// lose keeps what a zone has countersigned and the log does not hold, and tells of it once.
func (c *command) lose(zone *apiv1.Zone, w state.Witness, s *linkv1.Countersignature, past bool) error {
	if slices.ContainsFunc(w.GetLost(), func(note string) bool { return strings.HasPrefix(note, s.GetNote()) }) {
		return nil
	}
	w.Lost = append(w.Lost, s.GetNote()+s.GetLine())
	w.Lost = w.Lost[max(0, len(w.Lost)-maxLost):]
	kind, said := "audit.lost", "they were written after the backup that was restored, and the exports of that time are the only record of them"
	if !past {
		kind, said = "audit.forked", "another control plane signs with this one's key. Export the log, and find out who; the zone countersigns no more"
	}
	return c.tell(apiv1.Event_ERROR, kind, where(zone), reference("zone", zone), fmt.Sprintf(
		"zone %s has countersigned %d entries of the audit log in epoch %d, and the log does not hold them as they were: %s",
		zone.GetName(), s.GetSize(), s.GetEpoch(), said))
}
