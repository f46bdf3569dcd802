package state

import (
	"errors"
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func usageRecords() *spec[*apiv1.UsageRecord] {
	return &spec[*apiv1.UsageRecord]{
		noun: "usage", plural: "usage_records", usual: "ends_at desc",
		zero:   func() *apiv1.UsageRecord { return &apiv1.UsageRecord{} },
		revise: func(m *apiv1.UsageRecord, r string) { m.Revision = r },
		columns: []column[*apiv1.UsageRecord]{
			enum("kind", (*apiv1.UsageRecord).GetKind).asFixed(),
			text("vm", (*apiv1.UsageRecord).GetVm).asFixed(),
			text("vm_id", (*apiv1.UsageRecord).GetVmId).asFixed(),
			text("project", (*apiv1.UsageRecord).GetProject).asFixed(),
			text("project_id", (*apiv1.UsageRecord).GetProjectId).asFixed(),
			text("organization", (*apiv1.UsageRecord).GetOrganization).asFixed(),
			text("organization_id", (*apiv1.UsageRecord).GetOrganizationId).asFixed(),
			text("zone", (*apiv1.UsageRecord).GetZone).asFixed(),
			text("zone_id", (*apiv1.UsageRecord).GetZoneId).asFixed(),
			text("cluster", (*apiv1.UsageRecord).GetCluster).asFixed(),
			text("offering", (*apiv1.UsageRecord).GetOffering).asFixed(),
			text("request", (*apiv1.UsageRecord).GetRequest).asFixed(),
			moment("starts_at", (*apiv1.UsageRecord).GetStartsAt).asFixed(),
			moment("ends_at", (*apiv1.UsageRecord).GetEndsAt).asFixed(),
			enum("state", (*apiv1.UsageRecord).GetState).asFixed(),
			number("cores", func(m *apiv1.UsageRecord) uint32 { return m.GetSize().GetCores() }).asFixed(),
			number("memory_mib", func(m *apiv1.UsageRecord) uint32 { return m.GetSize().GetMemoryMib() }).asFixed(),
			number("disk_gib", func(m *apiv1.UsageRecord) uint32 { return m.GetSize().GetDiskGib() }).asFixed(),
			flag("subtracts", (*apiv1.UsageRecord).GetSubtracts).asFixed(),
			flag("marked", func(m *apiv1.UsageRecord) bool { return len(m.GetMarks()) > 0 }).asFixed(),
			moment("recorded_at", (*apiv1.UsageRecord).GetRecordedAt).asFixed(),
		},
		further: []string{"(vm_id, ends_at)", "(project_id, ends_at)", "(zone_id, ends_at)", "(ends_at)"},
	}
}

// UsageHead returns how far a VM's use is counted. Errors: ErrNotFound.
func (tx *Tx) UsageHead(vmID string) (*commandv1.UsageHead, error) {
	m := &commandv1.UsageHead{}
	return m, tx.message(m, "SELECT message, crc FROM usage_heads WHERE vm_id=?", vmID)
}

// PutUsageHead stores how far the use of the VM is counted that m.of names.
func (tx *Tx) PutUsageHead(m *commandv1.UsageHead) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	tx.touch("usage_records")
	of, size := m.GetOf(), m.GetSize()
	return tx.write(`INSERT INTO usage_heads (vm_id, vm, project_id, project, organization_id, organization, zone_id, zone, state, cores, memory_mib, disk_gib, counted, gone, crc, message)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (vm_id) DO UPDATE SET vm=excluded.vm, project_id=excluded.project_id, project=excluded.project, organization_id=excluded.organization_id,
			organization=excluded.organization, zone_id=excluded.zone_id, zone=excluded.zone, state=excluded.state, cores=excluded.cores, memory_mib=excluded.memory_mib,
			disk_gib=excluded.disk_gib, counted=excluded.counted, gone=excluded.gone, crc=excluded.crc, message=excluded.message`,
		of.GetVmId(), of.GetVm(), of.GetProjectId(), of.GetProject(), of.GetOrganizationId(), of.GetOrganization(), of.GetZoneId(), of.GetZone(),
		int64(m.GetState()), size.GetCores(), size.GetMemoryMib(), size.GetDiskGib(), m.GetCounted(), m.GetGone(), checksum(b), b)
}

// ForgetUsageHead removes it.
func (tx *Tx) ForgetUsageHead(vmID string) error {
	tx.touch("usage_records")
	return tx.write("DELETE FROM usage_heads WHERE vm_id=?", vmID)
}

// GoneUsage returns up to limit heads of VMs that went before a time in seconds, earliest first.
func (tx *Tx) GoneUsage(before int64, limit int) (heads []*commandv1.UsageHead, err error) {
	err = tx.query("SELECT message, crc FROM usage_heads WHERE gone>0 AND gone<? ORDER BY gone, vm_id"+atMost, func(s *sqlite.Stmt) error {
		m := &commandv1.UsageHead{}
		heads = append(heads, m)
		return decodeInto(s, m, "usage_heads")
	}, before, limit)
	return heads, err
}

// UsageOf returns the records of a VM, whether it still exists or not, in the order of the ends of their spans.
func (tx *Tx) UsageOf(vmID string) ([]*apiv1.UsageRecord, error) {
	t := tx.UsageRecords
	return t.collect(t.spec.text.all+" WHERE vm_id=? ORDER BY ends_at, revision, id", vmID)
}

// UsageCount returns how many records of use there are of a VM.
func (tx *Tx) UsageCount(vmID string) (n int, err error) {
	err = tx.query("SELECT count(*) FROM usage_records WHERE vm_id=?", func(s *sqlite.Stmt) error {
		n = s.ColumnInt(0)
		return nil
	}, vmID)
	return n, err
}

// ForgetUsage removes all that is kept of a VM's use.
func (tx *Tx) ForgetUsage(vmID string) error {
	if err := tx.ForgetUsageHead(vmID); err != nil {
		return err
	}
	return tx.write("DELETE FROM usage_records WHERE vm_id=?", vmID)
}

// UsageQuery is what use is summed up.
type UsageQuery struct {
	// From and Until are in whole seconds since 1970; what goes on is counted up to Until.
	From, Until int64
	// By is the column by whose values there are sums: vm_id, project_id, organization_id or zone_id. Empty: there is one sum.
	By string
	// VM is an id or a name; empty: all.
	VM    string
	Scope Scope
	// Limit is how many sums there may be.
	Limit int
}

// UsageSum is the use of one value of a query's column.
type UsageSum struct {
	Key string
	// Common holds, of vm_id, vm, project_id, project, organization_id, organization, zone_id and zone, those that all of it has in common.
	Common map[string]string
	Parts  []UsagePart
	// GoingOn is of how many VMs a span goes on, Marked how many records are marked.
	GoingOn, Marked uint32
}

// UsagePart is the time that VMs of one size were in one state.
type UsagePart struct {
	State                     apiv1.VM_State
	Cores, MemoryMiB, DiskGiB uint64
	Seconds                   int64
}

// ErrTooManySums says that there are more sums than the limit of a query.
var ErrTooManySums = errors.New("there are more sums than may be asked for at once")

// usageNames are the columns that a sum may have in common.
var usageNames = []string{"vm_id", "vm", "project_id", "project", "organization_id", "organization", "zone_id", "zone"}

// SumUsage sums up what a table of records leaves, in the order of the keys. Errors: ErrTooManySums.
func SumUsage(t Table[*apiv1.UsageRecord], q UsageQuery) (sums []*UsageSum, err error) {
	key := "''"
	if q.By != "" {
		if _, ok := t.spec.column(q.By); !ok {
			return nil, fmt.Errorf("usage is not summed up by %q", q.By)
		}
		key = q.By
	}
	where, in, err := t.where(q.Scope)
	if err != nil {
		return nil, err
	}
	if q.VM != "" {
		where, in = append(where, "(vm_id=? OR vm=?)"), append(in, q.VM, q.VM)
	}
	names := strings.Join(usageNames, ", ")
	common := make([]string, 0, 2*len(usageNames))
	for _, n := range usageNames {
		common = append(common, "min("+n+")", "max("+n+")")
	}
	// Of spans and heads the same columns say whose and where they are, so that the same conditions narrow both.
	sql := `SELECT key, state, cores, memory_mib, disk_gib, sum(seconds), sum(going_on), sum(marked), ` + strings.Join(common, ", ") + ` FROM (
		SELECT ` + key + ` AS key, state, cores, memory_mib, disk_gib, marked AND ends_at>=? AND ends_at<? AS marked, 0 AS going_on, ` + names + `,
			CASE subtracts WHEN 0 THEN 1 ELSE -1 END * max(0, min(ends_at/1000000, ?) - max(starts_at/1000000, ?)) AS seconds
			FROM usage_records WHERE starts_at<=? AND ends_at>=?` + and(where) + `
		UNION ALL
		SELECT ` + key + `, state, cores, memory_mib, disk_gib, 0, gone=0, ` + names + `,
			max(0, min(CASE gone WHEN 0 THEN ? ELSE gone END, ?) - max(counted, ?))
			FROM usage_heads WHERE state<>0 AND counted<?` + and(where) + `
	) GROUP BY key, state, cores, memory_mib, disk_gib ORDER BY key, state, cores, memory_mib, disk_gib`
	from, until := q.From*1e6, q.Until*1e6
	args := append([]any{from, until, q.Until, q.From, until, from}, in...)
	args = append(append(args, q.Until, q.Until, q.From, q.Until), in...)
	err = t.tx.queryOnce(sql, func(s *sqlite.Stmt) error {
		var last *UsageSum
		if len(sums) > 0 {
			last = sums[len(sums)-1]
		}
		if last == nil || last.Key != s.ColumnText(0) {
			if len(sums) == q.Limit {
				return ErrTooManySums
			}
			last = &UsageSum{Key: s.ColumnText(0), Common: map[string]string{}}
			for i, n := range usageNames {
				last.Common[n] = s.ColumnText(8 + 2*i)
			}
			sums = append(sums, last)
		}
		for i, n := range usageNames {
			if s.ColumnText(8+2*i) != last.Common[n] || s.ColumnText(9+2*i) != last.Common[n] {
				last.Common[n] = ""
			}
		}
		last.Parts = append(last.Parts, UsagePart{
			State: apiv1.VM_State(s.ColumnInt64(1)), Cores: uint64(s.ColumnInt64(2)), MemoryMiB: uint64(s.ColumnInt64(3)),
			DiskGiB: uint64(s.ColumnInt64(4)), Seconds: s.ColumnInt64(5),
		})
		last.GoingOn += uint32(s.ColumnInt64(6))
		last.Marked += uint32(s.ColumnInt64(7))
		return nil
	}, args...)
	return sums, err
}
