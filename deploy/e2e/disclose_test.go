package e2e

import (
	"strings"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestF6AnEdgeShowsAndCallsWhatTheZonesPoliciesLetIt sets policies with the command line, and looks from a real edge: what a zone does
// not let out does not come out at another's edge, and is found by nothing; what an edge may not call it does not.
func TestF6AnEdgeShowsAndCallsWhatTheZonesPoliciesLetIt(t *testing.T) {
	s := raise(t, "--without-libvirt", "--servers", "1")
	vm, err := s.admin.VMs.GetVM(t.Context(), &apiv1.GetVMRequest{Vm: "web-1", Project: "web"})
	if err != nil || vm.GetVm().GetAddress() == "" {
		t.Fatalf("%v, %v", vm, err)
	}
	address := vm.GetVm().GetAddress()
	shows := func(network string) string {
		return s.naru(t, network, "vm", "show", "web-1", "--project", "web", "-o", "json")
	}
	if at := shows("internet"); !strings.Contains(at, address) || !strings.Contains(at, vm.GetVm().GetHost()) {
		t.Fatalf("without a policy the edge of internet shows %s", at)
	}

	s.naru(t, "control", "zone", "policy", "business", "--lets-out", "any=addresses")
	if at := shows("internet"); !strings.Contains(at, address) || strings.Contains(at, vm.GetVm().GetHost()) {
		t.Errorf("where business lets out addresses, the edge of internet shows %s", at)
	}
	s.naru(t, "control", "zone", "policy", "business", "--lets-out", "any=names")
	if at := shows("internet"); strings.Contains(at, address) || !strings.Contains(at, vm.GetVm().GetHost()) {
		t.Errorf("where business lets out names, the edge of internet shows %s", at)
	}
	if found, err := s.command(t.Context(), "internet", "vm", "list", "--filter", "address="+address).CombinedOutput(); err == nil {
		t.Errorf("it is found by its address: %s", found)
	}
	for _, elsewhere := range []string{"business", "control"} {
		if at := shows(elsewhere); !strings.Contains(at, address) {
			t.Errorf("at %s it is not shown either: %s", elsewhere, at)
		}
	}

	s.naru(t, "control", "zone", "policy", "internet", "--methods", "VMService/GetVM")
	if told, err := s.command(t.Context(), "internet", "vm", "list").CombinedOutput(); err == nil || !strings.Contains(string(told), "does not let its edge call") {
		t.Errorf("the edge of internet lists VMs: %v\n%s", err, told)
	}
	shows("internet")
	s.naru(t, "control", "zone", "policy", "internet", "--methods", "all")
	s.naru(t, "control", "zone", "policy", "business", "--lets-out", "usual")
	if at := shows("internet"); !strings.Contains(at, address) {
		t.Errorf("with no policy again it is shown as %s", at)
	}
}
