package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Bounds of a form and of what is filled in.
const (
	formBytes    = 64 << 10
	mostFields   = 64
	mostText     = 1024 // characters, where a field says nothing
	mostListed   = 64   // items, where a field says nothing
	formAddress  = "form"
	fieldPattern = `^[a-z][a-z0-9_]{0,63}$`
)

var fieldName = regexp.MustCompile(fieldPattern)

// Field is one field of a form.
type Field struct {
	Name, Title, Description string
	// Type is string, integer, boolean, or array: of texts.
	Type     string
	Required bool
	// Default is what a field that is not filled in has; nil for nothing.
	Default any
	// Words are all that can be filled in; empty where that is said otherwise, or not at all.
	Words []string

	narrow  bool           // a pattern, a format or words say what a text may be
	pattern *regexp.Regexp // of the whole text
}

// Form is what a person fills in. It is safe for concurrent use. One that is nil has no fields.
type Form struct {
	schema *jsonschema.Schema
	fields []*Field
}

// keywords that stand in a form, in a field, and in what a list holds.
var (
	rootKeywords  = []string{"$schema", "type", "title", "description", "properties", "required", "additionalProperties"}
	fieldKeywords = map[string][]string{
		"string":  {"enum", "pattern", "format", "minLength", "maxLength"},
		"integer": {"enum", "minimum", "maximum", "multipleOf"},
		"boolean": {},
		"array":   {"items", "minItems", "maxItems", "uniqueItems"},
	}
	anyField = []string{"type", "title", "titles", "description", "default"}
	formats  = []string{"date", "time", "date-time", "email", "hostname", "ipv4", "ipv6", "uuid"}
)

// CompileForm reads the JSON Schema of a form. Nothing is nil. Its errors are sentences about the schema.
func CompileForm(schema string) (*Form, error) {
	if schema == "" {
		return nil, nil
	}
	if len(schema) > formBytes {
		return nil, fmt.Errorf("it has %d bytes, and %d are allowed", len(schema), formBytes)
	}
	root, order, err := decodeObject([]byte(schema), "the form")
	if err != nil {
		return nil, err
	}
	if err := known("the form", order, rootKeywords); err != nil {
		return nil, err
	}
	if s := root["$schema"]; s != nil && string(s) != `"https://json-schema.org/draft/2020-12/schema"` {
		return nil, errors.New(`$schema is "https://json-schema.org/draft/2020-12/schema", or left out`)
	}
	if string(root["type"]) != `"object"` {
		return nil, errors.New(`the form's type is "object"`)
	}
	if a := root["additionalProperties"]; a != nil && string(a) != "false" {
		return nil, errors.New("additionalProperties is false, or left out: what is no field is refused")
	}
	f := &Form{}
	if err := f.read(root); err != nil {
		return nil, err
	}
	// The grammar above is narrower than JSON Schema's, and has no references. The library still reads all of it.
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(nothing{})
	if err := c.AddResource(formAddress, doc); err != nil {
		return nil, err
	}
	if f.schema, err = c.Compile(formAddress); err != nil {
		return nil, fmt.Errorf("it is no JSON Schema: %s", worded(err))
	}
	for _, field := range f.fields {
		if field.Default == nil {
			continue
		}
		one, err := json.Marshal(map[string]any{field.Name: field.Default})
		if err != nil {
			return nil, err
		}
		if _, err := f.check(one, false); err != nil {
			return nil, fmt.Errorf("the default of field %s cannot be filled in", field.Name)
		}
	}
	return f, nil
}

// nothing is all that can be loaded.
type nothing struct{}

func (nothing) Load(url string) (any, error) { return nil, fmt.Errorf("%s is not loaded", url) }

// decodeObject returns the members of a JSON object and their names in order. A member given twice is refused.
func decodeObject(b []byte, what string) (members map[string]json.RawMessage, order []string, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, nil, errors.New(what + " is not a JSON object")
	}
	members = map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, nil, errors.New(what + " is not a JSON object: " + err.Error())
		}
		name := t.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, nil, fmt.Errorf("%s: %s is not JSON: %w", what, name, err)
		}
		if _, twice := members[name]; twice {
			return nil, nil, fmt.Errorf("%s has %s twice", what, name)
		}
		members[name], order = value, append(order, name)
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, errors.New(what + " is not a JSON object: " + err.Error())
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, errors.New("something follows " + what)
	}
	return members, order, nil
}

func known(what string, names, allowed []string) error {
	for _, n := range names {
		if !slices.Contains(allowed, n) {
			return fmt.Errorf("%s has %s, which is not taken here; it may have %s", what, n, strings.Join(allowed, ", "))
		}
	}
	return nil
}

func (f *Form) read(root map[string]json.RawMessage) error {
	var required []string
	if r := root["required"]; r != nil {
		if err := json.Unmarshal(r, &required); err != nil {
			return errors.New("required is a list of names")
		}
	}
	if root["properties"] == nil {
		return errors.New("the form has no properties: its fields")
	}
	properties, order, err := decodeObject(root["properties"], "properties")
	if err != nil {
		return err
	}
	if len(order) == 0 || len(order) > mostFields {
		return fmt.Errorf("the form has %d fields; it may have 1 to %d", len(order), mostFields)
	}
	for _, name := range order {
		if !fieldName.MatchString(name) {
			return fmt.Errorf("a field cannot be called %s: lower-case letters, digits and underscores, a letter first, 64 at most", strconv.Quote(name))
		}
		field, err := readField(name, properties[name])
		if err != nil {
			return err
		}
		field.Required = slices.Contains(required, name)
		f.fields = append(f.fields, field)
	}
	for _, name := range required {
		if _, is := properties[name]; !is {
			return fmt.Errorf("%s is required and is no field", name)
		}
	}
	return nil
}

func readField(name string, raw json.RawMessage) (*Field, error) {
	what := "field " + name
	members, order, err := decodeObject(raw, what)
	if err != nil {
		return nil, err
	}
	field := &Field{Name: name}
	for member, into := range map[string]any{"type": &field.Type, "title": &field.Title, "description": &field.Description} {
		if members[member] != nil && json.Unmarshal(members[member], into) != nil {
			return nil, fmt.Errorf("%s: %s is a text", what, member)
		}
	}
	if members["titles"] != nil {
		var titles struct{ Ko, En *string }
		d := json.NewDecoder(bytes.NewReader(members["titles"]))
		if d.DisallowUnknownFields(); d.Decode(&titles) != nil {
			return nil, fmt.Errorf(`%s: titles is what it is called by language: {"ko": "…", "en": "…"}`, what)
		}
	}
	allowed, ok := fieldKeywords[field.Type]
	if !ok {
		return nil, fmt.Errorf("%s: its type is string, integer, boolean or array; numbers are whole", what)
	}
	if err := known(what, order, slices.Concat(anyField, allowed)); err != nil {
		return nil, err
	}
	if field.Type == "array" {
		if members["items"] == nil {
			return nil, fmt.Errorf("%s: items says what the list holds", what)
		}
		item, err := readField(name+"[]", members["items"])
		if err != nil {
			return nil, err
		}
		if item.Type != "string" {
			return nil, fmt.Errorf("%s is a list of texts, or no list", what)
		}
		field.Words, field.narrow, field.pattern = item.Words, item.narrow, item.pattern
	} else if err := field.texts(what, members); err != nil {
		return nil, err
	}
	if members["default"] != nil {
		field.Default, err = jsonschema.UnmarshalJSON(bytes.NewReader(members["default"]))
	}
	return field, err
}

// texts reads what says which texts or numbers a field takes.
func (field *Field) texts(what string, members map[string]json.RawMessage) error {
	if members["enum"] != nil {
		var words []any
		d := json.NewDecoder(bytes.NewReader(members["enum"]))
		d.UseNumber()
		if err := d.Decode(&words); err != nil || len(words) == 0 {
			return fmt.Errorf("%s: enum is a list of what can be filled in", what)
		}
		for _, w := range words {
			switch w := w.(type) {
			case string:
				field.Words = append(field.Words, w)
			case json.Number:
				field.Words = append(field.Words, w.String())
			default:
				return fmt.Errorf("%s: enum holds texts or whole numbers", what)
			}
		}
		field.narrow = true
	}
	if members["format"] != nil {
		var format string
		if json.Unmarshal(members["format"], &format) != nil || !slices.Contains(formats, format) {
			return fmt.Errorf("%s: its format is one of %s", what, strings.Join(formats, ", "))
		}
		field.narrow = true
	}
	if members["pattern"] != nil {
		var pattern string
		if json.Unmarshal(members["pattern"], &pattern) != nil {
			return fmt.Errorf("%s: pattern is a text", what)
		}
		whole, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if err != nil {
			return fmt.Errorf("%s: its pattern is no regular expression as RE2 reads it: %w", what, err)
		}
		field.pattern, field.narrow = whole, true
	}
	return nil
}

// Fields returns the fields in the order of the form.
func (f *Form) Fields() []*Field {
	if f == nil {
		return nil
	}
	return f.fields
}

func (f *Form) field(name string) *Field {
	for _, field := range f.Fields() {
		if field.Name == name {
			return field
		}
	}
	return nil
}
