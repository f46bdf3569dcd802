// Package schema enforces from the descriptors who may write which field of a noun (proto/naru/api/v1/annotations.proto),
// so that one message can serve from the API through Raft and the link into a zone and back.
//
// All functions are safe for concurrent use. Fields of a noun that carry no annotation count as output: the default is
// closed, and a test over all nouns holds that there are none.
package schema

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// validator compiles each message's rules once, on first use.
var validator = sync.OnceValues(func() (protovalidate.Validator, error) { return protovalidate.New() })

// Validate checks m against its validation rules. The error is a problem INVALID that names each field.
func Validate(m proto.Message) error {
	v, err := validator()
	if err != nil {
		return err
	}
	err = v.Validate(m)
	var ve *protovalidate.ValidationError
	if !errors.As(err, &ve) {
		return err
	}
	e := problem.New(problem.Invalid, "", "Correct the fields named and send it again.")
	for _, violation := range ve.Violations {
		e.With(protovalidate.FieldPathString(violation.Proto.GetField()), worded(violation))
	}
	e.Problem.Detail = summary(e.Problem.GetErrors())
	return e
}

// label is the pattern of most names: of VMs, zones, projects.
const label = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"

var isLabel = regexp.MustCompile(label)

// IsLabel reports whether a name keeps the rule that most names have to.
func IsLabel(name string) bool { return isLabel.MatchString(name) }

// patterns says in words what a pattern of the schema asks for.
var patterns = map[string]string{
	label:                                     "takes 1 to 63 lower-case letters, digits and dashes, a letter first and no dash last",
	"^[a-z]([a-z0-9#-]{0,61}[a-z0-9#])?$":     "takes 1 to 63 lower-case letters, digits and dashes, a letter first and no dash last, and # where a number goes",
	"^[a-z]{1,32}$":                           "takes 1 to 32 lower-case letters",
	"^[0-9a-f]{64}$":                          "takes 64 hexadecimal digits, in lower case",
	"^SHA256:[A-Za-z0-9+/]{43}$":              "takes a fingerprint as it is printed: SHA256: and 43 characters",
	"^[^\\r\\n]+$":                            "takes one line, and no line break",
	"^[^/\\\\\\x00-\\x1f]+$":                  "takes the name of a file, and no path",
	"^[A-Za-z]{1,64}/([A-Za-z]{1,64}|\\*)$":   "takes methods as the API names them: VMService/ListVMs, VMService/*",
	"^[a-z][a-z-]*[.]([*]|[a-z][a-z-]*)$":     "takes a topic, request.waiting for instance, or all of a kind: request.*",
	"^(0|[1-9][0-9]{0,14})$":                  "takes a whole number, of the smallest unit of the currency",
	"^(0|[1-9][0-9]{0,17})$":                  "takes a whole number, of the smallest unit of the currency",
	"^[A-Z]{3}$":                              "takes the three letters of a currency: KRW",
	"^[0-9]{4}-[0-9]{2}-[0-9]{2}$":            "takes a day: 2026-12-24",
	"^([01][0-9]|2[0-3]):[0-5][0-9]$":         "takes a time of day: 09:00",
	"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$": "takes a time of day: 18:00; 24:00 is midnight",
	"^[A-Za-z0-9.:\\[\\]-]+:[0-9]{1,5}$":      "takes a host and a port: mail.example:25",
	"^ldaps?://[A-Za-z0-9.:\\[\\]-]+$":        "takes ldaps://HOST or ldap://HOST, with :PORT or without",
	"^[!#-\\[\\]-~]+$":                        "takes one word, without quotation marks and backslashes",
	"^([A-Za-z][A-Za-z0-9-]*)?$":              "takes the name of an attribute: letters, digits and dashes",
	"^([A-Za-z][A-Za-z0-9-]*(:[0-9.]+:)?)?$":  "takes the name of an attribute, with a matching rule behind it or without: member:1.2.840.113556.1.4.1941:",
	"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$":  "takes 1 to 63 lower-case letters, digits, dots, dashes and underlines, with a letter or a digit first and last",
}

// worded says what a rule asks for, to somebody who does not know it.
func worded(v *protovalidate.Violation) string {
	if v.RuleDescriptor != nil && v.RuleDescriptor.Name() == "pattern" {
		if words := patterns[v.RuleValue.String()]; words != "" {
			return words
		}
	}
	switch rule := v.Proto.GetRuleId(); {
	case rule == "string.prefix":
		return "begins with " + v.RuleValue.String()
	case rule == "string.min_len" && v.RuleValue.Uint() == 1, rule == "required":
		return "is required"
	case rule == "bytes.min_len" && v.RuleValue.Uint() == 1:
		return "is empty"
	}
	return v.Proto.GetMessage()
}

// summary is the field problems in one sentence.
func summary(fields []*apiv1.FieldProblem) string {
	var parts []string
	for _, f := range fields {
		parts = append(parts, f.GetField()+" "+f.GetDetail())
	}
	return strings.Join(parts, "; ")
}

// CheckCreate checks a noun as a client sends it to be created: nothing set that is not the client's, nothing required
// missing, every rule kept. The error is a problem INVALID that names each field.
func CheckCreate(noun proto.Message) error {
	e := problem.New(problem.Invalid, "", "Correct the fields named and send it again.")
	for _, f := range planOf(noun).fields {
		set := noun.ProtoReflect().Has(f.desc)
		switch {
		case set && f.access != apiv1.Access_ACCESS_CLIENT && f.access != apiv1.Access_ACCESS_IMMUTABLE:
			e.With(f.name, "is set by Naru and cannot be given")
		case !set && f.required:
			e.With(f.name, f.isRequired())
		}
	}
	oneLine(e, noun, func(string) bool { return true })
	if err := Validate(noun); err != nil {
		var rules *problem.Error
		if !errors.As(err, &rules) {
			return err
		}
		e.Problem.Errors = append(e.Problem.Errors, rules.Problem.GetErrors()...)
	}
	if len(e.Problem.GetErrors()) == 0 {
		return nil
	}
	e.Problem.Detail = summary(e.Problem.GetErrors())
	return e
}

// ApplyUpdate writes the fields that mask names from in to stored, and checks the rules of what comes of it. Only client
// fields may be named; the identity in `in` (id, name) is how the noun was found and need not be in the mask.
// On error stored is as it was.
func ApplyUpdate(stored, in proto.Message, mask *fieldmaskpb.FieldMask) error {
	if len(mask.GetPaths()) == 0 {
		return problem.New(problem.Invalid, "no field to change was given", "Send the fields to change in the body.")
	}
	p := planOf(stored)
	out := proto.Clone(stored)
	e := problem.New(problem.Invalid, "", "Send only fields that can be changed.")
	for _, path := range mask.GetPaths() {
		name, _, _ := strings.Cut(path, ".")
		f, ok := p.byName[name]
		switch {
		case !ok:
			e.With(path, "is not a field of this noun")
		case f.access == apiv1.Access_ACCESS_IMMUTABLE:
			if !sameField(stored, in, f) {
				e.With(path, "is set at creation and cannot be changed")
			}
		case f.access != apiv1.Access_ACCESS_CLIENT:
			if name != "id" {
				e.With(path, "is set by Naru and cannot be given")
			}
		default:
			if copyField(out, in, f.desc); f.required && !out.ProtoReflect().Has(f.desc) {
				e.With(path, "is required and cannot be cleared")
			}
		}
	}
	oneLine(e, out, func(name string) bool { return slices.Contains(mask.GetPaths(), name) })
	if len(e.Problem.GetErrors()) > 0 {
		e.Problem.Detail = summary(e.Problem.GetErrors())
		return e
	}
	if err := Validate(out); err != nil {
		return err
	}
	proto.Reset(stored)
	proto.Merge(stored, out)
	return nil
}

// oneLine notes where a noun's title, if it is looked at, would break the line in which it is shown.
func oneLine(e *problem.Error, noun proto.Message, looked func(name string) bool) {
	f, is := planOf(noun).byName["title"]
	if is && looked(f.name) && strings.ContainsFunc(noun.ProtoReflect().Get(f.desc).String(), unicode.IsControl) {
		e.With(f.name, "takes one line, without control characters")
	}
}

func sameField(a, b proto.Message, f field) bool {
	return a.ProtoReflect().Get(f.desc).Equal(b.ProtoReflect().Get(f.desc))
}

func copyField(dst, src proto.Message, f protoreflect.FieldDescriptor) {
	if src.ProtoReflect().Has(f) {
		dst.ProtoReflect().Set(f, src.ProtoReflect().Get(f))
	} else {
		dst.ProtoReflect().Clear(f)
	}
}

// Strip clears the internal fields of m and of every message in it. It is called on everything that leaves an API.
func Strip(m proto.Message) { strip(m.ProtoReflect()) }

func strip(m protoreflect.Message) {
	for _, f := range planOfDescriptor(m.Descriptor()).fields {
		switch {
		case f.access == apiv1.Access_ACCESS_INTERNAL:
			m.Clear(f.desc)
		case f.desc.Message() == nil || f.desc.IsMap() || !m.Has(f.desc):
		case f.desc.IsList():
			for l, i := m.Get(f.desc).List(), 0; i < l.Len(); i++ {
				strip(l.Get(i).Message())
			}
		default:
			strip(m.Get(f.desc).Message())
		}
	}
}

// Desired returns a copy of a noun with what the control plane and its clients write: what goes down to a zone.
func Desired[M proto.Message](noun M) M {
	return pick(noun, func(f field) bool { return f.access != apiv1.Access_ACCESS_OBSERVED })
}

// Observed returns a copy of a noun with its id, its name and what the zone writes: what goes up to the control plane.
func Observed[M proto.Message](noun M) M {
	return pick(noun, func(f field) bool {
		return f.access == apiv1.Access_ACCESS_OBSERVED || f.name == "id" || f.name == "name"
	})
}

func pick[M proto.Message](noun M, keep func(field) bool) M {
	out := proto.CloneOf(noun)
	for _, f := range planOf(noun).fields {
		if !keep(f) {
			out.ProtoReflect().Clear(f.desc)
		}
	}
	return out
}

// MergeObserved replaces in dst what the zone writes by what src has. The values are shared with src.
func MergeObserved(dst, src proto.Message) {
	replace(dst, src, func(f field) bool { return f.access == apiv1.Access_ACCESS_OBSERVED })
}

// MergeDesired replaces in dst all but what the zone writes by what src has. The values are shared with src.
func MergeDesired(dst, src proto.Message) {
	replace(dst, src, func(f field) bool { return f.access != apiv1.Access_ACCESS_OBSERVED })
}

func replace(dst, src proto.Message, which func(field) bool) {
	for _, f := range planOf(dst).fields {
		if which(f) {
			copyField(dst, src, f.desc)
		}
	}
}

// field is what the annotations say of one field.
type field struct {
	desc     protoreflect.FieldDescriptor
	name     string
	access   apiv1.Access
	required bool
}

// isRequired says what a field must hold that holds nothing. Of a number nobody can tell whether 0 was given.
func (f field) isRequired() string {
	rules, _ := proto.GetExtension(f.desc.Options(), validate.E_Field).(*validate.FieldRules)
	if least := rules.GetUint32().GetGte(); least > 0 {
		return fmt.Sprintf("is required, and must be at least %d", least)
	}
	return "is required"
}

type plan struct {
	fields []field
	byName map[string]field
}

// plans caches what was read from descriptors, by full name; it only grows, to the number of message types.
var plans sync.Map

func planOf(m proto.Message) *plan { return planOfDescriptor(m.ProtoReflect().Descriptor()) }

func planOfDescriptor(d protoreflect.MessageDescriptor) *plan {
	if p, ok := plans.Load(d.FullName()); ok {
		return p.(*plan)
	}
	p := &plan{byName: map[string]field{}}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		f := field{desc: fd, name: string(fd.Name()), access: Access(fd)}
		behaviors, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
		f.required = slices.Contains(behaviors, annotations.FieldBehavior_REQUIRED)
		p.fields = append(p.fields, f)
		p.byName[f.name] = f
	}
	actual, _ := plans.LoadOrStore(d.FullName(), p)
	return actual.(*plan)
}

// Access returns who may write a field.
func Access(fd protoreflect.FieldDescriptor) apiv1.Access {
	a, _ := proto.GetExtension(fd.Options(), apiv1.E_Access).(apiv1.Access)
	return a
}
