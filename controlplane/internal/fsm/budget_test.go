package fsm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// flood appends entries to a journal of the zone, as many to a batch as it takes.
func (p *plane) flood(from, through uint64, entry func(seq uint64) *linkv1.JournalEntry) {
	p.Helper()
	for seq := from; seq <= through; {
		var entries []*linkv1.JournalEntry
		for ; seq <= through && len(entries) < 256; seq++ {
			entries = append(entries, entry(seq))
		}
		p.accept(journal("i", "flood", entries...))
	}
}

func (p *plane) usage(vm string) (n int) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		entries, err := tx.UsageOf(vm)
		if err != nil {
			p.Fatal(err)
		}
		n = len(entries)
	})
	return n
}

func (p *plane) held() (n int) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if n, err = tx.HeldVMs("z-business"); err != nil {
			p.Fatal(err)
		}
	})
	return n
}

func inventedUsage(seq uint64) *linkv1.JournalEntry {
	return used(seq, fmt.Sprintf("invented-%d", seq), start)
}

func TestP15TheStateKeepsABoundedShareOfWhatAZoneReports(t *testing.T) {
	p := furnished(t)
	p.accept(happenedOnce("before"))
	const bound, more = 20_000, 3_000
	p.flood(1, bound+more, func(seq uint64) *linkv1.JournalEntry { return happened(seq, fmt.Sprintf("e-%d", seq)) })
	if n := p.events()["host.down"]; n != bound {
		t.Errorf("%d events of a zone that has reported %d are kept", n, bound+more)
	}
	p.view(func(tx *state.Tx) {
		if _, err := tx.Events.Get("e-3000"); err == nil {
			t.Error("an old event is kept in place of a new one")
		}
		get(t, tx.Events, fmt.Sprintf("e-%d", bound+more))
	})
	if n := p.events()["server.clock"]; n != 1 {
		t.Error("the flood pushed out what the plane has told of itself")
	}
}

// happenedOnce is an event that no zone has a say in.
func happenedOnce(message string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_RecordEvent{RecordEvent: &commandv1.RecordEvent{
		Event: &apiv1.Event{Severity: apiv1.Event_INFO, Type: "server.clock", Zone: "business", Message: message}}}}
}

func TestP15UsageIsKeptOnlyOfVMsThatAreOrWereTheZones(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	const bound, invented = 10_000, 10_500
	p.flood(1, invented, inventedUsage)
	p.accept(journal("i", "flood", used(invented+1, "vm-1", start)))
	if n := p.usage("invented-1") + p.usage(fmt.Sprintf("invented-%d", invented)); n != 0 {
		t.Errorf("usage of %d invented VMs is kept", n)
	}
	if n := p.usage("vm-1"); n != 1 {
		t.Errorf("%d entries of a VM that is the zone's are kept", n)
	}
	p.view(func(tx *state.Tx) {
		j := state.Journal{ZoneID: "z-business", Origin: "i", Stream: "flood"}
		kept, err := tx.Rejected(j, 1, invented)
		if err != nil || len(kept) != bound || kept[0].GetEntry().GetSequence() != invented-bound+1 {
			t.Errorf("%d rejections are kept, %v", len(kept), err)
		}
	})
}

func TestTheLastUsageOfAVMCountsThoughItComesBehindItsTombstone(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
	p.accept(fullSync(true, "inc-1", 0, 1, tombstone(1)))
	p.view(func(tx *state.Tx) {
		if _, err := tx.VMs.Get("vm-1"); err == nil {
			t.Fatal("the VM is still there")
		}
	})
	p.accept(journal("i", "zone", used(1, "vm-1", start)))
	if n := p.usage("vm-1"); n != 1 {
		t.Errorf("%d entries are kept", n)
	}
	p.accept(createZone("internet"))
	c := journal("i", "zone", used(1, "vm-1", start))
	c.GetAppendJournal().ZoneId = "z-internet"
	p.accept(c)
	if n := p.usage("vm-1"); n != 1 {
		t.Error("another zone reported usage of it")
	}
	p.now = p.now.Add(40 * 24 * time.Hour)
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{EventsBefore: timestamppb.New(p.now)}}})
	p.accept(journal("i", "zone", used(2, "vm-1", start)))
	if n := p.usage("vm-1"); n != 2 {
		t.Errorf("long after, it is still believed, or not ended: %d records", n)
	}
}

func TestP15AZoneHasABoundedNumberOfJournals(t *testing.T) {
	p := furnished(t)
	p.accept(session(1, true)) // of the incarnation inc-1
	stream := func(n int) *commandv1.Command {
		return journal(fmt.Sprintf("inc-%d", n), "zone", happened(1, fmt.Sprintf("e-%d", n)))
	}
	const bound = 1000
	for n := range bound {
		p.accept(stream(n + 1))
	}
	if got := p.refuse(problem.TooMany, stream(bound+1)); !strings.Contains(got.GetDetail(), "1000 journals") {
		t.Errorf("%v", got)
	}
	p.accept(journal("inc-9", "zone", happened(2, "known"))) // one that is known goes on
	p.now = p.now.Add(31 * 24 * time.Hour)
	p.accept(journal("inc-8", "zone", happened(2, "late")))
	p.accept(stream(bound + 1))
	for origin, want := range map[string]uint64{"inc-1": 1, "inc-8": 2, "inc-9": 0, fmt.Sprintf("inc-%d", bound+1): 1} {
		if got := p.received(origin, "zone"); got != want {
			t.Errorf("journal of %s is known up to %d, want %d", origin, got, want)
		}
	}
}

// unknown is a VM that nobody wished.
func unknown(n int) *linkv1.Object {
	return &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Vm{Vm: &apiv1.VM{Id: fmt.Sprintf("unknown-%d", n), State: apiv1.VM_RUNNING}}}
}

func TestP15VMsThatAreHeldAreBoundedAndTheRestIsAskedForOnceTheyAreGone(t *testing.T) {
	p := furnished(t)
	const bound = 1000
	after := uint64(0)
	report := func(objects ...*linkv1.Object) {
		t.Helper()
		for ; len(objects) > 0; after++ {
			n := min(len(objects), 128)
			c := observe("inc-1", after, after+1, objects[:n]...)
			if after == 0 {
				c = fullSync(true, "inc-1", 0, 1, objects[:n]...)
			}
			p.accept(c)
			objects = objects[n:]
		}
	}
	var all, gone []*linkv1.Object
	for n := range bound + 200 {
		all = append(all, unknown(n))
		gone = append(gone, &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Tombstone{Tombstone: &linkv1.Tombstone{
			Noun: &apiv1.Reference{Kind: "vm", Id: fmt.Sprintf("unknown-%d", n)}}}})
	}
	report(all...)
	if n := p.held(); n != bound {
		t.Fatalf("%d VMs are held", n)
	}
	if p.events()["zone.vms-left-out"] == 0 {
		t.Error("nobody is told that some were left out")
	}
	for seq := range uint64(200) {
		p.accept(journal("i", "zone", used(seq+1, "unknown-1", start)))
	}
	if n := p.usage("unknown-1"); n != 64 {
		t.Errorf("%d entries of usage are kept of a VM that is held", n)
	}
	report(gone[:bound-1]...)
	if _, revision := p.point(); p.held() != 1 || revision != after {
		t.Fatalf("%d are held, the point is %d", p.held(), revision)
	}
	report(gone[bound-1])
	if _, revision := p.point(); p.held() != 0 || p.usage("unknown-1") != 0 {
		t.Errorf("%d are held, the point is %d, usage of a VM that is not held any more: %d", p.held(), revision, p.usage("unknown-1"))
	}
	p.view(func(tx *state.Tx) {
		if gone, err := tx.IsDesiredGone("z-business", "vm", "unknown-1"); gone || err != nil {
			t.Errorf("a tombstone for a VM that its zone has invented: %v, %v", gone, err)
		}
	})
	after = 0
	report(all[bound:]...)
	if n := p.held(); n != 200 {
		t.Errorf("of those that were left out %d are held now", n)
	}
}

func TestP15AHeldVMTakesABoundedRoom(t *testing.T) {
	p := furnished(t)
	fat := unknown(1)
	fat.GetVm().Error = &apiv1.Problem{Code: "X", Detail: strings.Repeat("x", 8192)}
	p.accept(fullSync(true, "inc-1", 0, 1, fat))
	p.accept(observe("inc-1", 1, 2, fat))
	p.view(func(tx *state.Tx) {
		if n := proto.Size(get(t, tx.VMs, "unknown-1")); n > 4<<10 {
			t.Errorf("it takes %d bytes", n)
		}
	})
}

func TestP15AfterARestoreAZoneHasOnlySoMuchAdopted(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: 9, EpochId: make([]byte, 16)}}})
	const budget, size = 64 << 20, 16 << 10
	forged := func(n int) *linkv1.Object {
		m := web(n)
		m.State, m.Generation, m.UserData = apiv1.VM_RUNNING, &apiv1.Generation{Epoch: 7, Index: 1 << 40}, strings.Repeat("x", size)
		return &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Vm{Vm: m}}
	}
	through := uint64(0)
	for n := 2; n < budget/size+512; {
		var objects []*linkv1.Object
		for ; len(objects) < 128; n++ {
			objects = append(objects, forged(n))
		}
		through++
		p.accept(fullSync(false, "inc-1", through-1, through, objects...))
	}
	var adopted uint64
	p.view(func(tx *state.Tx) {
		var err error
		if adopted, err = tx.VMs.Count(state.Scope{"project_id": "p-shop"}, ""); err != nil {
			t.Fatal(err)
		}
	})
	if adopted < budget/size*9/10 || adopted > budget/size {
		t.Errorf("%d VMs of %d KiB were adopted", adopted, size>>10)
	}
	if p.held() == 0 {
		t.Error("the rest is not held")
	}
}

func TestAfterARestoreUsageOfWhatTheBackupMayHaveForgottenIsBelievedWithinABound(t *testing.T) {
	p := furnished(t)
	p.accept(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: 9, EpochId: make([]byte, 16)}}})
	const bound = 10_000
	p.flood(1, bound+10, inventedUsage)
	if p.usage("invented-1") != 1 || p.usage(fmt.Sprintf("invented-%d", bound)) != 1 || p.usage(fmt.Sprintf("invented-%d", bound+1)) != 0 {
		t.Error("the bound does not hold")
	}
}

func TestP15AZoneThatSaysInOneBreathThatAVMIsThereAndGoneStopsNothing(t *testing.T) {
	p := furnished(t)
	gone := &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Tombstone{Tombstone: &linkv1.Tombstone{Noun: &apiv1.Reference{Kind: "vm", Id: "unknown-1"}}}}
	p.accept(fullSync(true, "inc-1", 0, 1, unknown(1), gone, unknown(1), gone, unknown(1)))
	p.accept(observe("inc-1", 1, 2, gone, unknown(1), gone, unknown(1), gone))
	p.view(func(tx *state.Tx) {
		if _, err := tx.VMs.Get("unknown-1"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("in the end it is there: %v", err)
		}
	})
}
