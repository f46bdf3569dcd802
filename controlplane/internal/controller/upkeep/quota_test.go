package upkeep

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestP27SumsThatHaveDriftedAreToldOnceAndNotMended(t *testing.T) {
	u := newTurns(t)
	if _, err := u.world.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: u.world.VM("web-1", "web")}); err != nil {
		t.Fatal(err)
	}
	if right := u.take(t, u.checkSums); len(right) != 0 {
		t.Fatalf("where nothing has drifted: %v", right)
	}
	var project *apiv1.Project
	u.world.View(func(tx *state.Tx) (err error) { project, err = tx.Projects.ByName("web", nil); return err })
	if err := u.world.DB.Update(func(tx *state.Tx) error { return tx.MoveSums(project.GetId(), project.GetOrganizationId(), "") }); err != nil {
		t.Fatal(err)
	}
	told := u.take(t, u.checkSums)
	if len(told) != 1 {
		t.Fatalf("proposed %v", told)
	}
	if e := told[0].GetRecordEvent().GetEvent(); e.GetSeverity() != apiv1.Event_ERROR || e.GetType() != "quota.drifted" || !strings.Contains(e.GetMessage(), "organization default") {
		t.Errorf("told %v", e)
	}
	if again := u.take(t, u.checkSums); len(again) != 0 {
		t.Errorf("told again: %v", again)
	}
}
