// Package grade orders the grades of zones, projects, images and VMs: open, sensitive, classified. What says nothing of its
// grade is open. A mix takes the highest of what is in it.
package grade

import (
	"strings"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Highest returns the grade of what is mixed of these; open for nothing.
func Highest(of ...apiv1.Zone_Grade) apiv1.Zone_Grade {
	highest := apiv1.Zone_OPEN
	for _, g := range of {
		highest = max(highest, g)
	}
	return highest
}

// MayStand reports whether what is of a grade may stand in a zone of another: in one of the same or a higher one.
func MayStand(what, zone apiv1.Zone_Grade) bool { return Highest(what) <= Highest(zone) }

// Word is a grade as people write it.
func Word(g apiv1.Zone_Grade) string { return strings.ToLower(Highest(g).String()) }

// Stands refuses a VM in a zone of a lower grade than it would have: the highest of what was asked for, its project's and its
// image's. It says which of these stands against the zone.
func Stands(vm *apiv1.VM, project *apiv1.Project, image *apiv1.Image, zone *apiv1.Zone) error {
	is := Highest(vm.GetGrade(), project.GetGrade(), image.GetGrade())
	if MayStand(is, zone.GetGrade()) {
		return nil
	}
	why := "as it was asked for"
	switch is {
	case Highest(project.GetGrade()):
		why = "as project " + project.GetName() + " is"
	case Highest(image.GetGrade()):
		why = "as image " + image.GetName() + " is"
	}
	return problem.Newf(problem.GradeForbids, "Choose a zone that is "+Word(is)+" or higher.", "VM %s would be %s, %s, and zone %s is %s",
		vm.GetName(), Word(is), why, zone.GetName(), Word(zone.GetGrade())).With("zone", "is "+Word(zone.GetGrade()))
}
