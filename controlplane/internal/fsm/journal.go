package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// maxEntries is how many entries a batch may carry (proto: max_items).
const maxEntries = 256

// appendJournal consumes the entries of a zone's journal that are new, each once and in order. Every entry is consumed:
// what cannot be accepted is recorded as rejected, with the reason.
func (c *command) appendJournal(in *commandv1.AppendJournal) (*commandv1.Result, error) {
	zone, err := c.linkedZone(in.GetZoneId())
	if err != nil {
		return nil, err
	}
	batch := in.GetBatch()
	if batch.GetOrigin() == "" || batch.GetStream() == "" || len(batch.GetEntries()) > maxEntries {
		return nil, invalid(fmt.Sprintf("a batch names its origin and stream and has at most %d entries", maxEntries))
	}
	c.cause = zone.GetId()
	j := state.Journal{ZoneID: zone.GetId(), Origin: batch.GetOrigin(), Stream: batch.GetStream()}
	point, epoch, err := c.tx.JournalPoint(j)
	if err == nil && point == 0 {
		err = c.mayKeepJournal(zone, j)
	}
	if err != nil {
		return nil, err
	}
	lost, err := c.follows(j, batch, point, epoch)
	if err != nil {
		return nil, err
	}
	if lost > 0 {
		point = lost
		err := c.tell(apiv1.Event_ERROR, "zone.journal-lost", where(zone), reference("zone", zone),
			fmt.Sprintf("entries up to %d of journal %s/%s were acknowledged in an earlier epoch and are gone", lost, j.Origin, j.Stream))
		if err != nil {
			return nil, err
		}
	}
	for _, e := range batch.GetEntries() {
		if e.GetSequence() <= point {
			continue
		}
		reason := refusedBy(in, e.GetSequence())
		if reason == "" {
			if reason, err = c.accept(zone, j, e); err != nil {
				return nil, err
			}
		}
		if reason != "" && e.GetLocalEntry() != nil {
			if err := c.refuseLocalEntry(zone, j.Origin, reason); err != nil {
				return nil, err
			}
		}
		if reason != "" {
			if err := c.tx.Reject(j, e.GetSequence(), reason, keepRejected); err != nil {
				return nil, err
			}
		}
		point = e.GetSequence()
	}
	return &commandv1.Result{}, c.tx.SetJournalPoint(j, point)
}

// refusedBy is why the proposer has found that an entry is not to be accepted; empty where it has not.
func refusedBy(in *commandv1.AppendJournal, sequence uint64) string {
	for _, r := range in.GetRefused() {
		if r.GetSequence() == sequence {
			return r.GetReason()
		}
	}
	return ""
}

// follows checks, before anything is written, that a batch leaves no gap behind point. One exception: what was
// acknowledged to a plane whose memory a restore has undone may be gone at its sender. Then lost is the sequence before
// the first that is left; this can be only in the first batch that a stream brings in an epoch.
func (c *command) follows(j state.Journal, batch *linkv1.JournalBatch, point, epoch uint64) (lost uint64, err error) {
	next := point
	for i, e := range batch.GetEntries() {
		switch seq := e.GetSequence(); {
		case seq == 0 || !fits(seq):
			return 0, invalid("an entry of a journal is numbered from 1")
		case i > 0 && seq != batch.GetEntries()[i-1].GetSequence()+1:
			return 0, invalid("the entries of a batch are consecutive")
		case seq <= next:
		case seq == next+1:
			next = seq
		case i == 0 && epoch != 0 && epoch < c.tx.Meta().Epoch:
			lost, next = seq-1, seq
		default:
			return 0, problem.Newf(problem.Conflict, fmt.Sprintf("Send it from %d.", next+1),
				"journal %s/%s is known up to %d, and the batch goes on with %d", j.Origin, j.Stream, next, seq)
		}
	}
	return lost, nil
}

// accept takes over one entry, or says why not.
func (c *command) accept(zone *apiv1.Zone, j state.Journal, e *linkv1.JournalEntry) (rejected string, err error) {
	switch b := e.GetBody().(type) {
	case *linkv1.JournalEntry_Operation:
		return c.acceptReport(zone, e, b.Operation)
	case *linkv1.JournalEntry_Event:
		return c.acceptEvent(zone, b.Event)
	case *linkv1.JournalEntry_Usage:
		return c.acceptUsage(zone, j.Origin, b.Usage)
	case *linkv1.JournalEntry_Countersignature:
		return c.acceptCountersignature(zone, b.Countersignature)
	case *linkv1.JournalEntry_VmOverride:
		return c.acceptOverride(zone, e, b.VmOverride)
	case *linkv1.JournalEntry_LocalEntry:
		return c.acceptLocalEntry(zone, j.Origin, b.LocalEntry)
	case *linkv1.JournalEntry_Order:
		return "orders go down, not up", nil
	}
	return "the entry says nothing that this version knows", nil
}

// acceptReport writes the progress of an operation, which never goes back, or its end.
func (c *command) acceptReport(zone *apiv1.Zone, e *linkv1.JournalEntry, r *linkv1.OperationReport) (string, error) {
	op, err := c.tx.Operations.Get(r.GetOperationId())
	switch {
	case missing(err):
		return "there is no operation " + r.GetOperationId(), nil
	case err != nil:
		return "", err
	case op.GetZoneId() != zone.GetId():
		return "operation " + r.GetOperationId() + " is not in zone " + zone.GetName(), nil
	case op.GetDone():
		return "operation " + r.GetOperationId() + " is done", nil
	}
	if err := c.supersede(op); err != nil {
		return "", err
	}
	if s := r.GetStep(); s != nil {
		if s.GetAt() == nil {
			s.At = e.GetTime()
		}
		step(op, s)
	}
	op.Progress, op.ReportedAt = max(op.GetProgress(), min(r.GetProgress(), 99)), nil
	if r.GetDone() {
		return "", c.reported(op, r.GetError())
	}
	return "", c.tx.Operations.Put(op)
}

// acceptEvent stores what happened in a zone. An event about a VM belongs to the VM's project, whatever the zone says; one
// about anything else to none.
func (c *command) acceptEvent(zone *apiv1.Zone, m *apiv1.Event) (string, error) {
	if m.GetId() == "" {
		return "the event has no id", nil
	}
	if _, err := c.tx.Events.Get(m.GetId()); err == nil {
		return "the event id " + m.GetId() + " is taken", nil
	} else if !missing(err) {
		return "", err
	}
	m.Zone, m.ZoneId = zone.GetName(), zone.GetId()
	if later(m.GetTime(), c.now) {
		m.Time = c.now // what is said to happen in the future would never be old enough to be forgotten
	}
	switch target := m.GetTarget(); target.GetKind() {
	case "vm":
		vm, err := c.tx.VMs.Get(target.GetId())
		switch {
		case missing(err):
			m.Project, m.ProjectId = "", "" // gone meanwhile
		case err != nil:
			return "", err
		case vm.GetZoneId() != zone.GetId():
			return "VM " + target.GetId() + " is not in zone " + zone.GetName(), nil
		default:
			m.Project, m.ProjectId = vm.GetProject(), vm.GetProjectId()
		}
	default:
		m.Project, m.ProjectId = "", ""
	}
	if err := c.tx.Events.Put(m); err != nil {
		return "", err
	}
	return "", c.tx.Told(zone.GetId(), sourceReported, m.GetId(), keepReported)
}

// acknowledgeJournal drops what the zone has of the journals to it, and fails the operations whose orders it rejected.
func (c *command) acknowledgeJournal(in *commandv1.AcknowledgeJournal) (*commandv1.Result, error) {
	zone, err := c.linkedZone(in.GetZoneId())
	if err != nil {
		return nil, err
	}
	c.cause = zone.GetId()
	for _, r := range in.GetAck().GetRejected() {
		if err := c.rejectedOrder(zone, r); err != nil {
			return nil, err
		}
	}
	for _, p := range in.GetAck().GetPoints() {
		j := state.Journal{ZoneID: zone.GetId(), Origin: p.GetOrigin(), Stream: p.GetStream()}
		if err := c.tx.AcknowledgeOrders(j, p.GetSequence()); err != nil {
			return nil, err
		}
	}
	return &commandv1.Result{}, nil
}

func (c *command) rejectedOrder(zone *apiv1.Zone, r *linkv1.Rejected) error {
	p := r.GetEntry()
	e, err := c.tx.Order(state.Journal{ZoneID: zone.GetId(), Origin: p.GetOrigin(), Stream: p.GetStream()}, p.GetSequence())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	op, err := c.tx.Operations.Get(e.GetOrder().GetOperationId())
	if missing(err) || err == nil && op.GetDone() {
		return nil
	}
	if err != nil {
		return err
	}
	failed := problem.Newf(problem.ZoneUnavailable, "Look at the VM and ask again.", "zone %s did not accept it: %s", zone.GetName(), r.GetReason())
	return c.finish(proto.CloneOf(op), failed.Problem)
}
