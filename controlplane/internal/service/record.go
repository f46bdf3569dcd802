package service

import (
	"context"
	"sync"
	"time"

	"github.com/naru-project/naru/controlplane/internal/action"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Deed is something for the audit log that no command does: a login that failed, a refusal, a read of something sensitive. What a
// command does leaves its entry with its effect, and is not told here.
type Deed struct {
	// Action is noun.verb: session.log-in.
	Action  string
	Outcome apiv1.AuditEntry_Outcome
	// Actor, where it is set, goes before the caller of the context: user:NAME of a login, as the name was given, and the user's id
	// where there is such a user.
	Actor, ActorID string
	Target         *apiv1.Reference
	SessionID      string
	Strength       apiv1.Session_Strength
	// Problem is why it was refused.
	Problem error
	// Message is for people. It holds no secret, nor what might be one: no password typed into the field of the name.
	Message string
	// Digest is the SHA-256 of what was asked or shown.
	Digest []byte
}

// Record writes a deed into the audit log, and returns when it stands there: what was asked is answered after that, and not at all
// where it fails. Who acts, through which zone and in which session is the context's Call, where the deed does not say. Refusals
// (Outcome REFUSED) are bounded: of those of one actor, action and code one is written at once and then one a minute, with their
// number; so a flood of them costs no commands, and nothing is said of the others to whoever floods. It holds no lock while it waits.
func (s *Service) Record(ctx context.Context, d Deed) error {
	e := &apiv1.AuditEntry{
		Action: d.Action, Outcome: d.Outcome, Actor: d.Actor, ActorId: d.ActorID, Target: d.Target, SessionId: d.SessionID, Strength: d.Strength,
		Message: d.Message, Digest: d.Digest,
	}
	if d.Problem != nil {
		p := problem.Of(d.Problem)
		e.ProblemCode = p.GetCode()
		if e.GetMessage() == "" {
			e.Message = p.GetDetail()
		}
	}
	call := callOf(ctx)
	if e.GetActor() == "" && call.Principal.Actor == "" {
		e.Actor = "anonymous"
	}
	if d.Outcome == apiv1.AuditEntry_REFUSED {
		actor := e.GetActor()
		if actor == "" {
			actor = call.Principal.Actor
		}
		if e.Count = s.refusals.take(refusalKind{call.ViaZoneID, actor, d.Action, e.GetProblemCode()}, time.Now()); e.Count == 0 {
			return nil
		}
	}
	return s.record(ctx, e)
}

func (s *Service) record(ctx context.Context, e *apiv1.AuditEntry) error {
	_, err := s.propose(ctx, nil, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_RecordAudit{RecordAudit: &commandv1.RecordAudit{Entry: e}}
	})
	return err
}

// RecordRefusal writes that a call of a method (/naru.api.v1.VMService/GetVM) was refused.
func (s *Service) RecordRefusal(ctx context.Context, method string, why error) error {
	return s.Record(ctx, Deed{Action: action.OfMethod(method), Outcome: apiv1.AuditEntry_REFUSED, Problem: why})
}

// origin is what the record says of a call beside its actor.
func (c Call) origin() *commandv1.Origin {
	return &commandv1.Origin{
		ActorId: c.Principal.ID, ZoneId: c.ViaZoneID, SessionId: c.Principal.SessionID, Strength: c.Principal.Strength, Key: c.Principal.Key,
	}
}

// maxRefusalKinds a server tells apart, half of them for no want of a right; those beyond are one kind for each zone they came through.
const maxRefusalKinds = 256

// refusalKind is what refusals that are alike have in common.
type refusalKind struct{ viaZoneID, actor, action, code string }

// others is the kind of the refusals that are not told apart.
func others(k refusalKind) refusalKind { return refusalKind{viaZoneID: k.viaZoneID} }

// refusals counts refusals, so that a flood of them does not become a flood of commands.
type refusals struct {
	mu    sync.Mutex
	kinds counts[refusalKind]
}

// take counts a refusal, and returns for how many an entry is to be written now; 0 for none.
func (r *refusals) take(k refusalKind, now time.Time) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kinds == nil {
		r.kinds = counts[refusalKind]{}
	}
	limit := maxRefusalKinds
	if !problem.Code(k.code).OfRights() {
		limit /= 2
	}
	if _, known := r.kinds[k]; !known && len(r.kinds) >= limit {
		if r.kinds.forget(now, writeEvery, others); len(r.kinds) >= limit {
			k = others(k)
		}
	}
	told, due := r.kinds.due(k, now)
	if !due {
		return 0
	}
	r.kinds.written(k, told, now)
	return told + 1
}
