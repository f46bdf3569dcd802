package approval_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/approval"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// twoSteps is reviewed by the project's person in charge, and approved by both sides' administrators at once.
func twoSteps() *apiv1.ApprovalPolicy {
	return &apiv1.ApprovalPolicy{
		Name: "two-steps", Version: 3, Enabled: true, Condition: `request.kind == CREATE`,
		Stages: []*apiv1.StageTemplate{
			{Name: "theirs", Sequence: 2, Rule: apiv1.StageTemplate_ANY, Eligible: &apiv1.Eligibility{Roles: []string{"zone-administrator"}, At: apiv1.Eligibility_DESTINATION}, StepUpFrom: apiv1.Zone_SENSITIVE},
			{Name: "ours", Sequence: 2, Rule: apiv1.StageTemplate_ANY, Condition: "request.crosses", Eligible: &apiv1.Eligibility{Roles: []string{"zone-administrator"}, At: apiv1.Eligibility_SOURCE}},
			{
				Name: "review", Sequence: 1, Rule: apiv1.StageTemplate_COUNT, Needed: 2, DueHours: 8, RemindHours: 2, OnDue: apiv1.StageTemplate_ESCALATE,
				Eligible:   &apiv1.Eligibility{Roles: []string{"reviewer"}, At: apiv1.Eligibility_PROJECT, Groups: []string{"leads"}, Condition: "person.organization == organization.name"},
				EscalateTo: &apiv1.Eligibility{Users: []string{"park"}}, Excluded: []string{"choi"}, CommentRequired: true,
			},
		},
		Automatic: &apiv1.AutomaticApproval{
			When: `zone.kind == "internet" && requester.organization == organization.name`, Reason: "small and open", MaxQuantity: 2,
			MaxMonthlyCost: &apiv1.Money{Currency: "KRW", Amount: "100000"}, MaxLeaseDays: 90, MaxAmount: &apiv1.Resources{Cores: 4},
		},
	}
}

// small is a case that twoSteps approves without people.
func small() *apiv1.PolicyCase {
	return &apiv1.PolicyCase{
		Request: &apiv1.RequestFacts{
			Kind: apiv1.RequestKind_CREATE, ChangeType: apiv1.ChangeType_NORMAL, Quantity: 1, LeaseDays: 30, Crosses: true,
			Amount: &apiv1.Resources{Cores: 2, MemoryMib: 4096, DiskGib: 20}, MonthlyCost: &apiv1.Money{Currency: "KRW", Amount: "72000"},
		},
		Requester: &apiv1.User{Id: "1", Name: "kim", Organization: "moi"}, Organization: &apiv1.Organization{Name: "moi"},
		Project: &apiv1.Project{Name: "web"}, Zone: &apiv1.Zone{Name: "internet", Kind: "internet"},
	}
}

func compile(t interface{ Fatal(...any) }, p *apiv1.ApprovalPolicy) *approval.Policy {
	c, err := approval.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func planOf(t interface{ Fatal(...any) }, p *apiv1.ApprovalPolicy, c *apiv1.PolicyCase) *approval.Plan {
	plan, err := compile(t, p).Plan(c)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func stagesOf(p *approval.Plan) string {
	var out []string
	for _, s := range p.Stages {
		out = append(out, fmt.Sprintf("%d:%s", s.GetSequence(), s.GetName()))
	}
	return strings.Join(out, " ")
}

func TestAPlanHasTheStagesWhoseConditionHoldsInTheirOrder(t *testing.T) {
	c := small()
	if got := stagesOf(planOf(t, twoSteps(), c)); got != "1:review 2:theirs 2:ours" {
		t.Errorf("got %s", got)
	}
	c.Request.Crosses = false
	plan := planOf(t, twoSteps(), c)
	if got := stagesOf(plan); got != "1:review 2:theirs" {
		t.Errorf("within one zone: %s", got)
	}
	if !strings.Contains(strings.Join(plan.Trace, "\n"), "stage ours is not asked") {
		t.Errorf("nothing says so: %v", plan.Trace)
	}
}

func TestWhatIsSmallIsApprovedWithoutPeopleAndSaysWhy(t *testing.T) {
	plan := planOf(t, twoSteps(), small())
	if !plan.Automatic || plan.Reason != "policy two-steps, version 3: small and open" {
		t.Errorf("%v %q", plan.Automatic, plan.Reason)
	}
}

func TestEachLimitOfAutomaticApprovalHoldsByItself(t *testing.T) {
	for want, change := range map[string]func(*apiv1.PolicyCase){
		"does not hold":             func(c *apiv1.PolicyCase) { c.Zone.Kind = "business" },
		"the quantity is 3":         func(c *apiv1.PolicyCase) { c.Request.Quantity = 3 },
		"a month costs 100001":      func(c *apiv1.PolicyCase) { c.Request.MonthlyCost.Amount = "100001" },
		"a month costs 1000000":     func(c *apiv1.PolicyCase) { c.Request.MonthlyCost.Amount = "1000000" },
		"the price is in USD":       func(c *apiv1.PolicyCase) { c.Request.MonthlyCost.Currency = "USD" },
		"the lease in days is 91":   func(c *apiv1.PolicyCase) { c.Request.LeaseDays = 91 },
		"the lease has no end":      func(c *apiv1.PolicyCase) { c.Request.LeaseDays = 0 },
		"the number of cores is 5":  func(c *apiv1.PolicyCase) { c.Request.Amount.Cores = 5 },
		"the grade is sensitive":    func(c *apiv1.PolicyCase) { c.Request.Grade = apiv1.Zone_SENSITIVE },
		"approval asks for does no": func(c *apiv1.PolicyCase) { c.Requester.Organization = "other" },
	} {
		c := small()
		change(c)
		if plan := planOf(t, twoSteps(), c); plan.Automatic || !strings.Contains(strings.Join(plan.Trace, "\n"), want) {
			t.Errorf("%q: automatic %v, %v", want, plan.Automatic, plan.Trace)
		}
	}
}

// TestWhatHasNoKnownPriceIsLetThroughByNoExpressionOnThePrice, nor taken for cheap by a condition.
func TestWhatHasNoKnownPriceIsLetThroughByNoExpressionOnThePrice(t *testing.T) {
	for about, c := range map[string]struct {
		kind      apiv1.RequestKind_Value
		cost      *apiv1.Money
		when      string
		automatic bool
		trace     string
	}{
		"a resize":                       {kind: apiv1.RequestKind_RESIZE, when: `amount(request.monthly_cost, "KRW") < 1000`, trace: "the price is not known"},
		"an extension, without currency": {kind: apiv1.RequestKind_EXTEND, cost: &apiv1.Money{Currency: "KRW"}, when: `amount(request.monthly_cost, "KRW") < 1000`, trace: "the price is not known"},
		"a resize that asks first":       {kind: apiv1.RequestKind_RESIZE, when: `!has(request.monthly_cost) || amount(request.monthly_cost, "KRW") < 1000`, automatic: true},
		"and has it against it":          {kind: apiv1.RequestKind_RESIZE, when: `has(request.monthly_cost) && amount(request.monthly_cost, "KRW") < 1000`, trace: "does not hold"},
		"what can have no price":         {kind: apiv1.RequestKind_POWER, when: `amount(request.monthly_cost, "KRW") < 1000`, automatic: true},
		"what is given for nothing":      {kind: apiv1.RequestKind_CREATE, when: `amount(request.monthly_cost, "KRW") == 0`, automatic: true},
		"what has a price":               {kind: apiv1.RequestKind_RESIZE, cost: &apiv1.Money{Currency: "KRW", Amount: "999"}, when: `amount(request.monthly_cost, "KRW") < 1000`, automatic: true},
	} {
		policy, given := twoSteps(), small()
		policy.Automatic.When, policy.Automatic.MaxMonthlyCost = c.when, nil
		given.Request.Kind, given.Request.MonthlyCost = c.kind, c.cost
		if plan := planOf(t, policy, given); plan.Automatic != c.automatic || !strings.Contains(strings.Join(plan.Trace, "\n"), c.trace) {
			t.Errorf("%s: automatic %v, %v", about, plan.Automatic, plan.Trace)
		}
	}
	daily, resize := twoSteps(), small()
	daily.Automatic.When, daily.Automatic.MaxMonthlyCost = "true", nil
	daily.Automatic.ProjectDaily = &apiv1.DailyLimits{MaxMonthlyCost: &apiv1.Money{Currency: "KRW", Amount: "1000"}}
	resize.Request.Kind, resize.Request.MonthlyCost = apiv1.RequestKind_RESIZE, nil
	if plan := planOf(t, daily, resize); plan.Automatic || !strings.Contains(strings.Join(plan.Trace, "\n"), "what a month will cost is not known") {
		t.Errorf("under a limit of the day: automatic %v, %v", plan.Automatic, plan.Trace)
	}
	policy := twoSteps()
	policy.Condition = `amount(request.monthly_cost, "KRW") < 1000`
	if holds, err := compile(t, policy).Applies(resize); err == nil || holds || !strings.Contains(err.Error(), "has(request.monthly_cost)") {
		t.Errorf("%v, %v", holds, err)
	}
}

// person returns one who may review, changed.
func person(change func(*apiv1.PolicyPerson)) *apiv1.PolicyPerson {
	p := &apiv1.PolicyPerson{
		User: &apiv1.User{Id: "2", Name: "lee", Organization: "moi", Kind: apiv1.User_PERSON}, Roles: []*apiv1.HeldRole{{Role: "reviewer", At: apiv1.Eligibility_PROJECT}},
	}
	change(p)
	return p
}

func TestP6NobodyDecidesOnWhatTheyAskedForAndNobodyWhoIsNotEligible(t *testing.T) {
	c := small()
	c.Beneficiary = &apiv1.User{Id: "9", Name: "han"}
	review := planOf(t, twoSteps(), c).Stages[0]
	for want, p := range map[string]*apiv1.PolicyPerson{
		"":                              person(func(*apiv1.PolicyPerson) {}),
		"asks for it":                   person(func(p *apiv1.PolicyPerson) { p.User.Id, p.User.Name = "1", "renamed" }),
		"it is asked for them":          person(func(p *apiv1.PolicyPerson) { p.User.Id = "9" }),
		"is excluded":                   person(func(p *apiv1.PolicyPerson) { p.User.Name = "choi" }),
		"is disabled":                   person(func(p *apiv1.PolicyPerson) { p.User.Disabled = true }),
		"has no way to log in any more": person(func(p *apiv1.PolicyPerson) { p.User.GoneAt = timestamppb.Now() }),
		"is a program":                  person(func(p *apiv1.PolicyPerson) { p.User.Kind = apiv1.User_SERVICE }),
		"has none of the roles":         person(func(p *apiv1.PolicyPerson) { p.Roles[0].At = apiv1.Eligibility_FEDERATION }),
		"the condition does no":         person(func(p *apiv1.PolicyPerson) { p.User.Organization = "other" }),
		"nobody is named":               {},
	} {
		may, why := review.Eligible(p)
		if may != (want == "") || !strings.HasPrefix(why, want) {
			t.Errorf("%v: %v, %q; wanted %q", p, may, why, want)
		}
	}
	if may, why := review.Eligible(person(func(p *apiv1.PolicyPerson) { p.Roles, p.Groups = nil, []string{"leads"} })); !may {
		t.Errorf("one of the group may not: %s", why)
	}
	if may, _ := review.EligibleOnceDue(person(func(p *apiv1.PolicyPerson) { p.User.Name, p.Roles = "park", nil })); !may {
		t.Error("once it is due, park may not")
	}
	if may, _ := review.Eligible(person(func(p *apiv1.PolicyPerson) { p.User.Name, p.Roles = "park", nil })); may {
		t.Error("park may before it is due")
	}
}

// Where the same user asks and would gain, nothing that a policy says lets them decide.
func TestP6NoPolicyLetsTheRequesterDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		user := &apiv1.User{Id: rapid.SampledFrom([]string{"1", "2", ""}).Draw(t, "id"), Name: rapid.SampledFrom([]string{"kim", "lee"}).Draw(t, "name")}
		p := twoSteps()
		p.Stages = []*apiv1.StageTemplate{{Name: "a", Rule: apiv1.StageTemplate_ANY, Eligible: &apiv1.Eligibility{
			Users: rapid.SampledFrom([][]string{nil, {"kim", "lee"}}).Draw(t, "users"), Condition: rapid.SampledFrom([]string{"true", "person.name == requester.name", "person == requester || true"}).Draw(t, "condition"),
		}}}
		c := small()
		if who := rapid.SampledFrom([]string{"requester", "beneficiary"}).Draw(t, "who"); who == "requester" {
			c.Requester = proto.CloneOf(user)
		} else {
			c.Beneficiary = proto.CloneOf(user)
		}
		if may, _ := planOf(t, p, c).Stages[0].Eligible(&apiv1.PolicyPerson{User: user, Groups: []string{"leads"}}); may {
			t.Fatalf("%v decides on what is theirs: %v", user, p.Stages[0])
		}
	})
}

func TestHowManyHaveToApproveIsNeverNone(t *testing.T) {
	for _, test := range []struct {
		rule             apiv1.StageTemplate_Rule
		needed           uint32
		eligible, expect int
	}{
		{apiv1.StageTemplate_ANY, 0, 5, 1}, {apiv1.StageTemplate_ALL, 0, 5, 5}, {apiv1.StageTemplate_ALL, 0, 0, 1}, {apiv1.StageTemplate_COUNT, 3, 2, 3},
		{apiv1.StageTemplate_PERCENT, 50, 5, 3}, {apiv1.StageTemplate_PERCENT, 1, 5, 1}, {apiv1.StageTemplate_PERCENT, 100, 7, 7}, {apiv1.StageTemplate_PERCENT, 67, 3, 3},
		{apiv1.StageTemplate_PERCENT, 66, 3, 2}, {apiv1.StageTemplate_PERCENT, 50, 0, 1},
	} {
		s := approval.Stage{StageTemplate: &apiv1.StageTemplate{Rule: test.rule, Needed: test.needed}}
		if got := s.Needed(test.eligible); got != test.expect {
			t.Errorf("%v %d of %d: %d, not %d", test.rule, test.needed, test.eligible, got, test.expect)
		}
	}
}

func TestTheHighestPriorityThatAppliesDecidesAndNoneIsARefusal(t *testing.T) {
	policy := func(name string, priority uint32, condition string, enabled bool) *approval.Policy {
		p := twoSteps()
		p.Name, p.Priority, p.Condition, p.Enabled = name, priority, condition, enabled
		return compile(t, p)
	}
	all := []*approval.Policy{
		policy("z", 10, "", true), policy("b", 20, "request.quantity > 5", true), policy("c", 15, "request.quantity > 0", true),
		policy("a", 15, "", true), policy("off", 99, "", false),
	}
	if chosen, trace, err := approval.Choose(all, small()); err != nil || chosen.GetName() != "a" {
		t.Errorf("%v chosen: %v, %v", chosen.GetName(), trace, err)
	}
	if _, _, err := approval.Choose(all[1:2], small()); !problem.Is(err, problem.Invalid) {
		t.Errorf("where none applies: %v", err)
	}
	// One that cannot be evaluated is not passed over: whoever wrote it meant to be asked.
	all = append(all, policy("broken", 30, `amount(request.monthly_cost, "USD") > 5`, true))
	if chosen, _, err := approval.Choose(all, small()); err == nil || !strings.Contains(err.Error(), "the price is in KRW, not in USD") {
		t.Errorf("%v chosen, %v", chosen.GetName(), err)
	}
}

func TestAPolicyOfWhichNoStageIsLeftIsRefused(t *testing.T) {
	p := twoSteps()
	p.Automatic = nil
	for _, s := range p.Stages {
		s.Condition = "request.quantity > 100"
	}
	if plan, err := compile(t, p).Plan(small()); !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), "asks nobody") {
		t.Errorf("%v, %v", plan, err)
	}
}

func TestAnEmergencyIsReviewedAfterwardsWhereThePolicySaysSo(t *testing.T) {
	p, c := twoSteps(), small()
	c.Request.ChangeType = apiv1.ChangeType_EMERGENCY
	if planOf(t, p, c).Afterwards {
		t.Error("the policy did not say so")
	}
	p.Emergency = true
	if !planOf(t, p, c).Afterwards {
		t.Error("it is not")
	}
	c.Request.ChangeType = apiv1.ChangeType_NORMAL
	if planOf(t, p, c).Afterwards {
		t.Error("a normal change is")
	}
}

func TestStepUpIsAskedFromItsGradeOn(t *testing.T) {
	c := small()
	for g, want := range map[apiv1.Zone_Grade]bool{0: false, apiv1.Zone_OPEN: false, apiv1.Zone_SENSITIVE: true, apiv1.Zone_CLASSIFIED: true} {
		c.Request.Grade = g
		plan := planOf(t, twoSteps(), c)
		if plan.Stages[1].StepUp != want || plan.Stages[0].StepUp {
			t.Errorf("%v: %v", g, plan.Stages[1].StepUp)
		}
	}
}

func TestAnExpressionThatIsWrongIsPointedAt(t *testing.T) {
	for condition, want := range map[string]string{
		`request.kind == CRAETE`:                                     "condition: column 17: undeclared reference to 'CRAETE'",
		`request.kidn == CREATE`:                                     "condition: column 8: undefined field 'kidn'",
		`request.quantity <= "3"`:                                    "condition: column 18: found no matching overload for '_<=_'",
		`request.kind == CREATE &&`:                                  "condition: column 26: Syntax error",
		"request.kind == CREATE &&\n  zone.grdae > 1":                "condition: line 2, column 7: undefined field 'grdae'",
		`request.quantity`:                                           "condition: it says uint, and a condition is true or false",
		`zone.name.matches("(")`:                                     "condition: column 19: invalid matches argument",
		`person.name == "kim"`:                                       "column 1: undeclared reference to 'person'",
		strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100): "condition: ",
		strings.Repeat("true && ", 400) + "true":                     "condition: ",
	} {
		p := twoSteps()
		p.Condition = condition
		if _, err := approval.Compile(p); !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetDetail(), want) {
			t.Errorf("%s\n  wanted %q\n  got %v", condition, want, err)
		}
	}
}

func TestAPolicyThatContradictsItselfNamesEachField(t *testing.T) {
	for want, change := range map[string]func(p *apiv1.ApprovalPolicy){
		"stages: are required":           func(p *apiv1.ApprovalPolicy) { p.Stages = nil },
		"stages[1].name: is theirs":      func(p *apiv1.ApprovalPolicy) { p.Stages[1].Name = "theirs" },
		"stages[0].rule: is required":    func(p *apiv1.ApprovalPolicy) { p.Stages[0].Rule = 0 },
		"stages[0].needed: goes with":    func(p *apiv1.ApprovalPolicy) { p.Stages[0].Needed = 1 },
		"stages[2].needed: is required":  func(p *apiv1.ApprovalPolicy) { p.Stages[2].Needed = 0 },
		"stages[2].needed: is 1 to 100":  func(p *apiv1.ApprovalPolicy) { p.Stages[2].Rule, p.Stages[2].Needed = apiv1.StageTemplate_PERCENT, 101 },
		"eligible: says nobody":          func(p *apiv1.ApprovalPolicy) { p.Stages[0].Eligible = &apiv1.Eligibility{} },
		"eligible.at: says where":        func(p *apiv1.ApprovalPolicy) { p.Stages[0].Eligible.At = 0 },
		"on_due: says what happens":      func(p *apiv1.ApprovalPolicy) { p.Stages[0].DueHours = 1 },
		"stages[0].due_hours: is requir": func(p *apiv1.ApprovalPolicy) { p.Stages[0].OnDue = apiv1.StageTemplate_EXPIRE },
		"remind_hours: is less than":     func(p *apiv1.ApprovalPolicy) { p.Stages[2].RemindHours = 8 },
		"escalate_to: says nobody":       func(p *apiv1.ApprovalPolicy) { p.Stages[2].EscalateTo = nil },
		"escalate_to: goes with":         func(p *apiv1.ApprovalPolicy) { p.Stages[2].OnDue = apiv1.StageTemplate_REMIND },
		"automatic: sets no limit":       func(p *apiv1.ApprovalPolicy) { p.Automatic = &apiv1.AutomaticApproval{When: "true", Reason: "x"} },
		"eligible.condition: column 1: ": func(p *apiv1.ApprovalPolicy) { p.Stages[2].Eligible.Condition = "persn.name == 'a'" },
		"automatic.when: column 1: unde": func(p *apiv1.ApprovalPolicy) { p.Automatic.When = "x" },
	} {
		p := twoSteps()
		change(p)
		if _, err := approval.Compile(p); !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetDetail(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// An expression that would take long is ended by what it costs, and then is no approval.
func TestAnExpressionThatCostsTooMuchIsEnded(t *testing.T) {
	p, c := twoSteps(), small()
	p.Condition = `offering.zones.exists(a, offering.zones.exists(b, a + b == "x"))`
	c.Offering = &apiv1.Offering{}
	for i := range 500 {
		c.Offering.Zones = append(c.Offering.Zones, fmt.Sprint("zone-", i))
	}
	policy := compile(t, p)
	began := time.Now()
	if holds, err := policy.Applies(c); holds || !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("%v, %v", holds, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}
}

func TestEveryNameThatAPolicyNamesIsFoundWithItsField(t *testing.T) {
	p := twoSteps()
	p.Stages[2].Calendar = "office"
	n := compile(t, p).Names()
	if got := fmt.Sprint(n); got != "{[{stages[2].calendar office}] [{stages[0].eligible.roles[0] zone-administrator} {stages[1].eligible.roles[0] zone-administrator} {stages[2].eligible.roles[0] reviewer}] "+
		"[{stages[2].eligible.groups[0] leads}] [{stages[2].excluded[0] choi} {stages[2].escalate_to.users[0] park}] []}" {
		t.Errorf("got %s", got)
	}
	if n := compile(t, byBoth()).Names(); fmt.Sprint(n.Services) != "[{stages[1].eligible.users[0] change} {stages[1].escalate_to.users[0] dr}]" || len(n.Users) != 1 {
		t.Errorf("of another system it names %v, and of people %v", n.Services, n.Users)
	}
}

// What a case does not hold is there and empty, so that a policy can ask for it without failing.
func TestWhatACaseDoesNotHoldCanBeAskedFor(t *testing.T) {
	p := twoSteps()
	p.Condition = `offering.name == "" && source_zone.name == "" && zone.grade == OPEN && beneficiary.name == "kim" && amount(request.monthly_cost, "KRW") == 72000 && requester.kind != SERVICE`
	if holds, err := compile(t, p).Applies(small()); !holds || err != nil {
		t.Errorf("%v, %v", holds, err)
	}
}
