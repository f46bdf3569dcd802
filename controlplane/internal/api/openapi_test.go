package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/naru-project/naru/pkg/gateway"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// description is the OpenAPI document that the API serves.
type description struct {
	doc map[string]any
}

type object = map[string]any

func (r rest) description(t *testing.T) description {
	t.Helper()
	var d description
	r.call("GET", "/openapi.json", "").json(t, 200, &d.doc)
	return d
}

// deref follows a reference within the document.
func (d description) deref(v any) object {
	o, _ := v.(object)
	for {
		ref, ok := o["$ref"].(string)
		if !ok {
			return o
		}
		var at any = d.doc
		for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			at = at.(object)[part]
		}
		o, _ = at.(object)
	}
}

// operation returns what the document says of a path and a verb; the longest template that fits it.
func (d description) operation(verb, path string) object {
	path, _, _ = strings.Cut(path, "?")
	var best string
	for template := range d.doc["paths"].(object) {
		pattern := regexp.MustCompile(`\\\{[a-z_.]+\\\}`).ReplaceAllString(regexp.QuoteMeta(template), `[^/:]+`)
		if regexp.MustCompile("^"+pattern+"$").MatchString(path) && len(template) > len(best) {
			best = template
		}
	}
	o, _ := d.doc["paths"].(object)[best].(object)[strings.ToLower(verb)].(object)
	return o
}

// wrong says where a value is not as a schema has it. It knows the words that our schemas use, and takes any other for a
// fault, so that none is passed over.
func (d description) wrong(schema any, v any, at string) []string {
	var out []string
	fault := func(format string, a ...any) { out = append(out, at+": "+fmt.Sprintf(format, a...)) }
	s, _ := schema.(object)
	if ref := s["$ref"]; ref != nil {
		out = append(out, d.wrong(d.deref(object{"$ref": ref}), v, at)...)
	}
	for word, want := range s {
		switch word {
		case "$ref", "description", "readOnly", "x-naru-immutable", "properties":
		case "type":
			if got := kindOf(v); got != want && !(got == "integer" && want == "number") {
				fault("it is a %s, and %s was promised", got, want)
			}
		case "additionalProperties":
			for name, inner := range properties(v) {
				if _, known := properties(s["properties"])[name]; !known && want == false {
					fault("%s is not promised: %v", name, inner)
				}
			}
		case "required":
			for _, name := range want.([]any) {
				if _, has := properties(v)[name.(string)]; !has {
					fault("%s is missing", name)
				}
			}
		case "items":
			items, _ := v.([]any)
			for i, item := range items {
				out = append(out, d.wrong(want, item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		case "enum":
			if !slices.Contains(want.([]any), v) {
				fault("%v is none of %v", v, want)
			}
		case "allOf":
			for _, part := range want.([]any) {
				out = append(out, d.wrong(part, v, at)...)
			}
		case "not":
			if len(d.wrong(want, v, at)) == 0 {
				fault("%v is what it may not be: %v", v, want)
			}
		case "pattern":
			if text, _ := v.(string); text != "" && !regexp.MustCompile(want.(string)).MatchString(text) {
				fault("%q does not match %s", text, want)
			}
		case "maxLength":
			if text, _ := v.(string); float64(len([]rune(text))) > want.(float64) {
				fault("it has more than %v characters", want)
			}
		case "maxItems":
			if items, _ := v.([]any); float64(len(items)) > want.(float64) {
				fault("it has more than %v items", want)
			}
		case "minimum", "maximum", "minLength": // rules for what a client sends; an answer may have the zero value
		case "format":
			if text, _ := v.(string); want == "date-time" {
				if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
					fault("%v", err)
				}
			}
		default:
			fault("the schema has the word %s, which this test does not know", word)
		}
	}
	for name, inner := range properties(s["properties"]) {
		if value, has := properties(v)[name]; has {
			out = append(out, d.wrong(inner, value, at+"."+name)...)
		}
	}
	return out
}

func properties(v any) object { o, _ := v.(object); return o }

func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case object:
		return "object"
	case []any:
		return "array"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	}
	return "null"
}

// check holds one answer against the document.
func (d description) check(t *testing.T, verb, path string, a answer) {
	t.Helper()
	operation := d.operation(verb, path)
	responses := properties(operation["responses"])
	response := d.deref(responses[fmt.Sprint(a.StatusCode)])
	if response == nil && a.StatusCode >= 400 {
		response = d.deref(responses["default"])
	}
	if response == nil {
		t.Errorf("%s %s: %d is not promised: %s", verb, path, a.StatusCode, a.body)
		return
	}
	kind := a.Header.Get("Content-Type")
	content, ok := properties(response["content"])[kind].(object)
	if !ok {
		t.Errorf("%s %s: %d comes as %s, which is not promised", verb, path, a.StatusCode, kind)
		return
	}
	for header := range properties(response["headers"]) {
		if a.Header.Get(header) == "" && header != gateway.ConsistencyHeader { // which only what is less than all has
			t.Errorf("%s %s: %d has no %s", verb, path, a.StatusCode, header)
		}
	}
	for _, header := range []string{"ETag", "Location"} {
		if _, promised := properties(response["headers"])[header]; !promised && a.Header.Get(header) != "" {
			t.Errorf("%s %s: %d has a %s that is not promised", verb, path, a.StatusCode, header)
		}
	}
	var body any
	if err := json.Unmarshal(a.body, &body); err != nil {
		t.Errorf("%s %s: %v", verb, path, err)
		return
	}
	for _, w := range d.wrong(content["schema"], body, "the body") {
		t.Errorf("%s %s: %d: %s", verb, path, a.StatusCode, w)
	}
}

func TestAnswersAreWhatTheServedDescriptionPromises(t *testing.T) {
	f := newFederation(t, 2)
	c := f.asAdmin()
	d := c.description(t)
	user := f.rest(f.tls(), f.token("ann", "web", ""))
	stranger := f.rest(f.tls(), "")
	for _, step := range []struct {
		as         rest
		verb, path string
		body       string
		headers    []string
		status     int
	}{
		{c, "GET", "/v1/whoami", "", nil, 200},
		{c, "POST", "/v1/vms", `{"name":"web-1","project":"web","zone":"business","cluster":"kvm","flavor":"s1","image":"tiny"}`, nil, 202},
		{c, "GET", "/v1/vms", "", nil, 200},
		{c, "GET", "/v1/vms/web-1?project=web", "", nil, 200},
		{c, "POST", "/v1/vms/web-1:stop", `{"project":"web"}`, nil, 202},
		{c, "GET", "/v1/vms:top", "", nil, 200},
		{c, "GET", "/v1/zones", "", nil, 200},
		{c, "GET", "/v1/zones/business", "", nil, 200},
		{c, "PATCH", "/v1/zones/business", `{"description":"for work"}`, nil, 200},
		{c, "POST", "/v1/zones", `{"name":"lab","kind":"lab","grade":"OPEN"}`, nil, 202},
		{c, "POST", "/v1/zones/lab:createJoinToken", "{}", nil, 200},
		{c, "GET", "/v1/zones:joinRequests", "", nil, 200},
		{c, "DELETE", "/v1/zones/lab", "", nil, 202},
		{c, "GET", "/v1/clusters", "", nil, 200},
		{c, "GET", "/v1/clusters/kvm?zone=business", "", nil, 200},
		{c, "GET", "/v1/hosts", "", nil, 200},
		{c, "GET", "/v1/hosts/kvm-1?zone=business", "", nil, 200},
		{c, "GET", "/v1/hosts:top", "", nil, 200},
		{c, "GET", "/v1/flavors", "", nil, 200},
		{c, "GET", "/v1/flavors/s1", "", nil, 200},
		{c, "POST", "/v1/flavors", `{"name":"s9","cores":1,"memory_mib":64,"disk_gib":1}`, nil, 202},
		{c, "GET", "/v1/images", "", nil, 200},
		{c, "GET", "/v1/images/tiny", "", nil, 200},
		{c, "GET", "/v1/projects", "", nil, 200},
		{c, "GET", "/v1/projects/web", "", nil, 200},
		{c, "POST", "/v1/brokers", `{"name":"b","hub_address":"10.0.0.1:1","fingerprint":"SHA256:` + strings.Repeat("a", 43) + `"}`, nil, 202},
		{c, "GET", "/v1/brokers", "", nil, 200},
		{c, "GET", "/v1/brokers/b", "", nil, 200},
		{c, "GET", "/v1/operations", "", nil, 200},
		{c, "GET", "/v1/events", "", nil, 200},
		{c, "GET", "/v1/servers", "", nil, 200},
		{c, "GET", "/v1/servers/controlplane-1", "", nil, 200},
		{c, "POST", "/v1/access-tokens", `{"name":"bob","project":"web","expires_at":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`, nil, 200},
		{c, "GET", "/v1/access-tokens", "", nil, 200},
		{c, "GET", "/v1/access-tokens/bob", "", nil, 200},
		{user, "GET", "/v1/vms", "", nil, 200},
		// problems
		{stranger, "GET", "/v1/vms", "", nil, 401},
		{user, "POST", "/v1/flavors", `{"name":"s8","cores":1,"memory_mib":64,"disk_gib":1}`, nil, 403},
		{c, "GET", "/v1/vms/none?project=web", "", nil, 404},
		{c, "GET", "/v1/vms?filter=colour%3Dred", "", nil, 400},
		{c, "GET", "/v1/vms?colour=red", "", nil, 400},
		{c, "POST", "/v1/vms", `{"name":"web-1"`, nil, 400},
		{c, "POST", "/v1/vms", `{"name":"web-1","project":"web","zone":"business","cluster":"kvm","flavor":"s1","image":"tiny"}`, nil, 409},
		{c, "POST", "/v1/vms", `{"name":"web-2","project":"web","zone":"business","cluster":"kvm","flavor":"huge","image":"tiny"}`, nil, 409},
		{c, "PATCH", "/v1/zones/business", `{"description":"x"}`, []string{"If-Match", `"7-1"`}, 412},
		{c, "DELETE", "/v1/flavors/s9", "", []string{"If-Match", `"7-1"`}, 412},
		{c, "DELETE", "/v1/vms/web-1?project=web", "", []string{"If-Match", `"7-1"`}, 412},
		{c, "DELETE", "/v1/servers/controlplane-1", "", []string{"If-Match", `"7-999"`}, 412},
		{c, "POST", "/v1/projects", `{"name":"p1"}`, []string{"Idempotency-Key", "one"}, 202},
		{c, "POST", "/v1/projects", `{"name":"p2"}`, []string{"Idempotency-Key", "one"}, 422},
		{c, "GET", "/v1/projects:watch?after=7-999999", "", nil, 410},
	} {
		a := step.as.call(step.verb, step.path, step.body, step.headers...)
		if a.StatusCode != step.status {
			t.Errorf("%s %s: %d, want %d: %s", step.verb, step.path, a.StatusCode, step.status, a.body)
			continue
		}
		d.check(t, step.verb, step.path, a)
	}
}

func TestEventStreamsAreWhatTheServedDescriptionPromises(t *testing.T) {
	f := newFederation(t, 1)
	c := f.asAdmin()
	d := c.description(t)
	own := f.rest(f.tls(), f.tokenOf(f.User("ci", apiv1.User_SERVICE))) // what is a user's own is told to a user
	streams := 0
	for path, verbs := range d.doc["paths"].(object) {
		if !strings.HasSuffix(path, ":watch") {
			continue
		}
		streams++
		promised := d.deref(properties(verbs.(object)["get"].(object)["responses"])["200"])
		schema := properties(promised["content"])["text/event-stream"].(object)["schema"]
		reader := c
		if path == "/v1/notifications:watch" {
			reader = own
		}
		e := reader.watch(t, path)
		first := e.next()
		if first.kind != "bookmark" || first.id == "" {
			t.Errorf("%s begins with %+v", path, first)
		}
		second := e.next() // what is there, or the bookmark behind nothing
		if second.kind != "put" && second.kind != "bookmark" {
			t.Errorf("%s goes on with %+v", path, second)
		}
		for _, got := range []event{first, second} {
			var body any
			if err := json.Unmarshal([]byte(got.data), &body); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			for _, w := range d.wrong(schema, body, "the event") {
				t.Errorf("%s: %s", path, w)
			}
		}
		e.close()
	}
	if streams < 10 {
		t.Fatalf("only %d streams are described", streams)
	}
}

func TestTheDescriptionHasEveryRouteAndNoOther(t *testing.T) {
	f := newFederation(t, 1)
	d := f.asAdmin().description(t)
	described := map[string]string{}
	for path, verbs := range d.doc["paths"].(object) {
		for verb, operation := range verbs.(object) {
			described[strings.ToUpper(verb)+" "+path] = operation.(object)["operationId"].(string)
		}
	}
	routes := map[string]string{}
	field := regexp.MustCompile(`\{([a-z_]+)(\.[a-z_]+)?\}`)
	protoregistry.GlobalFiles.RangeFilesByPackage(apiv1.File_naru_api_v1_vm_proto.Package(), func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				rule, _ := proto.GetExtension(methods.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				for verb, path := range map[string]string{"GET": rule.GetGet(), "POST": rule.GetPost(), "PATCH": rule.GetPatch(), "DELETE": rule.GetDelete(), "PUT": rule.GetPut()} {
					if path != "" {
						routes[verb+" "+field.ReplaceAllString(path, "{$1}")] = string(methods.Get(j).Name())
					}
				}
			}
		}
		return true
	})
	if !maps.Equal(described, routes) {
		for route, method := range routes {
			if described[route] != method {
				t.Errorf("%s is %s, and the description has %q", route, method, described[route])
			}
		}
		for route := range described {
			if routes[route] == "" {
				t.Errorf("%s is described, and there is no such route", route)
			}
		}
	}
	if len(routes) < 50 {
		t.Fatalf("only %d routes were found", len(routes))
	}
}

// reached are the components that what v says leads to, as they are referred to.
func (d description) reached(v any, into map[string]bool) {
	switch v := v.(type) {
	case object:
		if ref, ok := v["$ref"].(string); ok && !into[ref] {
			into[ref] = true
			d.reached(d.deref(v), into)
		}
		for _, inner := range v {
			d.reached(inner, into)
		}
	case []any:
		for _, inner := range v {
			d.reached(inner, into)
		}
	}
}

func TestTheDescriptionListsWhatThePathsLeadToAndNothingOfOtherPackages(t *testing.T) {
	f := newFederation(t, 1)
	d := f.asAdmin().description(t)
	reached := map[string]bool{}
	d.reached(d.doc["paths"], reached)
	listed := 0
	for kind, components := range d.doc["components"].(object) {
		for name := range components.(object) {
			if listed++; kind != "securitySchemes" && !reached["#/components/"+kind+"/"+name] { // which security refers to by name
				t.Errorf("no path leads to %s %s", kind, name)
			}
			if kind != "schemas" || name == "ProblemDocument" { // which is of RFC 9457, and of no package
				continue
			}
			_, ours := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("naru.api.v1." + name))
			_, common := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("google.protobuf." + name))
			if ours != nil && common != nil {
				t.Errorf("the schema %s is of another package than the API's", name)
			}
		}
	}
	if listed < 200 {
		t.Fatalf("only %d components are listed", listed)
	}
	tags := map[string]bool{}
	for _, verbs := range d.doc["paths"].(object) {
		for _, operation := range verbs.(object) {
			for _, tag := range operation.(object)["tags"].([]any) {
				tags[tag.(string)] = true
			}
		}
	}
	for _, tag := range d.doc["tags"].([]any) {
		name := tag.(object)["name"].(string)
		if !tags[name] {
			t.Errorf("%s is listed, and none of its methods has a path", name)
		}
		delete(tags, name)
	}
	for name := range tags {
		t.Errorf("%s has paths, and is not listed", name)
	}
}

func TestTheCheckOfAnswersFindsWhatIsWrong(t *testing.T) {
	d := description{object{}}
	schema := object{"type": "object", "additionalProperties": false, "required": []any{"name"}, "properties": object{
		"name": object{"type": "string", "pattern": "^[a-z]+$"}, "kind": object{"enum": []any{"A"}}, "list": object{"type": "array", "maxItems": 1.0, "items": object{"type": "integer"}},
	}}
	for text, faults := range map[string]int{
		`{"name":"a","kind":"A","list":[1]}`: 0, `{}`: 1, `{"name":1}`: 1, `{"name":"A"}`: 1, `{"name":"a","other":1}`: 1,
		`{"name":"a","kind":"B"}`: 1, `{"name":"a","list":[1,"x"]}`: 2, `[]`: 2,
	} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if got := d.wrong(schema, v, "it"); len(got) != faults {
			t.Errorf("%s: %q", text, got)
		}
	}
	if got := d.wrong(object{"oneOf": []any{}}, "x", "it"); len(got) != 1 {
		t.Errorf("an unknown word is passed over: %q", got)
	}
}
