package service_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAChangeIsAnsweredWithTheFreshnessThatAReadShows(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	w.Connect(site.Business.GetId(), true)
	host := site.Hosts[0].GetId()
	made, err := w.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")})
	if err != nil {
		t.Fatal(err)
	}
	vm := made.GetOperation().GetTarget()
	changed, err := w.Admin().VMs.UpdateVM(t.Context(), &apiv1.UpdateVMRequest{
		Vm: &apiv1.VM{Id: vm.GetId(), Description: "x"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	read, err := w.Admin().VMs.GetVM(t.Context(), &apiv1.GetVMRequest{Vm: vm.GetId()})
	if want := read.GetVm().GetFreshness(); err != nil || want == 0 || changed.GetVm().GetFreshness() != want {
		t.Errorf("vm update: %v, a read shows %v, %v", changed.GetVm().GetFreshness(), want, err)
	}
	lost, err := w.Admin().Hosts.DeclareHostLost(t.Context(), &apiv1.DeclareHostLostRequest{Host: host, Reason: "burnt"})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := w.Admin().Hosts.GetHost(t.Context(), &apiv1.GetHostRequest{Host: host})
	if want := shown.GetHost().GetFreshness(); err != nil || want == 0 || lost.GetHost().GetFreshness() != want {
		t.Errorf("host lost: %v, a read shows %v, %v", lost.GetHost().GetFreshness(), want, err)
	}
}
