package cli

import (
	"strings"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestWhatWasDoneDirectlyIsListedAmongRequests(t *testing.T) {
	d := counter(t)
	if _, err := d.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: d.VM("shop-1", "web")}); err != nil {
		t.Fatal(err)
	}
	d.must(asks)
	lines := strings.Split(strings.TrimSpace(d.must("request list --context bob")), "\n")
	if len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "NAME KIND TITLE REQUESTER PROJECT ZONE APPROVAL FULFILMENT CHANGE INTAKE" {
		t.Fatalf("%q", lines)
	}
	for _, line := range lines[1:] {
		of := strings.Fields(line)
		is := strings.Join(of[len(of)-4:], " ")
		if of[0] == "r-1" && (of[1] != "create" || of[2] != "vm.create" || is != "approved executing standard direct") || of[0] == "r-2" && !strings.HasSuffix(is, " none normal api") {
			t.Errorf("%q", line)
		}
	}
	if got := d.must("request list --context bob --filter asked=true -o name"); got != "r-2\n" {
		t.Errorf("what was asked for is %q", got)
	}
	if got := d.must("request list --context bob --filter vm=shop-1 -o name"); got != "r-1\n" {
		t.Errorf("about the VM is %q", got)
	}
	if got := d.must("request list --context bob -o wide --filter vm=shop-1"); !strings.Contains(got, "shop-1") {
		t.Errorf("the VM is not named:\n%s", got)
	}
	got := d.must("request show r-1 --context bob")
	for _, words := range []string{"direct", "standard", "vm.create is permitted to ", "shop-1"} {
		if !strings.Contains(got, words) {
			t.Errorf("it does not say %q:\n%s", words, got)
		}
	}
	if r := d.naru("request copy r-1 --context ann"); r.code == 0 || !strings.Contains(r.err, "request r-1 is the record of what was done without a request, and cannot be copied") {
		t.Errorf("%d\n%s", r.code, r.err)
	}
}
