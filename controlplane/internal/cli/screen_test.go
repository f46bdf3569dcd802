package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// What others wrote steers no terminal, and is read in the order in which it stands: in lines, and in documents too.
func TestNothingThatOthersWroteSteersTheTerminal(t *testing.T) {
	const title = "a \u202egnp.\u2066b\u2069 \u200e\u200f\u061c\u2028 \x1b[31m \u009b2J \x7f 시험"
	steers := func(s string) bool { return strings.ContainsFunc(s, steersIn) }
	if !steers(title) {
		t.Fatal("the title is harmless")
	}
	if got := printable(title); steers(got) || !strings.Contains(got, "시험") || !strings.Contains(got, "·gnp.") {
		t.Errorf("%q", got)
	}
	m := &apiv1.Request{Name: "r-1", Title: title, Reason: "one\ntwo\tthree"}
	for _, form := range []string{"json", "yaml"} {
		var out bytes.Buffer
		a := &app{out: newScreen(&out), output: form}
		if err := a.message(m); err != nil {
			t.Fatal(err)
		}
		var read struct{ Title, Reason string }
		err := json.Unmarshal(out.Bytes(), &read)
		if form == "yaml" {
			err = yaml.Unmarshal(out.Bytes(), &read)
		}
		if err != nil || steers(out.String()) || read.Title != title || read.Reason != m.GetReason() {
			t.Errorf("%s: %v\n%q\n%s", form, err, read, out.String())
		}
	}
	var out bytes.Buffer
	if err := (&app{out: newScreen(&out), output: "json"}).changed(apiv1.WatchType_PUT, m); err != nil || steers(out.String()) {
		t.Errorf("%v %q", err, out.String())
	}
}
