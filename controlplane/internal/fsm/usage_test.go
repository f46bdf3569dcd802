package fsm_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// meter writes the chain of one VM as its zone does.
type meter struct {
	vm     string
	newest *apiv1.VM_Usage
}

// to is the next link, of so many seconds after the tests' start.
func (m *meter) to(origin string, seconds int64, s apiv1.VM_State, cores uint32) *linkv1.JournalEntry {
	was := m.newest
	at := timestamppb.New(start.Add(time.Duration(seconds) * time.Second))
	m.newest = &apiv1.VM_Usage{Number: was.GetNumber() + 1, IncarnationId: origin, ClockId: "clock", At: at, State: s, Size: &apiv1.Resources{Cores: cores, MemoryMib: 96, DiskGib: 1}}
	return &linkv1.JournalEntry{Time: at, Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{
		VmId: m.vm, State: s, Size: m.newest.GetSize(), Number: m.newest.GetNumber(), At: at, ClockId: "clock", Was: was}}}
}

// numbered gives entries the numbers that follow on one.
func numbered(after uint64, entries ...*linkv1.JournalEntry) []*linkv1.JournalEntry {
	for i, e := range entries {
		e.Sequence = after + uint64(i) + 1
	}
	return entries
}

// records are those of a VM, each in a word.
func (p *plane) records(vm string) (words []string) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		all, err := tx.UsageOf(vm)
		if err != nil {
			p.Fatal(err)
		}
		for _, m := range all {
			sign := ""
			if m.GetSubtracts() {
				sign = "-"
			}
			words = append(words, fmt.Sprintf("%s%s %d-%d %s %s%v", sign, m.GetKind(), m.GetStartsAt().GetSeconds()-start.Unix(), m.GetEndsAt().GetSeconds()-start.Unix(),
				m.GetState(), m.GetProject(), m.GetMarks()))
		}
	})
	return words
}

// seconds sums up a window, in seconds after the tests' start: how long VMs were in each state, and core-seconds.
func (p *plane) seconds(from, until int64, scope state.Scope) map[string]int64 {
	p.Helper()
	out := map[string]int64{}
	p.view(func(tx *state.Tx) {
		sums, err := state.SumUsage(tx.UsageRecords, state.UsageQuery{From: start.Unix() + from, Until: start.Unix() + until, Scope: scope, Limit: 1})
		if err != nil {
			p.Fatal(err)
		}
		for _, sum := range sums {
			for _, part := range sum.Parts {
				if part.Seconds != 0 {
					out[part.State.String()] += part.Seconds
					out["cores"] += part.Seconds * int64(part.Cores)
				}
			}
		}
	})
	for k, n := range out {
		if n == 0 {
			delete(out, k)
		}
	}
	return out
}

func (p *plane) spent(t interface {
	Helper()
	Errorf(string, ...any)
}, from, until int64, scope state.Scope, want map[string]int64) {
	t.Helper()
	if got := p.seconds(from, until, scope); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("from %d until %d in %v: %v, not %v", from, until, scope, got, want)
	}
}

func TestUseIsSummedUpByWhoseAndWhereItIs(t *testing.T) {
	p := furnished(t)
	c := createVM(1)
	vm := c.GetCreateVm().GetVm()
	vm.Offering, vm.OfferingId, vm.OfferingVersion, vm.Request = "web-server", "o-1", 3, "r-7"
	p.accept(c)
	m := &meter{vm: "vm-1"}
	p.accept(journal("i", "c-kvm", numbered(0, m.to("i", 10, apiv1.VM_RUNNING, 2), m.to("i", 20, apiv1.VM_STOPPED, 2), m.to("i", 50, apiv1.VM_RUNNING, 4))...))
	p.view(func(tx *state.Tx) {
		all, err := tx.UsageOf("vm-1")
		if err != nil || len(all) != 3 {
			t.Fatalf("%v, %v", all, err)
		}
		got := proto.CloneOf(all[1])
		if got.GetId() == "" || got.GetRecordedAt() == nil || got.GetRevision() == "" {
			t.Errorf("%v", got)
		}
		got.Id, got.RecordedAt, got.Revision = "", nil, ""
		want := &apiv1.UsageRecord{
			Kind: apiv1.UsageRecord_STOPPED, Vm: "web-1", VmId: "vm-1", Project: "shop", ProjectId: "p-shop", Organization: "home", OrganizationId: "o-home",
			Zone: "business", ZoneId: "z-business", Cluster: "kvm", ClusterId: "c-kvm", Offering: "web-server", OfferingId: "o-1", OfferingVersion: 3, Request: "r-7",
			StartsAt: timestamppb.New(start.Add(10 * time.Second)), EndsAt: timestamppb.New(start.Add(20 * time.Second)), State: apiv1.VM_RUNNING,
			Size: &apiv1.Resources{Cores: 2, MemoryMib: 96, DiskGib: 1}, NextState: apiv1.VM_STOPPED, NextSize: &apiv1.Resources{Cores: 2, MemoryMib: 96, DiskGib: 1},
			Number: 2, IncarnationId: "i", ClockId: "clock",
		}
		if !proto.Equal(got, want) {
			t.Errorf("%v\nnot %v", got, want)
		}
	})
	p.spent(t, 0, 60, nil, map[string]int64{"RUNNING": 20, "STOPPED": 30, "cores": 10*2 + 30*2 + 10*4})
	p.spent(t, 15, 30, state.Scope{"project_id": "p-shop"}, map[string]int64{"RUNNING": 5, "STOPPED": 10, "cores": 30})
	p.spent(t, 0, 10, nil, map[string]int64{})
	p.spent(t, 0, 1000, state.Scope{"organization_id": "o-other"}, map[string]int64{})
	p.view(func(tx *state.Tx) {
		sums, err := state.SumUsage(tx.UsageRecords, state.UsageQuery{From: 0, Until: start.Unix() + 60, By: "vm_id", Limit: 1})
		if err != nil || len(sums) != 1 || sums[0].Key != "vm-1" || sums[0].Common["project"] != "shop" || sums[0].GoingOn != 1 || sums[0].Marked != 0 {
			t.Errorf("%+v, %v", sums, err)
		}
	})
}

func TestUseOfAVMThatIsGoneGoesOnNoLongerAndEndsWhenItsZoneSaysSo(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(createVM(2))
	one, two := &meter{vm: "vm-1"}, &meter{vm: "vm-2"}
	p.accept(journal("i", "c-kvm", numbered(0, one.to("i", 0, apiv1.VM_RUNNING, 1), two.to("i", 0, apiv1.VM_RUNNING, 1))...))
	p.accept(desire(1, apiv1.VM_DELETED, "op-1"))
	p.accept(desire(2, apiv1.VM_DELETED, "op-2"))
	p.accept(fullSync(true, "i", 0, 1, tombstone(1), tombstone(2)))
	gone := p.now.Unix() - start.Unix()
	p.spent(t, 0, 1000, nil, map[string]int64{"RUNNING": 2 * gone, "cores": 2 * gone})
	p.accept(journal("i", "c-kvm", numbered(2, one.to("i", gone-3, apiv1.VM_DELETED, 1))...))
	want := map[string]int64{"RUNNING": 2*gone - 3, "cores": 2*gone - 3}
	p.spent(t, 0, 1000, nil, want)
	p.now = p.now.Add(40 * 24 * time.Hour)
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{EventsBefore: timestamppb.New(p.now)}}})
	p.spent(t, 0, 1000, nil, want)
	if got := fmt.Sprint(p.records("vm-2")); got != fmt.Sprintf("[BEGUN 0-0 STATE_UNSPECIFIED shop[] ADJUSTMENT 0-%d RUNNING shop[UNTOLD]]", gone) {
		t.Errorf("%s", got)
	}
	if p.events()["usage.adjusted"] != 1 {
		t.Errorf("events %v", p.events())
	}
}

func TestAWithheldLinkIsFilledByWhatFollows(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	m := &meter{vm: "vm-1"}
	p.accept(journal("i", "c-kvm", numbered(0, m.to("i", 0, apiv1.VM_RUNNING, 1))...))
	m.to("i", 30, apiv1.VM_STOPPED, 1)
	p.accept(&commandv1.Command{Body: &commandv1.Command_ConsumeWithheld{ConsumeWithheld: &commandv1.ConsumeWithheld{ZoneId: "z-business", Withheld: &linkv1.Withheld{
		Type: linkv1.Type_JOURNAL_BATCH, Reason: "no", Digest: []byte{1}, Entry: &linkv1.JournalPoint{Origin: "i", Stream: "c-kvm", Sequence: 2}}}}})
	p.accept(journal("i", "c-kvm", numbered(2, m.to("i", 50, apiv1.VM_RUNNING, 1))...))
	p.spent(t, 0, 60, nil, map[string]int64{"RUNNING": 40, "STOPPED": 20, "cores": 60})
	if got := strings.Join(p.records("vm-1"), "; "); got != "BEGUN 0-0 STATE_UNSPECIFIED shop[]; ADJUSTMENT 0-30 RUNNING shop[GAP]; STARTED 30-50 STOPPED shop[GAP]" {
		t.Errorf("%s", got)
	}
}

// After a restore the zone sends its journal again, perhaps before it reports what it has.
func TestUseOfAVMThatARestoredBackupHasForgottenIsGivenToItsProjectOnceItIsKnown(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1)) // so that the project has VMs in the zone
	p.accept(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: 9, EpochId: make([]byte, 16)}}})
	m := &meter{vm: "vm-5"}
	p.accept(journal("i", "c-kvm", numbered(0, m.to("i", 0, apiv1.VM_RUNNING, 1), m.to("i", 5, apiv1.VM_STOPPED, 1))...))
	p.spent(t, 0, 10, state.Scope{"project_id": "p-shop"}, map[string]int64{})
	p.spent(t, 0, 10, nil, map[string]int64{"RUNNING": 5, "STOPPED": 5, "cores": 10})
	lost := web(5)
	lost.Generation, lost.Reached, lost.State = &apiv1.Generation{Epoch: 7, Index: 1 << 30}, &apiv1.Generation{Epoch: 7, Index: 1 << 30}, apiv1.VM_STOPPED
	p.accept(fullSync(true, "i", 0, 1, &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Vm{Vm: lost}}))
	if got := p.vm(5); got == nil || p.events()["vm.adopted"] != 1 {
		t.Fatalf("it was not adopted: %v, events %v", got, p.events())
	}
	for scope, want := range map[string]map[string]int64{"p-shop": {"RUNNING": 5, "STOPPED": 5, "cores": 10}, "": {}} {
		p.spent(t, 0, 10, state.Scope{"project_id": scope}, want)
	}
	p.accept(journal("i", "c-kvm", numbered(2, m.to("i", 8, apiv1.VM_RUNNING, 1))...))
	p.spent(t, 0, 10, state.Scope{"project_id": "p-shop"}, map[string]int64{"RUNNING": 7, "STOPPED": 3, "cores": 10})
}

func TestUseThatOnlyItsZoneKnewIsForgottenWithItsVMAndSaidSo(t *testing.T) {
	p := furnished(t)
	p.accept(fullSync(true, "i", 0, 1, unknown(1)))
	p.accept(journal("i", "c-kvm", used(1, "unknown-1", start)))
	if got := p.records("unknown-1"); len(got) != 1 || !strings.Contains(got[0], "UNKNOWN_VM") {
		t.Errorf("%v", got)
	}
	p.accept(observe("i", 1, 2, &linkv1.Object{Revision: 2, Noun: &linkv1.Object_Tombstone{Tombstone: &linkv1.Tombstone{Noun: &apiv1.Reference{Kind: "vm", Id: "unknown-1"}}}}))
	if got := p.records("unknown-1"); len(got) != 0 || p.events()["usage.forgotten"] != 1 {
		t.Errorf("%v, events %v", got, p.events())
	}
}

// simulated is a VM of the simulator, which knows the truth: what it was in each second.
type simulated struct {
	meter
	cluster, origin string
	truth           []int64 // by second: cores while it runs, 0 while it does not, -1 while it is not there
}

// TestP5SumsAreTheSimulatorsTruth: a zone's VMs change at random; their links go up by journals of several clusters and lives of the store,
// batches come twice and cut short, streams out of order, the control plane's clock jumps and its state is restored. In any window the
// sums are what was, to the second.
func TestP5SumsAreTheSimulatorsTruth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := furnished(rt)
		const end = 300
		streams := map[string][]*linkv1.JournalEntry{}
		var names []string
		put := func(name string, e *linkv1.JournalEntry) {
			if streams[name] == nil {
				names = append(names, name)
			}
			e.Sequence = uint64(len(streams[name])) + 1
			streams[name] = append(streams[name], e)
		}
		var vms []*simulated
		for n := range rapid.IntRange(1, 3).Draw(rt, "VMs") {
			p.accept(createVM(n + 1))
			v := &simulated{meter: meter{vm: fmt.Sprintf("vm-%d", n+1)}, cluster: rapid.SampledFrom([]string{"c-kvm", "c-two"}).Draw(rt, "cluster"), origin: "life-1"}
			is, cores := int64(-1), uint32(1)
			for second := range int64(end) {
				if second == 150 && rapid.Bool().Draw(rt, "another life") {
					v.origin = "life-2"
				}
				if rapid.IntRange(0, 40).Draw(rt, "changes") == 0 && !(is == -1 && v.newest != nil) {
					s := rapid.SampledFrom([]apiv1.VM_State{apiv1.VM_RUNNING, apiv1.VM_RUNNING, apiv1.VM_STOPPED, apiv1.VM_ERROR, apiv1.VM_DELETED}).Draw(rt, "to")
					if v.newest == nil {
						s = apiv1.VM_RUNNING
					}
					cores = rapid.Uint32Range(1, 4).Draw(rt, "cores")
					switch is = 0; s {
					case apiv1.VM_RUNNING:
						is = int64(cores)
					case apiv1.VM_DELETED:
						is = -1
					}
					put(v.origin+"/"+v.cluster, v.to(v.origin, second, s, cores))
				}
				v.truth = append(v.truth, is)
			}
			vms = append(vms, v)
		}
		p.now = start.Add(end * time.Second)
		sent := map[string]int{}
		for left := names; len(left) > 0; {
			name := rapid.SampledFrom(left).Draw(rt, "stream")
			from := rapid.IntRange(0, sent[name]).Draw(rt, "again from") // what was sent is sent again
			until := min(sent[name]+rapid.IntRange(1, 4).Draw(rt, "more"), len(streams[name]))
			var batch []*linkv1.JournalEntry
			for _, e := range streams[name][from:until] {
				batch = append(batch, proto.CloneOf(e))
			}
			origin, stream, _ := strings.Cut(name, "/")
			p.accept(journal(origin, stream, batch...))
			switch sent[name] = until; rapid.IntRange(0, 9).Draw(rt, "then") {
			case 0:
				p.now = p.now.AddDate(rapid.IntRange(-10, 10).Draw(rt, "years"), 0, 0)
			case 1:
				if err := p.machine.Restore(bytes.NewReader(p.snapshot())); err != nil {
					rt.Fatal(err)
				}
			}
			if until == len(streams[name]) {
				var rest []string
				for _, n := range left {
					if n != name {
						rest = append(rest, n)
					}
				}
				left = rest
			}
		}
		a := rapid.Int64Range(0, end).Draw(rt, "from")
		b := rapid.Int64Range(a, end).Draw(rt, "middle")
		c := rapid.Int64Range(b, end).Draw(rt, "until")
		for _, w := range [][2]int64{{0, end}, {a, b}, {b, c}, {a, c}} {
			var running, coreSeconds int64
			for _, v := range vms {
				for _, is := range v.truth[w[0]:w[1]] {
					if is > 0 {
						running++
						coreSeconds += is
					}
				}
			}
			got, cores := int64(0), int64(0)
			p.view(func(tx *state.Tx) {
				sums, err := state.SumUsage(tx.UsageRecords, state.UsageQuery{From: start.Unix() + w[0], Until: start.Unix() + w[1], By: "vm_id", Limit: 10})
				if err != nil {
					rt.Fatal(err)
				}
				for _, sum := range sums {
					for _, part := range sum.Parts {
						if part.State == apiv1.VM_RUNNING {
							got, cores = got+part.Seconds, cores+part.Seconds*int64(part.Cores)
						}
					}
				}
			})
			if got != running || cores != coreSeconds {
				rt.Fatalf("from %d until %d: %d s and %d core-seconds, and it was %d and %d", w[0], w[1], got, cores, running, coreSeconds)
			}
		}
	})
}
