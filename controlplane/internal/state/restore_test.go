package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// snapshot returns a database's snapshot.
func snapshot(t testing.TB, db *state.DB) []byte {
	t.Helper()
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d of %d, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func number(tx *state.Tx) error {
	_, err := tx.NextRequestNumber()
	return err
}

// furnish writes something into every table.
func furnish(t testing.TB, db *state.DB, vms int) {
	t.Helper()
	write(t, db, func(tx *state.Tx) error {
		m := tx.Meta()
		m.Federation, m.Epoch, m.EpochID = "example.test", 7, []byte("0123456789abcdef")
		tx.SetMeta(m)
		j := state.Journal{ZoneID: "z1", Origin: "7", Stream: "zone"}
		ref := &apiv1.Reference{Kind: "vm", Id: "gone", Name: "gone"}
		entry := func(seq uint64) *linkv1.JournalEntry {
			return &linkv1.JournalEntry{Sequence: seq, Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{VmId: "v"}}}
		}
		return errors.Join(
			tx.Zones.Put(&apiv1.Zone{Id: "z1", Name: "business"}), tx.Clusters.Put(&apiv1.Cluster{Id: "c1", Name: "kvm"}),
			tx.Hosts.Put(&apiv1.Host{Id: "h1", Name: "one"}), tx.Hosts.Put(&apiv1.Host{Id: "h2", Name: "two"}), tx.Hosts.Delete("h2"),
			tx.Flavors.Put(&apiv1.Flavor{Id: "f", Name: "s1"}),
			tx.Images.Put(&apiv1.Image{Id: "i", Name: "tiny"}), tx.Projects.Put(&apiv1.Project{Id: "p", Name: "shop"}),
			tx.Brokers.Put(&apiv1.Broker{Id: "b", Name: "edge"}), tx.Operations.Put(&apiv1.Operation{Id: "o", Kind: "vm.create"}),
			tx.Events.Put(&apiv1.Event{Id: "e", Type: "vm.usable"}), tx.Servers.Put(&apiv1.Server{Id: "s", Name: "one"}),
			tx.Administrators.Put(&apiv1.Administrator{Id: "a", Name: "kim", Fingerprint: "SHA256:k"}),
			tx.AccessTokens.Put(&apiv1.AccessToken{Id: "t", Name: "ci", SecretHash: []byte{1}}),
			tx.Administrators.Put(&apiv1.Administrator{Id: "ad", Name: "ann"}),
			tx.Organizations.Put(&apiv1.Organization{Id: "o", Name: "default"}), tx.Users.Put(&apiv1.User{Id: "u", Name: "kim"}),
			tx.Groups.Put(&apiv1.Group{Id: "g", Name: "ops"}), tx.PutMembership(state.Membership{GroupID: "g", UserID: "u", AddedBy: "ann", AddedAt: 1}),
			tx.Requests.Put(&apiv1.Request{Id: "r", Name: "r-1", Approval: apiv1.Request_SUBMITTED}), tx.Delegations.Put(&apiv1.Delegation{Id: "d"}),
			number(tx), tx.PutRequestWork("o", "r"), tx.PutComment("r", &apiv1.Comment{Id: "c", File: "plan.pdf"}, []byte{1}),
			tx.Sessions.Put(&apiv1.Session{Id: "s", User: "kim", UserId: "u", SecretHash: []byte{1}}), tx.PutCredentials(&commandv1.Credentials{UserId: "u"}), tx.PutLocalOperator(&commandv1.LocalOperator{ZoneId: "z", UserId: "u"}), tx.UseSeal("k", []byte{1}),
			tx.Desire("z1", &apiv1.Reference{Kind: "zone", Id: "z1"}), tx.DesireGone("z1", ref),
			tx.AcknowledgeDesired("z1", &apiv1.Generation{Epoch: 7}),
			tx.SetObservedCursor("z1", state.ObservedCursor{Incarnation: "inc", Revision: 9, Syncing: true}), tx.MarkObserved("z1", "v"),
			tx.SetJournalPoint(j, 4), tx.BeginBackup("b"), tx.Reject(j, 3, "why", 10), tx.Told("z", "reported", "e", 10), tx.AddTally("z", "usage", 1), tx.PutFormerVM("z", "v"), tx.AppendOrder(j, entry(0)), tx.UsageRecords.Put(&apiv1.UsageRecord{Id: "u", VmId: "v"}), tx.PutUsageHead(&commandv1.UsageHead{Of: &apiv1.UsageRecord{VmId: "v"}, State: apiv1.VM_RUNNING}),
			tx.PutZoneSession("z1", state.ZoneSession{ID: []byte{1}, Agent: "a", Connected: true}),
			tx.PutKeyring(&commandv1.Keyring{}), tx.PutJoinToken(&commandv1.JoinToken{Id: "t"}), tx.PutMember(&commandv1.Member{ZoneId: "z1", Agent: "a"}),
			tx.Offerings.Put(&apiv1.Offering{Id: "of", Name: "web"}), tx.Offerings.PutVersion(&apiv1.Offering{Id: "of", Version: 1}, 1),
			tx.Calendars.Put(&apiv1.Calendar{Id: "ca", Name: "office"}), tx.ApprovalPolicies.Put(&apiv1.ApprovalPolicy{Id: "ap", Name: "two-steps"}),
			tx.Roles.Put(&apiv1.Role{Id: "r", Name: "user"}), tx.RoleBindings.Put(&apiv1.RoleBinding{Id: "rb", Role: "user", UserId: "u"}),
			tx.Reservations.Put(&apiv1.Reservation{Id: "re", ZoneId: "z1"}), tx.Snapshots.Put(&apiv1.Snapshot{Id: "sn", Name: "before", VmId: "v", ProjectId: "p", State: apiv1.Snapshot_READY}),
			tx.Quotas.Put(&apiv1.Quota{Id: "q", Name: "project.web"}), tx.Crossings.Put(&apiv1.Crossing{Id: "cr"}), tx.Leases.Put(&apiv1.Lease{Id: "l", VmId: "v"}),
			tx.Notifications.Put(&apiv1.Notification{Id: "no", UserId: "u"}), tx.PutNotice(&commandv1.Notice{Notification: &apiv1.Notification{Id: "nc"}}),
			tx.NotificationChannels.Put(&apiv1.NotificationChannel{Id: "ch", Name: "mail"}), tx.PutChannelSecrets(&commandv1.ChannelSecrets{ChannelId: "ch"}), tx.Drop("ch", 1),
			tx.Deliveries.Put(&apiv1.Delivery{Id: "de", ChannelId: "ch"}),
			tx.IdentityProviders.Put(&apiv1.IdentityProvider{Id: "ip", Name: "corp"}), tx.PutProviderSecret(&commandv1.ProviderSecret{IdentityProviderId: "ip"}),
			tx.Identities.Put(&apiv1.Identity{Id: "id", IdentityProviderId: "ip", Subject: "7", UserId: "u"}),
			tx.AppendAudit(auditEntry(1)), tx.AppendAudit(auditEntry(2)), tx.PutCheckpoint(2, &apiv1.AuditCheckpoint{Size: "2"}),
			tx.Offer(state.Witness{AuditWitness: &apiv1.AuditWitness{ZoneId: "z1", Size: "0"}}, 2, 1), tx.AuditEpochBegins(1),
			tx.PutZoneLog(state.ZoneLog{AuditLog: &apiv1.AuditLog{Name: "business/1", Zone: "business", ZoneId: "z1"}, Number: 1, Size: 1}), appendTo(tx, "business/1", 0),
			tx.PutReports("z1", state.Reports{Since: 1, Count: 2, Digest: []byte{1}}), tx.PutRefusals(state.Refusals{Actor: "user:kim", Action: "vm.create"}),
			tx.Revoke("z1", "b"), tx.PutOutcome(&state.Outcome{ID: []byte("0123456789abcdef"), Actor: "ann", Key: "k", RequestHash: []byte{2}, Result: &commandv1.Result{}}),
		)
	})
	write(t, db, func(tx *state.Tx) error {
		for n := range vms {
			if err := tx.VMs.Put(vm(n)); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestP24ARestoredStateIsTheSame(t *testing.T) {
	db := open(t, state.Options{})
	furnish(t, db, 50)
	in := snapshot(t, db)
	other := open(t, state.Options{ServerID: "server-2"})
	put(t, other, vm(999))
	meta, err := other.Restore(bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	if meta.Federation != "example.test" || meta.Epoch != 7 || meta.Revision != 2 || meta.AppliedIndex != 2 {
		t.Errorf("meta %+v", meta)
	}
	if head, err := state.ReadHeader(bytes.NewReader(in)); err != nil || head.Text() != meta.Text() || string(head.EpochID) != "0123456789abcdef" {
		t.Errorf("the header says %+v, %v", head, err)
	}
	if !bytes.Equal(in, snapshot(t, other)) {
		t.Error("its snapshot is another")
	}
	read(t, other, func(tx *state.Tx) error {
		// The columns were reckoned anew: queries find what they found.
		if found, err := tx.VMs.ByName("web-7", state.Scope{"project_id": "p1"}); err != nil || found.GetRevision() != "7-2" {
			t.Errorf("%v, %v", found, err)
		}
		if _, err := tx.VMs.Get(vm(999).GetId()); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("what was there before is still there: %v", err)
		}
		if o, err := tx.OutcomeByKey("ann", "k"); err != nil || len(o.ID) != 16 {
			t.Errorf("%v, %v", o, err)
		}
		if changes, err := tx.Hosts.Since(0, 10); err != nil || len(changes) != 2 {
			t.Errorf("%v, %v", changes, err)
		}
		_, err := tx.AccessTokenByHash([]byte{1})
		return err
	})
	put(t, other, vm(1000)) // and it goes on
}

func TestEveryTableIsInTheSnapshot(t *testing.T) {
	db := open(t, state.Options{})
	furnish(t, db, 1)
	read(t, db, func(tx *state.Tx) error {
		for _, table := range state.Tables() {
			if n := tx.CountRows(table); n == 0 {
				t.Errorf("table %s is empty, so that no test of restoring sees it", table)
			}
		}
		return nil
	})
}

func TestHashAndStreamDependOnTheContentAlone(t *testing.T) {
	hash := func(db *state.DB) [32]byte {
		s, err := db.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		sum, err := s.Hash()
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	a, b := open(t, state.Options{}), open(t, state.Options{ServerID: "server-2"})
	furnish(t, a, 3)
	furnish(t, b, 3)
	if hash(a) != hash(b) || !bytes.Equal(snapshot(t, a), snapshot(t, b)) {
		t.Error("the same content on another server has another hash")
	}
	if err := b.Update(func(tx *state.Tx) error { m := tx.Meta(); m.AppliedIndex += 5; tx.SetMeta(m); return nil }); err != nil {
		t.Fatal(err)
	}
	if hash(a) != hash(b) {
		t.Error("where a log stands is part of the hash")
	}
	remove(t, b, 1)
	if hash(a) == hash(b) {
		t.Error("a deletion is not part of the hash")
	}
}

func TestASnapshotKeepsItsMomentAndHasNoTimeLimit(t *testing.T) {
	db := open(t, state.Options{})
	furnish(t, db, 3)
	want := snapshot(t, db)
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, vm(77))
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), want) {
		t.Errorf("a later write is in it, or %v", err)
	}
	s.Release()
	s.Release()
	if _, err := s.WriteTo(&b); err == nil {
		t.Error("a released snapshot was written")
	}
}

// Every byte of a snapshot counts: flipped or cut off anywhere, it is refused and the state stays.
func TestP18ADamagedSnapshotIsRefused(t *testing.T) {
	db := open(t, state.Options{})
	furnish(t, db, 2)
	in := snapshot(t, db)
	other := open(t, state.Options{ServerID: "server-2"})
	put(t, other, vm(1))
	before := snapshot(t, other)
	for i := 0; i < len(in); i += 1 + len(in)/150 {
		flipped := bytes.Clone(in)
		flipped[i] ^= 1 << (i % 8)
		if _, err := other.Restore(bytes.NewReader(flipped)); err == nil {
			t.Fatalf("a snapshot with byte %d of %d changed was restored", i, len(in))
		}
		if _, err := other.Restore(bytes.NewReader(in[:i])); err == nil {
			t.Fatalf("a snapshot cut off at %d of %d was restored", i, len(in))
		}
	}
	boom := errors.New("the network went")
	if _, err := other.Restore(&failing{bytes.NewReader(in[:len(in)/2]), boom}); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	if !bytes.Equal(before, snapshot(t, other)) {
		t.Error("a refused snapshot changed the state")
	}
	if db.Err() != nil || other.Err() != nil {
		t.Error("a damaged stream is no damage of the database")
	}
}

type failing struct {
	r   *bytes.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	if f.r.Len() == 0 {
		return 0, f.err
	}
	return f.r.Read(p)
}

func TestASnapshotOfAnotherFederationIsRefused(t *testing.T) {
	db := open(t, state.Options{})
	furnish(t, db, 1)
	other := open(t, state.Options{ServerID: "server-2", Federation: "other.test"})
	if _, err := other.Restore(bytes.NewReader(snapshot(t, db))); !errors.Is(err, state.ErrForeign) {
		t.Errorf("%v", err)
	}
}

func TestReadersOfTheOldFileAreToldToRetry(t *testing.T) {
	db := open(t, state.Options{})
	furnish(t, db, 10)
	in := snapshot(t, db)
	watch := db.Watch("events")
	<-watch.C()
	old, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	reading, result := make(chan struct{}), make(chan error, 1)
	go func() {
		result <- db.View(context.Background(), func(tx *state.Tx) error {
			close(reading)
			for {
				if _, err := tx.VMs.Get("vm-000001"); err != nil {
					return err
				}
			}
		})
	}()
	<-reading
	restored := make(chan error)
	go func() {
		_, err := db.Restore(bytes.NewReader(in))
		restored <- err
	}()
	if err := <-result; !errors.Is(err, state.ErrRetry) {
		t.Errorf("the read ended with %v", err)
	}
	for err = nil; err == nil; _, err = old.WriteTo(&bytes.Buffer{}) { // whole, until it is told
	}
	if !errors.Is(err, state.ErrRetry) {
		t.Errorf("the snapshot ended with %v", err)
	}
	old.Release()
	if err := <-restored; err != nil {
		t.Fatal(err)
	}
	<-watch.C() // everybody looks again
	read(t, db, func(tx *state.Tx) error {
		_, err := tx.VMs.Get("vm-000001")
		return err
	})
}

// P17: a process that is killed anywhere in a restore leaves the old state or the new, whole.
func TestP17ARestoreSurvivesAKillAtAnyPoint(t *testing.T) {
	dir := t.TempDir()
	db := open(t, state.Options{})
	furnish(t, db, 3000)
	newer := snapshot(t, db)
	if err := os.WriteFile(filepath.Join(dir, "snapshot"), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	small := open(t, state.Options{})
	furnish(t, small, 2)
	older := snapshot(t, small)
	twin := open(t, state.Options{})
	if _, err := twin.Restore(bytes.NewReader(older)); err != nil {
		t.Fatal(err)
	}
	if err := writeBeforeRestore(twin); err != nil {
		t.Fatal(err)
	}
	want := snapshot(t, twin)
	for _, point := range []string{"loading", "filled", "built", "complete", "closed", "removed:1", "removed:2", "installed"} {
		t.Run(point, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(point, ":", "-")+".db")
			first := reopen(t, path, state.Options{})
			if _, err := first.Restore(bytes.NewReader(older)); err != nil {
				t.Fatal(err)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), "NARU_RESTORE_INTO="+path, "NARU_RESTORE_FROM="+filepath.Join(dir, "snapshot"), "NARU_KILL_AT="+point)
			out, err := child.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v\n%s", err, out)
			}
			again := reopen(t, path, state.Options{})
			got := snapshot(t, again)
			switch committed := point != "loading" && point != "filled" && point != "built"; {
			case committed && !bytes.Equal(got, newer):
				t.Error("the restore had happened, and is undone or in part")
			case !committed && !bytes.Equal(got, want):
				t.Error("the restore had not happened, and the old state is another")
			}
			put(t, again, vm(600_000))
			left, err := filepath.Glob(path + ".rest*")
			if err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}

// writeBeforeRestore leaves something that is only in the write-ahead log.
func writeBeforeRestore(db *state.DB) error {
	err := db.Update(func(tx *state.Tx) error {
		advance(tx)
		return errors.Join(tx.VMs.Put(vm(500_000)), tx.VMs.Put(vm(500_001)))
	})
	if err != nil {
		return err
	}
	return db.Update(func(tx *state.Tx) error {
		advance(tx)
		return tx.VMs.Delete(vm(500_001).GetId())
	})
}

// TestMain is also the process that is killed.
func TestMain(m *testing.M) {
	path := os.Getenv("NARU_RESTORE_INTO")
	if path == "" {
		os.Exit(m.Run())
	}
	if err := restoreAndDie(path, os.Getenv("NARU_RESTORE_FROM"), os.Getenv("NARU_KILL_AT")); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

// restoreAndDie restores, and kills its process at a step: "removed:2" is the second time of removed.
func restoreAndDie(path, from, at string) error {
	steps := map[string]int{}
	db, err := state.Open(path, state.Options{ServerID: "server-1"}.WithFailPoint(func(step string) {
		steps[step]++
		if step == at || fmt.Sprint(step, ":", steps[step]) == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}))
	if err != nil {
		return err
	}
	if err := writeBeforeRestore(db); err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	_, err = db.Restore(bytes.NewReader(b))
	return fmt.Errorf("not killed at %s: %v", at, err)
}

func FuzzRestore(f *testing.F) {
	db := open(f, state.Options{})
	furnish(f, db, 1)
	f.Add(snapshot(f, db))
	f.Add([]byte{})
	target := open(f, state.Options{ServerID: "server-2"})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := target.Restore(bytes.NewReader(b)); err == nil {
			snapshot(t, target) // what was accepted is whole
		}
		if target.Err() != nil {
			t.Fatal(target.Err())
		}
	})
}
