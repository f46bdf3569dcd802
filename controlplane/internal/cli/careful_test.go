package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/problem"
)

// typing runs a command line at a terminal at which somebody has typed.
func typing(t *testing.T, line, typed string) result {
	t.Helper()
	person, program := terminal(t)
	if _, err := person.WriteString(typed); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	code := Run(t.Context(), strings.Fields(line), program, &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

// TestWhoDestroysAtATerminalIsAskedFirst, with what goes; a script is not, nor is who says --yes.
func TestWhoDestroysAtATerminalIsAskedFirst(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{"spare", "more", "last", "again", "scripted"} {
		d.must("project create " + name)
	}
	for typed, line := range map[string]string{
		"y\n": "project delete spare", "more\n": "project delete spare", "\n": "project delete spare", "spare\n": "project delete more last", "n\n": "flavor delete s1",
	} {
		r := typing(t, line, typed)
		if r.code != problem.ExitUsage || !strings.Contains(r.err, "Delete ") || !strings.Contains(r.err, "nothing was done") || !strings.Contains(r.err, "--yes") {
			t.Errorf("%s, answered %q: %+v", line, typed, r)
		}
	}
	if got := d.must("project list -o name"); !strings.Contains(got, "spare") || !strings.Contains(got, "more") || !strings.Contains(d.must("flavor list -o name"), "s1") {
		t.Fatalf("what was refused was done: %s", got)
	}
	if r := typing(t, "project delete spare", "spare\n"); r.code != 0 || !strings.Contains(r.err, "Its quotas, crossings and role bindings go with it.") || !strings.Contains(r.err, "Type spare to go on: ") {
		t.Errorf("%+v", r)
	}
	if r := typing(t, "project delete more last", "2\n"); r.code != 0 || !strings.Contains(r.err, "Delete 2 projects (more, last)?") {
		t.Errorf("%+v", r)
	}
	if r := typing(t, "project delete again --yes", ""); r.code != 0 || strings.Contains(r.err, "Type") {
		t.Errorf("%+v", r)
	}
	if r := d.naru("project delete scripted"); r.code != 0 || strings.Contains(r.err, "Type") {
		t.Errorf("a script is asked: %+v", r)
	}
	d.must("flavor create spare --cores 1 --memory-mib 64 --disk-gib 1")
	if r := typing(t, "flavor delete spare", "y\n"); r.code != 0 || !strings.Contains(r.err, "[y/N]") {
		t.Errorf("%+v", r)
	}
	if got := d.must("project list -o name"); strings.Contains(got, "spare") || strings.Contains(got, "more") || strings.Contains(got, "last") || strings.Contains(got, "again") || strings.Contains(got, "scripted") {
		t.Errorf("what was said yes to was not done: %s", got)
	}
}

// TestEveryNounThatCanBeDeletedSaysWhatGoesWithIt.
func TestEveryNounThatCanBeDeletedSaysWhatGoesWithIt(t *testing.T) {
	met := map[string]bool{}
	for _, noun := range tree().Commands() {
		for _, verb := range noun.Commands() {
			if verb.Name() != "delete" {
				continue
			}
			kind := noun.Name()
			if kind == "catalog" {
				kind = "offering"
			}
			if met[kind] = true; losses[kind].what == "" || !asked(verb) {
				t.Errorf("naru %s delete does not say what goes, or does not ask", noun.Name())
			}
		}
	}
	for kind := range losses {
		if !met[kind] {
			t.Errorf("%s cannot be deleted, and it is said what goes with it", kind)
		}
	}
}

func asked(verb *cobra.Command) bool { return verb.Flag("yes") != nil }
