package rights

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func zoneOf(name string, grade apiv1.Zone_Grade, disclosures ...*apiv1.Disclosure) *apiv1.Zone {
	return &apiv1.Zone{Id: "z-" + name, Name: name, Grade: grade, Policy: &apiv1.ZonePolicy{Disclosures: disclosures}}
}

func lets1(d apiv1.Disclosure_Direction, g apiv1.Zone_Grade, names, addresses, figures bool) *apiv1.Disclosure {
	return &apiv1.Disclosure{Direction: d, Grade: g, Names: names, Addresses: addresses, Figures: figures}
}

func TestSomethingCrossesWhereBothZonesLetIt(t *testing.T) {
	const out, in, open, sensitive, classified, any = apiv1.Disclosure_OUT, apiv1.Disclosure_IN, apiv1.Zone_OPEN, apiv1.Zone_SENSITIVE, apiv1.Zone_CLASSIFIED, apiv1.Zone_GRADE_UNSPECIFIED
	internet := zoneOf("internet", open)
	for about, c := range map[string]struct {
		of, at *apiv1.Zone
		want   Shown
	}{
		"no policies":               {zoneOf("business", sensitive), internet, Shown{true, true, true}},
		"classified, to open":       {zoneOf("vault", classified), internet, Shown{}},
		"classified, to classified": {zoneOf("vault", classified), zoneOf("vault-2", classified), Shown{true, true, true}},
		"names only go out":         {zoneOf("business", sensitive, lets1(out, open, true, false, false)), internet, Shown{Names: true}},
		"to another grade, nothing": {zoneOf("business", sensitive, lets1(out, sensitive, true, true, true)), internet, Shown{}},
		"to any grade":              {zoneOf("vault", classified, lets1(out, any, true, false, true)), internet, Shown{Names: true, Figures: true}},
		"the grade before any":      {zoneOf("b", sensitive, lets1(out, any, true, true, true), lets1(out, open, false, true, false)), internet, Shown{Addresses: true}},
		"in less than out":          {zoneOf("business", sensitive), zoneOf("internet", open, lets1(in, sensitive, true, false, true)), Shown{Names: true, Figures: true}},
		"out and in":                {zoneOf("b", sensitive, lets1(out, open, true, true, false)), zoneOf("internet", open, lets1(in, any, false, true, true)), Shown{Addresses: true}},
		"the zone itself":           {zoneOf("internet", open, lets1(out, any, false, false, false)), zoneOf("internet", open), Shown{true, true, true}},
		"a zone nobody knows":       {nil, internet, Shown{}},
	} {
		if got := Crosses(c.of, c.at); got != c.want {
			t.Errorf("%s: %+v, want %+v", about, got, c.want)
		}
	}
}

func TestWhatMayNotCrossIsLeftOut(t *testing.T) {
	vm := func(zone string) *apiv1.VM {
		return &apiv1.VM{Id: "vm-1", Name: "web-1", Project: "web", Zone: zone, Host: "kvm-1", Address: "10.0.0.1", State: apiv1.VM_RUNNING, Error: &apiv1.Problem{Code: "X", Detail: "kvm-1 has 3 MiB"}}
	}
	list := &apiv1.ListVMsResponse{Vms: []*apiv1.VM{vm("business"), vm("internet")}}
	shown := Shown{Names: true}
	Redact(list, func(zone string) Shown {
		if zone == "internet" {
			return Shown{true, true, true}
		}
		return shown
	}, nil)
	want := vm("business")
	want.Address, want.Error.Detail = "", ""
	if !proto.Equal(list.GetVms()[0], want) || !proto.Equal(list.GetVms()[1], vm("internet")) {
		t.Errorf("%v", list)
	}
	event := &apiv1.Event{Type: "vm.moved", Zone: "business", Target: &apiv1.Reference{Kind: "vm", Id: "vm-1", Name: "web-1"}, Message: "to kvm-2"}
	Redact(event, func(string) Shown { return Shown{} }, nil)
	if event.GetMessage() != "" || event.GetTarget().GetName() != "" || event.GetTarget().GetId() != "vm-1" {
		t.Errorf("%v", event)
	}
	host := &apiv1.Host{Name: "kvm-1", Zone: "business", Endpoint: "qemu+tls://10.0.0.7/system", Total: &apiv1.Resources{Cores: 8}, VmCount: 3}
	Redact(host, func(string) Shown { return Shown{Names: true} }, nil)
	if host.GetName() == "" || host.GetEndpoint() != "" || host.GetTotal() != nil || host.GetVmCount() != 0 {
		t.Errorf("%v", host)
	}
	project := &apiv1.Project{Name: "web", Description: "x"}
	Redact(project, func(string) Shown { return Shown{} }, nil)
	if project.GetName() == "" {
		t.Error("what tells of no zone was taken out")
	}
	zone := &apiv1.Zone{Name: "business", Agents: []*apiv1.Agent{{Name: "agent-1", Version: "1"}}}
	Redact(zone, func(string) Shown { return Shown{} }, nil)
	if zone.GetName() == "" || zone.GetAgents()[0].GetName() != "" {
		t.Errorf("%v", zone)
	}
	if got := Withheld((&apiv1.VM{}).ProtoReflect().Descriptor(), Shown{Names: true, Figures: true}); !slices.Equal(got, []string{"address", "error", "error.detail", "error.next", "error.errors", "error.clusters"}) {
		t.Errorf("by %v nothing may be looked for", got)
	}
	if got := Withheld((&apiv1.Request{}).ProtoReflect().Descriptor(), Shown{Names: true, Figures: true}); !slices.Contains(got, "parts") || slices.Contains(got, "parts.name") {
		t.Errorf("names are shown, and by %v nothing may be looked for", got)
	}
}

func TestF6WhatAQuotaOverAllZonesSumsUpTellsOfEach(t *testing.T) {
	amounts := &apiv1.Amounts{Vms: proto.Uint32(3)}
	of := func(zone string) *apiv1.Quota {
		return &apiv1.Quota{Name: "shop", Zone: zone, Limit: amounts, Held: amounts, Used: amounts, Left: amounts}
	}
	answer := &apiv1.GetRequestResponse{Request: &apiv1.Request{Name: "r-1", Zone: "business", Quotas: []*apiv1.Quota{of(""), of("business")}}}
	Redact(answer, func(zone string) Shown { return Shown{Names: true, Addresses: true, Figures: zone == "business"} }, nil)
	if got := answer.GetRequest().GetQuotas(); got[0].Used != nil || got[0].Held != nil || got[0].Left != nil || got[0].Limit == nil || !proto.Equal(got[1], of("business")) {
		t.Errorf("%v", got)
	}
}
