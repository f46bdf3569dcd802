package api

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// validate checks a request against its rules. A field of the noun in it is named as the noun names it (name, not vm.name):
// REST's body is the noun itself, and what is checked later speaks so too.
func validate(req proto.Message) error {
	err := schema.Validate(req)
	var e *problem.Error
	if !errors.As(err, &e) {
		return err
	}
	out := problem.New(problem.Invalid, "", e.Problem.GetNext())
	var said []string
	for _, f := range e.Problem.GetErrors() {
		name := f.GetField()
		if noun, rest, found := strings.Cut(name, "."); found {
			if d := req.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(noun)); d != nil && d.Message() != nil && !d.IsList() {
				name = rest
			}
		}
		out.Problem.Errors = append(out.Problem.Errors, &apiv1.FieldProblem{Field: name, Detail: f.GetDetail()})
		said = append(said, name+" "+f.GetDetail())
	}
	out.Problem.Detail = strings.Join(said, "; ")
	return out
}
