package service_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// webOffering is one that can be published in the usual site.
func webOffering() *apiv1.Offering {
	return &apiv1.Offering{
		Name: "web", Title: &apiv1.Text{Ko: "웹 서버", En: "Web server"}, Image: "tiny", Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1", MonthlyPrice: "30000"}},
		Currency: "KRW", DiskGibMonthlyPrice: "100", Zones: []string{"business"}, Lease: &apiv1.LeaseTerms{DefaultDays: 90, LongestDays: 365},
		Form:     `{"type":"object","required":["service_name"],"properties":{"service_name":{"type":"string","pattern":"[a-z]+"}}}`,
		Software: []*apiv1.Software{{Name: "nginx", UserData: "packages: [nginx]\nwrite_files:\n  - {path: /srv/name, content: \"${form.service_name}\"}\n"}},
	}
}

func offered(t *testing.T, a *client.Services) {
	t.Helper()
	if _, err := a.Offerings.CreateOffering(t.Context(), &apiv1.CreateOfferingRequest{Offering: webOffering()}); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, a *client.Services) *apiv1.Offering {
	t.Helper()
	r, err := a.Offerings.PublishOffering(t.Context(), &apiv1.PublishOfferingRequest{Offering: "web"})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetOffering()
}

func updateOffering(t *testing.T, a *client.Services, m *apiv1.Offering, paths ...string) (*apiv1.Offering, error) {
	t.Helper()
	m.Id = "web"
	r, err := a.Offerings.UpdateOffering(t.Context(), &apiv1.UpdateOfferingRequest{Offering: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
	return r.GetOffering(), err
}

func TestAnOfferingIsShownToUsersOncePublishedAndThenAsItWasPublished(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a, user := w.Admin(), w.In("web")
	offered(t, a)
	shown := func() string {
		t.Helper()
		r, err := user.Offerings.ListOfferings(t.Context(), &apiv1.ListOfferingsRequest{Filter: "name=web"})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, o := range r.GetOfferings() {
			out = append(out, o.GetCategory()+"/"+o.GetState().String())
		}
		return strings.Join(out, " ")
	}
	if got := shown(); got != "" {
		t.Errorf("a draft is shown: %s", got)
	}
	if _, err := user.Offerings.GetOffering(t.Context(), &apiv1.GetOfferingRequest{Offering: "web"}); !problem.Is(err, problem.NotFound) {
		t.Errorf("a draft is shown: %v", err)
	}
	first := publish(t, a)
	if first.GetVersion() != 1 || first.GetImageSha256() == "" || first.GetFlavors()[0].GetSize().GetDiskGib() != 10 || first.GetPublishedBy() == "" {
		t.Errorf("what it stands on is not in it: %v", first)
	}
	next, err := updateOffering(t, a, &apiv1.Offering{Category: "second", Lease: &apiv1.LeaseTerms{DefaultDays: 30, GraceDays: 3}}, "category", "lease")
	if m := next.GetLease(); m.GetWarnDays() != 7 || m.GetGraceDays() != 3 || m.GetTrashDays() != 14 {
		t.Errorf("its lease does not say what holds: %v", m)
	}
	if err != nil || next.GetVersion() != 2 || next.GetState() != apiv1.Offering_DRAFT {
		t.Fatalf("the next version: %v, %v", next, err)
	}
	if got := shown(); got != "/PUBLISHED" {
		t.Errorf("while the next is written: %s", got)
	}
	if _, err := user.Offerings.GetOffering(t.Context(), &apiv1.GetOfferingRequest{Offering: "web", Version: 2}); !problem.Is(err, problem.NotFound) {
		t.Errorf("the next version is shown: %v", err)
	}
	if r, err := a.Offerings.GetOffering(t.Context(), &apiv1.GetOfferingRequest{Offering: "web", Version: 2}); err != nil || r.GetOffering().GetCategory() != "second" {
		t.Errorf("who writes it is not shown it: %v, %v", r, err)
	}
	publish(t, a)
	if got := shown(); got != "second/PUBLISHED" {
		t.Errorf("once it is published: %s", got)
	}
	if r, err := user.Offerings.GetOffering(t.Context(), &apiv1.GetOfferingRequest{Offering: "web", Version: 1}); err != nil || r.GetOffering().GetCategory() != "" {
		t.Errorf("the first version: %v, %v", r, err)
	}
	r, err := user.Offerings.ListOfferingVersions(t.Context(), &apiv1.ListOfferingVersionsRequest{Offering: "web", PageSize: 1})
	if err != nil || len(r.GetOfferings()) != 1 || r.GetOfferings()[0].GetVersion() != 2 || r.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", r, err)
	}
	r, err = user.Offerings.ListOfferingVersions(t.Context(), &apiv1.ListOfferingVersionsRequest{Offering: "web", PageSize: 1, PageToken: r.GetNextPageToken()})
	if err != nil || len(r.GetOfferings()) != 1 || r.GetOfferings()[0].GetVersion() != 1 || r.GetNextPageToken() != "" {
		t.Fatalf("%v, %v", r, err)
	}
}

func TestAPreviewSaysWhatItComesTo(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	offered(t, w.Admin())
	publish(t, w.Admin())
	r, err := w.In("web").Offerings.PreviewOffering(t.Context(), &apiv1.PreviewOfferingRequest{Offering: "web", Quantity: 2, Zone: "business", Form: `{"service_name":"minwon"}`})
	if err != nil {
		t.Fatal(err)
	}
	if want := (&apiv1.Money{Currency: "KRW", Amount: "62000"}); !proto.Equal(r.GetMonthlyCost(), want) || r.GetLeaseDays() != 90 || !strings.Contains(r.GetUserData(), `content: "minwon"`) {
		t.Errorf("got %v", r)
	}
	for want, req := range map[string]*apiv1.PreviewOfferingRequest{
		"is offered for business":  {Offering: "web", Zone: "internet", Form: `{"service_name":"a"}`},
		"service_name is required": {Offering: "web"},
		"no version 7":             {Offering: "web", Version: 7},
	} {
		if _, err := w.In("web").Offerings.PreviewOffering(t.Context(), req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestAnOfferingThatIsNotWholeIsRefusedWithItsField(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	for field, change := range map[string]func(*apiv1.Offering){
		"image":                 func(o *apiv1.Offering) { o.Image = "nope" },
		"flavors[0]":            func(o *apiv1.Offering) { o.Flavors[0].Flavor = "nope" },
		"flavor":                func(o *apiv1.Offering) { o.Flavors[0].Flavor = "tiny" }, // too small for the image
		"zones[0]":              func(o *apiv1.Offering) { o.Zones[0] = "nope" },
		"zone":                  func(o *apiv1.Offering) { o.Grades = []apiv1.Zone_Grade{apiv1.Zone_CLASSIFIED} },
		"approval_policy":       func(o *apiv1.Offering) { o.ApprovalPolicy = "nope" },
		"form":                  func(o *apiv1.Offering) { o.Form = `{"$ref":"http://evil"}` },
		"software[0].user_data": func(o *apiv1.Offering) { o.Software[0].UserData = "users: [x]" },
		"currency":              func(o *apiv1.Offering) { o.Currency = "" },
		"state":                 func(o *apiv1.Offering) { o.State = apiv1.Offering_PUBLISHED },
		"monthly_price":         func(o *apiv1.Offering) { o.MonthlyPrice = "1.5" },
	} {
		o := webOffering()
		change(o)
		_, err := a.Offerings.CreateOffering(t.Context(), &apiv1.CreateOfferingRequest{Offering: o})
		named := false
		for _, f := range problem.Of(err).GetErrors() {
			named = named || f.GetField() == field || f.GetField() == "offering."+field
		}
		if err == nil || !named {
			t.Errorf("%s is not named: %v", field, problem.Of(err))
		}
	}
}

func TestARetiredOfferingCanBeAskedForAgainWhileItIsWhatItWas(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	offered(t, a)
	publish(t, a)
	retire := func() {
		t.Helper()
		if r, err := a.Offerings.RetireOffering(t.Context(), &apiv1.RetireOfferingRequest{Offering: "web"}); err != nil || r.GetOffering().GetState() != apiv1.Offering_RETIRED {
			t.Fatalf("%v, %v", r, err)
		}
	}
	retire()
	if _, err := a.Offerings.PreviewOffering(t.Context(), &apiv1.PreviewOfferingRequest{Offering: "web", Form: `{"service_name":"a"}`}); !problem.Is(err, problem.WrongState) {
		t.Errorf("a retired one can be asked for: %v", err)
	}
	if m := publish(t, a); m.GetVersion() != 1 || m.GetState() != apiv1.Offering_PUBLISHED {
		t.Errorf("again it is %v", m)
	}
	retire()
	// The image is another one by the same name: version 1 would be what it never was.
	if _, err := a.Images.DeleteImage(t.Context(), &apiv1.DeleteImageRequest{Image: "tiny"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Images.CreateImage(t.Context(), &apiv1.CreateImageRequest{Image: &apiv1.Image{Name: "tiny", Sha256: strings.Repeat("cd", 32)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Offerings.PublishOffering(t.Context(), &apiv1.PublishOfferingRequest{Offering: "web"}); !problem.Is(err, problem.WrongState) {
		t.Errorf("version 1 was published with another image: %v", err)
	}
	if _, err := updateOffering(t, a, &apiv1.Offering{Category: "x"}, "category"); err != nil {
		t.Fatal(err)
	}
	if m := publish(t, a); m.GetVersion() != 2 || m.GetImageSha256() != strings.Repeat("cd", 32) {
		t.Errorf("the next version is %v", m)
	}
}

func TestTheVersionThatIsBeingWrittenCanBeDroppedAndNoOther(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	offered(t, a)
	publish(t, a)
	if _, err := updateOffering(t, a, &apiv1.Offering{Category: "x"}, "category"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Offerings.DeleteOffering(t.Context(), &apiv1.DeleteOfferingRequest{Offering: "web", Version: 1}); !problem.Is(err, problem.WrongState) {
		t.Errorf("a published version: %v", err)
	}
	if _, err := a.Offerings.DeleteOffering(t.Context(), &apiv1.DeleteOfferingRequest{Offering: "web"}); !problem.Is(err, problem.InUse) {
		t.Errorf("all of it: %v", err)
	}
	if _, err := a.Offerings.DeleteOffering(t.Context(), &apiv1.DeleteOfferingRequest{Offering: "web", Version: 2}); err != nil {
		t.Error(err)
	}
	if r, err := a.Offerings.GetOffering(t.Context(), &apiv1.GetOfferingRequest{Offering: "web"}); err != nil || r.GetOffering().GetNextVersion() != 0 {
		t.Errorf("%v, %v", r, err)
	}
}

// A VM is made nowhere below its grade, and the refusal says which grade stands against what.
func TestAVMIsRefusedInAZoneBelowItsGrade(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin()
	if _, err := a.Projects.UpdateProject(t.Context(), &apiv1.UpdateProjectRequest{Project: &apiv1.Project{Id: "web", Grade: apiv1.Zone_SENSITIVE}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"grade"}}}); err != nil {
		t.Fatal(err)
	}
	_, err := a.VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")})
	if !problem.Is(err, problem.GradeForbids) || problem.Of(err).GetDetail() != "VM web-1 would be sensitive, as project web is, and zone business is open" {
		t.Fatalf("got %v", err)
	}
	if _, err := a.Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Grade: apiv1.Zone_SENSITIVE}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"grade"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")}); err != nil {
		t.Fatal(err)
	}
	r, err := a.VMs.GetVM(t.Context(), &apiv1.GetVMRequest{Vm: "web-1", Project: "web"})
	if err != nil || r.GetVm().GetGrade() != apiv1.Zone_SENSITIVE {
		t.Errorf("it is %v, %v", r.GetVm().GetGrade(), err)
	}
}
