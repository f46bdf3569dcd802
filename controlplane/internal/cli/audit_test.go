package cli

import (
	"bytes"
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
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
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
	for _, path := range []string{file, keys, "/dev/null"} {
		if r := d.naru("audit verify " + file + " --key @" + keys + " --known " + path); r.code != problem.ExitUsage || !strings.Contains(r.err, "is no checkpoint") {
			t.Errorf("with what is none as a checkpoint that was kept: %+v", r)
		}
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
	for _, path := range []string{note, "/dev/null"} {
		if r := d.naru("audit verify " + path + " --key @" + keys); r.code != problem.ExitUsage || !strings.Contains(r.err, "is no export of an audit log") || strings.Contains(r.err, "evidence") {
			t.Errorf("what is no export: %+v", r)
		}
	}
}

// TestWhoHasCountersignedTheLogIsShownAndAskedForInAnExport.
func TestWhoHasCountersignedTheLogIsShownAndAskedForInAnExport(t *testing.T) {
	d := newDesk(t)
	key := d.sign("")
	shown := d.must("audit checkpoint")
	seed, name, zone := bytes.Repeat([]byte{3}, audit.SeedSize), audit.WitnessName("naru.test", "business"), d.Zone("business")
	c, err := audit.Read(shown)
	if err != nil {
		t.Fatal(err)
	}
	line, err := audit.Countersign(shown, name, seed, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d.Do(&commandv1.Command{Body: &commandv1.Command_AppendJournal{AppendJournal: &commandv1.AppendJournal{ZoneId: zone.GetId(),
		Batch: &linkv1.JournalBatch{Origin: "i", Stream: "zone", Entries: []*linkv1.JournalEntry{{Sequence: 1, Time: timestamppb.Now(),
			Body: &linkv1.JournalEntry_Countersignature{Countersignature: &linkv1.Countersignature{
				Note: shown, Size: c.Size, Root: c.Root[:], Epoch: c.Epoch, Key: audit.WitnessKey(name, seed), Line: line}}}}}}}})
	d.must("project create more")
	d.sign(key)
	r := d.naru("audit checkpoint")
	if !strings.Contains(r.err, "Zone business has countersigned") || strings.Contains(r.out, "Zone") {
		t.Errorf("beside the checkpoint stands %q", r.err)
	}
	table := d.must("audit checkpoint --witnesses")
	if size := strconv.FormatUint(c.Size, 10); !strings.Contains(table, "ZONE") || !strings.Contains(table, "business") || !strings.Contains(table, size) {
		t.Errorf("the table is\n%s", table)
	}
	folder := t.TempDir()
	file, keys := filepath.Join(folder, "audit.log"), filepath.Join(folder, "keys")
	d.must("audit export " + file)
	if err := os.WriteFile(keys, []byte(d.must("audit checkpoint --keys")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := d.must("audit verify " + file + " --key @" + keys + " --witnesses 1 --witness business"); !strings.Contains(out, name+" has countersigned up to") {
		t.Errorf("it is verified: %s", out)
	}
	other := audit.WitnessKey(audit.WitnessName("naru.test", "internet"), bytes.Repeat([]byte{4}, audit.SeedSize))
	for args, want := range map[string]string{
		"--key @" + keys + " --witnesses 2":                          "--witnesses 2: the keys that are given with --key are of business",
		"--key @" + keys + " --witness mars":                         "--witness mars: its key is not among those",
		"--key @" + keys + " --key " + other + " --witnesses 2":      "2 zones have to have countersigned them",
		"--key @" + keys + " --key " + other + " --witness internet": "zone internet has not countersigned them",
		"--witnesses 1":                 "need the keys of zones",
		"--witnesses -1 --key @" + keys: "cannot be below zero",
	} {
		if r := d.naru("audit verify " + file + " " + args); r.code == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	d.Observe(zone.GetId(), &apiv1.Zone{Id: zone.GetId(), AuditObjection: &apiv1.AuditObjection{Reason: audit.Fork, Message: "its entries are others", Since: timestamppb.Now()}})
	if r := d.naru("audit checkpoint"); !strings.Contains(r.err, "Zone business does not countersign the log (FORK): its entries are others") {
		t.Errorf("an objection is told as %q", r.err)
	}
	if out := d.must("zone list -o wide"); !strings.Contains(out, "AUDIT=FORK") {
		t.Errorf("the list of zones is\n%s", out)
	}
}

// TestTheLogThatAZoneHasKeptItselfIsExportedAndVerifiedWithoutAServer, with the key with which the zone countersigns.
func TestTheLogThatAZoneHasKeptItselfIsExportedAndVerifiedWithoutAServer(t *testing.T) {
	d := newDesk(t)
	key := d.sign("")
	d.BringLog("business", "life-1", 12, false)
	d.BringLog("business", "life-2", 1, true)
	table := d.must("audit logs")
	if !strings.Contains(table, "business/1") || !strings.Contains(table, "12") || !strings.Contains(table, "has signed another log") {
		t.Errorf("the logs are\n%s", table)
	}
	if list := d.must("audit list --log business/1 --filter target=web-7"); !strings.Contains(list, "user:kim") || strings.Count(list, "web-7") != 1 {
		t.Errorf("the list is\n%s", list)
	}
	if r := d.naru("audit list --log business/9"); r.code != problem.ExitNotFound || !strings.Contains(r.err, "naru audit logs") {
		t.Errorf("of a log that there is not: %+v", r)
	}
	folder := t.TempDir()
	file, keys := filepath.Join(folder, "business-1.log"), filepath.Join(folder, "keys")
	d.must("audit export --log business/1 " + file)
	own := filepath.Join(folder, "audit.log")
	d.must("project create more")
	d.sign(key)
	d.must("audit export " + own)
	if err := os.WriteFile(keys, []byte(d.must("audit checkpoint --keys")), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NARU_CONTEXT", "")
	bare(t, t.TempDir()) // no configuration: no server
	if out := d.must("audit verify " + file); !strings.Contains(out, "as zone business has signed it: entries 0 to 11") || !strings.Contains(out, "--key") {
		t.Errorf("without a key: %s", out)
	}
	if out := d.must("audit verify " + file + " --zone business --key @" + keys); !strings.Contains(out, "life-1") || strings.Contains(out, "--key") {
		t.Errorf("with the keys: %s", out)
	}
	for args, want := range map[string]string{
		"--key @" + keys:                    "is to be verified as that",
		"--zone internet":                   "not one that zone internet has kept itself",
		"--zone internet --key @" + keys:    "not one that zone internet has kept itself",
		"--witness business --key @" + keys: "",
	} {
		if r := d.naru("audit verify " + file + " " + args); r.code == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[strings.Index(string(b), "user:kim")] = 'U'
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := d.naru("audit verify " + file); r.code != problem.ExitConflict || !strings.Contains(r.err, "is not what was signed: entry 0: it was changed") {
		t.Errorf("a changed one: %+v", r)
	}
}
