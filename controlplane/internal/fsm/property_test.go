package fsm_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// history draws a log, applies it entry by entry and returns what came of each: the furniture and the staff, then commands of all kinds over
// a few nouns, so that they meet. What is drawn of requests is drawn of the state as it then stands; clocks jump.
func history(rt *rapid.T, p *plane) (results []*commandv1.Result) {
	apply := func(e fsm.Entry) { results = append(results, p.replay([]fsm.Entry{e}, whole)...) }
	apply(p.raw(nil))
	apply(p.entry(bootstrap()))
	for _, c := range furniture() {
		apply(p.entry(c))
	}
	for _, c := range staffing() {
		apply(p.entry(c(p)))
	}
	for range rapid.IntRange(40, 80).Draw(rt, "commands") {
		var c *commandv1.Command
		if rapid.IntRange(0, 2).Draw(rt, "paper") > 0 {
			c = scribe{p, rt}.draw()
		} else if c = drawCommand(rt); c == nil {
			apply(p.raw(rapid.SampledFrom([][]byte{nil, {}, {0x0a, 0xff}, []byte("junk")}).Draw(rt, "raw")))
			continue
		}
		if rapid.IntRange(0, 9).Draw(rt, "clock jumps") == 0 {
			c.Stamp = timestamppb.New(p.now.Add(time.Duration(rapid.IntRange(-120, 120).Draw(rt, "by")) * time.Second))
		}
		apply(p.entry(c))
	}
	return results
}

func drawCommand(rt *rapid.T) *commandv1.Command {
	vm := rapid.IntRange(1, 5)
	number := rapid.Uint64Range(0, 12)
	op := rapid.SampledFrom([]string{"op-1", "op-2", "op-3", "op-create-1", "op-create-2", ""})
	objects := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) *linkv1.Object {
		switch n := vm.Draw(rt, "vm"); rapid.IntRange(0, 4).Draw(rt, "object") {
		case 0:
			return tombstone(n)
		case 1:
			return hostSeen("h-1", apiv1.Host_Health(rapid.IntRange(0, 7).Draw(rt, "health")))
		case 2:
			m := web(n)
			m.State = apiv1.VM_State(rapid.IntRange(0, 8).Draw(rt, "state"))
			return &linkv1.Object{Noun: &linkv1.Object_Vm{Vm: m}}
		default:
			o := seen(n, apiv1.VM_State(rapid.IntRange(0, 8).Draw(rt, "state")), apiv1.VM_Power(rapid.IntRange(0, 5).Draw(rt, "power")))
			o.GetVm().Reached.Index = rapid.Uint64Range(1, 40).Draw(rt, "reached")
			return o
		}
	}), 0, 4)
	var c *commandv1.Command
	switch rapid.IntRange(0, 19).Draw(rt, "kind") {
	case 0, 1, 2:
		c = createVM(vm.Draw(rt, "vm"))
		c.GetCreateVm().OperationId = op.Draw(rt, "operation")
	case 3, 4:
		c = desire(vm.Draw(rt, "vm"), apiv1.VM_State(rapid.SampledFrom([]int{0, 3, 4, 7}).Draw(rt, "desired")), op.Draw(rt, "operation"))
	case 5, 6:
		after := number.Draw(rt, "after")
		c = observe("inc-1", after, after+1, objects.Draw(rt, "objects")...)
	case 7, 8:
		c = fullSync(rapid.Bool().Draw(rt, "end"), rapid.SampledFrom([]string{"inc-1", "inc-2"}).Draw(rt, "incarnation"), 0,
			number.Draw(rt, "through"), objects.Draw(rt, "objects")...)
	case 9:
		seq := number.Draw(rt, "sequence")
		c = journal("inc-1", "zone", happened(seq, fmt.Sprint("e", seq)), report(seq+1, op.Draw(rt, "operation"), func(r *linkv1.OperationReport) {
			r.Done = rapid.Bool().Draw(rt, "done")
		}), drawLink(rt, seq+2, vm.Draw(rt, "used")))
	case 10:
		c = session(byte(number.Draw(rt, "session")), rapid.Bool().Draw(rt, "connected"))
	case 11:
		c = acknowledge(7, number.Draw(rt, "index"))
	case 12:
		c = deletion(rapid.SampledFrom([]string{"zone", "cluster", "host", "flavor", "image", "project"}).Draw(rt, "noun"),
			rapid.SampledFrom([]string{"z-business", "c-kvm", "h-1", "f-s1", "i-tiny", "p-shop"}).Draw(rt, "id"), "")
	case 13:
		c = beginEpoch(rapid.Uint64Range(6, 12).Draw(rt, "epoch"))
	case 14:
		c = &commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: timestamppb.New(start.Add(5 * time.Second)),
			OperationsBefore: timestamppb.New(start.Add(20 * time.Second)), EventsBefore: timestamppb.New(start.Add(20 * time.Second))}}}
	case 15:
		c = &commandv1.Command{Body: &commandv1.Command_OrderVm{OrderVm: &commandv1.OrderVM{VmId: fmt.Sprint("vm-", vm.Draw(rt, "vm")),
			OperationId: op.Draw(rt, "operation"), Kind: "vm.reboot", Order: &linkv1.Order{Verb: linkv1.Order_REBOOT}}}}
	case 16:
		c = rapid.SampledFrom(append(furniture(), revoke(""), joinToken("t", "zone"), ask("t", "a", "k"), acceptJoin("a", "k"))).Draw(rt, "other")
		c = proto.CloneOf(c)
	case 17:
		c = rapid.SampledFrom([]*commandv1.Command{expire("op-1", "op-create-1"), resolve("op-2", apiv1.ResolveOperationRequest_RETRY),
			resolve("op-create-2", apiv1.ResolveOperationRequest_RETRY), resolve("op-3", apiv1.ResolveOperationRequest_SUCCEED)}).Draw(rt, "word")
		c = proto.CloneOf(c)
	case 18:
		c = rapid.SampledFrom([]func(string) *commandv1.Command{beginBackup, confirmBackup}).Draw(rt, "backup")(
			rapid.SampledFrom([]string{"b1", "b2"}).Draw(rt, "which"))
	default:
		return nil
	}
	if rapid.IntRange(0, 9).Draw(rt, "keyed") == 0 {
		c.Idempotency = &commandv1.Idempotency{Key: rapid.SampledFrom([]string{"k1", "k2"}).Draw(rt, "key"), RequestHash: []byte{byte(vm.Draw(rt, "hash"))}}
	}
	return c
}

// drawLink is what a zone says of a VM's use, true or not.
func drawLink(rt *rapid.T, seq uint64, vm int) *linkv1.JournalEntry {
	e := used(seq, fmt.Sprint("vm-", vm), start.Add(time.Duration(rapid.IntRange(0, 400).Draw(rt, "at"))*time.Second))
	u := e.GetUsage()
	u.Number = rapid.Uint32Range(1, 5).Draw(rt, "number")
	u.State = rapid.SampledFrom([]apiv1.VM_State{apiv1.VM_RUNNING, apiv1.VM_STOPPED, apiv1.VM_DELETED}).Draw(rt, "uses")
	if u.GetNumber() > 1 && rapid.Bool().Draw(rt, "was") {
		u.Was = &apiv1.VM_Usage{Number: u.GetNumber() - 1, IncarnationId: "inc-1", ClockId: "clock", At: timestamppb.New(start.Add(time.Minute)), State: apiv1.VM_RUNNING, Size: u.GetSize()}
	}
	return e
}

// fresh returns a plane that has the log and has applied nothing.
func fresh(t tb, log []fsm.Entry) *plane {
	p := empty(t)
	p.log = log
	return p
}

// replay applies a log in batches that cut ends.
func (p *plane) replay(log []fsm.Entry, cut func(left int) int) (results []*commandv1.Result) {
	p.Helper()
	for len(log) > 0 {
		n := cut(len(log))
		r, err := p.machine.Apply(log[:n])
		if err != nil {
			p.Fatal(err)
		}
		results, log = append(results, r...), log[n:]
	}
	return results
}

func whole(left int) int { return left }

func single(int) int { return 1 }

func TestP23TheSameLogGivesTheSameBytesHoweverItIsCutIntoBatches(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := empty(rt)
		first := history(rt, p)
		other := fresh(rt, p.log)
		second := other.replay(p.log, func(left int) int { return rapid.IntRange(1, left).Draw(rt, "batch") })
		for i := range first {
			if !proto.Equal(first[i], second[i]) {
				rt.Errorf("entry %d came to %v, and to %v in other batches", i, first[i], second[i])
			}
		}
		if !bytes.Equal(p.snapshot(), other.snapshot()) {
			rt.Error("the snapshots differ")
		}
		i, a, err1 := p.machine.StateHash()
		j, b, err2 := other.machine.StateHash()
		if a != b || i != j || err1 != nil || err2 != nil {
			rt.Errorf("hashes %x at %d, %x at %d, %v, %v", a, i, b, j, err1, err2)
		}
	})
}

func TestP24SnapshotAndTailAreTheWholeLog(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		drawn := empty(rt)
		history(rt, drawn)
		p := fresh(rt, drawn.log)
		at := rapid.IntRange(0, len(p.log)).Draw(rt, "snapshot at")
		before := p.replay(p.log[:at], whole)
		snapshot, columns := p.snapshot(), p.columns()
		after := p.replay(p.log[at:], whole)

		other := fresh(rt, p.log)
		other.replay(p.log[:rapid.IntRange(0, len(p.log)).Draw(rt, "other had")], single)
		if err := other.machine.Restore(bytes.NewReader(snapshot)); err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(snapshot, other.snapshot()) {
			rt.Error("a restored state gives another snapshot")
		}
		other.hasColumns(columns, "what a table says, read from a snapshot")
		tail := other.replay(p.log[at:], single)
		for i := range tail {
			if !proto.Equal(after[i], tail[i]) {
				rt.Errorf("entry %d came to %v, and to %v behind the snapshot", len(before)+i, after[i], tail[i])
			}
		}
		if !bytes.Equal(p.snapshot(), other.snapshot()) {
			rt.Error("snapshot and tail differ from the whole log")
		}
		other.hasColumns(p.columns(), "what a table says, behind a snapshot")
	})
}

func TestP2DuplicatedCommandsChangeNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := empty(rt)
		once := history(rt, p)
		_, want, err := p.machine.StateHash()
		if err != nil {
			rt.Fatal(err)
		}
		other := empty(rt)
		var origin []int
		for i, e := range p.log {
			other.raw(e.Data)
			origin = append(origin, i)
			// A forwarder retried: the command is in the log again, at any later place before what it would prune.
			for j := range i + 1 {
				if rapid.IntRange(0, 19).Draw(rt, "again") == 0 && !prunes(p.log[:i+1]) {
					other.raw(p.log[j].Data)
					origin = append(origin, j)
				}
			}
		}
		results := other.replay(other.log, whole)
		_, got, err := other.machine.StateHash()
		if err != nil || got != want {
			rt.Errorf("duplicates changed the state: %x, not %x, %v", got, want, err)
		}
		for i, r := range results {
			r, w := proto.CloneOf(r), proto.CloneOf(once[origin[i]])
			r.Index, w.Index = 0, 0
			if !proto.Equal(r, w) {
				rt.Errorf("entry %d came to %v, its duplicate to %v", origin[i], w, r)
			}
		}
	})
}

// prunes reports whether outcomes may have been forgotten.
func prunes(log []fsm.Entry) bool {
	for _, e := range log {
		c := &commandv1.Command{}
		if proto.Unmarshal(e.Data, c) == nil && c.GetPrune() != nil {
			return true
		}
	}
	return false
}

func TestAnotherLogGivesAnotherHash(t *testing.T) {
	a, b := furnished(t), furnished(t)
	a.accept(createVM(1))
	b.accept(createVM(2))
	_, ha, err1 := a.machine.StateHash()
	_, hb, err2 := b.machine.StateHash()
	if ha == hb || err1 != nil || err2 != nil {
		t.Errorf("%x, %x, %v, %v", ha, hb, err1, err2)
	}
}
