package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// report has the zone of an operation say in its journal that it went well.
func (d *desk) report(op *apiv1.Operation) {
	d.Helper()
	d.Do(&commandv1.Command{Body: &commandv1.Command_AppendJournal{AppendJournal: &commandv1.AppendJournal{
		ZoneId: d.Zone(op.GetZone()).GetId(), Batch: &linkv1.JournalBatch{Origin: op.GetId(), Stream: "kvm", Entries: []*linkv1.JournalEntry{{
			Sequence: 1, Time: timestamppb.Now(), Body: &linkv1.JournalEntry_Operation{Operation: &linkv1.OperationReport{
				OperationId: op.GetId(), Done: true, Step: &apiv1.Operation_Step{Name: "reached", State: apiv1.Operation_Step_DONE},
			}},
		}}},
	}}})
}

// reach has the zone of an operation report its VM as it is wanted.
func (d *desk) reach(op *apiv1.Operation) {
	d.Helper()
	var vm *apiv1.VM
	d.View(func(tx *state.Tx) (err error) {
		vm, err = tx.VMs.Get(op.GetTarget().GetId())
		return err
	})
	d.Observe(vm.GetZoneId(), &apiv1.VM{Id: vm.GetId(), Name: vm.GetName(), State: vm.GetDesiredState(), Reached: vm.GetGeneration()})
}

// underWay is the one operation that is not done.
func (d *desk) underWay() *apiv1.Operation {
	d.Helper()
	var ops []*apiv1.Operation
	d.View(func(tx *state.Tx) (err error) {
		ops, _, err = tx.Operations.List(state.Query{Filter: "done=false"})
		return err
	})
	if len(ops) != 1 {
		d.Fatalf("under way are %v", ops)
	}
	return ops[0]
}

func TestWhoHasWaitedSeesTheVMInTheStateThatWasPromised(t *testing.T) {
	for order, parts := range map[string][2]func(*desk, *apiv1.Operation){
		"the operation's end comes first": {(*desk).report, (*desk).reach},
		"the VM's state comes first":      {(*desk).reach, (*desk).report},
	} {
		t.Run(order, func(t *testing.T) {
			d := newDesk(t)
			for _, c := range []struct{ line, shows string }{
				{"vm create web-1 --project web --image tiny --flavor s1 --zone business --cluster kvm --wait", "RUNNING"},
				{"vm stop web-1 --project web --wait", "STOPPED"},
				{"vm start web-1 --project web --wait", "RUNNING"},
			} {
				f := d.follow(c.line)
				f.until(t, "accepted")
				op := d.underWay()
				parts[0](d, op)
				if now := d.underWay(); now.GetId() != op.GetId() {
					t.Fatalf("%s: under way is %v", c.line, now)
				}
				parts[1](d, op)
				f.until(t, "reached")
				if r := <-f.ended; r.code != 0 {
					t.Fatalf("%s: %+v", c.line, r)
				}
				vm := map[string]any{}
				if err := json.Unmarshal([]byte(d.must("vm show web-1 --project web -o json")), &vm); err != nil || vm["state"] != c.shows {
					t.Errorf("%s: then it is %v, %v", strings.Fields(c.line)[1], vm["state"], err)
				}
			}
		})
	}
}

func TestWhereNothingHadToBeDonePeopleAreToldAndScriptsGetNoId(t *testing.T) {
	d := newDesk(t)
	d.createVM("web-1")
	op := d.underWay()
	d.report(op)
	d.reach(op)
	if out := d.must("vm start web-1 --project web"); out != "vm web-1: start done, it runs already\n" {
		t.Errorf("people read %q", out)
	}
	for _, line := range []string{"vm start web-1 --project web -o name", "vm start web-1 --project web -o name --wait"} {
		if out := d.must(line); out != "" {
			t.Errorf("%s: a script reads %q", line, out)
		}
	}
}
