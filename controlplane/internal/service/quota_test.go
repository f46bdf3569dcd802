package service_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func limit(t *testing.T, w *servicetest.World, m *apiv1.Quota) {
	t.Helper()
	if _, err := w.Admin().Quotas.CreateQuota(t.Context(), &apiv1.CreateQuotaRequest{Quota: m}); err != nil {
		t.Fatal(err)
	}
}

func mostVMs(n uint32) *apiv1.Amounts { return &apiv1.Amounts{Vms: proto.Uint32(n)} }

func TestAVMBeyondAQuotaIsRefusedBeforeItIsProposed(t *testing.T) {
	w, _, vm := inUse(t)
	limit(t, w, &apiv1.Quota{Project: "web", Limit: &apiv1.Amounts{Vms: proto.Uint32(1), Cores: proto.Uint32(vm.GetSize().GetCores()), Snapshots: proto.Uint32(0)}})
	flavor(w, "larger", vm.GetSize().GetCores()+1, vm.GetSize().GetMemoryMib(), vm.GetSize().GetDiskGib())
	before := w.Proposes()
	_, err := w.In("web").VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-2", "web")})
	refuses(t, err, problem.QuotaExceeded, "1 VMs asked for, 0 used and 1 held of 1")
	_, err = w.In("web").VMs.ResizeVM(t.Context(), &apiv1.ResizeVMRequest{Vm: "web-1", Flavor: "larger", MayStop: true})
	refuses(t, err, problem.QuotaExceeded, "1 cores asked for")
	_, err = w.In("web").Snapshots.CreateSnapshot(t.Context(), &apiv1.CreateSnapshotRequest{Snapshot: &apiv1.Snapshot{Name: "a", Vm: "web-1"}, MayStop: true})
	refuses(t, err, problem.QuotaExceeded, "1 snapshots asked for")
	if w.Proposes() != before {
		t.Errorf("%d commands were proposed", w.Proposes()-before)
	}
}

func TestAQuotaLimitsOneThingAndSaysSoWhereItDoesNot(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	for name, c := range map[string]struct {
		quota *apiv1.Quota
		code  problem.Code
		says  string
	}{
		"nobody's":            {&apiv1.Quota{Limit: mostVMs(1)}, problem.Invalid, "project"},
		"both":                {&apiv1.Quota{Project: "web", Organization: "default", Limit: mostVMs(1)}, problem.Invalid, "project"},
		"of none that exists": {&apiv1.Quota{Project: "none", Limit: mostVMs(1)}, problem.NotFound, "none"},
		"nowhere":             {&apiv1.Quota{Project: "web", Zone: "none", Limit: mostVMs(1)}, problem.NotFound, "none"},
		"of nothing":          {&apiv1.Quota{Project: "web", Limit: &apiv1.Amounts{}}, problem.Invalid, "limits nothing"},
	} {
		_, err := w.Admin().Quotas.CreateQuota(t.Context(), &apiv1.CreateQuotaRequest{Quota: c.quota})
		if !problem.Is(err, c.code) || !strings.Contains(problem.Of(err).String(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	limit(t, w, &apiv1.Quota{Project: "web", Zone: "business", Grade: apiv1.Zone_OPEN, Limit: mostVMs(1)})
	_, err := w.Admin().Quotas.CreateQuota(t.Context(), &apiv1.CreateQuotaRequest{Quota: &apiv1.Quota{Project: "web", Zone: "business", Grade: apiv1.Zone_OPEN, Limit: mostVMs(2)}})
	refuses(t, err, problem.NameTaken, "project.web@business.open")
	r, err := w.Admin().Quotas.UpdateQuota(t.Context(), &apiv1.UpdateQuotaRequest{
		Quota: &apiv1.Quota{Id: "project.web@business.open", Limit: mostVMs(5)}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"limit"}}})
	if err != nil || r.GetQuota().GetLimit().GetVms() != 5 || r.GetQuota().GetLeft().GetVms() != 5 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestAProjectShowsWhatIsLeftForItAndWhatOfItsOrganization(t *testing.T) {
	w, _, _ := inUse(t)
	limit(t, w, &apiv1.Quota{Project: "web", Limit: mostVMs(3)})
	limit(t, w, &apiv1.Quota{Project: "db", Limit: mostVMs(9)})
	limit(t, w, &apiv1.Quota{Organization: "default", Zone: "business", Limit: mostVMs(2)})
	r, err := w.In("web").Projects.GetProject(t.Context(), &apiv1.GetProjectRequest{Project: "web"})
	if err != nil {
		t.Fatal(err)
	}
	all := r.GetProject().GetQuotas()
	if len(all) != 2 || all[0].GetName() != "project.web" || all[0].GetLeft().GetVms() != 2 || all[1].GetName() != "organization.default@business" || all[1].GetLeft().GetVms() != 1 {
		t.Errorf("it shows %v", all)
	}
	l, err := w.In("web").Quotas.ListQuotas(t.Context(), &apiv1.ListQuotasRequest{})
	if err != nil || len(l.GetQuotas()) != 1 || l.GetQuotas()[0].GetName() != "project.web" {
		t.Errorf("one of the project sees %v, %v", l, err)
	}
}

func TestAnApproverSeesWhatIsLeftOnceWhatIsAskedForIsCounted(t *testing.T) {
	o := newOffice(t)
	limit(t, o.World, &apiv1.Quota{Project: "web", Limit: mostVMs(3)})
	ask := &apiv1.Request{Project: "web", Zone: "business", Reason: "x", Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{
		Create: &apiv1.CreateVMs{Offering: "web-server", Quantity: 2, NamePattern: "web-##"}}}}
	ann := o.As(o.users["ann"])
	r, err := ann.Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask, Submit: true})
	if err != nil {
		t.Fatal(err)
	}
	seen, err := o.As(o.users["bob"]).Requests.GetRequest(t.Context(), &apiv1.GetRequestRequest{Request: r.GetRequest().GetName()})
	if err != nil {
		t.Fatal(err)
	}
	if m := seen.GetRequest(); m.GetAdds().GetVms() != 2 || m.GetAdds().GetCores() != 2 || len(m.GetQuotas()) != 1 || m.GetQuotas()[0].GetLeft().GetVms() != 1 {
		t.Errorf("bob sees that it adds %v, of %v", m.GetAdds(), m.GetQuotas())
	}
	p, err := ann.Requests.PreviewRequest(t.Context(), &apiv1.PreviewRequestRequest{Request: ask})
	if err != nil || p.GetProblem().GetCode() != string(problem.QuotaExceeded) {
		t.Errorf("a preview of two more: %v, %v", p.GetProblem(), err)
	}
	_, err = ann.Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask, Submit: true})
	refuses(t, err, problem.QuotaExceeded, "2 VMs asked for, 0 used and 2 held of 3")
}
