package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// wrongPassword is one that is typed and is not choi's.
const wrongPassword = "plover in the marram"

// operating is choi, who administers the business zone, at its edge while it is cut off.
type operating struct {
	*standing
	state, password string
}

// choi runs the command line as choi, at the zone's edge.
func (o *operating) choi(ctx context.Context, types string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program("naru"), args...)
	cmd.Env = append(os.Environ(), "NARU_CONFIG="+o.path("cli", "choi.yaml"), "XDG_STATE_HOME="+o.state)
	cmd.Stdin = strings.NewReader(types + "\n")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (o *operating) does(t *testing.T, args ...string) string {
	t.Helper()
	out, err := o.choi(t.Context(), "", args...)
	if err != nil {
		t.Fatalf("choi: naru %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// operated has choi log in in the zone that is cut off, and switch two of its VMs off (F5).
func (s *standing) operated(t *testing.T, edge *client.Client) *operating {
	t.Helper()
	o := &operating{standing: s, state: t.TempDir()}
	password, err := os.ReadFile(s.path("cli", "choi.password"))
	if err != nil {
		t.Fatal(err)
	}
	own, told := strings.TrimSpace(string(password)), ""
	o.password = own
	s.until(t, "choi can log in in the zone that is cut off", func(ctx context.Context) (bool, error) {
		told, err = o.choi(ctx, own, "login", "--local", "choi")
		return err == nil, nil
	})
	says(t, told, "You are logged in as choi at zone business", "The zone is cut off from the control plane", "vm.stop")
	if told, err := o.choi(t.Context(), own, "login", "choi"); err == nil || !strings.Contains(told, "naru login --local") {
		t.Errorf("without --local: %v\n%s", err, told)
	}
	if told, err := o.choi(t.Context(), wrongPassword, "login", "--local", "choi"); err == nil || !strings.Contains(told, "the name or the password is wrong") {
		t.Errorf("with another password: %v\n%s", err, told)
	}
	if told, err := o.choi(t.Context(), own, "login", "--local", "park"); err == nil || !strings.Contains(told, "no operator of this zone") {
		t.Errorf("another zone's administrator: %v\n%s", err, told)
	}
	says(t, o.does(t, "whoami"), "user choi, at zone business")
	shows(t, o.does(t, "vm", "list"), "cut-ours", "running")
	for _, name := range []string{"cut-ours", "cut-both"} {
		says(t, o.does(t, "vm", "stop", name, "--wait"), "overridden", "stopped")
		s.local(t, edge, name, apiv1.VM_STOPPED)
	}
	says(t, o.does(t, "vm", "show", "cut-ours"), "override", "choi")
	return o
}

// merged demands that the control plane holds to what was done, says so where it does not, and has the zone's log as one of its own.
func (o *operating) merged(t *testing.T) {
	t.Helper()
	if told, err := o.choi(t.Context(), "", "vm", "list"); err == nil || !strings.Contains(told, "count no more") {
		t.Errorf("the session outlives the cut: %v\n%s", err, told)
	}
	o.event(t, "type=vm.overridden AND target=cut-ours")
	o.event(t, "type=vm.override-refused AND target=cut-both")
	o.vm(t, "cut-ours", "stays off", func(vm *apiv1.VM) bool {
		return vm.GetDesiredState() == apiv1.VM_STOPPED && vm.GetState() == apiv1.VM_STOPPED
	})
	o.vm(t, "cut-both", "runs, as was wished last", running)
	if op := o.ended(t, "kind=vm.stop AND target=cut-ours"); op.GetError() != nil || op.GetCreatedBy() != "zone:business" {
		t.Errorf("what was done in the zone is %v", op)
	}
	shows(t, o.naru(t, "control", "audit", "logs"), "business/1", "business")
	said := o.naru(t, "control", "audit", "list", "--log", "business/1", "-o", "wide")
	says(t, said, "session.log-in", "vm.stop", "user:choi", "refused")
	export := filepath.Join(t.TempDir(), "business.log")
	o.naru(t, "control", "audit", "export", export, "--log", "business/1")
	says(t, o.naru(t, "control", "audit", "verify", export, "--key", "@"+o.keepKeys(t), "--zone", "business"), "is whole and as zone business has signed it")
	o.keepsQuiet(t, o.password, wrongPassword)
}
