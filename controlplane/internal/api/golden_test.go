package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// unstable is what differs from run to run.
var unstable = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`"7-\d+"`), `"REVISION"`},
	{regexp.MustCompile(`"trace_id":"[0-9a-f]{32}"`), `"trace_id":"TRACE"`},
}

// TestTheShapeOfAnswersIsKept compares answers with testdata, byte for byte but for what differs from run to run.
func TestTheShapeOfAnswersIsKept(t *testing.T) {
	f := newFederation(t, 2)
	c := f.asAdmin()
	for _, step := range []struct{ golden, verb, path, body string }{
		{"vm-create.json", "POST", "/v1/vms", `{"name":"web-1","project":"web","zone":"business","cluster":"kvm","flavor":"s1","image":"tiny","ssh_keys":["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFYI7xZjnFBBQuTOcWfoJNBcB3JBk5Tz1b2fbmTx5qKj kim"],"affinities":[{"group":"front","rule":"APART"}]}`},
		{"vm.json", "GET", "/v1/vms/web-1?project=web", ""},
		{"vm-list.json", "GET", "/v1/vms?project=web", ""},
		{"vm-list-empty.json", "GET", "/v1/vms?project=db", ""},
		{"operation-list.json", "GET", "/v1/operations?filter=" + "kind%3Dvm.create", ""},
		{"zone.json", "GET", "/v1/zones/business", ""},
		{"zone-patch.json", "PATCH", "/v1/zones/business", `{"description":"for work","grade":"SENSITIVE"}`},
		{"cluster.json", "GET", "/v1/clusters/kvm?zone=business", ""},
		{"host.json", "GET", "/v1/hosts/kvm-1?zone=business", ""},
		{"flavor.json", "GET", "/v1/flavors/s1", ""},
		{"image.json", "GET", "/v1/images/tiny", ""},
		{"project.json", "GET", "/v1/projects/web", ""},
		{"server-list.json", "GET", "/v1/servers", ""},
		{"usage-sum.json", "GET", "/v1/usage-records:summarize?project=web&until=2026-01-01T00:00:00Z", ""},
		{"whoami.json", "GET", "/v1/whoami", ""},
		{"no-host-fits.json", "POST", "/v1/vms", `{"name":"web-2","project":"web","zone":"business","cluster":"kvm","flavor":"huge","image":"tiny"}`},
		{"not-found.json", "GET", "/v1/vms/web-9?project=web", ""},
	} {
		t.Run(step.golden, func(t *testing.T) {
			a := c.call(step.verb, step.path, step.body)
			got := a.body
			for _, u := range unstable {
				got = u.what.ReplaceAll(got, []byte(u.by))
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, got, "", "  "); err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			pretty.WriteByte('\n')
			path := filepath.Join("testdata", step.golden)
			if *update {
				if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(pretty.Bytes(), want) {
				t.Errorf("got\n%s\nwant\n%s", pretty.Bytes(), want)
			}
		})
	}
}

// TestEveryAnswerIsAsTheDescriptionSays checks the golden files against the schemas that the server itself serves.
func TestEveryAnswerIsAsTheDescriptionSays(t *testing.T) {
	f := newFederation(t, 1)
	var doc map[string]any
	f.rest(f.tls(), "").call("GET", "/openapi.json", "").json(t, 200, &doc)
	if doc["openapi"] != "3.1.0" {
		t.Fatalf("version %v", doc["openapi"])
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	for golden, schema := range map[string]string{
		"vm.json": "VM", "vm-create.json": "Operation", "vm-list.json": "ListVMsResponse", "zone.json": "Zone", "cluster.json": "Cluster", "host.json": "Host",
		"flavor.json": "Flavor", "image.json": "Image", "project.json": "Project", "server-list.json": "ListServersResponse", "whoami.json": "WhoAmIResponse",
	} {
		data, err := os.ReadFile(filepath.Join("testdata", golden))
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		conforms(t, golden, v, map[string]any{"$ref": "#/components/schemas/" + schema}, schemas)
	}
}

// conforms reports keys that a schema does not have, and values of another type.
func conforms(t *testing.T, where string, v any, schema, schemas map[string]any) {
	t.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		target, ok := schemas[strings.TrimPrefix(ref, "#/components/schemas/")].(map[string]any)
		if !ok {
			t.Errorf("%s: %s leads nowhere", where, ref)
			return
		}
		schema = target
	}
	kind, _ := schema["type"].(string)
	switch v := v.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for k, c := range v {
			p, ok := properties[k].(map[string]any)
			if !ok {
				t.Errorf("%s: the description has no %s", where, k)
				continue
			}
			conforms(t, where+"."+k, c, p, schemas)
		}
	case []any:
		items, _ := schema["items"].(map[string]any)
		if kind != "array" || items == nil {
			t.Errorf("%s: it is an array, and the description says %s", where, kind)
			return
		}
		for _, c := range v {
			conforms(t, where+"[]", c, items, schemas)
		}
	case string:
		if kind != "string" {
			t.Errorf("%s: it is a string, and the description says %v", where, schema)
		}
	case float64:
		if kind != "integer" && kind != "number" {
			t.Errorf("%s: it is a number, and the description says %v", where, schema)
		}
	case bool:
		if kind != "boolean" {
			t.Errorf("%s: it is a boolean, and the description says %v", where, schema)
		}
	}
}
