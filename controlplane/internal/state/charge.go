package state

import (
	"cmp"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// What quotas count is kept as charges and sums. A charge is what one VM, snapshot or request takes, and where; a sum is all charges
// of a project, or of all projects of an organization and below it, in one zone and of one grade. Both are written here, with the
// noun that they follow from, in its transaction: whoever writes a VM cannot forget to count it.

// Amounts is so much of what quotas count.
type Amounts struct{ VMs, Cores, MemoryMiB, DiskGiB, Snapshots int64 }

// Plus adds.
func (a Amounts) Plus(b Amounts) Amounts {
	return Amounts{a.VMs + b.VMs, a.Cores + b.Cores, a.MemoryMiB + b.MemoryMiB, a.DiskGiB + b.DiskGiB, a.Snapshots + b.Snapshots}
}

func (a Amounts) minus(b Amounts) Amounts {
	return Amounts{a.VMs - b.VMs, a.Cores - b.Cores, a.MemoryMiB - b.MemoryMiB, a.DiskGiB - b.DiskGiB, a.Snapshots - b.Snapshots}
}

// Beyond is how much more of each a is than b.
func (a Amounts) Beyond(b Amounts) Amounts {
	more, _ := both(a.minus(b), Amounts{})
	return more
}

// Negated is as much less.
func (a Amounts) Negated() Amounts { return Amounts{}.minus(a) }

// Each returns the amounts by what they are of, always in the same order.
func (a Amounts) Each() []int64 { return []int64{a.VMs, a.Cores, a.MemoryMiB, a.DiskGiB, a.Snapshots} }

// Proto is a as the API shows it.
func (a Amounts) Proto() *apiv1.Amounts {
	n := func(n int64) *uint32 { return proto.Uint32(uint32(min(max(n, 0), math.MaxUint32))) }
	return &apiv1.Amounts{Vms: n(a.VMs), Cores: n(a.Cores), MemoryMib: n(a.MemoryMiB), DiskGib: n(a.DiskGiB), Snapshots: n(a.Snapshots)}
}

// AmountsOf is m as numbers.
func AmountsOf(m *apiv1.Amounts) Amounts {
	return Amounts{int64(m.GetVms()), int64(m.GetCores()), int64(m.GetMemoryMib()), int64(m.GetDiskGib()), int64(m.GetSnapshots())}
}

// AmountsOfVM is what one VM of a size takes.
func AmountsOfVM(r *apiv1.Resources) Amounts {
	return Amounts{VMs: 1, Cores: int64(r.GetCores()), MemoryMiB: int64(r.GetMemoryMib()), DiskGiB: int64(r.GetDiskGib())}
}

// both is the larger and the smaller of each.
func both(a, b Amounts) (high, low Amounts) {
	return Amounts{max(a.VMs, b.VMs), max(a.Cores, b.Cores), max(a.MemoryMiB, b.MemoryMiB), max(a.DiskGiB, b.DiskGiB), max(a.Snapshots, b.Snapshots)},
		Amounts{min(a.VMs, b.VMs), min(a.Cores, b.Cores), min(a.MemoryMiB, b.MemoryMiB), min(a.DiskGiB, b.DiskGiB), min(a.Snapshots, b.Snapshots)}
}

// Sums is what is held and what is used.
type Sums struct{ Held, Used Amounts }

// Plus adds.
func (s Sums) Plus(o Sums) Sums  { return Sums{s.Held.Plus(o.Held), s.Used.Plus(o.Used)} }
func (s Sums) minus(o Sums) Sums { return Sums{s.Held.minus(o.Held), s.Used.minus(o.Used)} }

// Total is both together.
func (s Sums) Total() Amounts { return s.Held.Plus(s.Used) }

// Cell is where something is counted: for whom, in which zone, and of which grade.
type Cell struct {
	// OwnerID is of a project, or of an organization.
	OwnerID, ZoneID string
	Grade           apiv1.Zone_Grade
}

func (c Cell) compare(o Cell) int {
	return cmp.Or(cmp.Compare(c.OwnerID, o.OwnerID), cmp.Compare(c.ZoneID, o.ZoneID), cmp.Compare(c.Grade, o.Grade))
}

// charge is what one thing takes, counted for its project.
type charge struct {
	Cell
	Sums
}

// ofVM is what a VM takes: all of it is held until it could first be used, and while it is resized the larger of both sizes. What is
// in the trash still takes it. One that is held at its zone's word alone takes nothing.
func ofVM(m *apiv1.VM) Sums {
	if m.GetProjectId() == "" || m.GetSize() == nil {
		return Sums{}
	}
	size := AmountsOfVM(m.GetSize())
	before := size
	if m.GetSizeBefore() != nil {
		before = AmountsOfVM(m.GetSizeBefore())
	}
	high, low := both(size, before)
	if m.GetUsableAt() == nil {
		return Sums{Held: high}
	}
	return Sums{Held: high.minus(low), Used: low}
}

// ofSnapshot is what a snapshot takes: one that was not taken, nothing.
func ofSnapshot(m *apiv1.Snapshot) Sums {
	one := Amounts{Snapshots: 1}
	switch m.GetState() {
	case apiv1.Snapshot_PENDING:
		return Sums{Held: one}
	case apiv1.Snapshot_READY, apiv1.Snapshot_DELETING:
		return Sums{Used: one}
	}
	return Sums{}
}

// ofRequest is what a request holds: what it adds, from its submission until it is begun or has come to nothing. What was begun is
// counted by what was made.
func ofRequest(m *apiv1.Request) Sums {
	open := m.GetApproval() == apiv1.Request_SUBMITTED || m.GetApproval() == apiv1.Request_IN_REVIEW || m.GetApproval() == apiv1.Request_APPROVED
	if !open || m.GetFulfilment() >= apiv1.Request_EXECUTING || len(m.GetOperations()) > 0 {
		return Sums{}
	}
	return Sums{Held: AmountsOf(m.GetAdds())}
}

func (tx *Tx) chargeVM(m *apiv1.VM) error {
	return tx.charge("vm", m.GetId(), ofVM(m), Cell{OwnerID: m.GetProjectId(), ZoneID: m.GetZoneId()}, func() (apiv1.Zone_Grade, error) {
		image, err := tx.ImageGrade(m.GetImage())
		return max(m.GetGrade(), image), err
	})
}

func (tx *Tx) chargeSnapshot(m *apiv1.Snapshot) error {
	return tx.charge("snapshot", m.GetId(), ofSnapshot(m), Cell{OwnerID: m.GetProjectId(), ZoneID: m.GetZoneId()}, func() (apiv1.Zone_Grade, error) {
		return tx.ChargedGrade(m.GetVmId())
	})
}

func (tx *Tx) chargeRequest(m *apiv1.Request) error {
	return tx.charge("request", m.GetId(), ofRequest(m), Cell{OwnerID: m.GetProjectId(), ZoneID: m.GetZoneId()}, func() (apiv1.Zone_Grade, error) {
		return m.GetAddsGrade(), nil
	})
}

// ImageGrade is the grade of the image of a name; none where there is none.
func (tx *Tx) ImageGrade(name string) (grade apiv1.Zone_Grade, err error) {
	return grade, tx.query("SELECT grade FROM images WHERE name=?", func(s *sqlite.Stmt) error {
		grade = apiv1.Zone_Grade(s.ColumnInt64(0))
		return nil
	}, name)
}

func (tx *Tx) projectGrade(id string) (grade apiv1.Zone_Grade, err error) {
	return grade, tx.query("SELECT grade FROM projects WHERE id=?", func(s *sqlite.Stmt) error {
		grade = apiv1.Zone_Grade(s.ColumnInt64(0))
		return nil
	}, id)
}

// ChargedGrade is the grade as which a VM is counted; none where it is not.
func (tx *Tx) ChargedGrade(vmID string) (apiv1.Zone_Grade, error) {
	c, _, err := tx.charged("vm", vmID)
	return c.Grade, err
}

const amountColumns = `held_vms, held_cores, held_memory, held_disk, held_snapshots, used_vms, used_cores, used_memory, used_disk, used_snapshots`

func (s Sums) columns() []any {
	var out []any
	for _, a := range []Amounts{s.Held, s.Used} {
		for _, n := range a.Each() {
			out = append(out, n)
		}
	}
	return out
}

// sumsAt reads amountColumns from a column on.
func sumsAt(s *sqlite.Stmt, i int) Sums {
	amounts := func(i int) Amounts {
		return Amounts{s.ColumnInt64(i), s.ColumnInt64(i + 1), s.ColumnInt64(i + 2), s.ColumnInt64(i + 3), s.ColumnInt64(i + 4)}
	}
	return Sums{amounts(i), amounts(i + 5)}
}

// charged returns what a thing is charged now.
func (tx *Tx) charged(noun, id string) (c charge, found bool, err error) {
	err = tx.query("SELECT project_id, zone_id, grade, "+amountColumns+" FROM charges WHERE noun=? AND id=?", func(s *sqlite.Stmt) error {
		found = true
		c = charge{Cell{s.ColumnText(0), s.ColumnText(1), apiv1.Zone_Grade(s.ColumnInt64(2))}, sumsAt(s, 3)}
		return nil
	}, noun, id)
	return c, found, err
}

// charge makes what a thing takes what it is now. grade is asked only where something else has changed: what changes grades says so
// by Regrade.
func (tx *Tx) charge(noun, id string, is Sums, at Cell, grade func() (apiv1.Zone_Grade, error)) error {
	was, found, err := tx.charged(noun, id)
	if err != nil {
		return err
	}
	if at.Grade = was.Grade; found && was == (charge{at, is}) || !found && is == (Sums{}) {
		return nil
	}
	if is == (Sums{}) {
		return tx.uncharge(noun, id)
	}
	asked, err := grade()
	if err != nil {
		return err
	}
	return tx.chargeAt(noun, id, was, charge{at, is}, asked)
}

// chargeAt counts a thing whose grade is the higher of what is asked and its project's.
func (tx *Tx) chargeAt(noun, id string, was, is charge, asked apiv1.Zone_Grade) error {
	project, err := tx.projectGrade(is.OwnerID)
	if err != nil {
		return err
	}
	is.Grade = max(apiv1.Zone_OPEN, asked, project)
	if was == is {
		return nil
	}
	args := append([]any{noun, id, is.OwnerID, is.ZoneID, int64(is.Grade)}, is.Sums.columns()...)
	if err := tx.write("INSERT OR REPLACE INTO charges (noun, id, project_id, zone_id, grade, "+amountColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", args...); err != nil {
		return err
	}
	return tx.recount(was, is)
}

// uncharge counts a thing no longer.
func (tx *Tx) uncharge(noun, id string) error {
	was, found, err := tx.charged(noun, id)
	if err != nil || !found {
		return err
	}
	if err := tx.write("DELETE FROM charges WHERE noun=? AND id=?", noun, id); err != nil {
		return err
	}
	return tx.recount(was, charge{})
}

// recount takes one charge out of the sums and puts another in.
func (tx *Tx) recount(was, is charge) error {
	if was.Cell == is.Cell {
		return tx.countFor(is.Cell, is.Sums.minus(was.Sums))
	}
	if err := tx.countFor(was.Cell, (Sums{}).minus(was.Sums)); err != nil {
		return err
	}
	return tx.countFor(is.Cell, is.Sums)
}

// ownersOf returns for whom a project's things are counted: itself, its organization and those above, nearest first.
func (tx *Tx) ownersOf(projectID string) ([]string, error) {
	organization := ""
	if err := tx.query("SELECT organization_id FROM projects WHERE id=?", func(s *sqlite.Stmt) error {
		organization = s.ColumnText(0)
		return nil
	}, projectID); err != nil {
		return nil, err
	}
	above, err := tx.OrganizationsAbove(organization)
	return append([]string{projectID}, above...), err
}

// countFor adds to the sums of a project and of the organizations above it.
func (tx *Tx) countFor(c Cell, more Sums) error {
	if more == (Sums{}) || c.OwnerID == "" {
		return nil
	}
	owners, err := tx.ownersOf(c.OwnerID)
	if err != nil {
		return err
	}
	return tx.countAt(owners, c, more)
}

func (tx *Tx) countAt(owners []string, c Cell, more Sums) error {
	for _, owner := range owners {
		c.OwnerID = owner
		args := append([]any{c.OwnerID, c.ZoneID, int64(c.Grade)}, more.columns()...)
		if err := tx.write(`INSERT INTO sums (owner_id, zone_id, grade, `+amountColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (owner_id, zone_id, grade) DO UPDATE SET
			held_vms=held_vms+excluded.held_vms, held_cores=held_cores+excluded.held_cores, held_memory=held_memory+excluded.held_memory,
			held_disk=held_disk+excluded.held_disk, held_snapshots=held_snapshots+excluded.held_snapshots,
			used_vms=used_vms+excluded.used_vms, used_cores=used_cores+excluded.used_cores, used_memory=used_memory+excluded.used_memory,
			used_disk=used_disk+excluded.used_disk, used_snapshots=used_snapshots+excluded.used_snapshots`, args...); err != nil {
			return err
		}
		if tx.grown == nil {
			tx.grown = map[Cell]Amounts{}
		}
		tx.grown[c] = tx.grown[c].Plus(more.Total())
	}
	if !slices.ContainsFunc(append(more.Held.Each(), more.Used.Each()...), func(n int64) bool { return n < 0 }) {
		return nil
	}
	return tx.dropEmptySums(owners, c)
}

// dropEmptySums keeps no row of nothing.
func (tx *Tx) dropEmptySums(owners []string, c Cell) error {
	for _, owner := range owners {
		if err := tx.write(`DELETE FROM sums WHERE owner_id=? AND zone_id=? AND grade=? AND held_vms=0 AND held_cores=0 AND held_memory=0 AND held_disk=0
			AND held_snapshots=0 AND used_vms=0 AND used_cores=0 AND used_memory=0 AND used_disk=0 AND used_snapshots=0`, owner, c.ZoneID, int64(c.Grade)); err != nil {
			return err
		}
	}
	return nil
}

// Growth is how much more is counted in a cell than at the last Measure.
type Growth struct {
	Cell
	Amounts
}

// Measure begins to note what grows.
func (tx *Tx) Measure() { tx.grown = nil }

// Grown returns what is counted otherwise than at the last Measure, in an order that is always the same.
func (tx *Tx) Grown() []Growth {
	var out []Growth
	for c, a := range tx.grown {
		if a != (Amounts{}) {
			out = append(out, Growth{c, a})
		}
	}
	slices.SortFunc(out, func(a, b Growth) int { return a.compare(b.Cell) })
	return out
}

// Sum is what a quota counts now.
func (tx *Tx) Sum(m *apiv1.Quota) (sum Sums, err error) {
	owner := m.GetProjectId()
	if owner == "" {
		owner = m.GetOrganizationId()
	}
	err = tx.query("SELECT zone_id, grade, "+amountColumns+" FROM sums WHERE owner_id=? ORDER BY zone_id, grade", func(s *sqlite.Stmt) error {
		if Counts(m, s.ColumnText(0), apiv1.Zone_Grade(s.ColumnInt64(1))) {
			sum = sum.Plus(sumsAt(s, 2))
		}
		return nil
	}, owner)
	return sum, err
}

// MoveSums counts what is counted for a project or an organization under one organization instead of another.
func (tx *Tx) MoveSums(ownerID, from, to string) error {
	if from == to {
		return nil
	}
	var all []charge
	if err := tx.query("SELECT zone_id, grade, "+amountColumns+" FROM sums WHERE owner_id=? ORDER BY zone_id, grade", func(s *sqlite.Stmt) error {
		all = append(all, charge{Cell{ZoneID: s.ColumnText(0), Grade: apiv1.Zone_Grade(s.ColumnInt64(1))}, sumsAt(s, 2)})
		return nil
	}, ownerID); err != nil {
		return err
	}
	old, err := tx.OrganizationsAbove(from)
	if err != nil {
		return err
	}
	is, err := tx.OrganizationsAbove(to)
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := tx.countAt(old, c.Cell, (Sums{}).minus(c.Sums)); err != nil {
			return err
		}
		if err := tx.countAt(is, c.Cell, c.Sums); err != nil {
			return err
		}
	}
	return nil
}

// Regrade counts anew what the grade of a project, or else of an image, decides on.
func (tx *Tx) Regrade(projectID, image string) error {
	scope := Scope{"image": image}
	if projectID != "" {
		scope = Scope{"project_id": projectID}
	}
	var vms []*apiv1.VM
	for m, err := range tx.VMs.All(scope) {
		if err != nil {
			return err
		}
		vms = append(vms, m)
	}
	for _, m := range vms {
		asked, err := tx.ImageGrade(m.GetImage())
		if err != nil {
			return err
		}
		if err := tx.regrade("vm", m.GetId(), max(asked, m.GetGrade())); err != nil {
			return err
		}
		of, err := tx.ChargedGrade(m.GetId())
		if err != nil {
			return err
		}
		snapshots, err := tx.SnapshotsOf(m.GetId())
		if err != nil {
			return err
		}
		for _, s := range snapshots {
			if err := tx.regrade("snapshot", s.GetId(), of); err != nil {
				return err
			}
		}
	}
	if projectID == "" {
		return nil
	}
	ids, err := tx.Holding(projectID)
	if err != nil {
		return err
	}
	for _, id := range ids {
		m, err := tx.Requests.Get(id)
		if err != nil {
			return err
		}
		if err := tx.regrade("request", id, m.GetAddsGrade()); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) regrade(noun, id string, asked apiv1.Zone_Grade) error {
	was, found, err := tx.charged(noun, id)
	if err != nil || !found {
		return err
	}
	return tx.chargeAt(noun, id, was, was, asked)
}

// Holding returns the ids of the requests that hold something in a project.
func (tx *Tx) Holding(projectID string) (ids []string, err error) {
	err = tx.query("SELECT id FROM charges WHERE project_id=? AND noun='request' ORDER BY id", func(s *sqlite.Stmt) error {
		ids = append(ids, s.ColumnText(0))
		return nil
	}, projectID)
	return ids, err
}
