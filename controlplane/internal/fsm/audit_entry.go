package fsm

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/naru-project/naru/controlplane/internal/action"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

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
	if a.in.GetCreateRequest().GetSubmit() != nil && r.GetProblem() != nil { // a draft would have been kept
		e.Action = "request.submit"
	}
	if in := a.in.GetPassLease(); in != nil { // time does what the step says
		e.Action = "lease." + kebab(in.GetStep())
	}
	if in := a.in.GetPassRequest(); in != nil {
		e.Action = "request." + kebab(in.GetWhat())
	}
	describeDecision(e, a.in.GetDecideRequest().GetDecision())
	op := r.GetOperation()
	noun := nounIn(body)
	if a.in.GetCreateRequest() != nil && r.GetProblem() == nil { // it has its name from the state, or is another that is known under its number
		noun = &apiv1.Request{}
		if err := proto.Unmarshal(r.GetNoun(), noun); err != nil {
			return err
		}
	}
	if noun != nil {
		e.Target = referenceTo(noun)
		placed(e, where(noun))
	} else if e.Target = op.GetTarget(); e.GetTarget() == nil {
		e.Target = namedBy(body, e.GetAction())
	}
	if zone := a.in.GetCreateJoinToken().GetJoinToken().GetZoneId(); zone != "" {
		e.Target = &apiv1.Reference{Kind: "zone", Id: zone}
	}
	placed(e, whereabouts{op.GetProject(), op.GetProjectId(), op.GetZone(), op.GetZoneId()})
	if err := a.describeTarget(e); err != nil {
		return err
	}
	if err := a.describeMember(e); err != nil {
		return err
	}
	return a.describeFile(e, r)
}

// describeDecision says what was decided, where, and in whose place.
func describeDecision(e *apiv1.AuditEntry, d *apiv1.Decision) {
	if d == nil {
		return
	}
	said := kebab(d.GetVerdict()) + " in stage " + d.GetStage()
	if d.GetActingFor() != "" {
		e.ActingFor = "user:" + d.GetActingFor()
		said += ", for " + d.GetActingFor()
	}
	if d.GetExternalRef() != "" {
		said += ", as " + d.GetExternalApprover() + " decided in another system, " + d.GetExternalRef()
	}
	e.Message = cut(said)
}

// kebab is an enum's value as the record writes it: ends-soon.
func kebab(of fmt.Stringer) string { return strings.ReplaceAll(strings.ToLower(of.String()), "_", "-") }

// placed says of an entry in which project and zone it was, where that is not said.
func placed(e *apiv1.AuditEntry, at whereabouts) {
	if e.GetProjectId() == "" {
		e.Project, e.ProjectId = at.project, at.projectID
	}
	if e.GetZoneId() == "" {
		e.Zone, e.ZoneId = at.zone, at.zoneID
	}
}

// describeTarget says what the target is called, and in which project and zone it is, as the state does: many a command names it by id alone.
func (a *auditRecord) describeTarget(e *apiv1.AuditEntry) error {
	m, err := a.tx.Noun(e.GetTarget().GetKind(), e.GetTarget().GetId())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if e.GetTarget().GetName() == "" {
		e.Target = referenceTo(m)
	}
	placed(e, where(m))
	return nil
}

// describeMember says who came into a group, or left it.
func (a *auditRecord) describeMember(e *apiv1.AuditEntry) error {
	id := a.in.GetAddGroupMember().GetUserId() + a.in.GetRemoveGroupMember().GetUserId()
	if id == "" {
		return nil
	}
	m, err := a.tx.Users.Get(id)
	if missing(err) {
		return nil
	}
	e.Message = "user " + m.GetName()
	return err
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

// nounIn is the noun that a body carries; nil where it carries none.
func nounIn(body protoreflect.Message) proto.Message {
	fields := body.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.Cardinality() == protoreflect.Repeated || !body.Has(f) {
			continue
		}
		m := body.Get(f).Message().Interface()
		if f.Message().ParentFile().Package() == "naru.api.v1" && referenceTo(m).GetId() != "" {
			return m
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
