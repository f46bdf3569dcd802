package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/pkg/gateway"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// describe writes all that one noun has, for people: a field a line, by the names that filters and JSON have.
func (a *app) describe(m proto.Message) error {
	var lines [][2]string
	width := 0
	for _, f := range shown(m.ProtoReflect()) {
		name := string(f.Name())
		width = max(width, len(name))
		for _, line := range a.lines(f, m.ProtoReflect().Get(f)) {
			lines = append(lines, [2]string{name, line})
			name = ""
		}
	}
	for _, l := range lines {
		fmt.Fprintf(a.out, "%-*s  %s\n", width, l[0], l[1])
	}
	return nil
}

// shown are the fields of m that have a value and are for people to see.
func shown(m protoreflect.Message) []protoreflect.FieldDescriptor {
	var out []protoreflect.FieldDescriptor
	for _, f := range fieldsOf(m.Descriptor()) {
		if m.Has(f) && !gateway.Hidden(f) {
			out = append(out, f)
		}
	}
	return out
}

// lines are a field's value: several where it has several.
func (a *app) lines(f protoreflect.FieldDescriptor, v protoreflect.Value) []string {
	if f.IsList() {
		var out []string
		for i := range v.List().Len() {
			out = append(out, a.value(f, v.List().Get(i)))
		}
		return out
	}
	if f.Message() != nil {
		switch m := v.Message().Interface().(type) {
		case *apiv1.Text:
			return strings.Split(printable(inLanguage(m)), "\n")
		case *apiv1.Problem:
			return a.problem(m)
		case *apiv1.Money:
			return []string{catalog.Price(m)}
		case *apiv1.Fit:
			return strings.Split(strings.TrimSpace(printable(fitOf(m))+"\n"+printable(m.GetProblem().GetNext())), "\n")
		}
	}
	if f.Kind() == protoreflect.StringKind {
		var out []string
		for line := range strings.Lines(v.String()) {
			out = append(out, printable(strings.TrimRight(line, "\r\n")))
		}
		return out
	}
	return []string{a.value(f, v)}
}

func (a *app) problem(p *apiv1.Problem) []string {
	out := []string{a.out.paint(red, printable(p.GetTitle()))}
	for _, text := range []string{p.GetDetail(), p.GetNext()} {
		if text != "" {
			out = append(out, printable(text))
		}
	}
	return out
}

// value is one value in one line.
func (a *app) value(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case f.Enum() != nil:
		word := strings.ToLower(string(f.Enum().Values().ByNumber(v.Enum()).Name()))
		return a.out.paint(tint(word), word)
	case f.Message() != nil:
		if ts, ok := v.Message().Interface().(*timestamppb.Timestamp); ok {
			return local(ts)
		}
		return a.inline(v.Message())
	}
	if f.Kind() == protoreflect.BytesKind {
		if b := v.Bytes(); len(b) <= sha256.Size {
			return hex.EncodeToString(b)
		}
		return fmt.Sprintf("%d bytes; -o json has them", len(v.Bytes()))
	}
	return printable(v.String())
}

// inline writes a message in one line: what it is called, then its fields.
func (a *app) inline(m protoreflect.Message) string {
	var parts []string
	for i, f := range shown(m) {
		switch text := strings.Join(a.lines(f, m.Get(f)), " "); {
		case i == 0 && f.Kind() == protoreflect.StringKind && !f.IsList():
			parts = append(parts, text)
		case f.Kind() == protoreflect.BoolKind && !f.IsList():
			parts = append(parts, string(f.Name()))
		default:
			parts = append(parts, string(f.Name())+" "+text)
		}
	}
	return strings.Join(parts, ", ")
}
