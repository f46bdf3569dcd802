// Package e2e tests the whole federation on one machine, as a user meets it: the built programs, in network namespaces.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/deploy/dev"
)

// needs skips a test on a machine that lacks what it is about: root, namespaces, and the tools.
func needs(t testing.TB, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	for _, tool := range append(tools, "ip", "ssh-keygen") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s; make setup installs it", tool)
		}
	}
	if _, err := os.Stat(program("naru-dev")); err != nil {
		t.Fatalf("%v: build first, with make build", err)
	}
}

// program returns the path of a built program: in bin, or where NARU_BIN says.
func program(name string) string {
	return filepath.Join(cmp.Or(os.Getenv("NARU_BIN"), filepath.Join("..", "..", "bin")), name)
}

// site is what naru-dev prints of a site.
type site struct {
	Mode      dev.Mode           `json:"mode"`
	Networks  []dev.NetworkState `json:"networks"`
	Processes []dev.ProcessState `json:"processes"`
	Walk      dev.WalkResult     `json:"walk"`
}

func TestTheMainJobIsDoneAndNothingIsLeft(t *testing.T) {
	needs(t, "libvirtd", "qemu-system-x86_64", "ssh")
	state := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program("naru-dev"), "run", "--once", "--state", state)
	var out, story bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &story
	err := cmd.Run()
	t.Log(story.String())
	if err != nil {
		t.Fatal(err)
	}
	var s site
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatalf("site.json: %v\n%s", err, out.String())
	}
	if s.Mode != dev.Namespaces || len(s.Networks) != 4 || !strings.HasSuffix(s.Networks[0].CLIConfig, "/cli/control.yaml") {
		t.Errorf("the site is in mode %s with networks %+v", s.Mode, s.Networks)
	}
	if !s.Walk.OK || s.Walk.Zone != "business" || s.Walk.Host != "kvm-1" || !strings.HasPrefix(s.Walk.Address, "10.91.2.") || s.Walk.Request != "r-1" {
		t.Fatalf("the walk: %+v", s.Walk)
	}
	for _, said := range []string{"review: approved by lee", "source: approved by park", "destination: approved by choi", "web-1 is done", "calls itself web-1", "its lease runs", "its use is metered since", "is whole"} {
		if !strings.Contains(story.String(), said) {
			t.Errorf("the story does not say %q", said)
		}
	}
	for _, p := range s.Processes {
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.PID))); err == nil {
			t.Errorf("%s (%d) is left", p.Name, p.PID)
		}
	}
	ended, err := dev.New(state, filepath.Dir(program("naru")), dev.Namespaces, dev.NewStory(&story))
	if err != nil {
		t.Fatal(err)
	}
	if left, err := ended.Namespaces(); err != nil || len(left) > 0 {
		t.Errorf("namespaces are left: %v %v", left, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(mounts, []byte(state)) {
		t.Errorf("mounts are left, %v:\n%s", err, mounts)
	}
}
