package service_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// fits is whether there is said to be room for a request, to ann, and why not.
func (o *office) fits(name string) (apiv1.Fit_Answer, string) {
	o.Helper()
	m := o.show("ann", name).GetFit()
	return m.GetAnswer(), m.GetProblem().GetDetail()
}

func (o *office) preview(m *apiv1.Request) *apiv1.Fit {
	o.Helper()
	r, err := o.As(o.users["ann"]).Requests.PreviewRequest(o.Context(), &apiv1.PreviewRequestRequest{Request: m})
	if err != nil || r.GetProblem() != nil {
		o.Fatal(err, r.GetProblem())
	}
	return r.GetRequest().GetFit()
}

// asking is ask for so many.
func asking(quantity uint32) *apiv1.Request {
	m := ask()
	m.GetSpecification().GetCreate().Quantity = quantity
	return m
}

// Two hosts of eight cores each.
func TestF9WhoDecidesSeesInEveryStageWhetherItFitsNow(t *testing.T) {
	o := newOffice(t)
	for quantity, want := range map[uint32]apiv1.Fit_Answer{16: apiv1.Fit_YES, 17: apiv1.Fit_NO} {
		if got := o.preview(asking(quantity)); got.GetAnswer() != want {
			t.Errorf("before it is asked for, %d are answered %v", quantity, got)
		}
	}
	for _, quantity := range []uint32{16, 17} {
		m := asking(quantity)
		m.GetSpecification().GetCreate().NamePattern = "v##-" + strings.Repeat("x", int(quantity-15))
		if _, err := o.submit("ann", m); err != nil {
			t.Fatal(err)
		}
	}
	if is, why := o.fits("r-1"); is != apiv1.Fit_YES || why != "" {
		t.Errorf("%v: %s", is, why)
	}
	if is, why := o.fits("r-2"); is != apiv1.Fit_NO || !strings.Contains(why, "2 hosts looked at: 2 lack cores") {
		t.Errorf("%v: %s", is, why)
	}
	shown := o.show("bob", "r-2")
	if c := shown.GetFit().GetProblem().GetClusters(); len(c) != 1 || c[0].GetCluster() != "kvm" || c[0].GetReasons()[0].GetHosts() != 2 {
		t.Errorf("of each cluster is said %v", c)
	}
	frozen := &apiv1.Request{}
	if err := proto.Unmarshal(shown.GetFrozen(), frozen); err != nil || frozen.GetFit() != nil {
		t.Errorf("what changes is part of what is decided on: %v, %v", frozen.GetFit(), err)
	}
	o.Connect(o.site.Business.GetId(), false)
	if is, why := o.fits("r-2"); is != apiv1.Fit_NOT_KNOWN || !strings.Contains(why, "zone business is cut off since 20") {
		t.Errorf("%v: %s", is, why)
	}
	if again := o.show("bob", "r-2"); !bytes.Equal(again.GetFrozenHash(), shown.GetFrozenHash()) {
		t.Error("it is another request since its zone is away")
	}
	o.Connect(o.site.Business.GetId(), true)
	if _, err := o.Admin().Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", AdminState: apiv1.Zone_UNDER_MAINTENANCE, AdminReason: "new cables"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"admin_state", "admin_reason"}}}); err != nil {
		t.Fatal(err)
	}
	if is, why := o.fits("r-1"); is != apiv1.Fit_NO || !strings.Contains(why, "new cables") {
		t.Errorf("%v: %s", is, why)
	}
	r, err := o.As(o.users["bob"]).Requests.ListApprovals(t.Context(), &apiv1.ListApprovalsRequest{})
	if err != nil || len(r.GetRequests()) != 2 || r.GetRequests()[0].GetFit() != nil {
		t.Errorf("hosts are looked at for a list: %v, %v", err, r)
	}
}

// The room that its zone keeps for a request is taken from others, and not from itself.
func TestF9WhatRoomIsKeptForFits(t *testing.T) {
	o := reviewed(t, func(m *apiv1.Request) { m.GetSpecification().GetCreate().Quantity = 16 })
	o.says(apiv1.Reservation_HELD)
	held := o.reservations()[0]
	for i := range held.GetQuantity() {
		h := o.site.Hosts[i%2]
		held.Units = append(held.Units, &apiv1.Reservation_Unit{Host: h.GetName(), HostId: h.GetId()})
	}
	o.Observe(held.GetZoneId(), held)
	o.turn()
	if is, why := o.fits("r-1"); is != apiv1.Fit_YES {
		t.Errorf("what has its room is answered %v: %s", is, why)
	}
	if is := o.preview(asking(1)); is.GetAnswer() != apiv1.Fit_NO {
		t.Errorf("others are answered %v", is)
	}
	if err := o.decide("cho", "r-1", apiv1.Decision_DENY, nil); err != nil {
		t.Fatal(err)
	}
	if m := o.show("ann", "r-1"); m.GetFit() != nil {
		t.Errorf("of what has ended is said %v", m.GetFit())
	}
}

func TestF9WhetherAVMCanGrowIsSaidOfItsOwnHost(t *testing.T) {
	o := newWorkshop(t)
	if _, err := o.submit("ann", of(resizeTo("s2"))); err != nil {
		t.Fatal(err)
	}
	if is, why := o.fits("r-2"); is != apiv1.Fit_YES {
		t.Errorf("%v: %s", is, why)
	}
	if is := o.preview(of(resizeTo("huge"))); is.GetAnswer() != apiv1.Fit_NO || !strings.Contains(is.GetProblem().GetDetail(), "lacks cores") {
		t.Errorf("%v", is)
	}
	if is := o.preview(of(snapshotCalled("s", true))); is != nil {
		t.Errorf("of what takes no room is said %v", is)
	}
}

// Two hosts of eight cores each, with 32 GiB of memory and 1000 GiB of disk.
func TestF9WhoDecidesSeesWhatClustersHaveLeftAfterwards(t *testing.T) {
	o := newOffice(t)
	of := func(f *apiv1.Fit, free, left *apiv1.Resources) {
		t.Helper()
		want := &apiv1.ClusterRoom{Cluster: "kvm", Free: free, Left: left}
		if len(f.GetClusters()) != 1 || !proto.Equal(f.GetClusters()[0], want) {
			t.Errorf("of clusters is said %v, not %v", f.GetClusters(), want)
		}
	}
	all := &apiv1.Resources{Cores: 16, MemoryMib: 65536, DiskGib: 2000}
	of(o.preview(asking(3)), all, &apiv1.Resources{Cores: 13, MemoryMib: 65536 - 3*1024, DiskGib: 1970})
	if f := o.preview(asking(17)); f.GetClusters() != nil {
		t.Errorf("where there is no room it is said that it leaves %v", f.GetClusters())
	}
	if _, err := o.submit("ann", asking(3)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		lets          *apiv1.Disclosure
		name, figures bool
	}{{&apiv1.Disclosure{Names: true, Addresses: true, Figures: true}, true, true}, {&apiv1.Disclosure{Figures: true}, false, true}, {&apiv1.Disclosure{Names: true, Addresses: true}, true, false}} {
		o.lets(c.lets)
		r, err := o.AtEdge(o.site.Internet, o.users["ann"]).Requests.GetRequest(t.Context(), &apiv1.GetRequestRequest{Request: "r-1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, room := range r.GetRequest().GetFit().GetClusters() {
			if (room.GetCluster() != "") != c.name || (room.GetFree() != nil) != c.figures || (room.GetLeft() != nil) != c.figures {
				t.Errorf("where zone business lets out %v, another's edge shows %v", c.lets, room)
			}
		}
	}
}

func TestF9WhatAResizeLeavesIsSaidOfItsCluster(t *testing.T) {
	o := newWorkshop(t)
	f := o.preview(of(resizeTo("s2")))
	want := &apiv1.ClusterRoom{Cluster: "kvm", Free: &apiv1.Resources{Cores: 15, MemoryMib: 65536 - 1024, DiskGib: 1990}, Left: &apiv1.Resources{Cores: 14, MemoryMib: 65536 - 2048, DiskGib: 1990}}
	if len(f.GetClusters()) != 1 || !proto.Equal(f.GetClusters()[0], want) {
		t.Errorf("of clusters is said %v", f.GetClusters())
	}
}

// TestF6WhetherItFitsCrossesAsTheZoneDisclosesIt: the answer is a figure, and says nothing of hosts where names stay.
func TestF6WhetherItFitsCrossesAsTheZoneDisclosesIt(t *testing.T) {
	o := newOffice(t)
	if _, err := o.submit("ann", asking(17)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		lets *apiv1.Disclosure
		is   apiv1.Fit_Answer
		why  bool
	}{
		{&apiv1.Disclosure{Names: true, Addresses: true, Figures: true}, apiv1.Fit_NO, true},
		{&apiv1.Disclosure{Figures: true}, apiv1.Fit_NO, false},
		{&apiv1.Disclosure{Names: true, Addresses: true}, apiv1.Fit_ANSWER_UNSPECIFIED, false},
	} {
		o.lets(c.lets)
		r, err := o.AtEdge(o.site.Internet, o.users["ann"]).Requests.GetRequest(t.Context(), &apiv1.GetRequestRequest{Request: "r-1"})
		if err != nil {
			t.Fatal(err)
		}
		if is := r.GetRequest().GetFit(); is.GetAnswer() != c.is || (is.GetProblem() != nil) != c.why {
			t.Errorf("where zone business lets out %v, it is answered %v", c.lets, is)
		}
	}
}

// TestWhoLooksAgainHasNothingPlacedAgain: the answer is that of the request, and of the hosts, as they were.
func TestWhoLooksAgainHasNothingPlacedAgain(t *testing.T) {
	o := newOffice(t)
	if _, err := o.submit("ann", asking(17)); err != nil {
		t.Fatal(err)
	}
	o.Settle()
	o.Interfere(nil)
	for range 3 {
		for _, who := range []string{"ann", "bob"} {
			if f := o.show(who, "r-1").GetFit(); f.GetAnswer() != apiv1.Fit_NO || len(f.GetProblem().GetClusters()) != 1 {
				t.Fatalf("%s is told %v", who, f)
			}
		}
	}
	if n := o.Choices(); n != 1 {
		t.Errorf("hosts were looked at %d times", n)
	}
	if _, err := o.submit("ann", asking(1)); err != nil { // changes no host
		t.Fatal(err)
	}
	if o.show("ann", "r-1"); o.Choices() != 1 {
		t.Error("they were looked at again, and are as they were")
	}
	ctx, hosts := t.Context(), o.Admin().Hosts
	if _, err := hosts.CreateHost(ctx, &apiv1.CreateHostRequest{Host: &apiv1.Host{Name: "kvm-3", Zone: "business", Cluster: "kvm", Endpoint: "sim://"}}); err != nil {
		t.Fatal(err)
	}
	h, err := hosts.GetHost(ctx, &apiv1.GetHostRequest{Host: "kvm-3", Zone: "business"})
	if err != nil {
		t.Fatal(err)
	}
	o.Observe(o.site.Business.GetId(), &apiv1.Host{Id: h.GetHost().GetId(), Name: "kvm-3", Health: apiv1.Host_AVAILABLE, Freshness: apiv1.Freshness_LIVE,
		Total: &apiv1.Resources{Cores: 8, MemoryMib: 32768, DiskGib: 1000}})
	if f := o.show("ann", "r-1").GetFit(); f.GetAnswer() != apiv1.Fit_YES || o.Choices() != 2 {
		t.Errorf("with another host it is %v, after %d looks", f, o.Choices())
	}
	for range 2 {
		if f := o.preview(asking(16)); f.GetAnswer() != apiv1.Fit_YES {
			t.Errorf("%v", f)
		}
	}
	if f := o.preview(asking(25)); f.GetAnswer() != apiv1.Fit_NO {
		t.Errorf("what was asked for before is answered for something else: %v", f)
	}
}
