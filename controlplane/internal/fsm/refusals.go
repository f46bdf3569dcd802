package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// refused writes a refusal, or counts it: of those that are alike one a minute is written, which says how many came since the one
// before, so that a flood cannot fill the log.
func (a *auditRecord) refused(e *apiv1.AuditEntry) error {
	via := a.in.GetOrigin().GetZoneId()
	now, more := state.Micros(a.at), max(e.GetCount(), 1)
	like := state.Refusals{ViaZoneID: via, Actor: e.GetActor(), Action: e.GetAction(), Code: e.GetProblemCode()}
	known, err := a.tx.Refusals(like)
	if missing(err) {
		var crowded bool
		if crowded, err = a.crowded(via, e.GetProblemCode()); err == nil && crowded {
			like.Actor, like.Action, like.Code = "", "", ""
			e = &apiv1.AuditEntry{Time: e.GetTime(), Action: "refusals.count", Outcome: e.GetOutcome(), ViaZone: e.GetViaZone(),
				Message: "refused, of so many kinds that they are only counted"}
			known, err = a.tx.Refusals(like)
		}
	}
	if err != nil && !missing(err) {
		return err
	}
	if known.Since > 0 && now-known.Since < auditEvery {
		known.Count += more
		return a.tx.PutRefusals(known)
	}
	if e.Count = known.Count + more; e.Count == 1 {
		e.Count = 0
	}
	like.Since = now
	if err := a.tx.PutRefusals(like); err != nil {
		return err
	}
	return a.write(a.tx, e)
}

// crowded reports whether another kind of refusals at a zone's edge is one too many, old ones being settled.
func (a *auditRecord) crowded(via, code string) (bool, error) {
	if err := a.settle(); err != nil {
		return false, err
	}
	ofRights := problem.Code(code).OfRights()
	kinds, err := a.tx.RefusalKinds(via, func(code string) bool { return problem.Code(code).OfRights() == ofRights })
	return kinds >= maxRefusalKinds, err
}

// settle writes what has been counted for a minute and longer, and forgets it.
func (a *auditRecord) settle() error {
	before := state.Micros(a.at) - auditEvery
	old, err := a.tx.OldRefusals(before, settleAtOnce)
	if err != nil {
		return err
	}
	for _, r := range old {
		if err := a.tx.ForgetRefusals(r); err != nil {
			return err
		}
		if r.Count == 0 {
			continue
		}
		name, err := a.zoneName(r.ViaZoneID)
		if err != nil {
			return err
		}
		e := &apiv1.AuditEntry{Time: a.at, Actor: r.Actor, Action: r.Action, Outcome: apiv1.AuditEntry_REFUSED, ProblemCode: r.Code,
			ViaZone: name, Count: r.Count, Message: "further refusals of the kind, which were counted"}
		if e.Action == "" {
			e.Action = "refusals.count"
		}
		if err := a.write(a.tx, e); err != nil {
			return err
		}
	}
	zones, err := a.tx.OldReports(before, settleAtOnce)
	if err != nil {
		return err
	}
	for _, id := range zones {
		r, err := a.tx.Reports(id)
		if err != nil {
			return err
		}
		if err := a.reported(id, r); err != nil {
			return err
		}
		if err := a.tx.ForgetReports(id); err != nil {
			return err
		}
	}
	return a.seal()
}
