package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
)

func TestABackupReplacesAFileOnlyByForce(t *testing.T) {
	d := newDesk(t)
	d.Backup = []byte("all that there is")
	path := filepath.Join(t.TempDir(), "federation.backup")
	d.must("server backup " + path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	d.Backup = []byte("more")
	r := d.naru("server backup " + path)
	if r.code != problem.ExitUsage || !strings.Contains(r.err, path+" is there already") || !strings.Contains(r.err, "--force") {
		t.Errorf("%+v", r)
	}
	if b, _ := os.ReadFile(path); string(b) != "all that there is" {
		t.Errorf("a refused backup left %q", b)
	}
	d.must("server backup --force " + path)
	if b, _ := os.ReadFile(path); string(b) != "more" {
		t.Errorf("with --force: %q", b)
	}
}
