package approval

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/naru-project/naru/pkg/grade"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Bounds of an expression. The cost is CEL's own measure; what policies usually ask costs tens.
const (
	costLimit    = 10_000
	nodeLimit    = 512
	nestingLimit = 32
	loopsLimit   = 2
)

// expression is one that was compiled. It is safe for concurrent use. One that is nil holds always.
type expression struct {
	text    string
	program cel.Program
}

// environments are what expressions see: of a case, and of a person besides.
var environments = sync.OnceValues(func() (envs struct{ ofCase, ofPerson *cel.Env }, err error) {
	fields := (&apiv1.PolicyCase{}).ProtoReflect().Descriptor().Fields()
	options := []cel.EnvOption{
		cel.Types(&apiv1.PolicyCase{}),
		cel.CrossTypeNumericComparisons(true), // quantities are unsigned in the schema, and 3 is not
		cel.ExpressionNodeLimit(nodeLimit),
		cel.ParserRecursionLimit(nestingLimit),
		cel.ExpressionNestingDepthLimit(nestingLimit),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateComprehensionNestingLimit(loopsLimit)),
		cel.Function("amount", cel.Overload("amount_money_currency", []*cel.Type{cel.ObjectType("naru.api.v1.Money"), cel.StringType}, cel.IntType, cel.BinaryBinding(amount))),
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		options = append(options, cel.Variable(string(f.Name()), cel.ObjectType(string(f.Message().FullName()))))
	}
	for _, enum := range []protoreflect.Enum{apiv1.Zone_OPEN, apiv1.RequestKind_CREATE, apiv1.ChangeType_NORMAL, apiv1.User_PERSON, apiv1.Intake_ITSM} {
		for i, values := 0, enum.Descriptor().Values(); i < values.Len(); i++ {
			if v := values.Get(i); v.Number() != 0 {
				options = append(options, cel.Constant(string(v.Name()), cel.IntType, types.Int(v.Number())))
			}
		}
	}
	if envs.ofCase, err = cel.NewEnv(options...); err != nil {
		return envs, err
	}
	envs.ofPerson, err = envs.ofCase.Extend(cel.Variable("person", cel.ObjectType("naru.api.v1.User")), cel.Variable("groups", cel.ListType(cel.StringType)))
	return envs, err
})

// amount is money as a whole number of minor units. There is no comparing between currencies, nor with what is not known.
func amount(money, currency ref.Val) ref.Val {
	m, _ := money.Value().(*apiv1.Money) // what is not set is an empty message of another type
	switch {
	case m.GetAmount() == "":
		return types.NewErr("the price is not known; ask first whether it is: has(request.monthly_cost)")
	case m.GetAmount() == "0":
		return types.Int(0)
	}
	if want, _ := currency.Value().(string); m.GetCurrency() != want {
		return types.NewErr("the price is in %s, not in %s", m.GetCurrency(), want)
	}
	n, err := strconv.ParseInt(m.GetAmount(), 10, 64)
	if err != nil {
		return types.NewErr("%s is no amount", m.GetAmount())
	}
	return types.Int(n)
}

// compile reads an expression over a case, or over a person and a case. Nothing is nil. Its errors say where: "column 17: …".
func compile(text string, ofPerson bool) (*expression, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	envs, err := environments()
	if err != nil {
		return nil, err
	}
	env := envs.ofCase
	if ofPerson {
		env = envs.ofPerson
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, pointed(issues, strings.Contains(text, "\n"))
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("it says %s, and a condition is true or false", ast.OutputType())
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	return &expression{text: text, program: program}, nil
}

// pointed says each thing that is wrong and at which column, counted from 1.
func pointed(issues *cel.Issues, lines bool) error {
	var all []string
	for i, e := range issues.Errors() {
		if i == 5 {
			all = append(all, "and more")
			break
		}
		where := "column " + strconv.Itoa(e.Location.Column()+1)
		if lines {
			where = "line " + strconv.Itoa(e.Location.Line()) + ", " + where
		}
		message, _, _ := strings.Cut(e.Message, " (in container")
		all = append(all, where+": "+strings.TrimSpace(message))
	}
	return errors.New(strings.Join(all, "; "))
}

// holds evaluates an expression. An error means that it is neither true nor false.
func (x *expression) holds(vars map[string]any) (bool, error) {
	if x == nil {
		return true, nil
	}
	v, _, err := x.program.Eval(vars)
	if err != nil {
		return false, err
	}
	b, ok := v.Value().(bool)
	if !ok {
		return false, fmt.Errorf("it is %v, and neither true nor false", v.Type())
	}
	return b, nil
}

// variables of a case. What it does not hold is there and empty; what says no grade is open, and what can have no price costs
// nothing.
func variables(c *apiv1.PolicyCase) map[string]any {
	c = proto.CloneOf(c)
	if c.Request != nil {
		c.Request.Grade = grade.Highest(c.Request.Grade)
		if c.Request.GetMonthlyCost().GetAmount() == "" {
			if c.Request.MonthlyCost = nil; !unpriced(c.Request) {
				c.Request.MonthlyCost = &apiv1.Money{Amount: "0"}
			}
		}
	}
	if c.Project != nil {
		c.Project.Grade = grade.Highest(c.Project.Grade)
	}
	for _, z := range []*apiv1.Zone{c.Zone, c.SourceZone} {
		if z != nil {
			z.Grade = grade.Highest(z.Grade)
		}
	}
	if c.Beneficiary == nil {
		c.Beneficiary = c.Requester
	}
	vars := map[string]any{}
	for m, i := c.ProtoReflect(), 0; i < m.Descriptor().Fields().Len(); i++ {
		f := m.Descriptor().Fields().Get(i)
		if m.Has(f) {
			vars[string(f.Name())] = m.Get(f).Message().Interface()
		} else {
			vars[string(f.Name())] = m.NewField(f).Message().Interface()
		}
	}
	return vars
}
