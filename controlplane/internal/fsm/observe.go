package fsm

import (
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// maxChunk is how many objects a chunk may carry (proto: max_items).
const maxChunk = 128

// observation is a chunk of a zone's state being taken over.
type observation struct {
	*command
	zone *apiv1.Zone
	// full: the chunk is part of a full sync, which remembers what it brings.
	full bool
	// refused counts reported objects that are not the zone's to report.
	refused int
	first   string
	// held counts the VMs that are held at the zone's word, -1 until somebody asks; leftOut those beyond what can be held.
	held, leftOut int
	// projects are those that were asked about, and whether they have VMs in the zone.
	projects map[string]bool
}

// observe takes over a chunk that follows what is known of the zone, and the point with it.
func (c *command) observe(in *commandv1.Observe) (*commandv1.Result, error) {
	zone, err := c.linkedZone(in.GetZoneId())
	if err != nil {
		return nil, err
	}
	c.cause = zone.GetId()
	chunk := in.GetChunk()
	cursor, err := c.tx.ObservedCursor(zone.GetId())
	if err != nil {
		return nil, err
	}
	begins := chunk.GetFull() && chunk.GetAfter() == 0
	switch {
	case chunk.GetIncarnation() == "" || len(chunk.GetObjects()) > maxChunk:
		return nil, invalid("a chunk names its incarnation and has at most " + strconv.Itoa(maxChunk) + " objects")
	case !fits(chunk.GetThrough()) || chunk.GetThrough() < chunk.GetAfter():
		return nil, invalid("a chunk does not go back")
	case !begins && (chunk.GetIncarnation() != cursor.Incarnation || chunk.GetAfter() != cursor.Revision || chunk.GetFull() && !cursor.Syncing):
		return nil, problem.Newf(problem.Conflict, "Go on from the point that is known, or begin a full sync.",
			"of zone %s incarnation %s is known up to %d, and the chunk goes on from %s after %d",
			zone.GetName(), orNone(cursor.Incarnation), cursor.Revision, chunk.GetIncarnation(), chunk.GetAfter())
	}
	if begins {
		if err := c.tx.ForgetObserved(zone.GetId()); err != nil {
			return nil, err
		}
		was := proto.CloneOf(zone)
		if err := c.meetIncarnation(zone, chunk.GetIncarnation()); err != nil {
			return nil, err
		}
		if !proto.Equal(was, zone) {
			if err := c.tx.Zones.Put(zone); err != nil {
				return nil, err
			}
		}
	}
	o := &observation{command: c, zone: zone, full: chunk.GetFull(), held: -1, projects: map[string]bool{}}
	for _, object := range chunk.GetObjects() {
		if err := o.take(object); err != nil {
			return nil, err
		}
	}
	if err := o.tellRefused(); err != nil {
		return nil, err
	}
	if err := o.tellLeftOut(); err != nil {
		return nil, err
	}
	if chunk.GetFull() && chunk.GetEnd() {
		if err := o.markAbsent(); err != nil {
			return nil, err
		}
		if err := c.tx.ForgetObserved(zone.GetId()); err != nil {
			return nil, err
		}
		if err := o.noteReport(); err != nil {
			return nil, err
		}
	}
	return &commandv1.Result{}, c.tx.SetObservedCursor(zone.GetId(), state.ObservedCursor{
		Incarnation: chunk.GetIncarnation(), Revision: chunk.GetThrough(), Syncing: chunk.GetFull() && !chunk.GetEnd(),
	})
}

// noteReport notes that the zone has reported all that it has; from now on wishes go down again.
func (o *observation) noteReport() error {
	if !o.tx.AwaitsReport(o.zone) {
		return nil
	}
	o.zone.ReportedEpoch = o.tx.Meta().Epoch
	if err := o.tx.Zones.Put(o.zone); err != nil {
		return err
	}
	return o.tx.Desire(o.zone.GetId(), reference("zone", o.zone))
}

// askAll has a zone begin with a full sync when it reports next.
func (c *command) askAll(zone *apiv1.Zone) error {
	cursor, err := c.tx.ObservedCursor(zone.GetId())
	if err != nil {
		return err
	}
	return c.tx.SetObservedCursor(zone.GetId(), state.ObservedCursor{Incarnation: cursor.Incarnation, Syncing: true})
}

func orNone(incarnation string) string {
	if incarnation == "" {
		return "none"
	}
	return incarnation
}

// take takes over one object.
func (o *observation) take(object *linkv1.Object) error {
	switch n := object.GetNoun().(type) {
	case *linkv1.Object_Zone:
		return o.takeZone(n.Zone)
	case *linkv1.Object_Cluster:
		return takeNoun(o, o.tx.Clusters, "cluster", n.Cluster, n.Cluster.GetId())
	case *linkv1.Object_Host:
		return takeNoun(o, o.tx.Hosts, "host", n.Host, n.Host.GetId())
	case *linkv1.Object_Vm:
		return o.takeVM(n.Vm)
	case *linkv1.Object_Reservation:
		return o.takeReservation(n.Reservation)
	case *linkv1.Object_Tombstone:
		if ref := n.Tombstone.GetNoun(); ref.GetKind() == "vm" {
			return o.takeGone(ref.GetId())
		}
		return nil // clusters and hosts are the plane's to delete; the zone only says that it has followed
	}
	o.refuse("an object without a noun")
	return nil
}

func (o *observation) refuse(what string) {
	if o.refused++; o.first == "" {
		o.first = what
	}
}

// tellRefused says once for a chunk that it contained what the zone has no business with.
func (o *observation) tellRefused() error {
	if o.refused == 0 {
		return nil
	}
	return o.tell(apiv1.Event_WARNING, "zone.report-refused", where(o.zone), reference("zone", o.zone),
		"zone "+o.zone.GetName()+" reported "+strconv.Itoa(o.refused)+" objects that are not its own; the first: "+o.first)
}

func (o *observation) takeZone(reported *apiv1.Zone) error {
	if reported.GetId() != o.zone.GetId() {
		o.refuse("zone " + reported.GetId())
		return nil
	}
	was := proto.CloneOf(o.zone)
	o.mergeZone(o.zone, reported)
	if proto.Equal(was, o.zone) {
		return nil
	}
	return o.tx.Zones.Put(o.zone)
}

// inZone is a noun that stands in a zone.
type inZone interface {
	state.Noun
	GetZoneId() string
}

// takeNoun takes over what a zone reports of a noun that the plane has made. Nothing is written when nothing changed.
func takeNoun[M inZone](o *observation, t state.Table[M], kind string, reported M, id string) error {
	was, err := t.Get(id)
	if missing(err) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	if was.GetZoneId() != o.zone.GetId() {
		o.refuse(kind + " " + id)
		return nil
	}
	next := proto.CloneOf(was)
	schema.MergeObserved(next, reported)
	if proto.Equal(was, next) {
		return nil
	}
	return t.Put(next)
}

// takeVM takes over what a zone reports of a VM.
func (o *observation) takeVM(reported *apiv1.VM) error {
	if reported.GetId() == "" {
		o.refuse("a VM without id")
		return nil
	}
	was, err := o.tx.VMs.Get(reported.GetId())
	if missing(err) {
		return o.meetUnknown(reported)
	}
	if err != nil {
		return err
	}
	if was.GetZoneId() != o.zone.GetId() {
		o.refuse("VM " + reported.GetId())
		return nil
	}
	if o.full {
		if err := o.tx.MarkObserved(o.zone.GetId(), was.GetId()); err != nil {
			return err
		}
	}
	if reported.GetState() == apiv1.VM_DELETED {
		return o.takeGone(was.GetId())
	}
	if !request.Whole(was) && was.GetDesiredState() != apiv1.VM_DELETED {
		project, why, err := o.mayAdopt(reported)
		if err != nil {
			return err
		}
		if why == "" {
			return o.adopt(reported, project)
		}
	}
	next := proto.CloneOf(was)
	schema.MergeObserved(next, reported)
	if !request.Whole(was) {
		trim(next)
	}
	settleSize(next)
	next.Freshness, was.Freshness = 0, 0
	if request.Whole(was) && forgotten(o.tx.Meta(), next) {
		err = o.follow(next)
	} else if !proto.Equal(was, next) {
		err = o.tx.VMs.Put(next)
	}
	if err == nil && !proto.Equal(was.GetSnapshots(), next.GetSnapshots()) {
		err = o.takeSnapshots(next)
	}
	if err != nil || !newer(next.GetReached(), was.GetReached()) {
		return err
	}
	return o.endReported(next)
}

// takeGone takes a zone's word that a VM is gone: by decision, or one that was held at the zone's word alone, then it is
// removed; otherwise it is missing, and wanted all the same.
func (o *observation) takeGone(id string) error {
	m, err := o.tx.VMs.Get(id)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case m.GetZoneId() != o.zone.GetId():
		o.refuse("VM " + id)
		return nil
	case m.GetDesiredState() == apiv1.VM_DELETED, !request.Whole(m):
		return o.removeVM(m, o.zone)
	case m.GetPower() == apiv1.VM_MISSING:
		return nil
	}
	m.Power, m.PowerChangedAt = apiv1.VM_MISSING, o.now
	m.Address = "" // the zone gives it to others now
	message := "zone " + o.zone.GetName() + " says that VM " + m.GetName() + " is gone, and it is still wanted"
	if o.tx.AwaitsReport(o.zone) {
		m.Generation = nil
		message = "zone " + o.zone.GetName() + " says that VM " + m.GetName() + " is gone, and the restored backup has it; " + notMadeAnew
	}
	if err := o.tx.VMs.Put(m); err != nil {
		return err
	}
	return o.tellOfVM(apiv1.Event_ERROR, "vm.missing", o.zone, m, message)
}

// notMadeAnew is how to go on with a VM that a restored backup has and its zone has not.
const notMadeAnew = "it is not made anew by itself: delete it, or start it for a new one with an empty disk"

// markAbsent marks the VMs that a full sync has not brought. Absence is never an instruction: nothing is deleted. Nor is
// anything made anew after a restore, when what is wished may be what was deleted since the backup: such a VM loses its
// generation, and so does not go down until somebody wishes something of it. One that the zone has never reported is
// merely not there yet.
func (o *observation) markAbsent() error {
	restored := o.tx.AwaitsReport(o.zone)
	ids, err := o.tx.NotObserved(o.zone.GetId())
	if err != nil {
		return err
	}
	marked, names := 0, ""
	for _, id := range ids {
		m, err := o.tx.VMs.Get(id)
		if err != nil {
			return err
		}
		known := m.GetReached() != nil || m.GetPower() != apiv1.VM_POWER_UNSPECIFIED
		if !known || !restored && m.GetPower() == apiv1.VM_UNKNOWN && m.GetHostFreshness() == apiv1.Freshness_UNREACHABLE {
			continue
		}
		if m.GetPower() != apiv1.VM_UNKNOWN {
			m.Power, m.PowerChangedAt = apiv1.VM_UNKNOWN, o.now
		}
		m.HostFreshness = apiv1.Freshness_UNREACHABLE
		if restored {
			m.Address = "" // the zone, which remembers more than the backup, gives it to others now
		}
		if restored && m.GetDesiredState() != apiv1.VM_DELETED {
			m.Generation = nil
		}
		if err := o.tx.VMs.Put(m); err != nil {
			return err
		}
		if marked++; marked <= 3 {
			names += " " + m.GetName()
		}
	}
	if marked == 0 {
		return nil
	}
	message := strconv.Itoa(marked) + " VMs are not in the full report of zone " + o.zone.GetName() + "; nothing was deleted. "
	if restored {
		message += "Each is kept as the restored backup has it, and " + notMadeAnew + ". "
	}
	return o.tell(apiv1.Event_WARNING, "zone.vms-absent", where(o.zone), reference("zone", o.zone), message+"The first:"+names)
}

// acknowledgeDesired notes how far the zone has what it should hold.
func (c *command) acknowledgeDesired(in *commandv1.AcknowledgeDesired) (*commandv1.Result, error) {
	zone, err := c.linkedZone(in.GetZoneId())
	if err != nil {
		return nil, err
	}
	meta, through := c.tx.Meta(), in.GetThrough()
	switch {
	case through.GetEpoch() != meta.Epoch:
		return nil, problem.Newf(problem.Conflict, "Begin a full sync.", "the zone acknowledges epoch %d and this is epoch %d", through.GetEpoch(), meta.Epoch)
	case through.GetIndex() > meta.Revision:
		return nil, problem.Newf(problem.Contradiction, "Look at who else speaks to the zone, then lift its quarantine.",
			"it acknowledges revision %d of this epoch, and there are %d", through.GetIndex(), meta.Revision)
	}
	point, err := c.tx.DesiredPoint(zone.GetId())
	if err != nil {
		return nil, err
	}
	if point.GetEpoch() == through.GetEpoch() && point.GetIndex() >= through.GetIndex() {
		return &commandv1.Result{}, nil
	}
	return &commandv1.Result{}, c.tx.AcknowledgeDesired(zone.GetId(), through)
}
