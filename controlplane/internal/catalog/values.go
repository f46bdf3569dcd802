package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/naru-project/naru/pkg/problem"
)

// Values are what was filled in, by field, with the defaults of what was not: texts, whole numbers (int64), yes or no (bool),
// and lists of texts ([]string).
type Values map[string]any

// Check reads what was filled in, a JSON object, or nothing. The error is a problem INVALID that names each field.
func (f *Form) Check(filled string) (Values, error) {
	if filled == "" {
		filled = "{}"
	}
	if len(filled) > formBytes {
		return nil, problem.Newf(problem.TooLarge, "Fill in less.", "what was filled in has %d bytes, and %d are allowed", len(filled), formBytes)
	}
	return f.check([]byte(filled), true)
}

// check is Check, of a whole form or of some of its fields.
func (f *Form) check(filled []byte, whole bool) (Values, error) {
	e := problem.New(problem.Invalid, "", "Correct the fields named and send it again.")
	members, order, err := decodeObject(filled, "what was filled in")
	if err != nil {
		return nil, problem.New(problem.Invalid, err.Error(), "Send a JSON object: {\"service_name\": \"shop\"}.").With("form", "is not a JSON object")
	}
	values := Values{}
	for _, name := range order {
		field := f.field(name)
		if field == nil {
			e.With("form."+shortened(name), "is no field of this form")
			continue
		}
		v, said := field.value(members[name])
		if said != "" {
			e.With("form."+name, said)
			continue
		}
		values[name] = v
	}
	for _, field := range f.Fields() {
		_, given := values[field.Name]
		_, sent := members[field.Name]
		if !sent && !given && whole {
			switch {
			case field.Default != nil:
				raw, err := json.Marshal(field.Default)
				if err != nil {
					return nil, err
				}
				values[field.Name], _ = field.value(raw)
			case field.Required:
				e.With("form."+field.Name, "is required")
			}
		}
	}
	if f != nil {
		f.bySchema(values, whole, e)
	}
	if len(e.Problem.GetErrors()) > 0 {
		var said []string
		for _, p := range e.Problem.GetErrors() {
			said = append(said, p.GetField()+" "+p.GetDetail())
		}
		e.Problem.Detail = strings.Join(said, "; ")
		return nil, e
	}
	return values, nil
}

// bySchema checks by the form's JSON Schema what could be read of the values: what is wrong is told at once, with what could not.
func (f *Form) bySchema(values Values, whole bool, e *problem.Error) {
	raw, err := json.Marshal(values)
	if err == nil {
		var doc any
		if doc, err = jsonschema.UnmarshalJSON(bytes.NewReader(raw)); err == nil {
			err = f.schema.Validate(doc)
		}
	}
	var invalid *jsonschema.ValidationError
	switch {
	case err == nil:
	case !errors.As(err, &invalid):
		e.With("form", "cannot be checked")
	default:
		said := len(e.Problem.GetErrors()) > 0 // what is missing, or cannot be read
		for _, leaf := range leaves(invalid) {
			if len(leaf.InstanceLocation) > 0 {
				e.With("form."+strings.Join(leaf.InstanceLocation, "."), leaf.ErrorKind.LocalizedString(english))
			} else if whole && !said {
				e.With("form", leaf.ErrorKind.LocalizedString(english))
			}
		}
	}
}

var english = message.NewPrinter(language.English)

func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var out []*jsonschema.ValidationError
	for _, c := range e.Causes {
		out = append(out, leaves(c)...)
	}
	return out
}

// worded says what is wrong with a schema, without the address that it has here.
func worded(err error) string {
	var se *jsonschema.SchemaValidationError
	var invalid *jsonschema.ValidationError
	if errors.As(err, &se) && errors.As(se.Err, &invalid) {
		var said []string
		for _, leaf := range leaves(invalid) {
			said = append(said, "/"+strings.Join(leaf.InstanceLocation, "/")+" "+leaf.ErrorKind.LocalizedString(english))
		}
		return strings.Join(said, "; ")
	}
	return err.Error()
}

// value reads what was filled into a field, or says what it takes.
func (field *Field) value(raw json.RawMessage) (any, string) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, "is not JSON"
	}
	switch field.Type {
	case "boolean":
		if b, ok := v.(bool); ok {
			return b, ""
		}
		return nil, "is true or false"
	case "integer":
		n, ok := v.(json.Number)
		if whole, err := strconv.ParseInt(n.String(), 10, 64); ok && err == nil {
			return whole, ""
		}
		return nil, "is a whole number"
	case "array":
		items, ok := v.([]any)
		if !ok {
			return nil, `is a list of texts: ["a", "b"]`
		}
		if len(items) > mostListed {
			return nil, fmt.Sprintf("holds %d texts at most", mostListed)
		}
		texts := []string{}
		for _, item := range items {
			text, said := field.text(item)
			if said != "" {
				return nil, "holds something that " + said
			}
			texts = append(texts, text)
		}
		return texts, ""
	}
	return field.text(v)
}

// text reads a text. None holds what is no letter, mark, digit, sign or space: a line break begins a new line of whatever
// file the text is put into.
func (field *Field) text(v any) (string, string) {
	s, ok := v.(string)
	switch {
	case !ok:
		return "", "is a text"
	case utf8.RuneCountInString(s) > mostText:
		return "", fmt.Sprintf("has %d characters at most", mostText)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", "holds a line break or another character that cannot be seen"
	case field.pattern != nil && !field.pattern.MatchString(s):
		return "", "does not have the form that is asked for: " + strings.TrimSuffix(strings.TrimPrefix(field.pattern.String(), `\A(?:`), `)\z`)
	}
	return s, ""
}

// Text returns what stands for a field in software.
func (v Values) Text(name string) string {
	switch v := v[name].(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	case []string:
		return strings.Join(v, " ")
	}
	return ""
}

func shortened(s string) string {
	if r := []rune(strconv.QuoteToASCII(s)); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return strings.Trim(strconv.QuoteToASCII(s), `"`)
}
