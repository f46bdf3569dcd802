package service_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// with sends metadata with a call.
func with(ctx context.Context, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// refuses holds that err is a problem of the code that says something, and what to do.
func refuses(t *testing.T, err error, code problem.Code, says string) {
	t.Helper()
	if !problem.Is(err, code) || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %v, want %s with %q", err, code, says)
	}
	if problem.Of(err).GetNext() == "" {
		t.Fatalf("%v does not say what to do", err)
	}
}

func TestANounIsMadeShownChangedAndDeleted(t *testing.T) {
	w := servicetest.New(t)
	ctx, a := t.Context(), w.Admin()
	made, err := a.Zones.CreateZone(ctx, &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "business", Kind: "business"}})
	if err != nil {
		t.Fatal(err)
	}
	op := made.GetOperation()
	if !op.GetDone() || op.GetKind() != "zone.create" || op.GetTarget().GetName() != "business" || op.GetCreatedBy() != "spiffe://naru.test/admin/admin" {
		t.Fatalf("operation %v", op)
	}
	if again, err := a.Operations.GetOperation(ctx, &apiv1.GetOperationRequest{Operation: op.GetId()}); err != nil || !again.GetOperation().GetDone() {
		t.Fatalf("the operation cannot be asked for: %v", err)
	}
	byID, err := a.Zones.GetZone(ctx, &apiv1.GetZoneRequest{Zone: op.GetTarget().GetId()})
	if err != nil || byID.GetZone().GetName() != "business" || byID.GetZone().GetState() != apiv1.Zone_JOINING {
		t.Fatalf("%v, %v", byID, err)
	}
	changed, err := a.Zones.UpdateZone(ctx, &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Description: "for work"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}}})
	if err != nil || changed.GetZone().GetDescription() != "for work" || changed.GetZone().GetKind() != "business" || changed.GetZone().GetRevision() == byID.GetZone().GetRevision() {
		t.Fatalf("%v, %v", changed, err)
	}
	gone, err := a.Zones.DeleteZone(ctx, &apiv1.DeleteZoneRequest{Zone: "business"})
	if err != nil || !gone.GetOperation().GetDone() || gone.GetOperation().GetKind() != "zone.delete" {
		t.Fatalf("%v, %v", gone, err)
	}
	_, err = a.Zones.GetZone(ctx, &apiv1.GetZoneRequest{Zone: "business"})
	refuses(t, err, problem.NotFound, "no zone business")
	_, err = a.Zones.DeleteZone(ctx, &apiv1.DeleteZoneRequest{Zone: "business"})
	refuses(t, err, problem.NotFound, "no zone business")
}

func TestAnUpdateThatChangesNothingWritesNothing(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	was, before := w.Zone("business"), w.Proposes()
	r, err := w.Admin().Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Kind: "business"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"kind"}}})
	if err != nil || r.GetZone().GetRevision() != was.GetRevision() || w.Proposes() != before {
		t.Fatalf("%v, %v, %d proposals", r, err, w.Proposes()-before)
	}
}

func TestALostUpdateIsRefused(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	was := w.Zone("business")
	change := func(ctx context.Context, text string) error {
		_, err := w.Admin().Zones.UpdateZone(ctx, &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Description: text}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}}})
		return err
	}
	rests := with(t.Context(), "if-match", was.GetRevision())
	if err := change(rests, "mine"); err != nil {
		t.Fatal(err)
	}
	refuses(t, change(rests, "theirs"), problem.Conflict, was.GetRevision())
	refuses(t, change(with(t.Context(), "if-match", `W/"`+was.GetRevision()+`"`), "theirs"), problem.Conflict, "rests on")
	if got := w.Zone("business").GetDescription(); got != "mine" {
		t.Fatalf("it is %q", got)
	}
	if err := change(with(t.Context(), "if-match", "*"), "whatever it is"); err != nil {
		t.Fatal(err)
	}
	_, err := w.Admin().Flavors.DeleteFlavor(with(t.Context(), "if-match", "7-1"), &apiv1.DeleteFlavorRequest{Flavor: "s1"})
	refuses(t, err, problem.Conflict, "7-1")
}

func TestAConflictThatIsNobodysFaultIsDecidedAgain(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	conflict := problem.New(problem.Conflict, "it is at another revision", "Read it again.")
	w.FailNext(conflict, conflict)
	_, err := w.Admin().Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Description: "x"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}}})
	if err != nil {
		t.Fatal(err)
	}
	w.FailNext(conflict)
	_, err = w.Admin().Zones.UpdateZone(with(t.Context(), "if-match", w.Zone("business").GetRevision()), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Description: "y"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}}})
	refuses(t, err, problem.Conflict, "another revision")
}

func TestWhatAClientMayNotSetIsRefused(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	_, err := a.Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "other", State: apiv1.Zone_ONLINE}})
	refuses(t, err, problem.Invalid, "state")
	_, err = a.Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{}})
	refuses(t, err, problem.Invalid, "name")
	_, err = a.Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "No Such Name"}})
	refuses(t, err, problem.Invalid, "name")
	_, err = a.Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{})
	refuses(t, err, problem.Invalid, "zone")
	_, err = a.Flavors.UpdateFlavor(t.Context(), &apiv1.UpdateFlavorRequest{Flavor: &apiv1.Flavor{Id: "s1", Cores: 9}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"cores"}}})
	refuses(t, err, problem.Invalid, "cores")
	_, err = a.Flavors.UpdateFlavor(t.Context(), &apiv1.UpdateFlavorRequest{Flavor: &apiv1.Flavor{Id: "s1"}})
	refuses(t, err, problem.Invalid, "no field")
}

func TestWhatANounNamesMustBeThere(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	_, err := a.Clusters.CreateCluster(t.Context(), &apiv1.CreateClusterRequest{Cluster: &apiv1.Cluster{Name: "x", Zone: "nowhere", Hypervisor: "sim"}})
	refuses(t, err, problem.NotFound, "no zone nowhere")
	_, err = a.Hosts.CreateHost(t.Context(), &apiv1.CreateHostRequest{Host: &apiv1.Host{Name: "x", Zone: "business", Cluster: "xen", Endpoint: "sim://"}})
	refuses(t, err, problem.NotFound, "no cluster xen")
	_, err = a.Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "x", Parent: "nowhere"}})
	refuses(t, err, problem.NotFound, "no zone nowhere")
	_, err = a.Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Broker: "nobody"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"broker"}}})
	refuses(t, err, problem.NotFound, "no broker nobody")
}

func TestANameIsTakenWhereItHasToBeUnique(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	_, err := a.Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "business"}})
	refuses(t, err, problem.NameTaken, "business")
	_, err = a.Clusters.CreateCluster(t.Context(), &apiv1.CreateClusterRequest{Cluster: &apiv1.Cluster{Name: "kvm", Zone: "business", Hypervisor: "sim"}})
	refuses(t, err, problem.NameTaken, "kvm")
	_, err = a.Clusters.GetCluster(t.Context(), &apiv1.GetClusterRequest{Cluster: "kvm"})
	refuses(t, err, problem.Invalid, "more than one cluster")
	c, err := a.Clusters.GetCluster(t.Context(), &apiv1.GetClusterRequest{Cluster: "kvm", Zone: "internet"})
	if err != nil || c.GetCluster().GetZone() != "internet" {
		t.Fatalf("%v, %v", c, err)
	}
}

func TestWhatIsInUseStays(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	_, err := w.Admin().Zones.DeleteZone(t.Context(), &apiv1.DeleteZoneRequest{Zone: "business"})
	refuses(t, err, problem.InUse, "cluster")
}

func TestAnIdempotencyKeyMakesOneNoun(t *testing.T) {
	w := servicetest.New(t)
	ctx := with(t.Context(), "idempotency-key", "k-1")
	create := func(name string) (*apiv1.Operation, error) {
		r, err := w.Admin().Zones.CreateZone(ctx, &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: name}})
		return r.GetOperation(), err
	}
	first, err := create("business")
	if err != nil {
		t.Fatal(err)
	}
	again, err := create("business")
	if err != nil || again.GetId() != first.GetId() {
		t.Fatalf("%v, %v; the first was %v", again, err, first)
	}
	_, err = create("internet")
	refuses(t, err, problem.IdempotencyMismatch, "k-1")
	if _, err := w.Admin().Zones.DeleteZone(with(t.Context(), "idempotency-key", "k-2"), &apiv1.DeleteZoneRequest{Zone: "business"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Admin().Zones.DeleteZone(with(t.Context(), "idempotency-key", "k-2"), &apiv1.DeleteZoneRequest{Zone: "business"}); err != nil {
		t.Fatalf("a repeated deletion: %v", err)
	}
}

func TestAReadIsLinearizableUnlessTheCallerAsksForLess(t *testing.T) {
	w := servicetest.New(t)
	before := w.Reads()
	if _, err := w.Admin().Zones.ListZones(t.Context(), &apiv1.ListZonesRequest{}); err != nil || w.Reads() != before+1 {
		t.Fatalf("%d reads of the leader, %v", w.Reads()-before, err)
	}
	if _, err := w.Admin().Zones.ListZones(with(t.Context(), "x-naru-consistency", "stale"), &apiv1.ListZonesRequest{}); err != nil || w.Reads() != before+1 {
		t.Fatalf("%d reads of the leader, %v", w.Reads()-before, err)
	}
	_, err := w.Admin().Zones.ListZones(with(t.Context(), "x-naru-consistency", "quick"), &apiv1.ListZonesRequest{})
	refuses(t, err, problem.Invalid, "stale")
}

func TestAListIsFilteredOrderedAndPaged(t *testing.T) {
	w := servicetest.New(t)
	for i := range 7 {
		if _, err := w.Admin().Projects.CreateProject(t.Context(), &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: fmt.Sprintf("p%d", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	r := &apiv1.ListProjectsRequest{Filter: "name!=p3", OrderBy: "name desc", PageSize: 2}
	for {
		page, err := w.Admin().Projects.ListProjects(t.Context(), r)
		if err != nil || len(page.GetProjects()) > 2 {
			t.Fatalf("%v, %v", page, err)
		}
		for _, p := range page.GetProjects() {
			got = append(got, p.GetName())
		}
		if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
			break
		}
	}
	if strings.Join(got, " ") != "p6 p5 p4 p2 p1 p0" {
		t.Fatalf("got %v", got)
	}
	for _, bad := range []*apiv1.ListProjectsRequest{{Filter: "colour=red"}, {OrderBy: "colour"}, {PageSize: 1001}, {PageToken: "nonsense"}, {Filter: strings.Repeat("x", 2000)}} {
		_, err := w.Admin().Projects.ListProjects(t.Context(), bad)
		refuses(t, err, problem.Invalid, "")
	}
}
