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

// entries is how many the audit log has now; looking is one more.
func (s *standing) entries(t testing.TB) uint64 {
	t.Helper()
	r, err := s.admin.Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	return must(strconv.ParseUint(r.GetAuditEntries()[0].GetSequence(), 10, 64)) + 1
}

// countersigns waits until a zone has countersigned so many entries of the log as it is in this epoch.
func (s *standing) countersigns(t testing.TB, zone string, entries uint64) {
	t.Helper()
	s.until(t, "zone "+zone+" has countersigned "+strconv.FormatUint(entries, 10)+" entries", func(ctx context.Context) (bool, error) {
		r, err := s.admin.Audit.GetAuditCheckpoint(ctx, &apiv1.GetAuditCheckpointRequest{})
		if err != nil {
			return false, err
		}
		now := must(audit.Read(r.GetCheckpoint().GetNote()))
		for _, w := range r.GetWitnesses() {
			if o := w.GetObjection(); o != nil {
				t.Errorf("zone %s objects to the audit log: %v", w.GetZone(), o)
			}
			if w.GetZone() == zone && w.GetNote() != "" {
				c := must(audit.Read(w.GetNote()))
				return c.Size >= entries && c.Epoch == now.Epoch, nil
			}
		}
		return false, nil
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
