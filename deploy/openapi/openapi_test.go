package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/gateway"
)

const generated = "../../proto/gen/openapi.yaml"

func document(t *testing.T) object {
	t.Helper()
	data, err := generate(generated)
	if err != nil {
		t.Fatal(err)
	}
	var doc object
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// at walks down a path of keys.
func at(t *testing.T, v any, keys ...string) any {
	t.Helper()
	for i, k := range keys {
		o, ok := v.(object)
		if !ok || o[k] == nil {
			t.Fatalf("there is no %s", strings.Join(keys[:i+1], " > "))
		}
		v = o[k]
	}
	return v
}

func TestTheServedDescriptionIsNotStale(t *testing.T) {
	want, err := generate(generated)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../pkg/gateway/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("pkg/gateway/openapi.json is stale: run 'make generate'")
	}
	if !bytes.Equal(gateway.OpenAPI(), want) {
		t.Fatal("the gateway serves another one")
	}
}

func TestEveryReferenceLeadsSomewhere(t *testing.T) {
	doc := document(t)
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case object:
			if ref, ok := v["$ref"].(string); ok {
				at(t, doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			}
			for _, c := range v {
				visit(c)
			}
		case []any:
			for _, c := range v {
				visit(c)
			}
		}
	}
	visit(doc)
}

func TestOperationsSayWhatTheGatewayAdds(t *testing.T) {
	paths := document(t)["paths"]
	at(t, paths, "/v1/vms", "post", "responses", "202", "headers", "Location")
	at(t, paths, "/v1/vms/{vm}", "get", "responses", "200", "headers", "ETag")
	at(t, paths, "/v1/vms:watch", "get", "responses", "200", "content", "text/event-stream")
	at(t, paths, "/v1/vms", "get", "responses", "200", "headers", "X-Naru-Consistency")
	patch := at(t, paths, "/v1/zones/{zone}", "patch").(object)
	if text, _ := json.Marshal(patch["parameters"]); !strings.Contains(string(text), "IfMatch") || strings.Contains(string(text), ".id") {
		t.Errorf("parameters of a patch: %s", text)
	}
	ids := map[string]bool{}
	for path, item := range paths.(object) {
		for verb, op := range item.(object) {
			at(t, op, "responses", "default", "$ref")
			id := at(t, op, "operationId").(string)
			if ids[id] {
				t.Errorf("%s %s: the operation id %s is used twice", verb, path, id)
			}
			ids[id] = true
		}
	}
	if len(ids) < 60 {
		t.Errorf("only %d operations", len(ids))
	}
}

func TestSchemasSayWhoWritesAndHideWhatIsInternal(t *testing.T) {
	doc := document(t)
	vm := at(t, doc, "components", "schemas", "VM", "properties").(object)
	for _, name := range []string{"force", "generation", "reached"} {
		if vm[name] != nil {
			t.Errorf("VM shows %s", name)
		}
	}
	for _, name := range []string{"id", "state", "host", "size", "created_at"} {
		if at(t, vm, name, "readOnly") != true {
			t.Errorf("%s can be written", name)
		}
	}
	if vm["name"].(object)["readOnly"] != nil || vm["name"].(object)["x-naru-immutable"] != true {
		t.Errorf("name is %v", vm["name"])
	}
	create := at(t, doc, "paths", "/v1/vms", "post", "requestBody", "content", "application/json", "schema", "allOf").([]any)
	if text, _ := json.Marshal(create); !strings.Contains(string(text), `"required":["name","project","zone","flavor","image"]`) {
		t.Errorf("creation asks for %s", text)
	}
	for name := range at(t, doc, "components", "schemas").(object) {
		if strings.Contains(name, "naru.") {
			t.Errorf("the schema %s does not belong in the API", name)
		}
	}
	at(t, doc, "components", "schemas", "ProblemDocument")
}
