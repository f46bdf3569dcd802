package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func organizations() *spec[*apiv1.Organization] {
	return &spec[*apiv1.Organization]{
		noun: "organization", plural: "organizations", named: true,
		zero:   func() *apiv1.Organization { return &apiv1.Organization{} },
		revise: func(m *apiv1.Organization, r string) { m.Revision = r },
		columns: []column[*apiv1.Organization]{
			text("name", (*apiv1.Organization).GetName).asFixed(),
			text("title", (*apiv1.Organization).GetTitle),
			text("parent", (*apiv1.Organization).GetParent),
			text("parent_id", (*apiv1.Organization).GetParentId),
			moment("created_at", (*apiv1.Organization).GetCreatedAt),
		},
		further: []string{"(parent_id)"},
	}
}

// OrganizationsAbove returns the ids of an organization and of all that it stands below, nearest first; of one that does not
// exist, none.
func (tx *Tx) OrganizationsAbove(id string) ([]string, error) {
	return tx.kin(id, "SELECT o.parent_id, kin.far+1 FROM organizations o JOIN kin ON o.id=kin.id")
}

// OrganizationsBelow returns the ids of an organization and of all that stand below it, nearest first; of one that does not
// exist, none.
func (tx *Tx) OrganizationsBelow(id string) ([]string, error) {
	return tx.kin(id, "SELECT o.id, kin.far+1 FROM organizations o JOIN kin ON o.parent_id=kin.id")
}

// kin goes through the tree from one organization by the step given, which adds to kin(id, far).
func (tx *Tx) kin(id, step string) (ids []string, err error) {
	if id == "" {
		return nil, nil
	}
	err = tx.query(`WITH RECURSIVE kin(id, far) AS (SELECT ?, 0 UNION `+step+`)
		SELECT o.id FROM kin JOIN organizations o ON o.id=kin.id ORDER BY kin.far, o.id`, func(s *sqlite.Stmt) error {
		ids = append(ids, s.ColumnText(0))
		return nil
	}, id)
	return ids, err
}

// OrganizationLevels returns how many levels the tree has below an organization, itself counted.
func (tx *Tx) OrganizationLevels(id string) (levels int, err error) {
	err = tx.first(`WITH RECURSIVE kin(id, far) AS (SELECT ?, 1 UNION SELECT o.id, kin.far+1 FROM organizations o JOIN kin ON o.parent_id=kin.id)
		SELECT max(far) FROM kin`, func(s *sqlite.Stmt) error {
		levels = s.ColumnInt(0)
		return nil
	}, id)
	return levels, err
}
