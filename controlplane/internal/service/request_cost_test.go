package service_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// newShop is an office in which web-1 runs, which was got from an offering that has two flavors, with a lease; bob alone decides.
func newShop(t *testing.T) *office {
	o := newOffice(t, &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY})
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{Id: "f-s2", Name: "s2", Cores: 2, MemoryMib: 2048, DiskGib: 10}}}})
	o.sized("other", 2048, 10)
	image := o.image("tiny")
	offering := &apiv1.Offering{
		Id: "o-shop", Name: "shop", Image: "tiny", ImageId: image.GetId(), ImageSha256: image.GetSha256(), Currency: "KRW", MonthlyPrice: "10000", DiskGibMonthlyPrice: "10",
		Lease: &apiv1.LeaseTerms{DefaultDays: 30},
		Flavors: []*apiv1.OfferedFlavor{
			{Flavor: "s1", FlavorId: o.flavor("s1").GetId(), MonthlyPrice: "5000", Size: &apiv1.Resources{Cores: 1, MemoryMib: 1024, DiskGib: 10}},
			{Flavor: "s2", FlavorId: "f-s2", MonthlyPrice: "9000", Size: &apiv1.Resources{Cores: 2, MemoryMib: 2048, DiskGib: 10}},
		},
	}
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateOffering{CreateOffering: &commandv1.CreateOffering{Offering: offering}}})
	o.Do(&commandv1.Command{Body: &commandv1.Command_PublishOffering{PublishOffering: &commandv1.PublishOffering{Offering: offering}}})
	m := ask()
	m.GetSpecification().GetCreate().Offering, m.GetSpecification().GetCreate().Quantity = "shop", 1
	m.GetSpecification().GetCreate().NamePattern, m.GetSpecification().GetCreate().Flavor = "web-1", "s1"
	if _, err := o.submit("ann", m); err != nil {
		t.Fatal(err)
	}
	if err := o.decide("bob", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		o.turn()
		o.says(apiv1.Reservation_HELD)
	}
	o.answer(apiv1.VM_RUNNING)
	vm := o.web1()
	vm.UsableAt = timestamppb.New(o.now)
	o.Observe(o.site.Business.GetId(), vm)
	return o
}

func extendBy(days uint32) *apiv1.RequestSpecification {
	return &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Extend{Extend: &apiv1.ExtendLease{Vm: "web-1", Days: days}}}
}

func TestF9WhoDecidesSeesWhatAResizeAndAnExtensionCost(t *testing.T) {
	o := newShop(t)
	o.leases()
	for name, x := range map[string]struct {
		what                    *apiv1.RequestSpecification
		month, before, together string
	}{
		"a flavor of its offering":  {resizeTo("s2"), "19100", "15100", ""},
		"one that it does not have": {resizeTo("other"), "", "15100", ""},
		"a month more":              {extendBy(30), "15100", "", "15100"},
		"a day more, rounded up":    {extendBy(1), "15100", "", "504"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := of(x.what)
			asked.Title = name
			r, err := o.As(o.users["ann"]).Requests.PreviewRequest(t.Context(), &apiv1.PreviewRequestRequest{Request: asked})
			if err != nil || r.GetProblem() != nil {
				t.Fatal(err, r.GetProblem())
			}
			m, err := o.submit("ann", asked)
			if err != nil {
				t.Fatal(err)
			}
			frozen := &apiv1.Request{}
			if err := proto.Unmarshal(m.GetFrozen(), frozen); err != nil {
				t.Fatal(err)
			}
			for where, m := range map[string]*apiv1.Request{"previewed": r.GetRequest(), "submitted": o.show("bob", m.GetName()), "decided on": frozen} {
				if got := [3]string{m.GetMonthlyCost().GetAmount(), m.GetMonthlyCostBefore().GetAmount(), m.GetExtensionCost().GetAmount()}; got != [3]string{x.month, x.before, x.together} {
					t.Errorf("%s, it costs %v", where, got)
				}
			}
		})
	}
}

// The price of a resize that is known counts in a limit on the price, as that of what is made does.
func TestP6AResizeIsLetThroughByALimitOnThePriceUpToIt(t *testing.T) {
	for limit, want := range map[string]apiv1.Request_Approval{"19099": apiv1.Request_SUBMITTED, "19100": apiv1.Request_APPROVED} {
		o := newShop(t)
		o.Do(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: &apiv1.ApprovalPolicy{
			Id: "p-two-steps", Name: "two-steps", Enabled: true,
			Automatic: &apiv1.AutomaticApproval{When: "true", Reason: "cheap", MaxMonthlyCost: &apiv1.Money{Amount: limit, Currency: "KRW"}},
			Stages:    []*apiv1.StageTemplate{{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY}}}}}})
		if m, err := o.submit("ann", of(resizeTo("s2"))); err != nil || m.GetApproval() != want {
			t.Errorf("up to %s: %v, %v, %v", limit, m.GetApproval(), m.GetPolicyTrace(), err)
		}
	}
}

// D6: whoever decides on what is done to a VM sees on which machine it stands, and where.
func TestARequestSaysWhereItsVMsStand(t *testing.T) {
	o := newShop(t)
	made := o.show("ann", "r-1")
	if p := made.GetParts()[0]; p.GetHost() != "kvm-1" || p.GetCluster() != "kvm" {
		t.Errorf("what was made stands on %v", p)
	}
	asked := of(turned(apiv1.PowerVM_STOP))
	m, err := o.submit("ann", asked)
	if err != nil {
		t.Fatal(err)
	}
	r, err := o.As(o.users["ann"]).Requests.PreviewRequest(t.Context(), &apiv1.PreviewRequestRequest{Request: asked})
	if err != nil {
		t.Fatal(err)
	}
	for where, m := range map[string]*apiv1.Request{"submitted": m, "to its approver": o.show("bob", m.GetName()), "previewed": r.GetRequest()} {
		if p := m.GetParts()[0]; p.GetHost() != "kvm-1" || p.GetCluster() != "kvm" || m.GetZone() != "business" {
			t.Errorf("%s: it stands on %v", where, p)
		}
	}
	vm := o.web1()
	vm.Host, vm.HostId = "kvm-2", o.site.Hosts[1].GetId()
	o.Observe(o.site.Business.GetId(), vm)
	moved := o.show("bob", m.GetName())
	if moved.GetParts()[0].GetHost() != "kvm-2" || string(moved.GetFrozenHash()) != string(m.GetFrozenHash()) {
		t.Errorf("where it stands is part of what is decided on: %v", moved)
	}
	for _, names := range []bool{true, false} {
		o.lets(&apiv1.Disclosure{Names: names, Addresses: true, Figures: true})
		r, err := o.AtEdge(o.site.Internet, o.users["ann"]).Requests.GetRequest(t.Context(), &apiv1.GetRequestRequest{Request: m.GetName()})
		if err != nil {
			t.Fatal(err)
		}
		if p := r.GetRequest().GetParts()[0]; (p.GetHost() != "") != names || (p.GetCluster() != "") != names {
			t.Errorf("where zone business lets names out is %v, another's edge shows %v", names, p)
		}
	}
}
