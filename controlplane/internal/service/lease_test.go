package service_test

import (
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/controller/lease"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestALeaseIsGivenRunsByTheLeadersClockAndIsShortened(t *testing.T) {
	o := newOffice(t)
	create(t, o.In("web"), o.VM("web-1", "web"))
	ctx := t.Context()
	give := func(days uint32) error {
		_, err := o.Admin().Leases.CreateLease(ctx, &apiv1.CreateLeaseRequest{Lease: &apiv1.Lease{Vm: "web-1", Project: "web", Days: days}})
		return err
	}
	refuses(t, give(0), problem.Invalid, "days is required")
	if err := give(30); err != nil {
		t.Fatal(err)
	}
	refuses(t, give(30), problem.WrongState, "has a lease already")
	steps := lease.New(lease.Config{Reader: o.DB, Proposer: clocked{o}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return o.now }})
	turn := func() *apiv1.Lease {
		t.Helper()
		if err := steps.Turn(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := o.In("web").Leases.GetLease(ctx, &apiv1.GetLeaseRequest{Lease: "web-1", Project: "web"})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetLease()
	}
	if m := turn(); m.GetState() != apiv1.Lease_PENDING {
		t.Errorf("before it can be used: %v", m)
	}
	vm := show(t, o.In("web"), "web-1", "")
	o.Observe(o.site.Business.GetId(), &apiv1.VM{Id: vm.GetId(), Name: vm.GetName(), State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, UsableAt: timestamppb.New(o.now), Host: "kvm-1", HostId: o.site.Hosts[0].GetId()})
	begun := turn()
	if begun.GetState() != apiv1.Lease_ACTIVE || show(t, o.In("web"), "web-1", "").GetExpiresAt() == nil {
		t.Errorf("once it can be used: %v", begun)
	}
	shorten := func(c *servicetest.World, as *apiv1.User, until time.Time) error {
		_, err := c.As(as).Leases.ShortenLease(ctx, &apiv1.ShortenLeaseRequest{Lease: "web-1", Project: "web", ExpiresAt: timestamppb.New(until), Reason: "not needed"})
		return err
	}
	refuses(t, shorten(o.World, o.users["ann"], o.now.AddDate(0, 0, 9)), problem.Forbidden, "lease.shorten")
	if err := shorten(o.World, o.users["cho"], o.now.AddDate(0, 0, 9)); err != nil {
		t.Fatal(err)
	}
	for _, is := range []apiv1.Lease_State{apiv1.Lease_WARNED, apiv1.Lease_EXPIRED, apiv1.Lease_TRASHED} {
		o.now = o.now.AddDate(0, 1, 0)
		if m := turn(); m.GetState() != is {
			t.Errorf("a month later it is %v, not %v", m.GetState(), is)
		}
	}
	o.View(func(tx *state.Tx) error {
		m, err := tx.VMs.Get(vm.GetId())
		if m.GetDesiredState() != apiv1.VM_TRASHED {
			t.Errorf("the VM is wanted %v", m.GetDesiredState())
		}
		return err
	})
}

func TestAnExtensionBeyondTheLongestIsNotSubmitted(t *testing.T) {
	o := newOffice(t)
	create(t, o.In("web"), o.VM("web-1", "web"))
	ctx := t.Context()
	ask := func(days uint32) (*apiv1.PreviewRequestResponse, error) {
		return o.As(o.users["ann"]).Requests.PreviewRequest(ctx, &apiv1.PreviewRequestRequest{Request: &apiv1.Request{Project: "web", Reason: "x",
			Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Extend{Extend: &apiv1.ExtendLease{Vm: "web-1", Days: days}}}}})
	}
	if r, err := ask(5); err != nil || r.GetProblem().GetDetail() != "VM web-1 has no lease" {
		t.Errorf("of one without a lease: %v, %v", r, err)
	}
	if _, err := o.Admin().Leases.CreateLease(ctx, &apiv1.CreateLeaseRequest{Lease: &apiv1.Lease{Vm: "web-1", Project: "web", Days: 30, Terms: &apiv1.LeaseTerms{LongestDays: 40}}}); err != nil {
		t.Fatal(err)
	}
	vm := show(t, o.In("web"), "web-1", "")
	o.Observe(o.site.Business.GetId(), &apiv1.VM{Id: vm.GetId(), Name: vm.GetName(), State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, UsableAt: timestamppb.New(o.now), Host: "kvm-1", HostId: o.site.Hosts[0].GetId()})
	steps := lease.New(lease.Config{Reader: o.DB, Proposer: clocked{o}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return o.now }})
	if err := steps.Turn(ctx); err != nil {
		t.Fatal(err)
	}
	if r, err := ask(11); err != nil || r.GetProblem().GetCode() != string(problem.Invalid) {
		t.Errorf("beyond its longest: %v, %v", r, err)
	}
	if r, err := ask(10); err != nil || r.GetProblem() != nil || r.GetRequest().GetKind() != apiv1.RequestKind_EXTEND {
		t.Errorf("within it: %v, %v", r, err)
	}
}
