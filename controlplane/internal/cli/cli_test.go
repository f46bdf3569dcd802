package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestArgumentsThatAreTooFewOrTooManyAreToldAsThat: an error of cobra's own would be told as one of the inside.
func TestArgumentsThatAreTooFewOrTooManyAreToldAsThat(t *testing.T) {
	a := &app{out: newScreen(io.Discard), err: newScreen(io.Discard), names: map[string]lister{}}
	var each func(*cobra.Command)
	each = func(c *cobra.Command) {
		for _, args := range [][]string{nil, make([]string, 50)} {
			var usage usageError
			if err := c.ValidateArgs(args); err != nil && c.Parent() != nil && c.Parent().Name() != "completion" && !errors.As(err, &usage) {
				t.Errorf("%s with %d arguments: %v", c.CommandPath(), len(args), err)
			}
		}
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(a.root())
}

func TestACommandLineThatMakesNoSenseSaysWhatIsWrong(t *testing.T) {
	bare(t, t.TempDir())
	for line, says := range map[string]string{
		"vmm":                            "did you mean vm",
		"frobnicate":                     "it has admin, ",
		"vm lst":                         "did you mean list",
		"vm foo":                         "It has create, delete, list",
		"completion foo":                 "it has bash, fish",
		"vm show":                        "takes one argument, and was given 0",
		"vm delete":                      "takes at least one argument",
		"vm list extra":                  "takes no argument",
		"vm list -o xml":                 "it is table, wide, json, yaml or name",
		"vm list --colour":               "unknown flag",
		"vm list --timeout soon":         "--timeout soon: it is a time like 30s",
		"vm list --timeout -1s":          "longer than nothing",
		"vm list --limit -1":             "it is 0 or more",
		"vm list -w --limit 3":           "do not go with it",
		"vm list":                        "there is no configuration at ",
		"flavor update s1 --cores 4":     "--cores of a flavor is set when it is made and never changes; make another one: naru flavor create NAME --cores …",
		"flavor update s1 --colour 4":    "unknown flag",
		"vm list --context nowhere":      "there is no context nowhere",
		"vm list --context a --config b": "give one of them",
		"context use nowhere":            "there is no context nowhere",
		"image create x --format vmdk":   "--format vmdk: it is qcow2 or raw",
		"image create x --file /nowhere": "no such file",
		"flavor create x --cores -1":     "--cores -1: it is a whole number",
		"zone update x --grade secret":   "it is open, sensitive or classified",
		"zone update x":                  "nothing to change was given; it is --broker",
		"vm delete a b --etag 7-1":       "revision of one vm",
		"vm list --limit many":           "--limit many: it is a whole number",
		"operation resolve x":            "retry, succeed or fail",
		"operation resolve x --as fail":  "say with --reason why",
		"zone maintain x":                "--reason is required\nSee naru zone maintain --help.",
		"admin create x":                 "--csr is required",
		"role-binding create user":       "give --user or --group\nSee naru role-binding create --help.",
		"approve r-1 --yes --deny":       "--deny and --yes do not go together: give one of them",
		"approve r-1 r-2":                "takes at most one argument, and was given 2",
		"auth explain kim":               "naru auth explain takes two to three arguments, and was given 1",
		"identity-provider link corp":    "takes three arguments",
		"zone requests a b":              "takes at most one argument, and was given 2",
		"server backup -":                "name a file, not -",
		"vm create x --apart g --together h --together g": "--apart g and --together g do not go together",
	} {
		if r := naru(t.Context(), line, ""); r.code != problem.ExitUsage || !strings.Contains(r.err, says) || r.out != "" {
			t.Errorf("naru %s: exit %d, %q%q", line, r.code, r.out, r.err)
		}
	}
}

func TestAServerThatIsNotThereIsNamed(t *testing.T) {
	bare(t, t.TempDir())
	t.Setenv("NARU_SERVER", "https://127.0.0.1:1")
	for _, line := range []string{"vm list --timeout 300ms", "vm list --watch", "flavor create x --memory-mib 1 --timeout 300ms"} {
		if r := naru(t.Context(), line, ""); r.code != problem.ExitUnavailable || !strings.Contains(r.err, "https://127.0.0.1:1 was asked") || strings.Contains(r.err, "desc = ") {
			t.Errorf("naru %s: exit %d, %q", line, r.code, r.err)
		}
	}
}

func TestAServerWithoutTLSIsRefused(t *testing.T) {
	bare(t, t.TempDir())
	t.Setenv("NARU_SERVER", "http://127.0.0.1:1")
	if r := naru(t.Context(), "vm list", ""); r.code != problem.ExitUsage || !strings.Contains(r.err, "https://HOST:PORT") {
		t.Fatalf("exit %d, %q", r.code, r.err)
	}
}

func TestTheOutputFormats(t *testing.T) {
	vms := []*apiv1.VM{{
		Id: "0192", Name: "web-1", State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, Zone: "business", Host: "kvm-1",
		Address: "10.91.2.10", Freshness: apiv1.Freshness_LIVE, CreatedAt: timestamppb.Now(),
	}, {Id: "0193", Name: "web-2", State: apiv1.VM_BUILDING, Task: apiv1.VM_STARTING, Zone: "business"}}
	for format, want := range map[string]string{
		"table": "NAME   STATE                POWER  ZONE      HOST   ADDRESS     FRESH\n" +
			"web-1  running              on     business  kvm-1  10.91.2.10  live\n" +
			"web-2  building (starting)  -      business  -      -           -\n",
		"name": "web-1\nweb-2\n",
	} {
		var out bytes.Buffer
		a := &app{out: newScreen(&out), output: format}
		if err := printList(a, vmColumns, vms); err != nil || out.String() != want {
			t.Errorf("-o %s: %v\n%s", format, err, out.String())
		}
	}
	for format, want := range map[string]string{"json": `"state": "RUNNING"`, "yaml": "state: RUNNING\n"} {
		var out bytes.Buffer
		if err := printOne(&app{out: newScreen(&out), output: format}, vms[0], vmColumns); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("-o %s: %v\n%s", format, err, out.String())
		}
	}
}

func TestWhatOthersWroteCannotSteerTheTerminal(t *testing.T) {
	var out bytes.Buffer
	p := &apiv1.Project{Name: "web", Description: "\x1b]0;owned\x07 line\nbreak"}
	if err := printList(&app{out: newScreen(&out), output: "table"}, projectColumns, []*apiv1.Project{p}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07") || strings.Count(out.String(), "\n") != 2 {
		t.Fatalf("%q", out.String())
	}
}

func TestAStoryTellsEachStepOnce(t *testing.T) {
	var out bytes.Buffer
	op := &apiv1.Operation{Kind: "vm.create", Target: &apiv1.Reference{Name: "web-1"}}
	s := newStory(newScreen(&out), op)
	step := func(name string, state apiv1.Operation_Step_State) *apiv1.Operation_Step {
		return &apiv1.Operation_Step{Name: name, State: state, Message: "on kvm-1", At: timestamppb.Now()}
	}
	op.Steps = []*apiv1.Operation_Step{step("accepted", apiv1.Operation_Step_DONE)}
	s.tell(op)
	s.tell(op)
	op.Steps = append(op.Steps, step("disk", apiv1.Operation_Step_RUNNING))
	s.tell(op)
	op.Steps[1] = step("disk", apiv1.Operation_Step_FAILED)
	s.tell(op)
	s.close(false)
	if got := out.String(); strings.Count(got, "accepted") != 1 || strings.Count(got, "✗ disk") != 1 || strings.Count(got, "\n") != 2 {
		t.Fatalf("%s", got)
	}
}

func TestAnArgumentMayComeFromAFile(t *testing.T) {
	a := &app{in: strings.NewReader("from the pipe")}
	path := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(path, []byte("ssh-ed25519 AAAA me\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := a.argument("@" + path); err != nil || s != "ssh-ed25519 AAAA me\n" {
		t.Fatalf("%q, %v", s, err)
	}
	if s, err := a.argument("plain"); err != nil || s != "plain" {
		t.Fatalf("%q, %v", s, err)
	}
	if s, err := a.argument("@-"); err != nil || s != "from the pipe" {
		t.Fatalf("%q, %v", s, err)
	}
	if _, err := a.argument("@/nowhere"); err == nil {
		t.Fatal("a missing file is no error")
	}
}

func TestABackupAppearsOnlyWhenItIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backup")
	chunks := [][]byte{[]byte("one"), []byte("two")}
	_, err := save(path, func() ([]byte, error) {
		if len(chunks) == 0 {
			return nil, context.Canceled
		}
		c := chunks[0]
		chunks = chunks[1:]
		return c, nil
	}, nil)
	if _, missing := os.Stat(path); err == nil || missing == nil {
		t.Fatalf("err %v; the file is there although it is not whole", err)
	}
}

func TestABackupIntoAFolderThatIsNotThereNamesTheFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "missing")
	_, err := save(filepath.Join(folder, "backup"), nil, nil)
	if err == nil || !strings.Contains(err.Error(), "in the folder "+folder+" cannot be made: no such file or directory") {
		t.Errorf("%v", err)
	}
}

func TestABackupAppearsOnlyWhenTheDiskGivesBackWhatWasSent(t *testing.T) {
	for what, c := range map[string]struct {
		sent string
		good bool
	}{"the same": {"one", true}, "something else": {"two", false}, "nothing": {"", false}} {
		path := filepath.Join(t.TempDir(), "backup")
		pieces := [][]byte{[]byte("one")}
		sum := sha256.Sum256([]byte(c.sent))
		_, err := save(path, func() ([]byte, error) {
			if len(pieces) == 0 {
				return nil, io.EOF
			}
			p := pieces[0]
			pieces = nil
			return p, nil
		}, func() []byte { return sum[:] })
		if _, missing := os.Stat(path); (err == nil) != c.good || (missing == nil) != c.good {
			t.Errorf("%s was sent: %v, and the file: %v", what, err, missing)
		}
	}
}
