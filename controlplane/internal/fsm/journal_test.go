package fsm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func report(seq uint64, op string, change func(*linkv1.OperationReport)) *linkv1.JournalEntry {
	r := &linkv1.OperationReport{OperationId: op}
	change(r)
	return &linkv1.JournalEntry{Sequence: seq, Time: timestamppb.New(start), Body: &linkv1.JournalEntry_Operation{Operation: r}}
}

func used(seq uint64, vm string, at time.Time) *linkv1.JournalEntry {
	return &linkv1.JournalEntry{Sequence: seq, Time: timestamppb.New(at), Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{
		VmId: vm, State: apiv1.VM_RUNNING, Size: &apiv1.Resources{Cores: 1}, Number: 1, At: timestamppb.New(at), ClockId: "clock"}}}
}

func (p *plane) received(origin, stream string) (sequence uint64) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if sequence, _, err = tx.JournalPoint(state.Journal{ZoneID: "z-business", Origin: origin, Stream: stream}); err != nil {
			p.Fatal(err)
		}
	})
	return sequence
}

func (p *plane) rejections(origin, stream string) (reasons []string) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		all, err := tx.Rejected(state.Journal{ZoneID: "z-business", Origin: origin, Stream: stream}, 1, 1000)
		if err != nil {
			p.Fatal(err)
		}
		for _, r := range all {
			reasons = append(reasons, fmt.Sprintf("%d: %s", r.GetEntry().GetSequence(), r.GetReason()))
		}
	})
	return reasons
}

func TestEachEntryOfAJournalIsConsumedOnceAndInOrder(t *testing.T) {
	p := furnished(t)
	p.accept(journal("inc-1", "c-kvm", happened(1, "e1"), happened(2, "e2")))
	p.accept(journal("inc-1", "c-kvm", happened(1, "e1"), happened(2, "e2"), happened(3, "e3"))) // sent again and longer
	p.accept(journal("inc-1", "c-kvm", happened(2, "e2")))
	p.accept(journal("inc-1", "zone", happened(1, "z1"))) // another stream has its own numbers
	p.accept(journal("inc-2", "c-kvm", happened(1, "f1")))
	if got := p.refuse(problem.Conflict, journal("inc-1", "c-kvm", happened(5, "e5"))); !strings.Contains(got.GetNext(), "from 4") {
		t.Errorf("a gap is answered with %v", got)
	}
	p.refuse(problem.Invalid, journal("inc-1", "c-kvm", happened(4, "e4"), happened(6, "e6")))
	p.refuse(problem.Invalid, journal("inc-1", "c-kvm", happened(0, "e0")))
	p.refuse(problem.Invalid, journal("inc-1", "", happened(1, "x")))
	p.refuse(problem.NotFound, func() *commandv1.Command {
		c := journal("inc-1", "c-kvm", happened(4, "e4"))
		c.GetAppendJournal().ZoneId = "z-x"
		return c
	}())
	if got := p.received("inc-1", "c-kvm"); got != 3 {
		t.Errorf("received up to %d", got)
	}
	if n := p.events()["host.down"]; n != 5 {
		t.Errorf("%d events, want each once", n)
	}
}

func TestAnOperationGoesForwardAndItsEndIsFinal(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(fullSync(true, "i", 0, 1, p.answering(1, apiv1.VM_RUNNING)))
	running := func(name string, progress uint32) func(*linkv1.OperationReport) {
		return func(r *linkv1.OperationReport) {
			r.Step, r.Progress = &apiv1.Operation_Step{Name: name, State: apiv1.Operation_Step_RUNNING, Message: "on kvm-1"}, progress
		}
	}
	p.accept(journal("i", "c-kvm", report(1, "op-create-1", running("placed", 40)), report(2, "op-create-1", running("placed", 20)),
		report(3, "op-create-1", running("start", 250))))
	op := p.operation("op-create-1")
	if op.GetProgress() != 99 || len(op.GetSteps()) != 3 || op.GetDone() || op.GetSteps()[1].GetName() != "placed" || op.GetSteps()[1].GetAt() == nil {
		t.Errorf("operation %v", op)
	}
	p.accept(journal("i", "c-kvm", report(4, "op-create-1", func(r *linkv1.OperationReport) { r.Done = true })))
	p.accept(journal("i", "c-kvm", report(5, "op-create-1", func(r *linkv1.OperationReport) {
		r.Done, r.Error = true, &apiv1.Problem{Code: "DRIVER_FAILED"}
	})))
	if op = p.operation("op-create-1"); !op.GetDone() || op.GetError() != nil || op.GetFinishedAt() == nil {
		t.Errorf("operation %v", op)
	}
	if got := p.rejections("i", "c-kvm"); len(got) != 1 || !strings.Contains(got[0], "5: operation op-create-1 is done") {
		t.Errorf("rejected %q", got)
	}
}

func TestWhatCannotBeAcceptedIsConsumedAndRecorded(t *testing.T) {
	p := furnished(t)
	p.accept(createZone("internet"))
	p.accept(createVM(1))
	about := func(seq uint64, id, vm string) *linkv1.JournalEntry {
		e := happened(seq, id)
		e.GetEvent().Target, e.GetEvent().Project = &apiv1.Reference{Kind: "vm", Id: vm}, "theirs"
		return e
	}
	c := journal("i", "zone",
		report(1, "op-create-1", func(r *linkv1.OperationReport) { r.Done = true }), // another zone's operation
		report(2, "op-none", func(*linkv1.OperationReport) {}),
		about(3, "e3", "vm-1"),    // another zone's VM
		used(4, "vm-1", start),    // likewise
		used(5, "vm-none", start), // of a VM that never was
		happened(6, "e6"),
		happened(7, "e6"), // an id that is taken
		happened(8, ""),
		&linkv1.JournalEntry{Sequence: 9, Body: &linkv1.JournalEntry_Order{Order: &linkv1.Order{}}},
		&linkv1.JournalEntry{Sequence: 10},
		used(11, "", start),
	)
	c.GetAppendJournal().ZoneId = "z-internet"
	p.accept(c)
	var reasons []string
	p.view(func(tx *state.Tx) {
		all, err := tx.Rejected(state.Journal{ZoneID: "z-internet", Origin: "i", Stream: "zone"}, 1, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			reasons = append(reasons, fmt.Sprint(r.GetEntry().GetSequence()))
			if r.GetReason() == "" {
				t.Errorf("entry %v was rejected without a reason", r.GetEntry())
			}
		}
		if usage, err := tx.UsageOf("vm-none"); len(usage) != 0 || err != nil {
			t.Errorf("usage of a VM that never was: %v, %v", usage, err)
		}
		if usage, err := tx.UsageOf("vm-1"); len(usage) != 0 || err != nil {
			t.Errorf("another zone reported usage: %v, %v", usage, err)
		}
		if m := get(t, tx.Events, "e6"); m.GetZone() != "internet" || m.GetProject() != "" {
			t.Errorf("event %v", m)
		}
	})
	if got := strings.Join(reasons, " "); got != "1 2 3 4 5 7 8 9 10 11" {
		t.Errorf("rejected %s", got)
	}
	if p.operation("op-create-1").GetDone() {
		t.Error("another zone ended an operation")
	}
	p.accept(journal("i", "zone", about(1, "mine", "vm-1"), used(2, "vm-1", start.Add(time.Hour)), used(3, "vm-1", start)))
	p.view(func(tx *state.Tx) {
		if m := get(t, tx.Events, "mine"); m.GetProject() != "shop" || m.GetZone() != "business" {
			t.Errorf("an event of a VM belongs to %q in %q, not to the VM's project", m.GetProject(), m.GetZone())
		}
		usage, err := tx.UsageOf("vm-1")
		if err != nil || len(usage) != 2 || !usage[0].GetEndsAt().AsTime().Equal(start) {
			t.Errorf("usage by time: %v, %v", usage, err)
		}
	})
}

// P15, P21: an event is as old as the federation's clock says, not younger, whatever its zone's says: else it stayed for ever.
func TestAnEventOfTheFutureIsOfTodayAndForgottenInTime(t *testing.T) {
	p := furnished(t)
	ahead := happened(1, "ahead")
	ahead.GetEvent().Time = timestamppb.New(start.AddDate(7000, 0, 0))
	p.accept(journal("i", "zone", ahead))
	p.view(func(tx *state.Tx) {
		if got := get(t, tx.Events, "ahead").GetTime().AsTime(); !got.Equal(p.now) {
			t.Errorf("it is of %v", got)
		}
	})
	p.now = p.now.Add(time.Hour)
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{EventsBefore: timestamppb.New(p.now)}}})
	p.view(func(tx *state.Tx) {
		if _, err := tx.Events.Get("ahead"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
	})
}

func TestEntriesLostWithAnEpochDoNotBlockTheJournal(t *testing.T) {
	p := furnished(t)
	p.accept(journal("i", "zone", happened(1, "e1"), happened(2, "e2")))
	p.refuse(problem.Conflict, journal("i", "zone", happened(9, "e9")))
	p.accept(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: 9, EpochId: make([]byte, 16)}}})
	p.refuse(problem.Conflict, journal("j", "zone", happened(9, "e9"))) // a stream of which nothing was ever acknowledged has all
	p.accept(journal("i", "zone", happened(9, "e9")))
	if got := p.received("i", "zone"); got != 9 || p.events()["zone.journal-lost"] != 1 {
		t.Errorf("received up to %d, events %v", got, p.events())
	}
	p.refuse(problem.Conflict, journal("i", "zone", happened(12, "e12"))) // only once
}
