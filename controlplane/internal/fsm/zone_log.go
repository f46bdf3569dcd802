package fsm

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// acceptLocalEntry takes the next entry of a log that a zone has kept itself. That the zone's key has signed the note, and that the leaf
// is an entry in its one form, the proposer has found; whether it is the next one, and the log then is as the zone has signed it, is seen
// here.
func (c *command) acceptLocalEntry(zone *apiv1.Zone, origin string, e *linkv1.LocalEntry) (rejected string, err error) {
	logs, err := c.tx.ZoneLogsOf(zone.GetId())
	if err != nil {
		return "", err
	}
	l, known := logOf(logs, origin)
	switch {
	case !known && len(logs) >= maxZoneLogs:
		return fmt.Sprintf("the zone has %d logs already", len(logs)), nil
	case !known:
		if l, err = c.tx.NewZoneLog(zone, origin); err != nil {
			return "", err
		}
	case e.GetIndex() < l.Size:
		return c.broughtAgain(l, e)
	}
	if entriesOf(logs) >= maxZoneLogEntries {
		return fmt.Sprintf("the zone has brought %d entries, which is as many as are kept", maxZoneLogEntries), nil
	}
	if e.GetIndex() != l.Size {
		return fmt.Sprintf("it is entry %d, and the log has %d", e.GetIndex(), l.Size), nil
	}
	entry, rejected := entryOf(zone, e)
	if rejected != "" {
		return rejected, nil
	}
	says, key, rejected, err := c.says(zone, l, e)
	if rejected != "" || err != nil {
		return rejected, err
	}
	if rejected, err = c.meetSigner(zone, e.GetKey()); rejected != "" || err != nil {
		return rejected, err
	}
	if err := c.tx.Log(l.GetName()).Append(entry, e.GetLeaf()); err != nil {
		return "", err
	}
	l.Size, l.Key = says.Size, key
	l.Checkpoint = &apiv1.AuditCheckpoint{Size: strconv.FormatUint(says.Size, 10), Root: says.Root[:], Time: timestamppb.New(says.Time), Note: e.GetNote()}
	return "", c.tx.PutZoneLog(l)
}

// entryOf is the entry that a leaf is, where it is one of the zone's.
func entryOf(zone *apiv1.Zone, e *linkv1.LocalEntry) (entry *apiv1.AuditEntry, rejected string) {
	entry = &apiv1.AuditEntry{}
	if len(e.GetLeaf()) > maxLeaf || proto.Unmarshal(e.GetLeaf(), entry) != nil {
		return nil, "the leaf is no entry"
	}
	switch {
	case entry.GetSequence() != strconv.FormatUint(e.GetIndex(), 10):
		return nil, fmt.Sprintf("the entry says that it is %s, and stands at %d", strconv.Quote(entry.GetSequence()), e.GetIndex())
	case entry.GetZoneId() != zone.GetId() || entry.GetZone() != zone.GetName():
		return nil, "the entry is not of zone " + zone.GetName()
	case entry.GetTime().CheckValid() != nil:
		return nil, "the entry has no time"
	}
	return entry, ""
}

// says is what the zone has signed of its log with an entry, once that is what comes of the entry; and the key that checks it.
func (c *command) says(zone *apiv1.Zone, l state.ZoneLog, e *linkv1.LocalEntry) (says audit.Checkpoint, key, rejected string, err error) {
	origin := audit.LocalOrigin(c.tx.Meta().Federation, zone.GetName(), l.GetIncarnationId())
	says, bad := audit.Read(e.GetNote())
	if bad == nil {
		key, bad = audit.LocalKey(origin, e.GetKey())
	}
	if bad != nil || len(e.GetNote()) > maxZoneNote || says.Origin != origin || says.Epoch != 0 || timestamppb.New(says.Time).CheckValid() != nil {
		return says, "", "what the zone has signed is not a state of the log " + origin, nil
	}
	grown := audit.Growing{Size: l.Size}
	if grown.Hashes, err = c.tx.Log(l.GetName()).Before(l.Size); err != nil {
		return says, "", "", err
	}
	if err := grown.Append(e.GetLeaf()); err != nil {
		return says, "", "", err
	}
	root, err := grown.Root()
	if err == nil && (says.Size != grown.Size || says.Root != root) {
		rejected = fmt.Sprintf("the zone has signed another log than comes of entry %d", e.GetIndex())
	}
	return says, key, rejected, err
}

// meetSigner sees to it that a zone's log is signed with the key with which the zone countersigns.
func (c *command) meetSigner(zone *apiv1.Zone, key string) (rejected string, err error) {
	w, err := c.witness(zone)
	if err != nil {
		return "", err
	}
	known := len(w.GetKeys())
	if rejected, err = c.meetKey(zone, w, key); rejected != "" || err != nil || len(w.GetKeys()) == known {
		return rejected, err
	}
	return "", c.tx.PutWitness(w)
}

// broughtAgain is an entry that the log has already: it is the same, or the zone has written its log anew.
func (c *command) broughtAgain(l state.ZoneLog, e *linkv1.LocalEntry) (rejected string, err error) {
	has, err := c.tx.Log(l.GetName()).Leaves(e.GetIndex(), 1)
	if err == nil && (len(has) == 0 || string(has[0].Leaf) != string(e.GetLeaf())) {
		rejected = fmt.Sprintf("another entry %d was brought before", e.GetIndex())
	}
	return rejected, err
}

// refuseLocalEntry keeps why an entry of a zone's log was not taken up, and tells people of the first in each log.
func (c *command) refuseLocalEntry(zone *apiv1.Zone, origin, reason string) error {
	logs, err := c.tx.ZoneLogsOf(zone.GetId())
	if err != nil {
		return err
	}
	l, known := logOf(logs, origin)
	if !known && len(logs) >= maxZoneLogs {
		return nil // those that are kept say enough
	}
	if !known {
		if l, err = c.tx.NewZoneLog(zone, origin); err != nil {
			return err
		}
	}
	if l.GetRefused() != "" {
		return nil
	}
	l.Refused = cut(reason)
	if err := c.tx.PutZoneLog(l); err != nil {
		return err
	}
	return c.tell(apiv1.Event_ERROR, "zone.log-refused", where(zone), reference("zone", zone), cut(fmt.Sprintf(
		"an entry of the log %s that zone %s has kept itself was not taken up, and none that leads on from it will be: %s. Find out who writes for the zone",
		l.GetName(), zone.GetName(), reason)))
}

func logOf(logs []state.ZoneLog, incarnation string) (state.ZoneLog, bool) {
	for _, l := range logs {
		if l.GetIncarnationId() == incarnation {
			return l, true
		}
	}
	return state.ZoneLog{}, false
}

func entriesOf(logs []state.ZoneLog) (n uint64) {
	for _, l := range logs {
		n += l.Size
	}
	return n
}
