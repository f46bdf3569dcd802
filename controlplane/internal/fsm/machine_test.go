package fsm_test

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestP2ACommandCarriedTwiceHasItsEffectOnce(t *testing.T) {
	p := furnished(t)
	c := createVM(1)
	c.Id = commandID(start, 999)
	first := p.accept(c)
	revision := p.vm(1).GetRevision()
	again := p.accept(c)
	if again.GetIndex() != first.GetIndex()+1 {
		t.Errorf("answered at index %d, want that of the second entry", again.GetIndex())
	}
	again.Index = first.GetIndex()
	if !proto.Equal(first, again) || p.vm(1).GetRevision() != revision {
		t.Errorf("first %v, then %v", first, again)
	}
	// A refusal is kept as well: what was refused once is not carried out by a late duplicate.
	c = createVM(1)
	c.Id = commandID(start, 1000)
	p.refuse(problem.Conflict, c)
	p.accept(desire(1, apiv1.VM_DELETED, "op-d"))
	p.accept(fullSync(true, "i", 0, 1, tombstone(1)))
	p.refuse(problem.Conflict, c)
}

func TestP2AnIdempotencyKeyMakesOneVM(t *testing.T) {
	p := furnished(t)
	keyed := func(n int, key, hash string) *commandv1.Command {
		c := createVM(n)
		c.Idempotency = &commandv1.Idempotency{Key: key, RequestHash: []byte(hash)}
		return c
	}
	first := p.accept(keyed(1, "k", "a"))
	// The client's retry: the same request, which the proposer gave new ids.
	again := p.accept(keyed(2, "k", "a"))
	if !bytes.Equal(first.GetNoun(), again.GetNoun()) || !proto.Equal(first.GetOperation(), again.GetOperation()) || p.vm(2) != nil {
		t.Errorf("first %v, then %v", first, again)
	}
	p.refuse(problem.IdempotencyMismatch, keyed(2, "k", "b"))
	other := keyed(2, "k", "b")
	other.Actor = "token:ci"
	p.accept(other) // another actor's key is another key
	// A request that was refused may be sent again with its key.
	wrong := keyed(3, "k3", "c")
	wrong.GetCreateVm().Vm.Flavor = "huge"
	p.refuse(problem.NotFound, wrong)
	p.accept(keyed(3, "k3", "c"))
	// After the keep the key is free.
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: timestamppb.New(p.now.Add(time.Hour))}}})
	p.accept(keyed(4, "k", "b"))
}

func TestTimeNeverGoesBack(t *testing.T) {
	p := furnished(t)
	late := createVM(1)
	late.Stamp = timestamppb.New(start.Add(time.Hour))
	p.accept(late)
	early := createVM(2)
	early.Stamp = timestamppb.New(start)
	p.accept(early)
	none := createVM(3)
	none.Stamp = &timestamppb.Timestamp{Seconds: -1 << 62, Nanos: -5} // no time at all
	p.accept(none)
	for n := 1; n <= 3; n++ {
		if at := p.vm(n).GetCreatedAt().AsTime(); !at.Equal(start.Add(time.Hour)) {
			t.Errorf("VM %d was made at %v", n, at)
		}
	}
}

func TestABatchIsOneTransactionWithTheAppliedIndexInIt(t *testing.T) {
	p := furnished(t)
	var batch []fsm.Entry
	for n := range 5 {
		batch = append(batch, p.entry(createVM(n)))
	}
	batch = append(batch, p.raw(nil)) // a configuration entry
	results, err := p.machine.Apply(batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.GetIndex() != batch[i].Index || r.GetProblem() != nil {
			t.Errorf("result %d is %v", i, r)
		}
	}
	p.view(func(tx *state.Tx) {
		if m := tx.Meta(); m.AppliedIndex != batch[5].Index || m.AppliedTerm != 1 {
			t.Errorf("applied %d in term %d", m.AppliedIndex, m.AppliedTerm)
		}
	})
	if index, term, err := p.machine.Applied(); index != batch[5].Index || term != 1 || err != nil {
		t.Errorf("applied %d, %d, %v", index, term, err)
	}
}

func TestP17EntriesThatAreAppliedAlreadyArePassedOver(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	before := p.snapshot()
	if _, err := p.machine.Apply(p.log); err != nil { // as Raft does after a start
		t.Fatal(err)
	}
	if !bytes.Equal(before, p.snapshot()) {
		t.Error("replaying the applied log changed the state")
	}
}

func TestWhatCannotBeDecodedIsRefused(t *testing.T) {
	p := furnished(t)
	noID, err := proto.Marshal(&commandv1.Command{Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
	if err != nil {
		t.Fatal(err)
	}
	noBody, err := proto.Marshal(&commandv1.Command{Id: commandID(start, 77)})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{{0xff}, []byte("not a command"), noID, noBody} {
		results, err := p.machine.Apply([]fsm.Entry{p.raw(data)})
		if err != nil || results[0].GetProblem().GetCode() != string(problem.Invalid) {
			t.Errorf("%q: %v, %v", data, results, err)
		}
	}
}

func TestNothingButABootstrapIsDoneBeforeIt(t *testing.T) {
	p := empty(t)
	p.refuse(problem.Unavailable, createVM(1))
	p.accept(&commandv1.Command{Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
	p.accept(bootstrap())
	p.refuse(problem.WrongState, bootstrap())
}

// A command that is refused after it has written is no command of ours; the machine undoes it all the same.
func TestACommandRefusedHalfWayIsUndone(t *testing.T) {
	p := furnished(t)
	n := 0
	machine := fsm.WithRun(p.db, func(tx *state.Tx, in *commandv1.Command) (*commandv1.Result, error) {
		m := &apiv1.Project{Id: "p-" + in.GetCreateVm().GetVm().GetId(), Name: in.GetCreateVm().GetVm().GetName()}
		if err := tx.Projects.Put(m); err != nil {
			return nil, err
		}
		if n++; m.GetId() == "p-vm-2" {
			return nil, problem.New(problem.Conflict, "half-way", "")
		}
		return &commandv1.Result{}, nil
	})
	results, err := machine.Apply([]fsm.Entry{p.entry(createVM(1)), p.entry(createVM(2)), p.entry(createVM(3))})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "CONFLICT", ""} {
		if got := results[i].GetProblem().GetCode(); got != want {
			t.Errorf("result %d is %q, want %q", i+1, got, want)
		}
	}
	p.view(func(tx *state.Tx) {
		if get(t, tx.Projects, "p-vm-1") == nil || get(t, tx.Projects, "p-vm-2") != nil || get(t, tx.Projects, "p-vm-3") == nil {
			t.Error("the refused command left something, or took others with it")
		}
	})
}
