package fsm

import (
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// What the state keeps at a zone's word is bounded for each zone, so that one which lies fills nothing but its own share (P15).
// How fast it may say so is not judged here: the hub makes a zone wait before it proposes.
const (
	// keepReported events that a zone has reported, keepCaused that the plane has told because of what the zone did,
	// keepOverridden records of what was done in it while it was cut off, and keepRejected entries that were not accepted are
	// kept of a zone; the oldest go.
	keepReported   = 20_000
	keepCaused     = 10_000
	keepOverridden = 10_000
	keepRejected   = 10_000
	// maxJournals of a zone are known; staleJournal is how old one of an earlier incarnation is, when there are so many, before
	// it is forgotten.
	maxJournals  = 1000
	staleJournal = 30 * 24 * 3600 * 1_000_000 // microseconds
	// maxHeld VMs of a zone are held at once, each of at most maxHeldBytes with maxHeldUsage entries of usage.
	maxHeld      = 1000
	maxHeldBytes = 4 << 10
	maxHeldUsage = 64
	// maxAdopted VMs of a zone, together of maxAdoptedBytes, are adopted in an epoch.
	maxAdopted      = 10_000
	maxAdoptedBytes = 64 << 20
	// maxZoneLogs that a zone has kept itself, together of maxZoneLogEntries, are kept, each entry of at most maxLeaf bytes and signed in
	// at most maxZoneNote (proto: max_len). An honest zone writes some for each time that somebody logs in while it is cut off.
	maxZoneLogs       = 100
	maxZoneLogEntries = 250_000
	maxLeaf           = 8192
	maxZoneNote       = 4096
	// maxForgottenUsage entries are taken in an epoch of VMs that a restored backup may have forgotten.
	maxForgottenUsage = 10_000
)

// Where the events come from that a zone has to answer for.
const (
	sourceReported = "reported"
	sourceCaused   = "caused"
)

// Kinds of what is taken at a zone's word alone, counted by epoch.
const (
	tallyAdopted      = "adopted"
	tallyAdoptedBytes = "adopted bytes"
	tallyUsage        = "usage"
	tallyLeftOut      = "left out"
)

// keepEvent stores an event that this command causes. Of those that are a zone's doing the newest are kept.
func (c *command) keepEvent(e *apiv1.Event) error {
	if err := c.tx.Events.Put(e); err != nil || c.cause == "" {
		return err
	}
	return c.tx.Told(c.cause, sourceCaused, e.GetId(), keepCaused)
}

// mayKeepJournal refuses a journal beyond those that a zone may have. Of too many, those go that an earlier incarnation has left.
func (c *command) mayKeepJournal(zone *apiv1.Zone, j state.Journal) error {
	n, err := c.tx.JournalCount(zone.GetId())
	if err != nil || n < maxJournals {
		return err
	}
	if err := c.tx.ForgetJournals(j, zone.GetIncarnation(), state.Micros(c.now)-staleJournal); err != nil {
		return err
	}
	if n, err = c.tx.JournalCount(zone.GetId()); err != nil || n < maxJournals {
		return err
	}
	return problem.Newf(problem.TooMany, "Look at the zone's agents: an honest zone has one journal for each of its clusters.",
		"zone %s has %d journals already", zone.GetName(), n)
}

// mayAdoptMore reports whether a VM may still be adopted at its zone's word, and counts it.
func (o *observation) mayAdoptMore(reported *apiv1.VM) (bool, error) {
	number, err := o.tx.Tally(o.zone.GetId(), tallyAdopted)
	if err != nil {
		return false, err
	}
	bytes, err := o.tx.Tally(o.zone.GetId(), tallyAdoptedBytes)
	size := uint64(proto.Size(reported))
	if err != nil || number >= maxAdopted || bytes+size > maxAdoptedBytes {
		return false, err
	}
	if err := o.tx.AddTally(o.zone.GetId(), tallyAdopted, 1); err != nil {
		return false, err
	}
	return true, o.tx.AddTally(o.zone.GetId(), tallyAdoptedBytes, size)
}

// mayHold reports whether one more VM can be held.
func (o *observation) mayHold() (bool, error) {
	if o.held < 0 {
		n, err := o.tx.HeldVMs(o.zone.GetId())
		if err != nil {
			return false, err
		}
		o.held = n
	}
	return o.held < maxHeld, nil
}

// tellLeftOut says once for a chunk that VMs were left out.
func (o *observation) tellLeftOut() error {
	if o.leftOut == 0 {
		return nil
	}
	if err := o.tx.AddTally(o.zone.GetId(), tallyLeftOut, uint64(o.leftOut)); err != nil {
		return err
	}
	return o.tell(apiv1.Event_ERROR, "zone.vms-left-out", where(o.zone), reference("zone", o.zone),
		"zone "+o.zone.GetName()+" reported "+strconv.Itoa(o.leftOut)+" VMs that are not known and beyond the "+strconv.Itoa(maxHeld)+
			" that are held; delete what is held, or quarantine the zone: when none is held any more, it is asked for all it has")
}

// askLeftOut has a zone report anew what was left out, once nothing of it is held any more.
func (c *command) askLeftOut(zone *apiv1.Zone) error {
	n, err := c.tx.Tally(zone.GetId(), tallyLeftOut)
	if err != nil || n == 0 {
		return err
	}
	held, err := c.tx.HeldVMs(zone.GetId())
	if err != nil || held > 0 {
		return err
	}
	if err := c.tx.ClearTally(zone.GetId(), tallyLeftOut); err != nil {
		return err
	}
	return c.askAll(zone)
}
