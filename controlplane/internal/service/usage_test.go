package service_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// uses has a zone say that a VM has run since a time, until another one, and is stopped from then on.
func uses(w *servicetest.World, zone *apiv1.Zone, vm *apiv1.VM, since, until time.Time) {
	began := &apiv1.VM_Usage{Number: 1, IncarnationId: "life", ClockId: "clock", At: timestamppb.New(since), State: apiv1.VM_RUNNING, Size: vm.GetSize()}
	link := func(is, was *apiv1.VM_Usage) *linkv1.JournalEntry {
		return &linkv1.JournalEntry{Sequence: uint64(is.GetNumber()), Time: is.GetAt(), Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{
			VmId: vm.GetId(), State: is.GetState(), Size: is.GetSize(), Number: is.GetNumber(), At: is.GetAt(), ClockId: is.GetClockId(), Was: was}}}
	}
	stopped := &apiv1.VM_Usage{Number: 2, IncarnationId: "life", ClockId: "clock", At: timestamppb.New(until), State: apiv1.VM_STOPPED, Size: vm.GetSize()}
	w.Do(&commandv1.Command{Body: &commandv1.Command_AppendJournal{AppendJournal: &commandv1.AppendJournal{ZoneId: zone.GetId(), Batch: &linkv1.JournalBatch{
		Origin: "life", Stream: "c-" + vm.GetId(), Entries: []*linkv1.JournalEntry{link(began, nil), link(stopped, began)}}}}})
}

func TestUseIsListedAndSummedUpForWhomItIsAndWhereItWas(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	w.Roles()
	begin := time.Now().Add(-2 * time.Minute).Truncate(time.Second)
	for i, name := range []string{"web", "db"} {
		create(t, w.In(name), w.VM(name+"-1", name))
		uses(w, site.Business, show(t, w.In(name), name+"-1", ""), begin, begin.Add(time.Duration(i+1)*time.Minute))
	}
	bill, kim := w.User("bill", apiv1.User_PERSON), w.User("kim", apiv1.User_PERSON)
	w.Bind("b-1", "billing", bill, apiv1.RoleBinding_FEDERATION, "")
	w.Bind("b-2", "user", kim, apiv1.RoleBinding_PROJECT, "web")
	ctx := t.Context()
	vm := show(t, w.In("web"), "web-1", "")
	list := func(c *client.Services, r *apiv1.ListUsageRecordsRequest) string {
		t.Helper()
		got, err := c.Usage.ListUsageRecords(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range got.GetUsageRecords() {
			out = append(out, m.GetVm()+" "+m.GetKind().String())
		}
		return strings.Join(out, ", ")
	}
	for what, c := range map[string]struct {
		as   *client.Services
		ask  *apiv1.ListUsageRecordsRequest
		want string
	}{
		"everything":                         {w.As(bill), &apiv1.ListUsageRecordsRequest{OrderBy: "vm", Filter: "kind=STOPPED"}, "db-1 STOPPED, web-1 STOPPED"},
		"a project's own":                    {w.As(kim), &apiv1.ListUsageRecordsRequest{OrderBy: "ends_at"}, "web-1 BEGUN, web-1 STOPPED"},
		"of a VM by its id":                  {w.Admin(), &apiv1.ListUsageRecordsRequest{Vm: vm.GetId(), OrderBy: "ends_at"}, "web-1 BEGUN, web-1 STOPPED"},
		"of a VM by its name":                {w.Admin(), &apiv1.ListUsageRecordsRequest{Vm: "db-1", Filter: "kind=BEGUN"}, "db-1 BEGUN"},
		"of an organization and those below": {w.Admin(), &apiv1.ListUsageRecordsRequest{Organization: "default", Project: "web", Filter: "kind=BEGUN"}, "web-1 BEGUN"},
		"of a time":                          {w.Admin(), &apiv1.ListUsageRecordsRequest{From: timestamppb.New(begin.Add(90 * time.Second))}, "db-1 STOPPED"},
		"before a time":                      {w.Admin(), &apiv1.ListUsageRecordsRequest{Until: timestamppb.New(begin)}, ""},
		"at the edge of the zone":            {w.AtEdge(site.Business, kim), &apiv1.ListUsageRecordsRequest{Filter: "kind=BEGUN"}, "web-1 BEGUN"},
		"at the edge of another zone":        {w.AtEdge(site.Internet, kim), &apiv1.ListUsageRecordsRequest{Filter: "kind=BEGUN"}, "web-1 BEGUN"},
		"in a zone where nothing was used":   {w.Admin(), &apiv1.ListUsageRecordsRequest{Zone: "internet"}, ""},
	} {
		if got := list(c.as, c.ask); got != c.want {
			t.Errorf("%s: %q, not %q", what, got, c.want)
		}
	}
	sum := func(c *client.Services, r *apiv1.SummarizeUsageRequest) string {
		t.Helper()
		got, err := c.Usage.SummarizeUsage(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range got.GetUsageSums() {
			out = append(out, fmt.Sprintf("%s/%s/%s: %s run, %s core, %s MiB, %s GiB, %d go on", m.GetVm(), m.GetProject(), m.GetZone(), m.GetRunning().GetSeconds(), m.GetRunning().GetCoreSeconds(),
				m.GetRunning().GetMemoryMibSeconds(), m.GetAllocated().GetDiskGibSeconds(), m.GetGoingOn()))
		}
		return strings.Join(out, "; ")
	}
	size := vm.GetSize()
	say := func(vm, project, zone string, run, allocated int64, goOn int) string {
		return fmt.Sprintf("%s/%s/%s: %d run, %d core, %d MiB, %d GiB, %d go on", vm, project, zone, run, run*int64(size.GetCores()), run*int64(size.GetMemoryMib()), allocated*int64(size.GetDiskGib()), goOn)
	}
	from, until := timestamppb.New(begin.Add(30*time.Second)), timestamppb.New(begin.Add(100*time.Second))
	for what, c := range map[string]struct {
		as   *client.Services
		ask  *apiv1.SummarizeUsageRequest
		want string
	}{
		"by VM": {w.As(bill), &apiv1.SummarizeUsageRequest{By: apiv1.SummarizeUsageRequest_BY_VM, From: from, Until: until},
			say("db-1", "db", "business", 70, 70, 0) + "; " + say("web-1", "web", "business", 30, 70, 1)},
		"of all":                      {w.As(bill), &apiv1.SummarizeUsageRequest{From: from, Until: until}, say("", "", "business", 100, 140, 1)},
		"a project's own":             {w.As(kim), &apiv1.SummarizeUsageRequest{By: apiv1.SummarizeUsageRequest_BY_PROJECT, From: from, Until: until}, say("web-1", "web", "business", 30, 70, 1)},
		"at the edge of the zone":     {w.AtEdge(site.Business, kim), &apiv1.SummarizeUsageRequest{From: from, Until: until}, say("web-1", "web", "business", 30, 70, 1)},
		"at the edge of another zone": {w.AtEdge(site.Internet, kim), &apiv1.SummarizeUsageRequest{From: from, Until: until}, say("", "", "internet", 0, 0, 0)},
		"of a VM there":               {w.AtEdge(site.Internet, kim), &apiv1.SummarizeUsageRequest{By: apiv1.SummarizeUsageRequest_BY_VM, From: from, Until: until}, say("web-1", "web", "business", 30, 70, 1)},
		"of another zone there":       {w.AtEdge(site.Internet, kim), &apiv1.SummarizeUsageRequest{Zone: "business", From: from, Until: until}, say("web-1", "web", "business", 30, 70, 1)},
		"before it began":             {w.As(bill), &apiv1.SummarizeUsageRequest{By: apiv1.SummarizeUsageRequest_BY_VM, Until: timestamppb.New(begin.Add(-time.Second))}, ""},
	} {
		if got := sum(c.as, c.ask); got != c.want {
			t.Errorf("%s: %s\nnot %s", what, got, c.want)
		}
	}
	if _, err := w.Admin().Zones.UpdateZone(ctx, &apiv1.UpdateZoneRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"policy"}},
		Zone: &apiv1.Zone{Id: "business", Policy: &apiv1.ZonePolicy{Disclosures: []*apiv1.Disclosure{{Direction: apiv1.Disclosure_OUT, Names: true, Addresses: true}}}}}); err != nil {
		t.Fatal(err)
	}
	edge := w.AtEdge(site.Internet, kim)
	if listed, summed := list(edge, &apiv1.ListUsageRecordsRequest{}), sum(edge, &apiv1.SummarizeUsageRequest{By: apiv1.SummarizeUsageRequest_BY_VM}); listed != "" || summed != "" {
		t.Errorf("figures do not cross, and what is used is told: %s; %s", listed, summed)
	}
	got, err := w.Admin().Usage.SummarizeUsage(ctx, &apiv1.SummarizeUsageRequest{Until: timestamppb.New(time.Now().Add(time.Hour).Truncate(time.Second))})
	if err != nil || got.GetUntil().AsTime().After(time.Now()) {
		t.Errorf("what is to come: until %v, %v", got.GetUntil().AsTime(), err)
	}
	_, err = w.Admin().Usage.SummarizeUsage(ctx, &apiv1.SummarizeUsageRequest{From: &timestamppb.Timestamp{Seconds: 5, Nanos: 1}})
	refuses(t, err, problem.Invalid, "whole seconds")
	_, err = w.Admin().Usage.SummarizeUsage(ctx, &apiv1.SummarizeUsageRequest{From: until, Until: from})
	refuses(t, err, problem.Invalid, "ends before it begins")
	_, err = w.Admin().Usage.ListUsageRecords(ctx, &apiv1.ListUsageRecordsRequest{Organization: "nowhere"})
	refuses(t, err, problem.NotFound, "nowhere")
	_, err = w.As(kim).Usage.ListUsageRecords(ctx, &apiv1.ListUsageRecordsRequest{Project: "db"})
	refuses(t, err, problem.NotFound, "db")
}
