package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"fmt"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestEachKindOfRefusalHasItsExitCode(t *testing.T) {
	d := newDesk(t)
	d.must("flavor create s2 --memory-mib 2048")
	for _, c := range []struct {
		line string
		code int
		says []string
	}{
		{"flavor create s2 --memory-mib 64", problem.ExitConflict, []string{"The name is taken", "named s2", "NAME: is taken", "Choose another name"}},
		{"flavor create S2 --memory-mib 1", problem.ExitUsage, []string{"The request is not valid", "NAME: "}},
		{"vm show none --project web", problem.ExitNotFound, []string{"there is no VM none", "naru vm list"}},
		{"vm list --filter color=red", problem.ExitUsage, []string{"there is no column \"color\"; there are id, name"}},
		{"vm create v --project web --image tiny --flavor huge --zone business --cluster kvm", problem.ExitRefused, []string{"No host fits this VM", "2 hosts looked at", "--cluster: cluster kvm has no host", "Choose a smaller flavor"}},
		{"flavor update s2 --description x --etag 7-1", problem.ExitConflict, []string{"It was changed meanwhile", "7-1", "Read it again"}},
		{"flavor delete s2 --etag 7-1", problem.ExitConflict, []string{"7-1"}},
		{"flavor create s9 --memory-mib 1 --context web", problem.ExitNotAllowed, []string{"Not allowed"}},
		{"operation wait none", problem.ExitNotFound, []string{"naru operation list"}},
		{"vm list --timeout 1ns", problem.ExitTimeout, []string{"did not answer in time", "--timeout"}},
	} {
		r := d.naru(c.line)
		if r.code != c.code || r.out != "" {
			t.Errorf("naru %s: exit %d, %q%s", c.line, r.code, r.out, r.err)
		}
		for _, words := range c.says {
			if !strings.Contains(r.err, words) {
				t.Errorf("naru %s does not say %q:\n%s", c.line, words, r.err)
			}
		}
	}
}

func TestAnErrorSaysOnceWhatIsWrong(t *testing.T) {
	d := newDesk(t)
	for line, once := range map[string]string{
		"vm list --filter color=red": "--filter: there is no column",
		"vm list --order-by color":   "--order-by: there is no column",
	} {
		if r := d.naru(line); strings.Count(r.err, "there is no column") != 1 || !strings.Contains(r.err, once) {
			t.Errorf("naru %s:\n%s", line, r.err)
		}
	}
}

func TestAHostThatWasDeclaredLostIsListedAsLostUntilItIsFound(t *testing.T) {
	d := newDesk(t)
	if got := d.must("host lost kvm-1 --zone business --reason burnt"); !strings.Contains(got, " lost ") {
		t.Errorf("after lost:\n%s", got)
	}
	if got := d.must("host list --zone business --filter name=kvm-1"); !strings.Contains(got, " lost ") {
		t.Errorf("listed:\n%s", got)
	}
	if got := d.must("host found kvm-1 --zone business --reason repaired"); strings.Contains(got, " lost ") || !strings.Contains(got, " enabled ") {
		t.Errorf("after found:\n%s", got)
	}
}

func TestAListOfClustersSaysHowCurrentItIs(t *testing.T) {
	d := newDesk(t)
	zone := d.Zone("business").GetId()
	for connected, fresh := range map[bool]string{true: "live", false: "stale"} {
		d.Connect(zone, true)
		d.Connect(zone, connected)
		got := d.must("cluster list --zone business")
		if !strings.Contains(got, " FRESH ") || !strings.Contains(got, " "+fresh+" ") || d.must("cluster list --filter freshness="+fresh+" -o name") != "kvm\n" {
			t.Errorf("the zone is connected: %t\n%s", connected, got)
		}
	}
}

func TestAListIsReadPageByPageUntilTheLimit(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{"a1", "a2", "a3"} {
		d.must("project create " + name)
	}
	if got := d.must("project list --filter name~a --order-by 'name desc' --limit 2 -o name"); got != "a3\na2\n" {
		t.Fatalf("%q", got)
	}
	if got := d.must("project list --filter name~a -o name"); got != "a1\na2\na3\n" {
		t.Fatalf("%q", got)
	}
}

func TestOfWhatHasHappenedTheNewestIsShownFirstAndThatThereIsMoreIsSaid(t *testing.T) {
	d := newDesk(t)
	for i := range newest + 1 {
		d.Do(&commandv1.Command{Body: &commandv1.Command_RecordEvent{RecordEvent: &commandv1.RecordEvent{
			Event: &apiv1.Event{Severity: apiv1.Event_INFO, Type: "test.told", Message: fmt.Sprintf("number %d", i)},
		}}})
	}
	told := func(r result) []string { return strings.Split(strings.TrimSpace(r.out), "\n")[1:] }
	r := d.naru("event list --filter type=test.told")
	if rows := told(r); len(rows) != newest || !strings.Contains(rows[0], fmt.Sprintf("number %d", newest)) || !strings.Contains(r.err, "--limit 0 shows all") {
		t.Errorf("%d rows, the first %q, and %q", len(rows), rows[0], r.err)
	}
	if r := d.naru("event list --filter type=test.told --limit 0"); len(told(r)) != newest+1 || r.err != "" {
		t.Errorf("%d rows of all, and %q", len(told(r)), r.err)
	}
	if r := d.naru("event list --filter type=test.told --limit 2"); len(told(r)) != 2 || r.err != "" {
		t.Errorf("%d rows of two, and %q", len(told(r)), r.err)
	}
	first, second := d.createVM("web-1"), d.createVM("web-2")
	if got := d.must("operation list --filter kind=vm.create -o name"); got != second+"\n"+first+"\n" {
		t.Errorf("%s came after %s, and the list is %q", second, first, got)
	}
	f := d.follow("event list --watch --filter type=test.told")
	f.until(t, fmt.Sprintf("number %d", newest))
	f.stop()
	<-f.ended
}

func TestUpdateAndBackupDoWhatTheManualSays(t *testing.T) {
	d := newDesk(t)
	d.createVM("web-1")
	d.must("vm update web-1 --project web --description 'the shop'")
	if got := d.must("vm show web-1 --project web -o json"); !strings.Contains(got, `"the shop"`) {
		t.Errorf("%s", got)
	}
	d.Backup = []byte("all that is kept")
	path := filepath.Join(t.TempDir(), "federation.backup")
	d.must("server backup " + path)
	if got, err := os.ReadFile(path); err != nil || string(got) != "all that is kept" {
		t.Errorf("%q, %v", got, err)
	}
	if got := d.must("event list --filter type=federation.backup -o json"); !strings.Contains(got, "a backup holds everything up to revision") {
		t.Errorf("%s", got)
	}
}

func TestWhereThereIsNothingPeopleAreToldAndScriptsGetAnEmptyList(t *testing.T) {
	d := newDesk(t)
	if r := d.naru("vm list"); r.code != 0 || r.out != "" || !strings.Contains(r.err, "no such VMs") {
		t.Fatalf("%+v", r)
	}
	if r := d.naru("vm list -o json"); r.out != "[]\n" || r.err != "" {
		t.Fatalf("%+v", r)
	}
	if r := d.naru("vm list -o name"); r.out != "" {
		t.Fatalf("%+v", r)
	}
}

func TestUpdateChangesWhatIsGivenAndNothingElse(t *testing.T) {
	d := newDesk(t)
	d.must("host update kvm-1 --zone business --memory-mib 4096 --cores 4")
	d.must("host update kvm-1 --zone business --cores 2 --endpoint sim://other")
	var host struct {
		Endpoint string
		Capacity struct {
			Cores     int
			MemoryMib int `json:"memory_mib"`
		}
		Revision string
	}
	if err := json.Unmarshal([]byte(d.must("host show kvm-1 --zone business -o json")), &host); err != nil {
		t.Fatal(err)
	}
	if host.Endpoint != "sim://other" || host.Capacity.Cores != 2 || host.Capacity.MemoryMib != 4096 {
		t.Fatalf("%+v", host)
	}
	d.must("host update kvm-1 --zone business --endpoint sim://third --etag " + host.Revision)
	if r := d.naru("host update kvm-1 --zone business --endpoint sim://fourth --etag " + host.Revision); r.code != problem.ExitConflict {
		t.Fatalf("an update that rests on what is no longer so: %+v", r)
	}
	d.must("zone update business --description 'for work' --grade sensitive")
	d.must("zone update business --description ''")
	if got := d.must("zone show business"); !strings.Contains(got, "sensitive") || strings.Contains(got, "for work") {
		t.Fatal(got)
	}
}

// Every field that a client may change has a flag of update.
func TestEveryFieldThatMayBeChangedHasAFlag(t *testing.T) {
	d := newDesk(t)
	for noun, fields := range map[string]string{
		"zone": "kind grade description broker", "cluster": "purpose strategy cpu-overcommit-percent memory-overcommit-percent cordoned",
		"host": "endpoint admin-state cores memory-mib disk-gib", "flavor": "description", "project": "description",
		"image": "description min-memory-mib min-disk-gib os", "broker": "hub-address description", "vm": "description",
	} {
		help := d.must(noun + " update --help")
		for field := range strings.FieldsSeq(fields) {
			if !strings.Contains(help, "--"+field+" ") {
				t.Errorf("naru %s update has no --%s", noun, field)
			}
		}
	}
}

func TestShowTellsAllOfOneThing(t *testing.T) {
	d := newDesk(t)
	op := d.createVM("web-1")
	d.must("operation resolve " + op + " --as fail --reason 'no space left in pool'")
	got := d.must("operation show " + op)
	for _, words := range []string{"kind", "vm.create", "accepted, state done", "no space left in pool"} {
		if !strings.Contains(got, words) {
			t.Errorf("it does not say %q:\n%s", words, got)
		}
	}
	for _, format := range []string{"", " -o json", " -o yaml"} {
		if got := d.must("vm show web-1 --project web" + format); strings.Contains(got, "reached") || strings.Contains(got, "force") {
			t.Errorf("show%s tells what is internal:\n%s", format, got)
		}
	}
}

func TestDeleteGoesOnBehindWhatItCannotDelete(t *testing.T) {
	d := newDesk(t)
	d.must("project create one")
	d.must("project create two")
	r := d.naru("project delete one none two")
	if r.code != problem.ExitNotFound || !strings.Contains(r.err, "none") || !strings.Contains(r.out, "project one: delete done\nproject two: delete done\n") {
		t.Fatalf("%+v", r)
	}
	if got := d.must("project list -o name"); got != "db\nweb\n" {
		t.Fatalf("%q", got)
	}
}

func TestYAMLReadsBackAsTheSameAsJSON(t *testing.T) {
	d := newDesk(t)
	d.createVM("web-1")
	var a, b any
	if err := json.Unmarshal([]byte(d.must("vm show web-1 --project web -o json")), &a); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(d.must("vm show web-1 --project web -o yaml")), &b); err != nil {
		t.Fatal(err)
	}
	x, _ := json.Marshal(a)
	if y, err := json.Marshal(b); err != nil || !bytes.Equal(x, y) {
		t.Fatalf("%v\n%s\n%s", err, x, y)
	}
}

// createVM asks for a VM and returns its operation's id.
func (d *desk) createVM(name string) string {
	d.Helper()
	return strings.TrimSpace(d.must("vm create " + name + " --project web --image tiny --flavor s1 --zone business --cluster kvm -o name"))
}

func TestWhoInterruptsWaitIsToldHowToGoOn(t *testing.T) {
	d := newDesk(t)
	f := d.follow("vm create web-1 --project web --image tiny --flavor s1 --zone business --cluster kvm --wait")
	f.until(t, "accepted")
	f.stop()
	op := strings.TrimSpace(d.must("operation list --filter kind=vm.create -o name"))
	if r := <-f.ended; r.code != problem.ExitTimeout || !strings.Contains(r.err, "No longer waited for\n  vm.create of web-1 is still under way") || !strings.Contains(r.err, "naru operation wait "+op) {
		t.Fatalf("%+v", r)
	}
	again := d.follow("operation wait " + op)
	again.until(t, "accepted")
	d.must("operation resolve " + op + " --as fail --reason 'no space left in pool'")
	again.until(t, "no space left in pool")
	if r := <-again.ended; r.code != problem.ExitTimeout || !strings.Contains(r.err, "ended it as failed") {
		t.Fatalf("%+v", r)
	}
}

func TestATakenNameIsToldByTheNounOfTheCommand(t *testing.T) {
	d := newDesk(t)
	d.must("token create t1 --project web")
	if r := d.naru("token create t1 --project web"); r.code != problem.ExitConflict || !strings.Contains(r.err, "there is a token named t1 already") {
		t.Errorf("%+v", r)
	}
}

func TestACompletionKnowsWhatThereIs(t *testing.T) {
	d := newDesk(t)
	d.createVM("web-1")
	for line, want := range map[string][]string{
		"__complete vm show w":                                {"web-1"},
		"__complete vm delete web-1 ''":                       nil,
		"__complete vm list --project ''":                     {"db", "web"},
		"__complete vm create x --flavor t":                   {"tiny"},
		"__complete vm create x --zone business --cluster ''": {"kvm"},
		"__complete vm create x --cluster ''":                 {"kvm"}, // of two zones
		"__complete zone update business --grade ''":          {"open", "sensitive", "classified"},
		"__complete vm list -o ''":                            formats,
		"__complete --context ''":                             {"admin", "web"},
		"__complete context use w":                            {"web"},
		"__complete operation resolve x --as r":               {"retry"},
	} {
		var got []string
		for l := range strings.Lines(d.must(line)) {
			if l = strings.TrimSpace(l); !strings.HasPrefix(l, ":") {
				got = append(got, l)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestAContextIsAFileOfOnesOwn(t *testing.T) {
	d := newDesk(t)
	t.Setenv("NARU_CONTEXT", "")
	if r := d.naru("whoami"); r.code != problem.ExitUsage || !strings.Contains(r.err, "NARU_SERVER, NARU_CA_FILE and NARU_TOKEN") {
		t.Fatalf("%+v", r)
	}
	if got := d.must("whoami --context web -o name"); got != "web\n" {
		t.Fatalf("%q", got)
	}
	d.must("context use web")
	if got := d.must("whoami -o name"); got != "web\n" {
		t.Fatalf("%q", got)
	}
	if got := d.must("context list"); !strings.Contains(got, "*        web    web") || !strings.Contains(got, "admin") {
		t.Fatal(got)
	}
	d.must("context use admin")
	t.Setenv("NARU_CONTEXT", "web")
	if got := d.must("whoami -o name"); got != "web\n" {
		t.Fatalf("the variable does not count: %q", got)
	}
	t.Setenv("NARU_CONFIG", filepath.Join(d.folder, "naru", "admin.yaml"))
	if got := d.must("whoami -o name"); got != "admin\n" {
		t.Fatalf("the file that is named does not count: %q", got)
	}
	if got := d.must("whoami -o name --context web"); got != "web\n" {
		t.Fatalf("the flag does not count: %q", got)
	}
	link := filepath.Join(d.folder, "naru", "config.yaml")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	d.write("config.yaml", "server: https://mine.test\n")
	if r := d.naru("context use web"); r.code != problem.ExitUsage || !strings.Contains(r.err, "is a file of its own") {
		t.Fatalf("%+v", r)
	}
}
