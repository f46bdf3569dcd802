package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// sign signs the audit log as it is, as the leader does every minute; with a new key where none is given.
func (d *desk) sign(private string) string {
	d.Helper()
	if private == "" {
		made, public, err := audit.NewKey(audit.Origin("naru.test"))
		if err != nil {
			d.Fatal(err)
		}
		private = made
		d.Do(&commandv1.Command{Body: &commandv1.Command_AddAuditKey{AddAuditKey: &commandv1.AddAuditKey{Key: &commandv1.AuditKey{PublicKey: public, SealedKey: []byte("sealed")}}}})
	}
	c := audit.Checkpoint{Origin: audit.Origin("naru.test"), Epoch: 7, Time: time.Now().UTC().Truncate(time.Second)}
	err := d.DB.View(d.Context(), func(tx *state.Tx) (err error) {
		if c.Size, err = tx.AuditSize(); err != nil {
			return err
		}
		c.Root, err = tx.AuditRoot(c.Size)
		return err
	})
	if err != nil {
		d.Fatal(err)
	}
	note, err := audit.Sign(c, private)
	if err != nil {
		d.Fatal(err)
	}
	d.Do(&commandv1.Command{Body: &commandv1.Command_SignAudit{SignAudit: &commandv1.SignAudit{Checkpoint: &apiv1.AuditCheckpoint{
		Size: strconv.FormatUint(c.Size, 10), Root: c.Root[:], Time: timestamppb.New(c.Time), Note: note}}}})
	return private
}

// TestAnExportIsVerifiedWithoutAServer, and says where it was changed.
func TestAnExportIsVerifiedWithoutAServer(t *testing.T) {
	d := newDesk(t)
	key := d.sign("")
	folder := t.TempDir()
	file, note, keys := filepath.Join(folder, "audit.log"), filepath.Join(folder, "note"), filepath.Join(folder, "keys")
	d.must("project create more")
	d.sign(key)
	d.must("audit export " + file)
	for path, text := range map[string]string{note: d.must("audit checkpoint"), keys: d.must("audit checkpoint --keys")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if list := d.must("audit list --filter action=project.create"); !strings.Contains(list, "admin:admin") || !strings.Contains(list, "more") {
		t.Errorf("the list is\n%s", list)
	}
	t.Setenv("NARU_CONTEXT", "")
	bare(t, t.TempDir()) // no configuration: no server
	out := d.must("audit verify " + file)
	if !strings.Contains(out, "is whole and as it was signed: entries 0 to") || !strings.Contains(out, "--key") {
		t.Errorf("without a key: %s", out)
	}
	if out := d.must("audit verify " + file + " --key @" + keys + " --known " + note); strings.Contains(out, "--key") {
		t.Errorf("with the key: %s", out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), "project.create")
	b[at] = 'P'
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r := d.naru("audit verify " + file)
	if r.code != problem.ExitConflict || !strings.Contains(r.err, "is not what was signed: entry ") || !strings.Contains(r.err, "it was changed") {
		t.Errorf("a changed one: %+v", r)
	}
}
