package api_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// A refusal tells why where the zone that the call is about may be told of, whatever other zones keep to themselves.
func TestARefusalTellsAnEdgeOfNoZoneButWhatThatZoneShows(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	a := w.Admin()
	w.Roles()
	kim := w.User("kim", apiv1.User_PERSON)
	w.Bind("b-kim", "federation-administrator", kim, apiv1.RoleBinding_FEDERATION, "")
	w.Bind("b-kim-web", "project-operator", kim, apiv1.RoleBinding_PROJECT, "web")
	w.Cross("web", "internet", "business", "vm.*")
	if _, err := a.VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")}); err != nil {
		t.Fatal(err)
	}
	ask := func(name string, m proto.Message) string {
		t.Helper()
		_, err := callFrom(t.Context(), w, site.Internet.GetId(), name, apiMethods()[name], m, kim)
		var p *problem.Error
		if !errors.As(err, &p) {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Problem.GetNext() == "" {
			t.Errorf("%s: it is not said what to do: %v", name, p.Problem)
		}
		return p.Problem.GetDetail()
	}
	const notHere = "why is not shown here: it may tell of a zone of which not everything is"
	grade := func(g apiv1.Zone_Grade) {
		t.Helper()
		if _, err := a.Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{
			Zone: &apiv1.Zone{Id: "business", Grade: g}, UpdateMask: mask("grade"),
		}); err != nil {
			t.Fatal(err)
		}
	}
	taken := &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")}
	stop := &apiv1.RebootVMRequest{Vm: "web-1", Project: "web"}
	if _, err := a.Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "vault", Grade: apiv1.Zone_CLASSIFIED}}); err != nil {
		t.Fatal(err)
	}
	if got := ask(apiv1.VMService_CreateVM_FullMethodName, taken); !strings.Contains(got, "web-1") {
		t.Errorf("a taken name is told as %q", got)
	}
	if got := ask(apiv1.VMService_RebootVM_FullMethodName, stop); !strings.Contains(got, "web-1") {
		t.Errorf("a VM that is not on is told as %q", got)
	}
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{ApprovalPolicy: &apiv1.ApprovalPolicy{
		Id: "p", Name: "there", Enabled: true, Stages: []*apiv1.StageTemplate{{Name: "keepers-of-business", Rule: apiv1.StageTemplate_ANY,
			Eligible: &apiv1.Eligibility{Roles: []string{"approver"}, At: apiv1.Eligibility_DESTINATION}}}}}}})
	reclaim := &apiv1.CreateRequestRequest{Submit: true, Request: &apiv1.Request{Project: "web", Reason: "it is old",
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Reclaim{Reclaim: &apiv1.ReclaimVMs{Vms: []string{"web-1"}, KeepDays: 7}}}}}
	if got := ask(apiv1.RequestService_CreateRequest_FullMethodName, reclaim); !strings.Contains(got, "stage keepers-of-business takes one approval") {
		t.Errorf("that nobody could decide in a zone that shows everything is told as %q", got)
	}
	grade(apiv1.Zone_CLASSIFIED)
	if got := ask(apiv1.RequestService_CreateRequest_FullMethodName, reclaim); got != notHere {
		t.Errorf("of the stages of a classified zone is told: %q", got)
	}
	if got := ask(apiv1.VMService_CreateVM_FullMethodName, taken); got != notHere {
		t.Errorf("of a classified zone is told: %q", got)
	}
	if got := ask(apiv1.VMService_RebootVM_FullMethodName, stop); got != notHere {
		t.Errorf("of a VM in a classified zone is told: %q", got)
	}
	// What tells of no zone is told, and what was written is not lost.
	if got := ask(apiv1.SessionService_BeginLocalLogin_FullMethodName, &apiv1.BeginLocalLoginRequest{User: "kim"}); got != "the zone is not cut off" {
		t.Errorf("that the zone is connected is told as %q", got)
	}
	name := apiv1.RequestService_CreateRequest_FullMethodName
	_, err := callFrom(t.Context(), w, site.Internet.GetId(), name, apiMethods()[name], &apiv1.CreateRequestRequest{Submit: true, Request: &apiv1.Request{
		Project: "web", Reason: "it hangs", Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Vm: "web-1", Verb: apiv1.PowerVM_REBOOT}}}}}, kim)
	if p := problem.Of(err); p.GetDraft() != "r-3" {
		t.Errorf("what is refused at its submission is told as %v", p)
	}
}

// A quota over all zones tells how much is used in zones that show no figures.
func TestF6AFullQuotaTellsAnEdgeItsSumsWhereEveryZoneShowsFigures(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	a := w.Admin()
	w.Roles()
	kim := w.User("kim", apiv1.User_PERSON)
	w.Bind("b-kim", "federation-administrator", kim, apiv1.RoleBinding_FEDERATION, "")
	w.Bind("b-kim-web", "project-operator", kim, apiv1.RoleBinding_PROJECT, "web")
	w.Cross("web", "internet", "business", "vm.*")
	if _, err := a.Quotas.CreateQuota(t.Context(), &apiv1.CreateQuotaRequest{Quota: &apiv1.Quota{Project: "web", Limit: &apiv1.Amounts{Vms: proto.Uint32(1)}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")}); err != nil {
		t.Fatal(err)
	}
	told := func() string {
		t.Helper()
		name := apiv1.VMService_CreateVM_FullMethodName
		_, err := callFrom(t.Context(), w, site.Internet.GetId(), name, apiMethods()[name], &apiv1.CreateVMRequest{Vm: w.VM("web-2", "web")}, kim)
		if !problem.Is(err, problem.QuotaExceeded) {
			t.Fatal(err)
		}
		return problem.Of(err).GetDetail()
	}
	if got := told(); !strings.Contains(got, "1 held of 1") {
		t.Errorf("where every zone shows what it has: %q", got)
	}
	if _, err := a.Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "vault", Grade: apiv1.Zone_CLASSIFIED}}); err != nil {
		t.Fatal(err)
	}
	if got := told(); got != "the quota of project web does not allow it: 1 VMs asked for, of at most 1; how much of that is used is not shown here" {
		t.Errorf("where one does not: %q", got)
	}
}
