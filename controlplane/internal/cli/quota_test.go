package cli

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAQuotaIsSetChangedShownAndDeleted(t *testing.T) {
	d := newDesk(t)
	if got := d.must("quota set --project web --vms 2 --cores 8"); !strings.Contains(got, "project.web") || !strings.Contains(got, "0/8") {
		t.Errorf("set:\n%s", got)
	}
	d.must("quota set --project web --vms 3 --cores none")
	if got := d.must("quota show project.web -o json"); !strings.Contains(got, `"vms": 3`) || strings.Contains(got, `"cores": 8`) {
		t.Errorf("changed:\n%s", got)
	}
	d.must("quota set --organization default --zone business --grade open --snapshots 5")
	if got := d.must("quota list --project ''"); !strings.Contains(got, "organization.default@business.open") || !strings.Contains(got, "project.web ") {
		t.Errorf("list:\n%s", got)
	}
	if got := d.must("project show web"); !strings.Contains(got, "quotas") || !strings.Contains(got, "project.web") {
		t.Errorf("the project:\n%s", got)
	}
	for line, want := range map[string]string{
		"quota set --project web":                          "say what is limited",
		"quota set --project web --vms many":               "whole number, or none",
		"quota set --vms 1":                                "project",
		"quota set --project web --vms 1 --grade secret":   "open, sensitive or classified",
		"quota set --project web --organization x --vms 1": "project",
	} {
		if r := d.naru(line); r.code != problem.ExitUsage || !strings.Contains(r.err, want) {
			t.Errorf("naru %s: %+v", line, r)
		}
	}
	d.must("quota delete project.web")
	if r := d.naru("quota show project.web"); r.code != problem.ExitNotFound {
		t.Errorf("deleted: %+v", r)
	}
}

func TestWhatIsUsedOfAQuotaIsNotSaidToBeNothingWhereItIsNotShown(t *testing.T) {
	m := &apiv1.Quota{Name: "project.portal", Limit: &apiv1.Amounts{Vms: proto.Uint32(20), Cores: proto.Uint32(80)}}
	if got := quotaColumns[1].value(m) + " " + quotaColumns[3].value(m); got != "?/20 -" {
		t.Errorf("%q", got)
	}
	if got := share(m); got != "project.portal: of 20 VMs, 80 cores; what is used is not shown here" {
		t.Errorf("%q", got)
	}
	m.Used, m.Held, m.Left = &apiv1.Amounts{}, &apiv1.Amounts{Vms: proto.Uint32(1)}, &apiv1.Amounts{Vms: proto.Uint32(19), Cores: proto.Uint32(80)}
	if got := quotaColumns[1].value(m) + ", " + share(m); got != "0+1/20, project.portal: 0+1/20 VMs (19 left), 0/80 cores (80 left)" {
		t.Errorf("%q", got)
	}
}
