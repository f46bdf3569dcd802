// Package quota says what may still be asked for. What is counted the state keeps itself, with the things that are counted; here is
// what is refused, and how that is said. The service asks on its snapshot, so that most is refused before the log; the state machine
// asks again, of what a command has really added.
package quota

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Fits refuses to add what takes so much, in a project, a zone and of a grade.
func Fits(tx *state.Tx, at state.Cell, more state.Amounts) error {
	all, err := tx.QuotasOver(at.OwnerID, at.ZoneID, at.Grade)
	if err != nil {
		return err
	}
	for _, m := range all {
		sum, err := tx.Sum(m)
		if err != nil {
			return err
		}
		if err := within(m, sum, more); err != nil {
			return err
		}
	}
	return nil
}

// Grew refuses what has been added since the state last began to measure, where it takes more than a limit. Where nothing is added
// nothing is refused, however low a limit was set meanwhile.
func Grew(tx *state.Tx) error {
	grown := tx.Grown()
	var owners []string
	for _, g := range grown {
		if !slices.Contains(owners, g.OwnerID) {
			owners = append(owners, g.OwnerID)
		}
	}
	for _, owner := range owners {
		all, err := tx.QuotasOf(owner)
		if err != nil {
			return err
		}
		for _, m := range all {
			var more state.Amounts
			for _, g := range grown {
				if g.OwnerID == owner && state.Counts(m, g.ZoneID, g.Grade) {
					more = more.Plus(g.Amounts)
				}
			}
			sum, err := tx.Sum(m)
			if err != nil {
				return err
			}
			sum.Held = sum.Held.Plus(more.Negated()) // what was there before
			if err := within(m, sum, more); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxSnapshots is how many a VM has at most. Those that a zone has beside are known all the same.
const maxSnapshots = 8

// AnotherSnapshot refuses one more of a VM that has as many as are kept.
func AnotherSnapshot(tx *state.Tx, vm *apiv1.VM) error {
	n, err := tx.Snapshots.Count(state.Scope{"vm_id": vm.GetId()}, "")
	if err != nil || n < maxSnapshots {
		return err
	}
	return problem.Newf(problem.QuotaExceeded, "Delete one first: naru snapshot list --vm "+vm.GetName()+".",
		"VM %s has %d snapshots, and more than %d are not kept", vm.GetName(), n, maxSnapshots)
}

// Adds writes into a request that was resolved what it adds to what is used, and of which grade that is.
func Adds(tx *state.Tx, m *apiv1.Request) (err error) {
	m.Adds, m.AddsGrade = nil, apiv1.Zone_GRADE_UNSPECIFIED
	switch what := m.GetSpecification().GetWhat().(type) {
	case *apiv1.RequestSpecification_Create:
		return addsVMs(tx, m, what.Create)
	case *apiv1.RequestSpecification_Resize:
		vm, err := tx.VMs.Get(what.Resize.GetVmId())
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if grows := state.AmountsOfVM(what.Resize.GetSize()).Beyond(state.AmountsOfVM(vm.GetSize())); grows != (state.Amounts{}) {
			m.Adds = grows.Proto()
		}
		m.AddsGrade, err = tx.ChargedGrade(vm.GetId())
		return err
	case *apiv1.RequestSpecification_Snapshot:
		m.Adds = state.Amounts{Snapshots: 1}.Proto()
		m.AddsGrade, err = tx.ChargedGrade(what.Snapshot.GetVmId())
	}
	return err
}

func addsVMs(tx *state.Tx, m *apiv1.Request, ask *apiv1.CreateVMs) error {
	o, err := tx.Offerings.Version(ask.GetOfferingId(), ask.GetOfferingVersion())
	if errors.Is(err, state.ErrNotFound) {
		o, err = &apiv1.Offering{}, nil
	}
	if err != nil {
		return err
	}
	all := state.AmountsOfVM(m.GetAmount())
	all.VMs = int64(len(m.GetParts()))
	m.Adds = all.Proto()
	m.AddsGrade, err = tx.ImageGrade(o.GetImage())
	return err
}

// Allows refuses a request for which no quota leaves room.
func Allows(tx *state.Tx, m *apiv1.Request) error {
	if err := Adds(tx, m); err != nil || m.GetAdds() == nil {
		return err
	}
	at, err := cellOf(tx, m)
	if err != nil {
		return err
	}
	return Fits(tx, at, state.AmountsOf(m.GetAdds()))
}

// OverRequest returns the quotas in which what a request adds counts; none where it adds nothing.
func OverRequest(tx *state.Tx, m *apiv1.Request) ([]*apiv1.Quota, error) {
	if m.GetAdds() == nil {
		return nil, nil
	}
	at, err := cellOf(tx, m)
	if err != nil {
		return nil, err
	}
	return tx.QuotasOver(at.OwnerID, at.ZoneID, at.Grade)
}

func cellOf(tx *state.Tx, m *apiv1.Request) (state.Cell, error) {
	project, err := tx.Projects.Get(m.GetProjectId())
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return state.Cell{}, err
	}
	return state.Cell{OwnerID: m.GetProjectId(), ZoneID: m.GetZoneId(), Grade: grade.Highest(project.GetGrade(), m.GetAddsGrade())}, nil
}

// within refuses more than a quota leaves.
func within(m *apiv1.Quota, sum state.Sums, more state.Amounts) error {
	limit := m.GetLimit()
	if limit == nil {
		return nil
	}
	limits := []*uint32{limit.Vms, limit.Cores, limit.MemoryMib, limit.DiskGib, limit.Snapshots}
	units := []string{"VMs", "cores", "MiB of memory", "GiB of disk", "snapshots"}
	held, used, asked := sum.Held.Each(), sum.Used.Each(), more.Each()
	var said, plain []string
	for i, most := range limits {
		if most == nil || asked[i] <= 0 || used[i]+held[i]+asked[i] <= int64(*most) {
			continue
		}
		n := func(n int64) string { return strconv.FormatInt(n, 10) }
		said = append(said, n(asked[i])+" "+units[i]+" asked for, "+n(used[i])+" used and "+n(held[i])+" held of "+n(int64(*most)))
		plain = append(plain, n(asked[i])+" "+units[i]+" asked for, of at most "+n(int64(*most)))
	}
	if len(said) == 0 {
		return nil
	}
	over := problem.Newf(problem.QuotaExceeded,
		"Delete what is not needed, empty the trash or withdraw requests; or ask an administrator for a larger quota. naru quota show "+m.GetName()+" shows this one.",
		"the quota of %s does not allow it: %s", Of(m), strings.Join(said, "; "))
	over.Problem.Plain = "the quota of " + Of(m) + " does not allow it: " + strings.Join(plain, "; ") + "; how much of that is used is not shown here"
	return over
}

// Of says what a quota is of, and where: "project web in zone business, for sensitive VMs".
func Of(m *apiv1.Quota) string {
	s := "organization " + m.GetOrganization()
	if m.GetProject() != "" {
		s = "project " + m.GetProject()
	}
	if m.GetZone() != "" {
		s += " in zone " + m.GetZone()
	}
	if m.GetGrade() != apiv1.Zone_GRADE_UNSPECIFIED {
		s += ", for " + grade.Word(m.GetGrade()) + " VMs"
	}
	return s
}
