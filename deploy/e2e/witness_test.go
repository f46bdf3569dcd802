package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// checkpoint is how far the audit log is signed now, and in which epoch.
func (s *standing) checkpoint(t testing.TB) audit.Checkpoint {
	t.Helper()
	r, err := s.admin.Audit.GetAuditCheckpoint(t.Context(), &apiv1.GetAuditCheckpointRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return must(audit.Read(r.GetCheckpoint().GetNote()))
}

// countersigns waits until a zone has countersigned so many entries of the log, in an epoch.
func (s *standing) countersigns(t testing.TB, zone string, entries, epoch uint64) {
	t.Helper()
	s.until(t, "zone "+zone+" has countersigned "+strconv.FormatUint(entries, 10)+" entries", func(ctx context.Context) (bool, error) {
		r, err := s.admin.Audit.GetAuditCheckpoint(ctx, &apiv1.GetAuditCheckpointRequest{})
		for _, w := range r.GetWitnesses() {
			if w.GetZone() != zone || w.GetNote() == "" {
				continue
			}
			c, err := audit.Read(w.GetNote())
			if o := w.GetObjection(); o != nil {
				t.Errorf("zone %s objects to the audit log: %v", zone, o)
			}
			return c.Size >= entries && c.Epoch == epoch, err
		}
		return false, err
	})
}

// keepKeys keeps the keys of the log and of the zones outside.
func (s *standing) keepKeys(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(s.naru(t, "control", "audit", "checkpoint", "--keys")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// verified exports the log, and verifies it with keys that were kept and a zone that has to have countersigned it.
func (s *standing) verified(t *testing.T, keys, zone string) (told string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "audit.log")
	s.naru(t, "control", "audit", "export", file)
	return s.naru(t, "control", "audit", "verify", file, "--key", "@"+keys, "--witness", zone)
}

// says checks that a text has each of some phrases in it.
func says(t *testing.T, text string, phrases ...string) {
	t.Helper()
	for _, p := range phrases {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in\n%s", p, text)
		}
	}
}
