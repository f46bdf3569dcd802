package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func TestUseIsListedShownAndSummedUp(t *testing.T) {
	d := newDesk(t)
	d.createVM("web-1")
	var vm *apiv1.VM
	d.View(func(tx *state.Tx) (err error) {
		vm, err = tx.VMs.ByName("web-1", nil)
		return err
	})
	since := time.Now().Add(-3 * time.Minute).Truncate(time.Second)
	d.Do(&commandv1.Command{Body: &commandv1.Command_AppendJournal{AppendJournal: &commandv1.AppendJournal{ZoneId: vm.GetZoneId(), Batch: &linkv1.JournalBatch{
		Origin: "life", Stream: "kvm", Entries: []*linkv1.JournalEntry{
			{Sequence: 1, Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{VmId: vm.GetId(), State: apiv1.VM_RUNNING, Size: vm.GetSize(), Number: 1, At: timestamppb.New(since)}}},
			{Sequence: 2, Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{VmId: vm.GetId(), State: apiv1.VM_DELETED, Number: 2, At: timestamppb.New(since.Add(90 * time.Second)),
				Was: &apiv1.VM_Usage{Number: 1, At: timestamppb.New(since), State: apiv1.VM_RUNNING, Size: vm.GetSize()}}}},
		}}}}})
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	if got := words(d.must("usage list --vm web-1")); !strings.Contains(got, "web-1 ended 90 running 1/") || !strings.Contains(got, "web-1 begun 0") {
		t.Errorf("list: %s", got)
	}
	ids := strings.Fields(d.must("usage list --vm web-1 --filter kind=ended -o name"))
	if len(ids) != 1 {
		t.Fatalf("%v", ids)
	}
	if got := d.must("usage show " + ids[0] + " -o json"); !strings.Contains(got, `"next_state": "DELETED"`) {
		t.Errorf("show:\n%s", got)
	}
	if got := words(d.must("usage sum --by vm --project web")); !strings.Contains(got, "web-1 web business 90 90 ") {
		t.Errorf("sum: %s", got)
	}
	if got := d.must("usage sum --by nothing -o json --from " + since.Add(time.Minute).Format(time.RFC3339)); !strings.Contains(got, `"seconds": "30"`) {
		t.Errorf("sum of a part:\n%s", got)
	}
	robot := d.User("robot", apiv1.User_SERVICE)
	d.Roles()
	d.Bind("b-robot", "user", robot, apiv1.RoleBinding_PROJECT, "web")
	d.WithTokenOf(robot, d.Zone("internet"))
	d.write("robot.yaml", strings.Replace(string(d.read("admin.yaml")), "token: admin", "token: "+servicetest.AsService(robot, d.Zone("internet")), 1))
	if r := d.naru("usage sum --context robot --until 2020-01-01T00:00:00Z"); r.code != 0 || !strings.Contains(r.err, "Nothing was used in zone internet, at whose edge this is") {
		t.Errorf("at an edge: %+v", r)
	}
	if r := d.naru("usage sum --until 2020-01-01T00:00:00Z"); r.code != 0 || !strings.Contains(r.err, "Nothing was used.") {
		t.Errorf("in the control network: %+v", r)
	}
	if r := d.naru("usage sum --zone internet"); r.code != 0 || !strings.Contains(r.err, "Nothing was used in zone internet.") {
		t.Errorf("of a zone: %+v", r)
	}
	for line, says := range map[string]string{
		"usage sum --by colour":      "--by colour: it is vm, project",
		"usage sum --from yesterday": "--from yesterday: it is a time like",
		"usage list --until now":     "--until now: it is a time like",
		"usage sum --from 2026-11-01T00:00:00Z --until 2026-10-01T00:00:00Z": "--from: is after the end",
	} {
		if r := d.naru(line); r.code != problem.ExitUsage || !strings.Contains(r.err, says) {
			t.Errorf("naru %s: %+v", line, r)
		}
	}
}
