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
)

// TestWhatAnotherSystemAsksForAndDecidesIsSaidAndShownAtTheCommandLine, by the tokens of its services.
func TestWhatAnotherSystemAsksForAndDecidesIsSaidAndShownAtTheCommandLine(t *testing.T) {
	d := counter(t)
	admin, business := string(d.read("admin.yaml")), d.Zone("business")
	for name, role := range map[string]string{"asks": "user", "decides": "approver"} {
		u := d.User(name, apiv1.User_SERVICE)
		d.Bind("b-"+name, role, u, apiv1.RoleBinding_PROJECT, "web")
		if err := d.DB.Update(func(tx *state.Tx) error {
			return tx.AccessTokens.Put(&apiv1.AccessToken{Id: "t-" + u.GetId(), Name: name, User: name, UserId: u.GetId(), SecretHash: []byte(name), ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))})
		}); err != nil {
			t.Fatal(err)
		}
		d.write(name+".yaml", strings.Replace(admin, "token: admin", "project: web\ntoken: "+servicetest.AsService(u, business), 1))
	}
	policy := file(t, "both.yaml", `
enabled: true
priority: 9
condition: request.intake == ITSM
authority: both
stages:
  - {name: itsm, rule: any, external: true, eligible: {users: [decides]}}
  - {name: approval, sequence: 1, rule: any, eligible: {roles: [approver], at: project}}
`)
	d.must("approval-policy create both --file " + policy)
	if got := d.must("approval-policy list"); !strings.Contains(got, "AUTHORITY") || !strings.Contains(got, "both") || !strings.Contains(got, "local") {
		t.Error(got)
	}
	asks := strings.Replace(asks, "--context ann", "--context asks --intake itsm --external-ref INC-12", 1)
	if got := d.must(asks + " -o name"); got != d.must(asks+" -o name") || got != "r-1\n" {
		t.Errorf("the same number is %q", got)
	}
	if r := d.naru(strings.Replace(asks, "--quantity 2", "--quantity 3", 1)); !strings.Contains(r.err, "INC-12") || r.code == 0 {
		t.Errorf("%d %s", r.code, r.err)
	}
	if r := d.naru(strings.Replace(asks, "--intake itsm", "--intake fax", 1)); r.code != problem.ExitUsage || !strings.Contains(r.err, "portal, api or itsm") {
		t.Errorf("%d %s", r.code, r.err)
	}
	if r := d.naru(strings.Replace(asks, "--context asks", "--context ann", 1)); !strings.Contains(r.err, "ann is a person") {
		t.Errorf("%d %s", r.code, r.err)
	}
	if r := d.naru("approve r-1 --yes --external-ref CHG-7 --context decides"); r.code != problem.ExitUsage {
		t.Errorf("%d %s", r.code, r.err)
	}
	r := d.naru("approve r-1 --yes --external-approver Hong --external-ref CHG-7 --context decides")
	if r.code != 0 || !strings.Contains(r.err, "itsm: open, takes 1 of decides, in another system") {
		t.Errorf("%d %s %s", r.code, r.out, r.err)
	}
	r = naru(t.Context(), "approve r-1 --context bob", "n\n")
	for _, words := range []string{"authority      both", "itsm: approved, in another system", "approve by decides, as Hong decided there, CHG-7"} {
		if !strings.Contains(r.err, words) {
			t.Errorf("an approver is not shown %q:\n%s", words, r.err)
		}
	}
	if got := d.must("request list -o wide --filter authority=both --context bob"); !strings.Contains(got, "AUTHORITY") || !strings.Contains(got, "r-1") {
		t.Error(got)
	}
	if got := d.must("request list --filter authority=itsm --context bob -o name"); got != "" {
		t.Error(got)
	}
}
