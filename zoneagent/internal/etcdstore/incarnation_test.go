package etcdstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// write commits n observed VMs with a journal entry each.
func (r *running) write(own *Ownership, names ...string) (at int64) {
	r.t.Helper()
	for _, name := range names {
		tx := r.Begin(own)
		tx.PutObserved(vm(name))
		tx.Journal(usage(name))
		at = r.commit(tx)
	}
	return at
}

func TestANewStoreMintsItsFirstIncarnation(t *testing.T) {
	a := newZone(t).one()
	life, over := a.Incarnation()
	if life.GetId() == "" || life.GetReason() != "the store is new" || life.GetMintedAt() == nil {
		t.Errorf("incarnation is %v", life)
	}
	select {
	case <-over:
		t.Error("it is over")
	default:
	}
}

// P24: the folder of an older time is put back.
func TestAnOlderFolderThatIsPutBackMintsAnIncarnation(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	a := z.open(c)
	a.write(a.own("cluster/c1"), "vm-1")
	first, _ := a.Incarnation()
	a.close()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(c.Dir, "etcd"))); err != nil {
		t.Fatal(err)
	}
	a = z.open(c)
	a.write(a.own("cluster/c1"), "vm-2", "vm-3", "vm-4", "vm-5")
	a.close()
	if err := errors.Join(os.RemoveAll(filepath.Join(c.Dir, "etcd")), os.Rename(copied, filepath.Join(c.Dir, "etcd"))); err != nil {
		t.Fatal(err)
	}

	a = z.open(c)
	second, _ := a.Incarnation()
	if second.GetId() == first.GetId() || !strings.Contains(second.GetReason(), "went back from revision") {
		t.Errorf("incarnation is %v", second)
	}
	a.close()
	a = z.open(c)
	if third, _ := a.Incarnation(); third.GetId() != second.GetId() {
		t.Errorf("another restart minted %v", third)
	}
}

// P24: a backup is restored; journals of the earlier life are still sent under their own name, new ones begin at 1.
func TestARestoredBackupBeginsANewIncarnationAndKeepsOldJournals(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	a := z.open(c)
	own := a.own("cluster/c1")
	a.write(own, "vm-1", "vm-2")
	link := a.own(UplinkName)
	if err := a.DesiredSink(link).Commit(t.Context(), &linkv1.StateChunk{Epoch: 3, Through: 9, Full: true, End: true,
		Objects: []*linkv1.Object{{Revision: 9, Noun: &linkv1.Object_Vm{Vm: vm("vm-1")}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.OrderSink(link).Commit(t.Context(), &linkv1.JournalBatch{Origin: "3", Stream: "zone", Entries: []*linkv1.JournalEntry{
		{Sequence: 1, Body: &linkv1.JournalEntry_Order{Order: &linkv1.Order{OperationId: "op", VmId: "vm-1", Verb: linkv1.Order_REBOOT}}},
	}}); err != nil {
		t.Fatal(err)
	}
	first, _ := a.Incarnation()
	var backup bytes.Buffer
	if err := Backup(t.Context(), a.cfg, &backup); err != nil {
		t.Fatal(err)
	}
	a.write(own, "vm-3")
	a.close()

	if err := Restore(t.Context(), c, bytes.NewReader(backup.Bytes())); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restore over data that is there: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(c.Dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), c, bytes.NewReader(backup.Bytes())); err != nil {
		t.Fatal(err)
	}
	a = z.open(c)
	second, _ := a.Incarnation()
	if second.GetId() == first.GetId() || !strings.Contains(second.GetReason(), "replaced") {
		t.Errorf("incarnation is %v", second)
	}
	if cursor := must(a.Cursor(t.Context())); !cursor.GetSyncing() || !cursor.GetBehind() || cursor.GetPoint().GetRevision() != 0 || cursor.GetPoint().GetEpoch() != 3 {
		t.Errorf("cursor is %v: no full sync is asked", cursor)
	}
	if _, err := a.Get(t.Context(), Order, "", "3/zone/00000000000000000001"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an order that may have been carried out since is to be carried out: %v", err)
	}
	if _, err := a.Get(t.Context(), Desired, "vm", "vm-1"); err != nil {
		t.Errorf("what was desired is gone: %v", err)
	}
	a.write(a.own("cluster/c1"), "vm-9")
	source := a.JournalSource(a.own(UplinkName))
	sent := map[string][]uint64{}
	for _, p := range must(source.Pending(t.Context())) {
		for _, e := range must(source.After(t.Context(), p, 100)).GetEntries() {
			sent[p.GetOrigin()] = append(sent[p.GetOrigin()], e.GetSequence())
		}
	}
	if len(sent[first.GetId()]) != 2 || len(sent[second.GetId()]) != 1 || sent[second.GetId()][0] != 1 {
		t.Errorf("journals are %v", sent)
	}
}

func TestADamagedBackupIsRefusedAndLeavesNothing(t *testing.T) {
	z := newZone(t)
	a := z.one()
	var backup bytes.Buffer
	if err := Backup(t.Context(), a.cfg, &backup); err != nil {
		t.Fatal(err)
	}
	c := z.config(2)
	for name, raw := range map[string][]byte{
		"damaged":   bytes.Replace(backup.Bytes(), []byte("incarnation"), []byte("incarnatiox"), 1),
		"cut short": backup.Bytes()[:backup.Len()-100],
	} {
		if err := Restore(t.Context(), c, bytes.NewReader(raw)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Restore(t.Context(), c, &backup); err != nil {
		t.Errorf("a sound one after that: %v", err)
	}
}

func TestABackupOfAnotherZoneIsRefused(t *testing.T) {
	z := newZone(t)
	a := z.one()
	var backup bytes.Buffer
	if err := Backup(t.Context(), a.cfg, &backup); err != nil {
		t.Fatal(err)
	}
	c := z.config(2)
	c.Zone = "0192f000-0000-7000-8000-00000000000f"
	if err := Restore(t.Context(), c, &backup); err == nil || !strings.Contains(err.Error(), "another zone's") {
		t.Errorf("restored: %v", err)
	}
	if err := Backup(t.Context(), Config{Zone: c.Zone, Agent: "agent-1", Dir: a.cfg.Dir, Member: a.cfg.Member}, &backup); err == nil ||
		!strings.Contains(err.Error(), "holds nothing of zone") {
		t.Errorf("backed up: %v", err)
	}
}

func TestABackupNeedsAnEtcdThatAnswers(t *testing.T) {
	c := newZone(t).config(1)
	c.RequestTimeout = 200 * time.Millisecond
	if err := Backup(t.Context(), c, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("backed up: %v", err)
	}
	c.Member, c.Endpoints = nil, []string{"http://127.0.0.1:2379"}
	for what, err := range map[string]error{
		"backup": Backup(t.Context(), c, nil), "restore": Restore(t.Context(), c, nil), "forget": ForgetMembers(t.Context(), c),
	} {
		if !errors.Is(err, errExternal) {
			t.Errorf("%s of an etcd of the operator's own: %v", what, err)
		}
	}
}

func TestAReplacedStoreIsSeenByARunningAgent(t *testing.T) {
	z := newZone(t)
	a := z.one()
	b := z.open(z.config(2, 1))
	first, over := b.Incarnation()
	own := b.own("cluster/c1")
	b.write(own, "vm-1")
	followed := make(chan Batch, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Follow(ctx, func(x Batch) error { followed <- x; return nil }) }()
	if x := <-followed; !x.Reset || x.Incarnation != first.GetId() {
		t.Errorf("first batch is %+v", x)
	}
	a.close()
	fresh := z.open(z.config(1))
	<-over
	second, _ := b.Incarnation()
	if second.GetId() == first.GetId() {
		t.Error("it is the same")
	}
	for x := range followed {
		if x.Reset && x.Incarnation == second.GetId() {
			break
		}
	}
	cancel()
	<-done
	tx := b.Begin(own)
	tx.PutObserved(vm("vm-2"))
	if _, err := tx.Commit(t.Context()); !errors.Is(err, ErrFenced) && !errors.Is(err, ErrConflict) {
		t.Errorf("an ownership of the store that was: %v", err)
	}
	eventually(t, "both agents agree on the incarnation", func() bool {
		x, _ := b.Incarnation()
		y, _ := fresh.Incarnation()
		return x.GetId() == y.GetId()
	})
	b.write(b.own("cluster/c2"), "vm-3")
}

func TestAgentsAgreeOnOneIncarnation(t *testing.T) {
	z := newZone(t)
	a := z.one()
	b := z.open(z.config(2, 1))
	c := z.open(z.config(3, 1))
	if err := b.Renew(t.Context(), "the control plane has seen more of it"); err != nil {
		t.Fatal(err)
	}
	want, _ := b.Incarnation()
	for _, r := range []*running{a, c} {
		eventually(t, r.cfg.Agent+" follows", func() bool {
			have, _ := r.Incarnation()
			return have.GetId() == want.GetId() && proto.Equal(have, want)
		})
	}
}

func TestATransactionOfAnEarlierIncarnationConflicts(t *testing.T) {
	a := newZone(t).one()
	own := a.own("cluster/c1")
	a.write(own, "vm-1", "vm-2")
	tx := a.Begin(own)
	tx.PutWork(&zonev1.Work{VmId: "vm-1"})
	if err := a.Renew(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); !errors.Is(err, ErrConflict) {
		t.Errorf("error is %v", err)
	}
	a.write(own, "vm-1")
	life, _ := a.Incarnation()
	if got := a.journal(life.GetId(), "c1"); len(got) != 1 || got[0].GetSequence() != 1 {
		t.Errorf("journal of the new incarnation is %v", got)
	}
}

func TestTheWitnessJudgesEachAnswerByWhenItWasAsked(t *testing.T) {
	a := newZone(t).one()
	m := a.witness.mark()
	a.write(a.own("cluster/c1"), "vm-1")
	old := must(a.client.Get(t.Context(), "x")).Header
	old.Revision = m.floor
	if err := a.witness.judge(m, old); err != nil {
		t.Errorf("an answer that overtook none: %v", err)
	}
	old.Revision = m.floor - 1
	if err := a.witness.judge(m, old); err == nil {
		t.Error("an answer from before it was asked is believed")
	}
	before, _ := a.Incarnation()
	if _, err := a.life(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, _ := a.Incarnation(); after.GetId() == before.GetId() {
		t.Error("no incarnation was minted")
	}
}

func TestAnAnchorThatCannotBeReadBeginsANewIncarnation(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	a := z.open(c)
	a.close()
	if err := os.WriteFile(filepath.Join(c.Dir, "anchor"), []byte{0xff, 1}, 0o600); err != nil {
		t.Fatal(err)
	}
	if life, _ := z.open(c).Incarnation(); !strings.Contains(life.GetReason(), "knows nothing") {
		t.Errorf("incarnation is %v", life)
	}
}

func TestTheAnchorIsNeverAheadOfTheStore(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	a := z.open(c)
	own := a.own("cluster/c1")
	for range 20 {
		a.write(own, "vm-1")
		onDisk := a.folder.anchor()
		at := must(a.client.Get(t.Context(), "x")).Header.Revision
		if onDisk.GetRevision() > uint64(at) {
			t.Fatalf("anchor at %d, store at %d", onDisk.GetRevision(), at)
		}
	}
	a.close()
	f := must(openFolder(c.Dir, c.Zone, c.Agent))
	defer f.close()
	if f.anchor().GetRevision() < 20 {
		t.Errorf("closing left the anchor at %d", f.anchor().GetRevision())
	}
}

// Behind lasts until a full sync has ended, whatever epoch begins meanwhile.
func TestAZoneIsBehindUntilAFullSyncHasEnded(t *testing.T) {
	z, metrics := newZone(t), prometheus.NewRegistry()
	config := z.config(1)
	config.Registerer = metrics
	a := z.idle(config)
	gauge := func() (n float64) {
		for _, f := range must(metrics.Gather()) {
			if f.GetName() == "naru_etcdstore_behind" {
				n = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return n
	}
	sink := a.DesiredSink(a.own(UplinkName))
	sync := func(epoch uint64, end bool) {
		t.Helper()
		point := must(sink.Point(t.Context())).GetRevision()
		if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: epoch, After: point, Through: point + 5, Full: true, End: end}); err != nil {
			t.Fatal(err)
		}
	}
	behind := func(when string, want bool) {
		t.Helper()
		if c := must(a.Cursor(t.Context())); c.GetBehind() != want {
			t.Errorf("%s the cursor is %v", when, c)
		}
	}
	sync(3, true)
	behind("in its first life", false)
	if err := a.Renew(t.Context(), "the control plane has seen more"); err != nil {
		t.Fatal(err)
	}
	behind("in a new life", true)
	if !a.tellBehind(t.Context(), false) || gauge() != 1 {
		t.Errorf("nobody is told that the zone waits: %v", gauge())
	}
	sync(3, false)
	behind("in the middle of the sync", true)
	if err := sink.BeginEpoch(t.Context(), 4, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	behind("in a new epoch", true)
	sync(4, true)
	behind("when a sync has ended", false)
	if a.tellBehind(t.Context(), true) || gauge() != 0 {
		t.Errorf("nobody is told that it goes on: %v", gauge())
	}
}
