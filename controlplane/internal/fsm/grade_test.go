package fsm_test

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// graded are commands that give the zone, the project and the image of the furniture grades.
func graded(zone, project, image apiv1.Zone_Grade) (z, pr, i *commandv1.Command) {
	return &commandv1.Command{Body: &commandv1.Command_UpdateZone{UpdateZone: &commandv1.UpdateZone{Zone: &apiv1.Zone{Id: "z-business", Name: "business", Kind: "business", Grade: zone}}}},
		&commandv1.Command{Body: &commandv1.Command_UpdateProject{UpdateProject: &commandv1.UpdateProject{Project: &apiv1.Project{
			Id: "p-shop", Name: "shop", Organization: "home", OrganizationId: "o-home", Grade: project}}}},
		&commandv1.Command{Body: &commandv1.Command_UpdateImage{UpdateImage: &commandv1.UpdateImage{Image: &apiv1.Image{Id: "i-tiny", Name: "tiny", Sha256: "ab", Grade: image}}}}
}

// Whichever of the three brings the grade: a VM is accepted where the zone is at least of it, and nowhere else.
func TestAVMStandsInAZoneOfTheHighestOfItsGrades(t *testing.T) {
	for of := range 3 {
		for zone := apiv1.Zone_OPEN; zone <= apiv1.Zone_CLASSIFIED; zone++ {
			p := furnished(t)
			for g := apiv1.Zone_CLASSIFIED; g >= apiv1.Zone_GRADE_UNSPECIFIED; g-- {
				grades := [3]apiv1.Zone_Grade{}
				grades[of] = g
				z, project, image := graded(zone, grades[0], grades[1])
				p.accept(z)
				p.accept(project)
				p.accept(image)
				c := createVM(int(g))
				c.GetCreateVm().Vm.Grade = grades[2]
				if g > zone {
					p.refuse(problem.GradeForbids, c)
				} else {
					p.accept(c)
				}
			}
		}
	}
}

func TestNothingIsGradedAboveTheZonesInWhichItsVMsStand(t *testing.T) {
	p := furnished(t)
	zone, project, image := graded(apiv1.Zone_SENSITIVE, apiv1.Zone_SENSITIVE, apiv1.Zone_SENSITIVE)
	p.accept(zone)
	p.accept(createVM(1))
	p.accept(createVM(2))
	p.accept(project)
	p.accept(image)
	open, secret, secretImage := graded(apiv1.Zone_OPEN, apiv1.Zone_CLASSIFIED, apiv1.Zone_CLASSIFIED)
	for want, c := range map[string]*commandv1.Command{
		"zone business cannot become open: VMs in it are sensitive (web-1, web-2)":                                open,
		"project shop cannot become classified: it has 2 VMs (web-1, web-2) in zone business, which is sensitive": secret,
		"image tiny cannot become classified: it has 2 VMs (web-1, web-2) in zone business, which is sensitive":   secretImage,
	} {
		if got := p.refuse(problem.GradeForbids, c).GetDetail(); got != want {
			t.Errorf("got %q, not %q", got, want)
		}
	}
	higher, _, _ := graded(apiv1.Zone_CLASSIFIED, 0, 0)
	p.accept(higher)
	p.accept(secret)
}

func TestARefusalSaysWhichGradeStandsAgainstWhat(t *testing.T) {
	for want, grades := range map[string][4]apiv1.Zone_Grade{
		"VM web-1 would be sensitive, as project shop is, and zone business is open":     {1, 2, 1, 0},
		"VM web-1 would be classified, as image tiny is, and zone business is sensitive": {2, 2, 3, 0},
		"VM web-1 would be classified, as it was asked for, and zone business is open":   {0, 1, 1, 3},
	} {
		p := furnished(t)
		zone, project, image := graded(grades[0], grades[1], grades[2])
		p.accept(zone)
		p.accept(project)
		p.accept(image)
		c := createVM(1)
		c.GetCreateVm().Vm.Grade = grades[3]
		if got := p.refuse(problem.GradeForbids, c); got.GetDetail() != want || !strings.Contains(got.GetNext(), "or higher") {
			t.Errorf("got %q, not %q", got.GetDetail(), want)
		}
	}
}
