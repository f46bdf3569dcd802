package approval

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// maxServices of another system that a stage names.
const maxServices = 8

// Policy is a version of an approval policy that was found whole. It is safe for concurrent use.
type Policy struct {
	*apiv1.ApprovalPolicy

	condition, automatic *expression
	stages               []*stage // as they follow one another
}

// stage is a step of a policy.
type stage struct {
	*apiv1.StageTemplate
	condition, eligible, escalate *expression
}

// Compile checks what a policy says. What its names stand for is for who reads the state. The error is a problem INVALID that
// names each field, and of an expression the column.
func Compile(p *apiv1.ApprovalPolicy) (*Policy, error) {
	e := problem.New(problem.Invalid, "", "Correct the fields named and send it again.")
	read := func(field, text string, ofPerson bool) *expression {
		x, err := compile(text, ofPerson)
		if err != nil {
			e.With(field, err.Error())
		}
		return x
	}
	out := &Policy{ApprovalPolicy: p, condition: read("condition", p.GetCondition(), false)}
	if a := p.GetAutomatic(); a != nil {
		out.automatic = read("automatic.when", a.GetWhen(), false)
		if a.GetMaxGrade() == 0 && a.GetMaxQuantity() == 0 && a.GetMaxLeaseDays() == 0 && a.GetMaxMonthlyCost().GetAmount() == "" && !anything(a.GetMaxAmount()) {
			e.With("automatic", "sets no limit; set at least one: max_quantity, max_amount, max_monthly_cost, max_lease_days or max_grade")
		}
		for _, limit := range ceilings(a) {
			if limit.GetCurrency() == "" {
				e.With("automatic."+limit.field+"max_monthly_cost.currency", "is required")
			}
		}
	}
	if len(p.GetStages()) == 0 {
		e.With("stages", "are required: a policy that asks nobody approves nothing")
	}
	names := map[string]bool{}
	for i, t := range p.GetStages() {
		at := fmt.Sprintf("stages[%d].", i)
		if names[t.GetName()] {
			e.With(at+"name", "is "+t.GetName()+", as of another stage")
		}
		names[t.GetName()] = true
		s := &stage{StageTemplate: t, condition: read(at+"condition", t.GetCondition(), false)}
		s.eligible = read(at+"eligible.condition", t.GetEligible().GetCondition(), true)
		s.escalate = read(at+"escalate_to.condition", t.GetEscalateTo().GetCondition(), true)
		who(e, at+"eligible", t.GetEligible())
		if t.GetExternal() {
			external(e, at, t)
		}
		counts(e, at, t)
		times(e, at, t)
		out.stages = append(out.stages, s)
	}
	whose(e, p)
	if len(e.Problem.GetErrors()) > 0 {
		var all []string
		for _, f := range e.Problem.GetErrors() {
			all = append(all, f.GetField()+": "+f.GetDetail())
		}
		e.Problem.Detail = strings.Join(all, "; ")
		return nil, e
	}
	slices.SortStableFunc(out.stages, func(a, b *stage) int { return cmp.Compare(a.GetSequence(), b.GetSequence()) })
	return out, nil
}

func anything(r *apiv1.Resources) bool {
	return r.GetCores() > 0 || r.GetMemoryMib() > 0 || r.GetDiskGib() > 0
}

func who(e *problem.Error, field string, l *apiv1.Eligibility) {
	switch {
	case len(l.GetRoles())+len(l.GetGroups())+len(l.GetUsers()) == 0 && l.GetCondition() == "":
		e.With(field, "says nobody; name roles, groups or users, or give a condition")
	case len(l.GetRoles()) > 0 && l.GetAt() == 0:
		e.With(field+".at", "says where the roles are to be held: PROJECT, ORGANIZATION, DESTINATION, SOURCE or FEDERATION")
	}
}

// external checks a stage in which another system decides.
func external(e *problem.Error, at string, t *apiv1.StageTemplate) {
	for _, part := range []struct {
		field string
		*apiv1.Eligibility
	}{{at + "eligible", t.GetEligible()}, {at + "escalate_to", t.GetEscalateTo()}} {
		l := part.Eligibility
		if l != nil && (len(l.GetUsers()) == 0 || len(l.GetUsers()) > maxServices || len(l.GetRoles())+len(l.GetGroups()) > 0 || l.GetAt() != 0 || l.GetCondition() != "") {
			e.With(part.field, fmt.Sprintf("of an external stage names services as users, 1 to %d, and nothing else", maxServices))
		}
	}
	if t.GetStepUpFrom() != 0 {
		e.With(at+"step_up_from", "does not go with an external stage: a service has no session that could be stepped up")
	}
}

// whose checks that the stages are of those whose word the policy says to let requests through.
func whose(e *problem.Error, p *apiv1.ApprovalPolicy) {
	is := max(p.GetAuthority(), apiv1.Authority_LOCAL)
	elsewhere := slices.ContainsFunc(p.GetStages(), (*apiv1.StageTemplate).GetExternal)
	here := slices.ContainsFunc(p.GetStages(), func(t *apiv1.StageTemplate) bool { return !t.GetExternal() })
	switch {
	case is == apiv1.Authority_LOCAL && elsewhere:
		e.With("authority", "is LOCAL, and a stage is external; it is ITSM where all are, and BOTH where some are")
	case is == apiv1.Authority_ITSM && here:
		e.With("authority", "is ITSM, and a stage is not external: people would decide there; that is BOTH")
	case is == apiv1.Authority_BOTH && !(here && elsewhere):
		e.With("authority", "is BOTH, which takes a stage that is external and one that is not")
	}
	if is != apiv1.Authority_LOCAL && p.GetAutomatic() != nil {
		e.With("automatic", "goes with the authority LOCAL only: where another system decides, nothing is let through without its word")
	}
}

// counts checks what says how many have to approve.
func counts(e *problem.Error, at string, t *apiv1.StageTemplate) {
	n := t.GetNeeded()
	switch t.GetRule() {
	case apiv1.StageTemplate_ANY, apiv1.StageTemplate_ALL:
		if n != 0 {
			e.With(at+"needed", "goes with COUNT and PERCENT only")
		}
	case apiv1.StageTemplate_COUNT:
		if n == 0 {
			e.With(at+"needed", "is required: how many have to approve")
		}
	case apiv1.StageTemplate_PERCENT:
		if n == 0 || n > 100 {
			e.With(at+"needed", "is 1 to 100 percent")
		}
	default:
		e.With(at+"rule", "is required: ANY, ALL, COUNT or PERCENT")
	}
}

// times checks what happens when nobody decides.
func times(e *problem.Error, at string, t *apiv1.StageTemplate) {
	switch {
	case t.GetDueHours() == 0 && t.GetOnDue() != 0:
		e.With(at+"due_hours", "is required where on_due is set")
	case t.GetDueHours() == 0 && t.GetRemindHours() > 0:
		e.With(at+"due_hours", "is required where remind_hours is set")
	case t.GetDueHours() > 0 && t.GetOnDue() == 0:
		e.With(at+"on_due", "says what happens then: REMIND, ESCALATE or EXPIRE; nothing is ever approved because time has passed")
	case t.GetRemindHours() > 0 && t.GetRemindHours() >= t.GetDueHours():
		e.With(at+"remind_hours", "is less than due_hours")
	}
	if t.GetOnDue() == apiv1.StageTemplate_ESCALATE {
		who(e, at+"escalate_to", t.GetEscalateTo())
	} else if t.GetEscalateTo() != nil {
		e.With(at+"escalate_to", "goes with on_due ESCALATE only")
	}
}

// Applies reports whether the policy's condition holds.
func (p *Policy) Applies(c *apiv1.PolicyCase) (bool, error) {
	return p.applies(variables(c))
}

func (p *Policy) applies(vars map[string]any) (bool, error) {
	holds, err := p.condition.holds(vars)
	if err != nil {
		return false, failed(p.GetName(), "condition", err)
	}
	return holds, nil
}

// failed is the refusal of a request on which a policy cannot decide.
func failed(policy, field string, err error) error {
	return problem.Newf(problem.Invalid, "Tell whoever administers the policy: naru approval-policy test shows it.",
		"policy %s cannot be evaluated: %s: %s", policy, field, strings.TrimSpace(err.Error())).With(field, strings.TrimSpace(err.Error()))
}

// Choose returns the policy that decides: of those that are enabled and apply the one with the highest priority, of several
// the first by name. It says in words what was looked at. A policy that cannot be evaluated is an error, and so is none.
func Choose(policies []*Policy, c *apiv1.PolicyCase) (chosen *Policy, trace []string, err error) {
	policies = slices.Clone(policies)
	slices.SortFunc(policies, func(a, b *Policy) int {
		return cmp.Or(cmp.Compare(b.GetPriority(), a.GetPriority()), strings.Compare(a.GetName(), b.GetName()))
	})
	vars := variables(c)
	for _, p := range policies {
		if !p.GetEnabled() {
			continue
		}
		holds, err := p.applies(vars)
		if err != nil {
			return nil, trace, err
		}
		if holds {
			return p, append(trace, fmt.Sprintf("policy %s, version %d, applies: priority %d", p.GetName(), p.GetVersion(), p.GetPriority())), nil
		}
		trace = append(trace, "policy "+p.GetName()+" does not apply")
	}
	return nil, trace, problem.New(problem.Invalid, "no approval policy applies to this request, so nobody could approve it", "Ask an administrator: naru approval-policy list shows which there are.")
}

// Names are what a policy names, each with the field that names it.
type Names struct{ Calendars, Roles, Groups, Users, Services []Name }

// Name is a name and where it stands.
type Name struct{ Field, Name string }

// Names returns what has to be there.
func (p *Policy) Names() (n Names) {
	add := func(list *[]Name, field string, names []string) {
		for i, name := range names {
			*list = append(*list, Name{fmt.Sprintf("%s[%d]", field, i), name})
		}
	}
	for i, t := range p.ApprovalPolicy.GetStages() {
		at := fmt.Sprintf("stages[%d].", i)
		if t.GetCalendar() != "" {
			n.Calendars = append(n.Calendars, Name{at + "calendar", t.GetCalendar()})
		}
		add(&n.Users, at+"excluded", t.GetExcluded())
		for _, part := range []struct {
			field string
			*apiv1.Eligibility
		}{{at + "eligible", t.GetEligible()}, {at + "escalate_to", t.GetEscalateTo()}} {
			add(&n.Roles, part.field+".roles", part.GetRoles())
			add(&n.Groups, part.field+".groups", part.GetGroups())
			users := &n.Users
			if t.GetExternal() {
				users = &n.Services
			}
			add(users, part.field+".users", part.GetUsers())
		}
	}
	return n
}

// beyond says which limit of automatic approval a request is beyond; nothing for none.
func beyond(a *apiv1.AutomaticApproval, r *apiv1.RequestFacts) string {
	over := func(what string, is, limit uint32) string {
		if limit > 0 && is > limit {
			return fmt.Sprintf("%s is %d, and the limit %d", what, is, limit)
		}
		return ""
	}
	if g := grade.Highest(r.GetGrade()); g > grade.Highest(a.GetMaxGrade()) {
		return "the grade is " + grade.Word(g) + ", and the limit " + grade.Word(a.GetMaxGrade())
	}
	if unpriced(r) && len(ceilings(a)) > 0 {
		return "what a month will cost is not known"
	}
	lease := ""
	if a.GetMaxLeaseDays() > 0 && r.GetLeaseDays() == 0 {
		lease = "the lease has no end"
	}
	return cmp.Or(lease,
		over("the lease in days", r.GetLeaseDays(), a.GetMaxLeaseDays()),
		over("the quantity", r.GetQuantity(), a.GetMaxQuantity()),
		over("the number of cores", r.GetAmount().GetCores(), a.GetMaxAmount().GetCores()),
		over("the memory in MiB", r.GetAmount().GetMemoryMib(), a.GetMaxAmount().GetMemoryMib()),
		over("the disk in GiB", r.GetAmount().GetDiskGib(), a.GetMaxAmount().GetDiskGib()),
		costs(a.GetMaxMonthlyCost(), r),
	)
}

// ceiling is one of what a month costs, with where it stands.
type ceiling struct {
	field string
	*apiv1.Money
}

// ceilings are those that are set: for each request, and for a day.
func ceilings(a *apiv1.AutomaticApproval) []ceiling {
	return slices.DeleteFunc([]ceiling{
		{"", a.GetMaxMonthlyCost()}, {"requester_daily.", a.GetRequesterDaily().GetMaxMonthlyCost()}, {"project_daily.", a.GetProjectDaily().GetMaxMonthlyCost()},
	}, func(l ceiling) bool { return l.GetAmount() == "" })
}

// unpriced reports whether a request costs something, and nobody knows how much.
func unpriced(r *apiv1.RequestFacts) bool {
	prolongs := r.GetKind() == apiv1.RequestKind_RESIZE || r.GetKind() == apiv1.RequestKind_EXTEND || r.GetKind() == apiv1.RequestKind_RESTORE
	return r.GetMonthlyCost().GetAmount() == "" && prolongs
}

func costs(limit *apiv1.Money, r *apiv1.RequestFacts) string {
	is := r.GetMonthlyCost()
	if limit.GetAmount() == "" || is.GetAmount() == "" || is.GetAmount() == "0" {
		return ""
	}
	if limit.GetCurrency() != is.GetCurrency() {
		return "the price is in " + is.GetCurrency() + ", and the limit in " + limit.GetCurrency()
	}
	// Of two whole numbers without leading zeros the one with more digits is the greater.
	if cmp.Or(cmp.Compare(len(is.GetAmount()), len(limit.GetAmount())), strings.Compare(is.GetAmount(), limit.GetAmount())) > 0 {
		return "a month costs " + is.GetAmount() + ", and the limit is " + limit.GetAmount() + " " + limit.GetCurrency()
	}
	return ""
}
