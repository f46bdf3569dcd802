package service_test

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestOnlyWhatIsRefusedAsksWhetherThisServerKnowsTheNewest(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(2)
	c := w.In("web")
	before := w.Reads()
	create(t, c, w.VM("web-1", ""))
	if n := w.Reads() - before; n != 0 {
		t.Fatalf("a creation that succeeds asked %d times", n)
	}
	_, err := c.VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-1", "")})
	refuses(t, err, problem.NameTaken, "name")
	if n := w.Reads() - before; n != 1 {
		t.Fatalf("a creation that is refused asked %d times", n)
	}
}

func TestWhatWasDecidedOnAnOldStateIsDecidedAgainOnTheNewest(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(2)
	before := w.Reads()
	w.Interfere(func() {
		if _, err := w.Admin().Images.DeleteImage(t.Context(), &apiv1.DeleteImageRequest{Image: "tiny"}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Admin().Images.CreateImage(t.Context(), &apiv1.CreateImageRequest{Image: &apiv1.Image{
			Name: "tiny", Sha256: strings.Repeat("cd", 32), MinMemoryMib: 96, MinDiskGib: 2,
		}}); err != nil {
			t.Fatal(err)
		}
		before = w.Reads()
	})
	create(t, w.In("web"), w.VM("web-1", ""))
	if n := w.Reads() - before; n != 1 {
		t.Errorf("it asked %d times", n)
	}
	if vm := show(t, w.In("web"), "web-1", ""); vm.GetImageSha256() != strings.Repeat("cd", 32) {
		t.Fatalf("it is made of the image that was deleted: %v", vm)
	}
}

func TestACreationOfWhichTheOutcomeIsNotKnownIsNotTriedAgainAsAnother(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(2)
	w.FailNext(problem.New(problem.Timeout, "it was not known in time whether the command was carried out", "Try again."))
	before := w.Proposes()
	_, err := w.In("web").VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-1", "")})
	refuses(t, err, problem.Timeout, "")
	if n := w.Proposes() - before; n != 1 {
		t.Errorf("%d commands were proposed", n)
	}
}
