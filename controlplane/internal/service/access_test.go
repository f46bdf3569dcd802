package service_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func access(role string, scope apiv1.RoleBinding_Scope, days uint32) *apiv1.Request {
	m := of(&apiv1.RequestSpecification{What: &apiv1.RequestSpecification_AccessForTime{AccessForTime: &apiv1.AccessForTime{Role: role, Scope: scope, Days: days}}})
	if scope == apiv1.RoleBinding_ZONE {
		m.Zone = "business"
	}
	return m
}

func (o *office) bindings(user string) (all []*apiv1.RoleBinding) {
	o.Helper()
	o.View(func(tx *state.Tx) error {
		for b, err := range tx.RoleBindingsOf(o.users[user].GetId()) {
			if err != nil {
				return err
			}
			all = append(all, b)
		}
		return nil
	})
	return all
}

func reviewStage() *apiv1.StageTemplate {
	return &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Roles: []string{"reviewer"}, At: apiv1.Eligibility_PROJECT}, Rule: apiv1.StageTemplate_ANY}
}

// bossed is an office in which bob reviews and dan approves.
func bossed(t *testing.T) *office {
	o := newOffice(t, reviewStage(), &apiv1.StageTemplate{Name: "boss", Sequence: 2, Eligible: &apiv1.Eligibility{Users: []string{"dan"}}, Rule: apiv1.StageTemplate_ANY})
	o.Bind("b-dan", "federation-administrator", o.users["dan"], apiv1.RoleBinding_FEDERATION, "")
	return o
}

func (o *office) approved(name string, who ...string) {
	o.Helper()
	for _, who := range who {
		if err := o.decide(who, name, apiv1.Decision_APPROVE, nil); err != nil {
			o.Fatal(err)
		}
	}
}

func TestARoleIsGivenForATimeOnceSomebodyWhoMayGiveItHasApproved(t *testing.T) {
	o := bossed(t)
	vm := o.VM("web-1", "web")
	if _, err := o.As(o.users["ann"]).VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: vm}); !problem.Is(err, problem.Forbidden) {
		t.Fatalf("ann makes VMs already: %v", err)
	}
	m, err := o.submit("ann", access("project-operator", 0, 3))
	if err != nil {
		t.Fatal(err)
	}
	if m.GetKind() != apiv1.RequestKind_ACCESS || m.GetZone() != "" || len(m.GetParts()) != 1 || m.GetParts()[0].GetName() != "project-operator in project/web" ||
		!slices.Contains(m.GetSpecification().GetAccessForTime().GetPermissions(), "vm.create") {
		t.Fatalf("%v", m)
	}
	o.approved("r-1", "bob")
	if o.turn(); len(o.bindings("ann")) != 1 {
		t.Fatal("it was given before it was approved")
	}
	o.approved("r-1", "dan")
	o.turn()
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_DONE || m.GetResults()[0].GetKind() != "role-binding" {
		t.Fatalf("%v", m)
	}
	all := o.bindings("ann")
	if len(all) != 2 {
		t.Fatalf("%v", all)
	}
	b := all[slices.IndexFunc(all, func(b *apiv1.RoleBinding) bool { return b.GetRole() == "project-operator" })]
	if left := b.GetExpiresAt().AsTime().Sub(o.now); left < 71*time.Hour || left > 73*time.Hour || b.GetScope() != apiv1.RoleBinding_PROJECT || b.GetPlace() != "web" || b.GetReason() != "request r-1" {
		t.Errorf("%v", b)
	}
	if _, err := o.As(o.users["ann"]).VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: vm}); err != nil {
		t.Errorf("ann has the role, and makes no VM: %v", err)
	}
	if _, err := o.submit("ann", access("project-operator", 0, 2)); !problem.Is(err, problem.WrongState) || !strings.Contains(err.Error(), "already") {
		t.Errorf("what ann has is asked for again: %v", err)
	}
}

func TestARoleInAZoneIsGivenByTheZonesAdministrator(t *testing.T) {
	o := newOffice(t)
	if _, err := o.submit("ann", access("zone-operator", apiv1.RoleBinding_ZONE, 1)); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob", "cho")
	o.turn()
	if all := o.bindings("ann"); len(all) != 2 || !slices.ContainsFunc(all, func(b *apiv1.RoleBinding) bool {
		return b.GetScope() == apiv1.RoleBinding_ZONE && b.GetPlace() == "business"
	}) {
		t.Errorf("%v", all)
	}
}

// TestP6NobodyGivesByARequestWhatTheyDoNotHave: neither who approves alone, nor a policy without people.
func TestP6NobodyGivesByARequestWhatTheyDoNotHave(t *testing.T) {
	o := newOffice(t)
	for _, m := range []*apiv1.Request{access("project-operator", 0, 3), access("federation-administrator", 0, 3), access("federation-administrator", apiv1.RoleBinding_ZONE, 3)} {
		if _, err := o.submit("ann", m); !problem.Is(err, problem.WrongState) || !strings.Contains(err.Error(), "in no stage of policy two-steps") {
			t.Errorf("%v: %v", m.GetSpecification(), err)
		}
	}
	for what, m := range map[string]*apiv1.Request{"for how long": access("user", 0, 0), "there is no role": access("emperor", 0, 1)} {
		if _, err := o.submit("ann", m); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestP6ARoleIsNotGivenThatPermitsMoreThanWasApproved(t *testing.T) {
	o := bossed(t)
	a := o.Admin()
	if _, err := a.Roles.CreateRole(t.Context(), &apiv1.CreateRoleRequest{Role: &apiv1.Role{Name: "starter", Permissions: []string{"vm.start"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.submit("ann", access("starter", 0, 3)); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob", "dan")
	if _, err := a.Roles.UpdateRole(t.Context(), &apiv1.UpdateRoleRequest{Role: &apiv1.Role{Id: "starter", Permissions: []string{"vm.start", "vm.delete"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"permissions"}}}); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if m := o.show("ann", "r-1"); len(o.bindings("ann")) != 1 || !strings.Contains(m.GetFulfilmentReason(), "permits more by now than was approved: vm.delete") {
		t.Errorf("%v", m)
	}
}

// TestP6ARoleIsNotGivenThatCountsWhereItWasNotApproved: under another condition, or at edges too.
func TestP6ARoleIsNotGivenThatCountsWhereItWasNotApproved(t *testing.T) {
	const office, anytime = "resource.zone_grade <= 2", "resource.zone_grade <= 9"
	for about, x := range map[string]struct {
		was, is *apiv1.Role
		paths   []string
		says    string
	}{
		"another condition":  {&apiv1.Role{Condition: office}, &apiv1.Role{Condition: anytime}, []string{"condition"}, "another condition by now"},
		"no condition":       {&apiv1.Role{Condition: office}, &apiv1.Role{}, []string{"condition"}, "another condition by now"},
		"at edges":           {&apiv1.Role{}, &apiv1.Role{AtEdges: true}, []string{"at_edges"}, "counts at zones' edges by now"},
		"a condition at all": {&apiv1.Role{}, &apiv1.Role{Condition: office}, []string{"condition"}, ""},
		"no longer at edges": {&apiv1.Role{AtEdges: true}, &apiv1.Role{}, []string{"at_edges"}, ""},
		"another title":      {&apiv1.Role{Condition: office, AtEdges: true}, &apiv1.Role{Title: "x"}, []string{"title"}, ""},
	} {
		t.Run(about, func(t *testing.T) {
			o := bossed(t)
			x.was.Name, x.was.Permissions, x.is.Id = "starter", []string{"vm.start"}, "starter"
			if _, err := o.Admin().Roles.CreateRole(t.Context(), &apiv1.CreateRoleRequest{Role: x.was}); err != nil {
				t.Fatal(err)
			}
			m, err := o.submit("ann", access("starter", 0, 3))
			if err != nil {
				t.Fatal(err)
			}
			if ask := m.GetSpecification().GetAccessForTime(); ask.GetCondition() != x.was.GetCondition() || ask.GetAtEdges() != x.was.GetAtEdges() {
				t.Errorf("who approves sees %v", ask)
			}
			o.approved("r-1", "bob", "dan")
			if _, err := o.Admin().Roles.UpdateRole(t.Context(), &apiv1.UpdateRoleRequest{Role: x.is, UpdateMask: &fieldmaskpb.FieldMask{Paths: x.paths}}); err != nil {
				t.Fatal(err)
			}
			o.turn()
			m = o.show("ann", "r-1")
			if given := len(o.bindings("ann")) == 2; given != (x.says == "") || !strings.Contains(m.GetFulfilmentReason(), x.says) {
				t.Errorf("given: %t, %v", given, m)
			}
		})
	}
}

func TestP6ARoleIsNotGivenOnceNobodyWhoApprovedMayGiveIt(t *testing.T) {
	o := bossed(t)
	o.Bind("b-cho-too", "federation-administrator", o.users["cho"], apiv1.RoleBinding_FEDERATION, "")
	if _, err := o.submit("ann", access("project-operator", 0, 3)); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob", "dan")
	if _, err := o.Admin().RoleBindings.DeleteRoleBinding(t.Context(), &apiv1.DeleteRoleBindingRequest{RoleBinding: "b-dan"}); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if m := o.show("ann", "r-1"); len(o.bindings("ann")) != 1 || !strings.Contains(m.GetFulfilmentReason(), "none of those who approved may give") {
		t.Errorf("%v", m)
	}
}

func TestF2WhatAProjectsPeopleMayChangeInAnotherZoneIsApprovedOnBothSides(t *testing.T) {
	o := newOffice(t, zoneStage("theirs", 1, apiv1.Eligibility_DESTINATION), zoneStage("ours", 1, apiv1.Eligibility_SOURCE))
	o.users["eve"] = o.User("eve", apiv1.User_PERSON)
	o.Bind("b-eve", "zone-administrator", o.users["eve"], apiv1.RoleBinding_ZONE, "internet")
	o.Bind("b-ann-too", "project-operator", o.users["ann"], apiv1.RoleBinding_PROJECT, "web")
	create(t, o.In("web"), o.VM("web-1", ""))
	o.answer(apiv1.VM_RUNNING)
	stop := func() error {
		_, err := o.AtEdge(o.site.Internet, o.users["ann"]).VMs.StopVM(t.Context(), &apiv1.StopVMRequest{Vm: "web-1", Project: "web"})
		return err
	}
	refused := func() {
		t.Helper()
		if err := stop(); !problem.Is(err, problem.Forbidden) || !strings.Contains(err.Error(), "outside zone internet") || !strings.Contains(problem.Of(err).GetNext(), "naru request create") {
			t.Fatalf("from another zone: %v", err)
		}
	}
	refused()
	crossing := func(permissions ...string) *apiv1.Request {
		m := of(&apiv1.RequestSpecification{What: &apiv1.RequestSpecification_CrossZone{CrossZone: &apiv1.CrossZone{Permissions: permissions, Days: 5}}})
		m.Zone = "business"
		return m
	}
	edge := o.AtEdge(o.site.Internet, o.users["ann"]).Requests
	for permission, says := range map[string]string{"user.create": "nothing crosses by", "*": "nothing crosses by", "vm.fly": "nothing crosses by"} {
		if _, err := edge.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: crossing(permission), Submit: true}); !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", permission, err)
		}
	}
	other := crossing("vm.stop")
	other.GetSpecification().GetCrossZone().SourceZone = "business"
	if _, err := edge.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: other, Submit: true}); !problem.Is(err, problem.Invalid) {
		t.Errorf("asked at one zone's edge for another: %v", err)
	}
	r, err := edge.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: crossing("vm.stop", "snapshot.*"), Submit: true})
	if err != nil {
		t.Fatal(err)
	}
	name := r.GetRequest().GetName()
	if got := r.GetRequest().GetSpecification().GetCrossZone(); got.GetSourceZone() != "internet" || !slices.Equal(got.GetPermissions(), []string{"snapshot.create", "snapshot.delete", "snapshot.restore", "vm.stop"}) {
		t.Fatalf("%v", got)
	}
	o.approved(name, "cho")
	o.turn()
	refused()
	o.approved(name, "eve")
	o.turn()
	if m := o.show("ann", name); m.GetFulfilment() != apiv1.Request_DONE || m.GetResults()[0].GetKind() != "crossing" {
		t.Fatalf("%v", m)
	}
	if err := stop(); err != nil {
		t.Fatalf("a crossing leads there: %v", err)
	}
	if _, err := o.AtEdge(o.site.Internet, o.users["ann"]).VMs.StartVM(t.Context(), &apiv1.StartVMRequest{Vm: "web-1", Project: "web"}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("what was not approved: %v", err)
	}
	all, err := o.AtEdge(o.site.Internet, o.users["eve"]).Crossings.ListCrossings(t.Context(), &apiv1.ListCrossingsRequest{})
	if err != nil || len(all.GetCrossings()) != 1 || all.GetCrossings()[0].GetRequest() != name {
		t.Fatalf("whoever looks after the zone that it leads from sees %v, %v", all, err)
	}
	o.users["fay"] = o.User("fay", apiv1.User_PERSON)
	if hers, err := o.As(o.users["fay"]).Crossings.ListCrossings(t.Context(), &apiv1.ListCrossingsRequest{}); err == nil && len(hers.GetCrossings()) > 0 {
		t.Errorf("somebody without a role sees %v", hers)
	}
	if _, err := o.As(o.users["eve"]).Crossings.DeleteCrossing(t.Context(), &apiv1.DeleteCrossingRequest{Crossing: all.GetCrossings()[0].GetId()}); err != nil {
		t.Fatal(err)
	}
	refused()
}
