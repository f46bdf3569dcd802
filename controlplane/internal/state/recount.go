package state

import (
	"slices"

	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Drift is a cell whose sums are not those of the things that are counted in it.
type Drift struct {
	Cell
	Kept, Real Sums
}

// Recount sums all VMs, snapshots and requests anew, with nothing of what is kept, and returns where that differs. It reads every
// one of them.
func (tx *Tx) Recount() ([]Drift, error) {
	found := map[Cell]Sums{}
	owners := map[string][]string{}
	grades := map[string]apiv1.Zone_Grade{} // of VMs
	add := func(project, zone string, asked apiv1.Zone_Grade, is Sums) (grade apiv1.Zone_Grade, err error) {
		if grade, err = tx.projectGrade(project); err != nil {
			return 0, err
		}
		grade = max(apiv1.Zone_OPEN, asked, grade)
		if is == (Sums{}) {
			return grade, nil
		}
		if owners[project] == nil {
			if owners[project], err = tx.ownersOf(project); err != nil {
				return 0, err
			}
		}
		for _, owner := range owners[project] {
			c := Cell{owner, zone, grade}
			found[c] = found[c].Plus(is)
		}
		return grade, nil
	}
	for m, err := range tx.VMs.All(nil) {
		if err != nil {
			return nil, err
		}
		image, err := tx.ImageGrade(m.GetImage())
		if err != nil {
			return nil, err
		}
		if grades[m.GetId()], err = add(m.GetProjectId(), m.GetZoneId(), max(m.GetGrade(), image), ofVM(m)); err != nil {
			return nil, err
		}
	}
	for m, err := range tx.Snapshots.All(nil) {
		if err != nil {
			return nil, err
		}
		if _, err := add(m.GetProjectId(), m.GetZoneId(), grades[m.GetVmId()], ofSnapshot(m)); err != nil {
			return nil, err
		}
	}
	for m, err := range tx.Requests.rows(tx.Requests.spec.text.all+" WHERE approval IN (?, ?, ?) AND fulfilment<? ORDER BY id",
		int64(apiv1.Request_SUBMITTED), int64(apiv1.Request_IN_REVIEW), int64(apiv1.Request_APPROVED), int64(apiv1.Request_EXECUTING)) {
		if err != nil {
			return nil, err
		}
		if _, err := add(m.GetProjectId(), m.GetZoneId(), m.GetAddsGrade(), ofRequest(m)); err != nil {
			return nil, err
		}
	}
	kept := map[Cell]Sums{}
	if err := tx.query("SELECT owner_id, zone_id, grade, "+amountColumns+" FROM sums ORDER BY owner_id, zone_id, grade", func(s *sqlite.Stmt) error {
		kept[Cell{s.ColumnText(0), s.ColumnText(1), apiv1.Zone_Grade(s.ColumnInt64(2))}] = sumsAt(s, 3)
		return nil
	}); err != nil {
		return nil, err
	}
	var out []Drift
	for c, is := range found {
		if kept[c] != is {
			out = append(out, Drift{c, kept[c], is})
		}
	}
	for c, was := range kept {
		if _, ok := found[c]; !ok {
			out = append(out, Drift{Cell: c, Kept: was})
		}
	}
	slices.SortFunc(out, func(a, b Drift) int { return a.compare(b.Cell) })
	return out, nil
}
