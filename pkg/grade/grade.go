// Package grade orders the grades of zones, projects, images and VMs: open, sensitive, classified. What says nothing of its
// grade is open. A mix takes the highest of what is in it.
package grade

import (
	"strings"

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
