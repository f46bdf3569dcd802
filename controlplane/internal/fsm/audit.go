package fsm

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/action"
	"github.com/naru-project/naru/controlplane/internal/request"
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

// submitted writes that a request was submitted as it was made: an entry besides that of its creation.
func (a *auditRecord) submitted(made *apiv1.AuditEntry, r *commandv1.Result) error {
	in := a.in.GetCreateRequest()
	if in.GetSubmit() == nil {
		return nil
	}
	m := &apiv1.Request{}
	if err := proto.Unmarshal(r.GetNoun(), m); err != nil || m.GetId() != in.GetRequest().GetId() || request.Editable(m) {
		return err // another is known under its number, or was corrected
	}
	e := proto.CloneOf(made)
	e.Action, e.Zone, e.ZoneId = "request.submit", m.GetZone(), m.GetZoneId()
	return a.write(a.tx, e)
}

// dropped writes what a user has lost with their former organization: an entry of each, as where it is ended by itself.
func (a *auditRecord) dropped(e *apiv1.AuditEntry, r *commandv1.Result) error {
	if !a.in.GetUpdateUser().GetDropRights() {
		return nil
	}
	user := &apiv1.User{}
	if err := proto.Unmarshal(r.GetNoun(), user); err != nil {
		return err
	}
	ops, err := a.tx.OperationsNow()
	if err != nil {
		return err
	}
	for _, what := range user.GetDropped() {
		of := proto.CloneOf(e)
		for _, op := range ops {
			if op.GetTarget().GetId() == what.GetId() {
				of.Project, of.ProjectId, of.Zone, of.ZoneId = op.GetProject(), op.GetProjectId(), op.GetZone(), op.GetZoneId()
			}
		}
		of.Action, of.Target, of.Message = what.GetKind()+".delete", what, "with the former organization of "+user.GetName()
		if what.GetKind() == "group" {
			of.Action = "group.remove-member"
		}
		if err := a.write(a.tx, of); err != nil {
			return err
		}
	}
	return nil
}

// broughtAbout writes what a zone's journal brought about besides reports: a key with which it countersigns that is new, what the log does not
// hold, and what was done in it while it was cut off. Those come once each.
func (a *auditRecord) broughtAbout(zoneID string, data []byte, refused bool) error {
	if refused {
		return nil
	}
	told, err := a.tx.EventsNow("audit.")
	if err != nil {
		return err
	}
	overrides, err := a.tx.EventsNow("vm.overrid")
	if told = append(told, overrides...); err != nil || len(told) == 0 {
		return err
	}
	name, err := a.zoneName(zoneID)
	if err != nil {
		return err
	}
	digest, made := sha256.Sum256(data), uuidText(a.in.GetId())[:28] // as nextID begins
	for _, m := range told {
		if !strings.HasPrefix(m.GetId(), made) {
			continue // the zone reports it: under whatever type, and an id of its own
		}
		if err := a.write(a.tx, &apiv1.AuditEntry{
			Time: a.at, Actor: "zone:" + name, ActorId: zoneID, Action: m.GetType(), Target: m.GetTarget(), Zone: m.GetZone(), ZoneId: m.GetZoneId(),
			Project: m.GetProject(), ProjectId: m.GetProjectId(),
			Outcome: apiv1.AuditEntry_DONE, Message: cut(m.GetMessage()), Digest: digest[:],
		}); err != nil {
			return err
		}
	}
	return nil
}

// What ends with a user is told by these events, and the record says of each what it says where that is ended by hand.
const administratorDeleted, accessTokenDeleted = "administrator.deleted", "access-token.deleted"

// endedWith writes of each certificate and access token that ended with a user an entry of its own; user is the entry of what was done to
// the user.
func (a *auditRecord) endedWith(user *apiv1.AuditEntry) error {
	switch a.in.GetBody().(type) {
	case *commandv1.Command_DisableUser, *commandv1.Command_DeleteUser:
	default:
		return nil
	}
	for _, kind := range []string{administratorDeleted, accessTokenDeleted} {
		told, err := a.tx.EventsNow(kind)
		if err != nil {
			return err
		}
		for _, m := range told {
			e := proto.CloneOf(user)
			e.Action, e.Target, e.Message = strings.TrimSuffix(kind, "d"), m.GetTarget(), cut(m.GetMessage())
			e.Project, e.ProjectId, e.Zone, e.ZoneId = m.GetProject(), m.GetProjectId(), m.GetZone(), m.GetZoneId()
			if err := a.write(a.tx, e); err != nil {
				return err
			}
		}
	}
	return nil
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

// entry is what the command's envelope says.
func (a *auditRecord) entry() (*apiv1.AuditEntry, error) {
	o := a.in.GetOrigin()
	e := &apiv1.AuditEntry{
		Time: a.at, Actor: actorText(a.in.GetActor()), ActorId: o.GetActorId(), SessionId: o.GetSessionId(),
		Strength: o.GetStrength(), TraceId: a.in.GetTraceId(),
	}
	var err error
	e.ViaZone, err = a.zoneName(o.GetZoneId())
	return e, err
}

// told writes what a server says of something that no command did.
func (a *auditRecord) told(told *apiv1.AuditEntry) error {
	e, err := a.entry()
	if err != nil {
		return err
	}
	e.Action, e.Target, e.Outcome, e.ProblemCode = told.GetAction(), told.GetTarget(), told.GetOutcome(), told.GetProblemCode()
	e.Project, e.ProjectId, e.Zone, e.ZoneId = told.GetProject(), told.GetProjectId(), told.GetZone(), told.GetZoneId()
	e.Message, e.Digest, e.Count = cut(told.GetMessage()), told.GetDigest(), told.GetCount()
	if told.GetActor() != "" {
		e.Actor, e.ActorId = told.GetActor(), told.GetActorId()
	}
	if told.GetSessionId() != "" {
		e.SessionId = told.GetSessionId()
	}
	if told.GetStrength() != apiv1.Session_STRENGTH_UNSPECIFIED {
		e.Strength = told.GetStrength()
	}
	if e.GetOutcome() == apiv1.AuditEntry_REFUSED {
		return a.refused(e)
	}
	return a.write(a.tx, e)
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

// zoneName is a zone's name; its id where it is not known any more.
func (a *auditRecord) zoneName(id string) (string, error) {
	if id == "" {
		return "", nil
	}
	zone, err := a.tx.Zones.Get(id)
	if missing(err) {
		return id, nil
	}
	return zone.GetName(), err
}

// describe writes what the command is about, as its body and its result say.
func (a *auditRecord) describe(e *apiv1.AuditEntry, r *commandv1.Result) error {
	m := a.in.ProtoReflect()
	member := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	body := m.Get(member).Message()
	e.Message = cut(textOf(body, "reason"))
	if e.Action = textOf(body, "kind"); e.GetAction() == "" { // what the body calls itself goes before
		e.Action = action.OfCommand(string(member.Name()))
	}
	if in := a.in.GetPassLease(); in != nil { // time does what the step says
		e.Action = "lease." + strings.ReplaceAll(strings.ToLower(in.GetStep().String()), "_", "-")
	}
	op := r.GetOperation()
	if noun := nounIn(body); noun != nil {
		kind := action.Kebab(string(noun.Descriptor().Name()))
		e.Target = &apiv1.Reference{Kind: kind, Id: textOf(noun, "id"), Name: textOf(noun, "name")}
		e.Project, e.ProjectId, e.Zone, e.ZoneId = textOf(noun, "project"), textOf(noun, "project_id"), textOf(noun, "zone"), textOf(noun, "zone_id")
	} else if op.GetTarget() != nil {
		e.Target = op.GetTarget()
	} else {
		e.Target = namedBy(body, e.GetAction())
	}
	switch e.GetTarget().GetKind() {
	case "project":
		e.Project, e.ProjectId = e.GetTarget().GetName(), e.GetTarget().GetId()
	case "zone":
		e.Zone, e.ZoneId = e.GetTarget().GetName(), e.GetTarget().GetId()
	}
	if e.GetProject() == "" {
		e.Project, e.ProjectId = op.GetProject(), op.GetProjectId()
	}
	if e.GetZone() == "" {
		e.Zone, e.ZoneId = op.GetZone(), op.GetZoneId()
	}
	if err := a.describeFile(e, r); err != nil {
		return err
	}
	return a.describeRequest(e)
}

// describeFile says which file was attached to a request, or taken away, as the comment does that it came with.
func (a *auditRecord) describeFile(e *apiv1.AuditEntry, r *commandv1.Result) error {
	switch {
	case a.in.GetCommentRequest().GetComment().GetFile() != "":
		e.Action = "request.attach"
	case a.in.GetDetachRequest() == nil:
		return nil
	}
	file := &apiv1.Comment{}
	if err := proto.Unmarshal(r.GetNoun(), file); err != nil || file.GetFile() == "" {
		return err // it was refused
	}
	e.Message = cut(fmt.Sprintf("file %s, %d bytes, SHA-256 %x", file.GetFile(), file.GetSize(), file.GetSha256()))
	return nil
}

// describeRequest says of what is done to a request, which its command names by id, which it is, of what project and zone, and of a
// decision in whose place it was made.
func (a *auditRecord) describeRequest(e *apiv1.AuditEntry) error {
	if d := a.in.GetDecideRequest().GetDecision(); d.GetActingFor() != "" {
		e.ActingFor = "user:" + d.GetActingFor()
	}
	if t := e.GetTarget(); t.GetKind() != "request" || t.GetName() != "" {
		return nil
	}
	m, err := a.tx.Requests.Get(e.GetTarget().GetId())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	e.Target = &apiv1.Reference{Kind: "request", Id: m.GetId(), Name: m.GetName()}
	e.Project, e.ProjectId, e.Zone, e.ZoneId = m.GetProject(), m.GetProjectId(), m.GetZone(), m.GetZoneId()
	return nil
}

// nounIn is the noun that a body carries; nil where it carries none.
func nounIn(body protoreflect.Message) protoreflect.Message {
	fields := body.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.Cardinality() == protoreflect.Repeated || !body.Has(f) {
			continue
		}
		d := f.Message()
		if d.ParentFile().Package() == "naru.api.v1" && textOf(body.Get(f).Message(), "id") != "" && d.Fields().ByName("name") != nil {
			return body.Get(f).Message()
		}
	}
	return nil
}

// namedBy is what a body names by its id: the noun of the action, or that of the first field x_id.
func namedBy(body protoreflect.Message, action string) *apiv1.Reference {
	fields := body.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		id := textOf(body, f.Name())
		if id == "" {
			continue
		}
		if f.Name() == "id" {
			kind, _, _ := strings.Cut(action, ".")
			return &apiv1.Reference{Kind: kind, Id: id}
		}
		if kind, ok := strings.CutSuffix(string(f.Name()), "_id"); ok {
			return &apiv1.Reference{Kind: strings.ReplaceAll(kind, "_", "-"), Id: id}
		}
	}
	return nil
}

// textOf is a message's text field; empty where it has none of the name.
func textOf(m protoreflect.Message, name protoreflect.Name) string {
	f := m.Descriptor().Fields().ByName(name)
	if f == nil || f.Kind() != protoreflect.StringKind || f.Cardinality() == protoreflect.Repeated {
		return ""
	}
	return m.Get(f).String()
}

// actorText is an actor as the record names it: admin:kim of spiffe://naru.example/admin/kim; token:ci and user:kim as they are;
// controller:upkeep of upkeep.
func actorText(actor string) string {
	if rest, ok := strings.CutPrefix(actor, "spiffe://"); ok {
		_, path, _ := strings.Cut(rest, "/")
		kind, name, _ := strings.Cut(path, "/")
		return kind + ":" + name
	}
	if actor == "" || strings.Contains(actor, ":") {
		return actor
	}
	return "controller:" + actor
}

// cut shortens a message to what an entry holds.
func cut(s string) string { return cutTo(s, maxAuditMessage) }

// cutTo shortens a text to so many bytes.
func cutTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
