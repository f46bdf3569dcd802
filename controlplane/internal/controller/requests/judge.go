package requests

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/panel"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// workday is the working time after which people are reminded again.
const workday = 8 * time.Hour

// judge finds what is to be done for a request now. people says whether to look who can decide.
func (c *Controller) judge(tx *state.Tx, r *apiv1.Request, now time.Time, people bool) (job, error) {
	pass := func(what commandv1.PassRequest_What, stage, why string) job { return passing(r, what, stage, why) }
	over := func(t *timestamppb.Timestamp) bool { return t != nil && !now.Before(t.AsTime()) }
	approved := r.GetApproval() == apiv1.Request_APPROVED
	if !approved && over(r.GetDecideBy()) {
		return pass(commandv1.PassRequest_EXPIRE, "", ""), nil
	}
	for _, s := range r.GetStages() {
		if s.GetState() != apiv1.Stage_OPEN {
			continue
		}
		switch {
		case over(s.GetDueAt()) && s.GetOnDue() == apiv1.StageTemplate_EXPIRE && !approved:
			return pass(commandv1.PassRequest_EXPIRE, s.GetName(), ""), nil
		case over(s.GetDueAt()) && s.GetOnDue() == apiv1.StageTemplate_ESCALATE && s.GetEscalatedAt() == nil:
			return pass(commandv1.PassRequest_ESCALATE, s.GetName(), "it was not decided in time"), nil
		case over(s.GetRemindAt()):
			j := pass(commandv1.PassRequest_REMIND, s.GetName(), "")
			calendar, _, err := intake.Calendar(s)
			if err != nil {
				return job{}, err
			}
			next := calendar.Due(now, workday)
			if calendar == nil {
				next = now.Add(24 * time.Hour)
			}
			if due := s.GetDueAt().AsTime(); approved && now.Before(due) && due.Before(next) {
				next = due // that a review is overdue is told when it is
			}
			j.pass.RemindAt = timestamppb.New(next)
			return j, nil
		}
	}
	waits := r.GetFulfilment() < apiv1.Request_EXECUTING
	if approved && (waits || r.GetFulfilment() == apiv1.Request_FAILED) && over(r.GetCarryOutBy()) {
		return pass(commandv1.PassRequest_LAPSE, "", ""), nil
	}
	if people && request.Deciding(r) {
		if j, err := short(tx, r, now); err != nil || !j.empty() {
			return j, err
		}
	}
	if approved && waits {
		if j, stays, _, err := orphaned(tx, r, now, people); err != nil || stays {
			return j, err
		}
	}
	wants := request.WantsRoom(r, timestamppb.New(now))
	if wants {
		if j, err := c.room(tx, r, now); err != nil || !j.empty() {
			return j, err
		}
	}
	if approved && waits && (!wants || r.GetFulfilment() == apiv1.Request_RESERVED) {
		return c.fulfil(tx, r, now)
	}
	return job{}, nil
}

// short shows, or has escalated, that too few can decide, or that enough can again.
func short(tx *state.Tx, r *apiv1.Request, now time.Time) (job, error) {
	stage, why, err := stuck(tx, r, now)
	switch {
	case err != nil || stage == nil:
		return job{}, err
	case why != "" && stage.GetEscalateTo() != nil && stage.GetEscalatedAt() == nil:
		return passing(r, commandv1.PassRequest_ESCALATE, stage.GetName(), why), nil
	}
	return passing(r, commandv1.PassRequest_STICK, stage.GetName(), why), nil
}

// passing is a step of a request that time or the people bring about.
func passing(r *apiv1.Request, what commandv1.PassRequest_What, stage, why string) job {
	return job{id: r.GetId(), name: r.GetName(), revision: r.GetRevision(), pass: &commandv1.PassRequest{RequestId: r.GetId(), ExpectedRevision: r.GetRevision(), What: what, Stage: stage, Reason: shortened(why)}}
}

// waiting shows what a request waits for, where that is not shown yet.
func waiting(r *apiv1.Request, why string) job {
	if r.GetFulfilmentReason() == shortened(why) {
		return job{}
	}
	return passing(r, commandv1.PassRequest_WAIT, "", why)
}

// orphaned shows that nothing is carried out for those whom a request is for, and lets it fail where they are gone, or when that has lasted;
// stays is true where nothing else is to be done for the request then. What they may do is looked at where closely is.
func orphaned(tx *state.Tx, r *apiv1.Request, now time.Time, closely bool) (j job, stays bool, reads []*commandv1.Read, err error) {
	var loss *intake.Loss
	if closely || r.GetOrphanedAt() != nil {
		loss, reads, err = intake.Orphaned(tx, r, now)
	} else {
		loss, err = intake.Away(tx, r)
	}
	switch {
	case err != nil:
	case loss == nil && r.GetOrphanedAt() == nil:
		return job{}, false, reads, nil
	case loss == nil:
		j = passing(r, commandv1.PassRequest_WAIT, "", "")
	case loss.ForGood || request.GivenUp(r, now):
		j = passing(r, commandv1.PassRequest_FAIL, "", loss.Why+"; somebody else can ask for it anew: naru request copy "+r.GetName())
		j.pass.Reads = loss.Reads
	default:
		who := r.GetRequester()
		if loss.Asker {
			who = "whoever may ask for something in project " + r.GetProject()
		}
		why := loss.Why + "; after seven days so it fails, and until then " + who + " can end it: naru request withdraw " + r.GetName()
		if r.GetOrphanedAt() == nil || r.GetFulfilmentReason() != shortened(why) {
			j = passing(r, commandv1.PassRequest_ORPHAN, "", why)
		}
	}
	return j, true, nil, err
}

// fulfil carries out what is approved, or shows what it waits for.
func (c *Controller) fulfil(tx *state.Tx, r *apiv1.Request, now time.Time) (job, error) {
	wait := func(why string) job { return waiting(r, why) }
	if start := r.GetDesiredStart(); start != nil && now.Before(start.AsTime()) {
		return wait("it is not to begin before " + start.AsTime().UTC().Format(time.RFC3339)), nil
	}
	if request.InZone(r) {
		zone, err := tx.Zones.Get(r.GetZoneId())
		if err != nil {
			return wait("zone " + r.GetZone() + " is gone"), nil
		}
		if zone.GetFreshness() != apiv1.Freshness_LIVE {
			return wait("zone " + zone.GetName() + " is out of reach"), nil
		}
	}
	if c.later.holds(r.GetId(), now) {
		return job{}, nil // before looking closely at people for nothing
	}
	j, stays, reads, err := orphaned(tx, r, now, true)
	if err != nil || stays {
		return j, err
	}
	j, err = c.carry(tx, r, now)
	if err != nil {
		// It was approved as it is, so what is missing is somebody else's to mend: it is shown, and tried again.
		return wait(problem.Of(err).GetDetail()), nil
	}
	j.carry.Reads = append(j.carry.GetReads(), reads...)
	return j, nil
}

// stuck returns an open stage of which it is to be shown, or no longer, that too few can decide; nil where all is as it is shown.
func stuck(tx *state.Tx, r *apiv1.Request, now time.Time) (*apiv1.Stage, string, error) {
	p, err := panel.Of(tx, r, now)
	if err != nil {
		return nil, "", err
	}
	undecided := panel.Undecided(r)
	needs, err := p.Needs(undecided)
	if err != nil {
		return nil, "", err
	}
	whole := request.Satisfiable(needs, request.Concerned(r))
	for i, s := range undecided {
		if s.GetState() != apiv1.Stage_OPEN {
			continue
		}
		why := ""
		switch n := needs[i]; {
		case len(n.People) < n.Needed:
			why = fmt.Sprintf("it takes %d more, and only %d can decide now", n.Needed, len(n.People))
		case whole != nil:
			why = problem.Of(whole).GetDetail()
		}
		if why != s.GetStuck() {
			return s, why, nil
		}
	}
	return nil, "", nil
}
