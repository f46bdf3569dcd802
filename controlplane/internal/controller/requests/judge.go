package requests

import (
	"errors"
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
			calendar, err := intake.Calendar(tx, s)
			if err != nil {
				return job{}, err
			}
			next := calendar.Due(now, workday)
			if calendar == nil {
				next = now.Add(24 * time.Hour)
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
		if j, stays, err := orphaned(tx, r); err != nil || stays {
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

// orphaned lets fail what nobody asks for any more, and keeps neither room nor work for one who is disabled; stays is true where
// nothing else is to be done for the request then.
func orphaned(tx *state.Tx, r *apiv1.Request) (j job, stays bool, err error) {
	const anew = "; somebody else can ask for it anew: naru request copy "
	switch u, err := tx.Users.Get(r.GetRequesterId()); {
	case errors.Is(err, state.ErrNotFound):
		return passing(r, commandv1.PassRequest_FAIL, "", r.GetRequester()+", who asked for it, is gone"+anew+r.GetName()), true, nil
	case err != nil || !u.GetDisabled():
		return job{}, false, err
	}
	why := r.GetRequester() + ", who asked for it, is disabled" + anew + r.GetName()
	if len(request.Rooms(r)) > 0 {
		return passing(r, commandv1.PassRequest_MISS, "", why), true, nil
	}
	return waiting(r, why), true, nil
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
	j, err := c.carry(tx, r, now)
	if err != nil {
		// It was approved as it is, so what is missing is somebody else's to mend: it is shown, and tried again.
		return wait(problem.Of(err).GetDetail()), nil
	}
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
