package approval_test

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/approval"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// byBoth is reviewed by people here, and approved in another system where that asked.
func byBoth() *apiv1.ApprovalPolicy {
	return &apiv1.ApprovalPolicy{
		Name: "both", Version: 1, Enabled: true, Authority: apiv1.Authority_BOTH, Condition: "request.intake == ITSM",
		Stages: []*apiv1.StageTemplate{
			{Name: "review", Rule: apiv1.StageTemplate_ANY, Eligible: &apiv1.Eligibility{Users: []string{"lee"}}},
			{Name: "itsm", Sequence: 1, Rule: apiv1.StageTemplate_ANY, External: true, Eligible: &apiv1.Eligibility{Users: []string{"change"}},
				DueHours: 8, OnDue: apiv1.StageTemplate_ESCALATE, EscalateTo: &apiv1.Eligibility{Users: []string{"dr"}}},
		},
	}
}

func TestAStageOfAnotherSystemIsOfItsServicesAndOtherStagesOfPeople(t *testing.T) {
	c := small()
	if applies, err := compile(t, byBoth()).Applies(c); err != nil || applies {
		t.Errorf("it was asked for here: %v, %v", applies, err)
	}
	c.Request.Intake = apiv1.Intake_ITSM
	if applies, err := compile(t, byBoth()).Applies(c); err != nil || !applies {
		t.Errorf("another system asks: %v, %v", applies, err)
	}
	stages := planOf(t, byBoth(), c).Stages
	user := func(name string, kind apiv1.User_Kind) *apiv1.PolicyPerson {
		return &apiv1.PolicyPerson{User: &apiv1.User{Id: name, Name: name, Kind: kind}}
	}
	for about, is := range map[string]struct {
		may func(*apiv1.PolicyPerson) (bool, string)
		who *apiv1.PolicyPerson
		yes bool
	}{
		"a person here":                          {stages[0].Eligible, user("lee", apiv1.User_PERSON), true},
		"a service here":                         {stages[0].Eligible, user("lee", apiv1.User_SERVICE), false},
		"the service there":                      {stages[1].Eligible, user("change", apiv1.User_SERVICE), true},
		"another service there":                  {stages[1].Eligible, user("dr", apiv1.User_SERVICE), false},
		"a person there":                         {stages[1].Eligible, user("change", apiv1.User_PERSON), false},
		"the one that stands by, when it is due": {stages[1].EligibleOnceDue, user("dr", apiv1.User_SERVICE), true},
		"a person, when it is due":               {stages[1].EligibleOnceDue, user("dr", apiv1.User_PERSON), false},
	} {
		if yes, why := is.may(is.who); yes != is.yes {
			t.Errorf("%s: %v, %s", about, yes, why)
		}
	}
}

func TestWhoseWordAPolicySaysIsThatOfItsStages(t *testing.T) {
	for about, c := range map[string]struct {
		change func(*apiv1.ApprovalPolicy)
		field  string
	}{
		"both":                    {func(*apiv1.ApprovalPolicy) {}, ""},
		"another system alone":    {func(p *apiv1.ApprovalPolicy) { p.Authority, p.Stages = apiv1.Authority_ITSM, p.Stages[1:] }, ""},
		"people alone":            {func(p *apiv1.ApprovalPolicy) { p.Authority, p.Stages = 0, p.Stages[:1] }, ""},
		"nothing said":            {func(p *apiv1.ApprovalPolicy) { p.Authority = 0 }, "authority"},
		"people, and not alone":   {func(p *apiv1.ApprovalPolicy) { p.Authority = apiv1.Authority_LOCAL }, "authority"},
		"it alone, and not alone": {func(p *apiv1.ApprovalPolicy) { p.Authority = apiv1.Authority_ITSM }, "authority"},
		"both, and it alone":      {func(p *apiv1.ApprovalPolicy) { p.Stages = p.Stages[1:] }, "authority"},
		"both, and people alone":  {func(p *apiv1.ApprovalPolicy) { p.Stages = p.Stages[:1] }, "authority"},
		"and by itself":           {func(p *apiv1.ApprovalPolicy) { p.Automatic = twoSteps().Automatic }, "automatic"},
		"nobody of it":            {func(p *apiv1.ApprovalPolicy) { p.Stages[1].Eligible.Users = nil }, "stages[1].eligible"},
		"too many of it":          {func(p *apiv1.ApprovalPolicy) { p.Stages[1].Eligible.Users = strings.Fields("a b c d e f g h i") }, "stages[1].eligible"},
		"a group of it":           {func(p *apiv1.ApprovalPolicy) { p.Stages[1].Eligible.Groups = []string{"services"} }, "stages[1].eligible"},
		"a condition of it":       {func(p *apiv1.ApprovalPolicy) { p.Stages[1].Eligible.Condition = "true" }, "stages[1].eligible"},
		"a role to escalate to":   {func(p *apiv1.ApprovalPolicy) { p.Stages[1].EscalateTo = &apiv1.Eligibility{Condition: "true"} }, "stages[1].escalate_to"},
		"a proof of who decides":  {func(p *apiv1.ApprovalPolicy) { p.Stages[1].StepUpFrom = apiv1.Zone_SENSITIVE }, "stages[1].step_up_from"},
	} {
		p := byBoth()
		c.change(p)
		_, err := approval.Compile(p)
		if c.field == "" && err == nil {
			continue
		}
		fields := ""
		for _, e := range problem.Of(err).GetErrors() {
			fields += e.GetField() + " "
		}
		if err == nil || !strings.Contains(fields, c.field+" ") || c.field == "" {
			t.Errorf("%s: %v names %q", about, err, fields)
		}
	}
}
