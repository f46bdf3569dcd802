package approval

import (
	"fmt"
	"slices"
	"strings"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Plan is what a policy asks for in a case.
type Plan struct {
	// Automatic: it is approved without people; Reason says why, for the record.
	Automatic bool
	Reason    string
	// Afterwards: it is an emergency, carried out at once; the stages review it then.
	Afterwards bool
	// Stages are those whose condition holds, as they follow one another; of one sequence they run in parallel. They are there
	// for an automatic approval, too: they are what it spared.
	Stages []*Stage
	// Trace says in words what was looked at.
	Trace []string
}

// Stage is one step of a plan.
type Stage struct {
	*apiv1.StageTemplate
	// StepUp: to decide, a session has to be stepped up.
	StepUp bool

	stage *stage
	vars  map[string]any
	c     *apiv1.PolicyCase
}

// Plan says what the policy asks for. It does not look at the policy's condition.
func (p *Policy) Plan(c *apiv1.PolicyCase) (*Plan, error) {
	vars := variables(c)
	plan := &Plan{Afterwards: p.GetEmergency() && c.GetRequest().GetChangeType() == apiv1.ChangeType_EMERGENCY}
	is := grade.Highest(c.GetRequest().GetGrade())
	for _, s := range p.stages {
		holds, err := s.condition.holds(vars)
		if err != nil {
			return nil, failed(p.GetName(), "the condition of stage "+s.GetName(), err)
		}
		if !holds {
			plan.Trace = append(plan.Trace, "stage "+s.GetName()+" is not asked: its condition does not hold")
			continue
		}
		plan.Stages = append(plan.Stages, &Stage{
			StageTemplate: s.StageTemplate, StepUp: s.GetStepUpFrom() != 0 && is >= s.GetStepUpFrom(), stage: s, vars: vars, c: c,
		})
	}
	if a := p.GetAutomatic(); a != nil {
		holds, err := p.automatic.holds(vars)
		switch over := beyond(a, c.GetRequest()); {
		case err != nil: // doubt is no approval
			plan.Trace = append(plan.Trace, "people decide: automatic.when cannot be evaluated: "+strings.TrimSpace(err.Error()))
		case !holds:
			plan.Trace = append(plan.Trace, "people decide: what automatic approval asks for does not hold")
		case over != "":
			plan.Trace = append(plan.Trace, "people decide: "+over)
		default:
			plan.Automatic = true
			plan.Reason = fmt.Sprintf("policy %s, version %d: %s", p.GetName(), p.GetVersion(), a.GetReason())
			plan.Trace = append(plan.Trace, "approved without people: "+a.GetReason())
		}
	}
	if len(plan.Stages) == 0 && !plan.Automatic {
		return nil, problem.Newf(problem.Invalid, "Tell whoever administers the policy: it needs a stage without a condition.",
			"policy %s asks nobody about this request: the condition of none of its stages holds", p.GetName())
	}
	return plan, nil
}

// Needed returns how many have to approve where so many may decide. One at least, whoever is there.
func (s *Stage) Needed(eligible int) int {
	switch s.GetRule() {
	case apiv1.StageTemplate_ALL:
		return max(eligible, 1)
	case apiv1.StageTemplate_COUNT:
		return max(int(s.GetNeeded()), 1)
	case apiv1.StageTemplate_PERCENT:
		return max((eligible*int(s.GetNeeded())+99)/100, 1)
	}
	return 1
}

// DenialsThatEnd returns how many denials end the request.
func (s *Stage) DenialsThatEnd() int { return max(int(s.GetDenials()), 1) }

// Eligible reports whether somebody may decide, and if not, why. Who asked, and for whom, never may.
func (s *Stage) Eligible(p *apiv1.PolicyPerson) (bool, string) {
	return s.may(p, s.GetEligible(), s.stage.eligible)
}

// EligibleOnceDue is Eligible for those who may decide besides when the stage was not decided in time.
func (s *Stage) EligibleOnceDue(p *apiv1.PolicyPerson) (bool, string) {
	if s.GetOnDue() != apiv1.StageTemplate_ESCALATE {
		return false, "the stage is not escalated"
	}
	return s.may(p, s.GetEscalateTo(), s.stage.escalate)
}

func (s *Stage) may(p *apiv1.PolicyPerson, l *apiv1.Eligibility, condition *expression) (bool, string) {
	user := p.GetUser()
	switch {
	case user.GetName() == "":
		return false, "nobody is named"
	case request.Away(user) != "":
		return false, request.Away(user)
	case user.GetKind() == apiv1.User_SERVICE && !s.GetExternal():
		return false, "is a program"
	case user.GetKind() != apiv1.User_SERVICE && s.GetExternal():
		return false, "is a person, and the stage is decided in another system"
	case same(user, s.c.GetRequester()):
		return false, "asks for it"
	case same(user, s.c.GetBeneficiary()):
		return false, "it is asked for them"
	case slices.Contains(s.GetExcluded(), user.GetName()):
		return false, "is excluded from this stage"
	}
	if len(l.GetRoles())+len(l.GetGroups())+len(l.GetUsers()) > 0 {
		named := slices.Contains(l.GetUsers(), user.GetName())
		for _, g := range p.GetGroups() {
			named = named || slices.Contains(l.GetGroups(), g)
		}
		for _, r := range p.GetRoles() {
			named = named || slices.Contains(l.GetRoles(), r.GetRole()) && r.GetAt() == l.GetAt()
		}
		if !named {
			return false, "has none of the roles, and is in none of the groups, that may decide"
		}
	}
	vars := make(map[string]any, len(s.vars)+2)
	for name, v := range s.vars {
		vars[name] = v
	}
	groups := p.GetGroups()
	if groups == nil {
		groups = []string{}
	}
	vars["person"], vars["groups"] = user, groups
	holds, err := condition.holds(vars)
	switch {
	case err != nil:
		return false, "cannot be judged: " + err.Error()
	case !holds:
		return false, "the condition does not hold of them"
	}
	return true, ""
}

// same reports whether two are one: by id where both have one, else by name.
func same(a, b *apiv1.User) bool {
	if a.GetId() != "" && b.GetId() != "" {
		return a.GetId() == b.GetId()
	}
	return a.GetName() != "" && a.GetName() == b.GetName()
}
