package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestWhoIsAskedMayRefuse(t *testing.T) {
	newDesk(t)
	for _, answer := range []string{"", "n\n", "\n"} {
		if r := naru(t.Context(), "zone revoke business", answer); r.code != problem.ExitUsage || !strings.Contains(r.err, "--yes") {
			t.Errorf("after %q: %+v", answer, r)
		}
	}
	if r := naru(t.Context(), "zone revoke business", "y\n"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
}

func TestAQuestionEndsWithAnInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	silent, _ := io.Pipe()
	var out bytes.Buffer
	a := &app{in: silent, out: newScreen(&out), err: newScreen(&out)}
	if a.confirm(ctx, "Well? ") {
		t.Fatal("silence was taken for yes")
	}
}

func TestAFullDiskIsNotSuccess(t *testing.T) {
	d := newDesk(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, format := range []string{"table", "json", "name"} {
		var errOut bytes.Buffer
		if code := Run(d.Context(), []string{"project", "list", "-o", format}, strings.NewReader(""), full, &errOut); code == 0 || !strings.Contains(errOut.String(), "no space left") {
			t.Errorf("-o %s: exit %d, %s", format, code, &errOut)
		}
	}
}

func widthOf(line string) int { return runewidth.StringWidth(strings.TrimRight(line, "\n")) }

func op(steps ...string) *apiv1.Operation {
	o := &apiv1.Operation{Kind: "vm.create", Target: &apiv1.Reference{Kind: "vm", Name: "web-1"}}
	for _, s := range steps {
		o.Steps = append(o.Steps, &apiv1.Operation_Step{Name: s, State: apiv1.Operation_Step_DONE, Message: strings.Repeat("long ", 20), At: timestamppb.Now()})
	}
	return o
}

func TestOnANarrowTerminalTextsGiveWay(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &screen{w: &out, width: 40}, output: "table"}
	project := &apiv1.Project{Name: "web", Description: "한글 설명이 들어간 아주 긴 문장입니다", CreatedAt: timestamppb.Now()}
	if err := printList(a, projectColumns, []*apiv1.Project{project}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if w := widthOf(line); w > 40 {
			t.Errorf("%q is %d columns wide", line, w)
		}
	}
	if !strings.Contains(out.String(), "…") || !strings.Contains(out.String(), "web") {
		t.Fatalf("%s", &out)
	}
	s := &story{to: a.out, began: time.Now(), told: map[string]apiv1.Operation_Step_State{}}
	out.Reset()
	s.tell(op("placed"))
	if w := widthOf(out.String()); w > 40 {
		t.Fatalf("%q is %d columns wide", out.String(), w)
	}
}

func TestColoursAreForTerminalsThatWantThem(t *testing.T) {
	vm := &apiv1.VM{Name: "web-1", State: apiv1.VM_ERROR}
	for _, colours := range []bool{true, false} {
		var out bytes.Buffer
		if err := printList(&app{out: &screen{w: &out, width: 80, colour: colours}, output: "table"}, vmColumns, []*apiv1.VM{vm}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "\x1b[31merror"); got != colours {
			t.Errorf("colours %v: %q", colours, out.String())
		}
	}
	if s := newScreen(&bytes.Buffer{}); s.colour || s.terminal() {
		t.Error("a buffer is taken for a terminal")
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if newScreen(null).terminal() {
		t.Error("/dev/null is taken for a terminal")
	}
}
