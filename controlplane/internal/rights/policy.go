package rights

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// What a condition may ask for.
var asked = map[string][]string{
	"principal": {"name", "kind", "organization"},
	"context":   {"edge"},
	"resource":  {"project", "organization", "zone", "zone_kind", "zone_grade"},
}

// forbidden are Naru's own rules. They go before what any role permits.
const forbidden = `
@why("the user is disabled")
forbid (principal, action, resource) when { principal.disabled };

@why("the zone does not let its edge call this method")
forbid (principal, action, resource) when { context.edge != "" && !context.shown };
`

// policy is a role, ready to be asked.
type policy struct {
	all cedar.PolicySet
	// zoned and owned say whether the role's condition asks for the zone, and for the project or organization, of an object.
	zoned, owned bool
}

// compiled are the policies of roles as they were last, by what they are made of. It only saves time.
var compiled = struct {
	sync.Mutex
	policies map[string]*policy
}{policies: map[string]*policy{}}

// maxCompiled bounds what is kept.
const maxCompiled = 1024

// compile returns a role's policy.
func compile(role *apiv1.Role) (*policy, error) {
	key := role.GetName() + " " + role.GetId() + " " + role.GetRevision()
	if role.GetRevision() == "" {
		key = policyText(role) // stored nowhere
	}
	compiled.Lock()
	defer compiled.Unlock()
	if p := compiled.policies[key]; p != nil {
		return p, nil
	}
	text := policyText(role)
	p := &policy{}
	var err error
	if role.GetCondition() != "" {
		if p.zoned, p.owned, err = readCondition(role.GetCondition()); err != nil {
			return nil, err
		}
	}
	set, err := cedar.NewPolicySetFromBytes(role.GetName(), []byte(text+forbidden))
	if err != nil {
		return nil, fmt.Errorf("the policy of role %s: %w", role.GetName(), err)
	}
	p.all = *set
	if len(compiled.policies) >= maxCompiled {
		clear(compiled.policies)
	}
	compiled.policies[key] = p
	return p, nil
}

// policyText is the role as a policy.
func policyText(role *apiv1.Role) string {
	var b strings.Builder
	b.WriteString("permit (principal, action")
	if !slices.Contains(role.GetPermissions(), "*") {
		var actions []string
		for _, p := range Expand(role.GetPermissions()) {
			actions = append(actions, `Action::"`+p+`"`)
		}
		fmt.Fprintf(&b, " in [%s]", strings.Join(actions, ", "))
	}
	b.WriteString(", resource)")
	if !role.GetAtEdges() {
		b.WriteString("\nwhen { context.edge == \"\" }")
	}
	if role.GetCondition() != "" {
		b.WriteString("\nwhen {\n" + role.GetCondition() + "\n}")
	}
	b.WriteString(";\n")
	return b.String()
}

// like says which permissions there are of a pattern's noun, or which nouns.
func like(pattern string) string {
	noun, _, _ := strings.Cut(pattern, ".")
	if near := Expand([]string{noun + ".*"}); len(near) > 0 {
		return "There are " + strings.Join(near, ", ") + "."
	}
	var nouns []string
	for _, p := range permissions() {
		noun, _, _ := strings.Cut(p, ".")
		nouns = append(nouns, noun)
	}
	slices.Sort(nouns)
	return "The nouns are " + strings.Join(slices.Compact(nouns), ", ") + "."
}

// CheckRole refuses a role that could not be asked, saying why.
func CheckRole(role *apiv1.Role) error {
	var unknown []string
	for _, pattern := range role.GetPermissions() {
		if len(Expand([]string{pattern})) == 0 {
			unknown = append(unknown, pattern)
		}
	}
	if len(unknown) > 0 {
		return problem.Newf(problem.Invalid, like(unknown[0])+" * stands for a whole noun or verb.",
			"no method needs the permission %s", strings.Join(unknown, ", ")).With("permissions", "names what no method needs")
	}
	if len(role.GetPermissions()) == 0 {
		return problem.New(problem.Invalid, "a role without permissions gives nothing", "Give it some: vm.read, vm.*.").With("permissions", "is required")
	}
	if role.GetCondition() == "" {
		return nil
	}
	if _, _, err := readCondition(role.GetCondition()); err != nil {
		return err
	}
	_, err := compile(role)
	return err
}

// readCondition refuses what is no condition, and says what it asks for.
func readCondition(text string) (zoned, owned bool, err error) {
	refuse := func(detail string) error {
		return problem.New(problem.Invalid, "the condition cannot be used: "+detail,
			`Write a Cedar expression over resource.project, .organization, .zone, .zone_kind, .zone_grade, principal.name, .kind, .organization and context.edge: resource.zone_grade <= 2.`).
			With("condition", detail)
	}
	var list cedar.PolicyList
	if err := list.UnmarshalCedar([]byte("permit (principal, action, resource)\nwhen {\n" + text + "\n};")); err != nil {
		return false, false, refuse("it is no Cedar expression: " + strings.Join(strings.Fields(err.Error()), " "))
	}
	if len(list) != 1 {
		return false, false, refuse("it is more than one expression")
	}
	raw, err := list[0].MarshalJSON()
	if err != nil {
		return false, false, err
	}
	var shape struct {
		Conditions  []struct{ Body any }
		Annotations map[string]any
	}
	if err := json.Unmarshal(raw, &shape); err != nil {
		return false, false, err
	}
	if len(shape.Conditions) != 1 || len(shape.Annotations) > 0 {
		return false, false, refuse("it is more than one expression")
	}
	var wrong string
	walk(shape.Conditions[0].Body, func(variable, attribute string) {
		switch {
		case !slices.Contains(asked[variable], attribute):
			wrong = strings.TrimSuffix(variable+"."+attribute, ".") + " cannot be asked for"
		case strings.HasPrefix(attribute, "zone"):
			zoned = true
		case variable == "resource":
			owned = true
		}
	})
	if wrong != "" {
		return false, false, refuse(wrong)
	}
	return zoned, owned, nil
}

// walk tells which attributes an expression asks for; of a variable that stands by itself, with no attribute.
func walk(node any, use func(variable, attribute string)) {
	switch n := node.(type) {
	case []any:
		for _, child := range n {
			walk(child, use)
		}
	case map[string]any:
		if name, ok := n["Var"].(string); ok && len(n) == 1 {
			use(name, "")
			return
		}
		for _, access := range []string{".", "has"} {
			if of, ok := n[access].(map[string]any); ok && len(n) == 1 {
				if left, ok := of["left"].(map[string]any); ok {
					if name, ok := left["Var"].(string); ok {
						attribute, _ := of["attr"].(string)
						use(name, attribute)
						return
					}
				}
			}
		}
		for _, child := range n {
			walk(child, use)
		}
	}
}

// question is what the policy engine is asked.
type question struct {
	who        *Subject
	permission string
	shown      bool
	// of are the attributes of what it is asked about.
	of attributes
}

// attributes are what conditions may ask of an object.
type attributes struct {
	project, organization, zone, zoneKind string
	zoneGrade                             int64
}

// answer of the policy engine.
type answer struct {
	permitted bool
	// forbids is why Naru's own rules refuse it; empty where they do not.
	forbids string
}

func (p *policy) ask(q question) answer {
	resource := cedar.NewEntityUID("Object", "it")
	entities := cedar.EntityMap{
		q.who.uid(): {UID: q.who.uid(), Attributes: cedar.NewRecord(cedar.RecordMap{
			"name": cedar.String(q.who.Name), "kind": cedar.String(q.who.Kind), "organization": cedar.String(q.who.Organization),
			"disabled": cedar.Boolean(q.who.Disabled),
		})},
		resource: {UID: resource, Attributes: cedar.NewRecord(cedar.RecordMap{
			"project": cedar.String(q.of.project), "organization": cedar.String(q.of.organization), "zone": cedar.String(q.of.zone),
			"zone_kind": cedar.String(q.of.zoneKind), "zone_grade": cedar.Long(q.of.zoneGrade),
		})},
	}
	decision, why := cedar.Authorize(&p.all, entities, cedar.Request{
		Principal: q.who.uid(), Action: cedar.NewEntityUID("Action", cedar.String(q.permission)), Resource: resource,
		Context: cedar.NewRecord(cedar.RecordMap{"edge": cedar.String(q.who.Edge.Zone), "shown": cedar.Boolean(q.shown)}),
	})
	// A policy that cannot be evaluated permits nothing and, what is worse, forbids nothing: then all is refused.
	if len(why.Errors) > 0 {
		return answer{forbids: "a policy cannot be evaluated: " + why.Errors[0].Message}
	}
	out := answer{permitted: decision == cedar.Allow}
	for _, r := range why.Reasons {
		if rule := p.all.Get(r.PolicyID); rule.Effect() == cedar.Forbid {
			out.forbids = string(rule.Annotations()["why"])
		}
	}
	return out
}
