package service_test

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// signed gives the world's log a key, if it has none, and signs it as it is. It returns the private key.
func signed(t *testing.T, w *servicetest.World, private, public string) {
	t.Helper()
	c := audit.Checkpoint{Origin: audit.Origin("naru.test"), Epoch: 7, Time: time.Now().UTC().Truncate(time.Second)}
	err := w.DB.View(t.Context(), func(tx *state.Tx) (err error) {
		if c.Size, err = tx.AuditSize(); err != nil {
			return err
		}
		c.Root, err = tx.AuditRoot(c.Size)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	note, err := audit.Sign(c, private)
	if err != nil {
		t.Fatal(err)
	}
	w.Do(&commandv1.Command{Body: &commandv1.Command_SignAudit{SignAudit: &commandv1.SignAudit{Checkpoint: &apiv1.AuditCheckpoint{
		Size: strconv.FormatUint(c.Size, 10), Root: c.Root[:], Time: timestamppb.New(c.Time), Note: note}}}})
}

func newKey(t *testing.T, w *servicetest.World) (private, public string) {
	t.Helper()
	private, public, err := audit.NewKey(audit.Origin("naru.test"))
	if err != nil {
		t.Fatal(err)
	}
	w.Do(&commandv1.Command{Body: &commandv1.Command_AddAuditKey{AddAuditKey: &commandv1.AddAuditKey{
		Key: &commandv1.AuditKey{PublicKey: public, SealedKey: []byte("sealed")}}}})
	return private, public
}

// export returns an export as a file has it.
func export(t *testing.T, w *servicetest.World, from string) ([]byte, error) {
	t.Helper()
	return exportOf(t, w, &apiv1.ExportAuditRequest{From: from})
}

func exportOf(t *testing.T, w *servicetest.World, r *apiv1.ExportAuditRequest) ([]byte, error) {
	t.Helper()
	stream, err := w.Admin().Audit.ExportAudit(t.Context(), r)
	if err != nil {
		return nil, problem.FromStatus(err)
	}
	var b bytes.Buffer
	out := audit.NewWriter(&b)
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.Bytes(), nil
		}
		if err != nil {
			return nil, problem.FromStatus(err)
		}
		if err := out.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnExportFromTheServiceIsVerified(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(2)
	if _, err := export(t, w, ""); !problem.Is(err, problem.WrongState) {
		t.Errorf("an export before anything was signed: %v", err)
	}
	private, public := newKey(t, w)
	signed(t, w, private, public)
	for n := range 300 { // more than a piece
		if _, err := w.Admin().Flavors.CreateFlavor(t.Context(), &apiv1.CreateFlavorRequest{Flavor: &apiv1.Flavor{Name: "f" + strconv.Itoa(n), Cores: 1, MemoryMib: 64, DiskGib: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	signed(t, w, private, public)
	known, err := w.Admin().Audit.GetAuditCheckpoint(t.Context(), &apiv1.GetAuditCheckpointRequest{})
	if err != nil || len(known.GetKeys()) != 1 || known.GetKeys()[0] != public {
		t.Fatal(known, err)
	}
	trust := audit.Trust{Keys: []string{public}, Known: []string{known.GetCheckpoint().GetNote()}}
	for _, from := range []string{"", "1", "7", "256", "300"} {
		file, err := export(t, w, from)
		if err != nil {
			t.Fatal(from, err)
		}
		r, err := audit.Verify(bytes.NewReader(file), trust)
		if err != nil || !r.Pinned || r.Known != 1 || r.To <= 300 {
			t.Fatalf("from %q: %+v, %v", from, r, err)
		}
	}
	if _, err := export(t, w, "99999"); !problem.Is(err, problem.Invalid) {
		t.Errorf("from behind the end: %v", err)
	}
}

// TestWhoLooksIntoTheLogIsInIt, before anything is shown.
func TestWhoLooksIntoTheLogIsInIt(t *testing.T) {
	w := servicetest.New(t)
	r, err := w.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{PageSize: 1})
	if err != nil || len(r.GetAuditEntries()) != 1 {
		t.Fatal(r, err)
	}
	if e := r.GetAuditEntries()[0]; e.GetAction() != "audit.list-entries" || e.GetOutcome() != apiv1.AuditEntry_READ || e.GetActor() != "admin:admin" || len(e.GetDigest()) != 32 {
		t.Errorf("the newest entry is %v", e)
	}
	private, public := newKey(t, w)
	signed(t, w, private, public)
	if _, err := export(t, w, ""); err != nil {
		t.Fatal(err)
	}
	if n := len(entriesOf(w, "audit.export")); n != 1 {
		t.Errorf("an export has left %d entries", n)
	}
	if _, err := w.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Filter: "colour=red"}); !strings.Contains(problem.FromStatus(err).Error(), "colour") {
		t.Error(err)
	}
}

// TestAnExportSaysWhoHasCountersignedItAndWhatARestoreHasLost.
func TestAnExportSaysWhoHasCountersignedItAndWhatARestoreHasLost(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	private, public := newKey(t, w)
	signed(t, w, private, public)
	seed, name, zone := bytes.Repeat([]byte{3}, audit.SeedSize), audit.WitnessName("naru.test", "business"), w.Zone("business")
	shown, err := w.Admin().Audit.GetAuditCheckpoint(t.Context(), &apiv1.GetAuditCheckpointRequest{})
	if err != nil || len(shown.GetWitnesses()) != 0 {
		t.Fatal(shown, err)
	}
	sequence := uint64(0)
	countersign := func(note string) {
		c, err := audit.Read(note)
		if err != nil {
			t.Fatal(err)
		}
		line, err := audit.Countersign(note, name, seed, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		sequence++
		w.Do(&commandv1.Command{Body: &commandv1.Command_AppendJournal{AppendJournal: &commandv1.AppendJournal{ZoneId: zone.GetId(),
			Batch: &linkv1.JournalBatch{Origin: "i", Stream: "zone", Entries: []*linkv1.JournalEntry{{Sequence: sequence, Time: timestamppb.Now(),
				Body: &linkv1.JournalEntry_Countersignature{Countersignature: &linkv1.Countersignature{
					Note: note, Size: c.Size, Root: c.Root[:], Epoch: c.Epoch, Key: audit.WitnessKey(name, seed), Line: line}}}}}}}})
	}
	countersign(shown.GetCheckpoint().GetNote())
	lost, err := audit.Sign(audit.Checkpoint{Origin: audit.Origin("naru.test"), Size: 900, Epoch: 1, Time: time.Now().UTC().Truncate(time.Second)}, private)
	if err != nil {
		t.Fatal(err)
	}
	countersign(lost)
	for _, n := range []string{"more", "still-more"} {
		if _, err := w.Admin().Projects.CreateProject(t.Context(), &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: n}}); err != nil {
			t.Fatal(err)
		}
	}
	signed(t, w, private, public)
	is, err := w.Admin().Audit.GetAuditCheckpoint(t.Context(), &apiv1.GetAuditCheckpointRequest{})
	if err != nil || len(is.GetWitnesses()) != 1 || !slices.Equal(is.GetKeys(), []string{public, audit.WitnessKey(name, seed)}) {
		t.Fatal(is, err)
	}
	was, now := shown.GetCheckpoint().GetSize(), is.GetCheckpoint().GetSize()
	if z := is.GetWitnesses()[0]; z.GetZone() != "business" || z.GetSize() != was || z.GetBehind() != minus(t, now, was) || len(z.GetLost()) != 1 || z.GetObjection() != nil {
		t.Errorf("business is known as %v, of %s and %s entries", z, was, now)
	}
	file, err := export(t, w, "")
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(bytes.NewReader(file), audit.Trust{Keys: is.GetKeys(), Witnesses: 1, Named: []string{"business"}, Lag: time.Minute})
	if err != nil || len(r.Lost) != 1 || r.Lost[0].Size != 900 || strconv.FormatUint(r.Witnesses[name], 10) != was {
		t.Errorf("%+v, %v", r, err)
	}
	w.Observe(zone.GetId(), &apiv1.Zone{Id: zone.GetId(), AuditObjection: &apiv1.AuditObjection{Reason: audit.Fork, Message: "why", Since: timestamppb.Now()}})
	is, err = w.Admin().Audit.GetAuditCheckpoint(t.Context(), &apiv1.GetAuditCheckpointRequest{})
	if err != nil || is.GetWitnesses()[0].GetObjection().GetReason() != audit.Fork {
		t.Errorf("the zone's objection is not shown: %v, %v", is.GetWitnesses(), err)
	}
}

// TestAnAuditorOfAPlaceSeesWhatTheLogHasOfIt, and exports nothing, since what is signed is the whole.
func TestAnAuditorOfAPlaceSeesWhatTheLogHasOfIt(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	private, public := newKey(t, w)
	signed(t, w, private, public)
	w.Roles()
	for _, vm := range []*apiv1.VM{w.VM("web-1", "web"), w.VM("db-1", "db")} {
		if _, err := w.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: vm}); err != nil {
			t.Fatal(err)
		}
	}
	w.BringLog("business", "life-1", 3, false)
	for who, c := range map[string]struct {
		scope apiv1.RoleBinding_Scope
		place string
		fits  func(e *apiv1.AuditEntry) bool
		holds []string // targets that are among them
		logs  int
	}{
		"zone":         {apiv1.RoleBinding_ZONE, "business", func(e *apiv1.AuditEntry) bool { return e.GetZone() == "business" }, []string{"web-1", "db-1"}, 1},
		"other-zone":   {apiv1.RoleBinding_ZONE, "internet", func(e *apiv1.AuditEntry) bool { return e.GetZone() == "internet" }, nil, 0},
		"project":      {apiv1.RoleBinding_PROJECT, "web", func(e *apiv1.AuditEntry) bool { return e.GetProject() == "web" }, []string{"web-1"}, 0},
		"organization": {apiv1.RoleBinding_ORGANIZATION, "default", func(e *apiv1.AuditEntry) bool { return e.GetProject() != "" }, []string{"web-1", "db-1"}, 0},
		"federation":   {apiv1.RoleBinding_FEDERATION, "", func(*apiv1.AuditEntry) bool { return true }, []string{"web-1", "db-1"}, 2},
	} {
		u := w.User(who, apiv1.User_PERSON)
		w.Bind("b-"+who, "auditor", u, c.scope, c.place)
		a := w.As(u).Audit
		var targets []string
		for token := ""; ; {
			r, err := a.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{PageSize: 2, PageToken: token})
			if err != nil {
				t.Fatalf("%s: %v", who, err)
			}
			for _, e := range r.GetAuditEntries() {
				if targets = append(targets, e.GetTarget().GetName()); !c.fits(e) {
					t.Errorf("the auditor of %s sees %v", who, e)
				}
			}
			if token = r.GetNextPageToken(); token == "" {
				break
			}
		}
		for _, name := range []string{"web-1", "db-1"} {
			if slices.Contains(targets, name) != slices.Contains(c.holds, name) {
				t.Errorf("the auditor of %s sees the entries of %v", who, targets)
			}
		}
		logs, err := a.ListAuditLogs(t.Context(), &apiv1.ListAuditLogsRequest{})
		if err != nil || len(logs.GetAuditLogs()) != c.logs {
			t.Errorf("the auditor of %s sees the logs %v, %v", who, logs, err)
		}
		kept, err := a.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Log: "business/1"})
		if want := map[bool]int{true: 3}[c.logs > 0]; err != nil || len(kept.GetAuditEntries()) != want {
			t.Errorf("the auditor of %s sees %d entries of business/1, %v", who, len(kept.GetAuditEntries()), err)
		}
		_, err = a.GetAuditCheckpoint(t.Context(), &apiv1.GetAuditCheckpointRequest{})
		stream, err2 := a.ExportAudit(t.Context(), &apiv1.ExportAuditRequest{})
		if err2 == nil {
			_, err2 = stream.Recv()
		}
		for _, err := range []error{err, err2} {
			err = problem.FromStatus(err)
			if who == "federation" && err != nil {
				t.Errorf("the auditor of the federation: %v", err)
			} else if who != "federation" && (!problem.Is(err, problem.Forbidden) || !strings.Contains(problem.Of(err).GetDetail(), "as a whole") || !strings.Contains(problem.Of(err).GetNext(), "naru audit list")) {
				t.Errorf("the auditor of %s exports: %v", who, err)
			}
		}
	}
}

// TestEntriesOfAPlaceAreFoundByItsID, by its name where it has one, and what is gone by the name that it had.
func TestEntriesOfAPlaceAreFoundByItsID(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	project := func() string {
		op, err := a.Projects.CreateProject(t.Context(), &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: "shop"}})
		if err != nil {
			t.Fatal(err)
		}
		return op.GetOperation().GetTarget().GetId()
	}
	remove := func(id string) {
		if _, err := a.Projects.DeleteProject(t.Context(), &apiv1.DeleteProjectRequest{Project: id}); err != nil {
			t.Fatal(err)
		}
	}
	found := func(r *apiv1.ListAuditEntriesRequest) (all []string) {
		listed, err := a.Audit.ListAuditEntries(t.Context(), r)
		if err != nil {
			t.Fatal(r, err)
		}
		for _, e := range listed.GetAuditEntries() {
			all = append(all, e.GetAction()+" "+cmp.Or(e.GetProjectId(), e.GetZoneId()))
		}
		return all
	}
	first := project()
	remove(first)
	second := project()
	of := func(ids ...string) (all []string) {
		for _, id := range ids {
			if id == first || len(ids) == 2 {
				all = append(all, "project.delete "+id)
			}
			all = append(all, "project.create "+id)
		}
		return all
	}
	for asked, want := range map[string][]string{"shop": of(second), second: of(second), first: of(first), "nothing": nil} {
		if got := found(&apiv1.ListAuditEntriesRequest{Project: asked}); !slices.Equal(got, want) {
			t.Errorf("of project %s are found %v, want %v", asked, got, want)
		}
	}
	if got := found(&apiv1.ListAuditEntriesRequest{Filter: "project=shop"}); len(got) != 3 {
		t.Errorf("by the name as it was then are found %v", got)
	}
	remove(second)
	if got, want := found(&apiv1.ListAuditEntriesRequest{Project: "shop"}), of(second, first); !slices.Equal(got, want) {
		t.Errorf("of what is gone are found %v, want %v", got, want)
	}
	business := w.Zone("business").GetId()
	byName, byID := found(&apiv1.ListAuditEntriesRequest{Zone: "business"}), found(&apiv1.ListAuditEntriesRequest{Zone: business})
	if !slices.Equal(byName, byID) || !slices.Contains(byName, "zone.create "+business) || slices.ContainsFunc(byID, func(e string) bool { return !strings.HasSuffix(e, business) }) {
		t.Errorf("of a zone are found %v and %v", byName, byID)
	}
}

func minus(t *testing.T, a, b string) string {
	t.Helper()
	x, err := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(x - y)
}

// TestTheLogThatAZoneHasKeptItselfIsShownAndExportedAsOneOfItsOwn.
func TestTheLogThatAZoneHasKeptItselfIsShownAndExportedAsOneOfItsOwn(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	logs, err := w.Admin().Audit.ListAuditLogs(t.Context(), &apiv1.ListAuditLogsRequest{})
	if err != nil || len(logs.GetAuditLogs()) != 1 || logs.GetAuditLogs()[0].GetCheckpoint() != nil {
		t.Fatalf("before anything was signed there are %v, %v", logs, err)
	}
	private, public := newKey(t, w)
	signed(t, w, private, public)
	const entries = 300 // more than a piece
	key := w.BringLog("business", "life-1", entries, false)
	w.BringLog("business", "life-2", 1, true)
	logs, err = w.Admin().Audit.ListAuditLogs(t.Context(), &apiv1.ListAuditLogsRequest{})
	if err != nil || len(logs.GetAuditLogs()) != 3 {
		t.Fatal(logs, err)
	}
	own, first, second := logs.GetAuditLogs()[0], logs.GetAuditLogs()[1], logs.GetAuditLogs()[2]
	if own.GetName() != "" || own.GetKey() != public || own.GetCheckpoint().GetNote() == "" {
		t.Errorf("the control plane's own is %v", own)
	}
	if first.GetName() != "business/1" || first.GetIncarnationId() != "life-1" || first.GetCheckpoint().GetSize() != "300" || first.GetRefused() != "" {
		t.Errorf("the first of business is %v", first)
	}
	if second.GetName() != "business/2" || second.GetCheckpoint() != nil || !strings.Contains(second.GetRefused(), "has signed another log") {
		t.Errorf("the second of business is %v", second)
	}

	listed, err := w.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Log: "business/1", Filter: "target=web-7"})
	if err != nil || len(listed.GetAuditEntries()) != 1 || listed.GetAuditEntries()[0].GetSequence() != "7" || listed.GetAuditEntries()[0].GetActor() != "user:kim" {
		t.Errorf("of it %v is listed, %v", listed, err)
	}
	own7, err := w.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Filter: "target=web-7"})
	if err != nil || len(own7.GetAuditEntries()) != 0 {
		t.Errorf("the control plane's own log has %v, %v", own7, err)
	}
	for log, want := range map[string]problem.Code{"business/9": problem.NotFound, "business/2": problem.WrongState} {
		_, err := exportOf(t, w, &apiv1.ExportAuditRequest{Log: log})
		if !problem.Is(err, want) || !strings.Contains(problem.Of(err).GetNext(), "naru audit logs") {
			t.Errorf("of %s is exported: %v", log, err)
		}
	}
	if _, err := w.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Log: "business/9"}); !problem.Is(problem.FromStatus(err), problem.NotFound) {
		t.Errorf("of a log that there is not is listed: %v", err)
	}

	trust := audit.Trust{Keys: []string{public, key}, Zone: "business", Known: []string{first.GetCheckpoint().GetNote()}}
	for _, from := range []string{"", "1", "255", "256", "299"} {
		file, err := exportOf(t, w, &apiv1.ExportAuditRequest{Log: "business/1", From: from})
		if err != nil {
			t.Fatal(from, err)
		}
		r, err := audit.Verify(bytes.NewReader(file), trust)
		if err != nil || !r.Pinned || r.Known != 1 || r.To != entries {
			t.Fatalf("from %q: %+v, %v", from, r, err)
		}
	}
	if _, err := exportOf(t, w, &apiv1.ExportAuditRequest{Log: "business/1", From: "300"}); !problem.Is(err, problem.Invalid) {
		t.Errorf("from behind the end: %v", err)
	}
}
