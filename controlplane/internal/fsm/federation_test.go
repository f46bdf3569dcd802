package fsm_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func beginEpoch(epoch uint64) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{
		Epoch: epoch, EpochId: bytes.Repeat([]byte{byte(epoch)}, 16), Reason: "restored"}}}
}

func TestABootstrapFoundsTheFederationOnce(t *testing.T) {
	p := empty(t)
	for _, change := range []func(*commandv1.Bootstrap){
		func(b *commandv1.Bootstrap) { b.Federation = "" }, func(b *commandv1.Bootstrap) { b.Epoch = 0 },
		func(b *commandv1.Bootstrap) { b.EpochId = nil }, func(b *commandv1.Bootstrap) { b.Keyring = nil },
		func(b *commandv1.Bootstrap) { b.Server = nil }, func(b *commandv1.Bootstrap) { b.Epoch = 1 << 63 },
	} {
		c := bootstrap()
		change(c.GetBootstrap())
		p.refuse(problem.Invalid, c)
	}
	p.accept(bootstrap())
	other := bootstrap()
	other.GetBootstrap().Federation = "other.test"
	if got := p.refuse(problem.WrongState, other); !strings.Contains(got.GetDetail(), "example.test") {
		t.Errorf("refused with %v", got)
	}
	p.view(func(tx *state.Tx) {
		m := tx.Meta()
		if m.Federation != "example.test" || m.Epoch != 7 || m.Revision != 1 || m.FeatureLevel != 1 {
			t.Errorf("meta %+v", m)
		}
		if k, err := tx.Keyring(); err != nil || k.GetAuthorities()[0].GetRole() != "root" {
			t.Errorf("keyring %v, %v", k, err)
		}
		if get(t, tx.Servers, "server-1") == nil {
			t.Error("the first server is missing")
		}
	})
}

func TestANewEpochEndsSessionsAndUndoesTheFutureOfTheOld(t *testing.T) {
	p := furnished(t)
	p.accept(session(1, true))
	last := p.zone().GetRevision()
	var seen uint64
	p.view(func(tx *state.Tx) { seen = tx.Meta().Revision })
	for _, epoch := range []uint64{6, 7} {
		p.refuse(problem.Conflict, beginEpoch(epoch))
	}
	p.accept(beginEpoch(9))
	if z := p.zone(); z.GetState() != apiv1.Zone_DISCONNECTED || z.GetFreshness() != apiv1.Freshness_STALE {
		t.Errorf("zone %v", z)
	}
	p.view(func(tx *state.Tx) {
		m := tx.Meta()
		if m.Epoch != 9 || m.Revision != seen+1 || m.EpochBegan != seen {
			t.Errorf("meta %+v", m)
		}
		for text, want := range map[string]error{
			last: nil, state.RevisionText(7, seen): nil, state.RevisionText(7, seen+1): state.ErrCompacted,
			state.RevisionText(9, seen+1): nil, state.RevisionText(9, seen+2): state.ErrCompacted, state.RevisionText(10, 1): state.ErrCompacted,
		} {
			if _, err := m.After(text); err != want {
				t.Errorf("a watch at %s: %v, want %v", text, err, want)
			}
		}
	})
	p.accept(session(2, true))
	p.refuse(problem.Conflict, acknowledge(7, 1))
	p.accept(acknowledge(9, 1))
	p.accept(createVM(1))
	if g := p.vm(1).GetGeneration(); g.GetEpoch() != 9 {
		t.Errorf("generation %v", g)
	}
}

func TestPruneForgetsWhatHasOutlivedItsKeep(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(desire(1, apiv1.VM_DELETED, "op-old"))
	p.accept(fullSync(true, "i", 0, 1, tombstone(1)))
	p.accept(journal("i", "zone", happened(1, "old"), happened(2, "")))
	middle := p.now
	p.accept(createVM(2))
	open := createVM(3)
	p.accept(open)
	count := func() string {
		var ops, events uint64
		var err1, err2 error
		p.view(func(tx *state.Tx) {
			ops, err1 = tx.Operations.Count(nil, "")
			events, err2 = tx.Events.Count(nil, "")
		})
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		return fmt.Sprintf("%d operations, %d events, %d rejected", ops, events, len(p.rejections("i", "zone")))
	}
	if got := count(); got != "11 operations, 2 events, 1 rejected" { // those of the furniture are operations, too
		t.Errorf("before: %s", got)
	}
	prune := &commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{
		OperationsBefore: timestamppb.New(middle.Add(500 * time.Millisecond)), EventsBefore: timestamppb.New(middle.Add(500 * time.Millisecond))}}}
	p.accept(prune)
	if got := count(); got != "2 operations, 0 events, 0 rejected" {
		t.Errorf("after: %s", got)
	}
	if p.operation("op-create-2") == nil {
		t.Error("an open operation was forgotten")
	}
}

func TestTheFeatureLevelOnlyRisesAndStopsWhoDoesNotKnowIt(t *testing.T) {
	p := furnished(t)
	raise := func(level uint32) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_RaiseFeatureLevel{RaiseFeatureLevel: &commandv1.RaiseFeatureLevel{Level: level}}}
	}
	p.accept(raise(fsm.FeatureLevel))
	p.refuse(problem.WrongState, raise(0))
	before := p.snapshot()
	if _, err := p.machine.Apply([]fsm.Entry{p.entry(createVM(1)), p.entry(raise(fsm.FeatureLevel + 1))}); err == nil {
		t.Fatal("a level that this version does not know was applied")
	}
	if !bytes.Equal(before, p.snapshot()) {
		t.Error("part of the batch was applied")
	}
}

func TestOperationsExpireAndAreResolved(t *testing.T) {
	p := furnished(t)
	for n := 1; n <= 3; n++ {
		p.accept(createVM(n))
	}
	p.accept(expire("op-create-1", "op-none"))
	if p.operation("op-create-1").GetDone() {
		t.Error("an operation expired before its deadline")
	}
	generation := p.vm(2).GetGeneration().GetIndex()
	p.accept(resolve("op-create-2", apiv1.ResolveOperationRequest_RETRY))
	again := resolve("op-create-2", apiv1.ResolveOperationRequest_RETRY)
	again.GetResolveOperation().Deadline = timestamppb.New(start.Add(time.Hour))
	p.accept(again)
	if d := p.operation("op-create-2").GetDeadline().AsTime(); !d.Equal(start.Add(time.Hour)) {
		t.Errorf("tried again, it has the deadline %v", d)
	}
	if g := p.vm(2).GetGeneration().GetIndex(); g <= generation || p.operation("op-create-2").GetDone() {
		t.Errorf("generation %d after %d", g, generation)
	}
	p.accept(resolve("op-create-2", apiv1.ResolveOperationRequest_SUCCEED))
	p.refuse(problem.WrongState, resolve("op-create-2", apiv1.ResolveOperationRequest_FAIL))
	p.accept(resolve("op-create-3", apiv1.ResolveOperationRequest_FAIL))
	if op := p.operation("op-create-3"); !op.GetDone() || !strings.Contains(op.GetError().GetDetail(), "seen by eye") {
		t.Errorf("operation %v", op)
	}
	p.accept(desire(1, apiv1.VM_STOPPED, "op-stop"))
	p.refuse(problem.WrongState, resolve("op-create-1", apiv1.ResolveOperationRequest_RETRY)) // no longer the newest wish
	p.refuse(problem.Invalid, resolve("op-create-1", 0))
	p.refuse(problem.NotFound, resolve("op-none", apiv1.ResolveOperationRequest_FAIL))
	p.now = start.Add(2 * time.Hour)
	p.accept(expire("op-create-1", "op-none"))
	if op := p.operation("op-create-1"); !op.GetDone() || op.GetError().GetCode() != string(problem.Timeout) {
		t.Errorf("operation %v", op)
	}
	p.view(func(tx *state.Tx) {
		due, err := tx.DueOperations(p.now.UnixMicro(), 10)
		if err != nil || len(due) != 1 || due[0].GetId() != "op-stop" {
			t.Errorf("due are %v, %v", due, err)
		}
	})
}

func TestWhatHappensToAServerIsRecordedAsAnEvent(t *testing.T) {
	p := furnished(t)
	record := func(e *apiv1.Event) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_RecordEvent{RecordEvent: &commandv1.RecordEvent{Event: e}}}
	}
	p.accept(record(&apiv1.Event{Severity: apiv1.Event_WARNING, Type: "server.clock", Message: "its clock has jumped"}))
	if n := p.events()["server.clock"]; n != 1 {
		t.Errorf("%d events", n)
	}
	p.refuse(problem.Invalid, record(&apiv1.Event{Type: "server.clock", Message: "of no severity"}))
	p.refuse(problem.Invalid, record(nil))
}

func TestP23ADivergenceNamesWhoHasWhatAndTheWayOut(t *testing.T) {
	p := furnished(t)
	p.accept(&commandv1.Command{Body: &commandv1.Command_PutServer{PutServer: &commandv1.PutServer{Server: &apiv1.Server{Id: "id-2", Name: "two"}}}})
	report := func(agreed byte, sums ...byte) *commandv1.Command {
		r := &commandv1.ReportDivergence{Index: 77}
		for i, s := range sums {
			r.Servers = append(r.Servers, &commandv1.ReportDivergence_Server{ServerId: fmt.Sprintf("id-%d", i+1), Sum: []byte{s}})
		}
		if agreed != 0 {
			r.Agreed = []byte{agreed}
		}
		return &commandv1.Command{Body: &commandv1.Command_ReportDivergence{ReportDivergence: r}}
	}
	p.accept(report(0xaa, 0xaa, 0xbb, 0xaa))
	p.accept(report(0, 0xaa, 0xbb))
	p.refuse(problem.Invalid, report(0))
	var said []string
	if err := p.db.View(t.Context(), func(tx *state.Tx) error {
		for e, err := range tx.Events.All(nil) {
			if err != nil {
				return err
			}
			if e.GetType() == "federation.diverged" && e.GetSeverity() == apiv1.Event_ERROR {
				said = append(said, e.GetMessage())
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(said)
	if len(said) != 2 || !strings.Contains(said[0], "entry 77") || !strings.Contains(said[0], "two has bb, id-3 has aa; two stops: remove it") ||
		!strings.Contains(said[1], "id-1 has aa, two has bb; no hash is that of most") {
		t.Errorf("%q", said)
	}
}
