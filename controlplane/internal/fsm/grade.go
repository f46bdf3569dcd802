package fsm

import (
	"strings"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// mayGrade refuses a grade of a project or an image above that of a zone in which it has VMs. scope finds these.
func (c *command) mayGrade(kind, name string, is apiv1.Zone_Grade, scope state.Scope) error {
	var lower []*apiv1.Zone
	for zone, err := range c.tx.Zones.All(nil) {
		if err != nil {
			return err
		}
		if !grade.MayStand(is, zone.GetGrade()) {
			lower = append(lower, zone)
		}
	}
	for _, zone := range lower {
		scope["zone_id"] = zone.GetId()
		there, err := dependents(c.tx.VMs, "VM", scope)
		if err != nil {
			return err
		}
		if there != "" {
			return problem.Newf(problem.GradeForbids, "Delete them there first, or make them anew in a zone of that grade.", "%s %s cannot become %s: it has %s in zone %s, which is %s",
				kind, name, grade.Word(is), there, zone.GetName(), grade.Word(zone.GetGrade())).With("grade", "is above that of zone "+zone.GetName())
		}
	}
	return nil
}

// mayGradeZone refuses a grade of a zone below that of a VM in it.
func (c *command) mayGradeZone(zone *apiv1.Zone, is apiv1.Zone_Grade) error {
	for g := apiv1.Zone_CLASSIFIED; !grade.MayStand(g, is); g-- {
		q := state.Query{Scope: state.Scope{"zone_id": zone.GetId()}, Filter: "grade=" + g.String(), PageSize: 3}
		first, more, err := c.tx.VMs.List(q)
		if err != nil {
			return err
		}
		if len(first) == 0 {
			continue
		}
		var names []string
		for _, m := range first {
			names = append(names, m.GetName())
		}
		if more != "" {
			names = append(names, "…")
		}
		return problem.Newf(problem.GradeForbids, "Delete them first, or make them anew in another zone.", "zone %s cannot become %s: VMs in it are %s (%s)",
			zone.GetName(), grade.Word(is), grade.Word(g), strings.Join(names, ", ")).With("grade", "is below that of VMs in the zone")
	}
	return nil
}
