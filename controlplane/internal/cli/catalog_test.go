package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
)

// example writes a file that a document shows (its first line is "# NAME") and returns its path.
func example(t *testing.T, document, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", document))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```\n# "+name+"\n")
	if !found {
		t.Fatalf("%s shows no %s", document, name)
	}
	body, _, _ := strings.Cut(rest, "```")
	return file(t, name, body)
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The manual's offering, from the first word to the last, as the manual has it.
func TestTheManualsOfferingIsMadePublishedChangedAndRetired(t *testing.T) {
	d := newDesk(t)
	inTheLanguage(t, "ko_KR.UTF-8")
	d.must("flavor create m1 --cores 2 --memory-mib 4096 --disk-gib 20")
	web := example(t, "catalogue.md", "web.yaml")
	d.must("catalog create web --file " + web)
	if got := d.must(`catalog preview web --flavor s1 --quantity 2 --zone business --form '{"service_name":"minwon"}'`); !strings.Contains(got, "82,000 KRW") || !strings.Contains(got, "# minwon") || !strings.Contains(got, "worker_processes 4;") {
		t.Errorf("the preview is\n%s", got)
	}
	if got := d.must("catalog publish web"); !regexp.MustCompile(`web +1 +published +tiny +s1 41,000 KRW, m1 72,000 KRW +business +웹 서버`).MatchString(got) {
		t.Errorf("published:\n%s", got)
	}
	if r := d.naru("catalog publish web"); r.code != problem.ExitConflict || !strings.Contains(r.err, "nothing was written since") {
		t.Errorf("published again: %+v", r)
	}
	// What is shown can be written again.
	shown := file(t, "again.yaml", strings.Replace(d.must("catalog show web -o yaml"), "category: web", "category: portal", 1))
	d.must("catalog update web --file " + shown)
	if got := d.must("catalog list"); !strings.Contains(got, "1 (2 is being written)") {
		t.Errorf("listed:\n%s", got)
	}
	if got := d.must("catalog show web --version 2"); !strings.Contains(got, "portal") {
		t.Errorf("version 2:\n%s", got)
	}
	d.must("catalog publish web")
	if got := strings.Fields(d.must("catalog versions web -o json")); strings.Count(strings.Join(got, " "), `"version"`) != 2 {
		t.Errorf("versions: %v", got)
	}
	if got := d.must("catalog retire web"); !strings.Contains(got, "retired") {
		t.Errorf("retired:\n%s", got)
	}
	if r := d.naru("catalog delete web"); r.code != problem.ExitConflict || !strings.Contains(r.err, "naru catalog retire web") {
		t.Errorf("deleted: %+v", r)
	}
	if got := d.must("catalog list --filter state=retired -o name"); got != "web\n" {
		t.Errorf("retired ones: %q", got)
	}
}

func TestTheManualsPolicyDecidesOnItsExampleAsTheManualSays(t *testing.T) {
	d := newDesk(t)
	d.must("calendar create office --file " + example(t, "policies.md", "office.yaml"))
	policy, on := example(t, "policies.md", "two-steps.yaml"), example(t, "policies.md", "example.yaml")
	d.must("approval-policy create two-steps --file " + policy)
	for _, line := range []string{"approval-policy test two-steps --example " + on, "approval-policy test --policy " + policy + " --example " + on} {
		r := d.naru(line)
		for _, want := range []string{"Its condition holds", "people decide: what automatic approval asks for does not hold", "kim: asks for it", "lee"} {
			if r.code != 0 || !strings.Contains(r.out+r.err, want) {
				t.Errorf("%q is not said: %+v", want, r)
			}
		}
	}
	if got := d.must("approval-policy test two-steps -o json --example " + on); !strings.Contains(got, `"due_at": "2026-12-28T08:00:00Z"`) || strings.Count(got, `"sequence": 2`) != 2 {
		t.Errorf("the stages are\n%s", got)
	}
	d.must("approval-policy update two-steps --file " + file(t, "off.yaml", "enabled: false\n"))
	if got := d.must("approval-policy versions two-steps"); !strings.Contains(got, "true") || !strings.Contains(got, "false") {
		t.Errorf("versions:\n%s", got)
	}
	if got := d.must("calendar list"); !strings.Contains(got, "Asia/Seoul") {
		t.Errorf("calendars:\n%s", got)
	}
	if r := d.naru("calendar delete office"); r.code != problem.ExitConflict || !strings.Contains(r.err, "1 approval policy (two-steps)") {
		t.Errorf("its calendar: %+v", r)
	}
}

func TestAFileThatIsWrongSaysWhere(t *testing.T) {
	d := newDesk(t)
	for text, want := range map[string]string{
		"nonsense: 1":                       "line 1: there is no field nonsense",
		"stages:\n  - rul: any":             "line 2: there is no field stages[0].rul",
		"stages:\n  - rule: sometimes":      "line 2: stages[0].rule is any, all, count or percent",
		"priority: high":                    "line 1: priority is a whole number",
		"enabled: perhaps":                  "line 1: enabled is true or false",
		"stages: {}":                        "line 1: stages is a list",
		"title: x":                          "line 1: title is a mapping of fields",
		"condition: [a]":                    "line 1: condition is one value",
		"a: b: c":                           "it is not YAML",
		"[]":                                "it is not a mapping of fields",
		"enabled: true\n---\nenabled: true": "more than one document",
		"enabled: true\nenabled: false":     "enabled is given twice",
		"condition: request.kind == CRAETE\nstages:\n  - {name: a, rule: any, eligible: {condition: 'true'}}": "column 17: undeclared reference to 'CRAETE'",
	} {
		if r := d.naru("approval-policy create p --file " + file(t, "p.yaml", text)); r.code != problem.ExitUsage || !strings.Contains(r.err, want) {
			t.Errorf("%q is not said of %q: %+v", want, text, r)
		}
	}
	if r := d.naru("approval-policy create p"); r.code != problem.ExitUsage || !strings.Contains(r.err, "--file") {
		t.Errorf("without a file: %+v", r)
	}
}
