package state

import (
	"strings"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func quotas() *spec[*apiv1.Quota] {
	return &spec[*apiv1.Quota]{
		noun: "quota", plural: "quotas", named: true,
		zero:   func() *apiv1.Quota { return &apiv1.Quota{} },
		revise: func(m *apiv1.Quota, r string) { m.Revision = r },
		derive: deriveQuota, underive: func(m *apiv1.Quota) { m.Held, m.Used, m.Left = nil, nil, nil },
		columns: []column[*apiv1.Quota]{
			text("name", (*apiv1.Quota).GetName).asFixed(),
			text("project", (*apiv1.Quota).GetProject).asFixed(),
			text("project_id", (*apiv1.Quota).GetProjectId).asFixed(),
			text("organization", (*apiv1.Quota).GetOrganization).asFixed(),
			text("organization_id", (*apiv1.Quota).GetOrganizationId).asFixed(),
			text("zone", (*apiv1.Quota).GetZone).asFixed(),
			text("zone_id", (*apiv1.Quota).GetZoneId).asFixed(),
			enum("grade", (*apiv1.Quota).GetGrade).asFixed(),
			moment("created_at", (*apiv1.Quota).GetCreatedAt),
		},
		further: []string{"(project_id)", "(organization_id)", "(zone_id)"},
	}
}

// QuotaName is the name of a quota: what it is of, and where.
func QuotaName(m *apiv1.Quota) string {
	name := "organization." + m.GetOrganization()
	if m.GetProject() != "" {
		name = "project." + m.GetProject()
	}
	if m.GetZone() != "" {
		name += "@" + m.GetZone()
	}
	if m.GetGrade() != apiv1.Zone_GRADE_UNSPECIFIED {
		name += "." + strings.ToLower(m.GetGrade().String())
	}
	return name
}

// QuotasOf returns the quotas of a project or an organization, by name.
func (tx *Tx) QuotasOf(ownerID string) ([]*apiv1.Quota, error) {
	t := tx.Quotas
	return t.collect(t.spec.text.all+" WHERE project_id=?1 OR organization_id=?1 ORDER BY name", ownerID)
}

// QuotasOver returns the quotas that count what a project has, or will have, in a zone and of a grade; in any zone, or of any
// grade, where none is named. Its own come first, and then those of the organizations above it, nearest first.
func (tx *Tx) QuotasOver(projectID, zoneID string, grade apiv1.Zone_Grade) ([]*apiv1.Quota, error) {
	owners, err := tx.ownersOf(projectID)
	if err != nil {
		return nil, err
	}
	var out []*apiv1.Quota
	for _, owner := range owners {
		all, err := tx.QuotasOf(owner)
		if err != nil {
			return nil, err
		}
		for _, m := range all {
			if (zoneID == "" || Counts(m, zoneID, m.GetGrade())) && (grade == 0 || Counts(m, m.GetZoneId(), grade)) {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// Counts reports whether a quota counts what stands in a zone and is of a grade.
func Counts(m *apiv1.Quota, zoneID string, grade apiv1.Zone_Grade) bool {
	return (m.GetZoneId() == "" || m.GetZoneId() == zoneID) && (m.GetGrade() == apiv1.Zone_GRADE_UNSPECIFIED || m.GetGrade() == grade)
}

// deriveQuota writes what is held and used of a quota, and what is left.
func deriveQuota(tx *Tx, m *apiv1.Quota) error {
	sum, err := tx.Sum(m)
	if err != nil {
		return err
	}
	limit := m.GetLimit()
	if limit == nil {
		limit = &apiv1.Amounts{}
	}
	left := &apiv1.Amounts{}
	for _, x := range []struct {
		limit        *uint32
		left         **uint32
		used, isHeld int64
	}{
		{limit.Vms, &left.Vms, sum.Used.VMs, sum.Held.VMs}, {limit.Cores, &left.Cores, sum.Used.Cores, sum.Held.Cores},
		{limit.MemoryMib, &left.MemoryMib, sum.Used.MemoryMiB, sum.Held.MemoryMiB}, {limit.DiskGib, &left.DiskGib, sum.Used.DiskGiB, sum.Held.DiskGiB},
		{limit.Snapshots, &left.Snapshots, sum.Used.Snapshots, sum.Held.Snapshots},
	} {
		if x.limit != nil {
			*x.left = proto.Uint32(uint32(max(0, int64(*x.limit)-x.used-x.isHeld)))
		}
	}
	m.Held, m.Used, m.Left = sum.Held.Proto(), sum.Used.Proto(), left
	return nil
}
