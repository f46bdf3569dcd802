package fsm

import (
	"crypto/sha256"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// auditEvery is how often, in microseconds, the reports of a zone become an entry, and refusals that are alike do.
	auditEvery = 60 * 1_000_000
	// maxRefusalKinds of a zone's edge, or of the control network, are told apart at once: so many of those for want of a right, and so many
	// others, so that people's slips do not crowd out what somebody tries. What is beyond is one kind.
	maxRefusalKinds = 30
	// settleAtOnce bounds what one command settles.
	settleAtOnce = 100
	// maxAuditMessage is in bytes (proto: max_len in characters).
	maxAuditMessage = 1024
)

// record writes what the audit log says of a command, in the transaction of its effect: without the entry there is no effect
// (P7). This is the one place that does, for every command. What is done leaves an entry, whoever asked; what a call asked for
// and was refused leaves one as well. Not so what changes nothing that anybody decided (unaudited); and what zones report, which
// leaves an entry a minute and zone, with a digest over all of it, and one besides where it countersigns the log otherwise than before.
func (m *Machine) record(tx *state.Tx, in *commandv1.Command, data []byte, r *commandv1.Result) error {
	a := &auditRecord{tx: tx, write: m.writeAudit, in: in, at: stampOf(tx.Meta(), in)}
	refused := r.GetProblem() != nil
	switch b := in.GetBody().(type) {
	case nil:
		return nil // nobody knows what it was to be
	case *commandv1.Command_RecordAudit:
		if refused {
			return nil
		}
		return a.told(b.RecordAudit.GetEntry())
	case *commandv1.Command_Observe:
		return a.report(b.Observe.GetZoneId(), data, refused)
	case *commandv1.Command_AppendJournal:
		if err := a.broughtAbout(b.AppendJournal.GetZoneId(), data, refused); err != nil || onlyCountersigns(b.AppendJournal) {
			return err
		}
		if !refused && bringsLog(b.AppendJournal) {
			if err := a.seal(); err != nil {
				return err
			}
		}
		return a.report(b.AppendJournal.GetZoneId(), data, refused)
	case *commandv1.Command_ConsumeWithheld:
		return a.report(b.ConsumeWithheld.GetZoneId(), data, refused)
	case *commandv1.Command_SetZoneSession:
		return a.report(b.SetZoneSession.GetZoneId(), data, refused)
	case *commandv1.Command_SetZoneCondition:
		return a.report(b.SetZoneCondition.GetZoneId(), data, refused)
	case *commandv1.Command_Prune:
		if err := a.settle(); err != nil {
			return err
		}
	}
	if unaudited(in) || refused && in.GetOrigin() == nil {
		return nil
	}
	e, err := a.entry()
	if err != nil {
		return err
	}
	if err := a.describe(e, r); err != nil {
		return err
	}
	digest := sha256.Sum256(data)
	e.Digest, e.Outcome = digest[:], apiv1.AuditEntry_DONE
	if !refused {
		if err := a.write(tx, e); err != nil {
			return err
		}
		if err := a.submitted(e, r); err != nil {
			return err
		}
		if err := a.dropped(e, r); err != nil {
			return err
		}
		return a.endedWith(e)
	}
	e.Outcome, e.ProblemCode, e.Message = apiv1.AuditEntry_REFUSED, r.GetProblem().GetCode(), cut(r.GetProblem().GetDetail())
	return a.refused(e)
}

// unaudited commands change nothing that anybody decided: what moves the log along, what says how far a zone has come, what
// happened to a server, the checkpoints of the log itself and who is shown them, that what people are told has gone out to them, and that
// a provider was asked about somebody and said what it said before.
func unaudited(in *commandv1.Command) bool {
	switch in.GetBody().(type) {
	case *commandv1.Command_Noop, *commandv1.Command_AcknowledgeDesired, *commandv1.Command_AcknowledgeJournal,
		*commandv1.Command_RecordEvent, *commandv1.Command_SignAudit, *commandv1.Command_OfferAudit, *commandv1.Command_AddressNotices, *commandv1.Command_SettleDelivery:
		return true
	case *commandv1.Command_CheckIdentity: // nothing came of it but with what to ask the next time
		return !in.GetCheckIdentity().GetGone() && in.GetCheckIdentity().GetGroupsUnknown()
	}
	return false
}

// onlyCountersigns: a zone says nothing but how far it has countersigned the log. An entry of that would make the next one due.
func onlyCountersigns(in *commandv1.AppendJournal) bool {
	for _, e := range in.GetBatch().GetEntries() {
		if e.GetCountersignature() == nil {
			return false
		}
	}
	return len(in.GetBatch().GetEntries()) > 0
}

// bringsLog: a zone brings of a log that it has kept itself.
func bringsLog(in *commandv1.AppendJournal) bool {
	return slices.ContainsFunc(in.GetBatch().GetEntries(), func(e *linkv1.JournalEntry) bool { return e.GetLocalEntry() != nil })
}

// auditRecord is the record of one command being written.
type auditRecord struct {
	tx    *state.Tx
	write func(*state.Tx, *apiv1.AuditEntry) error
	in    *commandv1.Command
	at    *timestamppb.Timestamp
}

// report takes a zone's report into the digest of its reports, which becomes an entry when it is a minute old.
func (a *auditRecord) report(zoneID string, data []byte, refused bool) error {
	if refused {
		return nil // the zone, or the hub, sends it again
	}
	now := state.Micros(a.at)
	r, err := a.tx.Reports(zoneID)
	if err != nil {
		return err
	}
	if r.Count > 0 && now-r.Since >= auditEvery {
		if err := a.reported(zoneID, r); err != nil {
			return err
		}
		r = state.Reports{}
	}
	if r.Count == 0 {
		r = state.Reports{Since: now, Digest: make([]byte, sha256.Size)}
	}
	h := sha256.New()
	h.Write(r.Digest)
	h.Write(data)
	r.Count, r.Digest = r.Count+1, h.Sum(nil)
	return a.tx.PutReports(zoneID, r)
}

// reported writes the entry of a zone's reports.
func (a *auditRecord) reported(zoneID string, r state.Reports) error {
	name, err := a.zoneName(zoneID)
	if err != nil {
		return err
	}
	return a.write(a.tx, &apiv1.AuditEntry{
		Time: a.at, Actor: "zone:" + name, ActorId: zoneID, Action: "zone.report", Target: &apiv1.Reference{Kind: "zone", Id: zoneID, Name: name},
		Zone: name, ZoneId: zoneID, Outcome: apiv1.AuditEntry_DONE, Digest: r.Digest, Count: r.Count,
	})
}

// seal writes of the logs that zones have kept themselves how many entries they have now, and their root, so that this log proves theirs:
// of each at once, and then once a minute.
func (a *auditRecord) seal() error {
	grown, err := a.tx.UnsealedLogs(state.Micros(a.at)-auditEvery, settleAtOnce)
	if err != nil {
		return err
	}
	for _, l := range grown {
		err := a.write(a.tx, &apiv1.AuditEntry{
			Time: a.at, Actor: "zone:" + l.GetZone(), ActorId: l.GetZoneId(), Action: audit.Merges,
			Target: &apiv1.Reference{Kind: "audit-log", Id: l.GetIncarnationId(), Name: l.GetName()}, Zone: l.GetZone(), ZoneId: l.GetZoneId(),
			Outcome: apiv1.AuditEntry_DONE, Digest: l.GetCheckpoint().GetRoot(), Count: uint32(l.Size - l.Sealed),
			Message: "the log " + l.GetName() + " that the zone has kept itself has " + strconv.FormatUint(l.Size, 10) + " entries; the digest is its root",
		})
		if err != nil {
			return err
		}
		l.Sealed, l.SealedAt = l.Size, state.Micros(a.at)
		if err := a.tx.PutZoneLog(l); err != nil {
			return err
		}
	}
	return nil
}
