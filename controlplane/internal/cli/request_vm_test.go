package cli

import (
	"bytes"
	"strings"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// standing has VM db-1 of project web, which was made without an offering, run on host kvm-1.
func standing(d *desk) {
	d.Helper()
	d.must("vm create db-1 --project web --image tiny --flavor s1 --zone business --cluster kvm")
	h, err := d.Admin().Hosts.GetHost(d.Context(), &apiv1.GetHostRequest{Host: "kvm-1", Zone: "business"})
	if err != nil {
		d.Fatal(err)
	}
	r, err := d.Admin().VMs.GetVM(d.Context(), &apiv1.GetVMRequest{Vm: "db-1", Project: "web"})
	if err != nil {
		d.Fatal(err)
	}
	vm := r.GetVm()
	vm.State, vm.Power, vm.Host, vm.HostId, vm.Reached = apiv1.VM_RUNNING, apiv1.VM_ON, "kvm-1", h.GetHost().GetId(), vm.GetGeneration()
	d.Observe(vm.GetZoneId(), vm)
}

func TestAnApproverOfAChangeSeesWhereItsVMStandsWhatItCostsAndWhatIsLeft(t *testing.T) {
	d := counter(t)
	d.Connect(d.Zone("business").GetId(), true)
	standing(d)
	d.Do(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{Id: "f-s2", Name: "s2", Cores: 2, MemoryMib: 2048, DiskGib: 10}}}})
	name := strings.TrimSpace(d.must("request create --context ann --resize --vm db-1 --flavor s2 --may-stop --reason 'it is slow' -o name"))
	seen := func(words ...string) {
		t.Helper()
		r := naru(t.Context(), "approve "+name+" --context bob", "n\n")
		for _, w := range words {
			if !strings.Contains(r.err, w) {
				t.Errorf("an approver is not shown %q:\n%s", w, r.err)
			}
		}
	}
	seen("stands on      kvm-1 of cluster kvm in zone business: db-1", "costs a month  not known", "then left      no quota limits project web there")
	if got := d.must("request show " + name + " --context ann"); !strings.Contains(got, "host kvm-1, cluster kvm") {
		t.Errorf("who asked is not shown where it stands:\n%s", got)
	}
	d.must("quota set --project web --cores 10")
	seen("then left      project.web: 0+2/10 cores (8 left)")
}

func TestWhatAChangeCostsIsSaidInAmountsAndByHowMuch(t *testing.T) {
	won := func(n string) *apiv1.Money { return &apiv1.Money{Currency: "KRW", Amount: n} }
	for want, m := range map[string]*apiv1.Request{
		"costs a month: 19,100 KRW, and 15,100 KRW as it is: 4,000 KRW more": {Kind: apiv1.RequestKind_RESIZE, MonthlyCost: won("19100"), MonthlyCostBefore: won("15100")},
		"costs a month: 15,100 KRW, and 19,100 KRW as it is: 4,000 KRW less": {Kind: apiv1.RequestKind_RESIZE, MonthlyCost: won("15100"), MonthlyCostBefore: won("19100")},
		"costs a month: not known, and 15,100 KRW as it is":                  {Kind: apiv1.RequestKind_RESIZE, MonthlyCostBefore: won("15100")},
		"costs a month: not known":                                           {Kind: apiv1.RequestKind_EXTEND},
		"costs a month: 15,100 KRW; its days cost: 45,300 KRW":               {Kind: apiv1.RequestKind_EXTEND, MonthlyCost: won("15100"), ExtensionCost: won("45300")},
		"": {Kind: apiv1.RequestKind_POWER},
	} {
		var out bytes.Buffer
		costs((&app{err: newScreen(&out)}).aside, m)
		got := strings.ReplaceAll(strings.TrimSpace(out.String()), "\n", "; ")
		for _, of := range []string{"costs a month", "its days cost"} {
			if i := strings.Index(got, of); i >= 0 {
				got = got[:i+len(of)] + ": " + strings.TrimLeft(got[i+len(of):], " ")
			}
		}
		if got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
